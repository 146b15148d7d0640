/* page.h: the page at / and the files it consists of.
 *
 * The files are a table that the build makes (cmake/web.cmake); nothing is read from a disk, and a path is either a name
 * in the table or unknown. The loop's thread only. */
#ifndef RUNNEL_SERVER_PAGE_H
#define RUNNEL_SERVER_PAGE_H

#include "server/net/exchange.h"

struct server;

struct page_file {
    const char *path; /* as browsers ask for it: "/", "/web/..." */
    const char *content_type;
    const char *etag; /* changes with the content; with its quotes */
    const char *bytes, *end;
    const char *packed, *packed_end; /* the same by gzip */
};

extern const struct page_file page_files[];
extern const size_t n_page_files;

/* The file that a path names; NULL if none. */
const struct page_file *page_find(struct exchange_text path);

/* GET of a path that page_find knows: the file, or 304 if the client has it. Ends the exchange. */
void page_get(struct server *server, struct exchange *exchange);

#endif
