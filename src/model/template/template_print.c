/* template_print.c: values of chat templates as text, as Python's str and repr write them. See template_run.h. */
#include "model/template/template_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void print_float(double real, char out[40])
{
    char digits[40];
    if (!isfinite(real)) {
        strcpy(out, isnan(real) ? "nan" : real < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < 18; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, real);
        if (strtod(digits, NULL) == real)
            break;
    }
    char *mark = strchr(digits, 'e');
    int power = atoi(mark + 1);
    if (power < -4 || power >= 16) { /* as it is, like 1e+20 */
        snprintf(out, 40, "%s", digits);
        return;
    }
    int n_digits = (int)(mark - digits) - (digits[0] == '-') - (strchr(digits, '.') != NULL);
    int n_after = n_digits - 1 - power;
    snprintf(out, 40, "%.*f", n_after > 0 ? n_after : 1, real);
}

static bool repr_string(struct run *run, struct string string, struct string_builder *out)
{
    bool has_single = memchr(string.bytes, '\'', string.len),
         has_double = memchr(string.bytes, '"', string.len);
    char quote[2] = {has_single && !has_double ? '"' : '\'', '\0'}, escape[12];
    uint32_t code;
    builder_add_made(out, quote);
    for (size_t i = 0, n; i < string.len; i += n) {
        n = text_character(string.bytes + i, string.len - i, &code);
        if (code == '\n' || code == '\r' || code == '\t' || code == '\\' || code == (unsigned char)quote[0])
            snprintf(escape, sizeof escape, "\\%c",
                     code == '\n'   ? 'n'
                     : code == '\r' ? 'r'
                     : code == '\t' ? 't'
                                    : (char)code);
        else if (code < 32 || (code >= 127 && code <= 160) || code == 0xad)
            snprintf(escape, sizeof escape, "\\x%02x", code);
        else if ((text_is_space(code) && code != ' ') || (code >= 0x200b && code <= 0x200f) ||
                 (code >= 0x202a && code <= 0x202e) || (code >= 0xe000 && code <= 0xf8ff) || code == 0xfeff)
            snprintf(escape, sizeof escape, "\\u%04x", code);
        else
            escape[0] = '\0';
        if (escape[0])
            builder_add_made(out, escape);
        else
            builder_add(out, string_part(string, i, i + n));
    }
    builder_add_made(out, quote);
    return run_step(run, string.len / 8);
}

static bool repr_list(struct run *run, struct value value, struct string_builder *out)
{
    bool is_tuple = value.kind == VALUE_TUPLE;
    builder_add_made(out, is_tuple ? "(" : "[");
    for (size_t i = 0; i < value.list->n; i++) {
        if (i)
            builder_add_made(out, ", ");
        if (!run_repr(run, value.list->items[i], out))
            return false;
    }
    if (is_tuple && value.list->n == 1)
        builder_add_made(out, ",");
    builder_add_made(out, is_tuple ? ")" : "]");
    return true;
}

static bool repr_dict(struct run *run, const struct dict *dict, struct string_builder *out)
{
    builder_add_made(out, "{");
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            builder_add_made(out, ", ");
        if (!run_repr(run, dict->entries[i].key, out))
            return false;
        builder_add_made(out, ": ");
        if (!run_repr(run, dict->entries[i].value, out))
            return false;
    }
    builder_add_made(out, "}");
    return true;
}

static bool repr_inner(struct run *run, struct value value, struct string_builder *out)
{
    char number[40];
    switch (value.kind) {
    case VALUE_UNDEFINED:
        builder_add_made(out, "Undefined");
        return true;
    case VALUE_NONE:
        builder_add_made(out, "None");
        return true;
    case VALUE_BOOL:
        builder_add_made(out, value.boolean ? "True" : "False");
        return true;
    case VALUE_INT:
        snprintf(number, sizeof number, "%lld", (long long)value.integer);
        builder_add_made(out, number);
        return true;
    case VALUE_FLOAT:
        print_float(value.real, number);
        builder_add_made(out, number);
        return true;
    case VALUE_STRING:
        return repr_string(run, value.string, out);
    case VALUE_LIST:
    case VALUE_TUPLE:
        return repr_list(run, value, out);
    case VALUE_DICT:
        return repr_dict(run, value.dict, out);
    default:
        return run_fail(run, "%s is printed", value_type(value));
    }
}

bool run_repr(struct run *run, struct value value, struct string_builder *out)
{
    if (!run_enter(run) || !run_step(run, 1) || !repr_inner(run, value, out))
        return false;
    run_leave(run);
    return true;
}

bool run_text(struct run *run, struct value value, struct string *text)
{
    struct string_builder builder = {.arena = run->arena};
    if (value.kind == VALUE_STRING) {
        *text = value.string;
        return true;
    }
    if (value.kind != VALUE_UNDEFINED && !run_repr(run, value, &builder))
        return false;
    *text = builder_string(&builder);
    return true;
}
