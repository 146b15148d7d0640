/* own_answers.h: a model's own answers to prompts, as sequences to be scored: how well another form of the model would have written
 * the same. One thread. */
#ifndef RUNNEL_CLI_OWN_ANSWERS_H
#define RUNNEL_CLI_OWN_ANSWERS_H

#include "cli/logits_file.h"

enum { OWN_ANSWERS_TOGETHER = 4 }; /* that are computed at a time */

struct own_prompts {
    const char *name;   /* of the text */
    const char *text;   /* a prompt a line */
    int max_tokens;     /* of an answer */
    uint32_t n_context; /* the engine's */
};

/* Answers every line of a text that is not empty, through the model's template (without one the line is continued), always by
 * the likeliest token, up to max_tokens, thoughts included. A sequence is a prompt and its answer, and scored are the answer's
 * tokens. The engine has room for as many requests as there are lines. */
int own_answers_write(runnel_engine *engine, const runnel_model *model, const struct own_prompts *prompts,
                      struct scored_sequences *sequences, runnel_error *error);

/* How many prompts a text has. */
size_t own_answers_count(const char *text);

#endif
