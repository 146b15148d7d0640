/* cuda.c: NVIDIA's devices through the driver's own library, libcuda.so.1, which comes with the driver: no toolkit is needed, and its
 * few types and numbers stand here. Device code is PTX, which the driver compiles for its device, and keeps in a cache of its own. See
 * driver.h.
 *
 * A context belongs to whichever thread calls: every function makes it that thread's. The library is never closed. */
#include "gpu/driver.h"
#include "gpu/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct cuda_context *CUcontext;
typedef struct cuda_stream *CUstream;
typedef struct cuda_event *CUevent;
typedef struct cuda_module *CUmodule;
typedef struct cuda_function *CUfunction;
typedef struct cuda_graph *CUgraph;
typedef struct cuda_graph_exec *CUgraphExec;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_NOT_READY = 600,

    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_INTEGRATED = 18,
    CU_DEVICE_ATTRIBUTE_COMPUTE_MODE = 20,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_COMPUTEMODE_PROHIBITED = 2,

    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_DISABLE_TIMING = 2,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
    CU_JIT_ERROR_LOG_BUFFER = 5,
    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};

/* Every function that is used: its type, and its name in the library. The last five are there from CUDA 11.4 on. */
#define FUNCTIONS(X)                                                                                         \
    X(get_error_string, "cuGetErrorString", CUresult, (CUresult, const char **))                             \
    X(init, "cuInit", CUresult, (unsigned))                                                                  \
    X(driver_version, "cuDriverGetVersion", CUresult, (int *))                                               \
    X(device_count, "cuDeviceGetCount", CUresult, (int *))                                                   \
    X(device_get, "cuDeviceGet", CUresult, (CUdevice *, int))                                                \
    X(device_name, "cuDeviceGetName", CUresult, (char *, int, CUdevice))                                     \
    X(device_attribute, "cuDeviceGetAttribute", CUresult, (int *, int, CUdevice))                            \
    X(device_memory, "cuDeviceTotalMem_v2", CUresult, (size_t *, CUdevice))                                  \
    X(context_retain, "cuDevicePrimaryCtxRetain", CUresult, (CUcontext *, CUdevice))                         \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", CUresult, (CUdevice))                                 \
    X(context_set, "cuCtxSetCurrent", CUresult, (CUcontext))                                                 \
    X(memory_info, "cuMemGetInfo_v2", CUresult, (size_t *, size_t *))                                        \
    X(memory_alloc, "cuMemAlloc_v2", CUresult, (CUdeviceptr *, size_t))                                      \
    X(memory_free, "cuMemFree_v2", CUresult, (CUdeviceptr))                                                  \
    X(host_alloc, "cuMemHostAlloc", CUresult, (void **, size_t, unsigned))                                   \
    X(host_free, "cuMemFreeHost", CUresult, (void *))                                                        \
    X(write, "cuMemcpyHtoDAsync_v2", CUresult, (CUdeviceptr, const void *, size_t, CUstream))                \
    X(read, "cuMemcpyDtoHAsync_v2", CUresult, (void *, CUdeviceptr, size_t, CUstream))                       \
    X(copy, "cuMemcpyDtoDAsync_v2", CUresult, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                  \
    X(set, "cuMemsetD32Async", CUresult, (CUdeviceptr, unsigned, size_t, CUstream))                          \
    X(stream_create, "cuStreamCreate", CUresult, (CUstream *, unsigned))                                     \
    X(stream_destroy, "cuStreamDestroy_v2", CUresult, (CUstream))                                            \
    X(event_create, "cuEventCreate", CUresult, (CUevent *, unsigned))                                        \
    X(event_destroy, "cuEventDestroy_v2", CUresult, (CUevent))                                               \
    X(event_record, "cuEventRecord", CUresult, (CUevent, CUstream))                                          \
    X(event_query, "cuEventQuery", CUresult, (CUevent))                                                      \
    X(module_load, "cuModuleLoadDataEx", CUresult, (CUmodule *, const void *, unsigned, int *, void **))     \
    X(module_unload, "cuModuleUnload", CUresult, (CUmodule))                                                 \
    X(module_function, "cuModuleGetFunction", CUresult, (CUfunction *, CUmodule, const char *))              \
    X(launch, "cuLaunchKernel", CUresult,                                                                    \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **,  \
       void **))

#define RECORDING_FUNCTIONS(X)                                                                               \
    X(capture_begin, "cuStreamBeginCapture_v2", CUresult, (CUstream, int))                                   \
    X(capture_end, "cuStreamEndCapture", CUresult, (CUstream, CUgraph *))                                    \
    X(graph_destroy, "cuGraphDestroy", CUresult, (CUgraph))                                                  \
    X(graph_instantiate, "cuGraphInstantiateWithFlags", CUresult,                                            \
      (CUgraphExec *, CUgraph, unsigned long long))                                                          \
    X(graph_launch, "cuGraphLaunch", CUresult, (CUgraphExec, CUstream))                                      \
    X(exec_destroy, "cuGraphExecDestroy", CUresult, (CUgraphExec))

struct cuda_library {
#define POINTER(name, symbol, result, arguments) result(*name) arguments;
    FUNCTIONS(POINTER)
    RECORDING_FUNCTIONS(POINTER)
#undef POINTER
    bool has_recordings;
};

struct cuda {
    struct gpu gpu;
    struct cuda_library cu;
    CUdevice device;
    CUcontext context;
    CUstream stream;
    CUevent end; /* of the last mark */
    int major, minor;
    CUmodule modules[GPU_PROGRAMS];
    CUfunction functions[GPU_FUNCTIONS];
};

struct gpu_recording {
    CUgraphExec graph;
};

/* False: there is no driver, or, with a message in problem, one that cannot be loaded or is too old. */
static bool load(struct cuda_library *cu, runnel_error *problem)
{
    void *library = gpu_library_open("libcuda.so.1", problem);
    if (!library)
        return false;
#define FIND(name, symbol, result, arguments)                                                                \
    cu->name = (result(*) arguments)dlsym(library, symbol);                                                  \
    if (!cu->name) {                                                                                         \
        error_set(problem, RUNNEL_EUNSUPPORTED, "NVIDIA's driver is too old: it has no %s", symbol);         \
        return false;                                                                                        \
    }
    FUNCTIONS(FIND)
#undef FIND
    cu->has_recordings = true;
#define FIND(name, symbol, result, arguments)                                                                \
    cu->name = (result(*) arguments)dlsym(library, symbol);                                                  \
    cu->has_recordings = cu->has_recordings && cu->name;
    RECORDING_FUNCTIONS(FIND)
#undef FIND
    return true;
}

static const char *result_text(const struct cuda_library *cu, CUresult result)
{
    const char *text = NULL;
    return cu->get_error_string(result, &text) == CUDA_SUCCESS && text ? text : "CUDA failed";
}

static struct cuda *of(struct gpu *gpu)
{
    return (struct cuda *)gpu;
}

static int fail(struct gpu *gpu, const char *what, CUresult result, runnel_error *error)
{
    return error_set(error, result == CUDA_ERROR_OUT_OF_MEMORY ? RUNNEL_ENOMEM : RUNNEL_EIO,
                     "%s: %s: %s (%d)", gpu->info.name, what, result_text(&of(gpu)->cu, result), result);
}

/* RUNNEL_OK of CUDA_SUCCESS, else the failure. */
static int check(struct gpu *gpu, const char *what, CUresult result, runnel_error *error)
{
    return result == CUDA_SUCCESS ? RUNNEL_OK : fail(gpu, what, result, error);
}

/* Listing ----------------------------------------------------------------------------------------------------------------------- */

static int get_attribute(const struct cuda_library *cu, CUdevice device, int what)
{
    int value = 0;
    return cu->device_attribute(&value, what, device) == CUDA_SUCCESS ? value : 0;
}

/* False: device code is not compiled for it, or it may not be used. */
static bool describe(const struct cuda_library *cu, int index, struct gpu_info *info)
{
    CUdevice device;
    size_t n_bytes = 0;
    int version = 0;
    if (cu->device_get(&device, index) != CUDA_SUCCESS)
        return false;
    int major = get_attribute(cu, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    int minor = get_attribute(cu, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    if (!gpu_ptx_find(GPU_PROGRAM_LAYER, major, minor) ||
        get_attribute(cu, device, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE) == CU_COMPUTEMODE_PROHIBITED)
        return false;
    cu->device_memory(&n_bytes, device);
    cu->driver_version(&version);
    *info = (struct gpu_info){
        .interface = gpu_driver_cuda.name,
        .memory_bytes = n_bytes,
        .allocation_max_bytes = n_bytes,
        .n_units = (uint32_t)get_attribute(cu, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        .is_integrated = get_attribute(cu, device, CU_DEVICE_ATTRIBUTE_INTEGRATED) != 0,
        .has_fma = true,
        .has_denormals = true,
        .has_exact_division = true,
        .has_integer_dot = true,
        .has_matrix_units = gpu_ptx_find(GPU_PROGRAM_PRODUCT_MATRIX, major, minor) != NULL,
        .has_recordings = cu->has_recordings,
        .device = (uint32_t)index,
    };
    cu->device_name(info->name, sizeof info->name, device);
    info->name[sizeof info->name - 1] = 0;
    snprintf(info->driver, sizeof info->driver, "CUDA %d.%d, sm_%d%d", version / 1000, version % 1000 / 10,
             major, minor);
    return true;
}

static void cuda_list(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem)
{
    struct cuda_library cu;
    int n_devices = 0;
    if (!load(&cu, problem))
        return;
    CUresult result = cu.init(0);
    result = result ? result : cu.device_count(&n_devices);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NO_DEVICE)
        error_set(problem, RUNNEL_EUNSUPPORTED, "NVIDIA's driver does not start: %s (%d)",
                  result_text(&cu, result), result);
    else if (n_devices > 0 && !gpu_has_ptx())
        error_set(problem, RUNNEL_EUNSUPPORTED,
                  "this program was built without clang, and uses NVIDIA's devices through OpenCL only");
    for (int i = 0; result == CUDA_SUCCESS && i < n_devices && *n < capacity; i++)
        *n += describe(&cu, i, &infos[*n]);
}

/* Opening ----------------------------------------------------------------------------------------------------------------------- */

static int begin(struct cuda *cuda, const struct gpu_info *info, runnel_error *error)
{
    struct gpu *gpu = &cuda->gpu;
    CUcontext context;
    error->code = RUNNEL_OK;
    if (!load(&cuda->cu, error))
        return error->code ? error->code : error_set(error, RUNNEL_EUNSUPPORTED, "there is no libcuda.so.1");
    CUresult result = cuda->cu.init(0);
    result = result ? result : cuda->cu.device_get(&cuda->device, (int)info->device);
    result = result ? result : cuda->cu.context_retain(&context, cuda->device);
    if (result)
        return fail(gpu, "the device could not be opened", result, error);
    cuda->context = context;
    cuda->major = get_attribute(&cuda->cu, cuda->device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    cuda->minor = get_attribute(&cuda->cu, cuda->device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    result = cuda->cu.context_set(context);
    result = result ? result : cuda->cu.stream_create(&cuda->stream, CU_STREAM_NON_BLOCKING);
    result = result ? result : cuda->cu.event_create(&cuda->end, CU_EVENT_DISABLE_TIMING);
    return check(gpu, "the device could not be opened", result, error);
}

static void release(struct cuda *cuda)
{
    const struct cuda_library *cu = &cuda->cu;
    if (!cuda->context)
        return;
    cu->context_set(cuda->context);
    for (int i = 0; i < GPU_PROGRAMS; i++)
        if (cuda->modules[i])
            cu->module_unload(cuda->modules[i]);
    if (cuda->end)
        cu->event_destroy(cuda->end);
    if (cuda->stream)
        cu->stream_destroy(cuda->stream);
    cu->context_set(NULL);
    cu->context_release(cuda->device); /* which gives all of its memory back */
}

static void cuda_close(struct gpu *gpu)
{
    if (!gpu_is_lost(gpu))
        release(of(gpu));
    free(gpu);
}

static int cuda_open(const struct gpu_info *info, struct gpu **gpu, runnel_error *error)
{
    runnel_error cause;
    struct cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return error_set(error, RUNNEL_ENOMEM, "%s: out of memory", info->name);
    cuda->gpu.info = *info;
    int code = begin(cuda, info, &cause);
    if (code) {
        release(cuda);
        free(cuda);
        return error_set(error, code, "%s", cause.message);
    }
    *gpu = &cuda->gpu;
    return RUNNEL_OK;
}

/* Memory ------------------------------------------------------------------------------------------------------------------------ */

/* The library, with the device's context as the calling thread's. */
static const struct cuda_library *enter(struct gpu *gpu)
{
    of(gpu)->cu.context_set(of(gpu)->context); /* fails as whatever is called next does */
    return &of(gpu)->cu;
}

static CUdeviceptr address_of(struct gpu_place place)
{
    return place.buffer.handle + place.offset;
}

static int cuda_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes, runnel_error *error)
{
    size_t n_free = 0, n_total = 0;
    int code = check(gpu, "its memory is not known", enter(gpu)->memory_info(&n_free, &n_total), error);
    if (code)
        return code;
    *free_bytes = n_free;
    *total_bytes = n_total;
    return RUNNEL_OK;
}

static int cuda_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error)
{
    CUdeviceptr address = 0;
    CUresult result = enter(gpu)->memory_alloc(&address, n_bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        return error_set(error, RUNNEL_ENOMEM, "%s: %zu MiB could not be had", gpu->info.name, n_bytes >> 20);
    if (result)
        return fail(gpu, "memory could not be had", result, error);
    *buffer = (struct gpu_buffer){address, n_bytes};
    return RUNNEL_OK;
}

static void cuda_free(struct gpu *gpu, struct gpu_buffer *buffer)
{
    if (!gpu_is_lost(gpu))
        enter(gpu)->memory_free(buffer->handle);
}

static void *cuda_alloc_host(struct gpu *gpu, size_t n_bytes)
{
    void *memory = NULL;
    return enter(gpu)->host_alloc(&memory, n_bytes, 0) == CUDA_SUCCESS ? memory : NULL;
}

static void cuda_free_host(struct gpu *gpu, void *memory)
{
    enter(gpu)->host_free(memory);
}

static int cuda_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes,
                      runnel_error *error)
{
    CUresult result = enter(gpu)->write(address_of(to), data, n_bytes, of(gpu)->stream);
    return check(gpu, "memory could not be written", result, error);
}

static int cuda_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error)
{
    CUresult result = enter(gpu)->read(data, address_of(from), n_bytes, of(gpu)->stream);
    return check(gpu, "memory could not be read", result, error);
}

static int cuda_copy(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes,
                     runnel_error *error)
{
    CUresult result = enter(gpu)->copy(address_of(to), address_of(from), n_bytes, of(gpu)->stream);
    return check(gpu, "memory could not be copied", result, error);
}

static int cuda_zero(struct gpu *gpu, struct gpu_place to, size_t n_bytes, runnel_error *error)
{
    CUresult result = enter(gpu)->set(address_of(to), 0, n_bytes / 4, of(gpu)->stream);
    return check(gpu, "memory could not be zeroed", result, error);
}

/* Waiting ----------------------------------------------------------------------------------------------------------------------- */

static int cuda_mark(struct gpu *gpu, runnel_error *error)
{
    return check(gpu, "the queue fails", enter(gpu)->event_record(of(gpu)->end, of(gpu)->stream), error);
}

static int cuda_is_done(struct gpu *gpu, bool *done, runnel_error *error)
{
    CUresult result = of(gpu)->cu.event_query(of(gpu)->end);
    *done = result == CUDA_SUCCESS;
    return *done || result == CUDA_ERROR_NOT_READY ? RUNNEL_OK
                                                   : fail(gpu, "what was queued failed", result, error);
}

/* Launches ---------------------------------------------------------------------------------------------------------------------- */

static int load_module(struct gpu *gpu, enum gpu_program program, runnel_error *error)
{
    struct cuda *cuda = of(gpu);
    char log[1024] = "";
    int keys[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(sizeof log - 1)};
    const char *ptx = gpu_ptx_find(program, cuda->major, cuda->minor);
    if (!ptx)
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s: there is no device code for it", gpu->info.name);
    CUresult result = cuda->cu.module_load(&cuda->modules[program], ptx, 2, keys, values);
    if (result == CUDA_SUCCESS)
        return RUNNEL_OK;
    cuda->modules[program] = NULL;
    log[strcspn(log, "\n")] = 0;
    return error_set(error, result == CUDA_ERROR_OUT_OF_MEMORY ? RUNNEL_ENOMEM : RUNNEL_EUNSUPPORTED,
                     "%s: its driver does not take %s: %s (%d) %.200s", gpu->info.name,
                     gpu_program_name(program), result_text(&cuda->cu, result), result, log);
}

static int cuda_prepare(struct gpu *gpu, enum gpu_function function, runnel_error *error)
{
    struct cuda *cuda = of(gpu);
    const struct gpu_function_info *info = gpu_function_find(function);
    if (cuda->functions[function])
        return RUNNEL_OK;
    enter(gpu);
    if (!cuda->modules[info->program]) {
        int code = load_module(gpu, info->program, error);
        if (code)
            return code;
    }
    CUfunction found;
    CUresult result = cuda->cu.module_function(&found, cuda->modules[info->program], info->name);
    if (result)
        return fail(gpu, info->name, result, error);
    cuda->functions[function] = found;
    return RUNNEL_OK;
}

static int cuda_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                       const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error)
{
    const struct gpu_function_info *info = gpu_function_find(function);
    uint64_t bases[GPU_ARGUMENTS_MAX], offsets[GPU_ARGUMENTS_MAX];
    const void *parameters[2 * GPU_ARGUMENTS_MAX];
    uint32_t n = 0;
    if (!of(gpu)->functions[function])
        return error_set(error, RUNNEL_EINVAL, "%s: %s was not prepared", gpu->info.name, info->name);
    for (uint32_t i = 0; i < n_arguments; i++) {
        if (arguments[i].kind == GPU_ARGUMENT_PLACE) {
            bases[i] = arguments[i].place.buffer.handle;
            offsets[i] = arguments[i].place.offset;
            parameters[n++] = &bases[i];
            parameters[n++] = &offsets[i];
        } else
            parameters[n++] = &arguments[i].u; /* or f, which lies there too */
    }
    CUresult result = enter(gpu)->launch(of(gpu)->functions[function], n_groups[0], n_groups[1], n_groups[2],
                                         info->n_local[0], info->n_local[1], 1, 0, of(gpu)->stream,
                                         (void **)parameters, NULL);
    return check(gpu, info->name, result, error);
}

/* Recordings -------------------------------------------------------------------------------------------------------------------- */

static int cuda_record_begin(struct gpu *gpu, runnel_error *error)
{
    CUresult result = enter(gpu)->capture_begin(of(gpu)->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    return check(gpu, "launches could not be recorded", result, error);
}

static int cuda_record_end(struct gpu *gpu, struct gpu_recording **recording, runnel_error *error)
{
    const struct cuda_library *cu = enter(gpu);
    CUgraph graph = NULL;
    struct gpu_recording *made = calloc(1, sizeof *made);
    CUresult result = cu->capture_end(of(gpu)->stream, &graph);
    if (!made) {
        if (graph)
            cu->graph_destroy(graph);
        return error_set(error, RUNNEL_ENOMEM, "out of memory");
    }
    if (result == CUDA_SUCCESS) {
        result = cu->graph_instantiate(&made->graph, graph, 0);
        cu->graph_destroy(graph);
    }
    if (result) {
        free(made);
        return fail(gpu, "launches could not be recorded", result, error);
    }
    *recording = made;
    return RUNNEL_OK;
}

static int cuda_replay(struct gpu *gpu, struct gpu_recording *recording, runnel_error *error)
{
    return check(gpu, "recorded launches", enter(gpu)->graph_launch(recording->graph, of(gpu)->stream),
                 error);
}

static void cuda_recording_free(struct gpu *gpu, struct gpu_recording *recording)
{
    if (!gpu_is_lost(gpu))
        enter(gpu)->exec_destroy(recording->graph);
    free(recording);
}

const struct gpu_driver gpu_driver_cuda = {
    .name = "cuda",
    .list = cuda_list,
    .open = cuda_open,
    .close = cuda_close,
    .get_memory = cuda_get_memory,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .alloc_host = cuda_alloc_host,
    .free_host = cuda_free_host,
    .write = cuda_write,
    .read = cuda_read,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .mark = cuda_mark,
    .is_done = cuda_is_done,
    .prepare = cuda_prepare,
    .launch = cuda_launch,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .replay = cuda_replay,
    .recording_free = cuda_recording_free,
};
