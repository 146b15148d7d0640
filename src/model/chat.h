/* chat.h: chat templates that are recognised, never run, and what they make of a conversation.
 *
 * A template in a model file is a Jinja program; here it is data that is compared with known families. Rendering gives
 * what that file's own Jinja would give, character for character, and says which parts of the text are the template's
 * own, so that a user's text never becomes a control token. Owns nothing but what it hands out; any thread. */
#ifndef RUNNEL_MODEL_CHAT_H
#define RUNNEL_MODEL_CHAT_H

#include "model/tokenizer.h"

enum chat_family { CHAT_NONE, CHAT_R1, CHAT_CHATML };

struct chat_template {
    enum chat_family family;
    const char *name;         /* "r1", "chatml"; "" for CHAT_NONE */
    char default_system[512]; /* ChatML: the system text the template adds when there is none; "" for none */
    bool opens_think;         /* R1: the template itself already ends in <think>\n */
};

/* Recognises the text of a file's tokenizer.chat_template. An unknown one: RUNNEL_EUNSUPPORTED, with a message that
 * names the known families and how to choose one. */
int chat_recognise(const char *jinja, size_t len, struct chat_template *template, runnel_error *error);
/* By name ("r1", "chatml"), for a user's choice. */
int chat_by_name(const char *name, struct chat_template *template, runnel_error *error);
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
    CHAT_ANSWERING, /* without thinking: R1's answer starts with an empty thought ("<think>\n\n</think>\n\n") */
    CHAT_THINKING, /* R1 gets "<think>\n" unless the template opens it itself */
    /* With the last message, which is the assistant's: it is not ended. R1 gets an empty thought before it unless it
     * begins with "<think>" itself. */
    CHAT_CONTINUING,
};

/* Renders messages, then the opening of the assistant's answer. */
int chat_render(const struct chat_template *template, const runnel_message *messages, size_t n_messages,
                enum chat_opening opening, struct chat_prompt *prompt, runnel_error *error);
/* An answer that is continued begins with a thought, and has not ended it. */
bool chat_continues_thought(const runnel_message *message);
/* Of its content in bytes. */
size_t chat_content_len(const runnel_message *message);
void chat_prompt_free(struct chat_prompt *prompt);

/* What closes a thought in R1's answers: "\n</think>\n\n". */
extern const char chat_thought_end[];

#endif
