/* server.h: what the parts of the server share. The loop's thread alone touches a struct server and everything in it; engine
 * threads reach it through jobs (job.h). Its entry is server/server.h. */
#ifndef RUNNEL_SERVER_CORE_SERVER_H
#define RUNNEL_SERVER_CORE_SERVER_H

#include "base/log.h"
#include "runnel.h"
#include "server/core/gauges.h"
#include "server/core/inbox.h"
#include "server/core/metrics.h"
#include "server/limits/admit.h"
#include "server/limits/guard.h"
#include "server/limits/monitor.h"
#include "server/limits/shared.h"
#include "server/net/exchange.h"
#include "server/net/loop.h"

/* For admin.c: orders to a supervisor go through the block that all share (shared.h), which has the admin's keys, too. */
struct admin_options {
    uint32_t n_workers_max;
    bool (*wake)(void *user); /* the supervisor, which then looks for orders; false: it does not listen now */
    void *user;
};

/* From the option table of `runnel serve`: defaults of requests, and from where it may be asked. Limits and keys are rules
 * (shared.h). */
struct server_options {
    const char *alias;        /* the model's name in answers; NULL: the file's own */
    const char *model_path;   /* for /props */
    runnel_sampling sampling; /* of a request that does not say */
    int max_tokens;           /* likewise */
    bool has_seed;            /* else each request that does not say gets another seed */
    bool no_thinking;         /* --reasoning off: requests that do not say so are answered without thoughts */
    bool split_reasoning;     /* --reasoning-format deepseek: thoughts apart; none: in the content */
    uint32_t n_context, n_parallel; /* this worker's */
    uint32_t n_choices;             /* "n" of a request at most, whichever worker it reaches */
    const char
        *sandbox; /* for /props: "on", or "off: " and why; NULL: off. May change until on_ready returns */
    struct guard_options guard;
    struct admin_options admin;
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
    struct shared_worker worker; /* this process in the block that all workers share */
    struct shared_rules rules;   /* its latest keys and limits that were taken over, of this generation: */
    uint64_t generation;
    struct shared_counters *metrics; /* of that block */
    struct gauges gauges;
    struct inbox inbox; /* what other workers ask of this one, and it of them */
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
