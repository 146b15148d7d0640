/* conversation.h: the messages of a chat: perhaps a system prompt, then questions and answers in turns; and their file.
 *
 * The file has the messages as the OpenAI API has them, so that it can be sent to any server, or read by another
 * program: {"messages": [{"role": "user", "content": "..."}, ...]}. A struct conversation starts zeroed and owns its
 * texts. One thread. */
#ifndef RUNNEL_CLI_CONVERSATION_H
#define RUNNEL_CLI_CONVERSATION_H

#include "runnel.h"

struct conversation {
    runnel_message *messages; /* each content is its own block, zero-terminated */
    size_t n, cap;
    bool has_system; /* messages[0] is the system prompt */
};

/* False: there is no memory, nothing has changed. system NULL: none. */
bool conversation_set_system(struct conversation *conversation, const char *system);
bool conversation_add(struct conversation *conversation, const char *role, const char *content, size_t len);

/* Questions, answered or not. */
size_t conversation_turns(const struct conversation *conversation);
/* NULL: the last turn has no answer, or there is none. */
const runnel_message *conversation_last_answer(const struct conversation *conversation);
/* Whether its last question has no answer. */
bool conversation_is_open(const struct conversation *conversation);
/* NULL: there is none. */
const runnel_message *conversation_last_question(const struct conversation *conversation);

/* Drops the last message. */
void conversation_drop_last(struct conversation *conversation);
/* Drops so many of the first turns; the system prompt stays. */
void conversation_drop_oldest(struct conversation *conversation, size_t n_turns);
/* Drops all turns. */
void conversation_clear(struct conversation *conversation);
void conversation_free(struct conversation *conversation); /* zeroes it */

/* Writes a file that only its owner can read. A file that is there is replaced if it holds a conversation, and refused if
 * it holds something else. */
int conversation_save(const struct conversation *conversation, const char *path, runnel_error *error);
/* Reads a file into *conversation, in place of what it had; a bare list of messages will do. Untouched on failure. */
int conversation_load(struct conversation *conversation, const char *path, runnel_error *error);

#endif
