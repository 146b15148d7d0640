/* table.h: arrays of zeroes as large as a constraint may ever need, of which only what is touched takes memory and time: most
 * constraints need little of theirs. Any thread. */
#ifndef RUNNEL_CONSTRAIN_TABLE_H
#define RUNNEL_CONSTRAIN_TABLE_H

#include <stddef.h>

/* n zeroed elements of size bytes each; freed with table_free. NULL: no memory. */
void *table_create(size_t n, size_t size);
void table_free(void *table); /* NULL is fine */

enum { TABLE_PAGE_BYTES = 4096 };

/* How much memory a table of max elements takes at most, n of which stand anywhere in it: a page each, until it has all of its
 * pages. One that is filled from its beginning takes what its elements do. */
static inline size_t table_scattered_bytes(size_t n, size_t max, size_t size)
{
    return n < max * size / TABLE_PAGE_BYTES ? n * TABLE_PAGE_BYTES : max * size;
}

#endif
