/* chat_tools.h: tools, their calls and results as the values that a chat template is given.
 *
 * What a template wants of them differs: arguments as an object or as text, no content or an empty one beside calls. chat.c finds
 * it out by rendering (struct chat_calls). Any thread. */
#ifndef RUNNEL_MODEL_CHAT_TOOLS_H
#define RUNNEL_MODEL_CHAT_TOOLS_H

#include "model/template/template.h"
#include "model/tool_scan.h"

/* What a template does with tools. */
struct chat_calls {
    const struct tool_form *form; /* in which it writes calls; NULL: in none that is known */
    bool arguments_as_text;       /* else as an object */
    bool empty_content;           /* calls without text have the content "", not none */
    bool apart;                   /* text beside calls would be lost, or they: two messages */
    bool one_each;    /* several calls of a message would be refused or lost: a message for each */
    bool shows_tools; /* false: the model is told of them in a system message */
};

struct chat_conversation {
    const runnel_message *messages;
    size_t n_messages;
    const runnel_message_tools *message_tools; /* [n_messages]; NULL: no message has calls or results */
    const char *tools;                         /* JSON; NULL: none */
    size_t tools_len;
};

/* Whether anything in it is about tools. */
bool chat_tools_are_used(const struct chat_conversation *conversation);

/* The list of tools as values. RUNNEL_EINVAL: it is no list of them; RUNNEL_ENOMEM, also where the arena is at its limit,
 * which says so. */
int chat_tools_read(struct template_arena *arena, const char *json, size_t len, struct value *tools,
                    runnel_error *error);
/* Their names, to be freed with tool_names_free. */
int chat_tools_read_names(const char *json, size_t len, struct tool_names *names, runnel_error *error);

/* The calls of a message as values. The same failures. */
int chat_tools_read_calls(struct template_arena *arena, const char *json, bool arguments_as_text,
                          struct value *calls, runnel_error *error);

/* What a system message says of tools that the template does not show, after its own text. */
struct string chat_tools_describe(struct template_arena *arena, const struct tool_form *form,
                                  struct string system, const char *tools, size_t tools_len);

/* The form that calls have in a text in which `xyzzy` is called with {"plugh": "q"}; NULL: none that is known. */
const struct tool_form *chat_tools_find_form(const char *text, size_t len);

#endif
