/* fuzz_chat.c: recognises arbitrary template texts and renders arbitrary conversations.
 *
 * Input: a line that is split at commas into messages ("u", "a", "s" and the content); the rest is a
 * template. */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The prompt's spans ascend, lie in the text, and what is outside of them comes from the messages. */
static void check_prompt(const struct chat_prompt *prompt)
{
    size_t done = 0;
    if (strlen(prompt->text) != prompt->len)
        abort();
    for (size_t i = 0; i < prompt->n_control; i++) {
        if (prompt->control[i].begin < done || prompt->control[i].end <= prompt->control[i].begin)
            abort();
        done = prompt->control[i].end;
    }
    if (done > prompt->len || !prompt->n_control)
        abort();
}

static void render(const struct chat_template *template, const runnel_message *messages, size_t n)
{
    for (int opening = CHAT_ANSWERING; opening <= CHAT_CONTINUING; opening++) {
        struct chat_prompt prompt;
        runnel_error error;
        int code = chat_render(template, messages, n, (enum chat_opening)opening, &prompt, &error);
        if (code && (code != RUNNEL_EINVAL || !strstr(error.message, "messages")))
            abort();
        if (code)
            continue;
        check_prompt(&prompt);
        chat_prompt_free(&prompt);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *input = malloc(size + 1);
    runnel_message messages[64];
    struct chat_template template;
    size_t n = 0;
    if (!input)
        return 0;
    memcpy(input, data, size);
    input[size] = '\0';
    char *line_end = memchr(input, '\n', size), *save = NULL;
    char *jinja = line_end ? line_end + 1 : input + size;
    size_t jinja_len = size - (size_t)(jinja - input);
    if (line_end)
        *line_end = '\0';
    for (char *part = strtok_r(input, ",", &save); part && n < 64; part = strtok_r(NULL, ",", &save)) {
        messages[n].content_len = 0;
        messages[n].role = part[0] == 'u'   ? "user"
                           : part[0] == 'a' ? "assistant"
                           : part[0] == 's' ? "system"
                                            : part;
        messages[n++].content = part + 1;
    }
    if (chat_recognise(jinja, jinja_len, &template, NULL) == RUNNEL_OK)
        render(&template, messages, n);
    chat_by_name("r1", &template, NULL);
    render(&template, messages, n);
    chat_by_name("chatml", &template, NULL);
    render(&template, messages, n);
    free(input);
    return 0;
}
