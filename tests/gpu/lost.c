/* lost.c: a GPU that answers no more. The program runnel_lost is `runnel` in which these stand before two functions of
 * gpu/device.h (the linker's --wrap). The file that RUNNEL_TEST_LOST names holds a number: in the first process that waits for a device,
 * which takes the file away, that device is lost after so many waits, and its driver's exit handler never returns then. Any later process
 * finds a device that works. */
#include "gpu/device.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

bool __real_gpu_is_lost(const struct gpu *gpu);
bool __wrap_gpu_is_lost(const struct gpu *gpu);
int __real_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error);
int __wrap_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error);

/* Of the engine's thread. */
static unsigned n_waits;
static bool is_lost;

/* As a driver's handler does, which waits for its device. */
static void hang(void)
{
    while (is_lost)
        pause();
}

/* After how many waits; 0: never. */
static unsigned limit(void)
{
    static unsigned n;
    static bool was_read;
    const char *path = getenv("RUNNEL_TEST_LOST");
    char text[16] = "";
    if (was_read || !path)
        return n;
    was_read = true;
    atexit(hang);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0)
            n = (unsigned)atoi(text);
        close(file);
        unlink(path);
    }
    return n;
}

bool __wrap_gpu_is_lost(const struct gpu *gpu)
{
    return is_lost || __real_gpu_is_lost(gpu);
}

int __wrap_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error)
{
    unsigned n_most = limit();
    int failure = __real_gpu_finish(gpu, timeout_ms, error);
    is_lost = is_lost || (n_most && ++n_waits > n_most);
    return is_lost ? error_set(error, RUNNEL_EIO, "the GPU has fallen out of its slot") : failure;
}
