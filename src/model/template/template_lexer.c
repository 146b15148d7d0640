/* template_lexer.c: see template_lexer.h. */
#include "model/template/template_lexer.h"

#include "model/template/template_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NESTING_MAX = 200 };

struct lexer {
    struct template_arena *arena;
    struct string text;
    size_t at;
    unsigned line;
    bool line_starts; /* the last tag took the end of its line with it, or none came yet */
    struct lexeme *lexemes;
    size_t n, cap;
    runnel_error *error;
    int code;
};

static bool fail(struct lexer *lexer, const char *what)
{
    if (!lexer->code)
        lexer->code =
            error_set(lexer->error, RUNNEL_EUNSUPPORTED, "chat template, line %u: %s", lexer->line, what);
    return false;
}

static struct lexeme *add(struct lexer *lexer, enum lexeme_kind kind, struct string text)
{
    if (lexer->n == lexer->cap) {
        size_t cap = lexer->cap ? 2 * lexer->cap : 256, size = sizeof *lexer->lexemes;
        struct lexeme *grown =
            template_arena_grow(lexer->arena, lexer->lexemes, lexer->cap * size, cap * size);
        if (!grown)
            return NULL;
        lexer->lexemes = grown;
        lexer->cap = cap;
    }
    lexer->lexemes[lexer->n] = (struct lexeme){.kind = kind, .line = lexer->line, .text = text};
    return &lexer->lexemes[lexer->n++];
}

static void pass(struct lexer *lexer, size_t end)
{
    for (; lexer->at < end; lexer->at++)
        lexer->line += lexer->text.bytes[lexer->at] == '\n';
}

static char peek(const struct lexer *lexer, size_t ahead)
{
    return lexer->at + ahead < lexer->text.len ? lexer->text.bytes[lexer->at + ahead] : '\0';
}

static bool follows(const struct lexer *lexer, const char *text)
{
    size_t len = strlen(text);
    return lexer->text.len - lexer->at >= len && memcmp(lexer->text.bytes + lexer->at, text, len) == 0;
}

static size_t space_end(const struct lexer *lexer, size_t at)
{
    uint32_t code;
    while (at < lexer->text.len) {
        size_t n = text_character(lexer->text.bytes + at, lexer->text.len - at, &code);
        if (!text_is_space(code))
            break;
        at += n;
    }
    return at;
}

/* The text from begin to the tag at end, without the white space that the tag takes with it. `sign` is the character
 * after the tag's beginning; print tags leave the indentation before them. */
static bool add_text(struct lexer *lexer, size_t begin, size_t end, char sign, bool print)
{
    struct string text = string_part(lexer->text, begin, end);
    if (sign == '-') {
        text = text_strip(text, NULL, false, true);
    } else if (sign != '+' && !print) {
        size_t line = end;
        while (line > begin && lexer->text.bytes[line - 1] != '\n')
            line--;
        struct string indentation = string_part(lexer->text, line, end);
        if ((line > begin || lexer->line_starts) && !text_strip(indentation, NULL, true, false).len)
            text = string_part(lexer->text, begin, line);
    }
    unsigned line_of_tag = lexer->line;
    bool added = !text.len || add(lexer, LEXEME_TEXT, text);
    lexer->line = line_of_tag;
    return added;
}

/* Passes what ends a tag: its closing mark, with the white space or the end of the line that it takes with it. */
static void end_tag(struct lexer *lexer, size_t mark_len, char sign, bool trims)
{
    size_t end = lexer->at + (sign == '-' || sign == '+') + mark_len, begin = lexer->at;
    if (sign == '-')
        end = space_end(lexer, end);
    else if (trims && sign != '+' && end < lexer->text.len && lexer->text.bytes[end] == '\n')
        end++;
    pass(lexer, end);
    lexer->line_starts = end > begin && lexer->text.bytes[end - 1] == '\n';
}

static bool is_name_byte(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

static int digit_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
}

/* The number written with n_digits digits of a base at `at`; -1: there are fewer. */
static int64_t read_digits(struct string text, size_t at, size_t n_digits, int base)
{
    int64_t value = 0;
    if (at + n_digits > text.len)
        return -1;
    for (size_t i = 0; i < n_digits; i++) {
        int digit = digit_value(text.bytes[at + i]);
        if (digit >= base)
            return -1;
        value = value * base + digit;
    }
    return value;
}

/* Decodes the escape whose backslash is at `at`; returns its end, 0 for one that is wrong. */
static size_t decode_escape(struct string text, size_t at, struct string_builder *out)
{
    static const char plain[] = "n\nt\tr\r\\\\'\'\"\"a\ab\bf\fv\v";
    char c = text.bytes[at + 1];
    for (size_t i = 0; i + 1 < sizeof plain; i += 2)
        if (plain[i] == c) {
            builder_add_bytes(out, &plain[i + 1], 1, true);
            return at + 2;
        }
    if (c == '\n')
        return at + 2;
    size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    int64_t code;
    if (n_digits) {
        code = read_digits(text, at + 2, n_digits, 16);
    } else if (c >= '0' && c <= '7') {
        for (n_digits = 1;
             n_digits < 3 && at + 1 + n_digits < text.len && digit_value(text.bytes[at + 1 + n_digits]) < 8;)
            n_digits++;
        code = read_digits(text, at + 1, n_digits, 8);
        at--;
    } else if (c == 'N') {
        return 0;
    } else { /* not an escape */
        builder_add_bytes(out, text.bytes + at, 1, true);
        return at + 1;
    }
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    builder_add_code(out, (uint32_t)code, true);
    return at + 2 + n_digits;
}

static bool read_string(struct lexer *lexer)
{
    char quote = peek(lexer, 0);
    size_t begin = lexer->at + 1, end = begin;
    bool escaped = false;
    for (; end < lexer->text.len && lexer->text.bytes[end] != quote; end++)
        if (lexer->text.bytes[end] == '\\') {
            escaped = true;
            end++;
        }
    if (end >= lexer->text.len)
        return fail(lexer, "a string does not end");
    struct string text = string_part(lexer->text, begin, end);
    if (escaped) {
        struct string_builder out = {.arena = lexer->arena};
        size_t done = 0;
        for (size_t i = 0; i < text.len;) {
            if (text.bytes[i] != '\\') {
                i++;
                continue;
            }
            builder_add(&out, string_part(text, done, i));
            done = i = decode_escape(text, i, &out);
            if (!i)
                return fail(lexer, "an escape in a string is none that is known");
        }
        builder_add(&out, string_part(text, done, text.len));
        text = builder_string(&out);
        text.own = true;
    }
    if (!add(lexer, LEXEME_STRING, text))
        return false;
    pass(lexer, end + 1);
    return true;
}

static bool read_integer(struct lexer *lexer, const char *digits, int base)
{
    errno = 0;
    char *end;
    long long value = strtoll(digits, &end, base);
    if (errno || *end || !*digits)
        return fail(lexer, "a number is wrong or has more than 64 bits");
    struct lexeme *lexeme = add(lexer, LEXEME_INT, string_of("", 0, true));
    if (lexeme)
        lexeme->integer = value;
    return lexeme;
}

static size_t digits_end(const struct lexer *lexer, size_t at)
{
    while (at < lexer->text.len && ((lexer->text.bytes[at] >= '0' && lexer->text.bytes[at] <= '9') ||
                                    (lexer->text.bytes[at] == '_' && at + 1 < lexer->text.len &&
                                     digit_value(lexer->text.bytes[at + 1]) < 10)))
        at++;
    return at;
}

static bool read_number(struct lexer *lexer)
{
    char digits[64], mark = (char)(peek(lexer, 1) | 32);
    size_t begin = lexer->at, end = digits_end(lexer, begin), n = 0;
    int base = peek(lexer, 0) != '0' ? 10 : mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    bool real = false;
    if (base != 10) {
        begin = end = lexer->at + 2;
        while (end < lexer->text.len &&
               (digit_value(lexer->text.bytes[end]) < base || lexer->text.bytes[end] == '_'))
            end++;
    } else {
        if (end + 1 < lexer->text.len && lexer->text.bytes[end] == '.' &&
            digit_value(lexer->text.bytes[end + 1]) < 10) {
            end = digits_end(lexer, end + 1);
            real = true;
        }
        size_t power = end + 1;
        if (end < lexer->text.len && (lexer->text.bytes[end] | 32) == 'e') {
            power += power < lexer->text.len &&
                     (lexer->text.bytes[power] == '+' || lexer->text.bytes[power] == '-');
            if (digits_end(lexer, power) > power) {
                end = digits_end(lexer, power);
                real = true;
            }
        }
    }
    if (end - begin >= sizeof digits)
        return fail(lexer, "a number is too long");
    for (size_t i = begin; i < end; i++)
        if (lexer->text.bytes[i] != '_')
            digits[n++] = lexer->text.bytes[i];
    digits[n] = '\0';
    if (!real && !read_integer(lexer, digits, base))
        return false;
    if (real) {
        struct lexeme *lexeme = add(lexer, LEXEME_FLOAT, string_of("", 0, true));
        if (!lexeme)
            return false;
        lexeme->real = strtod(digits, NULL);
    }
    lexer->at = end;
    return true;
}

static bool read_operator(struct lexer *lexer, char *nesting, size_t *depth)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!follows(lexer, operators[i]))
            continue;
        char c = operators[i][0];
        if (c == '(' || c == '[' || c == '{') {
            if (*depth == NESTING_MAX)
                return fail(lexer, "more than 200 brackets lie within each other");
            nesting[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!*depth || nesting[--*depth] != c)
                return fail(lexer, "a bracket closes none that is open");
        }
        size_t len = strlen(operators[i]);
        if (!add(lexer, LEXEME_OPERATOR, string_part(lexer->text, lexer->at, lexer->at + len)))
            return false;
        lexer->at += len;
        return true;
    }
    return fail(lexer, "a character that is no part of the language");
}

/* The inside of a tag and its end. */
static bool read_tag(struct lexer *lexer, const char *mark, bool print)
{
    char nesting[NESTING_MAX];
    size_t depth = 0;
    for (;;) {
        pass(lexer, space_end(lexer, lexer->at));
        if (lexer->at == lexer->text.len)
            return fail(lexer, "a tag does not end");
        char c = peek(lexer, 0), sign = c == '-' || (c == '+' && !print) ? c : '\0';
        lexer->at += sign != '\0';
        bool ends = !depth && follows(lexer, mark);
        lexer->at -= sign != '\0';
        if (ends) {
            if (!add(lexer, print ? LEXEME_PRINT_END : LEXEME_BLOCK_END, string_of("", 0, true)))
                return false;
            end_tag(lexer, strlen(mark), sign, !print);
            return true;
        }
        bool read;
        if (is_name_byte(c, true)) {
            size_t end = lexer->at + 1;
            while (end < lexer->text.len && is_name_byte(lexer->text.bytes[end], false))
                end++;
            read = add(lexer, LEXEME_NAME, string_part(lexer->text, lexer->at, end));
            lexer->at = end;
        } else if (c == '\'' || c == '"') {
            read = read_string(lexer);
        } else if (c >= '0' && c <= '9') {
            read = read_number(lexer);
        } else {
            read = read_operator(lexer, nesting, &depth);
        }
        if (!read)
            return false;
    }
}

static bool read_comment(struct lexer *lexer)
{
    size_t end = text_find(lexer->text, string_made("#}"), lexer->at);
    if (end == SIZE_MAX)
        return fail(lexer, "a comment does not end");
    char before = end > lexer->at ? lexer->text.bytes[end - 1] : '\0',
         sign = before == '-' || before == '+' ? before : '\0';
    pass(lexer, end - (sign != '\0'));
    end_tag(lexer, 2, sign, true);
    return true;
}

/* Whether a {% word %} begins at `at`, after its "{%" and sign; *end is the place of its closing mark or sign. */
static bool is_word_tag(const struct lexer *lexer, size_t at, const char *word, size_t *end)
{
    at = space_end(lexer, at);
    size_t len = strlen(word);
    if (lexer->text.len - at < len || memcmp(lexer->text.bytes + at, word, len) != 0)
        return false;
    *end = at = space_end(lexer, at + len);
    at += at < lexer->text.len && (lexer->text.bytes[at] == '-' || lexer->text.bytes[at] == '+');
    return lexer->text.len - at >= 2 && memcmp(lexer->text.bytes + at, "%}", 2) == 0;
}

/* {% raw %} has been found; `end` is where its closing mark or sign stands. */
static bool read_raw(struct lexer *lexer, size_t end)
{
    pass(lexer, end);
    end_tag(lexer, 2, peek(lexer, 0) == '-' ? '-' : '\0', false);
    size_t begin = lexer->at, tag = begin;
    while ((tag = text_find(lexer->text, string_made("{%"), tag)) != SIZE_MAX) {
        char sign = tag + 2 < lexer->text.len ? lexer->text.bytes[tag + 2] : '\0';
        if (is_word_tag(lexer, tag + 2 + (sign == '-' || sign == '+'), "endraw", &end)) {
            if (!add_text(lexer, begin, tag, sign, false))
                return false;
            pass(lexer, end);
            char last = peek(lexer, 0);
            end_tag(lexer, 2, last == '-' || last == '+' ? last : '\0', true);
            return true;
        }
        tag += 2;
    }
    return fail(lexer, "{% raw %} does not end");
}

static size_t find_tag(const struct lexer *lexer)
{
    for (size_t at = lexer->at; at + 1 < lexer->text.len; at++) {
        char c = lexer->text.bytes[at + 1];
        if (lexer->text.bytes[at] == '{' && (c == '{' || c == '%' || c == '#'))
            return at;
    }
    return lexer->text.len;
}

static bool read_all(struct lexer *lexer)
{
    lexer->line_starts = true;
    while (lexer->at < lexer->text.len) {
        size_t tag = find_tag(lexer), begin = lexer->at, raw_end;
        if (tag == lexer->text.len)
            return add(lexer, LEXEME_TEXT, string_part(lexer->text, begin, tag));
        char kind = lexer->text.bytes[tag + 1],
             sign = tag + 2 < lexer->text.len ? lexer->text.bytes[tag + 2] : '\0';
        if (sign != '-' && sign != '+')
            sign = '\0';
        if (!add_text(lexer, begin, tag, sign, kind == '{'))
            return false;
        pass(lexer, tag + 2 + (sign != '\0'));
        if (kind == '%' && is_word_tag(lexer, lexer->at, "raw", &raw_end)) {
            if (!read_raw(lexer, raw_end))
                return false;
            continue;
        }
        if (kind == '#') {
            if (!read_comment(lexer))
                return false;
            continue;
        }
        if (!add(lexer, kind == '{' ? LEXEME_PRINT_BEGIN : LEXEME_BLOCK_BEGIN, string_of("", 0, true)) ||
            !read_tag(lexer, kind == '{' ? "}}" : "%}", kind == '{'))
            return false;
    }
    return true;
}

/* A copy in which every line ends in \n, without the last line's end. */
static struct string normalise(struct template_arena *arena, const char *text, size_t len)
{
    char *copy = template_arena_alloc(arena, len);
    size_t n = 0;
    for (size_t i = 0; copy && i < len; i++) {
        if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n')
            continue;
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (n && copy[n - 1] == '\n')
        n--;
    return string_of(copy, n, true);
}

int lexer_read(struct template_arena *arena, const char *text, size_t len, struct lexeme **lexemes,
               runnel_error *error)
{
    struct lexer lexer = {.arena = arena, .line = 1, .error = error};
    lexer.text = normalise(arena, text, len);
    if (lexer.text.bytes && read_all(&lexer) && !arena->failed && !arena->over_the_limit &&
        add(&lexer, LEXEME_END, string_of("", 0, true))) {
        *lexemes = lexer.lexemes;
        return RUNNEL_OK;
    }
    if (arena->failed)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    if (arena->over_the_limit)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "chat template of %zu bytes: more memory than a template may take", len);
    return lexer.code;
}
