/* server.h: what the parts of the server share.
 *
 * A struct server takes a listening descriptor, an opened model with its engine, and a block of counters, and opens
 * nothing itself. The loop's thread alone touches it and everything in it; engine threads reach it through jobs (job.h). */
#ifndef RUNNEL_SERVER_SERVER_H
#define RUNNEL_SERVER_SERVER_H

#include "runnel.h"
#include "server/exchange.h"
#include "server/loop.h"
#include "server/metrics.h"

/* Defaults of requests, and bounds; from the option table of `runnel serve`. */
struct server_options {
    const char *alias;        /* the model's name in answers; NULL: the file's own */
    runnel_sampling sampling; /* of a request that does not say */
    int max_tokens;           /* likewise */
    bool split_reasoning;     /* --reasoning-format deepseek: thoughts apart; none: in the content */
    uint32_t n_context, n_parallel;
};

struct job;
struct pool;

struct server {
    const struct server_options *options;
    const runnel_model *model;
    runnel_engine *engine;
    runnel_model_info info;
    struct loop *loop;
    struct metrics *metrics;
    struct pool *pool;    /* memory of what lives as long as a request */
    struct job *jobs;     /* running; job.c's */
    char model_name[128]; /* in answers and as the label of metrics */
    double start_ms;      /* monotonic */
    int64_t created_s;    /* wall clock, for "created" */
};

struct server_listening {
    int descriptor; /* the caller's */
    const struct server_options *options;
    const runnel_model *model;
    runnel_engine *engine;
    struct metrics *metrics;
};

/* Serves until SIGTERM or SIGINT: then no new requests, running ones finish or end at the drain limit (10 s). A second
 * signal ends at once. */
int server_run(const struct server_listening *listening, runnel_error *error);

/* routes.c: the two callbacks of the loop; user is the struct server. */
void routes_on_head(struct exchange *exchange, void *user);
void routes_on_request(struct exchange *exchange, void *user);

#endif
