/* params.h: the JSON body of a request to what the engine is asked.
 *
 * Everything that a client can get wrong is found here, before anything is computed, and named by its field. A struct
 * params owns all that its request points to (params_free); what a request does not say keeps the server's default. Fields
 * that would change the answer and cannot be honoured are refused by name, since ignoring them would be a lie; those that
 * nobody knows are ignored. Any thread. */
#ifndef RUNNEL_SERVER_API_PARAMS_H
#define RUNNEL_SERVER_API_PARAMS_H

#include "runnel.h"
#include "server/api/params_table.h"

enum {
    PARAMS_STOPS = 16,
    PARAMS_STOP_BYTES = 1024,
    PARAMS_MESSAGE_BYTES = 4096,  /* of the text before a thought is closed, which is to have few tokens */
    PARAMS_RESPONSE_FIELDS = 128, /* more than an answer has */
    PARAMS_LOGIT_BIASES = 1024,
    PARAMS_CHOICES = 4096, /* texts that an answer may be one of */
    PARAMS_PROMPTS = 1024, /* in one request; more than the engine takes are refused by it, as busy */
    PARAMS_TOOLS = 512,
    PARAMS_NAME_BYTES = 256,    /* of "id" in a batch */
    GENERATE_MAX_TOKENS = 2048, /* of /generate, if it does not say */
};

/* Where the defaults come from, and the bounds that are not the same for every server. */
struct params_limits {
    runnel_request
        defaults; /* as runnel_request_init and the server's options have it, with sampling; no prompt */
    uint32_t n_vocab;
    uint32_t n_choices; /* "n" at most */
    bool split_reasoning;
    /* Text to token ids as runnel_tokenize gives them, control tokens read as such. NULL: prompts stay texts, and
     * text where ids are needed (mixed prompts, keys of logit_bias) is refused. */
    int (*encode)(void *user, const char *text, size_t len, int32_t **ids, size_t *n_ids,
                  runnel_error *error);
    void *encode_user;
    int32_t bos; /* with encode: stands before a prompt that begins with text; -1: none */
};

struct params_prompt {
    const char *text; /* where there is no encode; or */
    size_t text_len;
    int32_t *ids; /* its own */
    size_t n_ids;
};

struct params {
    runnel_request request;   /* of every choice; for completions without its prompt */
    runnel_sampling sampling; /* the request's */
    bool has_seed;
    unsigned n_choices; /* of each prompt, with seeds that count up */
    bool stream, include_usage;
    bool split_reasoning;          /* thoughts apart, not in the content */
    bool repeats_reasoning;        /* thoughts in the content, and apart as well */
    bool allows_control;           /* its thought may be ended from outside (control.c) */
    struct params_prompt *prompts; /* completions */
    size_t n_prompts;
    bool return_tokens,
        evaluates_only;      /* llama-server's form: tell ids; compute the prompt alone ("n_predict": 0) */
    json_t *response_fields; /* of it, a list of names; NULL: all */
    json_t *name;            /* "id" of a batch's entry: a string or a whole number, NULL if it has none */

    /* What the above points to. */
    json_t *root;
    runnel_message *messages;
    runnel_message_tools *message_tools; /* one for each of them */
    char **made; /* texts made of what came otherwise: contents in parts, calls, tools */
    size_t n_made;
    runnel_logit_bias *biases;
    char *constraint_text;
    const char **choices;         /* texts of root */
    const char *constraint_field; /* where the request's constraint stands, for messages; static */
    runnel_grammar *grammar;      /* the constraint, once it was compiled: the engine finds it */
    int32_t *encoded;             /* the request's prompt_ids, where they were made of its text */
    const char *stop[PARAMS_STOPS];
};

/* Each reads a parsed body, of which it keeps what it needs: the caller gives root back. Returns 0, or -1 and the
 * refusal, with *params untouched. The params are not to be copied or moved. */
int params_read_chat(json_t *root, const struct params_limits *limits, struct params *params,
                     struct refusal *refusal);
int params_read_completion(json_t *root, const struct params_limits *limits, struct params *params,
                           struct refusal *refusal);
/* llama-server's form. */
int params_read_native(json_t *root, const struct params_limits *limits, struct params *params,
                       struct refusal *refusal);
int params_read_generate(json_t *root, const struct params_limits *limits, struct params *params,
                         struct refusal *refusal);
void params_free(struct params *params);

/* The parts of the readers: params_fields.c, params_prompt.c, params_thinking.c, params_tools.c, params_constraint.c. */

/* Sampling, max_tokens, stop, logit_bias, seed, ignore_eos, n; refuses what this route (PARAMS_...) cannot honour. */
int params_read_common(const json_t *root, const struct params_limits *limits, unsigned route,
                       struct params *params, struct refusal *refusal);
/* tools, tool_choice, parallel_tool_calls of a conversation. There is room for a text in `made`. */
int params_read_tools(const json_t *root, struct params *params, struct refusal *refusal);
/* What messages[index], whose role has been read, has of calls or of their results. Likewise. */
int params_read_message_tools(const json_t *message, size_t index, struct params *params,
                              struct refusal *refusal);
/* An absent, null, false or empty value asks for nothing. */
bool params_asks_for_nothing(const json_t *value);
/* response_format, json_schema, grammar, guided_..., structured_outputs: the request's constraint, not compiled yet. */
int params_read_constraint(const json_t *root, struct params *params, struct refusal *refusal);
/* That it goes together with the rest, once that is read. */
int params_check_constraint(const struct params *params, struct refusal *refusal);
/* Thinking on, off, or up to a budget, and what closes a thought. After max_tokens. */
int params_read_thinking(const json_t *root, const struct params_limits *limits, struct params *params,
                         struct refusal *refusal);
/* Whether thoughts are apart from the answer. */
int params_read_thoughts_place(const json_t *root, struct params *params, struct refusal *refusal);
int params_read_prompts(const json_t *root, const struct params_limits *limits, struct params *params,
                        struct refusal *refusal);
/* stream, stream_options, timings_per_token, return_progress. */
int params_read_stream(const json_t *root, struct params *params, struct refusal *refusal);

#endif
