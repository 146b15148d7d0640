/* region.h: large blocks of memory straight from the system, in huge pages where it has them. Any thread. */
#ifndef RUNNEL_BASE_REGION_H
#define RUNNEL_BASE_REGION_H

#include <stdbool.h>
#include <stddef.h>

/* Maps at least n_bytes of zeros, aligned to 2 MiB. NULL if there is no memory. Free with region_unmap and
 * the same size. */
void *region_map(size_t n_bytes);
void region_unmap(void *region, size_t n_bytes); /* NULL is fine */

/* From now on a write ends the process by SIGSEGV. So children of a fork share it for as long as they live, and keep its huge
 * pages: it is protected as a whole, and none is split. False if the system has no memory for that. */
bool region_protect(void *region, size_t n_bytes);

#endif
