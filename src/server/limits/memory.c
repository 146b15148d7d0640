/* memory.c: see memory.h. */
#include "server/limits/memory.h"

#include "base/limits.h"

#include <stdio.h>
#include <unistd.h>

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

struct memory_reading memory_read(uint64_t own_limit_bytes)
{
    struct memory_reading reading = {0};
    unsigned long long n_virtual, n_resident;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%llu %llu", &n_virtual, &n_resident) == 2) {
            reading.virtual_bytes = n_virtual * (uint64_t)sysconf(_SC_PAGESIZE);
            reading.resident_bytes = n_resident * (uint64_t)sysconf(_SC_PAGESIZE);
        }
        fclose(file);
    }
    struct limits_memory memory = {reading.resident_bytes, own_limit_bytes};
    if (!own_limit_bytes)
        memory = limits_memory();
    reading.used_bytes = memory.used_bytes;
    reading.limit_bytes = memory.limit_bytes;
    set_percent(&reading);
    return reading;
}
