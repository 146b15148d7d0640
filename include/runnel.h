/* runnel.h: answers from a small reasoning model, on ordinary CPUs.
 *
 *     runnel_error error;
 *     runnel_model *model;
 *     runnel_engine *engine;
 *     char *text;
 *
 *     if (runnel_model_open("model.gguf", NULL, &model, &error) ||
 *         runnel_engine_start(model, NULL, &engine, &error) ||
 *         runnel_generate(engine, "Why is the sky blue?", 512, 0.6f, &text, &error)) {
 *         fprintf(stderr, "%s\n", error.message);
 *         return 1; // a program that goes on frees what it has, as below
 *     }
 *     puts(text);
 *     runnel_text_free(text);
 *     runnel_engine_stop(engine);
 *     runnel_model_close(model);
 *
 * Every function that can fail returns RUNNEL_OK (0) or a negative RUNNEL_E... and fills *error (which may be
 * NULL) with one line; on success *error is left alone. runnel_next and runnel_descriptor have none: RUNNEL_EINVAL of
 * theirs is one of the few mistakes that are named there. On failure the outputs are untouched, and there is nothing to
 * free. The library never exits, prints or raises a signal. What a function hands out is the caller's to free with the named
 * function. Text is UTF-8: the bytes of a prompt that are none go to the model as they are, a byte a token, and a vocabulary
 * without such tokens leaves them out; what comes back is always UTF-8, with U+FFFD for bytes of the model's that are no
 * character.
 *
 * NULL: options, error and user may be. Any other pointer that is NULL, an array that is NULL while its count is not 0,
 * and a NULL in an array of texts are RUNNEL_EINVAL with the name in the message. Functions without a result do nothing
 * with NULL, so everything that frees takes it, and nothing with a size that was not set: what they should fill is as it was.
 *
 * Structs grow at their ends. Those that do begin with their size as the caller's compiler sees it, so that a program built
 * against an older header of this soname goes on working: runnel_..._init sets it, as does
 * "runnel_response response = {.size = sizeof response};" (in C++ before C++20: "runnel_response response = {};
 * response.size = sizeof response;"). A size that cannot be one, such as 0, is RUNNEL_EINVAL. Of an
 * array the first element's size is the step from one to the next. What the library hands out has its own size there; read no
 * further. runnel_error, runnel_message, runnel_message_tools, runnel_call,
 * runnel_logit_bias and runnel_logprob stay as they are.
 *
 * Threads: a model may be used by any number of them, and so may an engine: requests of several threads are computed
 * together, n_parallel at a time, and the others wait for their turn. The engine has a thread of its own. On it run
 * on_event, on_taken, on_ready, on_logits and on_inputs; from these every function may be called but those that wait for the engine
 * they belong to: runnel_respond, runnel_respond_many, runnel_generate, runnel_get_logits, runnel_logits_each, runnel_inputs_each and, of a
 * request that has not ended, runnel_wait and runnel_next with a timeout other than 0 are RUNNEL_EINVAL there, and
 * runnel_engine_stop does nothing. Whoever frees a future or closes a model sees to it that
 * no other thread is in a function with it, or will be; for engines see runnel_engine_stop.
 *
 * Processes: a model may be used in children of fork, in any number of them at once, if at the fork no engine runs in the
 * process and no other thread is in a function of this library. runnel_model_open leaves no thread behind, and weights that are
 * never written again (a write is a SIGSEGV), so that they are in memory once for all of these processes. Each one starts
 * engines of its own after the fork, and closes the model for itself. An engine, its futures and what these hand out belong to
 * the process that started it: another one may neither use nor free them. A GPU, too, is opened with an engine, in its process. */
#ifndef RUNNEL_H
#define RUNNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RUNNEL_API __attribute__((visibility("default")))

/* Errors -------------------------------------------------------------------------------------------------- */

enum {
    RUNNEL_OK = 0,
    RUNNEL_EINVAL = -1,       /* an argument or option is wrong */
    RUNNEL_ENOMEM = -2,       /* memory could not be had */
    RUNNEL_EIO = -3,          /* a file could not be opened or read */
    RUNNEL_EFORMAT = -4,      /* a model file is damaged or breaks the format's rules */
    RUNNEL_EUNSUPPORTED = -5, /* well formed, but an architecture, type or template not known here */
    RUNNEL_ECONTEXT = -6,     /* the prompt does not fit the context */
    RUNNEL_ECANCELLED = -7,   /* ended by the caller, or the engine is being stopped */
    RUNNEL_ENUMERIC = -8,     /* the model gave numbers that are not finite */
    RUNNEL_EBUSY = -9,        /* as many requests as the engine takes are running or waiting */
    RUNNEL_ESLOW = -10,       /* it would wait longer than the engine's max_wait_ms: refused */
    RUNNEL_EEXPIRED = -11,    /* it did wait longer than that */
    RUNNEL_ETIMEOUT = -12,    /* it took longer than a server allows */
};

typedef struct runnel_error {
    int code;          /* RUNNEL_E... */
    char message[512]; /* one line: the thing, what was expected, what was found */
} runnel_error;

/* The library's version, such as "0.1.0". Static text. */
RUNNEL_API const char *runnel_version(void);

/* Model --------------------------------------------------------------------------------------------------- */

typedef struct runnel_model runnel_model;

typedef struct runnel_model_options {
    size_t size;               /* sizeof(runnel_model_options) */
    int n_threads;             /* that load and compute; 0: as many as the CPU quota and the affinity allow,
                                * or one fewer where a measurement shows that this is faster (threads_why) */
    const char *chat_template; /* "r1", "chatml": instead of the file's own; NULL: the file's own */
    /* Called on the opening thread while weights load, with the bytes done and in all; NULL: not called. */
    void (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    /* The text of a chat template, in Jinja's language, instead of the file's own; NULL: none. Read only while opening. Not
     * beside chat_template. */
    const char *chat_template_text;
    /* What its engines compute layers on: "cpu"; "gpu", a device whatever it is; "auto", a GPU if there is one; or which, by what
     * runnel_devices has of it: its id, its name or a part of that which no other has. NULL: "cpu". Read only while opening; it is
     * runnel_engine_start that looks for it, opens it, and fails if it is not there. */
    const char *device;
    uint32_t
        gpu_layers; /* that are computed there at most, the rest on the CPU; 0: all that its memory has room for */
    /* Answers from there need not have the CPU's bits: a device that does not round as the CPU does can be used, and weights in floats are
     * summed in the order that is fastest there. False: such a device is refused, and the bits are the CPU's. */
    bool gpu_approximate;
} runnel_model_options;

/* Fills the first size bytes of a runnel_model_options with the defaults. For other languages than C: */
RUNNEL_API void runnel_model_options_init_sized(void *options, size_t size);
static inline void runnel_model_options_init(runnel_model_options *options)
{
    runnel_model_options_init_sized(options, sizeof *options);
}

/* Opens a GGUF file, checks it, packs its weights into memory. Of a model in parts path is the first
 * (NAME-00001-of-00003.gguf); the others are opened beside it. options may be NULL. Files are closed on return. Close with
 * runnel_model_close. */
RUNNEL_API int runnel_model_open(const char *path, const runnel_model_options *options, runnel_model **model,
                                 runnel_error *error);
/* The model may not be used any more, but by engines that run on it: they keep it, and the last one to stop frees it. */
RUNNEL_API void runnel_model_close(runnel_model *model);

typedef struct runnel_model_info {
    size_t size;              /* sizeof(runnel_model_info), set by the caller */
    const char *name;         /* as the file gives it, "" if it does not; lives as long as the model */
    const char *architecture; /* "qwen2", "llama", "qwen3", "gemma3" */
    const char *
        chat_template; /* "r1", "chatml": its template renders such; "own": something else; "": there is none that can be run */
    const char *cpu; /* kernels in use: "ref", "avx2", "avxvnni", "avx512", "amx" */
    uint64_t n_parameters;
    uint64_t file_bytes;
    uint64_t weight_bytes;    /* packed, in memory */
    uint64_t bytes_per_token; /* of weights that decoding one token reads */
    uint64_t n_layer_weights; /* multiplications for a token in the layers, */
    uint64_t n_head_weights;  /* and in the output head */
    uint32_t n_vocab;         /* rows of the output head: the length of a logits vector */
    uint32_t n_tokens;        /* of the vocabulary: n_vocab, or fewer */
    uint32_t n_context_train; /* longest context the model was trained for, tokens */
    uint32_t n_layers, n_hidden;
    int32_t eos_token, bos_token; /* -1: none */
    bool adds_bos;                /* the model wants bos_token before texts that have no template */
    const char *jinja; /* the file's own chat template, "" if it has none; lives as long as the model */
    int n_threads;
    double load_ms;
    uint64_t kv_bytes_per_token;   /* of the cache, at 16 bits a value */
    uint64_t n_attention_products; /* multiplications of a token with each position before it */
    const char *
        warning; /* what the file says and could not be followed, "" if nothing; lives as long as the model */
    const char
        *threads_why; /* where n_threads was measured: what was taken and why; "" elsewhere; likewise */
} runnel_model_info;

RUNNEL_API void runnel_model_get_info(const runnel_model *model, runnel_model_info *info);

/* Devices ------------------------------------------------------------------------------------------------- */

/* What can compute layers here: first the CPU, then each GPU that a driver shows, by OpenCL or by CUDA. */
typedef struct runnel_device_list runnel_device_list;

typedef struct runnel_device {
    size_t size; /* sizeof(runnel_device), set by the caller; texts live as long as the list */
    const char *
        id; /* "cpu", "gpu0", "gpu1" ...: what options may call it; "": it is a driver that shows none, and problem says why */
    const char *name;      /* as its driver has it */
    const char *driver;    /* by what it is reached, with versions; of the CPU its kernels in use */
    const char *can;       /* what it can do, for people: "integer dot products, 24 cores" */
    const char *problem;   /* why it cannot be used, or not without gpu_approximate; "": it can */
    uint64_t memory_bytes; /* 0: not known */
    bool is_gpu;           /* it is no CPU, nor a driver that computes on it: "auto" takes such a one */
} runnel_device;

/* Looks for them, which loads their drivers into this process: these may start threads, and not all of them work in a child of a
 * later fork. *n: 1 or more. Free with runnel_devices_free. */
RUNNEL_API int runnel_devices(runnel_device_list **list, size_t *n, runnel_error *error);
/* The one at index, below n. */
RUNNEL_API void runnel_devices_get(const runnel_device_list *list, size_t index, runnel_device *device);
RUNNEL_API void runnel_devices_free(runnel_device_list *list);

/* Text and tokens ----------------------------------------------------------------------------------------- */

/* Text to token ids. Control tokens in the text are read as such only if special is true; user-defined ones
 * (R1's <think>) always are. Nothing is added before or after, but for the space that some models have set before
 * texts (SentencePiece). Text is not normalised: an e with a combining accent and the one code point have different tokens, as in
 * llama.cpp. *ids is to be freed with runnel_tokens_free. */
RUNNEL_API int runnel_tokenize(const runnel_model *model, const char *text, size_t len, bool special,
                               int32_t **ids, size_t *n_ids, runnel_error *error);
RUNNEL_API void runnel_tokens_free(int32_t *ids);

/* Token ids to bytes (zero-terminated, *len without the zero; may hold incomplete UTF-8 if the ids do).
 * Control tokens give their names if special is true, else nothing. The space that was set before a text is not given. Free with
 * runnel_text_free. */
RUNNEL_API int runnel_detokenize(const runnel_model *model, const int32_t *ids, size_t n_ids, bool special,
                                 char **text, size_t *len, runnel_error *error);
RUNNEL_API void runnel_text_free(char *text);

typedef struct runnel_message {
    const char *role;    /* "system", "user", "assistant"; "tool" for the result of a call */
    const char *content; /* UTF-8, may be empty */
    size_t content_len;  /* bytes, for a content that may hold zeros; 0: up to its zero */
} runnel_message;

/* What a message has besides in a conversation with tools. */
typedef struct runnel_message_tools {
    /* The assistant's calls, a JSON list as the OpenAI API has it: [{"id", "type": "function", "function": {"name",
     * "arguments": "..."}}]; NULL: it calls none. */
    const char *calls;
    const char *call_id; /* of a result: the id of the call; NULL: not said */
    const char *name;    /* of a result: the tool's name; NULL: not said */
} runnel_message_tools;

/* A call of a tool in an answer. */
typedef struct runnel_call {
    char *name;      /* one of the given tools */
    char *arguments; /* zero-terminated, as the model wrote them: a JSON object, if it made no mistake */
    size_t arguments_len;
    bool complete; /* false: the answer ended within the arguments */
} runnel_call;

/* The prompt that the model's template makes of a conversation, ending where the assistant's answer begins;
 * with thinking, R1's "<think>\n" is opened. Free with runnel_text_free. */
RUNNEL_API int runnel_chat_format(const runnel_model *model, const runnel_message *messages,
                                  size_t n_messages, bool thinking, char **text, runnel_error *error);

/* Engine -------------------------------------------------------------------------------------------------- */

typedef struct runnel_engine runnel_engine;

typedef struct runnel_engine_options {
    size_t size;         /* sizeof(runnel_engine_options) */
    uint32_t n_context;  /* tokens of prompt and answer together; 0: 8192, or the model's if that is less */
    uint32_t n_batch;    /* rows a step at most; 0: 512 */
    uint32_t n_parallel; /* requests computed together at most; 0: 1 */
    uint32_t n_requests; /* running or waiting at most; 0: 100, or n_parallel if that is more */
    /* Positions in the KV cache, at least n_context; 0: by n_kv_bytes, or n_context x n_parallel. */
    uint32_t n_kv_tokens;
    uint64_t n_kv_bytes; /* of the KV cache, at least one context; 0, or beside n_kv_tokens: by these */
    /* A window, with keep_last: long sequences keep their first and last positions and drop whole pages of 32 between;
     * answers may then pass n_context. keep_last 0: no window. Both in whole pages, and one page more, must fit into the KV
     * cache, or it is RUNNEL_EINVAL: in a cache of 128 positions keep_first 4 and keep_last 64 do, 4 and 65 do not. */
    uint32_t keep_first;
    uint32_t keep_last;
    float step_budget_ms;  /* a step with prompts in it should not take longer while others decode; 0: 60 */
    float batch_window_ms; /* how long the first request of an idle engine waits for others; 0: not */
    float max_wait_ms; /* a request that is predicted to wait longer for its turn, or does, fails; 0: none */
    /* With quick_start: what the warm-up of an engine with the same options took (runnel_stats), for this one to expect of its
     * first steps; both 0: a guess. */
    double warm_up_prompt_ms, warm_up_token_ms;
    uint32_t n_threads; /* that compute; 0: the model's */
    /* Starts within milliseconds: nothing is computed to warm up, and the KV cache's memory is brought in by the
     * requests that use it, and while there are none. That there is room for it is only looked up: RUNNEL_ENOMEM if not. */
    bool quick_start;
    /* The answer_reserve of requests that do not say. 0: none; -1: of n tokens that the answer may have, thoughts included,
     * min(512, max(16, n / 8), n / 2). */
    int answer_reserve;
    /* Nothing is guessed: each step computes one token of each answer. Else tokens that are likely to come next, as they followed
     * before in the prompt, in the answer or in recent answers with the same key, are computed with them where that makes answers
     * faster. No answer is another one with it, or without. */
    bool no_drafts;
} runnel_engine_options;

RUNNEL_API void runnel_engine_options_init_sized(void *options, size_t size);
/* Fills options with the defaults. */
static inline void runnel_engine_options_init(runnel_engine_options *options)
{
    runnel_engine_options_init_sized(options, sizeof *options);
}

/* The memory that an engine with these options (may be NULL) takes from its start on, or with quick_start soon after it: KV cache
 * and scratch. Requests take more, 64 MiB and their tokens at most. So whoever forks can tell before whether there is room for
 * the engines of all children. With a GPU it is what the engine would take without it. */
RUNNEL_API int runnel_engine_bytes(const runnel_model *model, const runnel_engine_options *options,
                                   uint64_t *n_bytes, runnel_error *error);

/* Allocates the KV cache and the scratch of an engine, all that steps will use, starts its thread and warms up.
 * options may be NULL. */
RUNNEL_API int runnel_engine_start(const runnel_model *model, const runnel_engine_options *options,
                                   runnel_engine **engine, runnel_error *error);
/* Cancels what is running or waiting, waits for that, frees the engine. Futures stay valid until they are freed: returns
 * how many are not. Calls with this engine that other threads have begun are waited for, too: runnel_respond and the like get
 * what there is of their answer, and what would begin anything is RUNNEL_ECANCELLED. The same goes for calls that begin while
 * a callback or another call is still waited for. A call counts as begun once it has made itself known to the engine, the
 * first thing that it does: whoever may call has to know that this function is not about to return, and nobody may use the
 * engine afterwards. Not from the engine's own thread (on_event, on_taken, on_ready, on_logits, on_inputs), and of two threads that
 * stop an engine at once only the first: it does nothing then and returns UINT_MAX. NULL is fine. */
RUNNEL_API unsigned runnel_engine_stop(runnel_engine *engine);

/* The tokens that a request's prompt becomes, as runnel_submit would have them: messages or prompt through the
 * template, in which a user's text never becomes a control token. Free *ids with runnel_tokens_free. */
struct runnel_request;
RUNNEL_API int runnel_prompt_tokens(const runnel_model *model, const struct runnel_request *request,
                                    int32_t **ids, size_t *n_ids, runnel_error *error);
/* The same as text: what the model continues (zero-terminated, *len without the zero). Free with runnel_text_free. */
RUNNEL_API int runnel_prompt_text(const runnel_model *model, const struct runnel_request *request,
                                  char **text, size_t *len, runnel_error *error);

typedef struct runnel_logit_bias {
    int32_t token;
    float bias; /* added to the token's logit */
} runnel_logit_bias;

/* How a token is drawn, in this order: bias, penalties, temperature, top-k, top-p, min-p. */
typedef struct runnel_sampling {
    size_t size;              /* sizeof(runnel_sampling) */
    float temperature;        /* 0: the likeliest token, always */
    int top_k;                /* keep the k likeliest; 0: all */
    float top_p;              /* keep the likeliest whose probabilities reach p; 1: all */
    float min_p;              /* drop what is less likely than min_p x the likeliest; 0: none */
    float repetition_penalty; /* 1: none; divides positive and multiplies negative logits of tokens seen */
    float presence_penalty;   /* subtracted once from tokens seen */
    float frequency_penalty;  /* subtracted for each time a token was seen */
    int penalty_window;       /* how many of the last tokens count as seen; 0: none, -1: all */
    uint64_t seed;            /* a draw depends on the seed, the position and the logits alone */
    const runnel_logit_bias *logit_bias;
    size_t n_logit_bias;
} runnel_sampling;

/* Fills sampling with the model's own values; without a model (NULL) with one that every function refuses. */
RUNNEL_API void runnel_sampling_init_sized(const runnel_model *model, void *sampling, size_t size);
static inline void runnel_sampling_init(const runnel_model *model, runnel_sampling *sampling)
{
    runnel_sampling_init_sized(model, sampling, sizeof *sampling);
}

enum runnel_event_kind {
    RUNNEL_EVENT_NONE = 0,    /* by runnel_next only: there is none */
    RUNNEL_EVENT_THOUGHT = 1, /* text of the reasoning */
    RUNNEL_EVENT_ANSWER = 2,  /* text of the answer */
    RUNNEL_EVENT_FINISH = 3,  /* the last event: finish_reason, or error, is set */
    /* A token and its alternatives, before its text; the end token, too, which has none. With n_logprobs or wants_tokens
     * only. */
    RUNNEL_EVENT_TOKEN = 4,
    RUNNEL_EVENT_PROMPT = 5, /* more of the prompt is computed; with wants_progress only */
    RUNNEL_EVENT_TAKEN = 6,  /* the first one: as on_taken says; with wants_events only */
    /* With tools only. Calls come one after the other, and text between them: */
    RUNNEL_EVENT_CALL = 7,      /* a call has begun: text is the name of the tool */
    RUNNEL_EVENT_ARGUMENTS = 8, /* more of its arguments */
    RUNNEL_EVENT_CALL_END = 9,  /* its arguments are complete; not told where the answer ends before */
};

enum runnel_finish_reason {
    RUNNEL_FINISH_STOP = 1, /* the model ended its answer, or a stop text appeared */
    RUNNEL_FINISH_LENGTH =
        2, /* max_tokens or the context is used up; half a character at the end is left out */
    RUNNEL_FINISH_CANCELLED = 3, /* by on_event, runnel_cancel or runnel_engine_stop */
    RUNNEL_FINISH_ERROR = 4,     /* runnel_wait gives the error */
};

/* What ended the thoughts of an answer. But for the first two it was the engine, which wrote what closes them. */
enum runnel_thought_end {
    RUNNEL_THOUGHT_NONE = 0,   /* there were none, or they had not ended when the answer did */
    RUNNEL_THOUGHT_MODEL = 1,  /* the model closed them */
    RUNNEL_THOUGHT_BUDGET = 2, /* thinking_budget */
    /* A sentence had ended beyond soft_thinking_budget; the closing token may have been drawn there, made likelier. */
    RUNNEL_THOUGHT_SOFT_BUDGET = 3,
    RUNNEL_THOUGHT_RESERVE = 4, /* no more tokens were left than answer_reserve */
    /* They went in circles: the same cycle of tokens came three times in a row, or more, where it was not sentences but a table, say. */
    RUNNEL_THOUGHT_LOOP = 5,
    RUNNEL_THOUGHT_END_TOKEN = 6, /* the model drew an end token, which was not taken; not with ignore_eos */
    RUNNEL_THOUGHT_ASKED = 7,     /* runnel_end_thought */
};
/* One word for it, as servers' timings and metrics have it: "model", "budget", "soft_budget"; of the program, never freed. NULL for
 * RUNNEL_THOUGHT_NONE, and for what is none of these. Any thread. */
RUNNEL_API const char *runnel_thought_end_name(enum runnel_thought_end end);

enum { RUNNEL_LOGPROBS_MAX = 20 /* likeliest tokens that can be told of each token */ };

typedef struct runnel_logprob {
    int32_t token;
    /* Natural log of its probability under the model itself, before any sampling option; with wants_sampled_probs in the
     * draw, -infinity if it could not be drawn. */
    float logprob;
    const char *bytes; /* of the token; may be incomplete UTF-8; a control token that was drawn has none */
    size_t n_bytes;
} runnel_logprob;

typedef struct runnel_event {
    size_t size; /* sizeof(runnel_event) */
    enum runnel_event_kind kind;
    /* THOUGHT, ANSWER, ARGUMENTS: whole UTF-8 characters, zero-terminated. Of a character that max_tokens, the context or the
     * thinking_budget cut, the bytes that had come are left out. This and what the other pointers lead to is valid during the
     * call of on_event, or until runnel_next is called again. */
    const char *text;
    size_t text_len;
    enum runnel_finish_reason finish_reason; /* FINISH only */
    const runnel_error *error;               /* FINISH with RUNNEL_FINISH_ERROR only */
    const runnel_logprob *logprobs;          /* TOKEN only: the drawn token, then the likeliest ones */
    size_t n_logprobs;
    /* FINISH: the response so far, its texts not yet taken. THOUGHT and ANSWER, with wants_counts, and PROMPT: the same
     * without its texts. */
    const struct runnel_response *counts;
    uint32_t call; /* CALL, ARGUMENTS, CALL_END: which one, counted from 0 */
} runnel_event;

/* What an answer's text may have to keep to. */
enum runnel_constraint {
    RUNNEL_CONSTRAINT_NONE = 0,
    RUNNEL_CONSTRAINT_JSON = 1,   /* a JSON object */
    RUNNEL_CONSTRAINT_SCHEMA = 2, /* constraint_text: a JSON Schema, and the text is JSON that fulfils it */
    RUNNEL_CONSTRAINT_REGEX = 3,  /* ... a regular expression of the whole text, as ECMA-262 writes them */
    RUNNEL_CONSTRAINT_CHOICE = 4, /* one of choices */
    RUNNEL_CONSTRAINT_GRAMMAR =
        5, /* constraint_text: a grammar in llama.cpp's form, GBNF; its rule is root */
};

/* What is asked. Begin with runnel_request_init: zeros are no defaults. */
typedef struct runnel_request {
    size_t size;                    /* sizeof(runnel_request) */
    const runnel_message *messages; /* a conversation, put through the chat template; or */
    size_t n_messages;
    /* The last message is the assistant's, and what is answered goes on where it ends. One that begins with "<think>"
     * has its thought continued; before another one R1 gets an empty thought. */
    bool continues;
    const char *prompt;        /* the user's only message, or with raw the text the model continues; or */
    size_t prompt_len;         /* bytes, for a prompt that may hold zeros; 0: up to its zero */
    const int32_t *prompt_ids; /* token ids that the model continues */
    size_t n_prompt_ids;
    /* With prompt only: no template; control tokens in it are read as such. Where the model wants it (adds_bos) and the
     * prompt does not begin so, bos_token comes before it. */
    bool raw;
    bool no_thinking; /* do not open R1's <think> */
    /* After so many tokens of thoughts that are still open, the engine writes what closes them, as if the model had
     * drawn it, and the answer follows. 0: as no_thinking, and what the model opens itself is closed at once; -1: none. */
    int thinking_budget;
    int max_tokens;                  /* of the answer, thoughts included; 0: what the context allows */
    bool ignore_eos;                 /* go on past the end token */
    const runnel_sampling *sampling; /* NULL: the model's own values */
    /* Texts that end the answer and are not part of it. They are looked for in the answer alone, not in thoughts. */
    const char *const *stop;
    size_t n_stop;
    bool wants_logits_hash; /* fill the response's logits_hash (costs about a millisecond a token) */
    int n_logprobs; /* TOKEN events with so many likeliest tokens each, 0 to RUNNEL_LOGPROBS_MAX; -1: none */
    bool wants_tokens; /* TOKEN events also without n_logprobs: the token alone, its logprob 0 */
    bool wants_counts; /* counts with each text, not only at the end */
    uint64_t key;      /* whose request this is: shares are fair between keys, and caches are apart */
    /* How a request is followed: by nothing but its end (runnel_wait), by events that are taken one by one with
     * runnel_next (wants_events), or by on_event. Both together are RUNNEL_EINVAL.
     *
     * Called on the engine's thread for each piece of text and at the end: while it runs, no request goes on, so it
     * should hand over what it got and return. Returns false to end the answer. Other requests' on_event are called by
     * the same thread, one after the other. What may be called from it is said at the top. The first call may come before
     * runnel_submit has returned. May be NULL. */
    bool (*on_event)(void *user, const runnel_event *event);
    void *user; /* for on_event, on_taken and on_ready */
    bool
        wants_events; /* events wait in the future until runnel_next takes them; they take memory till then */
    /* With wants_events: called on the engine's thread when an event waits and none did before: for loops that are woken in
     * another way than by runnel_descriptor. It should only wake somebody. May be NULL. */
    void (*on_ready)(void *user);
    /* Called on the engine's thread once the engine has put the request into its queue, before any of its events; not
     * called if it is refused then (RUNNEL_ESLOW). Of requests that were submitted together, all are taken or refused
     * before the first event of one of them. May be NULL. */
    void (*on_taken)(void *user);
    /* prompt_ids stand beside messages or prompt, as runnel_prompt_tokens made them of these: that is not done again.
     * For callers whose submitting thread has no time for long texts. */
    bool encoded;
    /* End tokens are not drawn before so many others, thoughts included; stop texts still end it. At most max_tokens, if
     * that is not 0. */
    int min_tokens;
    /* With n_logprobs: the probabilities are those with which the token was drawn, after biases, penalties, temperature
     * and filters. The likeliest tokens are then those that were left to draw from, which may be fewer than n_logprobs; with
     * temperature 0 there is one, of probability 1. */
    bool wants_sampled_probs;
    /* PROMPT events: one when the request's turn has come, with what the cache had of its prompt, and one after each step
     * that brought it further, until counts->n_computed_tokens is n_prompt_tokens; the first TOKEN and the first text come
     * after that. n_computed_tokens grows with each: what is computed again for want of pages is not told again. */
    bool wants_progress;
    /* With a thinking_budget and an answer_reserve of -1: that reserve is kept beside the budget, too. */
    bool keeps_reserve;
    bool unused[5];
    /* For runnel_prompt_tokens and runnel_prompt_text, which know no engine: the context that the prompt is to fit, tokens;
     * 0: the model's. With it they tell a text that can never fit from one that only the chat template makes too much of:
     * where a template passes its bounds, the first is RUNNEL_ECONTEXT and the other one RUNNEL_EINVAL. */
    uint32_t n_context;
    /* Tools that the model may call, a JSON list as the OpenAI API has it: [{"type": "function", "function": {"name",
     * "description", "parameters"}}]; NULL: none. Beside messages. The chat template tells the model of them, or a system
     * message where it does not; RUNNEL_EUNSUPPORTED where the template writes no calls in a form that is known here. A call is
     * what the answer's text has in that form, with the name of one of them. The model calls one if it likes (but see must_call);
     * a call's arguments are kept to the tool's parameters, a JSON Schema, from where they begin. What is said of constraints
     * below holds for them: they are compiled, and a schema that cannot be enforced is RUNNEL_EUNSUPPORTED. */
    const char *tools;
    size_t tools_len;                          /* bytes; 0: up to its zero */
    const runnel_message_tools *message_tools; /* [n_messages]; NULL: no message has calls or is a result */
    uint32_t max_calls; /* the answer ends after so many; 0: as many as the model makes */
    /* What the answer's text is to keep to; thoughts are free, and it binds from where they end. The answer ends when the text
     * is complete and nothing more may come; it may be cut before by max_tokens and stop texts. min_tokens gives way
     * to it, and so does ignore_eos. RUNNEL_EINVAL: it is none; RUNNEL_EUNSUPPORTED: something in it cannot be enforced, or
     * it is too large; both name what. An answer whose text becomes too much to follow ends with RUNNEL_FINISH_ERROR.
     * Beside tools it is JSON or a schema: the answer is such a text, or calls and nothing else. It is compiled when the request is submitted, which takes milliseconds and more, unless the same one is
     * in use, or was lately: see runnel_grammar_compile. */
    enum runnel_constraint constraint;
    const char *constraint_text;
    size_t constraint_len;      /* bytes; 0: up to its zero */
    const char *const *choices; /* [n_choices] zero-terminated */
    size_t n_choices;
    /* With tools: the answer is calls of them and nothing else, one at least, and max_calls at most; thoughts are free. A
     * constraint beside it means nothing, as there is no other text. */
    bool must_call;
    const char *must_call_name; /* the only tool that may be called; NULL: any */
    /* After so many tokens of thoughts, wherever a sentence has ended, the token that closes them is the likelier the further they are
     * beyond it; soon the engine closes them there, as with thinking_budget. Thoughts without sentences go on. -1: none. */
    int soft_thinking_budget;
    /* How many of max_tokens, or of what the context leaves of them, are not for thoughts: where no more are left, the engine closes
     * them. 0: none; -1: the engine's answer_reserve, or half of them where that is no less than all, and none beside a
     * thinking_budget that leaves an answer. What closes the thoughts, and the message, come out of their share; where max_tokens leaves no room for an answer behind the closing
     * tag alone, thoughts may have all. */
    int answer_reserve;
    /* What the engine writes, as the end of the thought, before it closes one that the model did not: UTF-8, zero-terminated; NULL:
     * nothing. No budget counts its tokens. With more than RUNNEL_THINKING_MESSAGE_MAX of them, or with "</think>", which the
     * engine writes, it is RUNNEL_EINVAL. It is left out where thoughts may have no tokens of their own (a thinking_budget of
     * 0, a reserve of nearly all), or where it would leave none to the answer. */
    const char *thinking_message;
} runnel_request;

enum { RUNNEL_THINKING_MESSAGE_MAX = 256 /* tokens */ };

/* Fills request with the defaults. */
RUNNEL_API void runnel_request_init_sized(void *request, size_t size);
static inline void runnel_request_init(runnel_request *request)
{
    runnel_request_init_sized(request, sizeof *request);
}

/* A constraint, compiled. While somebody has it, requests of the same key with the same constraint find it; so do they for a while
 * afterwards, as long as such that nobody has take little memory. */
typedef struct runnel_grammar runnel_grammar;

/* Compiles the request's constraint, or what its tools say of calls: for callers whose submitting thread has no time for that. *grammar is NULL if it has none.
 * Of the request only these are looked at, and its key. Fails as runnel_submit would. To be given back with
 * runnel_grammar_free. Any thread. */
RUNNEL_API int runnel_grammar_compile(const runnel_model *model, const runnel_request *request,
                                      runnel_grammar **grammar, runnel_error *error);
/* The same without compiling: *grammar is also NULL if it is not there. Waits for nobody: while another thread looks among the grammars,
 * it may be NULL though it is. */
RUNNEL_API int runnel_grammar_find(const runnel_model *model, const runnel_request *request,
                                   runnel_grammar **grammar, runnel_error *error);
RUNNEL_API void runnel_grammar_free(
    runnel_grammar *grammar); /* NULL is fine; also after the model was closed */
/* Frees what was compiled and nobody has: for whoever runs short of memory. NULL is fine. Any thread. */
RUNNEL_API void runnel_grammars_forget(const runnel_model *model);

/* How a text fares with a constraint: for whoever looks for what a schema refuses, or how long that takes. */
typedef struct runnel_text_check {
    size_t size;   /* sizeof(runnel_text_check), set by the caller */
    bool accepted; /* the text keeps to the constraint, and may end there */
    size_t
        n_tokens; /* of the text: as runnel_tokenize, but no space is set before it, and control tokens are none */
    size_t n_masks;  /* that were made: one before each token, up to the first that may not come */
    double *mask_us; /* [n_masks] how long each took */
} runnel_text_check;

/* The text goes through the constraint as an answer would. *check is to be freed with runnel_text_check_free, also after a failure.
 * RUNNEL_EUNSUPPORTED: the text became too much to follow, as check says how far it came. The model must be open. Any thread. */
RUNNEL_API int runnel_grammar_check(const runnel_grammar *grammar, const char *text, size_t len,
                                    runnel_text_check *check, runnel_error *error);
/* Frees what is in it, not itself. NULL is fine. */
RUNNEL_API void runnel_text_check_free(runnel_text_check *check);

typedef struct runnel_response {
    size_t size;                    /* sizeof(runnel_response), set by the caller */
    char *text;                     /* the answer; never NULL, zero-terminated */
    char *reasoning;                /* the thoughts; "" where there were none */
    size_t text_len, reasoning_len; /* bytes: a model can write a zero, too */
    enum runnel_finish_reason finish_reason;
    int stop_index; /* which stop text ended the answer; -1: none of them */
    int slot;       /* where it was computed, see runnel_slots; -1: nowhere yet */
    uint32_t n_prompt_tokens, n_cached_tokens;
    /* Of the answer, drawn or written to close a thought, with the end token and those of a stop text: as many as there
     * are TOKEN events. */
    uint32_t n_tokens;
    uint32_t n_reasoning_tokens; /* of n_tokens; what the engine wrote to close the thoughts is not counted */
    double queue_ms;             /* waiting for a place */
    double predicted_wait_ms;   /* what was expected of that on arrival; for RUNNEL_ESLOW when to come back */
    double prefill_ms;          /* from there to the first token; with PROMPT: until now */
    double decode_ms;           /* from the first token to the last */
    double thinking_ms;         /* of these: from the first token to the last one of the thoughts */
    double stall_ms;            /* of decode_ms: each step's share of rows that were others' prompts */
    uint32_t n_preempted;       /* how often pages ran out and it had to be computed again */
    uint64_t logits_hash;       /* FNV-1a over the bytes of every logits vector that a token was drawn from;
                                     0 unless wants_logits_hash */
    bool thought_closed;        /* there were thoughts, and they had ended when the answer did */
    uint32_t n_computed_tokens; /* of the prompt: computed, by whichever request, or found in the cache */
    uint32_t n_calls;
    runnel_call *calls; /* [n_calls] NULL: none */
    enum runnel_thought_end thought_end;
    uint32_t n_draft_tokens;   /* guesses that were computed, see no_drafts; */
    uint32_t n_draft_accepted; /* of these, those that came true: tokens of the answer */
} runnel_response;

/* A request on its way. To be given back with runnel_free, also after runnel_wait and after the engine has stopped. */
typedef struct runnel_future runnel_future;

/* Hands n requests to the engine, all or none, and gives a future for each; none of them (n 0) is done at once. Checks,
 * renders and encodes them on the calling thread; what they point to is copied. RUNNEL_EBUSY if n_requests are running or waiting (one that was
 * cancelled or freed counts until the next step), RUNNEL_ECANCELLED while runnel_engine_stop ends what runs. If one of
 * several requests is at fault, the message begins with which, counted from 0: "requests[2]: ". Any thread. */
RUNNEL_API int runnel_submit(runnel_engine *engine, const runnel_request *requests, size_t n,
                             runnel_future **futures, runnel_error *error);
/* Waits for the end and fills *response, whose texts are freed with runnel_response_free. A request that failed gives its
 * error; one that was cancelled is RUNNEL_OK with the text so far and RUNNEL_FINISH_CANCELLED. The response can be had
 * once: asking again is RUNNEL_EINVAL. */
RUNNEL_API int runnel_wait(runnel_future *future, runnel_response *response, runnel_error *error);
/* True once runnel_wait would not wait, as it would not for NULL. */
RUNNEL_API bool runnel_poll(const runnel_future *future);
/* Takes the next event of a request with wants_events, waiting for it timeout_ms at most: 0 does not wait, a negative
 * one waits as long as it takes. event->size is set by the caller. event->kind is RUNNEL_EVENT_NONE if none came in time,
 * or the last one, FINISH, was taken before. RUNNEL_EINVAL without wants_events, for a pointer that is NULL or a size that was not set, and on the
 * engine's own thread if it would wait. What the event points to is valid until the next call, the texts of FINISH's counts until
 * runnel_wait gives them away (they are NULL then), all of it until runnel_free. One thread at a time.
 *
 *     runnel_event event = {.size = sizeof event};
 *     while (!runnel_next(future, &event, -1) && event.kind != RUNNEL_EVENT_FINISH)
 *         if (event.kind == RUNNEL_EVENT_ANSWER)
 *             fputs(event.text, stdout);
 */
RUNNEL_API int runnel_next(runnel_future *future, runnel_event *event, int timeout_ms);
/* A descriptor that poll, select or epoll say is readable while runnel_next would have an event; for nothing else. It is
 * made by the first call, and closed by runnel_free. Negative (RUNNEL_E...) without wants_events, or if the system has none. Any
 * thread. */
RUNNEL_API int runnel_descriptor(runnel_future *future);
/* Asks for an early end, and does not wait for it: within a step the request has given back what it held, and finishes as
 * cancelled, with the text so far. Nothing happens if it has ended. Any thread. NULL is fine. */
RUNNEL_API void runnel_cancel(runnel_future *future);
/* Asks for the end of the request's thought, and does not wait for it: with the next step the engine writes its
 * thinking_message and what closes it, and the answer follows. A thought that has not begun is closed where it begins; if there is
 * none any more, nothing happens. False: the request has ended. Any thread. */
RUNNEL_API bool runnel_end_thought(runnel_future *future);
/* Gives the future back; before its end that cancels. on_event, on_taken and on_ready are not called any more once this
 * returns: it waits for one that runs, unless it is called from there. NULL is fine. */
RUNNEL_API void runnel_free(runnel_future *future);

/* Submits one request, waits for its end, frees the future. A prefix that an earlier request of this engine computed is
 * used again. */
RUNNEL_API int runnel_respond(runnel_engine *engine, const runnel_request *request, runnel_response *response,
                              runnel_error *error);
/* Frees the texts of a response, not itself. NULL is fine. */
RUNNEL_API void runnel_response_free(runnel_response *response);

/* Runs n requests together, each with the answer it would have alone. If one fails, *error is that of the first that
 * failed, named as by runnel_submit, and no response is filled. */
RUNNEL_API int runnel_respond_many(runnel_engine *engine, const runnel_request *requests, size_t n,
                                   runnel_response *responses, runnel_error *error);

/* The short form: prompt as the user's only message, the model's other sampling values, the answer without
 * its thoughts, which max_tokens counts, too (0: what the context allows). A text
 * that ends there is RUNNEL_OK, one that runnel_engine_stop ended RUNNEL_ECANCELLED. Free *text with runnel_text_free. */
RUNNEL_API int runnel_generate(runnel_engine *engine, const char *prompt, int max_tokens, float temperature,
                               char **text, runnel_error *error);

/* The logits after the last token of text (control tokens read as such, no template). logits has room for n
 * floats; n must be the model's n_vocab. */
RUNNEL_API int runnel_get_logits(runnel_engine *engine, const char *text, float *logits, size_t n,
                                 runnel_error *error);

/* The logits after every one of n_ids tokens, computed n_chunk (0: the engine's n_batch) tokens a step from
 * an empty cache: on_logits is called for each in order, on the engine's thread while this waits, with n_vocab floats
 * that are valid during the call, and returns false to end (RUNNEL_ECANCELLED). A measuring tool: from the first token to
 * the last it and runnel_get_logits have the engine to themselves, and requests wait. runnel_engine_stop ends them between
 * two chunks (RUNNEL_ECANCELLED). */
RUNNEL_API int runnel_logits_each(runnel_engine *engine, const int32_t *ids, size_t n_ids, size_t n_chunk,
                                  bool (*on_logits)(void *user, size_t index, const float *logits),
                                  void *user, runnel_error *error);

/* What products of the model multiply: the inputs of one token. */
typedef struct runnel_inputs {
    size_t size;  /* sizeof(runnel_inputs) */
    size_t index; /* which of the tokens, counted from 0 */
    const char *const
        *matrices; /* names as in the model's file: all of them are multiplied with these inputs */
    size_t n_matrices;
    const float *values; /* before they are rounded for the product; as many as the matrices have columns */
    size_t n_values;
} runnel_inputs;

/* The inputs of all products while n_ids tokens are computed, as runnel_logits_each would: on_inputs is called on the engine's
 * thread while this waits: in each step for one matrix, or those that share their inputs, after the other, and for each of
 * them token by token. So every matrix sees the tokens in their order, and the same bits on any number of threads and with any
 * n_chunk. What inputs leads to is valid during the call. Returns false to end (RUNNEL_ECANCELLED), which takes until the end of the step.
 * No logits are computed, but the output head's inputs are told, too. A measuring tool, as runnel_logits_each is.
 * RUNNEL_EUNSUPPORTED where what computes the model does not tell them. */
RUNNEL_API int runnel_inputs_each(runnel_engine *engine, const int32_t *ids, size_t n_ids, size_t n_chunk,
                                  bool (*on_inputs)(void *user, const runnel_inputs *inputs), void *user,
                                  runnel_error *error);

enum { RUNNEL_PAGE_TOKENS = 32 /* tokens of a page of the KV cache */ };

typedef struct runnel_stats_values {
    size_t size; /* sizeof(runnel_stats_values), set by the caller */
    uint32_t n_running, n_waiting;
    uint32_t n_kv_pages, n_kv_used, n_kv_cached; /* used: held by requests; cached: kept for equal prefixes */
    uint64_t n_kv_bytes;
    uint64_t n_prefix_queries, n_prefix_hits; /* tokens */
    uint64_t n_prompt_tokens, n_generated_tokens;
    uint64_t n_steps, n_preemptions;
    double last_step_ms;                      /* monotonic time of the last step's end, milliseconds */
    uint64_t n_pool_bytes, n_pool_bytes_used; /* the requests' memory: from the system; of it in use */
    uint64_t n_pool_blocks, n_pool_allocations, n_pool_reuses, n_pool_refusals;
    uint64_t n_kv_bytes_to_touch; /* with quick_start: of n_kv_bytes, what may not be in memory yet */
    double warm_up_prompt_ms, warm_up_token_ms; /* the warm-up at the start, or what the options said of it */
    /* Of steps: answers of which more than one token was computed; guesses that were computed; those that came true. */
    uint64_t n_drafts, n_draft_tokens, n_draft_accepted;
    const char *
        device; /* the name of the device that computes layers, "" if none does; lives as long as the engine */
    uint32_t n_device_layers; /* that it computes, from the first one on */
    /* Its memory, 0: not known; and what is used of it, as of about the last step: by anybody where its driver says, else by this
     * engine. */
    uint64_t n_device_bytes, n_device_bytes_used;
    bool
        device_is_lost; /* it answers no more: every step fails from now on, until another engine is started */
    /* What is wrong with a driver that is installed, where the device is no GPU, but a driver that computes on the CPU: it may be used for want
     * of the other. Or why the device that "auto" found is not used. "": nothing; lives as long as the engine. */
    const char *device_problem;
} runnel_stats_values;

/* A picture of the engine now. Any thread; does not wait for a step. */
RUNNEL_API void runnel_stats(runnel_engine *engine, runnel_stats_values *stats);

/* How fast the engine's device reads its own memory, in GB/s: measured by copying there, between two steps, in what is free of it; takes
 * some milliseconds. 0: no device computes layers. Waits for the step that runs. */
RUNNEL_API int runnel_measure_device(runnel_engine *engine, double *gb_s, runnel_error *error);

/* One of the n_parallel places in which requests are computed. */
typedef struct runnel_slot {
    size_t size;        /* sizeof(runnel_slot), set by the caller in the first one */
    bool is_processing; /* what follows is 0 otherwise */
    uint32_t n_prompt_tokens, n_cached_tokens;
    uint32_t n_computed; /* tokens of prompt and answer that the KV cache has */
    uint32_t n_tokens;   /* drawn */
    uint32_t max_tokens;
} runnel_slot;

/* Fills n slots (more than there are stay idle) as they were at the last step's beginning. Any thread; does not wait for
 * a step. */
RUNNEL_API void runnel_slots(runnel_engine *engine, runnel_slot *slots, size_t n);

#ifdef __cplusplus
}
#endif

#endif
