/* model.h: an opened model inside the library: weights, tokenizer, template. Immutable after
 * runnel_model_open, but for n_holders; any number of threads may read it. */
#ifndef RUNNEL_ENGINE_MODEL_H
#define RUNNEL_ENGINE_MODEL_H

#include "backend/backend.h"
#include "model/chat.h"
#include "model/weights.h"

#include <stdatomic.h>

enum { MODEL_THREADS_MAX = 256 };

struct grammar_store;

struct runnel_model {
    struct weights *weights;
    struct tokenizer *tokenizer;
    const struct kernels *kernels;
    const struct backend_kind *backend; /* what computes its layers on the CPU */
    char *device; /* which device engines shall open for it, as backend/devices.h has it; NULL: none */
    uint32_t n_device_layers; /* that shall be computed there; 0: all that have room */
    bool device_approximates; /* other bits than the CPU's will do */
    struct chat_template chat;
    runnel_error chat_error;        /* why chat.template is NULL */
    runnel_sampling sampling;       /* the model's defaults */
    struct grammar_store *grammars; /* what its answers may be kept to; has a lock of its own, and changes */
    char *name, *jinja;
    char warning[512]; /* which of the file's sampling values were left out, and why */
    unsigned n_threads;
    char threads_why[128]; /* "": as many as it may use, or as it was told to */
    uint64_t file_bytes;
    double load_ms;
    atomic_uint n_holders; /* whoever opened it until runnel_model_close, and every engine on it */
};

/* For an engine on it, whose model it stays whatever its owner closes. Returns model. */
const struct runnel_model *model_hold(const struct runnel_model *model);
/* The last one to let go frees it. */
void model_let_go(const struct runnel_model *model);

struct model_chat {
    struct chat_conversation conversation;
    enum chat_opening opening;
    uint32_t n_context; /* that the prompt is to fit; 0: the model's */
};

/* Renders messages as the template has it and encodes them. Appends to tokens. RUNNEL_EUNSUPPORTED if there
 * is no known template. Where it takes more than a template may take, RUNNEL_ECONTEXT if the messages have more bytes than
 * n_context of the longest tokens, else RUNNEL_EINVAL. */
int model_encode_chat(const struct runnel_model *model, const struct model_chat *chat,
                      struct token_list *tokens, runnel_error *error);
/* The text of that; *prompt to be freed with chat_prompt_free. */
int model_render_chat(const struct runnel_model *model, const struct model_chat *chat,
                      struct chat_prompt *prompt, runnel_error *error);

/* The tokens that close a thought, as the template has them. Appends to tokens. */
int model_encode_thought_end(const struct runnel_model *model, struct token_list *tokens,
                             runnel_error *error);

/* True if the model's answers begin with thoughts between <think> and </think>. */
bool model_is_reasoning(const struct runnel_model *model);

#endif
