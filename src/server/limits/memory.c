/* memory.c: see memory.h. */
#include "server/limits/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void memory_open(struct memory_files *files)
{
    files->own = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    limits_memory_open(&files->limits);
}

void memory_close(struct memory_files *files)
{
    if (files->own >= 0)
        close(files->own);
    limits_memory_close(&files->limits);
    files->own = -1;
}

static void read_own(int file, struct memory_reading *reading)
{
    char text[128];
    unsigned long long n_virtual, n_resident;
    ssize_t len = pread(file, text, sizeof text - 1, 0);
    if (len <= 0)
        return;
    text[len] = 0;
    if (sscanf(text, "%llu %llu", &n_virtual, &n_resident) == 2) {
        reading->virtual_bytes = n_virtual * (uint64_t)sysconf(_SC_PAGESIZE);
        reading->resident_bytes = n_resident * (uint64_t)sysconf(_SC_PAGESIZE);
    }
}

static void set_percent(struct memory_reading *reading)
{
    if (reading->limit_bytes)
        reading->percent = 100 * (double)reading->used_bytes / (double)reading->limit_bytes;
    if (reading->percent > 100)
        reading->percent = 100;
}

void memory_expect(struct memory_reading *reading, uint64_t n_bytes)
{
    reading->resident_bytes += n_bytes;
    reading->used_bytes += n_bytes;
    set_percent(reading);
}

struct memory_reading memory_read(const struct memory_files *files, uint64_t own_limit_bytes)
{
    struct memory_reading reading = {0};
    read_own(files->own, &reading);
    struct limits_memory memory = {reading.resident_bytes, own_limit_bytes};
    if (!own_limit_bytes)
        memory = limits_memory_read(&files->limits);
    reading.used_bytes = memory.used_bytes;
    reading.limit_bytes = memory.limit_bytes;
    set_percent(&reading);
    return reading;
}
