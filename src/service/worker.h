/* worker.h: a worker's life: what surrounds the server that it is. The worker's main thread only. */
#ifndef RUNNEL_SERVICE_WORKER_H
#define RUNNEL_SERVICE_WORKER_H

#include "service/channel.h"
#include "service/service.h"

struct worker {
    int pipe; /* to the supervisor */
};

/* After the fork: returns the exit status. The pipe becomes the worker's. */
struct worker_birth {
    const struct service_options *options;
    const struct order *order;
    int pipe;
    pid_t keeper, supervisor;
};
int worker_run(const struct worker_birth *birth);

/* It can be asked, and knows what its steps take: see struct service_share. */
void worker_tell_ready(const struct worker *worker, double prompt_ms, double token_ms);
/* Somebody has put an order for it into the block that all share. False: it does not listen now. */
bool worker_wake_supervisor(const struct worker *worker);

#endif
