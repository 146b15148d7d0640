/* template_text.c: see template_text.h. */
#include "model/template/template_text.h"

#include "model/template/template_case.h"

#include <string.h>

static bool reserve(struct string_builder *builder, size_t more)
{
    if (builder->cap - builder->len >= more)
        return true;
    if (more > SIZE_MAX / 8 - builder->len) {
        builder->arena->over_the_limit = true;
        return false;
    }
    size_t cap = builder->cap ? builder->cap : 32;
    while (cap < builder->len + more)
        cap *= 2;
    char *bytes = template_arena_alloc(builder->arena, 2 * cap);
    if (!bytes)
        return false;
    if (builder->len) {
        memcpy(bytes, builder->bytes, builder->len);
        memcpy(bytes + cap, builder->origins, builder->len);
    }
    builder->bytes = bytes;
    builder->origins = (unsigned char *)bytes + cap;
    builder->cap = cap;
    return true;
}

void builder_add(struct string_builder *builder, struct string string)
{
    if (!string.len || !reserve(builder, string.len))
        return;
    memcpy(builder->bytes + builder->len, string.bytes, string.len);
    if (string.origins)
        memcpy(builder->origins + builder->len, string.origins, string.len);
    else
        memset(builder->origins + builder->len, string.own, string.len);
    builder->len += string.len;
}

void builder_add_made(struct string_builder *builder, const char *text)
{
    builder_add(builder, string_made(text));
}

void builder_add_bytes(struct string_builder *builder, const char *bytes, size_t len, bool own)
{
    builder_add(builder, string_of(bytes, len, own));
}

void builder_add_code(struct string_builder *builder, uint32_t code, bool own)
{
    char bytes[4];
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--, code >>= 6)
        bytes[i] = (char)(0x80 | (code & 0x3f));
    static const unsigned char marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    bytes[0] = (char)(marks[len] | code);
    builder_add_bytes(builder, bytes, len, own);
}

struct string builder_string(const struct string_builder *builder)
{
    struct string string = {builder->bytes ? builder->bytes : "", builder->origins, builder->len, false,
                            false};
    if (!builder->len)
        string.origins = NULL;
    else if (!memchr(builder->origins, builder->origins[0] ? 0 : 1, builder->len)) {
        string.own = builder->origins[0];
        string.origins = NULL;
    }
    return string;
}

size_t text_character(const char *bytes, size_t len, uint32_t *code)
{
    const unsigned char *at = (const unsigned char *)bytes;
    *code = at[0];
    if (at[0] < 0x80)
        return 1;
    size_t n = at[0] >= 0xf0 && at[0] < 0xf5   ? 4
               : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
               : at[0] >= 0xc2 && at[0] < 0xe0 ? 2
                                               : 0;
    uint32_t value = n ? at[0] & (0xffu >> (n + 1)) : 0;
    for (size_t i = 1; i < n && n <= len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            n = 0;
        value = value << 6 | (at[i] & 0x3fu);
    }
    if (!n || n > len || (n == 3 && value < 0x800) || (n == 4 && (value < 0x10000 || value > 0x10ffff)) ||
        (value >= 0xd800 && value < 0xe000)) {
        *code = 0xfffd0000u + at[0];
        return 1;
    }
    *code = value;
    return n;
}

size_t text_count(struct string string)
{
    size_t n = 0;
    uint32_t code;
    for (size_t i = 0; i < string.len; n++)
        i += text_character(string.bytes + i, string.len - i, &code);
    return n;
}

size_t text_offset(struct string string, size_t n)
{
    size_t i = 0;
    uint32_t code;
    for (; n && i < string.len; n--)
        i += text_character(string.bytes + i, string.len - i, &code);
    return i;
}

bool text_is_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
           code == 0x202f || code == 0x205f || code == 0x3000;
}

static bool is_stripped(uint32_t code, const struct string *set)
{
    if (!set)
        return text_is_space(code);
    uint32_t one;
    for (size_t i = 0; i < set->len;) {
        i += text_character(set->bytes + i, set->len - i, &one);
        if (one == code)
            return true;
    }
    return false;
}

/* The begin of the character that ends at `end`. */
static size_t character_before(struct string string, size_t begin, size_t end, uint32_t *code)
{
    for (size_t n = 4; n > 1; n--)
        if (end - begin >= n && text_character(string.bytes + end - n, n, code) == n)
            return end - n;
    text_character(string.bytes + end - 1, 1, code);
    return end - 1;
}

struct string text_strip(struct string string, const struct string *set, bool left, bool right)
{
    size_t begin = 0, end = string.len;
    uint32_t code;
    while (left && begin < end) {
        size_t n = text_character(string.bytes + begin, end - begin, &code);
        if (!is_stripped(code, set))
            break;
        begin += n;
    }
    while (right && begin < end) {
        size_t before = character_before(string, begin, end, &code);
        if (!is_stripped(code, set))
            break;
        end = before;
    }
    return string_part(string, begin, end);
}

size_t text_find(struct string string, struct string part, size_t from)
{
    if (from > string.len || part.len > string.len - from)
        return SIZE_MAX;
    if (!part.len)
        return from;
    const char *found = memmem(string.bytes + from, string.len - from, part.bytes, part.len);
    return found ? (size_t)(found - string.bytes) : SIZE_MAX;
}

size_t text_find_last(struct string string, struct string part)
{
    for (size_t i = string.len + 1; i-- > part.len;)
        if (memcmp(string.bytes + i - part.len, part.bytes, part.len) == 0)
            return i - part.len;
    return SIZE_MAX;
}

static bool all_own(struct string string, size_t begin, size_t end)
{
    while (begin < end && string_is_own(string, begin))
        begin++;
    return begin == end;
}

/* A capital sigma that ends a word becomes a final one. */
static bool is_final_sigma(struct string string, size_t begin, size_t end)
{
    uint32_t code = 0;
    while (begin > 0) {
        begin = character_before(string, 0, begin, &code);
        if (!case_is_ignorable(code))
            break;
        code = 0;
    }
    if (!case_is_cased(code))
        return false;
    for (code = 0; end < string.len;) {
        end += text_character(string.bytes + end, string.len - end, &code);
        if (!case_is_ignorable(code))
            break;
        code = 0;
    }
    return !case_is_cased(code);
}

struct string text_change_case(struct template_arena *arena, struct string string, enum text_case to)
{
    struct string_builder builder = {.arena = arena};
    bool in_word = false;
    uint32_t code, changed[CASE_MOST];
    for (size_t i = 0, n; i < string.len && !arena->over_the_limit && !arena->failed; i += n) {
        n = text_character(string.bytes + i, string.len - i, &code);
        bool first = to == TEXT_TITLE ? !in_word : i == 0;
        size_t n_changed;
        if (code >= 0xfffd0000u) {
            builder_add(&builder, string_part(string, i, i + n));
            in_word = false;
            continue;
        }
        if (to == TEXT_UPPER)
            n_changed = case_upper(code, changed);
        else if (to != TEXT_LOWER && first)
            n_changed = case_title(code, changed);
        else if (code == 0x3a3 && is_final_sigma(string, i, i + n))
            n_changed = 1, changed[0] = 0x3c2;
        else
            n_changed = case_lower(code, changed);
        for (size_t k = 0; k < n_changed; k++)
            builder_add_code(&builder, changed[k], all_own(string, i, i + n));
        in_word = case_is_cased(code);
    }
    struct string result = builder_string(&builder);
    result.is_markup = string.is_markup;
    return result;
}

struct string text_escape(struct template_arena *arena, struct string string)
{
    struct string_builder builder = {.arena = arena};
    for (size_t i = 0; i < string.len; i++) {
        const char *name = string.bytes[i] == '&'    ? "&amp;"
                           : string.bytes[i] == '<'  ? "&lt;"
                           : string.bytes[i] == '>'  ? "&gt;"
                           : string.bytes[i] == '\'' ? "&#39;"
                           : string.bytes[i] == '"'  ? "&#34;"
                                                     : NULL;
        if (name)
            builder_add_made(&builder, name);
        else
            builder_add(&builder, string_part(string, i, i + 1));
    }
    struct string result = builder_string(&builder);
    result.is_markup = true;
    return result;
}

struct string text_replace(struct template_arena *arena, struct string string, struct string old,
                           struct string new, int64_t n_most)
{
    struct string_builder builder = {.arena = arena};
    size_t done = 0;
    uint32_t code;
    while (n_most != 0 && !arena->over_the_limit && !arena->failed) {
        size_t found = text_find(string, old, done);
        if (found == SIZE_MAX)
            break;
        builder_add(&builder, string_part(string, done, found));
        builder_add(&builder, new);
        done = found + old.len;
        n_most -= n_most > 0;
        if (old.len)
            continue;
        if (done == string.len) /* nothing is found between all characters and at both ends */
            break;
        size_t n = text_character(string.bytes + done, string.len - done, &code);
        builder_add(&builder, string_part(string, done, done + n));
        done += n;
    }
    builder_add(&builder, string_part(string, done, string.len));
    struct string result = builder_string(&builder);
    result.is_markup = string.is_markup;
    return result;
}
