/* template_functions.c: the functions that every chat template can call. See template_run.h. */
#include "model/template/template_library.h"
#include "model/template/template_run.h"

#include <stdio.h>
#include <string.h>

enum { RANGE_MAX = 100000 };

/* The template's own words of the message; what came from outside is left out: errors never tell what a client sent. */
static bool call_raise_exception(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    char message[160];
    size_t n = 0;
    (void)out;
    if (!run_text(run, *call->p[0], &text))
        return false;
    for (size_t i = 0; i < text.len && n + 4 < sizeof message; i++) {
        if (string_is_own(text, i))
            message[n++] = text.bytes[i];
        else if (!n || message[n - 1] != '.')
            n += (size_t)snprintf(message + n, sizeof message - n, "...");
    }
    message[n] = '\0';
    return run_fail(run, "%s", n ? message : "the template refuses");
}

static bool call_strftime_now(struct run *run, const struct call *call, struct value *out)
{
    char format[128], text[512];
    struct string given = call->p[0]->string;
    if (call->p[0]->kind != VALUE_STRING || given.len >= sizeof format ||
        memchr(given.bytes, '\0', given.len))
        return run_fail(run, "strftime_now: expected a format of less than %zu bytes", sizeof format);
    if (!run->now)
        return run_fail(run, "strftime_now: there is no clock");
    memcpy(format, given.bytes, given.len);
    format[given.len] = '\0';
    size_t len = given.len ? strftime(text, sizeof text, format, run->now) : 0;
    struct string_builder builder = {.arena = run->arena};
    builder_add_bytes(&builder, text, len, false);
    *out = value_string(builder_string(&builder));
    return true;
}

static bool add_named(struct run *run, const struct arguments *arguments, struct dict *dict)
{
    for (size_t i = 0; i < arguments->n_named; i++)
        if (!dict_set(run->arena, dict, value_string(arguments->named[i].name), arguments->named[i].value))
            return run_step(run, 0);
    return true;
}

static bool call_dict(struct run *run, const struct call *call, struct value *out)
{
    const struct arguments *arguments = call->arguments;
    if (!run_new_dict(run, out))
        return false;
    if (arguments->n > 1 || (arguments->n == 1 && arguments->items[0].kind != VALUE_DICT))
        return run_fail(run, "dict and namespace take a dict and named values");
    for (size_t i = 0; arguments->n && i < arguments->items[0].dict->n; i++) {
        const struct dict_entry *entry = &arguments->items[0].dict->entries[i];
        if (!dict_set(run->arena, out->dict, entry->key, entry->value) || !run_step(run, 1))
            return run_step(run, 0);
    }
    return add_named(run, arguments, out->dict);
}

static bool call_namespace(struct run *run, const struct call *call, struct value *out)
{
    if (!call_dict(run, call, out))
        return false;
    out->kind = VALUE_NAMESPACE;
    return true;
}

static bool call_range(struct run *run, const struct call *call, struct value *out)
{
    int64_t parts[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        if (!call->p[i])
            continue;
        if (call->p[i]->kind != VALUE_INT)
            return run_fail(run, "range of %s", value_type(*call->p[i]));
        parts[i] = call->p[i]->integer;
    }
    if (!call->p[1]) {
        parts[1] = parts[0];
        parts[0] = 0;
    }
    if (!parts[2])
        return run_fail(run, "range with step 0");
    if (!run_new_list(run, VALUE_LIST, out))
        return false;
    for (int64_t i = parts[0]; parts[2] > 0 ? i < parts[1] : i > parts[1];) {
        if (out->list->n == RANGE_MAX)
            return run_fail(run, "range of more than %d numbers", RANGE_MAX);
        if (!run_add(run, *out, value_int(i)))
            return false;
        if (__builtin_add_overflow(i, parts[2], &i))
            break;
    }
    return true;
}

static const struct template_function functions[] = {
    {"dict", NULL, call_dict},
    {"namespace", NULL, call_namespace},
    {"raise_exception", "message!", call_raise_exception},
    {"range", "start! stop step", call_range},
    {"strftime_now", "format!", call_strftime_now},
};

const struct template_function *library_function_named(struct string name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (string_equals(name, functions[i].name))
            return &functions[i];
    return NULL;
}
