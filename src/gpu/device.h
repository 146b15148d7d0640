/* device.h: GPUs, as whoever computes on one sees them: memory, one queue, launches of the functions of kernels.h.
 *
 * Two drivers stand behind it, both found when the program runs: CUDA's (cuda.c) and OpenCL's (opencl.c). A struct gpu owns
 * what was made with it: buffers that are still there are freed by gpu_close.
 *
 * There is one queue, in order: what is launched, copied, written and read happens one after the other, some time before gpu_finish
 * returns. In steps no function but gpu_finish waits for the device, and it has an end: what steps write from and read to is
 * memory of gpu_alloc_host, as drivers may wait for the device, without an end, before they return from a copy to or from any other.
 *
 * Errors: RUNNEL_ENOMEM the device has not the memory; RUNNEL_EUNSUPPORTED there is no such device, or it or its driver
 * cannot do this; RUNNEL_ETIMEOUT it takes longer than it may; RUNNEL_EIO the driver failed. After one of the last two the
 * device is lost: everything fails at once, with the message of the first failure, and only gpu_close is left to be called.
 *
 * One thread at a time calls functions of a struct gpu. gpu_list and gpu_open start threads of the drivers, which a fork does not
 * survive: whoever forks calls them in the child. */
#ifndef RUNNEL_GPU_DEVICE_H
#define RUNNEL_GPU_DEVICE_H

#include "base/error.h"
#include "gpu/programs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpu_info {
    char name[128], driver[64]; /* driver: its version, for people */
    const char *interface;      /* "cuda" or "opencl" */
    uint64_t memory_bytes;
    uint64_t allocation_max_bytes; /* of one buffer */
    uint32_t n_units;              /* multiprocessors, compute units */
    bool is_cpu;                   /* an OpenCL driver that computes on this machine's CPU, as PoCL's */
    bool is_integrated;            /* its memory is the machine's */
    /* What it can do. The first three together: it gives the bits that the CPU does. */
    bool has_fma, has_denormals, has_exact_division; /* division and square root correctly rounded */
    bool has_integer_dot;                            /* four products of bytes in one instruction */
    bool has_matrix_units;                           /* for bytes, and usable here */
    bool has_recordings;                             /* gpu_record_begin and what follows work */
    uint32_t platform, device;                       /* for gpu_open */
    /* Set by whoever opens it: other bits than the CPU's will do. What it cannot do is done without, and floats are summed in the order
     * that is fastest. */
    bool approximates;
};

/* Finds the devices of all drivers, those of CUDA first; an NVIDIA device that is there is not listed a second time as
 * OpenCL's. *n: how many were written, at most capacity. That there are none is no error. `problem` (may be NULL) says of the first driver that
 * is installed and does not work what is wrong with it; else its code is RUNNEL_OK. */
void gpu_list(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem);

/* The bits of a device are the CPU's. */
static inline bool gpu_is_exact(const struct gpu_info *info)
{
    return info->has_fma && info->has_denormals && info->has_exact_division;
}

struct gpu;

int gpu_open(const struct gpu_info *info, struct gpu **gpu, runnel_error *error);
void gpu_close(struct gpu *gpu); /* waits no longer than a second for what still runs; NULL is fine */
const struct gpu_info *gpu_get_info(const struct gpu *gpu);
bool gpu_is_lost(const struct gpu *gpu);

/* Of the whole device, whoever uses it. free_bytes 0: the driver does not say. That it cannot say now, as behind a sandbox, loses no device. */
int gpu_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes, runnel_error *error);

/* Device memory. handle 0: none, which stands for "not there" in arguments. */
struct gpu_buffer {
    uint64_t handle;
    size_t n_bytes;
};

/* A place in a buffer; what lies there is said by whoever uses it. Offsets are multiples of 16 unless said otherwise. */
struct gpu_place {
    struct gpu_buffer buffer;
    uint64_t offset; /* bytes */
};

static inline struct gpu_place gpu_at(struct gpu_buffer buffer, uint64_t offset)
{
    return (struct gpu_place){buffer, offset};
}

/* n_bytes of memory with undefined content, aligned to 256 bytes. The memory is had when this returns: where a driver would take it at its
 * first use, it is used, and waited for. */
int gpu_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error);
void gpu_free(struct gpu *gpu, struct gpu_buffer *buffer); /* becomes none; of none nothing */

/* Memory of this machine that the device reads and writes quickly and by itself; NULL: there is none to be had. Once the device is lost it
 * stays until the process ends, freed or not: what is queued may still read and write there. */
void *gpu_alloc_host(struct gpu *gpu, size_t n_bytes);
void gpu_free_host(struct gpu *gpu, void *memory);

/* These only queue: data must stay, and must not be read or changed, until gpu_finish. Any offset, any number of bytes. */
int gpu_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes, runnel_error *error);
int gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error);
int gpu_copy(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes,
             runnel_error *error);
int gpu_zero(struct gpu *gpu, struct gpu_place to, size_t n_bytes,
             runnel_error *error); /* both multiples of 4 */

/* Waits until the queue is empty, at most timeout_ms. */
int gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error);

/* Launches. What kernels.h has is a caller's way to them; these are what it is made of. */

struct gpu_argument {
    enum { GPU_ARGUMENT_PLACE, GPU_ARGUMENT_UINT, GPU_ARGUMENT_FLOAT } kind;
    union {
        struct gpu_place place; /* becomes two of the function's: the buffer, and the offset as a ulong */
        uint32_t u;
        float f;
    };
};

/* Compiles a function, if it is not yet, and whatever else the driver does at the first use of one: afterwards its launches neither
 * compile nor allocate, nor open a file. Takes seconds with some drivers. */
int gpu_prepare(struct gpu *gpu, enum gpu_function function, runnel_error *error);

/* n_groups: of work groups in x, y, z, whose size belongs to the function. */
int gpu_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
               const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error);

/* Recordings: what is queued between begin and end does not happen, but becomes a recording, which can be queued as a whole
 * again and again: with the same places and numbers, and what lies there then. Without has_recordings these are
 * RUNNEL_EUNSUPPORTED. Of gpu_write and gpu_read, memory of gpu_alloc_host alone may be recorded. */
struct gpu_recording;

int gpu_record_begin(struct gpu *gpu, runnel_error *error);
int gpu_record_end(struct gpu *gpu, struct gpu_recording **recording, runnel_error *error);
int gpu_replay(struct gpu *gpu, struct gpu_recording *recording, runnel_error *error);
void gpu_recording_free(struct gpu *gpu, struct gpu_recording *recording); /* NULL is fine */

#endif
