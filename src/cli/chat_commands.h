/* chat_commands.h: what is typed in a chat instead of a question: /help, /set, /save and so on. One thread. */
#ifndef RUNNEL_CLI_CHAT_COMMANDS_H
#define RUNNEL_CLI_CHAT_COMMANDS_H

#include "cli/conversation.h"
#include "cli/run.h"

struct chat {
    const runnel_model *model;
    runnel_engine *engine;
    uint32_t n_context;
    struct run_settings settings; /* /set changes them */
    struct conversation conversation;
    /* The last question, if it was refused, for lack of room above all, or dropped; it is not in the conversation. /retry
     * asks it. NULL: none. Owned. */
    char *unasked;
    bool
        retry_refused; /* the last turn's question found no room when /retry asked it again: /drop does so, too */
    bool retries;      /* the question that is asked now was taken out of the conversation by /retry, */
    char *replaced; /* and this was its answer; NULL: it had none. Owned */
};

enum chat_typed { CHAT_QUESTION, CHAT_NOTHING, CHAT_END };

/* Takes a typed text. CHAT_QUESTION: *question is to be asked, and the caller's to free. */
enum chat_typed chat_take(struct chat *chat, const char *text, char **question);

/* What /retry took out of the conversation comes back, as there is no other answer. */
void chat_put_back(struct chat *chat, const char *question);

/* For people, on stderr: breaks between words on a terminal. The text ends with a newline. */
__attribute__((format(printf, 1, 2))) void chat_say(const char *format, ...);

/* How many of the oldest turns must go so that question and an answer have room; one more than there are turns: question
 * is too long by itself. question NULL: for whatever is asked next. */
size_t chat_turns_in_the_way(const struct chat *chat, const char *question);

#endif
