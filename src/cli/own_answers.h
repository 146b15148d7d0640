/* own_answers.h: a model's own answers to prompts, as sequences to be scored: how well another form of the model would have written
 * the same. One thread. */
#ifndef RUNNEL_CLI_OWN_ANSWERS_H
#define RUNNEL_CLI_OWN_ANSWERS_H

#include "cli/logits_file.h"

enum { OWN_ANSWERS_TOGETHER = 4 }; /* that are computed at a time */

/* Answers every line of a text that is not empty, through the model's template (without one the line is continued), always by
 * the likeliest token, up to max_tokens, thoughts included. A sequence is a prompt and its answer, and scored are the answer's
 * tokens. name: of the text. The engine has room for as many requests as there are lines. */
int own_answers_write(runnel_engine *engine, const runnel_model *model, const char *name, const char *text,
                      int max_tokens, struct scored_sequences *sequences, runnel_error *error);

/* How many prompts a text has. */
size_t own_answers_count(const char *text);

#endif
