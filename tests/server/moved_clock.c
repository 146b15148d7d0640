/* moved_clock.c: the time of day as somebody sets it while a server runs. Loaded before all other libraries (LD_PRELOAD), it adds the
 * seconds that the file holds which MOVED_CLOCK names, an int64_t, to what the system says. The file is mapped at the start: the
 * sandbox lets none be opened later. The clock that never goes back is left alone. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

static const int64_t *moved_by;
static int (*system_clock)(clockid_t id, struct timespec *time);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MOVED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved_by, PROT_READ, MAP_SHARED, file, 0);
    void *found = dlsym(RTLD_NEXT, "clock_gettime");
    if (mapped == MAP_FAILED || !found)
        abort();
    close(file);
    moved_by = mapped;
    system_clock = (int (*)(clockid_t, struct timespec *))(uintptr_t)found;
}

static time_t seconds_moved(void)
{
    return moved_by ? (time_t)__atomic_load_n(moved_by, __ATOMIC_RELAXED) : 0;
}

PUBLIC int clock_gettime(clockid_t id, struct timespec *now)
{
    if (!system_clock)
        begin();
    int failure = system_clock(id, now);
    if (!failure && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds_moved();
    return failure;
}

PUBLIC int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    *now = (struct timeval){.tv_sec = exact.tv_sec, .tv_usec = exact.tv_nsec / 1000};
    return 0;
}

PUBLIC time_t time(time_t *out)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out)
        *out = exact.tv_sec;
    return exact.tv_sec;
}
