/* chat_messages.h: a conversation as the values that a chat template is given. Any thread. */
#ifndef RUNNEL_MODEL_CHAT_MESSAGES_H
#define RUNNEL_MODEL_CHAT_MESSAGES_H

#include "model/chat_tools.h"

/* Of a message's content in bytes. */
size_t chat_content_len(const runnel_message *message);

/* The roles are words of this program, whoever wrote them: a template may make a control token with them. */
struct value chat_role_value(struct string role);

/* Adds "messages" and "tools" to the inputs of a template. A model whose template does not show tools is told of them in a
 * system message. RUNNEL_EINVAL: the JSON of tools or calls; RUNNEL_ENOMEM, also where the arena is at its limit. */
int chat_messages_add(const struct chat_calls *how, const struct chat_conversation *conversation,
                      struct template_arena *arena, struct dict *inputs, runnel_error *error);

#endif
