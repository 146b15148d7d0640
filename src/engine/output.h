/* output.h: from token bytes to text events: whole UTF-8 characters, stop texts, thought, answer or call of a tool.
 *
 * A struct output belongs to one answer and one thread. It holds back what might still change its meaning: an
 * incomplete UTF-8 character (invalid bytes become U+FFFD), the beginning of a stop text, the beginning of a
 * reasoning tag, with tools what may be the beginning of a call.
 *
 * Stop texts are looked for in the answer alone, not in thoughts, tags and calls. Of several the one that is complete first
 * ends the answer (of those that end together the longest). There is one thought: text before <think> is answer, and so
 * are tags after </think>. */
#ifndef RUNNEL_ENGINE_OUTPUT_H
#define RUNNEL_ENGINE_OUTPUT_H

#include "base/error.h"
#include "model/tool_reader.h"

struct output;

struct output_options {
    const char *const *stop; /* copied */
    size_t n_stop;
    bool starts_in_thought; /* the prompt has opened <think> */
    bool split_thoughts;    /* recognise <think> ... </think>; false: all is answer */
    /* Calls are recognised in the answer; NULL: they are text. Both are the caller's, and outlive the output. */
    const struct tool_form *tool_form;
    const struct tool_names *tool_names;
    uint32_t max_calls; /* after which the answer ends; 0: none */
    bool must_call;     /* the answer is calls: one that is cut before its arguments is no text */
};

enum output_state {
    OUTPUT_GOING_ON,
    OUTPUT_STOPPED, /* a stop text appeared, or the last call that may be made is over */
    OUTPUT_CANCELLED
};

int output_create(const struct output_options *options, struct output **output, runnel_error *error);
void output_free(struct output *output);

/* Takes the bytes of the next token and calls on_event for the text that is now certain: THOUGHT, ANSWER
 * and ARGUMENTS events, never empty, CALL and CALL_END. Tags themselves and one newline after <think> and up to two after </think> are
 * not part of any event. */
enum output_state output_push(struct output *output, const char *bytes, size_t len,
                              bool (*on_event)(void *user, const runnel_event *event), void *user);
/* A limit has cut the character that has begun: its bytes are left out. One that the model itself leaves incomplete becomes
 * U+FFFD. */
void output_cut_character(struct output *output);
/* The answer has ended: emits what was held back, unless that completes a stop text. is_cut: by its limit, so that an
 * incomplete character, whose rest would have come, is left out. */
enum output_state output_finish(struct output *output, bool is_cut,
                                bool (*on_event)(void *user, const runnel_event *event), void *user);
/* True while the next text would be a thought. */
bool output_in_thought(const struct output *output);
/* Which of the stop texts ended the answer; -1: none. */
int output_stop_index(const struct output *output);

#endif
