/* inbox.c: see inbox.h. The loop's thread only. */
#include "server/core/inbox.h"

#include "base/clock.h"
#include "server/core/job.h"
#include "server/core/server.h"

#include <event2/event.h>

enum {
    LOOK_MS = 10,       /* while questions wait */
    PATIENCE_MS = 5000, /* a worker that looks at its inbox answers within 100 ms */
};

static void unlink_question(struct inbox_question *question)
{
    if (question->previous)
        question->previous->next = question->next;
    else
        question->server->inbox.waiting = question->next;
    if (question->next)
        question->next->previous = question->previous;
}

static void hand_out(struct inbox_question *question, uint32_t answer, bool is_late)
{
    unlink_question(question);
    question->on_answer(question, answer, is_late);
}

static void take_answer(struct server *server, const struct shared_message *message)
{
    struct inbox_question *question = server->inbox.waiting;
    while (question && question->id != message->id)
        question = question->next;
    if (question)
        hand_out(question, message->value, false);
}

static void end_thoughts(struct server *server, const struct shared_message *message, unsigned from)
{
    const struct record_id id = {message->id, message->rest};
    const struct shared_message answer = {
        .id = message->answer_id,
        .kind = SHARED_ANSWER,
        .value = (uint32_t)job_end_thoughts(server, &id, message->key),
    };
    shared_send(server->worker.shared, server->worker.number, from, &answer); /* else it is late there */
}

void inbox_look(struct server *server)
{
    struct shared_message message;
    unsigned from;
    while (shared_receive(server->worker.shared, server->worker.number, &message, &from)) {
        if (message.kind == SHARED_END_THOUGHTS)
            end_thoughts(server, &message, from);
        else if (message.kind == SHARED_ANSWER)
            take_answer(server, &message);
    }
}

/* A worker that has died takes its requests with it. */
static void give_up(struct server *server)
{
    double now_ms = clock_ms();
    for (struct inbox_question *question = server->inbox.waiting, *next; question; question = next) {
        next = question->next;
        if (shared_pid(server->worker.shared, question->worker) != question->pid)
            hand_out(question, JOB_CONTROL_UNKNOWN, false);
        else if (now_ms >= question->until_ms)
            hand_out(question, JOB_CONTROL_UNKNOWN, true);
    }
}

static void arm(struct server *server)
{
    const struct timeval time = {0, LOOK_MS * 1000};
    if (server->inbox.waiting)
        event_add(server->inbox.timer, &time);
}

static void on_timer(evutil_socket_t descriptor, short what, void *user)
{
    struct server *server = user;
    (void)descriptor;
    (void)what;
    inbox_look(server);
    give_up(server);
    arm(server);
}

int inbox_start(struct server *server, runnel_error *error)
{
    server->inbox.timer = event_new(loop_base(server->loop), -1, 0, on_timer, server);
    return server->inbox.timer ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for a timer");
}

void inbox_stop(struct server *server)
{
    if (server->inbox.timer)
        event_free(server->inbox.timer);
    server->inbox.timer = NULL;
}

bool inbox_ask_to_end_thoughts(struct server *server, struct inbox_question *question,
                               const struct record_id *id, uint32_t key, const struct record_id *asker)
{
    const struct shared_message message = {.id = id->first,
                                           .kind = SHARED_END_THOUGHTS,
                                           .rest = id->rest,
                                           .key = key,
                                           .answer_id = asker->first};
    question->server = server;
    question->id = asker->first;
    question->worker = record_worker(id);
    question->pid = shared_pid(server->worker.shared, question->worker);
    question->until_ms = clock_ms() + PATIENCE_MS;
    if (!shared_send(server->worker.shared, server->worker.number, question->worker, &message))
        return false;
    question->previous = NULL;
    question->next = server->inbox.waiting;
    if (question->next)
        question->next->previous = question;
    server->inbox.waiting = question;
    arm(server);
    return true;
}

void inbox_drop(struct inbox_question *question)
{
    unlink_question(question);
}
