/* page_table.h: how the KV cache and whoever stores keys and values speak of pages: by number.
 *
 * A page is the place of KV_PAGE positions of all layers and KV heads. The page table of a sequence says for each of its
 * pages, from position 0 on, which one of the pool it is. */
#ifndef RUNNEL_BACKEND_PAGE_TABLE_H
#define RUNNEL_BACKEND_PAGE_TABLE_H

#include <stdint.h>

#define NO_PAGE UINT32_MAX /* in a page table: a window dropped the page */

/* The bytes of a page are to be those of another one. */
struct page_copy {
    uint32_t from, to;
};

#endif
