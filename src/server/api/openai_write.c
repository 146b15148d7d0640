/* openai_write.c: answers in the shapes of the OpenAI API, with llama-server's timings. The loop's thread only. */
#include "server/api/openai.h"
#include "server/core/json_write.h"

#include <string.h>

static const char *finish_name(const runnel_response *response)
{
    switch (response->finish_reason) {
    case RUNNEL_FINISH_LENGTH:
        return "length";
    case RUNNEL_FINISH_STOP:
    case RUNNEL_FINISH_CANCELLED:
    case RUNNEL_FINISH_ERROR:
        break;
    }
    return "stop";
}

static void write_head(const struct openai_answer *answer, const char *object, struct text *out)
{
    json_add_format(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", answer->id, object,
                    (long long)answer->created_s);
    json_add_string(out, answer->model, strlen(answer->model));
    json_add_format(out, ",\"system_fingerprint\":\"b%s\"", RUNNEL_VERSION);
}

/* Tokens of a prompt count once, however many choices it has. */
static void write_usage(const struct openai_answer *answer, struct text *out)
{
    uint64_t n_prompt = 0, n_cached = 0, n_answer = 0, n_reasoning = 0;
    for (size_t i = 0; i < answer->n; i++) {
        const runnel_response *counts = &answer->choices[i].counts;
        if (i % answer->n_per_prompt == 0) {
            n_prompt += counts->n_prompt_tokens;
            n_cached += counts->n_cached_tokens;
        }
        n_answer += counts->n_tokens;
        n_reasoning += counts->n_reasoning_tokens;
    }
    json_add_format(out,
                    ",\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                    "\"prompt_tokens_details\":{\"cached_tokens\":%llu},"
                    "\"completion_tokens_details\":{\"reasoning_tokens\":%llu}}",
                    (unsigned long long)n_prompt, (unsigned long long)n_answer,
                    (unsigned long long)(n_prompt + n_answer), (unsigned long long)n_cached,
                    (unsigned long long)n_reasoning);
}

static double divide(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* Tokens are added up, those of a prompt once, as in the usage; times are those of the slowest. */
void openai_write_timings(const struct openai_choice *choices, size_t n, size_t n_per_prompt,
                          struct text *out)
{
    double queue_ms = 0, prompt_ms = 0, decode_ms = 0, stall_ms = 0, thinking_ms = 0;
    double n_cached = 0, n_prompt = 0, n_drawn = 0, n_thought = 0;
    for (size_t i = 0; i < n; i++) {
        const runnel_response *counts = &choices[i].counts;
        if (i % n_per_prompt == 0) {
            n_cached += counts->n_cached_tokens;
            n_prompt += counts->n_prompt_tokens - counts->n_cached_tokens;
        }
        n_drawn += counts->n_tokens;
        n_thought += counts->n_reasoning_tokens;
        queue_ms = counts->queue_ms > queue_ms ? counts->queue_ms : queue_ms;
        prompt_ms = counts->prefill_ms > prompt_ms ? counts->prefill_ms : prompt_ms;
        decode_ms = counts->decode_ms > decode_ms ? counts->decode_ms : decode_ms;
        stall_ms = counts->stall_ms > stall_ms ? counts->stall_ms : stall_ms;
        thinking_ms = counts->thinking_ms > thinking_ms ? counts->thinking_ms : thinking_ms;
    }
    json_add_format(out,
                    ",\"timings\":{\"cache_n\":%.0f,\"prompt_n\":%.0f,\"prompt_ms\":%.3f,"
                    "\"prompt_per_token_ms\":%.4f,\"prompt_per_second\":%.3f,",
                    n_cached, n_prompt, prompt_ms, divide(prompt_ms, n_prompt),
                    divide(n_prompt * 1e3, prompt_ms));
    json_add_format(out,
                    "\"predicted_n\":%.0f,\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.4f,"
                    "\"predicted_per_second\":%.3f,",
                    n_drawn, decode_ms, divide(decode_ms, n_drawn), divide(n_drawn * 1e3, decode_ms));
    json_add_format(out,
                    "\"queue_ms\":%.3f,\"stall_ms\":%.3f,\"draft_n\":0,\"draft_accepted_n\":0,"
                    "\"thinking_n\":%.0f,\"thinking_ms\":%.3f}",
                    queue_ms, stall_ms, n_thought, thinking_ms);
}

void openai_write_event_timings(const runnel_event *event, struct text *out)
{
    struct openai_choice so_far = {0};
    if (!event->counts)
        return;
    so_far.counts = *event->counts;
    openai_write_timings(&so_far, 1, 1, out);
}

void openai_write_prompt_progress(const runnel_response *counts, struct text *out)
{
    json_add_format(out, ",\"prompt_progress\":{\"total\":%u,\"cache\":%u,\"processed\":%u,\"time_ms\":%.0f}",
                    counts->n_prompt_tokens, counts->n_cached_tokens, counts->n_computed_tokens,
                    counts->prefill_ms);
}

static void write_logprobs(struct openai_answer *answer, size_t index, struct text *out)
{
    struct logprobs *list = &answer->choices[index].logprobs;
    text_add_string(out, ",\"logprobs\":");
    if (answer->is_chat)
        logprobs_write_chat(list, out);
    else
        logprobs_write_completion(list, out);
}

/* Streams ------------------------------------------------------------------------------------------------- */

static void begin_chunk(const struct openai_answer *answer, struct text *out)
{
    text_add_string(out, "data: ");
    write_head(answer, answer->is_chat ? "chat.completion.chunk" : "text_completion", out);
    text_add_string(out, ",\"choices\":[");
}

static void begin_choice(const struct openai_answer *answer, size_t index, struct text *out)
{
    begin_chunk(answer, out);
    json_add_format(out, "{\"index\":%zu,", index);
}

static void write_role(struct openai_answer *answer, size_t index, struct text *out)
{
    if (answer->choices[index].began || !answer->is_chat)
        return;
    answer->choices[index].began = true;
    begin_choice(answer, index, out);
    text_add_string(out, "\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null,"
                         "\"finish_reason\":null}]}\n\n");
}

static void write_field(const char *name, const char *bytes, size_t len, struct text *out)
{
    json_add_format(out, "\"%s\":", name);
    json_add_string(out, bytes, len);
}

/* Under both names that clients know. */
static void write_reasoning(const char *bytes, size_t len, struct text *out)
{
    write_field("reasoning_content", bytes, len, out);
    text_add_string(out, ",");
    write_field("reasoning", bytes, len, out);
}

/* What ends a thought that stands in the content. */
#define MARKED_CLOSE "\n</think>\n\n"

/* Thoughts that are not told apart stand in the content, between the marks that the model gives them. */
static void write_marked(const char *mark, const runnel_event *event, struct text *out)
{
    struct text marked = {0};
    text_add_string(&marked, mark);
    text_add(&marked, event->text, event->text_len);
    write_field("content", marked.failed ? "" : marked.bytes, marked.failed ? 0 : marked.len, out);
    out->failed = out->failed || marked.failed;
    text_free(&marked);
}

void openai_write_delta(struct openai_answer *answer, size_t index, const runnel_event *event,
                        struct text *out)
{
    struct openai_choice *choice = &answer->choices[index];
    bool is_thought = event->kind == RUNNEL_EVENT_THOUGHT;
    bool was_thinking = choice->thinking;
    write_role(answer, index, out);
    begin_choice(answer, index, out);
    text_add_string(out, answer->is_chat ? "\"delta\":{" : "");
    if (is_thought && answer->is_chat && answer->repeats_reasoning) {
        write_reasoning(event->text, event->text_len, out);
        text_add_string(out, ",");
    }
    if (!answer->is_chat) {
        write_field("text", event->text, event->text_len, out);
    } else if (is_thought && answer->split_reasoning) {
        write_reasoning(event->text, event->text_len, out);
    } else if (is_thought && !was_thinking) {
        write_marked("<think>\n", event, out);
    } else if (!is_thought && was_thinking && !answer->split_reasoning) {
        write_marked(MARKED_CLOSE, event, out);
    } else {
        write_field("content", event->text, event->text_len, out);
    }
    text_add_string(out, answer->is_chat ? "}" : "");
    write_logprobs(answer, index, out);
    text_add_string(out, ",\"finish_reason\":null}]");
    openai_write_event_timings(event, out);
    text_add_string(out, "}\n\n");
}

void openai_write_progress(struct openai_answer *answer, size_t index, const runnel_response *counts,
                           struct text *out)
{
    write_role(answer, index, out);
    begin_choice(answer, index, out);
    text_add_string(out, answer->is_chat ? "\"delta\":{}" : "\"text\":\"\"");
    text_add_string(out, ",\"logprobs\":null,\"finish_reason\":null}]");
    openai_write_prompt_progress(counts, out);
    text_add_string(out, "}\n\n");
}

void openai_write_end(struct openai_answer *answer, size_t index, struct text *out)
{
    struct openai_choice *choice = &answer->choices[index];
    const runnel_event nothing = {.kind = RUNNEL_EVENT_ANSWER, .text = ""};
    if (answer->is_chat && !answer->split_reasoning && choice->thinking && choice->counts.thought_closed)
        openai_write_delta(answer, index, &nothing,
                           out); /* the answer was empty: only the mark is left to tell */
    write_role(answer, index, out);
    begin_choice(answer, index, out);
    text_add_string(out, answer->is_chat ? "\"delta\":{}" : "\"text\":\"\"");
    write_logprobs(answer, index, out);
    json_add_format(out, ",\"finish_reason\":\"%s\"}]", finish_name(&choice->counts));
    openai_write_timings(choice, 1, 1, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}\n\n");
}

void openai_write_usage_chunk(struct openai_answer *answer, struct text *out)
{
    begin_chunk(answer, out);
    text_add_string(out, "]");
    write_usage(answer, out);
    openai_write_timings(answer->choices, answer->n, answer->n_per_prompt, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}\n\n");
}

/* Whole answers ------------------------------------------------------------------------------------------- */

static void write_message(const struct openai_answer *answer, const runnel_response *response,
                          struct text *out)
{
    text_add_string(out, "\"message\":{\"role\":\"assistant\",");
    if (response->reasoning_len && !answer->split_reasoning) {
        struct text marked = {0};
        text_add_string(&marked, "<think>\n");
        text_add(&marked, response->reasoning, response->reasoning_len);
        text_add_string(&marked, response->thought_closed ? MARKED_CLOSE : "");
        text_add(&marked, response->text, response->text_len);
        write_field("content", marked.failed ? "" : marked.bytes, marked.failed ? 0 : marked.len, out);
        out->failed = out->failed || marked.failed;
        text_free(&marked);
    } else {
        write_field("content", response->text, response->text_len, out);
    }
    if (response->reasoning_len && (answer->split_reasoning || answer->repeats_reasoning)) {
        text_add_string(out, ",");
        write_reasoning(response->reasoning, response->reasoning_len, out);
    }
    text_add_string(out, "}");
}

void openai_write_whole(struct openai_answer *answer, const runnel_response *const *responses,
                        struct text *out)
{
    write_head(answer, answer->is_chat ? "chat.completion" : "text_completion", out);
    text_add_string(out, ",\"choices\":[");
    for (size_t i = 0; i < answer->n; i++) {
        json_add_format(out, i ? ",{\"index\":%zu," : "{\"index\":%zu,", i);
        if (answer->is_chat)
            write_message(answer, responses[i], out);
        else
            write_field("text", responses[i]->text, responses[i]->text_len, out);
        write_logprobs(answer, i, out);
        json_add_format(out, ",\"finish_reason\":\"%s\"}", finish_name(responses[i]));
    }
    text_add_string(out, "]");
    write_usage(answer, out);
    openai_write_timings(answer->choices, answer->n, answer->n_per_prompt, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}");
}
