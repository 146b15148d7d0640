/* server.h: what the parts of the server share. The loop's thread alone touches a struct server and everything in it; engine
 * threads reach it through jobs (job.h). Its entry is server/server.h. */
#ifndef RUNNEL_SERVER_CORE_SERVER_H
#define RUNNEL_SERVER_CORE_SERVER_H

#include "base/log.h"
#include "runnel.h"
#include "server/core/metrics.h"
#include "server/limits/admit.h"
#include "server/limits/guard.h"
#include "server/limits/monitor.h"
#include "server/net/exchange.h"
#include "server/net/loop.h"

/* Defaults of requests, and bounds; from the option table of `runnel serve`. */
struct server_options {
    const char *alias;        /* the model's name in answers; NULL: the file's own */
    const char *model_path;   /* for /props */
    runnel_sampling sampling; /* of a request that does not say */
    int max_tokens;           /* likewise */
    bool has_seed;            /* else each request that does not say gets another seed */
    bool no_thinking;         /* --reasoning off: requests that do not say so are answered without thoughts */
    bool split_reasoning;     /* --reasoning-format deepseek: thoughts apart; none: in the content */
    uint32_t n_context, n_parallel;
    uint32_t n_requests; /* running or waiting at most */
    double request_ms;   /* a request that takes longer in all is ended; 0: never */
    const char *sandbox; /* for /props: "on", or "off: " and why; NULL: off. May change until on_ready returns */
    double drain_ms;     /* what runs may take so long once the server is to end */
    struct guard_options guard;
    struct monitor_options monitor;
};

struct job;
struct pool;
struct preparer;

struct server {
    const struct server_options *options;
    const runnel_model *model; /* this and the next two: once the model is loaded; no route but /health and */
    runnel_engine *engine;     /* /metrics is entered before */
    runnel_model_info info;
    struct loop *loop;
    struct log *log;
    struct metrics *metrics;
    struct monitor monitor;
    struct admit admit;        /* who is let in, and timeouts in a row: job.c tells it */
    struct pool *pool;         /* memory of what lives as long as a request */
    struct job *jobs;          /* running; job.c's */
    struct preparer *preparer; /* reads long bodies; this and the next are prepare.c's */
    uint32_t n_preparing;      /* long bodies that are being read or wait for that */
    char model_name[128];      /* in answers and as the label of metrics */
    double start_ms;           /* monotonic */
    int64_t created_s;         /* wall clock, for "created" */
};

/* routes.c: the two callbacks of the loop; user is the struct server. */
void routes_on_head(struct exchange *exchange, void *user);
void routes_on_request(struct exchange *exchange, void *user);

#endif
