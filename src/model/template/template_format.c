/* template_format.c: "{} {name}".format(...) and "%s %d" % ... of chat templates. See template_run.h. */
#include "model/template/template_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may stand between "%" or ":" and the kind of a value. */
struct specification {
    char fill, align; /* align '\0': none given */
    bool plus, alternate, zero, comma;
    int width, precision; /* -1: none given */
    char kind;            /* '\0': none given */
};

static size_t read_width(struct string text, size_t at, int *width)
{
    *width = -1;
    for (; at < text.len && text.bytes[at] >= '0' && text.bytes[at] <= '9'; at++) {
        *width = (*width < 0 ? 0 : *width) * 10 + text.bytes[at] - '0';
        if (*width > 1000)
            *width = 1001;
    }
    return at;
}

/* [[fill]align][sign][#][0][width][,][.precision][kind]; false if something is left. */
static bool read_specification(struct string text, struct specification *spec)
{
    size_t at = 0;
    *spec = (struct specification){.fill = ' ', .width = -1, .precision = -1};
    if (text.len >= 2 && memchr("<>^", text.bytes[1], 3)) {
        spec->fill = text.bytes[0];
        spec->align = text.bytes[1];
        at = 2;
    } else if (text.len && memchr("<>^", text.bytes[0], 3)) {
        spec->align = text.bytes[at++];
    }
    if (at < text.len && (text.bytes[at] == '+' || text.bytes[at] == '-'))
        spec->plus = text.bytes[at++] == '+';
    if (at < text.len && text.bytes[at] == '#')
        spec->alternate = at++ < text.len;
    if (at < text.len && text.bytes[at] == '0')
        spec->zero = at++ < text.len;
    at = read_width(text, at, &spec->width);
    if (at < text.len && text.bytes[at] == ',')
        spec->comma = at++ < text.len;
    if (at < text.len && text.bytes[at] == '.')
        at = read_width(text, at + 1, &spec->precision);
    if (at < text.len)
        spec->kind = text.bytes[at++];
    return at == text.len && spec->width <= 1000 && spec->precision <= 100 && (unsigned char)spec->fill < 128;
}

static void pad(struct string_builder *out, char fill, int n)
{
    for (int i = 0; i < n; i++)
        builder_add_bytes(out, &fill, 1, false);
}

static void add_padded(struct string_builder *out, const struct specification *spec, struct string text,
                       char align)
{
    int missing = spec->width - (int)(text.len > 1000 ? 1000 : text_count(text));
    int left = missing <= 0 ? 0 : align == '>' ? missing : align == '^' ? missing / 2 : 0;
    pad(out, spec->fill, left);
    builder_add(out, text);
    pad(out, spec->fill, missing - left);
}

/* Thousands in a number's digits. */
static void add_commas(char number[400])
{
    size_t begin = number[0] == '-' || number[0] == '+', end = begin + strspn(number + begin, "0123456789");
    for (size_t at = end; at > begin + 3; at -= 3) {
        memmove(number + at - 2, number + at - 3, strlen(number + at - 3) + 1);
        number[at - 3] = ',';
    }
}

static bool add_number(struct run *run, struct string_builder *out, const struct specification *spec,
                       struct value value)
{
    char number[400];
    bool real = value.kind == VALUE_FLOAT;
    char kind = spec->kind ? spec->kind : real ? 'r' : 'd';
    if (strchr("fFeEgG", kind)) {
        char format[8] = {'%', '.', '*', kind, '\0'};
        double magnitude = value_number(value);
        if (magnitude > 1e200 || magnitude < -1e200)
            return run_fail(run, "a number that is too large to format");
        snprintf(number, sizeof number, format, spec->precision < 0 ? 6 : spec->precision, magnitude);
    } else if (kind == 'r') {
        print_float(value.real, number);
    } else if (!real && strchr("dxXo", kind)) {
        long long integer = value.kind == VALUE_BOOL ? value.boolean : value.integer;
        unsigned long long magnitude =
            integer < 0 ? 0ull - (unsigned long long)integer : (unsigned long long)integer;
        snprintf(number, sizeof number,
                 kind == 'd'   ? "%s%llu"
                 : kind == 'x' ? "%s%llx"
                 : kind == 'X' ? "%s%llX"
                               : "%s%llo",
                 integer < 0 ? "-" : "", magnitude);
    } else {
        return run_fail(run, "%s is formatted as \"%c\"", value_type(value),
                        kind > 32 && kind < 127 ? kind : '?');
    }
    if (spec->comma)
        add_commas(number);
    if (spec->plus && number[0] != '-') {
        memmove(number + 1, number, strlen(number) + 1);
        number[0] = '+';
    }
    if (spec->zero && !spec->align) {
        size_t sign = number[0] == '-' || number[0] == '+';
        builder_add_bytes(out, number, sign, false);
        pad(out, '0', spec->width - (int)strlen(number));
        builder_add_made(out, number + sign);
        return true;
    }
    add_padded(out, spec, string_made(number), spec->align ? spec->align : '>');
    return true;
}

static bool add_value(struct run *run, struct string_builder *out, const struct specification *spec,
                      struct value value)
{
    struct string text;
    bool as_text = value.kind == VALUE_STRING || value.kind == VALUE_UNDEFINED || value.kind == VALUE_NONE ||
                   (value.kind == VALUE_BOOL && !spec->kind);
    if (value_is_number(value) && !as_text)
        return add_number(run, out, spec, value);
    if (!as_text && (spec->width >= 0 || spec->kind))
        return run_fail(run, "%s is formatted with a width or a kind", value_type(value));
    if (spec->kind && spec->kind != 's')
        return run_fail(run, "%s is formatted as a number", value_type(value));
    if (!run_text(run, value, &text))
        return false;
    if (spec->precision >= 0)
        text = string_part(text, 0, text_offset(text, (size_t)spec->precision));
    add_padded(out, spec, text, spec->align ? spec->align : '<');
    return run_step(run, text.len / 32);
}

/* The value that a field names: "", "0" or "name", with attributes and items after it. *n_taken counts the fields
 * without a number; SIZE_MAX: there was one with a number. */
static bool find_field(struct run *run, struct string field, const struct arguments *arguments,
                       size_t *n_taken, struct value *out)
{
    size_t len = 0;
    while (len < field.len && field.bytes[len] != '.' && field.bytes[len] != '[')
        len++;
    struct string name = string_part(field, 0, len);
    bool digits = true;
    for (size_t i = 0; i < len; i++)
        digits &= name.bytes[i] >= '0' && name.bytes[i] <= '9';
    if (digits) {
        int number;
        read_width(name, 0, &number);
        if (len ? *n_taken > 0 && *n_taken < SIZE_MAX : *n_taken == SIZE_MAX)
            return run_fail(run, "format: fields with numbers stand beside fields without");
        size_t i = len ? (size_t)number : (*n_taken)++;
        if (len)
            *n_taken = SIZE_MAX;
        if (i >= arguments->n)
            return run_fail(run, "format: there is no argument %zu", i);
        *out = arguments->items[i];
    } else {
        size_t i = 0;
        while (i < arguments->n_named && !string_same(arguments->named[i].name, name))
            i++;
        if (i == arguments->n_named)
            return run_fail(run, "format: an argument that is named is missing");
        *out = arguments->named[i].value;
    }
    while (len < field.len) {
        bool item = field.bytes[len] == '[';
        size_t begin = len + 1, end = begin;
        while (end < field.len &&
               (item ? field.bytes[end] != ']' : field.bytes[end] != '.' && field.bytes[end] != '['))
            end++;
        struct string part = string_part(field, begin, end);
        int number;
        bool is_index = item && part.len && read_width(part, 0, &number) == part.len;
        if (item ? !run_item(run, *out, is_index ? value_int(number) : value_string(part), out)
                 : !run_attribute(run, *out, part, out))
            return false;
        len = end + item;
    }
    return true;
}

bool format_braces(struct run *run, struct string format, const struct arguments *arguments,
                   struct value *out)
{
    struct string_builder builder = {.arena = run->arena};
    size_t n_taken = 0;
    for (size_t at = 0; at < format.len;) {
        char c = format.bytes[at];
        size_t plain = at;
        while (plain < format.len && format.bytes[plain] != '{' && format.bytes[plain] != '}')
            plain++;
        builder_add(&builder, string_part(format, at, plain));
        if ((at = plain) == format.len)
            break;
        c = format.bytes[at];
        if (at + 1 < format.len && format.bytes[at + 1] == c) {
            builder_add(&builder, string_part(format, at, at + 1));
            at += 2;
            continue;
        }
        size_t end = at + 1;
        while (end < format.len && format.bytes[end] != '}' && format.bytes[end] != '{')
            end++;
        if (c == '}' || end == format.len || format.bytes[end] == '{')
            return run_fail(run, "format: a brace stands alone, or within another");
        struct string field = string_part(format, at + 1, end), text = string_of("", 0, true);
        size_t colon = text_find(field, string_made(":"), 0), mark = text_find(field, string_made("!"), 0);
        struct specification spec;
        struct value value;
        bool as_repr = mark < colon && mark + 1 < field.len && field.bytes[mark + 1] == 'r';
        if (colon != SIZE_MAX)
            text = string_part(field, colon + 1, field.len);
        size_t name_end = mark < colon ? mark : colon;
        if (!find_field(run, string_part(field, 0, name_end == SIZE_MAX ? field.len : name_end), arguments,
                        &n_taken, &value))
            return false;
        if (!read_specification(text, &spec))
            return run_fail(run, "format: a specification that is not known");
        if (mark < colon) {
            struct string_builder repr = {.arena = run->arena};
            struct string converted;
            if (as_repr ? !run_repr(run, value, &repr) : !run_text(run, value, &converted))
                return false;
            value = value_string(as_repr ? builder_string(&repr) : converted);
        }
        if (!add_value(run, &builder, &spec, value))
            return false;
        at = end + 1;
    }
    *out = value_string(builder_string(&builder));
    out->string.is_markup = format.is_markup;
    return true;
}

/* One conversion of a % format, whose text is from begin to end, kind last. */
static bool add_conversion(struct run *run, struct string_builder *out, struct string text,
                           struct value value)
{
    struct specification spec = {.fill = ' ', .width = -1, .precision = -1};
    size_t at = 0;
    bool left = false;
    for (; at < text.len && memchr("-+ #0", text.bytes[at], 5); at++) {
        left |= text.bytes[at] == '-';
        spec.zero |= text.bytes[at] == '0';
        spec.plus |= text.bytes[at] == '+';
    }
    at = read_width(text, at, &spec.width);
    if (at < text.len && text.bytes[at] == '.')
        at = read_width(text, at + 1, &spec.precision);
    char kind = at + 1 == text.len ? text.bytes[at] : '\0';
    spec.align = left ? '<' : spec.zero ? '\0' : '>';
    if (!kind || !strchr("srdiufFeEgGxXo", kind) || spec.width > 1000 || spec.precision > 100)
        return run_fail(run, "%% format: a conversion that is not known");
    if (kind == 's' || kind == 'r') {
        struct string_builder repr = {.arena = run->arena};
        struct string converted;
        if (kind == 'r' ? !run_repr(run, value, &repr) : !run_text(run, value, &converted))
            return false;
        spec.align = left ? '<' : '>';
        return add_value(run, out, &spec, value_string(kind == 'r' ? builder_string(&repr) : converted));
    }
    if (!value_is_number(value))
        return run_fail(run, "%% format: %s for a number", value_type(value));
    if (memchr("diu", kind, 3)) {
        if (value.kind == VALUE_FLOAT)
            value = value_int((int64_t)(value.real > 9e18 ? 9e18 : value.real < -9e18 ? -9e18 : value.real));
        kind = 'd';
    }
    spec.kind = kind;
    return add_number(run, out, &spec, value);
}

bool format_percent(struct run *run, struct string format, struct value arguments, struct value *out)
{
    struct string_builder builder = {.arena = run->arena};
    struct list one = {.items = &arguments, .n = 1},
                *items = arguments.kind == VALUE_TUPLE ? arguments.list : &one;
    size_t n_taken = 0;
    for (size_t at = 0; at < format.len;) {
        size_t mark = text_find(format, string_of("%", 1, false), at), end = mark + 1;
        if (mark == SIZE_MAX)
            mark = format.len;
        builder_add(&builder, string_part(format, at, mark));
        if ((at = mark) == format.len)
            break;
        if (end < format.len && format.bytes[end] == '%') {
            builder_add(&builder, string_part(format, end, end + 1));
            at = end + 1;
            continue;
        }
        while (end < format.len && memchr("-+ #0123456789.", format.bytes[end], 15))
            end++;
        if (end == format.len)
            return run_fail(run, "%% format: a conversion that is not complete");
        if (n_taken == items->n)
            return run_fail(run, "%% format: more conversions than values");
        if (!add_conversion(run, &builder, string_part(format, mark + 1, end + 1), items->items[n_taken++]))
            return false;
        at = end + 1;
    }
    bool may_be_left = arguments.kind == VALUE_DICT || arguments.kind == VALUE_LIST;
    if (n_taken < items->n && !may_be_left)
        return run_fail(run, "%% format: fewer conversions than values");
    *out = value_string(builder_string(&builder));
    out->string.is_markup = format.is_markup;
    return true;
}
