/* test_cuda.c: cuda.c with a libcuda that is made up here: what it lists, what it says of a driver that does not start or lacks something,
 * in which order it calls, and which failures lose the device. No card is needed; skipped where the build has no PTX.
 *
 * dlopen and dlsym are wrapped (the linker's --wrap): libcuda.so.1 is what stands here, and libOpenCL.so.1 is not installed. */
#include "gpu/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    SKIPPED = 77,
    N_DEVICES = 4,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    NOT_READY = 600,
    FAULT = 700,
    MISMATCH = 803
};

void *__real_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags);
void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);

/* The library, and what it is to do. */
struct made_up {
    bool is_missing;
    const char *lacks;                         /* a function; NULL: none */
    const char *fails;                         /* the function that fails ... */
    int result;                                /* ... so */
    unsigned n_unfinished;                     /* questions after which what is queued has ended */
    char calls[1024];                          /* names, since the test began to look */
    int context;                               /* of this thread */
    uint64_t arguments[3];                     /* of the last launch: a buffer, an offset, a number */
    unsigned n_modules, n_buffers, n_contexts; /* that are there */
};
static struct made_up made_up;

/* What happens in a function of this name: 0, or how it fails. */
static int call(const char *name)
{
    size_t len = strlen(made_up.calls);
    snprintf(made_up.calls + len, sizeof made_up.calls - len, "%s%s", len ? " " : "", name);
    return made_up.fails && !strcmp(made_up.fails, name) ? made_up.result : 0;
}

/* Likewise, with a context. */
static int enter(const char *name)
{
    assert_int_equal(made_up.context, 1);
    return call(name);
}

static int get_error_string(int result, const char **text)
{
    *text = result == OUT_OF_MEMORY ? "out of memory" : result == MISMATCH ? "driver mismatch" : "it failed";
    return 0;
}

static int init(unsigned flags)
{
    return call("init") + (int)flags;
}

static int driver_version(int *version)
{
    *version = 12040;
    return 0;
}

static int device_count(int *n)
{
    *n = N_DEVICES;
    return call("count");
}

static int device_get(int *device, int index)
{
    *device = index;
    return 0;
}

static int device_name(char *name, int size, int device)
{
    snprintf(name, (size_t)size, "Card %d", device);
    return 0;
}

/* Device 1 is too old, 2 is not to be used. */
static int device_attribute(int *value, int what, int device)
{
    static const int majors[N_DEVICES] = {8, 5, 8, 7}, minors[N_DEVICES] = {9, 2, 6, 5};
    *value = what == 75 ? majors[device] : what == 76 ? minors[device] : what == 20 ? (device == 2) * 2 : 0;
    if (what == 16)
        *value = 128;
    return 0;
}

static int device_memory(size_t *n_bytes, int device)
{
    *n_bytes = (size_t)(device + 1) << 30;
    return 0;
}

static int context_retain(void **context, int device)
{
    (void)device;
    *context = &made_up;
    made_up.n_contexts++;
    return call("retain");
}

static int context_release(int device)
{
    (void)device;
    made_up.n_contexts--;
    return call("release");
}

static int context_set(void *context)
{
    made_up.context = context == &made_up;
    return 0;
}

static int memory_info(size_t *n_free, size_t *n_total)
{
    *n_free = 1 << 20;
    *n_total = 2 << 20;
    return enter("info");
}

static int memory_alloc(unsigned long long *address, size_t n_bytes)
{
    int result = enter("alloc");
    *address = n_bytes ? 0x10000 : 0;
    made_up.n_buffers += !result;
    return result;
}

static int memory_free(unsigned long long address)
{
    assert_int_equal(address, 0x10000);
    made_up.n_buffers--;
    return enter("free");
}

static int host_alloc(void **memory, size_t n_bytes, unsigned flags)
{
    *memory = malloc(n_bytes + flags);
    return enter("host_alloc");
}

static int host_free(void *memory)
{
    free(memory);
    return enter("host_free");
}

static int write_memory(unsigned long long to, const void *data, size_t n_bytes, void *stream)
{
    (void)to, (void)data, (void)n_bytes, (void)stream;
    return enter("write");
}

static int read_memory(void *data, unsigned long long from, size_t n_bytes, void *stream)
{
    (void)from, (void)data, (void)n_bytes, (void)stream;
    return enter("read");
}

static int copy_memory(unsigned long long to, unsigned long long from, size_t n_bytes, void *stream)
{
    (void)to, (void)from, (void)n_bytes, (void)stream;
    return enter("copy");
}

static int set_memory(unsigned long long to, unsigned value, size_t n, void *stream)
{
    (void)to, (void)value, (void)n, (void)stream;
    return enter("set");
}

static int stream_create(void **stream, unsigned flags)
{
    assert_int_equal(flags, 1); /* nothing else's stream waits for it */
    *stream = &made_up;
    return enter("stream");
}

static int event_create(void **event, unsigned flags)
{
    assert_int_equal(flags, 2);
    *event = &made_up;
    return enter("event");
}

static int destroy(void *what)
{
    return what == &made_up ? enter("destroy") : 1;
}

static int event_record(void *event, void *stream)
{
    (void)event, (void)stream;
    return enter("mark");
}

static int event_query(void *event)
{
    (void)event;
    int result = call("query");
    if (result)
        return result;
    return made_up.n_unfinished && made_up.n_unfinished-- ? NOT_READY : 0;
}

static int module_load(void **module, const void *ptx, unsigned n, int *keys, void **values)
{
    assert_non_null(strstr(ptx, ".target sm_"));
    assert_int_equal(n, 2);
    assert_int_equal(keys[0], 5);
    int result = enter("load");
    if (result)
        snprintf(values[0], (size_t)values[1], "ptxas: line 7\nand more");
    *module = &made_up;
    made_up.n_modules += !result;
    return result;
}

static int module_unload(void *module)
{
    (void)module;
    made_up.n_modules--;
    return enter("unload");
}

static int module_function(void **function, void *module, const char *name)
{
    (void)module;
    assert_string_equal(name, "prepare");
    *function = &made_up;
    return enter("function");
}

static int launch(void *function, unsigned x, unsigned y, unsigned z, unsigned local_x, unsigned local_y,
                  unsigned local_z, unsigned n_shared, void *stream, void **parameters, void **extra)
{
    (void)function, (void)n_shared, (void)stream, (void)extra;
    assert_int_equal(x * 100 + y * 10 + z, 321);
    assert_int_equal(local_x * local_y * local_z, 256);
    made_up.arguments[0] = *(uint64_t *)parameters[0];
    made_up.arguments[1] = *(uint64_t *)parameters[1];
    made_up.arguments[2] = *(uint32_t *)parameters[2];
    return enter("launch");
}

static int capture_begin(void *stream, int mode)
{
    (void)stream;
    assert_int_equal(mode, 1); /* of this thread: others may call what is not allowed meanwhile */
    return enter("capture");
}

static int capture_end(void *stream, void **graph)
{
    (void)stream;
    int result = enter("end");
    *graph = result ? NULL : &made_up;
    return result;
}

static int graph_destroy(void *graph)
{
    (void)graph;
    return enter("graph_destroy");
}

static int graph_instantiate(void **exec, void *graph, unsigned long long flags)
{
    (void)graph;
    *exec = &made_up;
    return enter("instantiate") + (int)flags;
}

static int graph_launch(void *exec, void *stream)
{
    (void)exec, (void)stream;
    return enter("replay");
}

static int exec_destroy(void *exec)
{
    (void)exec;
    return enter("exec_destroy");
}

static const struct {
    const char *name;
    void (*function)(void);
} functions[] = {
#define FUNCTION(name, function)                                                                             \
    {                                                                                                        \
        name, (void (*)(void))function                                                                       \
    }
    FUNCTION("cuGetErrorString", get_error_string),
    FUNCTION("cuInit", init),
    FUNCTION("cuDriverGetVersion", driver_version),
    FUNCTION("cuDeviceGetCount", device_count),
    FUNCTION("cuDeviceGet", device_get),
    FUNCTION("cuDeviceGetName", device_name),
    FUNCTION("cuDeviceGetAttribute", device_attribute),
    FUNCTION("cuDeviceTotalMem_v2", device_memory),
    FUNCTION("cuDevicePrimaryCtxRetain", context_retain),
    FUNCTION("cuDevicePrimaryCtxRelease_v2", context_release),
    FUNCTION("cuCtxSetCurrent", context_set),
    FUNCTION("cuMemGetInfo_v2", memory_info),
    FUNCTION("cuMemAlloc_v2", memory_alloc),
    FUNCTION("cuMemFree_v2", memory_free),
    FUNCTION("cuMemHostAlloc", host_alloc),
    FUNCTION("cuMemFreeHost", host_free),
    FUNCTION("cuMemcpyHtoDAsync_v2", write_memory),
    FUNCTION("cuMemcpyDtoHAsync_v2", read_memory),
    FUNCTION("cuMemcpyDtoDAsync_v2", copy_memory),
    FUNCTION("cuMemsetD32Async", set_memory),
    FUNCTION("cuStreamCreate", stream_create),
    FUNCTION("cuStreamDestroy_v2", destroy),
    FUNCTION("cuEventCreate", event_create),
    FUNCTION("cuEventDestroy_v2", destroy),
    FUNCTION("cuEventRecord", event_record),
    FUNCTION("cuEventQuery", event_query),
    FUNCTION("cuModuleLoadDataEx", module_load),
    FUNCTION("cuModuleUnload", module_unload),
    FUNCTION("cuModuleGetFunction", module_function),
    FUNCTION("cuLaunchKernel", launch),
    FUNCTION("cuStreamBeginCapture_v2", capture_begin),
    FUNCTION("cuStreamEndCapture", capture_end),
    FUNCTION("cuGraphDestroy", graph_destroy),
    FUNCTION("cuGraphInstantiateWithFlags", graph_instantiate),
    FUNCTION("cuGraphLaunch", graph_launch),
    FUNCTION("cuGraphExecDestroy", exec_destroy),
};

void *__wrap_dlopen(const char *path, int flags)
{
    if (path && !strcmp(path, "libcuda.so.1"))
        return made_up.is_missing ? NULL : &made_up;
    return path && !strcmp(path, "libOpenCL.so.1") ? NULL : __real_dlopen(path, flags);
}

void *__wrap_dlsym(void *library, const char *name)
{
    if (library != &made_up)
        return __real_dlsym(library, name);
    if (made_up.lacks && !strcmp(made_up.lacks, name))
        return NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i].name, name))
            return (void *)functions[i].function;
    fail_msg("%s is not made up", name);
    return NULL;
}

/* Listing --------------------------------------------------------------------------------------------------- */

static struct gpu_info infos[8];
static runnel_error problem, error;

static uint32_t list(void)
{
    uint32_t n = 77;
    gpu_list(infos, 8, &n, &problem);
    return n;
}

static void devices_that_can_be_used_are_listed(void **state)
{
    (void)state;
    made_up = (struct made_up){0};
    assert_int_equal(list(), 2);
    assert_int_equal(problem.code, RUNNEL_OK);
    assert_string_equal(infos[0].name, "Card 0");
    assert_string_equal(infos[0].driver, "CUDA 12.4, sm_89");
    assert_string_equal(infos[1].driver, "CUDA 12.4, sm_75");
    assert_true(gpu_is_exact(&infos[0]) && infos[0].has_recordings && !infos[0].is_cpu);
    assert_true(infos[0].has_matrix_units && !infos[1].has_matrix_units);
    assert_int_equal(infos[0].memory_bytes, (uint64_t)1 << 30);
    assert_int_equal(infos[1].memory_bytes, (uint64_t)4 << 30);
    assert_int_equal(infos[0].n_units, 128);
}

static void what_is_wrong_with_a_driver_is_told(void **state)
{
    (void)state;
    made_up = (struct made_up){.fails = "init", .result = MISMATCH};
    assert_int_equal(list(), 0);
    assert_int_equal(problem.code, RUNNEL_EUNSUPPORTED);
    assert_string_equal(problem.message, "NVIDIA's driver does not start: driver mismatch (803)");
    made_up = (struct made_up){.lacks = "cuMemAlloc_v2"};
    assert_int_equal(list(), 0);
    assert_string_equal(problem.message, "NVIDIA's driver is too old: it has no cuMemAlloc_v2");
    made_up = (struct made_up){.fails = "init", .result = NO_DEVICE}; /* a machine without a card */
    assert_int_equal(list(), 0);
    assert_int_equal(problem.code, RUNNEL_OK);
    made_up = (struct made_up){.is_missing = true};
    assert_int_equal(list(), 0);
    assert_int_equal(problem.code, RUNNEL_OK);
}

/* One device -------------------------------------------------------------------------------------------------- */

static struct gpu *open_first(void)
{
    struct gpu *gpu = NULL;
    made_up = (struct made_up){0};
    assert_int_equal(list(), 2);
    if (gpu_open(&infos[0], &gpu, &error))
        fail_msg("%s", error.message);
    made_up.calls[0] = 0;
    return gpu;
}

static void close_whole(struct gpu *gpu)
{
    gpu_close(gpu);
    assert_int_equal(made_up.n_modules, 0);
    assert_int_equal(made_up.n_contexts, 0);
    assert_int_equal(made_up.context, 0);
}

static void opening_that_fails_leaves_nothing(void **state)
{
    (void)state;
    static const char *const steps[] = {"init", "retain", "stream", "event"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct gpu *gpu = NULL;
        made_up = (struct made_up){0};
        list();
        made_up.fails = steps[i];
        made_up.result = FAULT;
        assert_int_equal(gpu_open(&infos[0], &gpu, &error), RUNNEL_EIO);
        assert_string_equal(error.message, "Card 0: the device could not be opened: it failed (700)");
        assert_int_equal(made_up.n_contexts, i == 1); /* one that was not retained is not released */
    }
}

static void launch_one(struct gpu *gpu, struct gpu_buffer buffer)
{
    static const uint32_t n_groups[3] = {3, 2, 1};
    const struct gpu_argument arguments[] = {
        {.kind = GPU_ARGUMENT_PLACE, .place = gpu_at(buffer, 48)},
        {.kind = GPU_ARGUMENT_UINT, .u = 12345},
    };
    if (gpu_launch(gpu, GPU_FUNCTION_PREPARE, n_groups, arguments, 2, &error))
        fail_msg("%s", error.message);
}

static void a_launch_and_its_arguments(void **state)
{
    (void)state;
    struct gpu *gpu = open_first();
    struct gpu_buffer buffer;
    assert_int_equal(gpu_alloc(gpu, 100, &buffer, &error), RUNNEL_OK);
    assert_int_equal(gpu_prepare(gpu, GPU_FUNCTION_PREPARE, &error), RUNNEL_OK);
    assert_int_equal(gpu_prepare(gpu, GPU_FUNCTION_PREPARE, &error), RUNNEL_OK); /* it is there */
    launch_one(gpu, buffer);
    made_up.n_unfinished = 3;
    assert_int_equal(gpu_finish(gpu, 10e3, &error), RUNNEL_OK);
    assert_string_equal(made_up.calls, "alloc load function launch mark query query query query");
    assert_int_equal(made_up.arguments[0], 0x10000);
    assert_int_equal(made_up.arguments[1], 48);
    assert_int_equal(made_up.arguments[2], 12345);
    gpu_free(gpu, &buffer);
    assert_int_equal(made_up.n_buffers, 0);
    close_whole(gpu);
}

static void device_code_that_the_driver_does_not_take(void **state)
{
    (void)state;
    struct gpu *gpu = open_first();
    made_up.fails = "load";
    made_up.result = 218;
    assert_int_equal(gpu_prepare(gpu, GPU_FUNCTION_PREPARE, &error), RUNNEL_EUNSUPPORTED);
    assert_string_equal(error.message,
                        "Card 0: its driver does not take layer: it failed (218) ptxas: line 7");
    assert_false(gpu_is_lost(gpu));
    close_whole(gpu);
}

static void too_little_memory_is_no_loss(void **state)
{
    (void)state;
    struct gpu *gpu = open_first();
    struct gpu_buffer buffer = {.handle = 0};
    uint64_t n_free, n_total;
    made_up.fails = "alloc";
    made_up.result = OUT_OF_MEMORY;
    assert_int_equal(gpu_alloc(gpu, 5 << 20, &buffer, &error), RUNNEL_ENOMEM);
    assert_string_equal(error.message, "Card 0: 5 MiB could not be had");
    assert_int_equal(buffer.handle, 0);
    made_up.fails = "info";
    made_up.result = FAULT;
    assert_int_equal(gpu_get_memory(gpu, &n_free, &n_total, &error), RUNNEL_EIO);
    assert_false(gpu_is_lost(gpu));
    made_up.fails = NULL;
    assert_int_equal(gpu_get_memory(gpu, &n_free, &n_total, &error), RUNNEL_OK);
    assert_true(n_free == 1 << 20 && n_total == 2 << 20);
    close_whole(gpu);
}

/* A kernel that reads where nothing is: every call fails from then on, and none is made. */
static void an_error_that_stays_is_a_loss(void **state)
{
    (void)state;
    struct gpu *gpu = open_first();
    struct gpu_buffer buffer;
    assert_int_equal(gpu_alloc(gpu, 100, &buffer, &error), RUNNEL_OK);
    made_up.fails = "query";
    made_up.result = FAULT;
    assert_int_equal(gpu_finish(gpu, 10e3, &error), RUNNEL_EIO);
    assert_string_equal(error.message, "Card 0: what was queued failed: it failed (700)");
    assert_true(gpu_is_lost(gpu));
    made_up.calls[0] = 0;
    assert_int_equal(gpu_zero(gpu, gpu_at(buffer, 0), 4, &error), RUNNEL_EIO);
    gpu_free(gpu, &buffer);
    gpu_close(gpu);
    assert_string_equal(made_up.calls, "");
}

static void recordings(void **state)
{
    (void)state;
    struct gpu *gpu = open_first();
    struct gpu_buffer buffer;
    struct gpu_recording *recording = NULL;
    assert_int_equal(gpu_alloc(gpu, 100, &buffer, &error), RUNNEL_OK);
    assert_int_equal(gpu_prepare(gpu, GPU_FUNCTION_PREPARE, &error), RUNNEL_OK);
    made_up.calls[0] = 0;
    assert_int_equal(gpu_record_begin(gpu, &error), RUNNEL_OK);
    launch_one(gpu, buffer);
    assert_int_equal(gpu_record_end(gpu, &recording, &error), RUNNEL_OK);
    assert_int_equal(gpu_replay(gpu, recording, &error), RUNNEL_OK);
    assert_int_equal(gpu_replay(gpu, recording, &error), RUNNEL_OK);
    gpu_recording_free(gpu, recording);
    assert_string_equal(made_up.calls,
                        "capture launch end instantiate graph_destroy replay replay exec_destroy");
    made_up.calls[0] = 0;
    made_up.fails = "instantiate";
    made_up.result = OUT_OF_MEMORY;
    assert_int_equal(gpu_record_begin(gpu, &error), RUNNEL_OK);
    assert_int_equal(gpu_record_end(gpu, &recording, &error), RUNNEL_ENOMEM);
    assert_string_equal(made_up.calls, "capture end instantiate graph_destroy");
    assert_false(gpu_is_lost(gpu));
    gpu_free(gpu, &buffer);
    close_whole(gpu);
}

/* A driver from before CUDA 11.4 computes, step by step. */
static void a_driver_without_recordings(void **state)
{
    (void)state;
    struct gpu *gpu = NULL;
    made_up = (struct made_up){.lacks = "cuGraphInstantiateWithFlags"};
    assert_int_equal(list(), 2);
    assert_int_equal(problem.code, RUNNEL_OK);
    assert_false(infos[0].has_recordings);
    assert_int_equal(gpu_open(&infos[0], &gpu, &error), RUNNEL_OK);
    assert_int_equal(gpu_record_begin(gpu, &error), RUNNEL_EUNSUPPORTED);
    assert_int_equal(gpu_finish(gpu, 10e3, &error), RUNNEL_OK);
    close_whole(gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_that_can_be_used_are_listed),
        cmocka_unit_test(what_is_wrong_with_a_driver_is_told),
        cmocka_unit_test(opening_that_fails_leaves_nothing),
        cmocka_unit_test(a_launch_and_its_arguments),
        cmocka_unit_test(device_code_that_the_driver_does_not_take),
        cmocka_unit_test(too_little_memory_is_no_loss),
        cmocka_unit_test(an_error_that_stays_is_a_loss),
        cmocka_unit_test(recordings),
        cmocka_unit_test(a_driver_without_recordings),
    };
    if (!gpu_has_ptx()) {
        puts("skipped: this build has no device code for CUDA");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
