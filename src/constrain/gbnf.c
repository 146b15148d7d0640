/* gbnf.c: see gbnf.h. */
#include "constrain/gbnf.h"
#include "constrain/charset.h"
#include "constrain/pattern_text.h"

#include <string.h>

enum {
    MAX_GROUPS = 200 /* within each other */
};

struct gbnf {
    struct pattern_text text;
    struct grammar *grammar;
};

static bool is_wrong(struct gbnf *gbnf, const char *what)
{
    return pattern_fail(&gbnf->text, RUNNEL_EINVAL, what);
}

/* Spaces and comments; ends of lines where they mean nothing. */
static void skip_space(struct gbnf *gbnf, bool with_lines)
{
    struct pattern_text *text = &gbnf->text;
    while (text->at < text->len) {
        char c = text->text[text->at];
        if (c == '#')
            while (text->at < text->len && text->text[text->at] != '\n' && text->text[text->at] != '\r')
                text->at++;
        else if (c == ' ' || c == '\t' || (with_lines && (c == '\n' || c == '\r')))
            text->at++;
        else
            return;
    }
}

static bool is_of_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Its length; 0: none comes next. */
static size_t name_length(const struct gbnf *gbnf)
{
    size_t n = 0;
    while (gbnf->text.at + n < gbnf->text.len && is_of_name(gbnf->text.text[gbnf->text.at + n]))
        n++;
    return n;
}

/* A character of a literal or a class, which may be escaped. */
static uint32_t take_char(struct gbnf *gbnf)
{
    struct pattern_text *text = &gbnf->text;
    uint32_t number = 0;
    if (!pattern_skip(text, "\\"))
        return pattern_take(text);
    uint32_t letter = pattern_take(text);
    unsigned n_digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (n_digits) {
        if (!pattern_hex(text, n_digits, &number) || number > CHARSET_LAST)
            is_wrong(gbnf, "expected the hexadecimal number of a character");
        return number;
    }
    switch (letter) {
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        return letter;
    default:
        is_wrong(gbnf, "the character before this is no escape that is known");
        return 0;
    }
}

/* Behind '"'. */
static uint32_t read_literal(struct gbnf *gbnf)
{
    struct exprs *exprs = gbnf->grammar->exprs;
    struct pattern_text *text = &gbnf->text;
    uint32_t expr = EXPR_EMPTY,
             part = EXPR_EMPTY; /* joined in parts, so that a long one takes no square time */
    unsigned n = 0;
    while (!text->failed && !pattern_skip(text, "\"")) {
        uint32_t character = take_char(gbnf);
        if (character == TEXT_OVER) {
            is_wrong(gbnf, "expected '\"'");
            break;
        }
        part = expr_cat(exprs, part, char_range_expr(exprs, character, character, CHAR_UTF8));
        if (++n % 64 == 0) {
            expr = expr_cat(exprs, expr, part);
            part = EXPR_EMPTY;
        }
    }
    return grammar_terminal(gbnf->grammar, expr_cat(exprs, expr, part));
}

/* Behind '['. */
static uint32_t read_class(struct gbnf *gbnf)
{
    struct pattern_text *text = &gbnf->text;
    struct charset set = {0};
    bool is_negative = pattern_skip(text, "^");
    while (!text->failed && !pattern_skip(text, "]")) {
        uint32_t from = take_char(gbnf), to = from;
        if (from == TEXT_OVER) {
            is_wrong(gbnf, "expected ']'");
            break;
        }
        size_t behind = text->at;
        if (pattern_skip(text, "-") && pattern_peek(text) != ']')
            to = take_char(gbnf);
        else
            text->at = behind;
        if (to == TEXT_OVER || to < from)
            is_wrong(gbnf, "a range ends before it begins");
        charset_add(&set, from, to);
    }
    if (is_negative)
        charset_negate(&set);
    else
        charset_sort(&set);
    uint32_t expr = charset_expr(gbnf->grammar->exprs, &set, CHAR_UTF8);
    charset_free(&set);
    return grammar_terminal(gbnf->grammar, expr);
}

static uint32_t read_alternatives(struct gbnf *gbnf, unsigned depth);

static uint32_t read_group(struct gbnf *gbnf, unsigned depth)
{
    if (depth >= MAX_GROUPS) {
        pattern_fail(&gbnf->text, RUNNEL_EUNSUPPORTED, "groups are nested too deep");
        return 0;
    }
    skip_space(gbnf, true);
    uint32_t symbol = read_alternatives(gbnf, depth + 1);
    if (!gbnf->text.failed && !pattern_skip(&gbnf->text, ")"))
        is_wrong(gbnf, "expected ')'");
    return symbol;
}

/* A symbol; 0, with nothing taken: none comes next. */
static uint32_t read_symbol(struct gbnf *gbnf, unsigned depth)
{
    struct pattern_text *text = &gbnf->text;
    size_t n_name = name_length(gbnf);
    if (n_name) {
        uint32_t rule = grammar_rule(gbnf->grammar, text->text + text->at, n_name);
        text->at += n_name;
        return grammar_call(gbnf->grammar, rule);
    }
    if (pattern_skip(text, "\""))
        return read_literal(gbnf);
    if (pattern_skip(text, "["))
        return read_class(gbnf);
    if (pattern_skip(text, "("))
        return read_group(gbnf, depth);
    if (pattern_skip(text, "."))
        return grammar_terminal(gbnf->grammar,
                                char_range_expr(gbnf->grammar->exprs, 0, CHARSET_LAST, CHAR_UTF8));
    if (pattern_peek(text) == '<' || pattern_peek(text) == '!')
        pattern_fail(text, RUNNEL_EUNSUPPORTED, "tokens in a grammar are not supported");
    return 0;
}

/* Behind '{': "m}", "m,}", "m,n}" or ",n}", with spaces anywhere, and ends of lines where they mean nothing. */
static bool read_times(struct gbnf *gbnf, bool with_lines, uint32_t *min, uint32_t *max)
{
    struct pattern_text *text = &gbnf->text;
    *min = 0;
    skip_space(gbnf, with_lines);
    bool has_bound = pattern_number(text, min);
    skip_space(gbnf, with_lines);
    *max = *min;
    if (pattern_skip(text, ",")) {
        skip_space(gbnf, with_lines);
        bool has_max = pattern_number(text, max);
        if (!has_max)
            *max = EXPR_FOREVER;
        has_bound |= has_max;
        skip_space(gbnf, with_lines);
    }
    return has_bound && pattern_skip(text, "}") && *max >= *min;
}

static uint32_t read_repeated(struct gbnf *gbnf, uint32_t symbol, bool with_lines)
{
    struct pattern_text *text = &gbnf->text;
    uint32_t min = 1, max = 1;
    if (pattern_skip(text, "*"))
        min = 0, max = EXPR_FOREVER;
    else if (pattern_skip(text, "+"))
        max = EXPR_FOREVER;
    else if (pattern_skip(text, "?"))
        min = 0;
    else if (!pattern_skip(text, "{"))
        return symbol;
    else if (!read_times(gbnf, with_lines, &min, &max))
        is_wrong(gbnf, "expected '{m}', '{m,}' or '{m,n}'");
    return text->failed ? 0 : grammar_repeat(gbnf->grammar, symbol, min, max);
}

static uint32_t read_sequence(struct gbnf *gbnf, unsigned depth)
{
    uint32_t sequence = 0;
    while (!gbnf->text.failed && !gbnf->grammar->failed) {
        uint32_t symbol = read_symbol(gbnf, depth);
        if (!symbol)
            break;
        skip_space(gbnf, depth);
        while (!gbnf->text.failed && gbnf->text.at < gbnf->text.len &&
               memchr("*+?{", gbnf->text.text[gbnf->text.at], 4)) {
            symbol = read_repeated(gbnf, symbol, depth);
            skip_space(gbnf, depth);
        }
        sequence = sequence ? grammar_cat(gbnf->grammar, sequence, symbol) : symbol;
    }
    return sequence ? sequence : grammar_terminal(gbnf->grammar, EXPR_EMPTY);
}

static uint32_t read_alternatives(struct gbnf *gbnf, unsigned depth)
{
    struct grammar_union all = {0};
    grammar_union_add(gbnf->grammar, &all, read_sequence(gbnf, depth));
    while (!gbnf->text.failed && pattern_skip(&gbnf->text, "|")) {
        skip_space(gbnf, true);
        grammar_union_add(gbnf->grammar, &all, read_sequence(gbnf, depth));
    }
    return grammar_union_end(gbnf->grammar, &all);
}

static void read_rule(struct gbnf *gbnf)
{
    struct pattern_text *text = &gbnf->text;
    size_t n_name = name_length(gbnf);
    if (!n_name) {
        is_wrong(gbnf, "expected the name of a rule");
        return;
    }
    uint32_t rule = grammar_rule(gbnf->grammar, text->text + text->at, n_name);
    text->at += n_name;
    skip_space(gbnf, false);
    if (!pattern_skip(text, "::=")) {
        is_wrong(gbnf, "expected '::='");
        return;
    }
    skip_space(gbnf, true);
    uint32_t symbol = read_alternatives(gbnf, 0);
    if (!text->failed && text->at < text->len && text->text[text->at] != '\n' && text->text[text->at] != '\r')
        is_wrong(gbnf, "expected the end of the rule");
    if (!text->failed)
        grammar_define(gbnf->grammar, rule, symbol);
    skip_space(gbnf, true);
}

int gbnf_grammar(const struct constrain_limits *limits, const char *text, size_t len, struct grammar **out,
                 runnel_error *error)
{
    runnel_error found = {0};
    struct gbnf gbnf = {.text = {.text = text, .len = len, .error = &found}};
    int code = grammar_create(limits, &gbnf.grammar, error);
    if (code)
        return code;
    skip_space(&gbnf, true);
    while (!gbnf.text.failed && !gbnf.grammar->failed && gbnf.text.at < len)
        read_rule(&gbnf);
    if (gbnf.grammar->failed ||
        gbnf.grammar->exprs->failed) { /* where it had no room, the text was read no further */
        code = grammar_check(gbnf.grammar, error);
        error_prefix(error, "grammar");
    } else if (gbnf.text.failed) {
        code = error_set(error, found.code, "grammar: %s", found.message);
    } else {
        gbnf.grammar->start = grammar_rule(gbnf.grammar, "root", strlen("root"));
        code = grammar_check(gbnf.grammar, error);
        if (code)
            error_prefix(error, "grammar");
    }
    if (code)
        grammar_free(gbnf.grammar);
    else
        *out = gbnf.grammar;
    return code;
}
