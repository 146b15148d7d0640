/* test_gpu_memory.c: a driver of OpenCL that takes memory when it is first used, and has not got it then: the allocation says so, and the
 * device goes on; and its memory on this side. On PoCL's device, which is told to be none of a CPU's, or on a card; skipped where there is neither.
 *
 * dlsym is wrapped (the linker's --wrap): where opencl.c looks for the functions that make, free and fill memory and look at events, it finds those
 * that stand here. */
#if __has_include(<CL/cl.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "gpu/device_check.h"

enum { N_BYTES = 1000 };

void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);

static __typeof__(&clCreateBuffer) real_create;
static __typeof__(&clReleaseMemObject) real_release;
static __typeof__(&clEnqueueFillBuffer) real_fill;
static __typeof__(&clGetEventInfo) real_event_info;

/* How filling fails, when it is queued or later; CL_SUCCESS: it does not. */
static cl_int queued_status, later_status;
static unsigned n_fills;
static int n_host_buffers; /* that are there */
static cl_mem host_buffers[8];

static cl_mem CL_API_CALL create_buffer(cl_context context, cl_mem_flags flags, size_t size, void *host,
                                        cl_int *status)
{
    cl_mem made = real_create(context, flags, size, host, status);
    if (made && flags & CL_MEM_ALLOC_HOST_PTR)
        host_buffers[n_host_buffers++] = made;
    return made;
}

static cl_int CL_API_CALL release_memory(cl_mem memory)
{
    for (int i = 0; i < n_host_buffers; i++)
        if (host_buffers[i] == memory) {
            host_buffers[i] = host_buffers[--n_host_buffers];
            break;
        }
    return real_release(memory);
}

static cl_int CL_API_CALL fill(cl_command_queue queue, cl_mem memory, const void *pattern,
                               size_t pattern_size, size_t offset, size_t size, cl_uint n_events,
                               const cl_event *events, cl_event *event)
{
    n_fills++;
    return queued_status
               ? queued_status
               : real_fill(queue, memory, pattern, pattern_size, offset, size, n_events, events, event);
}

static cl_int CL_API_CALL get_event_info(cl_event event, cl_event_info what, size_t size, void *value,
                                         size_t *size_of_value)
{
    cl_int status = real_event_info(event, what, size, value, size_of_value);
    if (later_status && what == CL_EVENT_COMMAND_EXECUTION_STATUS)
        memcpy(value, &later_status, sizeof later_status);
    return status;
}

void *__wrap_dlsym(void *library, const char *name)
{
    void *found = __real_dlsym(library, name);
    if (found && !strcmp(name, "clCreateBuffer")) {
        real_create = (__typeof__(real_create))found;
        return (void *)create_buffer;
    }
    if (found && !strcmp(name, "clReleaseMemObject")) {
        real_release = (__typeof__(real_release))found;
        return (void *)release_memory;
    }
    if (found && !strcmp(name, "clEnqueueFillBuffer")) {
        real_fill = (__typeof__(real_fill))found;
        return (void *)fill;
    }
    if (found && !strcmp(name, "clGetEventInfo")) {
        real_event_info = (__typeof__(real_event_info))found;
        return (void *)get_event_info;
    }
    return found;
}

/* The device of test_gpu once more, as one that is no CPU, or is one. */
static struct gpu *open_as(bool is_cpu)
{
    struct gpu *gpu = NULL;
    struct gpu_info info = *gpu_get_info(test_gpu);
    info.is_cpu = is_cpu;
    MUST(gpu_open(&info, &gpu, &test_error));
    return gpu;
}

/* Of the system's memory, which PoCL's is, every process does the same. */
static void memory_of_a_card_is_used_at_once(void **state)
{
    (void)state;
    for (int is_cpu = 0; is_cpu < 2; is_cpu++) {
        struct gpu *gpu = open_as(is_cpu);
        struct gpu_buffer buffer;
        n_fills = 0;
        MUST(gpu_alloc(gpu, N_BYTES, &buffer, &test_error));
        assert_int_equal(n_fills, is_cpu ? 0 : 1);
        assert_int_equal(buffer.n_bytes, N_BYTES);
        gpu_free(gpu, &buffer);
        gpu_close(gpu);
    }
}

static void what_is_missing_at_the_first_use_is_no_loss(void **state)
{
    (void)state;
    static const cl_int statuses[] = {CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES,
                                      CL_OUT_OF_HOST_MEMORY};
    struct gpu *gpu = open_as(false);
    for (size_t i = 0; i < 2 * sizeof statuses / sizeof *statuses; i++) {
        struct gpu_buffer buffer = {.handle = 0};
        *(i % 2 ? &queued_status : &later_status) = statuses[i / 2];
        int failure = gpu_alloc(gpu, N_BYTES, &buffer, &test_error);
        queued_status = later_status = CL_SUCCESS;
        assert_int_equal(failure, RUNNEL_ENOMEM);
        assert_non_null(strstr(test_error.message, "0 MiB could not be had: "));
        assert_int_equal(buffer.handle, 0);
        assert_false(gpu_is_lost(gpu));
        MUST(gpu_alloc(gpu, N_BYTES, &buffer, &test_error));
        gpu_free(gpu, &buffer);
    }
    gpu_close(gpu);
}

/* Copies from and to any other memory may wait for the queue; and what nobody gave back goes with the device. */
static void memory_of_this_side_is_the_drivers(void **state)
{
    (void)state;
    for (int is_cpu = 0; is_cpu < 2; is_cpu++) {
        struct gpu *gpu = open_as(is_cpu);
        struct gpu_buffer buffer;
        unsigned char *given[3];
        for (int i = 0; i < 3; i++)
            assert_non_null(given[i] = gpu_alloc_host(gpu, N_BYTES));
        assert_int_equal(n_host_buffers, is_cpu ? 0 : 3);
        MUST(gpu_alloc(gpu, N_BYTES, &buffer, &test_error));
        for (int i = 0; i < N_BYTES; i++) {
            given[0][i] = (unsigned char)(i * 7);
            given[2][i] = 0;
        }
        MUST(gpu_write(gpu, gpu_at(buffer, 0), given[0], N_BYTES, &test_error));
        MUST(gpu_read(gpu, gpu_at(buffer, 0), given[2], N_BYTES, &test_error));
        MUST(gpu_finish(gpu, 60e3, &test_error));
        assert_memory_equal(given[0], given[2], N_BYTES);
        gpu_free_host(gpu, given[1]);
        assert_int_equal(n_host_buffers, is_cpu ? 0 : 2);
        if (is_cpu) {
            gpu_free_host(gpu, given[0]);
            gpu_free_host(gpu, given[2]);
        }
        gpu_free(gpu, &buffer);
        gpu_close(gpu);
        assert_int_equal(n_host_buffers, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_a_card_is_used_at_once),
        cmocka_unit_test(what_is_missing_at_the_first_use_is_no_loss),
        cmocka_unit_test(memory_of_this_side_is_the_drivers),
    };
    open_test_gpu();
    if (strcmp(gpu_get_info(test_gpu)->interface, "opencl") != 0) {
        puts("skipped: it is not OpenCL's");
        return 77;
    }
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    gpu_close(test_gpu);
    return n_failed;
}

#else
#include <stdio.h>

int main(void)
{
    puts("skipped: OpenCL's headers are not installed");
    return 77;
}
#endif
