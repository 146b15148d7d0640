/* opencl.c: devices of OpenCL 1.2 and later, through the loader libOpenCL.so.1, which is looked for when somebody asks for devices. The
 * build needs OpenCL's headers, running needs nothing but a driver. See driver.h.
 *
 * The loader is never closed: drivers leave threads behind that run its code. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "gpu/driver.h"
#include "gpu/library.h"

#include "base/clock.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Every function of the loader that is used. */
#define FUNCTIONS(X)                                                                                         \
    X(clGetPlatformIDs)                                                                                      \
    X(clGetPlatformInfo)                                                                                     \
    X(clGetDeviceIDs)                                                                                        \
    X(clGetDeviceInfo)                                                                                       \
    X(clCreateContext)                                                                                       \
    X(clReleaseContext)                                                                                      \
    X(clCreateCommandQueue)                                                                                  \
    X(clReleaseCommandQueue)                                                                                 \
    X(clCreateBuffer)                                                                                        \
    X(clReleaseMemObject)                                                                                    \
    X(clEnqueueWriteBuffer)                                                                                  \
    X(clEnqueueReadBuffer)                                                                                   \
    X(clEnqueueCopyBuffer)                                                                                   \
    X(clEnqueueFillBuffer)                                                                                   \
    X(clEnqueueMapBuffer)                                                                                    \
    X(clEnqueueUnmapMemObject)                                                                               \
    X(clCreateProgramWithSource)                                                                             \
    X(clBuildProgram)                                                                                        \
    X(clCompileProgram)                                                                                      \
    X(clGetProgramBuildInfo)                                                                                 \
    X(clReleaseProgram)                                                                                      \
    X(clCreateKernel)                                                                                        \
    X(clReleaseKernel)                                                                                       \
    X(clSetKernelArg)                                                                                        \
    X(clEnqueueNDRangeKernel)                                                                                \
    X(clEnqueueMarkerWithWaitList)                                                                           \
    X(clGetEventInfo)                                                                                        \
    X(clReleaseEvent)                                                                                        \
    X(clFlush)

struct opencl_library {
#define POINTER(name) __typeof__(&name) name;
    FUNCTIONS(POINTER)
#undef POINTER
};

/* Memory of this process that the driver gave: a buffer that is mapped for as long as it lives. */
struct host_memory {
    cl_mem buffer;
    void *address;
    struct host_memory *next;
};

struct opencl {
    struct gpu gpu;
    struct opencl_library cl;
    cl_device_id device;
    cl_context context;
    cl_command_queue queue;
    cl_event end; /* of the last mark; NULL: none */
    struct host_memory *host;
    unsigned n_held_back; /* launches since the driver was last told to begin */
    cl_program programs[GPU_PROGRAMS];
    cl_kernel kernels[GPU_FUNCTIONS];
};

enum { PLATFORMS_MAX = 16, DEVICES_MAX = 16 };

/* Of launches, about a layer's: drivers may hold back what is queued until they are told to begin, and the device would wait meanwhile. */
enum { HELD_BACK_MAX = 10 };

/* Of memory, however large: a driver that takes longer has hung. */
static const double first_use_ms = 60e3;

/* False: there is no loader, or, with a message in problem, it cannot be loaded or is none. */
static bool load(struct opencl_library *cl, runnel_error *problem)
{
    void *library = gpu_library_open("libOpenCL.so.1", problem);
    if (!library)
        return false;
#define FIND(name)                                                                                           \
    cl->name = (__typeof__(&name))dlsym(library, #name);                                                     \
    if (!cl->name) {                                                                                         \
        error_set(problem, RUNNEL_EUNSUPPORTED, "libOpenCL.so.1 has no %s: OpenCL 1.2 or later is needed",   \
                  #name);                                                                                    \
        return false;                                                                                        \
    }
    FUNCTIONS(FIND)
#undef FIND
    return true;
}

static const char *status_name(cl_int status)
{
    switch (status) {
    case CL_DEVICE_NOT_AVAILABLE:
        return "the device is not available";
    case CL_COMPILER_NOT_AVAILABLE:
        return "there is no compiler for device code";
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
        return "the device has not the memory";
    case CL_OUT_OF_RESOURCES:
        return "the device is out of resources, or a launch failed";
    case CL_OUT_OF_HOST_MEMORY:
        return "out of memory";
    case CL_BUILD_PROGRAM_FAILURE:
        return "device code does not compile";
    default:
        return "OpenCL failed";
    }
}

static bool is_of_memory(cl_int status)
{
    return status == CL_MEM_OBJECT_ALLOCATION_FAILURE || status == CL_OUT_OF_HOST_MEMORY;
}

static int fail(const struct gpu *gpu, const char *what, cl_int status, runnel_error *error)
{
    return error_set(error, is_of_memory(status) ? RUNNEL_ENOMEM : RUNNEL_EIO, "%s: %s: %s (%d)",
                     gpu->info.name, what, status_name(status), status);
}

/* Listing ----------------------------------------------------------------------------------------------------------------------- */

static void get_text(const struct opencl_library *cl, cl_device_id device, cl_device_info what, char *text,
                     size_t size)
{
    text[0] = 0;
    if (cl->clGetDeviceInfo(device, what, size, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    text[size - 1] = 0;
    for (char *c = text; *c; c++)
        if (*c < ' ')
            *c = ' ';
}

/* A number, of whatever width; 0: the driver does not say. */
static uint64_t get_number(const struct opencl_library *cl, cl_device_id device, cl_device_info what)
{
    uint64_t value = 0;
    return cl->clGetDeviceInfo(device, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

static bool has_extension(const struct opencl_library *cl, cl_device_id device, const char *name)
{
    char *names, *found = NULL;
    size_t size = 0;
    cl->clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, 0, NULL, &size);
    names = size ? calloc(size + 1, 1) : NULL;
    if (names && cl->clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, size, names, NULL) == CL_SUCCESS)
        found = strstr(names, name);
    bool has = found != NULL;
    free(names);
    return has;
}

static bool has_version(const struct opencl_library *cl, cl_device_id device, int major, int minor)
{
    char text[128];
    int of_device[2] = {0, 0};
    get_text(cl, device, CL_DEVICE_VERSION, text, sizeof text);
    sscanf(text, "OpenCL %d.%d", &of_device[0], &of_device[1]);
    return of_device[0] > major || (of_device[0] == major && of_device[1] >= minor);
}

/* Device code is written for OpenCL 1.2, groups of up to 256 and 20 KiB of local memory, and compiled when it is first used. */
static bool is_usable(const struct opencl_library *cl, cl_device_id device)
{
    return has_version(cl, device, 1, 2) && get_number(cl, device, CL_DEVICE_AVAILABLE) &&
           get_number(cl, device, CL_DEVICE_COMPILER_AVAILABLE) &&
           get_number(cl, device, CL_DEVICE_ENDIAN_LITTLE) &&
           get_number(cl, device, CL_DEVICE_MAX_WORK_GROUP_SIZE) >= 256 &&
           get_number(cl, device, CL_DEVICE_LOCAL_MEM_SIZE) >= 20 * 1024;
}

static struct gpu_info describe(const struct opencl_library *cl, cl_device_id device)
{
    cl_device_fp_config floats = get_number(cl, device, CL_DEVICE_SINGLE_FP_CONFIG);
    struct gpu_info info = {
        .interface = gpu_driver_opencl.name,
        .memory_bytes = get_number(cl, device, CL_DEVICE_GLOBAL_MEM_SIZE),
        .allocation_max_bytes = get_number(cl, device, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        .n_units = (uint32_t)get_number(cl, device, CL_DEVICE_MAX_COMPUTE_UNITS),
        .is_cpu = get_number(cl, device, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU,
        .is_integrated = get_number(cl, device, CL_DEVICE_HOST_UNIFIED_MEMORY) != 0,
        .has_fma = floats & CL_FP_FMA,
        .has_denormals = floats & CL_FP_DENORM,
        .has_exact_division = floats & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT,
        .has_integer_dot = has_extension(cl, device, "cl_khr_integer_dot_product"),
    };
    get_text(cl, device, CL_DEVICE_NAME, info.name, sizeof info.name);
    get_text(cl, device, CL_DRIVER_VERSION, info.driver, sizeof info.driver);
    return info;
}

/* All devices of a platform; how many. */
static cl_uint find_devices(const struct opencl_library *cl, cl_platform_id platform,
                            cl_device_id devices[DEVICES_MAX], runnel_error *problem)
{
    cl_uint n = 0;
    cl_int status = cl->clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, DEVICES_MAX, devices, &n);
    if (status == CL_SUCCESS)
        return n < DEVICES_MAX ? n : DEVICES_MAX;
    char name[128] = "";
    cl->clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
    if (status != CL_DEVICE_NOT_FOUND)
        error_set(problem, RUNNEL_EUNSUPPORTED, "%s, a driver of OpenCL, does not list its devices: %s (%d)",
                  name, status_name(status), status);
    return 0;
}

static cl_uint find_platforms(const struct opencl_library *cl, cl_platform_id platforms[PLATFORMS_MAX],
                              runnel_error *problem)
{
    enum { NO_DRIVER = -1001 /* of cl_khr_icd: the loader's word for it */ };
    cl_uint n = 0;
    cl_int status = cl->clGetPlatformIDs(PLATFORMS_MAX, platforms, &n);
    if (status == CL_SUCCESS)
        return n < PLATFORMS_MAX ? n : PLATFORMS_MAX;
    if (status != NO_DRIVER)
        error_set(problem, RUNNEL_EUNSUPPORTED, "OpenCL's loader does not list its drivers: %s (%d)",
                  status_name(status), status);
    return 0;
}

static void opencl_list(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem)
{
    struct opencl_library cl;
    cl_platform_id platforms[PLATFORMS_MAX];
    cl_device_id devices[DEVICES_MAX];
    if (!load(&cl, problem))
        return;
    cl_uint n_platforms = find_platforms(&cl, platforms, problem);
    for (cl_uint platform = 0; platform < n_platforms; platform++) {
        cl_uint n_devices = find_devices(&cl, platforms[platform], devices, problem);
        for (cl_uint device = 0; device < n_devices && *n < capacity; device++) {
            if (!is_usable(&cl, devices[device]))
                continue;
            infos[*n] = describe(&cl, devices[device]);
            infos[*n].platform = platform;
            infos[(*n)++].device = device;
        }
    }
}

/* Opening ----------------------------------------------------------------------------------------------------------------------- */

static struct opencl *of(struct gpu *gpu)
{
    return (struct opencl *)gpu;
}

/* So that a compiler that takes signals (signals.h) does it now, while they are kept. As it takes them once in a process, a platform
 * compiles once. No driver has kept what this text compiles to. It is not linked, which takes PoCL a second. */
static void compile_something(const struct opencl *opencl, cl_uint platform)
{
    static atomic_uint done; /* a bit for each platform, whose compiler is the process's */
    unsigned own = 1u << platform;
    char text[80];
    const char *texts = text;
    cl_int status;
    if (atomic_fetch_or(&done, own) & own)
        return;
    snprintf(text, sizeof text, "kernel void of_%ld_%.0f(global int *x) { *x = 1; }", (long)getpid(),
             clock_ms() * 1e3);
    cl_program program = opencl->cl.clCreateProgramWithSource(opencl->context, 1, &texts, NULL, &status);
    if (!program)
        return;
    opencl->cl.clCompileProgram(program, 1, &opencl->device, "", 0, NULL, NULL, NULL, NULL);
    opencl->cl.clReleaseProgram(program);
}

static int begin(struct opencl *opencl, const struct gpu_info *info, runnel_error *error)
{
    cl_platform_id platforms[PLATFORMS_MAX];
    cl_device_id devices[DEVICES_MAX];
    cl_int status;
    error->code = RUNNEL_OK;
    if (!load(&opencl->cl, error))
        return error->code ? error->code
                           : error_set(error, RUNNEL_EUNSUPPORTED, "there is no libOpenCL.so.1");
    cl_uint n_platforms = find_platforms(&opencl->cl, platforms, error);
    if (info->platform >= n_platforms ||
        info->device >= find_devices(&opencl->cl, platforms[info->platform], devices, error))
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s is not there any more", info->name);
    opencl->device = devices[info->device];
    opencl->context = opencl->cl.clCreateContext(NULL, 1, &opencl->device, NULL, NULL, &status);
    if (!opencl->context)
        return fail(&opencl->gpu, "no context", status, error);
    opencl->queue = opencl->cl.clCreateCommandQueue(opencl->context, opencl->device, 0, &status);
    if (!opencl->queue)
        return fail(&opencl->gpu, "no queue", status, error);
    compile_something(opencl, info->platform);
    return RUNNEL_OK;
}

/* Once what is queued for it is done. */
static void give_host_back(const struct opencl *opencl, const struct host_memory *memory)
{
    opencl->cl.clEnqueueUnmapMemObject(opencl->queue, memory->buffer, memory->address, 0, NULL, NULL);
    opencl->cl.clReleaseMemObject(memory->buffer);
}

static void release(struct opencl *opencl)
{
    const struct opencl_library *cl = &opencl->cl;
    for (struct host_memory *memory = opencl->host; memory; memory = memory->next)
        give_host_back(opencl, memory);
    if (opencl->end)
        cl->clReleaseEvent(opencl->end);
    for (int i = 0; i < GPU_FUNCTIONS; i++)
        if (opencl->kernels[i])
            cl->clReleaseKernel(opencl->kernels[i]);
    for (int i = 0; i < GPU_PROGRAMS; i++)
        if (opencl->programs[i])
            cl->clReleaseProgram(opencl->programs[i]);
    if (opencl->queue)
        cl->clReleaseCommandQueue(opencl->queue);
    if (opencl->context)
        cl->clReleaseContext(opencl->context);
}

static void opencl_close(struct gpu *gpu)
{
    struct opencl *opencl = of(gpu);
    if (!gpu_is_lost(gpu))
        release(opencl);
    for (struct host_memory *memory = opencl->host, *next; memory; memory = next) {
        next = memory->next;
        free(memory);
    }
    free(opencl);
}

static int opencl_open(const struct gpu_info *info, struct gpu **gpu, runnel_error *error)
{
    runnel_error cause;
    struct opencl *opencl = calloc(1, sizeof *opencl);
    if (!opencl)
        return error_set(error, RUNNEL_ENOMEM, "%s: out of memory", info->name);
    opencl->gpu.info = *info;
    int code = begin(opencl, info, &cause);
    if (code) {
        release(opencl);
        free(opencl);
        return error_set(error, code, "%s", cause.message);
    }
    *gpu = &opencl->gpu;
    return RUNNEL_OK;
}

/* Memory ------------------------------------------------------------------------------------------------------------------------ */

static int opencl_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes,
                             runnel_error *error)
{
    (void)error;
    *free_bytes = 0;
    *total_bytes = gpu->info.memory_bytes;
    return RUNNEL_OK;
}

static cl_mem memory_of(struct gpu_buffer buffer)
{
    return (cl_mem)(uintptr_t)buffer.handle;
}

static int opencl_zero(struct gpu *gpu, struct gpu_place to, size_t n_bytes, runnel_error *error)
{
    const cl_uint zero = 0;
    cl_int status = of(gpu)->cl.clEnqueueFillBuffer(of(gpu)->queue, memory_of(to.buffer), &zero, sizeof zero,
                                                    to.offset, n_bytes, 0, NULL, NULL);
    return status ? fail(gpu, "memory could not be zeroed", status, error) : RUNNEL_OK;
}

/* What has come of a command: CL_COMPLETE, or above that where it has not ended within first_use_ms, or its failure. */
static cl_int wait_for(struct opencl *opencl, cl_event event)
{
    const struct timespec pause = {.tv_nsec = 20000};
    double begin_ms = clock_ms();
    cl_int state, status;
    while ((status = opencl->cl.clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state,
                                               NULL)) == CL_SUCCESS &&
           state > CL_COMPLETE && clock_ms() - begin_ms < first_use_ms)
        nanosleep(&pause, NULL);
    return status ? status : state;
}

/* Uses memory for the first time, all of it. Returns what wait_for does. */
static cl_int use(struct opencl *opencl, cl_mem memory, size_t n_bytes)
{
    const cl_uint zero = 0;
    cl_event filled = NULL;
    cl_int status = opencl->cl.clEnqueueFillBuffer(opencl->queue, memory, &zero, sizeof zero, 0, n_bytes, 0,
                                                   NULL, &filled);
    status = status ? status : opencl->cl.clFlush(opencl->queue);
    status = status ? status : wait_for(opencl, filled);
    if (filled && status <= CL_COMPLETE)
        opencl->cl.clReleaseEvent(filled);
    return status;
}

/* Drivers take memory when it is first used: so it is used at once, and one that has not so much says so here. PoCL's is the system's,
 * which does the same for every process. */
static int opencl_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    cl_int status;
    size_t rounded = (n_bytes + 255) / 256 * 256;
    cl_mem memory = opencl->cl.clCreateBuffer(opencl->context, CL_MEM_READ_WRITE, rounded, NULL, &status);
    bool is_refused = !memory;
    if (memory)
        status = gpu->info.is_cpu ? CL_COMPLETE : use(opencl, memory, rounded);
    if (status > CL_COMPLETE) /* what is queued stays as it is */
        return error_set(error, RUNNEL_ETIMEOUT, "%s has not given %zu MiB within %.0f s", gpu->info.name,
                         n_bytes >> 20, first_use_ms / 1e3);
    if (memory && status == CL_COMPLETE) {
        *buffer = (struct gpu_buffer){(uint64_t)(uintptr_t)memory, n_bytes};
        return RUNNEL_OK;
    }
    if (memory)
        opencl->cl.clReleaseMemObject(memory);
    is_refused = is_refused || is_of_memory(status) || status == CL_OUT_OF_RESOURCES;
    return error_set(error, is_refused ? RUNNEL_ENOMEM : RUNNEL_EIO, "%s: %zu MiB could not be had: %s (%d)",
                     gpu->info.name, n_bytes >> 20, status_name(status), status);
}

static void opencl_free(struct gpu *gpu, struct gpu_buffer *buffer)
{
    if (!gpu_is_lost(gpu))
        of(gpu)->cl.clReleaseMemObject(memory_of(*buffer));
}

/* NULL: it has none, or does not give it in time. */
static void *map(struct opencl *opencl, cl_mem buffer, size_t n_bytes)
{
    cl_event mapped = NULL;
    cl_int status;
    void *address = opencl->cl.clEnqueueMapBuffer(opencl->queue, buffer, CL_FALSE, CL_MAP_READ | CL_MAP_WRITE,
                                                  0, n_bytes, 0, NULL, &mapped, &status);
    status = status ? status : opencl->cl.clFlush(opencl->queue);
    status = status ? status : wait_for(opencl, mapped);
    if (mapped && status <= CL_COMPLETE)
        opencl->cl.clReleaseEvent(mapped);
    return status == CL_COMPLETE ? address : NULL;
}

/* The driver's own memory on this side: it waits for all that is queued before it returns from a copy to or from any other, however long that
 * takes. A driver that computes on the CPU copies from any alike. */
static void *opencl_alloc_host(struct gpu *gpu, size_t n_bytes)
{
    struct opencl *opencl = of(gpu);
    cl_int status;
    size_t rounded = n_bytes ? (n_bytes + 4095) / 4096 * 4096 : 4096;
    if (gpu->info.is_cpu)
        return aligned_alloc(4096, rounded);
    struct host_memory *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->buffer = opencl->cl.clCreateBuffer(opencl->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR,
                                             rounded, NULL, &status);
    made->address = made->buffer ? map(opencl, made->buffer, rounded) : NULL;
    if (!made->address) {
        if (made->buffer)
            opencl->cl.clReleaseMemObject(made->buffer);
        free(made);
        return NULL;
    }
    made->next = opencl->host;
    opencl->host = made;
    return made->address;
}

static void opencl_free_host(struct gpu *gpu, void *memory)
{
    struct opencl *opencl = of(gpu);
    struct host_memory **link = &opencl->host;
    if (gpu->info.is_cpu) {
        free(memory);
        return;
    }
    while (*link && (*link)->address != memory)
        link = &(*link)->next;
    struct host_memory *found = *link;
    if (!found)
        return;
    *link = found->next;
    give_host_back(opencl, found);
    free(found);
}

static int opencl_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes,
                        runnel_error *error)
{
    cl_int status = of(gpu)->cl.clEnqueueWriteBuffer(of(gpu)->queue, memory_of(to.buffer), CL_FALSE,
                                                     to.offset, n_bytes, data, 0, NULL, NULL);
    return status ? fail(gpu, "memory could not be written", status, error) : RUNNEL_OK;
}

static int opencl_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes,
                       runnel_error *error)
{
    cl_int status = of(gpu)->cl.clEnqueueReadBuffer(of(gpu)->queue, memory_of(from.buffer), CL_FALSE,
                                                    from.offset, n_bytes, data, 0, NULL, NULL);
    return status ? fail(gpu, "memory could not be read", status, error) : RUNNEL_OK;
}

static int opencl_copy(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes,
                       runnel_error *error)
{
    cl_int status =
        of(gpu)->cl.clEnqueueCopyBuffer(of(gpu)->queue, memory_of(from.buffer), memory_of(to.buffer),
                                        from.offset, to.offset, n_bytes, 0, NULL, NULL);
    return status ? fail(gpu, "memory could not be copied", status, error) : RUNNEL_OK;
}

/* Waiting ----------------------------------------------------------------------------------------------------------------------- */

static cl_int begin_queued(struct opencl *opencl)
{
    opencl->n_held_back = 0;
    return opencl->cl.clFlush(opencl->queue);
}

static int opencl_mark(struct gpu *gpu, runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    if (opencl->end)
        opencl->cl.clReleaseEvent(opencl->end);
    opencl->end = NULL;
    cl_int status = opencl->cl.clEnqueueMarkerWithWaitList(opencl->queue, 0, NULL, &opencl->end);
    status = status ? status : begin_queued(opencl);
    return status ? fail(gpu, "the queue fails", status, error) : RUNNEL_OK;
}

static int opencl_is_done(struct gpu *gpu, bool *done, runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    cl_int state = CL_QUEUED;
    cl_int status =
        opencl->cl.clGetEventInfo(opencl->end, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    status = status ? status : state < 0 ? state : CL_SUCCESS;
    *done = state == CL_COMPLETE;
    return status ? error_set(error, RUNNEL_EIO, "%s: what was queued failed: %s (%d)", gpu->info.name,
                              status_name(status), status)
                  : RUNNEL_OK;
}

/* Launches ---------------------------------------------------------------------------------------------------------------------- */

/* Says why a program does not compile, with the first line of the compiler's log. */
static int fail_build(struct gpu *gpu, cl_program program, enum gpu_program which, cl_int status,
                      runnel_error *error)
{
    char log[4096] = "";
    of(gpu)->cl.clGetProgramBuildInfo(program, of(gpu)->device, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log,
                                      NULL);
    log[strcspn(log, "\n")] = 0;
    return error_set(error, RUNNEL_EUNSUPPORTED, "%s: its driver does not compile %s: %s (%d) %.200s",
                     gpu->info.name, gpu_program_name(which), status_name(status), status, log);
}

static int build(struct gpu *gpu, enum gpu_program which, bool integer_dot, cl_program *program,
                 runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    struct gpu_source source;
    char options[128];
    cl_int status;
    gpu_source_find(which, &source);
    snprintf(options, sizeof options, "-cl-std=CL1.2%s%s%s%s",
             gpu->info.has_exact_division ? " -cl-fp32-correctly-rounded-divide-sqrt" : "",
             gpu->info.has_fma ? "" : " -DRUNNEL_NO_FMA", integer_dot ? " -DRUNNEL_INTEGER_DOT" : "",
             gpu->info.is_cpu ? " -DRUNNEL_CPU" : "");
    cl_program built = opencl->cl.clCreateProgramWithSource(opencl->context, source.n_pieces, source.text,
                                                            source.len, &status);
    if (!built)
        return fail(gpu, "no program", status, error);
    status = opencl->cl.clBuildProgram(built, 1, &opencl->device, options, NULL, NULL);
    if (status) {
        int code = fail_build(gpu, built, which, status, error);
        opencl->cl.clReleaseProgram(built);
        return code;
    }
    *program = built;
    return RUNNEL_OK;
}

static int opencl_prepare(struct gpu *gpu, enum gpu_function function, runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    const struct gpu_function_info *info = gpu_function_find(function);
    cl_program *program = &opencl->programs[info->program];
    cl_int status;
    if (opencl->kernels[function])
        return RUNNEL_OK;
    if (!*program) { /* some drivers have the dot product, and not for this version of the language */
        int code = build(gpu, info->program, gpu->info.has_integer_dot, program, error);
        if (code && gpu->info.has_integer_dot)
            code = build(gpu, info->program, false, program, error);
        if (code)
            return code;
    }
    opencl->kernels[function] = opencl->cl.clCreateKernel(*program, info->name, &status);
    return opencl->kernels[function] ? RUNNEL_OK : fail(gpu, info->name, status, error);
}

/* Sets one argument of device.h at *index of the function's, and counts. */
static cl_int set_argument(struct opencl *opencl, cl_kernel kernel, const struct gpu_argument *argument,
                           cl_uint *index)
{
    cl_ulong offset = argument->place.offset;
    cl_mem memory = memory_of(argument->place.buffer);
    cl_int status;
    switch (argument->kind) {
    case GPU_ARGUMENT_UINT:
        return opencl->cl.clSetKernelArg(kernel, (*index)++, sizeof argument->u, &argument->u);
    case GPU_ARGUMENT_FLOAT:
        return opencl->cl.clSetKernelArg(kernel, (*index)++, sizeof argument->f, &argument->f);
    case GPU_ARGUMENT_PLACE:
        break;
    }
    status = opencl->cl.clSetKernelArg(kernel, (*index)++, sizeof memory, memory ? &memory : NULL);
    return status ? status : opencl->cl.clSetKernelArg(kernel, (*index)++, sizeof offset, &offset);
}

static int opencl_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                         const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error)
{
    struct opencl *opencl = of(gpu);
    const struct gpu_function_info *info = gpu_function_find(function);
    cl_kernel kernel = opencl->kernels[function];
    if (!kernel)
        return error_set(error, RUNNEL_EINVAL, "%s: %s was not prepared", gpu->info.name, info->name);
    cl_uint index = 0;
    cl_int status = CL_SUCCESS;
    for (uint32_t i = 0; i < n_arguments && !status; i++)
        status = set_argument(opencl, kernel, &arguments[i], &index);
    const size_t local[3] = {info->n_local[0], info->n_local[1], 1};
    const size_t global[3] = {n_groups[0] * local[0], n_groups[1] * local[1], n_groups[2]};
    if (!status)
        status =
            opencl->cl.clEnqueueNDRangeKernel(opencl->queue, kernel, 3, NULL, global, local, 0, NULL, NULL);
    if (!status && ++opencl->n_held_back >= HELD_BACK_MAX)
        status = begin_queued(opencl);
    return status ? fail(gpu, info->name, status, error) : RUNNEL_OK;
}

const struct gpu_driver gpu_driver_opencl = {
    .name = "opencl",
    .list = opencl_list,
    .open = opencl_open,
    .close = opencl_close,
    .get_memory = opencl_get_memory,
    .alloc = opencl_alloc,
    .free = opencl_free,
    .alloc_host = opencl_alloc_host,
    .free_host = opencl_free_host,
    .write = opencl_write,
    .read = opencl_read,
    .copy = opencl_copy,
    .zero = opencl_zero,
    .mark = opencl_mark,
    .is_done = opencl_is_done,
    .prepare = opencl_prepare,
    .launch = opencl_launch,
};
