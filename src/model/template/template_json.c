/* template_json.c: JSON as chat templates write it (the filter tojson, which is Python's json.dumps). See template_run.h. */
#include "model/template/template_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_writer {
    struct run *run;
    struct string_builder out;
    struct string indent, item_end, key_end;
    bool indents, ascii, sorts;
};

static bool write_value(struct json_writer *writer, struct value value, unsigned level);

static void write_escape(struct json_writer *writer, uint32_t code)
{
    static const char plain[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    char text[16];
    for (size_t i = 0; i + 1 < sizeof plain; i += 2)
        if ((unsigned char)plain[i] == code) {
            snprintf(text, sizeof text, "\\%c", plain[i + 1]);
            builder_add_made(&writer->out, text);
            return;
        }
    if (code < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", code);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff));
    builder_add_made(&writer->out, text);
}

static bool write_string(struct json_writer *writer, struct string string)
{
    size_t done = 0;
    uint32_t code;
    builder_add_made(&writer->out, "\"");
    for (size_t i = 0, n; i < string.len; i += n) {
        n = text_character(string.bytes + i, string.len - i, &code);
        bool valid = code < 0xfffd0000u;
        if (code >= 32 && code != '"' && code != '\\' && !(writer->ascii && valid && code > 126))
            continue;
        builder_add(&writer->out, string_part(string, done, i));
        write_escape(writer, code);
        done = i + n;
    }
    builder_add(&writer->out, string_part(string, done, string.len));
    builder_add_made(&writer->out, "\"");
    return run_step(writer->run, string.len / 8);
}

static void new_line(struct json_writer *writer, unsigned level)
{
    if (!writer->indents)
        return;
    builder_add_made(&writer->out, "\n");
    for (unsigned i = 0; i < level; i++)
        builder_add(&writer->out, writer->indent);
}

static bool write_list(struct json_writer *writer, const struct list *list, unsigned level)
{
    builder_add_made(&writer->out, "[");
    for (size_t i = 0; i < list->n; i++) {
        if (i)
            builder_add(&writer->out, writer->item_end);
        new_line(writer, level + 1);
        if (!write_value(writer, list->items[i], level + 1))
            return false;
    }
    if (list->n)
        new_line(writer, level);
    builder_add_made(&writer->out, "]");
    return true;
}

static bool write_key(struct json_writer *writer, struct value key)
{
    char text[40];
    switch (key.kind) {
    case VALUE_STRING:
        return write_string(writer, key.string);
    case VALUE_NONE:
        return write_string(writer, string_made("null"));
    case VALUE_BOOL:
        return write_string(writer, string_made(key.boolean ? "true" : "false"));
    case VALUE_INT:
        snprintf(text, sizeof text, "%lld", (long long)key.integer);
        return write_string(writer, string_made(text));
    case VALUE_FLOAT:
        print_float(key.real, text);
        return write_string(writer, string_made(text));
    default:
        return run_fail(writer->run, "tojson: a key of a dict is %s", value_type(key));
    }
}

static int compare_keys(const void *a, const void *b)
{
    struct string left = ((const struct dict_entry *)a)->key.string,
                  right = ((const struct dict_entry *)b)->key.string;
    int order = memcmp(left.bytes, right.bytes, left.len < right.len ? left.len : right.len);
    return order ? order : left.len < right.len ? -1 : left.len > right.len;
}

/* The entries of a dict, sorted if so asked. NULL: a failure. */
static const struct dict_entry *entries_of(struct json_writer *writer, const struct dict *dict)
{
    if (!writer->sorts || dict->n < 2)
        return dict->entries;
    struct dict_entry *entries = template_arena_alloc(writer->run->arena, dict->n * sizeof *entries);
    if (!entries) {
        run_step(writer->run, 0);
        return NULL;
    }
    memcpy(entries, dict->entries, dict->n * sizeof *entries);
    for (size_t i = 0; i < dict->n; i++)
        if (entries[i].key.kind != VALUE_STRING) {
            run_fail(writer->run, "tojson: %s is a key among those to be sorted", value_type(entries[i].key));
            return NULL;
        }
    qsort(entries, dict->n, sizeof *entries, compare_keys);
    return run_step(writer->run, 8 * dict->n) ? entries : NULL;
}

static bool write_dict(struct json_writer *writer, const struct dict *dict, unsigned level)
{
    const struct dict_entry *entries = entries_of(writer, dict);
    if (dict->n && !entries)
        return false;
    builder_add_made(&writer->out, "{");
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            builder_add(&writer->out, writer->item_end);
        new_line(writer, level + 1);
        if (!write_key(writer, entries[i].key))
            return false;
        builder_add(&writer->out, writer->key_end);
        if (!write_value(writer, entries[i].value, level + 1))
            return false;
    }
    if (dict->n)
        new_line(writer, level);
    builder_add_made(&writer->out, "}");
    return true;
}

static bool write_inner(struct json_writer *writer, struct value value, unsigned level)
{
    switch (value.kind) {
    case VALUE_NONE:
        builder_add_made(&writer->out, "null");
        return true;
    case VALUE_BOOL:
        builder_add_made(&writer->out, value.boolean ? "true" : "false");
        return true;
    case VALUE_INT:
    case VALUE_FLOAT:
        return run_repr(writer->run, value, &writer->out);
    case VALUE_STRING:
        return write_string(writer, value.string);
    case VALUE_LIST:
    case VALUE_TUPLE:
        return write_list(writer, value.list, level);
    case VALUE_DICT:
        return write_dict(writer, value.dict, level);
    default:
        return run_fail(writer->run, "tojson: %s has no JSON", value_type(value));
    }
}

static bool write_value(struct json_writer *writer, struct value value, unsigned level)
{
    if (!run_enter(writer->run) || !run_step(writer->run, 1) || !write_inner(writer, value, level))
        return false;
    run_leave(writer->run);
    return true;
}

static bool read_indent(struct json_writer *writer, struct value indent)
{
    if (indent.kind == VALUE_STRING) {
        writer->indent = indent.string;
    } else if (indent.kind == VALUE_INT) {
        struct string_builder spaces = {.arena = writer->run->arena};
        if (indent.integer > 100)
            return run_fail(writer->run, "tojson: an indent of more than 100");
        for (int64_t i = 0; i < indent.integer; i++)
            builder_add_made(&spaces, " ");
        writer->indent = builder_string(&spaces);
    } else {
        return run_fail(writer->run, "tojson: indent is %s", value_type(indent));
    }
    writer->indents = true;
    writer->item_end = string_made(",");
    return true;
}

bool json_write(struct run *run, const struct call *call, struct value *out)
{
    const struct value *ascii = call->p[0], *indent = call->p[1], *separators = call->p[2],
                       *sorts = call->p[3];
    struct json_writer writer = {.run = run,
                                 .out = {.arena = run->arena},
                                 .item_end = string_made(", "),
                                 .key_end = string_made(": ")};
    writer.ascii = ascii && value_is_true(*ascii);
    writer.sorts = sorts && value_is_true(*sorts);
    if (indent && indent->kind != VALUE_NONE && !read_indent(&writer, *indent))
        return false;
    if (separators && separators->kind != VALUE_NONE) {
        struct list pair;
        if (!run_items(run, *separators, &pair))
            return false;
        if (pair.n != 2 || pair.items[0].kind != VALUE_STRING || pair.items[1].kind != VALUE_STRING)
            return run_fail(run, "tojson: separators are two strings");
        writer.item_end = pair.items[0].string;
        writer.key_end = pair.items[1].string;
    }
    if (!write_value(&writer, call->input, 0))
        return false;
    *out = value_string(builder_string(&writer.out));
    return true;
}
