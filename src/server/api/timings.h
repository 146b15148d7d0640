/* timings.h: llama-server's figures of a request, which every dialect tells: tokens, times, how far a prompt is. The loop's
 * thread only. */
#ifndef RUNNEL_SERVER_API_TIMINGS_H
#define RUNNEL_SERVER_API_TIMINGS_H

#include "server/api/dialect.h"

/* ,"timings":{..}: of n choices that ran together, of which n_per_prompt share a prompt. */
void timings_write(const struct dialect_choice *choices, size_t n, size_t n_per_prompt, struct text *out);
/* The same of an event, as far as its choice has come; nothing if the event has no counts. */
void timings_write_event(const runnel_event *event, struct text *out);

/* ,"prompt_progress":{..}: of a RUNNEL_EVENT_PROMPT. */
void timings_write_progress(const runnel_response *counts, struct text *out);

#endif
