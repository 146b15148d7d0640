/* openai.h: the routes of the OpenAI API and llama-server's own form of them, and what their halves share: openai.c takes
 * requests and follows their jobs, openai_write.c and completion_write.c write the shapes. The loop's thread only. */
#ifndef RUNNEL_SERVER_OPENAI_H
#define RUNNEL_SERVER_OPENAI_H

#include "server/logprobs.h"
#include "server/params.h"
#include "server/record.h"
#include "server/server.h"

void openai_chat(struct server *server, struct exchange *exchange);         /* POST /v1/chat/completions */
void openai_completion(struct server *server, struct exchange *exchange);   /* POST /v1/completions */
void openai_native(struct server *server, struct exchange *exchange);       /* POST /completion */
void openai_models(struct server *server, struct exchange *exchange);       /* GET /v1/models */
void openai_model(struct server *server, struct exchange *exchange);        /* GET /v1/models/{model} */
void openai_count_tokens(struct server *server, struct exchange *exchange); /* POST .../input_tokens */

/* Between the halves -------------------------------------------------------------------------------------- */

enum openai_form { OPENAI_CHAT, OPENAI_COMPLETION, OPENAI_NATIVE };

/* One of the answers of a request. */
struct openai_choice {
    struct logprobs logprobs;
    runnel_response counts; /* once it has finished; without its texts */
    bool began;             /* a stream has told the role */
    bool thinking;          /* the last text was a thought */
    bool finished;
    bool has_new_line; /* its text */
    double last_ms;    /* of the last text, for the metrics */
};

struct openai_answer {
    bool is_native; /* llama-server's form, else OpenAI's */
    bool is_chat, wants_stream, stream, include_usage, wants_logprobs;
    bool split_reasoning, repeats_reasoning; /* as of params */
    int status;                              /* what the client is told, or would have been */
    char id[40];
    int64_t created_s;
    struct record *record;
    const char *model;
    struct text piece; /* of a stream, being written */

    /* Of the native form. */
    bool return_tokens, evaluates_only;
    enum logprobs_native probabilities;
    struct text settings;    /* the request as it was understood, a JSON object */
    json_t *stop;            /* its stop texts, a list */
    json_t *response_fields; /* names of the fields that are wanted; NULL: all */
    size_t n_prompts;
    struct text *prompts; /* as the model reads them, [n_prompts] */

    size_t n_per_prompt; /* choices that share a prompt follow each other */
    size_t n;
    struct openai_choice choices[];
};

/* Each adds one event of a stream. */
void openai_write_delta(struct openai_answer *answer, size_t index, const runnel_event *event,
                        struct text *out);
void openai_write_progress(struct openai_answer *answer, size_t index, const runnel_response *counts,
                           struct text *out);
void openai_write_end(struct openai_answer *answer, size_t index, struct text *out);
void openai_write_usage_chunk(struct openai_answer *answer, struct text *out);

/* ,"timings":{..}: of n choices that ran together, of which n_per_prompt share a prompt. */
void openai_write_timings(const struct openai_choice *choices, size_t n, size_t n_per_prompt,
                          struct text *out);
/* The same of an event, as far as its choice has come; nothing if the event has no counts. */
void openai_write_event_timings(const runnel_event *event, struct text *out);

/* ,"prompt_progress":{..}: of a RUNNEL_EVENT_PROMPT. */
void openai_write_prompt_progress(const runnel_response *counts, struct text *out);

/* The same in llama-server's form: completion_write.c. */
void completion_write_settings(const struct server *server, const struct params *params, uint64_t seed,
                               struct text *out);
void completion_write_delta(struct openai_answer *answer, size_t index, const runnel_event *event,
                            struct text *out);
void completion_write_progress(struct openai_answer *answer, size_t index, const runnel_response *counts,
                               struct text *out);
void completion_write_end(struct openai_answer *answer, size_t index, struct text *out);
void completion_write_whole(struct openai_answer *answer, const runnel_response *const *responses,
                            struct text *out);

/* A whole answer; responses[n]. */
void openai_write_whole(struct openai_answer *answer, const runnel_response *const *responses,
                        struct text *out);

#endif
