/* conversation.c: the messages of a chat in memory. */
#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

static void free_content(const runnel_message *message)
{
    free((char *)(uintptr_t)message->content);
}

static char *copy_content(const char *content, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, content, len);
        copy[len] = 0;
    }
    return copy;
}

static bool make_room(struct conversation *conversation)
{
    if (conversation->n < conversation->cap)
        return true;
    size_t cap = conversation->cap * 2 + 16;
    runnel_message *grown = realloc(conversation->messages, cap * sizeof *grown);
    if (!grown)
        return false;
    conversation->messages = grown;
    conversation->cap = cap;
    return true;
}

bool conversation_add(struct conversation *conversation, const char *role, const char *content, size_t len)
{
    char *copy = make_room(conversation) ? copy_content(content, len) : NULL;
    if (!copy)
        return false;
    conversation->messages[conversation->n++] =
        (runnel_message){.role = role, .content = copy, .content_len = len};
    return true;
}

bool conversation_set_system(struct conversation *conversation, const char *system)
{
    char *copy = NULL;
    if (system && (!make_room(conversation) || !(copy = copy_content(system, strlen(system)))))
        return false;
    runnel_message *messages = conversation->messages;
    if (conversation->has_system) {
        free_content(&messages[0]);
        memmove(messages, messages + 1, --conversation->n * sizeof *messages);
    }
    conversation->has_system = system;
    if (system) {
        memmove(messages + 1, messages, conversation->n++ * sizeof *messages);
        messages[0] = (runnel_message){.role = "system", .content = copy, .content_len = strlen(copy)};
    }
    return true;
}

size_t conversation_turns(const struct conversation *conversation)
{
    return (conversation->n - conversation->has_system + 1) / 2;
}

static const runnel_message *last_of(const struct conversation *conversation, size_t n_behind)
{
    if (conversation->n < conversation->has_system + n_behind + 1)
        return NULL;
    return &conversation->messages[conversation->n - 1 - n_behind];
}

const runnel_message *conversation_last_answer(const struct conversation *conversation)
{
    const runnel_message *last = last_of(conversation, 0);
    return last && !strcmp(last->role, "assistant") ? last : NULL;
}

const runnel_message *conversation_last_question(const struct conversation *conversation)
{
    return last_of(conversation, conversation_last_answer(conversation) ? 1 : 0);
}

bool conversation_is_open(const struct conversation *conversation)
{
    return conversation_last_question(conversation) && !conversation_last_answer(conversation);
}

void conversation_drop_last(struct conversation *conversation)
{
    if (conversation->n > conversation->has_system)
        free_content(&conversation->messages[--conversation->n]);
}

void conversation_drop_oldest(struct conversation *conversation, size_t n_turns)
{
    size_t first = conversation->has_system, n = 2 * n_turns;
    if (n > conversation->n - first)
        n = conversation->n - first;
    for (size_t i = 0; i < n; i++)
        free_content(&conversation->messages[first + i]);
    conversation->n -= n;
    memmove(conversation->messages + first, conversation->messages + first + n,
            (conversation->n - first) * sizeof *conversation->messages);
}

void conversation_clear(struct conversation *conversation)
{
    while (conversation->n > conversation->has_system)
        conversation_drop_last(conversation);
}

void conversation_free(struct conversation *conversation)
{
    for (size_t i = 0; i < conversation->n; i++)
        free_content(&conversation->messages[i]);
    free(conversation->messages);
    *conversation = (struct conversation){0};
}
