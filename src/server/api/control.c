/* control.c: POST /v1/chat/completions/control, as llama-server has it: {"id", "action": "reasoning_end"} ends the thought of an
 * answer that is being written, if its request said reasoning_control. Bodies are read on any thread (prepare.h), all else is
 * the loop thread's.
 *
 * Of whom the answer is, its key says: whoever shows another one is told the same as of an answer that is not there. An answer
 * of another worker is asked for through the inbox. */
#include "server/api/control.h"

#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/inbox.h"
#include "server/core/job.h"
#include "server/core/json_write.h"

#include <stdlib.h>
#include <string.h>

/* A body as it was understood. */
struct control_request {
    bool has_id; /* else it is the id of nothing that was ever here */
    struct record_id id;
};

/* One that waits for another worker. */
struct control {
    struct inbox_question question;
    struct exchange *exchange;
};

static const struct refusal no_memory = {.status = 503, .message = "no memory for the request"};

/* Reading ------------------------------------------------------------------------------------------------- */

/* The id of an answer, or that of its request (X-Request-Id). */
static bool read_id(const json_t *value, struct record_id *id)
{
    static const char prefix[] = "chatcmpl-";
    const char *text = json_string_value(value);
    size_t len = json_string_length(value), n_prefix = strlen(prefix);
    bool is_answer = len > n_prefix && !memcmp(text, prefix, n_prefix);
    return record_read_id(text + is_answer * n_prefix, len - is_answer * n_prefix, id);
}

static int read_fields(const json_t *root, struct control_request *request, struct refusal *refusal)
{
    const json_t *id = json_find(root, "id");
    if (!json_is_object(root))
        return refuse(refusal, NULL, "the body: expected a JSON object, found another value");
    if (!json_is_string(id) || !json_string_length(id))
        return refuse(refusal, "id", "expected the id of an answer, as its events have it");
    if (!json_is_text(json_find(root, "action"), "reasoning_end"))
        return refuse(refusal, "action", "expected \"reasoning_end\"");
    request->has_id = read_id(id, &request->id);
    return 0;
}

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    json_t *root;
    (void)server;
    if (json_read(input->body.bytes, input->body.len, &root, refusal))
        return -1;
    int failure = read_fields(root, state, refusal);
    json_decref(root);
    return failure;
}

/* Answering ----------------------------------------------------------------------------------------------- */

static void refuse_exchange(struct server *server, struct exchange *exchange, const struct refusal *refusal)
{
    metrics_add_status(server->metrics, reply_refusal(exchange, refusal));
}

/* In llama-server's words, where it has some. */
static void tell(struct server *server, struct exchange *exchange, enum job_control control)
{
    static const char *const messages[] = {
        [JOB_CONTROL_UNKNOWN] = "no active completion for this id",
        [JOB_CONTROL_NOT_ALLOWED] = "reasoning control not enabled for this completion",
        [JOB_CONTROL_OVER] = "no thought is running: the answer has begun",
        [JOB_CONTROL_DONE] = "the thought ends",
    };
    struct text json = {0};
    json_add_format(&json, "{\"success\":%s,\"message\":\"%s\"}",
                    control == JOB_CONTROL_DONE ? "true" : "false", messages[control]);
    metrics_add_status(server->metrics, reply_json(exchange, &json));
    text_free(&json);
}

/* Another worker ------------------------------------------------------------------------------------------ */

static const struct refusal late = {
    .status = 503, .message = "the worker that writes this answer does not listen: try again soon"};

static void on_answer(struct inbox_question *question, uint32_t answer, bool is_late)
{
    struct control *control = (struct control *)question;
    struct exchange *exchange = control->exchange;
    struct server *server = question->server;
    free(control);
    exchange_set_gone(exchange, NULL, NULL);
    if (is_late)
        refuse_exchange(server, exchange, &late);
    else
        tell(server, exchange, answer <= JOB_CONTROL_DONE ? (enum job_control)answer : JOB_CONTROL_UNKNOWN);
}

static void on_gone(struct exchange *exchange, void *user)
{
    struct control *control = user;
    struct server *server = control->question.server;
    inbox_drop(&control->question);
    free(control);
    metrics_add_status(server->metrics, 499);
    exchange_abort(exchange);
}

static void ask_worker(struct server *server, struct exchange *exchange, const struct record_id *id)
{
    unsigned worker = record_worker(id);
    if (worker >= SHARED_WORKERS_MAX || shared_state(server->worker.shared, worker) == SHARED_NOBODY) {
        tell(server, exchange, JOB_CONTROL_UNKNOWN);
        return;
    }
    struct control *control = calloc(1, sizeof *control);
    if (!control) {
        refuse_exchange(server, exchange, &no_memory);
        return;
    }
    control->exchange = exchange;
    control->question.on_answer = on_answer;
    if (inbox_ask_to_end_thoughts(server, &control->question, id, exchange_key(exchange),
                                  &record_of(exchange)->number)) {
        exchange_set_gone(exchange, on_gone, control);
        return;
    }
    free(control);
    refuse_exchange(server, exchange, &late);
}

/* The route ----------------------------------------------------------------------------------------------- */

static void start(struct server *server, struct exchange *exchange, void *state,
                  const struct refusal *refusal)
{
    const struct control_request *request = state;
    if (refusal)
        refuse_exchange(server, exchange, refusal);
    else if (!request->has_id)
        tell(server, exchange, JOB_CONTROL_UNKNOWN);
    else if (record_worker(&request->id) != server->worker.number)
        ask_worker(server, exchange, &request->id);
    else
        tell(server, exchange, job_end_thoughts(server, &request->id, exchange_key(exchange)));
}

void control_chat(struct server *server, struct exchange *exchange)
{
    static const struct prepare_steps steps = {
        .state_bytes = sizeof(struct control_request), .read = read_body, .start = start};
    struct control_request request = {.has_id = false};
    prepare_request(server, exchange, &steps, &request);
}
