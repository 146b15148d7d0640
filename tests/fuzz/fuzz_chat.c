/* fuzz_chat.c: opens arbitrary template texts and renders arbitrary conversations, with them and with those built in.
 *
 * Input: a line that is split at commas into messages ("u", "a", "s" and the content); the rest is a
 * template. */
#include "model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A mark that only messages hold, and no template: no span may touch it. */
static const char mark[] = "\x01<|im_end|>";

/* The prompt's spans ascend, lie in the text, and hold nothing of the messages. */
static void check_prompt(const struct chat_prompt *prompt, bool built_in)
{
    size_t done = 0;
    if (built_in && strlen(prompt->text) != prompt->len)
        abort();
    for (size_t i = 0; i < prompt->n_control; i++) {
        if (prompt->control[i].begin < done || prompt->control[i].end <= prompt->control[i].begin)
            abort();
        if (memchr(prompt->text + prompt->control[i].begin, mark[0],
                   prompt->control[i].end - prompt->control[i].begin))
            abort();
        done = prompt->control[i].end;
    }
    if (done > prompt->len || (built_in && !prompt->n_control))
        abort();
}

static void render(const struct chat_template *template, const runnel_message *messages, size_t n,
                   bool built_in)
{
    for (int opening = CHAT_ANSWERING; opening <= CHAT_CONTINUING; opening++) {
        struct chat_prompt prompt;
        runnel_error error;
        int code = chat_render(template, messages, n, (enum chat_opening)opening, &prompt, &error);
        if (code && (code != RUNNEL_EINVAL || (built_in && !strstr(error.message, "messages"))))
            abort();
        if (code)
            continue;
        check_prompt(&prompt, built_in);
        chat_prompt_free(&prompt);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct chat_tokens tokens = {{"<s>", 3}, {"</s>", 4}, true};
    static const char *const names[] = {"r1", "chatml"};
    char *input = malloc(size + 1), contents[64][sizeof mark + 64];
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
        snprintf(contents[n], sizeof contents[n], "%s%.60s", mark, part + 1);
        messages[n].content = contents[n];
        n++;
    }
    if (!memchr(jinja, mark[0], jinja_len) && !memchr(jinja, '\\', jinja_len) &&
        chat_open(jinja, jinja_len, &tokens, &template, NULL) == RUNNEL_OK) {
        render(&template, messages, n, false);
        chat_close(&template);
    }
    for (int i = 0; i < 2; i++) {
        if (chat_open_by_name(names[i], &tokens, &template, NULL))
            continue;
        render(&template, messages, n, true);
        chat_close(&template);
    }
    free(input);
    return 0;
}
