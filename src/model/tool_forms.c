/* tool_forms.c: the table of forms. See tool_forms.h. */
#include "model/tool_forms.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* clang-format off */
#define TEXT(...) {.kind = TOOL_TEXT, .texts = {__VA_ARGS__}}
#define OPEN(pair_, ...) {.kind = TOOL_OPEN, .pair = pair_, .texts = {__VA_ARGS__}}
#define CLOSE(pair_, ...) {.kind = TOOL_CLOSE, .pair = pair_, .texts = {__VA_ARGS__}}
#define SPACE {.kind = TOOL_SPACE}

/* ..., "name": NAME, "arguments": {...} and the end of the object. */
#define MEMBERS \
    TEXT("\"name\""), SPACE, TEXT(":"), SPACE, TEXT("\""), {.kind = TOOL_NAME}, TEXT("\""), SPACE, TEXT(","), SPACE, \
    TEXT("\"arguments\"", "\"parameters\""), SPACE, TEXT(":"), SPACE, {.kind = TOOL_OBJECT}, SPACE, {.kind = TOOL_REST}, SPACE

/* <tool_call>{"name": "f", "arguments": {...}}</tool_call>. Small models forget the tag, take another one, or put all into a
 * code block. The template of Qwen2.5-Coder shows the object in two pairs of braces, and so its models write it at times. */
static const struct tool_step hermes[] = {
    {.kind = TOOL_OPEN, .pair = 0, .texts = {"```json\n", "```xml\n", "```\n"}, .at_line = true}, SPACE,
    OPEN(1, "<tool_call>", "<function_call>", "<tools>", "<tool>", "<response>", "<json>", "<xml>"), SPACE,
    {.kind = TOOL_TEXT, .texts = {"{"}, .at_line = true},
    OPEN(2, "{"), SPACE, MEMBERS, CLOSE(2, "}"), SPACE,
    CLOSE(1, "</tool_call>", "</function_call>", "</tools>", "</tool>", "</response>", "</json>", "</xml>"), SPACE,
    CLOSE(0, "```", "```", "```"),
};

/* {"name": "f", "parameters": {...}}, perhaps after a control token; several have ";" between them. */
static const struct tool_step llama3[] = {
    OPEN(0, "<|python_tag|>"), SPACE,
    {.kind = TOOL_TEXT, .texts = {"{"}, .at_line = true}, SPACE,
    OPEN(1, "\"type\": \"function\",", "\"type\":\"function\","), SPACE,
    MEMBERS, {.kind = TOOL_CLOSE, .pair = 2, .texts = {";"}, .always = true},
};

static const struct tool_step r1[] = {
    OPEN(0, "<｜tool▁calls▁begin｜>"), SPACE,
    {.kind = TOOL_OPEN, .pair = 1, .texts = {"<｜tool▁call▁begin｜>"}, .always = true},
    TEXT("function"), TEXT("<｜tool▁sep｜>"), {.kind = TOOL_NAME}, TEXT("\n"), SPACE,
    OPEN(2, "```json"), SPACE, {.kind = TOOL_OBJECT}, SPACE, CLOSE(2, "```"), SPACE,
    CLOSE(1, "<｜tool▁call▁end｜>"), SPACE,
    {.kind = TOOL_CLOSE, .pair = 0, .texts = {"<｜tool▁calls▁end｜>"}, .always = true},
};

static const struct tool_form forms[] = {
    {.name = "r1", .steps = r1, .n_steps = COUNT(r1), .sign = "<｜tool▁call▁begin｜>",
     .example = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```"
                "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     .begin = "<｜tool▁calls▁begin｜>", .end = "<｜tool▁calls▁end｜>", .between = "\n", .tag = 1},
    {.name = "hermes", .steps = hermes, .n_steps = COUNT(hermes), .sign = "<tool_call>",
     .example = "<tool_call>\n{\"name\": \"NAME\", \"arguments\": ARGUMENTS}\n</tool_call>", .begin = "", .end = "", .between = "\n", .tag = 1},
    {.name = "llama3", .steps = llama3, .n_steps = COUNT(llama3), .sign = "\"xyzzy\", \"parameters\"",
     .example = "{\"name\": \"NAME\", \"parameters\": ARGUMENTS}", .begin = "", .end = "", .between = "; ", .tag = 0},
};
/* clang-format on */

const struct tool_form *tool_forms(size_t *n)
{
    *n = COUNT(forms);
    return forms;
}

bool tool_form_has_token(const struct tool_form *form, const char *name, size_t len)
{
    for (size_t i = 0; i < form->n_steps; i++)
        for (size_t t = 0; t < TOOL_CHOICES && form->steps[i].texts[t]; t++) {
            const char *text = form->steps[i].texts[t];
            if (strlen(text) == len && memcmp(text, name, len) == 0)
                return true;
        }
    return false;
}
