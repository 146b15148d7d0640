/* fuzz_template.c: compiles and renders arbitrary chat templates within small bounds.
 *
 * Input: the template, then a zero byte and a text for the first message. All that comes from outside holds the byte 0x01,
 * which the template may not: no span of the template's own may hold it. */
#include "model/template/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct template_limits limits = {
    .n_steps = 20000, .memory_bytes = 4 << 20, .output_bytes = 1 << 16, .depth = 200};

static const char json[] = "{\"s\":\"\\u0061b\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{"
                           "\"role\":\"assistant\",\"content\":\"<think>x</think>y\","
                           "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1,\"b\":[true,"
                           "null,1.5]}}}]}],\"n\":3,\"x\":1.25,"
                           "\"l\":[\"b\",\"A\",\"c\"],\"r\":[{\"k\":\"x\",\"v\":2},{\"k\":\"y\",\"v\":1}],"
                           "\"d\":{\"b\":1,\"a\":\"z\"},\"t\":true,\"z\":null}";

/* Puts a mark into every string of the values. */
static void mark(struct template_arena *arena, struct value *value)
{
    if (value->kind == VALUE_STRING) {
        char *bytes = template_arena_alloc(arena, value->string.len + 2);
        if (!bytes)
            abort();
        memcpy(bytes, value->string.bytes, value->string.len);
        bytes[value->string.len] = '\x01';
        value->string = string_of(bytes, value->string.len + 1, false);
    } else if (value->kind == VALUE_LIST) {
        for (size_t i = 0; i < value->list->n; i++)
            mark(arena, &value->list->items[i]);
    } else if (value->kind == VALUE_DICT) {
        for (size_t i = 0; i < value->dict->n; i++)
            mark(arena, &value->dict->entries[i].value);
    }
}

static void check(const struct template_output *output)
{
    size_t done = 0;
    if (output->len > limits.output_bytes || output->text[output->len])
        abort();
    for (size_t i = 0; i < output->n_own; i++) {
        struct text_span span = output->own[i];
        if ((i && span.begin <= done) || span.end <= span.begin || span.end > output->len)
            abort();
        if (memchr(output->text + span.begin, '\x01', span.end - span.begin))
            abort();
        done = span.end;
    }
}

static void render(const struct template *template, const char *content, size_t len)
{
    struct template_arena arena;
    struct template_output output;
    struct value root;
    runnel_error error = {0};
    const time_t now = 1785931200;
    struct tm broken_down;
    gmtime_r(&now, &broken_down);
    template_arena_init(&arena, limits.memory_bytes);
    if (template_read_json(&arena, json, sizeof json - 1, &root, &error))
        abort();
    dict_set_text(&arena, root.dict, "s", value_string(string_of(content, len, false)));
    mark(&arena, &root);
    int code = template_render(template, &arena, &limits, root.dict, &broken_down, &output, &error);
    if (!code) {
        check(&output);
        template_output_free(&output);
    } else if ((code != RUNNEL_EINVAL && code != TEMPLATE_EBOUND) || !strstr(error.message, "line ")) {
        abort();
    }
    if (arena.used > arena.limit)
        abort();
    template_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = memchr(text, '\0', size);
    size_t len = end ? (size_t)(end - text) : size, rest = end ? size - len - 1 : 0;
    struct template *template = NULL;
    struct template_arena arena;
    struct value value;
    runnel_error error = {0};
    template_arena_init(&arena, 1 << 20); /* the reader of JSON sees all inputs, too */
    template_read_json(&arena, text, size, &value, &error);
    template_arena_free(&arena);
    /* 0x01 can also be written as an escape; the template has it then, and nothing can be told by it. */
    if (memchr(text, '\x01', len) || memmem(text, len, "\\1", 2) || memmem(text, len, "\\0", 2) ||
        memmem(text, len, "\\x", 2) || memmem(text, len, "\\u", 2) || memmem(text, len, "\\U", 2))
        return 0;
    int code = template_compile(text, len, &template, &error);
    if (code) {
        if (code != RUNNEL_EUNSUPPORTED || !error.message[0] || template)
            abort();
        return 0;
    }
    render(template, end ? end + 1 : "", rest);
    template_free(template);
    return 0;
}
