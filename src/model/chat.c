/* chat.c: runs a model's chat template on conversations, and finds out whether the model thinks. See chat.h. */
#include "model/chat.h"

#include "model/template/template_text.h"

#include <stdlib.h>
#include <string.h>

static const char think_open[] = "<think>\n", think_tag[] = "<think>", think_close[] = "</think>";
const char chat_thought_end[] = "\n</think>\n\n";

/* Read line by line. */
/* clang-format off */
static const char r1_text[] =
    "{% set ns = namespace(system='', in_results=false) %}"
    "{% for message in messages %}"
        "{% if message.role == 'system' %}{% set ns.system = message.content %}{% endif %}" /* the last one holds */
    "{% endfor %}"
    "{{ '<｜begin▁of▁sentence｜>' + ns.system }}"
    "{% for message in messages %}"
        "{% if message.role == 'tool' %}"
            "{{ '\n' if ns.in_results else '<｜tool▁outputs▁begin｜>' }}{% set ns.in_results = true %}"
            "{{ '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}"
        "{% elif message.role == 'user' %}"
            "{{ '<｜tool▁outputs▁end｜>' if ns.in_results }}{% set ns.in_results = false %}"
            "{{ '<｜User｜>' + message.content }}"
        "{% elif message.role == 'assistant' %}" /* it goes on behind results */
            "{{ '<｜tool▁outputs▁end｜>' if ns.in_results else '<｜Assistant｜>' }}{% set ns.in_results = false %}"
            "{{ message.content.split('</think>')[-1] }}"
            "{% for call in message.tool_calls or [] %}"
                "{{ '<｜tool▁calls▁begin｜>' if loop.first else '\n' }}"
                "{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + call.function.name }}"
                "{{ '\n```json\n' + call.function.arguments + '\n```<｜tool▁call▁end｜>' }}"
                "{{ '<｜tool▁calls▁end｜>' if loop.last }}"
            "{% endfor %}"
            "{{ '<｜end▁of▁sentence｜>' }}"
        "{% endif %}"
    "{% endfor %}"
    "{% if ns.in_results %}{{ '<｜tool▁outputs▁end｜>' }}"
    "{% elif add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}";
/* clang-format on */
static const char chatml_text[] =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

static const struct {
    const char *name, *text;
    bool thinks;
} by_name[] = {{"r1", r1_text, true}, {"chatml", chatml_text, false}};

const char *chat_known_names(void)
{
    return "r1, chatml";
}

struct chat_tokens chat_tokens_of(const struct tokenizer *tokenizer)
{
    struct chat_tokens tokens = {{"", 0}, {"", 0}, false};
    struct token_list ids = {0};
    struct text_span all = {0, strlen(think_tag)};
    if (tokenizer_bos(tokenizer) >= 0)
        tokens.bos = tokenizer_piece(tokenizer, tokenizer_bos(tokenizer));
    if (tokenizer_eos(tokenizer) >= 0)
        tokens.eos = tokenizer_piece(tokenizer, tokenizer_eos(tokenizer));
    tokens.has_think =
        !tokenizer_encode(tokenizer, think_tag, strlen(think_tag), &all, 1, &ids, NULL) && ids.n == 1;
    free(ids.ids);
    return tokens;
}

static bool has_role(const runnel_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

/* Makes a prompt of what was rendered; takes the text over. */
static struct chat_prompt prompt_of(struct template_output *output)
{
    struct chat_prompt prompt = {output->text, output->len, output->own, output->n_own};
    *output = (struct template_output){0};
    return prompt;
}

int chat_refuse_none(runnel_error *error)
{
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        "the model has no chat template: choose one with chat_template (%s), or send the prompt raw",
        chat_known_names());
}

int chat_refuse_tools(runnel_error *error)
{
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        "tools: the model's chat template writes no calls of tools in a form that is known here");
}

static int out_of_memory(runnel_error *error)
{
    return error_set(error, RUNNEL_ENOMEM, "out of memory for the prompt");
}

/* What every template is given, as transformers do it. */
static bool set_defaults(const struct chat_template *template, struct template_arena *arena,
                         struct dict *inputs)
{
    struct string bos = string_of(template->bos, strlen(template->bos), true);
    struct string eos = string_of(template->eos, strlen(template->eos), true);
    return dict_set_text(arena, inputs, "bos_token", value_string(bos)) &&
           dict_set_text(arena, inputs, "eos_token", value_string(eos)) &&
           dict_set_text(arena, inputs, "tools", value_none()) &&
           dict_set_text(arena, inputs, "documents", value_none()) &&
           dict_set_text(arena, inputs, "add_generation_prompt", value_bool(true));
}

static int render_inputs(const struct chat_template *template, struct template_arena *arena,
                         const struct dict *inputs, const struct tm *now, struct chat_prompt *prompt,
                         runnel_error *error)
{
    struct template_output output;
    int code =
        template_render(template->template, arena, &template_default_limits, inputs, now, &output, error);
    if (!code)
        *prompt = prompt_of(&output);
    return code;
}

/* Renders a conversation and the beginning of an answer; thinking: what enable_thinking is, NULL for not given. */
static int render_messages(const struct chat_template *template, const struct chat_conversation *conversation,
                           const bool *thinking, struct chat_prompt *prompt, runnel_error *error)
{
    struct template_arena arena;
    struct tm now;
    time_t seconds = time(NULL);
    template_arena_init(&arena, template_default_limits.memory_bytes);
    struct value inputs = value_dict(&arena);
    bool made = inputs.dict && set_defaults(template, &arena, inputs.dict) &&
                (!thinking || dict_set_text(&arena, inputs.dict, "enable_thinking", value_bool(*thinking)));
    int code = made ? chat_messages_add(&template->calls, conversation, &arena, inputs.dict, error)
                    : out_of_memory(error);
    if (!code)
        code = render_inputs(template, &arena, inputs.dict, localtime_r(&seconds, &now), prompt, error);
    else if (arena.over_the_limit)
        code = error_set(error, TEMPLATE_EBOUND, "the chat template's messages take more than %zu bytes",
                         arena.limit);
    template_arena_free(&arena);
    return code;
}

/* The same of messages alone. */
static int render_plain(const struct chat_template *template, const runnel_message *messages,
                        size_t n_messages, const bool *thinking, struct chat_prompt *prompt,
                        runnel_error *error)
{
    const struct chat_conversation conversation = {.messages = messages, .n_messages = n_messages};
    return render_messages(template, &conversation, thinking, prompt, error);
}

/* Where a thought was opened at the prompt's end, with only white space after "<think>"; its length: nowhere. */
static size_t opened_thought(const struct chat_prompt *prompt)
{
    size_t end = prompt->len, len = strlen(think_tag);
    while (end && strchr(" \n\t", prompt->text[end - 1]) && prompt->text[end - 1])
        end--;
    return end >= len && memcmp(prompt->text + end - len, think_tag, len) == 0 ? end - len : prompt->len;
}

/* Appends text, the template's own or a message's. */
static int append(struct chat_prompt *prompt, const char *bytes, size_t len, bool own, runnel_error *error)
{
    char *text = realloc(prompt->text, prompt->len + len + 1);
    if (!text)
        return out_of_memory(error);
    prompt->text = text;
    memcpy(text + prompt->len, bytes, len);
    text[prompt->len + len] = '\0';
    struct text_span *last = prompt->n_control ? &prompt->control[prompt->n_control - 1] : NULL;
    if (own && len && last && last->end == prompt->len) {
        last->end += len;
    } else if (own && len) {
        struct text_span *spans = realloc(prompt->control, (prompt->n_control + 1) * sizeof *spans);
        if (!spans)
            return out_of_memory(error);
        prompt->control = spans;
        spans[prompt->n_control++] = (struct text_span){prompt->len, prompt->len + len};
    }
    prompt->len += len;
    return RUNNEL_OK;
}

static int append_own(struct chat_prompt *prompt, const char *text, runnel_error *error)
{
    return append(prompt, text, strlen(text), true, error);
}

static void cut(struct chat_prompt *prompt, size_t len)
{
    prompt->len = len;
    prompt->text[len] = '\0';
    while (prompt->n_control && prompt->control[prompt->n_control - 1].begin >= len)
        prompt->n_control--;
    if (prompt->n_control && prompt->control[prompt->n_control - 1].end > len)
        prompt->control[prompt->n_control - 1].end = len;
}

static bool begins_with_thought(const runnel_message *message)
{
    size_t len = strlen(think_tag);
    return chat_content_len(message) >= len && memcmp(message->content, think_tag, len) == 0;
}

bool chat_continues_thought(const runnel_message *message)
{
    return begins_with_thought(message) &&
           !memmem(message->content, chat_content_len(message), think_close, strlen(think_close));
}

static bool is_role(const struct chat_template *template, const runnel_message *message)
{
    return has_role(message, "system") || has_role(message, "user") || has_role(message, "assistant") ||
           (has_role(message, "tool") && template->calls.form);
}

static int check_messages(const struct chat_template *template, const struct chat_conversation *conversation,
                          enum chat_opening opening, runnel_error *error)
{
    const runnel_message *messages = conversation->messages;
    size_t n = conversation->n_messages;
    if (!n)
        return error_set(error, RUNNEL_EINVAL, "messages: at least one expected, none found");
    for (size_t i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content)
            return error_set(error, RUNNEL_EINVAL, "messages[%zu]: %s is missing", i,
                             messages[i].role ? "content" : "role");
        if (!is_role(template, &messages[i]))
            return error_set(error, RUNNEL_EINVAL,
                             "messages[%zu].role: expected system, user%s assistant%s, found \"%.80s\"", i,
                             template->calls.form ? "," : " or", template->calls.form ? " or tool" : "",
                             messages[i].role);
    }
    if (opening == CHAT_CONTINUING && !has_role(&messages[n - 1], "assistant"))
        return error_set(error, RUNNEL_EINVAL,
                         "messages[%zu].role: the last message is to be continued, assistant expected",
                         n - 1);
    if (opening == CHAT_CONTINUING && conversation->message_tools && conversation->message_tools[n - 1].calls)
        return error_set(error, RUNNEL_EINVAL,
                         "messages[%zu]: the last message is to be continued, and has calls of tools", n - 1);
    return template->template && !template->calls.form && chat_tools_are_used(conversation)
               ? chat_refuse_tools(error)
               : RUNNEL_OK;
}

/* Opens or closes the thought at the end of what the template rendered. */
static int set_thought(const struct chat_template *template, bool thinking, struct chat_prompt *prompt,
                       runnel_error *error)
{
    bool opened = opened_thought(prompt) < prompt->len;
    if (!template->thinks || (thinking && opened) || (!thinking && !opened && template->has_switch))
        return RUNNEL_OK;
    int code = opened ? RUNNEL_OK : append_own(prompt, think_open, error);
    return code || thinking ? code : append_own(prompt, chat_thought_end, error);
}

int chat_render_conversation(const struct chat_template *template, const struct chat_conversation *given,
                             enum chat_opening opening, struct chat_prompt *prompt, runnel_error *error)
{
    struct chat_prompt rendered = {0};
    struct chat_conversation conversation = *given;
    int code = check_messages(template, &conversation, opening, error);
    if (!code && !template->template)
        code = chat_refuse_none(error);
    if (code)
        return code;
    const runnel_message *begun =
        opening == CHAT_CONTINUING ? &conversation.messages[--conversation.n_messages] : NULL;
    bool has_thought = begun && template->thinks && begins_with_thought(begun);
    bool thinking = opening == CHAT_THINKING || has_thought;
    code =
        render_messages(template, &conversation, template->has_switch ? &thinking : NULL, &rendered, error);
    if (code)
        return code;
    if (has_thought)
        cut(&rendered, opened_thought(&rendered));
    else
        code = set_thought(template, thinking, &rendered, error);
    if (!code && begun)
        code = append(&rendered, begun->content, chat_content_len(begun), false, error);
    if (code) {
        chat_prompt_free(&rendered);
        return code;
    }
    *prompt = rendered;
    return RUNNEL_OK;
}

int chat_render(const struct chat_template *template, const runnel_message *messages, size_t n_messages,
                enum chat_opening opening, struct chat_prompt *prompt, runnel_error *error)
{
    const struct chat_conversation conversation = {.messages = messages, .n_messages = n_messages};
    return chat_render_conversation(template, &conversation, opening, prompt, error);
}

/* The values of `from` also under their names in `to`. */
static bool copy_entries(struct template_arena *arena, const struct dict *from, struct dict *to)
{
    for (size_t i = 0; i < from->n; i++)
        if (!dict_set(arena, to, from->entries[i].key, from->entries[i].value))
            return false;
    return true;
}

int chat_render_request(const struct chat_template *template, struct template_arena *arena,
                        const struct dict *request, const struct tm *now, struct chat_prompt *prompt,
                        runnel_error *error)
{
    static const char *const fields[] = {"messages", "tools", "documents", "add_generation_prompt"};
    const struct value *messages = dict_get_text(request, "messages"),
                       *arguments = dict_get_text(request, "chat_template_kwargs");
    if (!template->template)
        return chat_refuse_none(error);
    if (!messages || messages->kind != VALUE_LIST)
        return error_set(error, RUNNEL_EINVAL, "messages: expected a list");
    if (arguments && arguments->kind != VALUE_DICT && arguments->kind != VALUE_NONE)
        return error_set(error, RUNNEL_EINVAL, "chat_template_kwargs: expected an object");
    for (size_t i = 0; i < messages->list->n; i++) {
        const struct value message = messages->list->items[i];
        const struct value *role = message.kind == VALUE_DICT ? dict_get_text(message.dict, "role") : NULL;
        if (!role || role->kind != VALUE_STRING)
            return error_set(error, RUNNEL_EINVAL, "messages[%zu].role: expected a string", i);
        if (!dict_set_text(arena, message.dict, "role", chat_role_value(role->string)))
            return out_of_memory(error);
    }
    struct value inputs = value_dict(arena);
    bool made = inputs.dict && set_defaults(template, arena, inputs.dict);
    for (size_t i = 0; made && i < sizeof fields / sizeof *fields; i++) {
        const struct value *given = dict_get_text(request, fields[i]);
        made = !given || dict_set_text(arena, inputs.dict, fields[i], *given);
    }
    if (made && arguments && arguments->kind == VALUE_DICT)
        made = copy_entries(arena, arguments->dict, inputs.dict);
    return made ? render_inputs(template, arena, inputs.dict, now, prompt, error) : out_of_memory(error);
}

/* Whether two renderings of a question, with thinking on and off, differ. */
static int find_switch(struct chat_template *template, const runnel_message *question, runnel_error *error)
{
    static const bool on = true, off = false;
    struct chat_prompt with, without;
    int code = render_plain(template, question, 1, &on, &with, error);
    if (code)
        return code;
    code = render_plain(template, question, 1, &off, &without, error);
    if (!code) {
        template->has_switch = with.len != without.len || memcmp(with.text, without.text, with.len) != 0;
        chat_prompt_free(&without);
    }
    chat_prompt_free(&with);
    return code;
}

/* Whether thoughts of earlier answers are left out: only the templates of models that think do so. A template that refuses
 * such a conversation does not. */
static int drops_thoughts(const struct chat_template *template, bool *drops, runnel_error *error)
{
    static const runnel_message messages[] = {
        {"user", "q", 0}, {"assistant", "<think>\nXYZZY\n</think>\n\na", 0}, {"user", "r", 0}};
    struct chat_prompt prompt;
    int code = render_plain(template, messages, 3, NULL, &prompt, error);
    *drops = !code && !memmem(prompt.text, prompt.len, "XYZZY", 5);
    if (!code)
        chat_prompt_free(&prompt);
    return code == RUNNEL_ENOMEM ? code : RUNNEL_OK;
}

#define XYZZY(id, plugh)                                                                                     \
    "{\"id\":\"" id                                                                                          \
    "\",\"type\":\"function\",\"function\":{\"name\":\"xyzzy\",\"arguments\":\"{\\\"plugh\\\": "             \
    "\\\"" plugh "\\\"}\"}}"

/* Renders a conversation in which xyzzy is called, once or twice, beside `content`, and the results follow. */
static int render_calls(const struct chat_template *template, const char *content, bool twice,
                        struct chat_prompt *prompt, runnel_error *error)
{
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"xyzzy\",\"description\":\"d\",\"parameters\":{"
        "\"type\":\"object\",\"properties\":{\"plugh\":{\"type\":\"string\",\"description\":\"frotz\"}}}}}]";
    const runnel_message_tools of_messages[] = {
        {NULL, NULL, NULL},
        {twice ? "[" XYZZY("call00001", "fred") "," XYZZY("call00002", "waldo") "]"
               : "[" XYZZY("call00001", "q") "]",
         NULL, NULL},
        {NULL, "call00001", "xyzzy"},
        {NULL, "call00002", "xyzzy"}};
    const runnel_message messages[] = {
        {"user", "u", 0}, {"assistant", content, 0}, {"tool", "r", 0}, {"tool", "s", 0}};
    const struct chat_conversation conversation = {.messages = messages,
                                                   .n_messages = twice ? 4 : 3,
                                                   .message_tools = of_messages,
                                                   .tools = tools,
                                                   .tools_len = strlen(tools)};
    return render_messages(template, &conversation, NULL, prompt, error);
}

/* Whether calls and the text beside them would both be there. */
static int find_apart(struct chat_template *template, runnel_error *error)
{
    struct chat_prompt prompt;
    int code = render_calls(template, "wibble", false, &prompt, error);
    template->calls.apart = code || !memmem(prompt.text, prompt.len, "wibble", 6) ||
                            chat_tools_find_form(prompt.text, prompt.len) != template->calls.form;
    if (!code)
        chat_prompt_free(&prompt);
    return code == RUNNEL_ENOMEM ? code : RUNNEL_OK;
}

/* Whether several calls of a message arrive only where each has one of its own. */
static int find_one_each(struct chat_template *template, runnel_error *error)
{
    bool arrive = false;
    for (unsigned each = 0; each < 2 && !arrive; each++) {
        struct chat_prompt prompt;
        template->calls.one_each = each;
        int code = render_calls(template, "", true, &prompt, error);
        if (code == RUNNEL_ENOMEM)
            return code;
        if (code)
            continue;
        arrive = memmem(prompt.text, prompt.len, "fred", 4) && memmem(prompt.text, prompt.len, "waldo", 5);
        chat_prompt_free(&prompt);
    }
    template->calls.one_each &= arrive;
    return RUNNEL_OK;
}

/* In which form the template writes calls, and what it wants of messages that have some: the first way of giving them in which
 * they arrive. */
static int find_calls(struct chat_template *template, runnel_error *error)
{
    for (unsigned way = 0; way < 4 && !template->calls.form; way++) {
        struct chat_prompt prompt;
        template->calls = (struct chat_calls){.arguments_as_text = way & 1, .empty_content = way & 2};
        int code = render_calls(template, "", false, &prompt, error);
        if (code == RUNNEL_ENOMEM)
            return code;
        if (code)
            continue;
        template->calls.form = chat_tools_find_form(prompt.text, prompt.len);
        template->calls.shows_tools = memmem(prompt.text, prompt.len, "frotz", 5);
        chat_prompt_free(&prompt);
    }
    if (!template->calls.form) {
        template->calls = (struct chat_calls){0};
        return RUNNEL_OK;
    }
    int code = find_apart(template, error);
    return code ? code : find_one_each(template, error);
}

/* Finds out what a template does, from what it renders. */
static int look_at(struct chat_template *template, const struct chat_tokens *tokens, runnel_error *error)
{
    static const runnel_message question = {"user", "q", 0};
    struct chat_prompt prompt;
    bool drops = false;
    int code = render_plain(template, &question, 1, NULL, &prompt, error);
    if (code)
        return code;
    template->name = strstr(prompt.text, "<｜User｜>"
                                         "q"
                                         "<｜Assistant｜>")
                         ? "r1"
                     : strstr(prompt.text, "<|im_start|>user\nq<|im_end|>\n") ? "chatml"
                                                                              : "own";
    bool opens = opened_thought(&prompt) < prompt.len;
    chat_prompt_free(&prompt);
    code = find_switch(template, &question, error);
    if (!code)
        code = drops_thoughts(template, &drops, error);
    if (!code)
        code = find_calls(template, error);
    template->has_switch &= tokens->has_think;
    template->thinks = opens || template->has_switch || (drops && tokens->has_think);
    return code;
}

int chat_compile(const char *jinja, size_t len, const struct chat_tokens *tokens,
                 struct chat_template *template, runnel_error *error)
{
    struct chat_template compiled = {.name = ""};
    int code = template_compile(jinja, len, &compiled.template, error);
    if (code)
        return code;
    compiled.bos = strndup(tokens->bos.bytes, tokens->bos.len);
    compiled.eos = strndup(tokens->eos.bytes, tokens->eos.len);
    if (!compiled.bos || !compiled.eos) {
        chat_close(&compiled);
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    }
    *template = compiled;
    return RUNNEL_OK;
}

int chat_open(const char *jinja, size_t len, const struct chat_tokens *tokens, struct chat_template *template,
              runnel_error *error)
{
    struct chat_template opened = {.name = ""};
    runnel_error why = {0};
    int code = chat_compile(jinja, len, tokens, &opened, &why);
    if (!code)
        code = look_at(&opened, tokens, &why);
    if (!code) {
        *template = opened;
        return RUNNEL_OK;
    }
    chat_close(&opened);
    if (code == RUNNEL_ENOMEM)
        return error_set(error, code, "%s", why.message);
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "the chat template cannot be run (%.400s): choose another with chat_template (%s)",
                     why.message, chat_known_names());
}

int chat_open_by_name(const char *name, const struct chat_tokens *tokens, struct chat_template *template,
                      runnel_error *error)
{
    for (size_t i = 0; i < sizeof by_name / sizeof *by_name; i++) {
        if (strcmp(name, by_name[i].name) != 0)
            continue;
        struct chat_template opened;
        int code = chat_compile(by_name[i].text, strlen(by_name[i].text), tokens, &opened, error);
        if (code)
            return code;
        code = find_calls(&opened, error);
        if (code) {
            chat_close(&opened);
            return code;
        }
        opened.name = by_name[i].name;
        opened.thinks = by_name[i].thinks;
        *template = opened;
        return RUNNEL_OK;
    }
    return error_set(error, RUNNEL_EINVAL, "chat template \"%.64s\": known ones are %s", name,
                     chat_known_names());
}

void chat_close(struct chat_template *template)
{
    template_free(template->template);
    free(template->bos);
    free(template->eos);
    *template = (struct chat_template){.name = ""};
}

void chat_prompt_free(struct chat_prompt *prompt)
{
    free(prompt->text);
    free(prompt->control);
    *prompt = (struct chat_prompt){0};
}
