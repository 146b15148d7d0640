/* guard.h: from where a server may be asked: the Host and Origin rules, and the API key. All of it is decided from the
 * head alone, before a body is read.
 *
 * A page of a stranger, open in a browser on this machine, can send requests to a loopback address. Two rules keep it
 * out. Host: a name that was made to point here (DNS rebinding) is no name of ours. Origin: what a foreign page asks is
 * refused, and the answer has no CORS header. Pages of the server itself are no strangers. The loop's thread only. */
#ifndef RUNNEL_SERVER_LIMITS_GUARD_H
#define RUNNEL_SERVER_LIMITS_GUARD_H

#include "server/limits/keys.h"
#include "server/net/exchange.h"

enum { GUARD_ORIGIN_BYTES_MAX = 255 };

/* Entries of the lists are lists again: "a,b". */
struct guard_options {
    bool is_loopback; /* listens on a loopback address only: then Host must be a name that is known */
    const char *host; /* --host, one of those names */
    const char *const *allowed_hosts; /* more of them; given, the rule holds wherever the server listens */
    size_t n_allowed_hosts;
    const char *const *cors_origins; /* "http://app.example", or "*" */
    size_t n_cors_origins;
};

/* RUNNEL_EINVAL for an entry that could never match. */
int guard_check_options(const struct guard_options *options, runnel_error *error);

/* Is this the value of a Host header that the server answers to? */
bool guard_host_is_ours(const struct guard_options *options, struct exchange_text host);

enum guard_origin {
    GUARD_SAME_ORIGIN, /* a page of the server itself */
    GUARD_CORS_ORIGIN, /* one of --cors-origin */
    GUARD_FOREIGN_ORIGIN,
};

/* Whose page asks. For GUARD_CORS_ORIGIN *entry is what the answer shall name. */
enum guard_origin guard_judge_origin(const struct guard_options *options, struct exchange_text origin,
                                     struct exchange_text host, struct exchange_text *entry);

/* Returns 0, or the status with which the exchange was ended: 403, or 200 to a preflight. Else it has the CORS headers
 * that its answer needs. */
int guard_admit(const struct guard_options *options, struct exchange *exchange);

/* Does the client show a key, or what is meant as one? */
bool guard_shows_key(const struct exchange *exchange);

/* Is the key that the client shows one of these? */
bool guard_shows_one_of(const struct keys *keys, const struct exchange *exchange);

/* Finds the client's key and notes its id in the exchange. Without keys anybody may ask. False: a key is needed, and there is none or a wrong one. */
bool guard_has_key(const struct keys *keys, struct exchange *exchange);

#endif
