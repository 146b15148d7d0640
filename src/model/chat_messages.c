/* chat_messages.c: see chat_messages.h. */
#include "model/chat_messages.h"

#include <string.h>

size_t chat_content_len(const runnel_message *message)
{
    return message->content_len ? message->content_len : strlen(message->content);
}

static int out_of_memory(runnel_error *error)
{
    return error_set(error, RUNNEL_ENOMEM, "out of memory for the prompt");
}

struct value chat_role_value(struct string role)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool", "developer"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (string_equals(role, roles[i]))
            return value_string(string_of(roles[i], role.len, true));
    return value_string(role);
}

static struct string content_of(const runnel_message *message)
{
    return string_of(message->content, chat_content_len(message), false);
}

/* Adds a message, which is to be filled in further; NULL: there is no memory. */
static struct dict *add_message(struct template_arena *arena, struct list *list, const char *role,
                                struct value content)
{
    struct value dict = value_dict(arena);
    struct string name = string_of(role, strlen(role), false);
    return dict.dict && dict_set_text(arena, dict.dict, "role", chat_role_value(name)) &&
                   dict_set_text(arena, dict.dict, "content", content) && list_add(arena, list, dict)
               ? dict.dict
               : NULL;
}

/* Adds a message with these calls. */
static int add_calling(struct template_arena *arena, struct list *list, const runnel_message *message,
                       struct value content, struct value calls, runnel_error *error)
{
    struct dict *dict = add_message(arena, list, message->role, content);
    return dict && dict_set_text(arena, dict, "tool_calls", calls) ? RUNNEL_OK : out_of_memory(error);
}

/* A message of the assistant that calls tools. */
static int add_calls(const struct chat_calls *how, struct template_arena *arena, struct list *list,
                     const runnel_message *message, const char *json, runnel_error *error)
{
    struct value calls, content = value_string(content_of(message));
    bool has_content = chat_content_len(message) > 0;
    int code = chat_tools_read_calls(arena, json, how->arguments_as_text, &calls, error);
    if (code)
        return code;
    if (has_content && how->apart && !add_message(arena, list, message->role, content))
        return out_of_memory(error);
    if (!how->empty_content && (!has_content || how->apart))
        content = value_none();
    else if (how->apart)
        content = value_string(string_made(""));
    if (!how->one_each || calls.list->n < 2)
        return add_calling(arena, list, message, content, calls, error);
    for (size_t i = 0; i < calls.list->n && !code; i++) {
        struct value call = value_list(arena, VALUE_LIST);
        if (!call.list || !list_add(arena, call.list, calls.list->items[i]))
            return out_of_memory(error);
        code = add_calling(arena, list, message, content, call, error);
        content = how->empty_content ? value_string(string_made("")) : value_none();
    }
    return code;
}

static bool set_if_given(struct template_arena *arena, struct dict *dict, const char *key, const char *text)
{
    return !text || dict_set_text(arena, dict, key, value_string(string_of(text, strlen(text), false)));
}

static int add_messages(const struct chat_calls *how, const struct chat_conversation *conversation,
                        struct template_arena *arena, struct list *list, runnel_error *error)
{
    static const runnel_message_tools nothing;
    for (size_t i = 0; i < conversation->n_messages; i++) {
        const runnel_message *message = &conversation->messages[i];
        const runnel_message_tools *tools =
            conversation->message_tools ? &conversation->message_tools[i] : &nothing;
        if (tools->calls) {
            int code = add_calls(how, arena, list, message, tools->calls, error);
            if (code)
                return code;
            continue;
        }
        struct dict *dict = add_message(arena, list, message->role, value_string(content_of(message)));
        if (!dict || !set_if_given(arena, dict, "tool_call_id", tools->call_id) ||
            !set_if_given(arena, dict, "name", tools->name))
            return out_of_memory(error);
    }
    return RUNNEL_OK;
}

/* Tells the model of tools where its template does not. */
static int describe_tools(const struct chat_calls *how, const struct chat_conversation *conversation,
                          struct template_arena *arena, struct list *list, runnel_error *error)
{
    const runnel_message *first = &conversation->messages[0];
    bool has_system = strcmp(first->role, "system") == 0;
    struct string system = has_system ? content_of(first) : string_made("");
    struct value text = value_string(
        chat_tools_describe(arena, how->form, system, conversation->tools, conversation->tools_len));
    if (has_system)
        return dict_set_text(arena, list->items[0].dict, "content", text) ? RUNNEL_OK : out_of_memory(error);
    if (!add_message(arena, list, "system", text))
        return out_of_memory(error);
    struct value message = list->items[list->n - 1]; /* to the front */
    memmove(list->items + 1, list->items, (list->n - 1) * sizeof *list->items);
    list->items[0] = message;
    return RUNNEL_OK;
}

static int add_tools(const struct chat_calls *how, const struct chat_conversation *conversation,
                     struct template_arena *arena, struct dict *inputs, struct list *messages,
                     runnel_error *error)
{
    struct value tools;
    if (!conversation->tools)
        return RUNNEL_OK;
    int code = chat_tools_read(arena, conversation->tools, conversation->tools_len, &tools, error);
    if (code)
        return code;
    if (how->form && !how->shows_tools)
        return describe_tools(how, conversation, arena, messages, error);
    return dict_set_text(arena, inputs, "tools", tools) ? RUNNEL_OK : out_of_memory(error);
}

int chat_messages_add(const struct chat_calls *how, const struct chat_conversation *conversation,
                      struct template_arena *arena, struct dict *inputs, runnel_error *error)
{
    struct value list = value_list(arena, VALUE_LIST);
    if (!list.list || !dict_set_text(arena, inputs, "messages", list))
        return out_of_memory(error);
    int code = add_messages(how, conversation, arena, list.list, error);
    return code ? code : add_tools(how, conversation, arena, inputs, list.list, error);
}
