/* service.h: a server as a family of processes, for the command `serve`.
 *
 *     supervisor --+-- greeter                 while nobody is ready
 *                  +-- keeper --+-- worker 0   the keeper has opened a model, and forks workers that share it
 *                               +-- worker 1
 *
 * service_run is the supervisor: it starts the others, looks after them, and returns when all have gone. What they do with
 * models and sockets are functions that its caller gives; each is called in the process that it is named after, and what it
 * changes in memory, only that process and those forked by it see. */
#ifndef RUNNEL_SERVICE_SERVICE_H
#define RUNNEL_SERVICE_SERVICE_H

#include "base/error.h"
#include "base/log.h"
#include "server/limits/shared.h"

#include <stdbool.h>
#include <stdint.h>

enum { SERVICE_NAME_BYTES = 128, SERVICE_WORKERS_MAX = 15 };

/* In the block that all share, the greeter has the record that no worker has. */
enum { SERVICE_GREETER_RECORD = SHARED_WORKERS_MAX - 1 };

/* A worker's place among others. */
struct service_share {
    uint32_t slot;            /* its record in what all share */
    uint32_t rank, n_workers; /* the rank-th of so many, among which threads and memory are divided */
    /* What a step of a prompt and one of a token took another worker like this; both 0: there was none yet, and it is this one
     * that finds out. */
    double prompt_ms, token_ms;
};

/* What the supervisor keeps to, and may be told anew. */
struct service_limits {
    double drain_ms;          /* at the end a worker has so long for what it was asked */
    double retire_ms;         /* one that others replace has so long; HUGE_VAL: as long as it takes */
    double hang_ms;           /* see policy.h */
    uint64_t n_requests_most; /* of a worker; then another takes its place. 0: any number */
};

struct worker; /* worker.h: what a worker may tell the supervisor */

struct service_options {
    struct log *log;
    struct shared *shared; /* the caller's */
    int listener;          /* the socket that all accept from; the caller's */
    int crash_file;        /* the caller's descriptor that every process keeps open; -1: none */
    uint32_t n_workers;
    double start_ms;              /* a worker that is not ready after so long is killed; 0: two minutes */
    struct service_limits limits; /* at the start */

    /* Keeper: opens the model on as many threads as it likes, which have ended on return. name: the model's. */
    int (*open_model)(void *user, char name[SERVICE_NAME_BYTES], runnel_error *error);
    void (*close_model)(void *user);
    /* Worker: serves until SIGTERM (it leaves new connections to others) or SIGUSR1 (it says that the server ends), which may follow;
     * SIGALRM ends at once. Any of them may come more than once. Calls worker_tell_ready in between. */
    int (*work)(void *user, const struct service_share *share, const struct worker *worker,
                runnel_error *error);
    /* Greeter: says that the model is being loaded, until SIGTERM. */
    int (*greet)(void *user, runnel_error *error);
    /* Supervisor: whether another model of so many bytes (0: the same), and workers for it, have room beside what is in
     * use, before it is loaded. */
    bool (*has_room)(void *user, uint64_t model_bytes);
    /* Supervisor: the first worker can be asked. */
    void (*on_ready)(void *user, const char *name);
    /* Supervisor: reads all options again, writes keys and limits into the block, and tells its own limits and whether there is to
     * be another model. */
    int (*reload)(void *user, struct service_limits *limits, bool *is_other_model, runnel_error *error);
    void *user;
};

/* Returns when all have ended, after SIGTERM or SIGINT: RUNNEL_OK; or if nobody could ever be asked: the error that says why. */
int service_run(const struct service_options *options, runnel_error *error);

#endif
