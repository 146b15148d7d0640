/* job.h: the requests behind one exchange, and how their events come from the engine's thread to the loop's.
 *
 * A dialect (OpenAI chat, completions, /generate ...) makes runnel_requests of an exchange, starts a job, and gets every
 * event of every request on the loop's thread, in order, as copies that live for the call. A job ends by itself when all
 * of its requests have finished and on_end has been called; when the client leaves, they are cancelled. */
#ifndef RUNNEL_SERVER_CORE_JOB_H
#define RUNNEL_SERVER_CORE_JOB_H

#include "server/core/record.h"
#include "server/core/server.h"

struct event;
struct job;

enum { JOB_EREFUSED = -100 }; /* the breaker lets nobody in; beside the RUNNEL_E... */

struct job_handlers {
    /* An event of request `index`. Not called any more once the client is gone. */
    void (*on_event)(struct job *job, size_t index, const runnel_event *event);
    /* All requests have finished, or none was taken: the exchange is to be ended here (it may be gone: ending it then
     * sends nothing). job_response gives what came out. */
    void (*on_end)(struct job *job);
    void (*free_state)(void *state); /* of the dialect; may be NULL */
    /* The engine has taken all of the requests: what fails from now on fails within the answer, and a stream may begin.
     * Comes before any event but the FINISH of a request that was refused; in a job where one was, not at all. May be NULL. */
    void (*on_taken)(struct job *job);
};

/* Submits n requests, all or none, and takes the exchange over. state is the dialect's own, found with job_state, and
 * freed with free_state in any case. Requests are copied. On failure nothing is submitted, on_end is not called, and the
 * exchange is still the caller's: RUNNEL_EINVAL, RUNNEL_ECONTEXT, RUNNEL_EBUSY, RUNNEL_ENOMEM, JOB_EREFUSED. While the
 * breaker is open, requests get less than they ask for, and their answers' headers say so. */
int job_start(struct server *server, struct exchange *exchange, const runnel_request *requests, size_t n,
              const struct job_handlers *handlers, void *state, struct job **job, runnel_error *error);

struct server *job_server(const struct job *job);
struct exchange *job_exchange(const struct job *job);
void *job_state(const struct job *job);

/* In on_end: the response of request `index` (its texts live until on_end returns), or NULL and *error if it failed or was cancelled for
 * lack of memory. The error is that of the first one that failed, "requests[2]: ..." where there are several. */
const runnel_response *job_response(struct job *job, size_t index, runnel_error *error);

/* Takes n places of the server's for a key (admit_give gives them back): 0, or RUNNEL_EBUSY and who has them. */
int job_take_places(struct server *server, uint32_t key, size_t n, runnel_error *error);

/* Starts the timer with what is left of the longest time that the exchange's request may take; not if there is no such
 * limit. And the error of one whose time has run out. */
void job_start_timer(const struct server *server, const struct exchange *exchange, struct event *timer);
void job_set_timeout_error(const struct server *server, runnel_error *error);

/* Cancels all jobs and runs the loop until their ends have come: before the engine and the loop are taken down. */
void job_end_all(struct server *server);

/* Ends request `index` early; its FINISH event still comes. */
void job_cancel(struct job *job, size_t index);

/* What came of the wish to end the thoughts of a job. */
enum job_control {
    JOB_CONTROL_UNKNOWN,     /* there is no such job, or it is another key's */
    JOB_CONTROL_NOT_ALLOWED, /* whoever asked for it has not allowed that */
    JOB_CONTROL_OVER,        /* its answers have begun */
    JOB_CONTROL_DONE,
};

/* Its thoughts may be ended from now on. */
void job_allow_control(struct job *job);
/* Ends the thoughts of all requests of the job whose exchange has this id: with the next step of each. */
enum job_control job_end_thoughts(struct server *server, const struct record_id *id, uint32_t key);

#endif
