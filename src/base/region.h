/* region.h: large blocks of memory straight from the system, in huge pages where it has them. Any thread. */
#ifndef RUNNEL_BASE_REGION_H
#define RUNNEL_BASE_REGION_H

#include <stddef.h>

/* Maps at least n_bytes of zeros, aligned to 2 MiB. NULL if there is no memory. Free with region_unmap and
 * the same size. */
void *region_map(size_t n_bytes);
void region_unmap(void *region, size_t n_bytes); /* NULL is fine */

#endif
