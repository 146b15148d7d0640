/* region.c: memory maps aligned to huge pages. Owns nothing; any thread. */
#include "base/region.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 << 20 };

static size_t round_up(size_t n_bytes)
{
    return (n_bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
}

void *region_map(size_t n_bytes)
{
    if (n_bytes == 0 || n_bytes > SIZE_MAX / 4)
        return NULL;
    /* Map one huge page more and give back what is before and after the aligned part. */
    size_t wanted = round_up(n_bytes), mapped = wanted + HUGE_PAGE_BYTES;
    uint8_t *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE_BYTES - (uintptr_t)start % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    size_t after = mapped - wanted - before;
    if (before)
        munmap(start, before);
    if (after)
        munmap(start + before + wanted, after);
    madvise(start + before, wanted, MADV_HUGEPAGE); /* a kernel without huge pages is fine */
    return start + before;
}

bool region_protect(void *region, size_t n_bytes)
{
    return !mprotect(region, round_up(n_bytes), PROT_READ);
}

void region_unmap(void *region, size_t n_bytes)
{
    if (region)
        munmap(region, round_up(n_bytes));
}
