/* openai_write.c: see openai_write.h. */
#include "server/api/openai_write.h"
#include "server/api/timings.h"
#include "server/core/json_write.h"

#include <string.h>

static const char *finish_name(const runnel_response *response)
{
    switch (response->finish_reason) {
    case RUNNEL_FINISH_LENGTH:
        return "length";
    case RUNNEL_FINISH_STOP:
        return response->n_calls ? "tool_calls" : "stop";
    case RUNNEL_FINISH_CANCELLED:
    case RUNNEL_FINISH_ERROR:
        break;
    }
    return "stop";
}

static void write_head(const struct dialect_answer *answer, const char *object, struct text *out)
{
    json_add_format(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", answer->id, object,
                    (long long)answer->created_s);
    json_add_string(out, answer->model, strlen(answer->model));
    json_add_format(out, ",\"system_fingerprint\":\"b%s\"", RUNNEL_VERSION);
}

/* Tokens of a prompt count once, however many choices it has. */
static void write_usage(const struct dialect_answer *answer, struct text *out)
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

void openai_write_field(const char *name, const char *bytes, size_t len, struct text *out)
{
    json_add_format(out, "\"%s\":", name);
    json_add_string(out, bytes, len);
}

/* Streams ------------------------------------------------------------------------------------------------- */

static void begin_chunk(const struct dialect_answer *answer, const char *object, struct text *out)
{
    text_add_string(out, "data: ");
    write_head(answer, object, out);
    text_add_string(out, ",\"choices\":[");
}

void openai_begin_event(const struct dialect_answer *answer, const char *object, size_t index,
                        struct text *out)
{
    begin_chunk(answer, object, out);
    json_add_format(out, "{\"index\":%zu,", index);
}

void openai_end_delta(const runnel_event *event, struct text *out)
{
    text_add_string(out, ",\"finish_reason\":null}]");
    timings_write_event(event, out);
    text_add_string(out, "}\n\n");
}

void openai_end_progress(const runnel_response *counts, struct text *out)
{
    text_add_string(out, ",\"logprobs\":null,\"finish_reason\":null}]");
    timings_write_progress(counts, out);
    text_add_string(out, "}\n\n");
}

void openai_end_choice(const struct dialect_answer *answer, size_t index, struct text *out)
{
    const struct dialect_choice *choice = &answer->choices[index];
    json_add_format(out, ",\"finish_reason\":\"%s\"}]", finish_name(&choice->counts));
    timings_write(choice, 1, 1, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}\n\n");
}

/* What is told of all choices, and the end of the object. */
static void write_totals(const struct dialect_answer *answer, struct text *out)
{
    write_usage(answer, out);
    timings_write(answer->choices, answer->n, answer->n_per_prompt, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}");
}

void openai_write_done(struct dialect_answer *answer, const char *object, struct text *out)
{
    if (answer->include_usage) {
        begin_chunk(answer, object, out);
        text_add_string(out, "]");
        write_totals(answer, out);
        text_add_string(out, "\n\n");
    }
    text_add_string(out, "data: [DONE]\n\n");
}

/* Whole answers ------------------------------------------------------------------------------------------- */

void openai_begin_whole(const struct dialect_answer *answer, const char *object, struct text *out)
{
    write_head(answer, object, out);
    text_add_string(out, ",\"choices\":[");
}

void openai_begin_whole_choice(size_t index, struct text *out)
{
    json_add_format(out, index ? ",{\"index\":%zu," : "{\"index\":%zu,", index);
}

void openai_end_whole_choice(const runnel_response *response, struct text *out)
{
    json_add_format(out, ",\"finish_reason\":\"%s\"}", finish_name(response));
}

void openai_end_whole(const struct dialect_answer *answer, struct text *out)
{
    text_add_string(out, "]");
    write_totals(answer, out);
}
