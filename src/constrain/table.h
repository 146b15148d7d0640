/* table.h: arrays of zeroes as large as a constraint may ever need, of which only what is touched takes memory and time: most
 * constraints need little of theirs. Any thread. */
#ifndef RUNNEL_CONSTRAIN_TABLE_H
#define RUNNEL_CONSTRAIN_TABLE_H

#include <stddef.h>

/* n zeroed elements of size bytes each; freed with table_free. NULL: no memory. */
void *table_create(size_t n, size_t size);
void table_free(void *table); /* NULL is fine */

#endif
