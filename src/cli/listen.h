/* listen.h: the socket that a server listens on. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_LISTEN_H
#define RUNNEL_CLI_LISTEN_H

#include "runnel.h"

#include <stdbool.h>

enum { LISTEN_URL_BYTES = 320 }; /* a host's name, and what is around it */

struct listen_socket {
    int descriptor;             /* the caller's to close */
    bool is_loopback;           /* only this machine reaches it */
    char url[LISTEN_URL_BYTES]; /* that reaches it */
};

/* Resolves host, an address or a name, before it opens anything: may_listen, with *is_loopback, may refuse the address. port 0:
 * any that is free. */
int listen_open(const char *host, int port,
                int (*may_listen)(void *user, bool is_loopback, runnel_error *error), void *user,
                struct listen_socket *out, runnel_error *error);

#endif
