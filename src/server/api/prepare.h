/* prepare.h: what is made of a body before the engine is asked, without holding up the loop.
 *
 * Parsing JSON, filling in a template and cutting text into tokens take 40 to 100 ms a megabyte, in which the loop would
 * serve nobody. So a route is two functions: `read`, which touches no connection, and `start`. A short body is read on
 * the loop's thread at once; a long one by one thread of the server's own, in the order of arrival, and its start
 * follows as a message to the loop. So does what takes long though the body is short: a schema that is compiled
 * (`read_rest`). One that was compiled before waits for nobody. Meanwhile a request holds a place (admit.h), and its time
 * counts (--request-timeout-s).
 *
 * The body is gone once it has been read, long before its answer is complete.
 *
 * A client that leaves, a time that runs out and a server that ends are told to `start` as refusals like any other. */
#ifndef RUNNEL_SERVER_API_PREPARE_H
#define RUNNEL_SERVER_API_PREPARE_H

#include "server/core/json_read.h"
#include "server/net/exchange.h"

enum { PREPARE_SHORT_BYTES = 65536 }; /* a longer body goes to the thread: a shorter one takes about 5 ms */

struct preparer;
struct server;

/* Of a request; valid while it is read. */
struct prepare_input {
    struct exchange_text body, query;
};

struct prepare_steps {
    size_t state_bytes;
    /* Any thread, at most once. Of the server it sees what stays as it is once the model is open: options, model, info,
     * model_name. Returns 0, or -1 and the refusal. */
    int (*read)(const struct server *server, const struct prepare_input *input, void *state,
                struct refusal *refusal);
    /* After a `read` that did not fail: whether read_rest has something to do that takes long, whatever the body's length. NULL:
     * never. Any thread; asked once more by the server's thread, if it has waited meanwhile. */
    bool (*takes_long)(const struct server *server, void *state);
    /* That; always by the server's thread, if there is one. As `read`. */
    int (*read_rest)(const struct server *server, void *state, struct refusal *refusal);
    /* The loop's thread, once: ends the exchange or gives it to a job. With a refusal, state is as it was given to
     * prepare_request, or as a reading, which may have failed, has left it. */
    void (*start)(struct server *server, struct exchange *exchange, void *state,
                  const struct refusal *refusal);
    /* Any thread: what state points to. May be NULL. */
    void (*free_state)(void *state);
};

/* Takes over an exchange that was handed to a route. The state, of steps->state_bytes, is copied. The loop's thread. */
void prepare_request(struct server *server, struct exchange *exchange, const struct prepare_steps *steps,
                     void *state);

/* The server's life: start the thread, once the engine has been started and before the loop knows; end it, refusing what it has not
 * read. prepare_end: the loop's thread. */
int prepare_begin(struct server *server, runnel_error *error);
void prepare_end(struct server *server); /* also if it was not begun; runs the loop for what is on its way */

#endif
