/* devices.c: see devices.h. */
#include "backend/devices.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/near_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct backend_device {
    struct gpu *gpu;
    char name[160];    /* with its id */
    char problem[512]; /* of a driver that does not work, if this is the CPU in disguise; "": there is none */
    uint64_t used_bytes; /* by back ends */
    uint64_t free_bytes; /* at asked_ms, says the driver; 0: it does not */
    double asked_ms;
};

/* Of the memory that is free, what is left to the driver: it takes some for each function and for its queue. */
static const double left_share = 1.0 / 32;

/* Measuring: copies of so much at least, which no cache holds, as often as takes a while. */
static const double ask_ms = 1000;
enum { MEASURE_BYTES = 256 << 20, MEASURE_COPIES = 8, MEASURE_LEAST_BYTES = 4 << 20 };
static const double measure_ms = 60e3;

/* Which there are ------------------------------------------------------------------------------------------ */

/* Cards, then graphics units that share the machine's memory, then the CPU in disguise. */
static int place_of(const struct gpu_info *info)
{
    return info->is_cpu ? 2 : info->is_integrated;
}

void backend_devices_sort(struct backend_devices *devices)
{
    const struct backend_devices found = *devices;
    devices->n = 0;
    for (int place = 0; place < 3; place++)
        for (uint32_t i = 0; i < found.n; i++)
            if (place_of(&found.infos[i]) == place)
                devices->infos[devices->n++] = found.infos[i];
}

void backend_devices_find(struct backend_devices *devices)
{
    *devices = (struct backend_devices){.n = 0};
    gpu_list(devices->infos, BACKEND_DEVICES_MAX, &devices->n, &devices->problem);
    backend_devices_sort(devices);
}

const char *backend_device_id(uint32_t index, char id[BACKEND_DEVICE_ID_BYTES])
{
    snprintf(id, BACKEND_DEVICE_ID_BYTES, "gpu%u", index % 1000);
    return id;
}

bool backend_device_problem(const struct gpu_info *info, char *why, size_t size)
{
    snprintf(why, size,
             "its answers would not be the CPU's: it has no %s; it can be used with gpu_approximate",
             !info->has_fma         ? "fused multiply-add"
             : !info->has_denormals ? "denormal numbers"
                                    : "correctly rounded division");
    return !gpu_is_exact(info);
}

/* Which one is meant --------------------------------------------------------------------------------------- */

bool backend_device_is_optional(const char *wish)
{
    return strcmp(wish, "auto") == 0;
}

static bool is_usable(const struct gpu_info *info, bool approximates)
{
    return approximates || gpu_is_exact(info);
}

/* Nothing was found, or nothing that can be used; and why, where that is known. */
static int refuse_all(const struct backend_devices *devices, const char *wish, runnel_error *error)
{
    char id[BACKEND_DEVICE_ID_BYTES], why[160];
    if (devices->n) {
        backend_device_problem(&devices->infos[0], why, sizeof why);
        return error_set(error, RUNNEL_EUNSUPPORTED, "device %s: none can be used; %s (%s): %s", wish,
                         backend_device_id(0, id), devices->infos[0].name, why);
    }
    if (devices->problem.code)
        return error_set(error, RUNNEL_EUNSUPPORTED, "device %s: there is none; %s", wish,
                         devices->problem.message);
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        "device %s: there is none: no driver of CUDA (libcuda.so.1) or OpenCL (libOpenCL.so.1) shows one",
        wish);
}

/* "gpu" and "auto". */
static int choose_any(const struct backend_devices *devices, const char *wish, bool approximates,
                      uint32_t *index, runnel_error *error)
{
    bool is_optional = backend_device_is_optional(wish);
    for (uint32_t i = 0; i < devices->n; i++)
        if (is_usable(&devices->infos[i], approximates) && !(is_optional && devices->infos[i].is_cpu)) {
            *index = i;
            return RUNNEL_OK;
        }
    if (!is_optional)
        return refuse_all(devices, wish, error);
    *index = devices->n;
    return RUNNEL_OK;
}

static bool contains(const char *name, const char *part)
{
    for (size_t len = strlen(part); *name; name++)
        if (strncasecmp(name, part, len) == 0)
            return true;
    return false;
}

/* "gpu0 (NAME), gpu1 (NAME)". */
static void list_names(const struct backend_devices *devices, char *list, size_t size)
{
    char id[BACKEND_DEVICE_ID_BYTES];
    size_t len = 0;
    *list = 0;
    for (uint32_t i = 0; i < devices->n && len < size; i++)
        len += (size_t)snprintf(list + len, size - len, "%s%s (%s)", i ? ", " : "", backend_device_id(i, id),
                                devices->infos[i].name);
}

static int refuse_name(const struct backend_devices *devices, const char *wish, uint32_t n_alike,
                       runnel_error *error)
{
    char id[BACKEND_DEVICE_ID_BYTES], list[256], hint[NEAR_NAME_MAX + 32] = "";
    struct near_name near = near_name_begin(wish, strlen(wish));
    static const char *const words[] = {"cpu", "gpu", "auto"};
    if (!devices->n)
        return refuse_all(devices, wish, error);
    list_names(devices, list, sizeof list);
    if (n_alike > 1)
        return error_set(error, RUNNEL_EINVAL, "device %s: %u have that in their names: expected one of %s",
                         wish, n_alike, list);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        near_name_consider(&near, words[i], strlen(words[i]));
    for (uint32_t i = 0; i < devices->n; i++) {
        backend_device_id(i, id);
        near_name_consider(&near, id, strlen(id));
        near_name_consider(&near, devices->infos[i].name, strlen(devices->infos[i].name));
    }
    if (*near.nearest)
        snprintf(hint, sizeof hint, "; did you mean %s?", near.nearest);
    return error_set(error, RUNNEL_EINVAL, "device %s: expected cpu, gpu, auto or one of %s%s", wish, list,
                     hint);
}

static int choose_by_name(const struct backend_devices *devices, const char *wish, bool approximates,
                          uint32_t *index, runnel_error *error)
{
    char id[BACKEND_DEVICE_ID_BYTES], why[160];
    uint32_t n_alike = 0, last = 0;
    for (uint32_t i = 0; i < devices->n; i++) {
        bool is_it = !strcasecmp(wish, backend_device_id(i, id));
        if (!is_it && !contains(devices->infos[i].name, wish))
            continue;
        n_alike = is_it ? 1 : n_alike + 1;
        last = i;
        if (is_it)
            break;
    }
    if (n_alike != 1)
        return refuse_name(devices, wish, n_alike, error);
    if (!is_usable(&devices->infos[last], approximates)) {
        backend_device_problem(&devices->infos[last], why, sizeof why);
        return error_set(error, RUNNEL_EUNSUPPORTED, "device %s: %s cannot be used: %s", wish,
                         devices->infos[last].name, why);
    }
    *index = last;
    return RUNNEL_OK;
}

int backend_devices_choose(const struct backend_devices *devices, const char *wish, bool approximates,
                           uint32_t *index, runnel_error *error)
{
    if (!strcmp(wish, "gpu") || backend_device_is_optional(wish))
        return choose_any(devices, wish, approximates, index, error);
    return choose_by_name(devices, wish, approximates, index, error);
}

/* The one that is open --------------------------------------------------------------------------------------- */

int backend_device_open(const char *wish, bool approximates, struct backend_device **out, runnel_error *error)
{
    struct backend_devices devices;
    char id[BACKEND_DEVICE_ID_BYTES];
    uint32_t index;
    backend_devices_find(&devices);
    int failure = backend_devices_choose(&devices, wish, approximates, &index, error);
    if (failure)
        return failure;
    if (index == devices.n) {
        *out = NULL;
        return RUNNEL_OK;
    }
    struct backend_device *device = calloc(1, sizeof *device);
    if (!device)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a device");
    snprintf(device->name, sizeof device->name, "%s (%s)", backend_device_id(index, id),
             devices.infos[index].name);
    if (devices.problem.code && devices.infos[index].is_cpu)
        memcpy(device->problem, devices.problem.message, sizeof device->problem);
    devices.infos[index].approximates = approximates;
    failure = gpu_open(&devices.infos[index], &device->gpu, error);
    if (failure) {
        if (error)
            error_prefix(error, "%s", device->name);
        free(device);
        return failure;
    }
    *out = device;
    return RUNNEL_OK;
}

void backend_device_close(struct backend_device *device)
{
    if (!device)
        return;
    gpu_close(device->gpu);
    free(device);
}

struct gpu *backend_device_gpu(const struct backend_device *device)
{
    return device->gpu;
}

const char *backend_device_name(const struct backend_device *device)
{
    return device->name;
}

void backend_device_count(struct backend_device *device, int64_t n_bytes)
{
    device->used_bytes += (uint64_t)n_bytes;
}

uint64_t backend_device_free_bytes(const struct backend_device *device)
{
    uint64_t free_bytes, total_bytes, room_bytes;
    if (gpu_get_memory(device->gpu, &free_bytes, &total_bytes, NULL))
        return 0;
    if (!free_bytes) /* the driver does not say */
        free_bytes = total_bytes;
    if (gpu_get_info(device->gpu)->is_integrated && limits_memory_room(&room_bytes) &&
        room_bytes < free_bytes)
        free_bytes = room_bytes;
    return free_bytes - (uint64_t)((double)free_bytes * left_share);
}

static int copy_for_a_while(struct gpu *gpu, const struct gpu_buffer buffers[2], double *gb_s,
                            runnel_error *error)
{
    size_t n_bytes = buffers[0].n_bytes;
    int failure = gpu_zero(gpu, gpu_at(buffers[0], 0), n_bytes, error);
    if (!failure) /* once before: memory may be brought in by it */
        failure = gpu_copy(gpu, gpu_at(buffers[1], 0), gpu_at(buffers[0], 0), n_bytes, error);
    if (!failure)
        failure = gpu_finish(gpu, measure_ms, error);
    double start_ms = clock_ms();
    for (int i = 0; i < MEASURE_COPIES && !failure; i++)
        failure = gpu_copy(gpu, gpu_at(buffers[1], 0), gpu_at(buffers[0], 0), n_bytes, error);
    if (!failure)
        failure = gpu_finish(gpu, measure_ms, error);
    if (!failure) /* each byte is read and written */
        *gb_s = 2.0 * MEASURE_COPIES * (double)n_bytes / (clock_ms() - start_ms) / 1e6;
    return failure;
}

int backend_device_measure(struct backend_device *device, double *gb_s, runnel_error *error)
{
    struct gpu_buffer buffers[2] = {{.handle = 0}, {.handle = 0}};
    size_t n_bytes = MEASURE_BYTES;
    int failure = RUNNEL_ENOMEM;
    for (; failure == RUNNEL_ENOMEM && n_bytes >= MEASURE_LEAST_BYTES; n_bytes /= 2) {
        gpu_free(device->gpu, &buffers[0]);
        failure = gpu_alloc(device->gpu, n_bytes, &buffers[0], error);
        if (!failure)
            failure = gpu_alloc(device->gpu, n_bytes, &buffers[1], error);
    }
    if (!failure)
        failure = copy_for_a_while(device->gpu, buffers, gb_s, error);
    for (int i = 0; i < 2; i++)
        gpu_free(device->gpu, &buffers[i]);
    return failure;
}

void backend_device_look(struct backend_device *device, struct backend_device_state *state)
{
    uint64_t total_bytes = gpu_get_info(device->gpu)->memory_bytes, unused;
    double now_ms = clock_ms();
    bool is_lost = gpu_is_lost(device->gpu);
    if (!is_lost && now_ms - device->asked_ms > ask_ms) {
        device->asked_ms = now_ms;
        if (gpu_get_memory(device->gpu, &device->free_bytes, &unused, NULL))
            device->free_bytes = 0;
    }
    bool is_told = device->free_bytes > 0 && device->free_bytes <= total_bytes;
    *state = (struct backend_device_state){
        .name = device->name,
        .problem = device->problem,
        .memory_bytes = total_bytes,
        .used_bytes = is_told ? total_bytes - device->free_bytes : device->used_bytes,
        .is_lost = is_lost,
    };
}
