/* openai_write.h: the shapes that the dialects of the OpenAI API share. `object` is the name that an answer's object has. The
 * loop's thread only. */
#ifndef RUNNEL_SERVER_API_OPENAI_WRITE_H
#define RUNNEL_SERVER_API_OPENAI_WRITE_H

#include "server/api/dialect.h"

/* "name":"bytes" */
void openai_write_field(const char *name, const char *bytes, size_t len, struct text *out);

/* An event of a stream up to its choice's index and the comma behind; the dialect adds what the choice says and its
 * logprobs, and one of the following ends the event. */
void openai_begin_event(const struct dialect_answer *answer, const char *object, size_t index,
                        struct text *out);
void openai_end_delta(const runnel_event *event, struct text *out);
void openai_end_progress(const runnel_response *counts,
                         struct text *out); /* which writes the logprobs: none */
void openai_end_choice(const struct dialect_answer *answer, size_t index, struct text *out);

/* The events after the last choice's end. */
void openai_write_done(struct dialect_answer *answer, const char *object, struct text *out);

/* A whole answer: its choices are written between begin and end, each between its begin and end. */
void openai_begin_whole(const struct dialect_answer *answer, const char *object, struct text *out);
void openai_begin_whole_choice(size_t index, struct text *out);
void openai_end_whole_choice(const runnel_response *response, struct text *out);
void openai_end_whole(const struct dialect_answer *answer, struct text *out);

#endif
