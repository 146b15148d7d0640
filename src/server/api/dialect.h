/* dialect.h: what tells apart the routes that write what a model says, one choice or several, whole or as a stream.
 *
 * A dialect is a table: functions that read a body and that write each part of an answer. dialect.c takes requests, follows
 * their jobs and calls the table; it knows no dialect. A new one is a file with its table, and rows of route_table.c. The
 * loop's thread only, unless it says so. */
#ifndef RUNNEL_SERVER_API_DIALECT_H
#define RUNNEL_SERVER_API_DIALECT_H

#include "server/api/logprobs.h"
#include "server/api/params.h"
#include "server/core/record.h"
#include "server/core/server.h"

/* One of the answers of a request. */
struct dialect_choice {
    struct logprobs logprobs;
    runnel_response counts; /* once it has finished; without its texts */
    bool began;             /* a stream has told the role */
    bool thinking;          /* the last text was a thought */
    bool finished;
    bool has_new_line; /* its text */
    double last_ms;    /* of the last text, for the metrics */
};

struct dialect_answer {
    const struct dialect *dialect;
    void *state; /* the dialect's own */
    bool wants_stream, stream, include_usage;
    bool split_reasoning, repeats_reasoning; /* as of params; false in a dialect that tells no thoughts */
    bool evaluates_only;                     /* what was drawn is not told */
    int status;                              /* what the client is told, or would have been */
    char id[40];
    int64_t created_s;
    struct record *record;
    const char *model;
    struct text piece; /* of a stream, being written */

    size_t n_per_prompt; /* choices that share a prompt follow each other */
    size_t n;
    struct dialect_choice choices[];
};

struct dialect {
    enum metrics_route metric;
    const char *id_prefix; /* of the ids of its answers */
    bool tells_thoughts;   /* in another place than the answer's text, where a request wants that */
    size_t state_bytes;    /* its own state of a request, zeroed at first; 0: it has none */

    /* A parsed body to params, from params.h. Any thread. Returns 0, or -1 and the refusal, like the next. */
    int (*read)(json_t *root, const struct params_limits *limits, struct params *params,
                struct refusal *refusal);
    /* The rest that can be done beside the loop: tokens, and what of the params the answer needs, which outlives them:
     * copied into state. Any thread. NULL: nothing. */
    int (*prepare)(const struct server *server, struct params *params, void *state, struct refusal *refusal);
    /* What state points to. Any thread. NULL: nothing. */
    void (*free_state)(void *state);
    /* Before the engine is asked: what is known only then. NULL: nothing. */
    void (*begin)(struct dialect_answer *answer, const struct server *server, const struct params *params,
                  uint64_t seed);

    /* Parts of a stream, whole events: text, a thought or, in dialects that have tools, part of a call; how far the prompt is; a choice's end. */
    void (*delta)(struct dialect_answer *answer, size_t index, const runnel_event *event, struct text *out);
    void (*progress)(struct dialect_answer *answer, size_t index, const runnel_response *counts,
                     struct text *out);
    void (*end)(struct dialect_answer *answer, size_t index, struct text *out);
    /* After the ends of all choices. NULL: nothing. */
    void (*done)(struct dialect_answer *answer, struct text *out);
    /* A whole answer; responses[answer->n]. */
    void (*whole)(struct dialect_answer *answer, const runnel_response *const *responses, struct text *out);
};

/* Answers an exchange that was handed to a route. The dialect lives forever. */
void dialect_answer(struct server *server, struct exchange *exchange, const struct dialect *dialect);

/* The same up to the engine: tells how many tokens the prompt has that a request of this dialect would be asked with. It
 * is one whose `prepare` makes the tokens. */
void dialect_count_tokens(struct server *server, struct exchange *exchange, const struct dialect *dialect);

#endif
