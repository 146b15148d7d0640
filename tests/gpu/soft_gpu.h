/* soft_gpu.h: a device made of the CPU's kernels, for tests of what is above it: the functions of gpu/device.h and gpu/kernels.h that the
 * back end calls, at once instead of queued. It takes the place of those in the library in whatever links it. Unlike PoCL it
 * records, has as little memory as a test says, gives memory full of garbage, looks at every place whether it is in its buffer, and reads into
 * no memory but that of gpu_alloc_host, which is there for as long as a device may write. */
#ifndef RUNNEL_TESTS_SOFT_GPU_H
#define RUNNEL_TESTS_SOFT_GPU_H

#include <stdbool.h>
#include <stdint.h>

/* Changed between engines only. */
struct soft_gpu {
    uint64_t memory_bytes, allocation_max_bytes;
    uint64_t untold_bytes; /* of memory_bytes, those that others have, of which the driver does not tell */
    bool records, lacks_fma, is_integrated;
    bool lacks_record_memory; /* it would record, and has no memory for it */
    enum {
        SOFT_RIGHT,
        SOFT_WRONG_EMBEDDING,
        SOFT_WRONG_NORM,
        SOFT_WRONG_PRODUCT,
        SOFT_WRONG_ATTENTION /* of one row, in one value: a bit may not be seen behind it */
    } wrong;                 /* in one bit */
    /* Counted. */
    unsigned n_replays, n_launches; /* launches that were queued one by one */
    unsigned n_unplayed;       /* recordings that were not replayed yet, which a sandbox would not let be */
    unsigned n_foreign_writes; /* from other memory than gpu_alloc_host's, as of weights */
    uint64_t used_bytes;
};
extern struct soft_gpu soft_gpu;

#endif
