/* openai_chat.c: /v1/chat/completions: answers as messages, thoughts apart or in the content, calls of tools. The loop's thread
 * only. */
#include "server/api/openai.h"

#include "server/api/openai_write.h"
#include "server/api/reply.h"
#include "server/core/json_write.h"

#include <string.h>

/* The names of its objects. */
static const char whole_object[] = "chat.completion", chunk_object[] = "chat.completion.chunk";

/* Thoughts ------------------------------------------------------------------------------------------------ */

/* Under both names that clients know. */
static void write_reasoning(const char *bytes, size_t len, struct text *out)
{
    openai_write_field("reasoning_content", bytes, len, out);
    text_add_string(out, ",");
    openai_write_field("reasoning", bytes, len, out);
}

/* What ends a thought that stands in the content. */
#define MARKED_CLOSE "\n</think>\n\n"

/* Thoughts that are not told apart stand in the content, between the marks that the model gives them. */
static void write_marked(const char *mark, const runnel_event *event, struct text *out)
{
    struct text marked = {0};
    text_add_string(&marked, mark);
    text_add(&marked, event->text, event->text_len);
    openai_write_field("content", marked.failed ? "" : marked.bytes, marked.failed ? 0 : marked.len, out);
    out->failed = out->failed || marked.failed;
    text_free(&marked);
}

/* Calls --------------------------------------------------------------------------------------------------- */

/* A call with its name; the id is the same whole and in a stream. */
static void write_call(const struct dialect_answer *answer, size_t index, uint32_t call, const char *name,
                       struct text *out)
{
    json_add_format(out, "\"id\":\"call_%s_%zu_%u\",\"type\":\"function\",\"function\":{\"name\":",
                    answer->record->id, index, call);
    json_add_string(out, name, strlen(name));
    text_add_string(out, ",");
}

static void write_call_delta(const struct dialect_answer *answer, size_t index, const runnel_event *event,
                             struct text *out)
{
    bool begins = event->kind == RUNNEL_EVENT_CALL;
    json_add_format(out, "\"tool_calls\":[{\"index\":%u,", event->call);
    if (begins)
        write_call(answer, index, event->call, event->text, out);
    else
        text_add_string(out, "\"function\":{");
    openai_write_field("arguments", begins ? "" : event->text, begins ? 0 : event->text_len, out);
    text_add_string(out, "}}]");
}

static void write_calls(const struct dialect_answer *answer, size_t index, const runnel_response *response,
                        struct text *out)
{
    text_add_string(out, ",\"tool_calls\":[");
    for (uint32_t i = 0; i < response->n_calls; i++) {
        const runnel_call *call = &response->calls[i];
        text_add_string(out, i ? ",{" : "{");
        write_call(answer, index, i, call->name, out);
        openai_write_field("arguments", call->arguments, call->arguments_len, out);
        text_add_string(out, "}}");
    }
    text_add_string(out, "]");
}

/* Streams ------------------------------------------------------------------------------------------------- */

static void write_role(struct dialect_answer *answer, size_t index, struct text *out)
{
    if (answer->choices[index].began)
        return;
    answer->choices[index].began = true;
    openai_begin_event(answer, chunk_object, index, out);
    text_add_string(out, "\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null,"
                         "\"finish_reason\":null}]}\n\n");
}

static void write_logprobs(struct dialect_answer *answer, size_t index, struct text *out)
{
    text_add_string(out, ",\"logprobs\":");
    logprobs_write_chat(&answer->choices[index].logprobs, out);
}

static void write_delta(struct dialect_answer *answer, size_t index, const runnel_event *event,
                        struct text *out);

/* Thoughts that stand in the content, and that nothing of the answer has followed yet, get their closing mark. */
static void close_marked(struct dialect_answer *answer, size_t index, struct text *out)
{
    const runnel_event nothing = {.kind = RUNNEL_EVENT_ANSWER, .text = ""};
    if (!answer->split_reasoning && answer->choices[index].thinking)
        write_delta(answer, index, &nothing, out);
}

static void write_delta(struct dialect_answer *answer, size_t index, const runnel_event *event,
                        struct text *out)
{
    bool is_call = event->kind == RUNNEL_EVENT_CALL || event->kind == RUNNEL_EVENT_ARGUMENTS;
    if (event->kind == RUNNEL_EVENT_CALL_END) /* only the answer's end is told */
        return;
    if (is_call)
        close_marked(answer, index, out);
    bool is_thought = event->kind == RUNNEL_EVENT_THOUGHT;
    bool was_thinking = answer->choices[index].thinking;
    write_role(answer, index, out);
    openai_begin_event(answer, chunk_object, index, out);
    text_add_string(out, "\"delta\":{");
    if (is_thought && answer->repeats_reasoning) {
        write_reasoning(event->text, event->text_len, out);
        text_add_string(out, ",");
    }
    if (is_call)
        write_call_delta(answer, index, event, out);
    else if (is_thought && answer->split_reasoning)
        write_reasoning(event->text, event->text_len, out);
    else if (is_thought && !was_thinking)
        write_marked("<think>\n", event, out);
    else if (!is_thought && was_thinking && !answer->split_reasoning)
        write_marked(MARKED_CLOSE, event, out);
    else
        openai_write_field("content", event->text, event->text_len, out);
    text_add_string(out, "}");
    write_logprobs(answer, index, out);
    openai_end_delta(event, out);
}

static void write_progress(struct dialect_answer *answer, size_t index, const runnel_response *counts,
                           struct text *out)
{
    write_role(answer, index, out);
    openai_begin_event(answer, chunk_object, index, out);
    text_add_string(out, "\"delta\":{}");
    openai_end_progress(counts, out);
}

static void write_end(struct dialect_answer *answer, size_t index, struct text *out)
{
    if (answer->choices[index]
            .counts.thought_closed) /* the answer was empty: only the mark is left to tell */
        close_marked(answer, index, out);
    write_role(answer, index, out);
    openai_begin_event(answer, chunk_object, index, out);
    text_add_string(out, "\"delta\":{}");
    write_logprobs(answer, index, out);
    openai_end_choice(answer, index, out);
}

static void write_done(struct dialect_answer *answer, struct text *out)
{
    openai_write_done(answer, chunk_object, out);
}

/* Whole answers ------------------------------------------------------------------------------------------- */

static void write_message(const struct dialect_answer *answer, size_t index, const runnel_response *response,
                          struct text *out)
{
    text_add_string(out, "\"message\":{\"role\":\"assistant\",");
    if (response->reasoning_len && !answer->split_reasoning) {
        struct text marked = {0};
        text_add_string(&marked, "<think>\n");
        text_add(&marked, response->reasoning, response->reasoning_len);
        text_add_string(&marked, response->thought_closed ? MARKED_CLOSE : "");
        text_add(&marked, response->text, response->text_len);
        openai_write_field("content", marked.failed ? "" : marked.bytes, marked.failed ? 0 : marked.len, out);
        out->failed = out->failed || marked.failed;
        text_free(&marked);
    } else if (response->n_calls && !response->text_len) {
        text_add_string(out, "\"content\":null");
    } else {
        openai_write_field("content", response->text, response->text_len, out);
    }
    if (response->n_calls)
        write_calls(answer, index, response, out);
    if (response->reasoning_len && (answer->split_reasoning || answer->repeats_reasoning)) {
        text_add_string(out, ",");
        write_reasoning(response->reasoning, response->reasoning_len, out);
    }
    text_add_string(out, "}");
}

static void write_whole(struct dialect_answer *answer, const runnel_response *const *responses,
                        struct text *out)
{
    openai_begin_whole(answer, whole_object, out);
    for (size_t i = 0; i < answer->n; i++) {
        openai_begin_whole_choice(i, out);
        write_message(answer, i, responses[i], out);
        write_logprobs(answer, i, out);
        openai_end_whole_choice(responses[i], out);
    }
    openai_end_whole(answer, out);
}

/* The dialect --------------------------------------------------------------------------------------------- */

static int encode(const struct server *server, struct params *params, void *state, struct refusal *refusal)
{
    (void)state;
    return reply_encode(server, params, refusal);
}

static const struct dialect chat = {
    .metric = METRICS_CHAT,
    .id_prefix = "chatcmpl",
    .tells_thoughts = true,
    .read = params_read_chat,
    .prepare = encode,
    .delta = write_delta,
    .progress = write_progress,
    .end = write_end,
    .done = write_done,
    .whole = write_whole,
};

void openai_chat(struct server *server, struct exchange *exchange)
{
    dialect_answer(server, exchange, &chat);
}

void openai_count_tokens(struct server *server, struct exchange *exchange)
{
    dialect_count_tokens(server, exchange, &chat);
}
