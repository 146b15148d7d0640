/* fuzz_output.c: the text events do not depend on how the bytes were cut into tokens.
 *
 * Input: a byte of flags (stop texts, thoughts, the form of calls, whether one call ends the answer), up to 3 stop texts each behind its length, then the bytes of the answer. */
#include "engine/output.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { THOUGHTS, ANSWER, CALLS, N_KINDS };

static char name_f[] = "f", name_fg[] = "fg";
static char *all_names[] = {name_f, name_fg};
static const struct tool_names names = {.names = all_names, .n = 2};

struct record {
    char *text[N_KINDS];
    size_t len[N_KINDS], cap;
};

static bool on_event(void *user, const runnel_event *event)
{
    struct record *r = user;
    int kind = event->kind == RUNNEL_EVENT_THOUGHT  ? THOUGHTS
               : event->kind == RUNNEL_EVENT_ANSWER ? ANSWER
                                                    : CALLS;
    if ((event->text_len == 0) != (event->kind == RUNNEL_EVENT_CALL_END) || event->text[event->text_len] ||
        !utf8_valid(event->text, event->text_len) || r->len[kind] + event->text_len > r->cap)
        abort();
    memcpy(r->text[kind] + r->len[kind], event->text, event->text_len);
    r->len[kind] += event->text_len;
    return true;
}

/* Pushes all at once (step 0) or in tokens of growing sizes. */
static enum output_state run(const struct output_options *options, const uint8_t *bytes, size_t len,
                             size_t step, struct record *r)
{
    struct output *o;
    r->cap = 3 * len + 3;
    for (int kind = 0; kind < N_KINDS; kind++) {
        r->text[kind] = malloc(r->cap);
        r->len[kind] = 0;
    }
    if (output_create(options, &o, NULL))
        return OUTPUT_CANCELLED;
    for (size_t at = 0, n; at < len; at += n) {
        n = step ? 1 + at % step : len;
        n = n < len - at ? n : len - at;
        output_push(o, (const char *)bytes + at, n, on_event, r);
    }
    enum output_state state = output_finish(o, false, on_event, r);
    output_free(o);
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint8_t flags = *data++;
    size--;
    char stop_text[3][256];
    const char *stops[3] = {stop_text[0], stop_text[1], stop_text[2]};
    struct output_options options = {.stop = stops,
                                     .split_thoughts = flags & 4,
                                     .starts_in_thought = flags & 8,
                                     .max_calls = flags >> 6 & 1};
    size_t n_forms;
    const struct tool_form *forms = tool_forms(&n_forms);
    if (flags >> 4 & 3) {
        options.tool_form = &forms[((flags >> 4 & 3) - 1u) % n_forms];
        options.tool_names = &names;
    }
    for (; options.n_stop < (flags & 3u) && size; options.n_stop++) {
        size_t n = *data < size ? *data : size - 1;
        memcpy(stop_text[options.n_stop], data + 1, n);
        stop_text[options.n_stop][n] = 0;
        data += n + 1;
        size -= n + 1;
    }
    struct record whole, cut;
    enum output_state state = run(&options, data, size, 0, &whole);
    for (size_t step = 1; step <= 5; step += 2) {
        if (run(&options, data, size, step, &cut) != state)
            abort();
        for (int kind = 0; kind < N_KINDS; kind++) {
            if (cut.len[kind] != whole.len[kind] ||
                memcmp(cut.text[kind], whole.text[kind], cut.len[kind]) != 0)
                abort();
            free(cut.text[kind]);
        }
    }
    for (int kind = 0; kind < N_KINDS; kind++)
        free(whole.text[kind]);
    return 0;
}
