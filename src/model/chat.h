/* chat.h: a model's chat template, and what it makes of a conversation.
 *
 * The template of a model file is a program (see template.h); it is compiled once and run for each conversation. What it
 * renders says which parts of the text are the template's own, so that a user's text never becomes a control token.
 * Whether the model thinks before it answers, and how it calls tools, is found by rendering small conversations. Immutable once
 * opened; any thread. */
#ifndef RUNNEL_MODEL_CHAT_H
#define RUNNEL_MODEL_CHAT_H

#include "model/chat_messages.h"
#include "model/tokenizer.h"

struct chat_template {
    struct template *template; /* owned; NULL: there is none */
    const char *name; /* "r1", "chatml": what it renders looks like that; "own": like neither; "": none */
    char *bos, *eos;  /* owned: the texts of the tokens that begin and end a text, "" for none */
    bool thinks;      /* answers begin with a thought */
    bool has_switch;  /* enable_thinking makes a difference */
    struct chat_calls calls;
};

/* The model's tokens that templates speak of. */
struct chat_tokens {
    struct gguf_string bos, eos;
    bool has_think; /* <think> is a token */
};

struct chat_tokens chat_tokens_of(const struct tokenizer *tokenizer);

/* Compiles the text of a file's tokenizer.chat_template. RUNNEL_EUNSUPPORTED: it is not in the language, or renders no
 * conversation at all; the message says where, and how to choose another. */
int chat_open(const char *jinja, size_t len, const struct chat_tokens *tokens, struct chat_template *template,
              runnel_error *error);
/* The same without rendering anything: whether the model thinks is not found out. */
int chat_compile(const char *jinja, size_t len, const struct chat_tokens *tokens,
                 struct chat_template *template, runnel_error *error);
/* By name ("r1", "chatml"), for a user's choice. */
int chat_open_by_name(const char *name, const struct chat_tokens *tokens, struct chat_template *template,
                      runnel_error *error);
void chat_close(struct chat_template *template);
/* Fills error: the template has no calls of a known form. */
int chat_refuse_tools(runnel_error *error);
/* Fills error: there is no template, and how to choose one. */
int chat_refuse_none(runnel_error *error);
/* "r1, chatml": for messages. */
const char *chat_known_names(void);

struct chat_prompt {
    char *text; /* zero-terminated; free with chat_prompt_free */
    size_t len;
    struct text_span *control; /* the template's own parts, ascending */
    size_t n_control;
};

/* How the assistant's answer begins. */
enum chat_opening {
    CHAT_ANSWERING, /* without thinking: with a switch as the template has it, else with an empty thought
                       ("<think>\n\n</think>\n\n") */
    CHAT_THINKING,  /* a model that thinks gets "<think>\n" unless the template opens it itself */
    /* With the last message, which is the assistant's: it is not ended. What comes before is as for CHAT_ANSWERING, unless
     * it begins with "<think>" itself. */
    CHAT_CONTINUING,
};

/* Renders a conversation, then the opening of the assistant's answer. TEMPLATE_EBOUND: it takes too much of the template.
 * RUNNEL_EUNSUPPORTED: it has tools, and the template no calls of a known form. */
int chat_render_conversation(const struct chat_template *template,
                             const struct chat_conversation *conversation, enum chat_opening opening,
                             struct chat_prompt *prompt, runnel_error *error);
/* The same of messages alone. */
int chat_render(const struct chat_template *template, const runnel_message *messages, size_t n_messages,
                enum chat_opening opening, struct chat_prompt *prompt, runnel_error *error);
/* Renders what a chat request holds: a dict with messages, and perhaps tools, documents, add_generation_prompt and
 * chat_template_kwargs. Nothing is added. The dict is of the arena. */
int chat_render_request(const struct chat_template *template, struct template_arena *arena,
                        const struct dict *request, const struct tm *now, struct chat_prompt *prompt,
                        runnel_error *error);
/* An answer that is continued begins with a thought, and has not ended it. */
bool chat_continues_thought(const runnel_message *message);
void chat_prompt_free(struct chat_prompt *prompt);

/* What closes a thought: "\n</think>\n\n". */
extern const char chat_thought_end[];

#endif
