/* table.c: see table.h. The system maps pages of zeroes when they are first touched; calloc writes all of them once its threshold
 * for this has grown. With a sanitizer it is calloc all the same, as only that is watched for reads past the end. */
#include "constrain/table.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { HEAD_BYTES = 64 }; /* before a table: how much is mapped. A cache line, so that tables are aligned */

void *table_create(size_t n, size_t size)
{
    if (RUNNEL_SANITIZED)
        return calloc(n, size);
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes) || __builtin_add_overflow(n_bytes, HEAD_BYTES, &n_bytes))
        return NULL;
    uint8_t *start = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    *(size_t *)(void *)start = n_bytes;
    return start + HEAD_BYTES;
}

void table_free(void *table)
{
    if (RUNNEL_SANITIZED) {
        free(table);
        return;
    }
    if (!table)
        return;
    uint8_t *start = (uint8_t *)table - HEAD_BYTES;
    munmap(start, *(size_t *)(void *)start);
}
