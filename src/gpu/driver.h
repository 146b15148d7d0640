/* driver.h: what gpu.c asks of a driver. Private to src/gpu. The functions are those of device.h, without the checks that are the
 * same for all. */
#ifndef RUNNEL_GPU_DRIVER_H
#define RUNNEL_GPU_DRIVER_H

#include "gpu/device.h"

/* A device that is open; each driver has its own struct, of which this is the first member. */
struct gpu {
    const struct gpu_driver *driver;
    struct gpu_info info;
    runnel_error failure; /* code RUNNEL_OK: it is not lost */
};

enum { GPU_ARGUMENTS_MAX = 48 }; /* of a launch; a place is two of the function's */

struct gpu_driver {
    const char *name;
    /* Devices from *n on, at most capacity. Problem as in gpu_list. */
    void (*list)(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem);
    int (*open)(const struct gpu_info *info, struct gpu **gpu, runnel_error *error);
    /* The queue is empty, or the device is lost: then the driver is not called any more, it might never return. */
    void (*close)(struct gpu *gpu);
    int (*get_memory)(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes, runnel_error *error);
    int (*alloc)(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error);
    void (*free)(struct gpu *gpu, struct gpu_buffer *buffer);
    void *(*alloc_host)(struct gpu *gpu, size_t n_bytes);
    void (*free_host)(struct gpu *gpu, void *memory); /* not of a device that is lost */
    int (*write)(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes, runnel_error *error);
    int (*read)(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error);
    int (*copy)(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes,
                runnel_error *error);
    int (*zero)(struct gpu *gpu, struct gpu_place to, size_t n_bytes, runnel_error *error);
    /* mark: remembers the end of what is queued, and sees to it that the device begins; is_done: has it come there? */
    int (*mark)(struct gpu *gpu, runnel_error *error);
    int (*is_done)(struct gpu *gpu, bool *done, runnel_error *error);
    int (*prepare)(struct gpu *gpu, enum gpu_function function, runnel_error *error);
    int (*launch)(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                  const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error);
    /* NULL, all four, where there is no such thing. */
    int (*record_begin)(struct gpu *gpu, runnel_error *error);
    int (*record_end)(struct gpu *gpu, struct gpu_recording **recording, runnel_error *error);
    int (*replay)(struct gpu *gpu, struct gpu_recording *recording, runnel_error *error);
    void (*recording_free)(struct gpu *gpu, struct gpu_recording *recording);
};

extern const struct gpu_driver gpu_driver_cuda;
#ifdef RUNNEL_OPENCL /* the build had OpenCL's headers */
extern const struct gpu_driver gpu_driver_opencl;
#endif

#endif
