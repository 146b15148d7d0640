/* server.h: the server's entry.
 *
 * It takes a socket that listens, a model with its engine and the block that all workers share, and opens nothing itself. So it runs
 * alone, its model opened while it already answers /health (`runnel serve`); as one of several workers in forked processes, which
 * share a model that was opened before; and without any model, for /health alone.
 *
 * Threads, event loop and descriptors are made by server_run and gone when it returns: a process may fork before. */
#ifndef RUNNEL_SERVER_SERVER_H
#define RUNNEL_SERVER_SERVER_H

#include "server/core/server.h"

struct server_listening {
    int descriptor; /* the caller's; becomes non-blocking. Several processes may accept from it */
    const struct server_options
        *options;          /* sampling, alias, n_context, n_parallel may change until start_engine returns */
    struct shared *shared; /* with rules in it; its free record `worker` becomes this process's */
    unsigned worker;
    struct log *log; /* a line for each request, and for what else happens */
    /* The model, open already; NULL: open_model opens it. Without either there is none: /health says that it is being
     * loaded, and so does all else until a signal ends the server. */
    const runnel_model *model;
    /* Called one after the other on a thread of their own, which ends then. The model and the engine are the caller's, to be
     * closed and stopped after server_run, also if the engine could not be started. */
    int (*open_model)(void *user, const runnel_model **model, runnel_error *error); /* NULL: see model */
    int (*start_engine)(void *user, const runnel_model *model, runnel_engine **engine, runnel_error *error);
    /* Then, on the loop's thread, before anything is answered from the model, unless the server is to end already; without a model
     * before anything is answered. All of the server's threads are there. May be NULL. */
    void (*on_ready)(void *user, const struct server *server);
    void *user;
    /* It is one of several processes that accept from the descriptor: it does so only once it can answer, or where it has no
     * model, and its signals are those of a supervisor (see server_run). */
    bool is_worker;
};

/* Serves until SIGTERM or SIGINT: then no new requests - whoever comes is told so -, running ones finish or end at the drain
 * limit. A second signal ends at once. A worker does the same at SIGUSR1, and ends at once at SIGALRM. At SIGTERM it retires: it
 * accepts nothing more, so that others get what comes; open connections are served with one more request (loop_retire), and it
 * returns when none is left, or at a limit of its own; SIGUSR1 may follow. Fails if the model cannot be opened, or its engine not be started. */
int server_run(const struct server_listening *listening, runnel_error *error);

#endif
