/* timings.c: see timings.h. */
#include "server/api/timings.h"
#include "server/core/json_write.h"

static double divide(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* Tokens are added up, those of a prompt once, as in the usage; times are those of the slowest; what ended the thought is the
 * last in the order of enum runnel_thought_end. */
void timings_write(const struct dialect_choice *choices, size_t n, size_t n_per_prompt, struct text *out)
{
    double queue_ms = 0, prompt_ms = 0, decode_ms = 0, stall_ms = 0, thinking_ms = 0;
    double n_cached = 0, n_prompt = 0, n_drawn = 0, n_thought = 0, n_drafted = 0, n_accepted = 0;
    enum runnel_thought_end end = RUNNEL_THOUGHT_NONE;
    for (size_t i = 0; i < n; i++) {
        const runnel_response *counts = &choices[i].counts;
        if (i % n_per_prompt == 0) {
            n_cached += counts->n_cached_tokens;
            n_prompt += counts->n_prompt_tokens - counts->n_cached_tokens;
        }
        n_drawn += counts->n_tokens;
        n_thought += counts->n_reasoning_tokens;
        n_drafted += counts->n_draft_tokens;
        n_accepted += counts->n_draft_accepted;
        queue_ms = counts->queue_ms > queue_ms ? counts->queue_ms : queue_ms;
        prompt_ms = counts->prefill_ms > prompt_ms ? counts->prefill_ms : prompt_ms;
        decode_ms = counts->decode_ms > decode_ms ? counts->decode_ms : decode_ms;
        stall_ms = counts->stall_ms > stall_ms ? counts->stall_ms : stall_ms;
        thinking_ms = counts->thinking_ms > thinking_ms ? counts->thinking_ms : thinking_ms;
        end = counts->thought_end > end ? counts->thought_end : end;
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
                    "\"queue_ms\":%.3f,\"stall_ms\":%.3f,\"draft_n\":%.0f,\"draft_accepted_n\":%.0f,"
                    "\"thinking_n\":%.0f,\"thinking_ms\":%.3f,\"thinking_end\":",
                    queue_ms, stall_ms, n_drafted, n_accepted, n_thought, thinking_ms);
    if (runnel_thought_end_name(end))
        json_add_format(out, "\"%s\"}", runnel_thought_end_name(end));
    else
        text_add_string(out, "null}");
}

void timings_write_event(const runnel_event *event, struct text *out)
{
    struct dialect_choice so_far = {0};
    if (!event->counts)
        return;
    so_far.counts = *event->counts;
    timings_write(&so_far, 1, 1, out);
}

void timings_write_progress(const runnel_response *counts, struct text *out)
{
    json_add_format(out, ",\"prompt_progress\":{\"total\":%u,\"cache\":%u,\"processed\":%u,\"time_ms\":%.0f}",
                    counts->n_prompt_tokens, counts->n_cached_tokens, counts->n_computed_tokens,
                    counts->prefill_ms);
}
