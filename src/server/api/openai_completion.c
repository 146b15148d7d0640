/* openai_completion.c: /v1/completions: prompts continued as they are. The loop's thread only. */
#include "server/api/openai.h"

#include "server/api/openai_write.h"

/* The name of its objects, whole ones and those of a stream. */
static const char object[] = "text_completion";

static void write_logprobs(struct dialect_answer *answer, size_t index, struct text *out)
{
    text_add_string(out, ",\"logprobs\":");
    logprobs_write_completion(&answer->choices[index].logprobs, out);
}

static void write_delta(struct dialect_answer *answer, size_t index, const runnel_event *event,
                        struct text *out)
{
    openai_begin_event(answer, object, index, out);
    openai_write_field("text", event->text, event->text_len, out);
    write_logprobs(answer, index, out);
    openai_end_delta(event, out);
}

static void write_progress(struct dialect_answer *answer, size_t index, const runnel_response *counts,
                           struct text *out)
{
    openai_begin_event(answer, object, index, out);
    openai_write_field("text", "", 0, out);
    openai_end_progress(counts, out);
}

static void write_end(struct dialect_answer *answer, size_t index, struct text *out)
{
    openai_begin_event(answer, object, index, out);
    openai_write_field("text", "", 0, out);
    write_logprobs(answer, index, out);
    openai_end_choice(answer, index, out);
}

static void write_done(struct dialect_answer *answer, struct text *out)
{
    openai_write_done(answer, object, out);
}

static void write_whole(struct dialect_answer *answer, const runnel_response *const *responses,
                        struct text *out)
{
    openai_begin_whole(answer, object, out);
    for (size_t i = 0; i < answer->n; i++) {
        openai_begin_whole_choice(i, out);
        openai_write_field("text", responses[i]->text, responses[i]->text_len, out);
        write_logprobs(answer, i, out);
        openai_end_whole_choice(responses[i], out);
    }
    openai_end_whole(answer, out);
}

static const struct dialect completion = {
    .metric = METRICS_COMPLETIONS,
    .id_prefix = "cmpl",
    .read = params_read_completion,
    .delta = write_delta,
    .progress = write_progress,
    .end = write_end,
    .done = write_done,
    .whole = write_whole,
};

void openai_completion(struct server *server, struct exchange *exchange)
{
    dialect_answer(server, exchange, &completion);
}
