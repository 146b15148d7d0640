/* gpu.c: what is the same for all drivers: which there are, bounds of places, waiting with an end, and what happens to a
 * device that is lost. See device.h. */
#include "gpu/driver.h"
#include "gpu/signals.h"

#include "base/clock.h"

#include <string.h>

static const struct gpu_driver *const drivers[] = {
    &gpu_driver_cuda,
#ifdef RUNNEL_OPENCL
    &gpu_driver_opencl,
#endif
};
enum { N_DRIVERS = sizeof drivers / sizeof *drivers };

/* An NVIDIA device that CUDA's driver has listed, listed by OpenCL's as well. */
static bool is_twin(const struct gpu_info *infos, uint32_t n_of_cuda, const struct gpu_info *info)
{
    for (uint32_t i = 0; i < n_of_cuda; i++)
        if (!strcmp(infos[i].name, info->name))
            return true;
    return false;
}

static bool is_of_cuda(const struct gpu_info *info)
{
    return !strcmp(info->interface, gpu_driver_cuda.name);
}

void gpu_list(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem)
{
    runnel_error first = {.code = RUNNEL_OK};
    struct signals signals;
    *n = 0;
    signals_note(&signals);
    for (unsigned i = 0; i < N_DRIVERS; i++) {
        runnel_error found = {.code = RUNNEL_OK};
        drivers[i]->list(infos, capacity, n, &found);
        first = first.code ? first : found;
    }
    signals_give_back(&signals);
    if (problem)
        *problem = first;
    uint32_t n_of_cuda = 0, n_kept = 0;
    while (n_of_cuda < *n && is_of_cuda(&infos[n_of_cuda]))
        n_of_cuda++;
    for (uint32_t i = 0; i < *n; i++)
        if (i < n_of_cuda || !is_twin(infos, n_of_cuda, &infos[i]))
            infos[n_kept++] = infos[i];
    *n = n_kept;
}

int gpu_open(const struct gpu_info *info, struct gpu **gpu, runnel_error *error)
{
    for (unsigned i = 0; i < N_DRIVERS; i++) {
        if (strcmp(drivers[i]->name, info->interface) != 0)
            continue;
        struct signals signals;
        signals_note(&signals);
        int code = drivers[i]->open(info, gpu, error);
        signals_give_back(&signals);
        if (code)
            return code;
        (*gpu)->driver = drivers[i];
        (*gpu)->info = *info;
        (*gpu)->failure.code = RUNNEL_OK;
        return RUNNEL_OK;
    }
    return error_set(error, RUNNEL_EUNSUPPORTED, "%s: no driver is called %s", info->name, info->interface);
}

const struct gpu_info *gpu_get_info(const struct gpu *gpu)
{
    return &gpu->info;
}

bool gpu_is_lost(const struct gpu *gpu)
{
    return gpu->failure.code != RUNNEL_OK;
}

/* What a driver's function returned, with its error: hands it on, and keeps it if the device is lost. */
static int settle(struct gpu *gpu, int code, const runnel_error *cause, runnel_error *error)
{
    if (code == RUNNEL_OK)
        return RUNNEL_OK;
    if (code == RUNNEL_EIO || code == RUNNEL_ETIMEOUT)
        gpu->failure = *cause;
    return error_set(error, code, "%s", cause->message);
}

/* The failure of a device that is lost. */
static int check_lost(const struct gpu *gpu, runnel_error *error)
{
    return gpu_is_lost(gpu) ? error_set(error, gpu->failure.code, "%s", gpu->failure.message) : RUNNEL_OK;
}

static int check_place(const struct gpu *gpu, struct gpu_place place, size_t n_bytes, runnel_error *error)
{
    int code = check_lost(gpu, error);
    if (code)
        return code;
    if (!place.buffer.handle || place.offset > place.buffer.n_bytes ||
        n_bytes > place.buffer.n_bytes - place.offset)
        return error_set(error, RUNNEL_EINVAL, "%s: %zu bytes at %llu of a buffer of %zu", gpu->info.name,
                         n_bytes, (unsigned long long)place.offset, place.buffer.n_bytes);
    return RUNNEL_OK;
}

void gpu_close(struct gpu *gpu)
{
    if (!gpu)
        return;
    if (!gpu_is_lost(gpu))
        gpu_finish(gpu, 1000, NULL);
    gpu->driver->close(gpu);
}

int gpu_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes, runnel_error *error)
{
    int code = check_lost(gpu, error);
    return code ? code : gpu->driver->get_memory(gpu, free_bytes, total_bytes, error);
}

int gpu_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error)
{
    runnel_error cause;
    int code = check_lost(gpu, error);
    if (code)
        return code;
    if (gpu->info.allocation_max_bytes && n_bytes > gpu->info.allocation_max_bytes)
        return error_set(error, RUNNEL_ENOMEM, "%s gives at most %llu MiB at a time, and %zu MiB are needed",
                         gpu->info.name, (unsigned long long)(gpu->info.allocation_max_bytes >> 20),
                         n_bytes >> 20);
    return settle(gpu, gpu->driver->alloc(gpu, n_bytes ? n_bytes : 16, buffer, &cause), &cause, error);
}

void gpu_free(struct gpu *gpu, struct gpu_buffer *buffer)
{
    if (buffer->handle)
        gpu->driver->free(gpu, buffer);
    *buffer = (struct gpu_buffer){0, 0};
}

void *gpu_alloc_host(struct gpu *gpu, size_t n_bytes)
{
    return gpu_is_lost(gpu) ? NULL : gpu->driver->alloc_host(gpu, n_bytes);
}

void gpu_free_host(struct gpu *gpu, void *memory)
{
    if (memory && !gpu_is_lost(gpu))
        gpu->driver->free_host(gpu, memory);
}

int gpu_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes, runnel_error *error)
{
    runnel_error cause;
    int code = check_place(gpu, to, n_bytes, error);
    if (code || !n_bytes)
        return code;
    return settle(gpu, gpu->driver->write(gpu, to, data, n_bytes, &cause), &cause, error);
}

int gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error)
{
    runnel_error cause;
    int code = check_place(gpu, from, n_bytes, error);
    if (code || !n_bytes)
        return code;
    return settle(gpu, gpu->driver->read(gpu, from, data, n_bytes, &cause), &cause, error);
}

int gpu_copy(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes, runnel_error *error)
{
    runnel_error cause;
    int code = check_place(gpu, to, n_bytes, error);
    code = code ? code : check_place(gpu, from, n_bytes, error);
    if (code || !n_bytes)
        return code;
    return settle(gpu, gpu->driver->copy(gpu, to, from, n_bytes, &cause), &cause, error);
}

int gpu_zero(struct gpu *gpu, struct gpu_place to, size_t n_bytes, runnel_error *error)
{
    runnel_error cause;
    int code = check_place(gpu, to, n_bytes, error);
    if (code || !n_bytes)
        return code;
    return settle(gpu, gpu->driver->zero(gpu, to, n_bytes, &cause), &cause, error);
}

/* For how long to sleep before the device is asked again: a step of a fast one is over within a few hundred microseconds, and one that
 * computes on the CPU wants it for itself. */
static void rest(const struct gpu *gpu, double waited_ms)
{
    if (waited_ms < 2 && !gpu->info.is_cpu)
        return;
    struct timespec pause = {.tv_nsec = waited_ms < 20 ? 20000 : 200000};
    nanosleep(&pause, NULL);
}

int gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error)
{
    runnel_error cause;
    int code = check_lost(gpu, error);
    if (code)
        return code;
    double begin = clock_ms();
    bool done = false;
    code = gpu->driver->mark(gpu, &cause);
    while (code == RUNNEL_OK && (code = gpu->driver->is_done(gpu, &done, &cause)) == RUNNEL_OK && !done) {
        double waited_ms = clock_ms() - begin;
        if (waited_ms > timeout_ms)
            code = error_set(&cause, RUNNEL_ETIMEOUT, "%s has not answered for %.0f ms", gpu->info.name,
                             timeout_ms);
        else
            rest(gpu, waited_ms);
    }
    return settle(gpu, code, &cause, error);
}

int gpu_prepare(struct gpu *gpu, enum gpu_function function, runnel_error *error)
{
    runnel_error cause;
    int code = check_lost(gpu, error);
    return code ? code : settle(gpu, gpu->driver->prepare(gpu, function, &cause), &cause, error);
}

int gpu_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
               const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error)
{
    runnel_error cause;
    int code = check_lost(gpu, error);
    if (code || !n_groups[0] || !n_groups[1] || !n_groups[2])
        return code;
    return settle(gpu, gpu->driver->launch(gpu, function, n_groups, arguments, n_arguments, &cause), &cause,
                  error);
}

static int check_recordings(const struct gpu *gpu, runnel_error *error)
{
    int code = check_lost(gpu, error);
    if (code == RUNNEL_OK && !gpu->info.has_recordings)
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s: its driver records no launches", gpu->info.name);
    return code;
}

int gpu_record_begin(struct gpu *gpu, runnel_error *error)
{
    runnel_error cause;
    int code = check_recordings(gpu, error);
    return code ? code : settle(gpu, gpu->driver->record_begin(gpu, &cause), &cause, error);
}

int gpu_record_end(struct gpu *gpu, struct gpu_recording **recording, runnel_error *error)
{
    runnel_error cause;
    int code = check_recordings(gpu, error);
    return code ? code : settle(gpu, gpu->driver->record_end(gpu, recording, &cause), &cause, error);
}

int gpu_replay(struct gpu *gpu, struct gpu_recording *recording, runnel_error *error)
{
    runnel_error cause;
    int code = check_recordings(gpu, error);
    return code ? code : settle(gpu, gpu->driver->replay(gpu, recording, &cause), &cause, error);
}

void gpu_recording_free(struct gpu *gpu, struct gpu_recording *recording)
{
    if (recording)
        gpu->driver->recording_free(gpu, recording);
}
