/* routes.h: which function answers which path: one table (route_table.c), from which requests are led (routes.c) and
 * /openapi.json is written (openapi.c). The loop's thread only. */
#ifndef RUNNEL_SERVER_ROUTES_H
#define RUNNEL_SERVER_ROUTES_H

#include "server/core/server.h"

enum route_body {
    BODY_NONE,     /* GET: what comes is ignored */
    BODY_JSON,     /* POST */
    BODY_OPTIONAL, /* POST: without a body the query tells all */
};

struct route {
    const char *path; /* ends in "{name}" where something follows that clients say */
    enum route_body body;
    void (*answer)(struct server *server, struct exchange *exchange);

    /* For /openapi.json; see there for the names. */
    const char *summary;
    const char *asks;  /* the schema of the body; NULL: none */
    const char *gives; /* the schema of the answer; NULL: text */
    bool streams;      /* or events, if the body says "stream" */
};

const struct route *route_table(size_t *n);

#endif
