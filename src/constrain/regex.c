/* regex.c: see regex.h. */
#include "constrain/regex.h"
#include "constrain/pattern_text.h"

#include <string.h>

enum {
    MAX_GROUPS = 200, /* within each other */
    MAX_LOOKS = 16,   /* lookaheads of an alternative */
    MAX_LAST_GROUPS = 8,
    AT_START = 1,
    AT_END = 2,
};

/* What a part of a pattern matches, by what has to hold for it: that it begins where the text does (AT_START), that it ends where
 * the text does (AT_END), both, or nothing. */
struct piece {
    uint32_t by[4];
};

struct reading {
    struct pattern_text text;
    struct exprs *exprs;
    const struct regex_options *options;
    uint32_t any_text; /* any characters */
};

/* An alternative outside of groups, cut by its lookaheads: parts[0], looks[0], parts[1], ... */
struct alternative {
    struct piece parts[MAX_LOOKS + 1];
    struct piece looks[MAX_LOOKS];
    bool is_negative[MAX_LOOKS];
    unsigned n_looks;
};

static bool refuse(struct reading *reading, const char *what)
{
    return pattern_fail(&reading->text, RUNNEL_EUNSUPPORTED, what);
}

static bool is_wrong(struct reading *reading, const char *what)
{
    return pattern_fail(&reading->text, RUNNEL_EINVAL, what);
}

static struct piece plain(uint32_t expr)
{
    return (struct piece){{expr}};
}

static struct piece piece_cat(struct exprs *exprs, struct piece a, struct piece b)
{
    struct piece joined = {{0}};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned k = 0; k < 4; k++) {
            uint32_t x = a.by[i], y = b.by[k];
            if (x == EXPR_NONE || y == EXPR_NONE)
                continue;
            if (k & AT_START)
                x = expr_is_nullable(exprs, x) ? EXPR_EMPTY : EXPR_NONE;
            if (i & AT_END)
                y = expr_is_nullable(exprs, y) ? EXPR_EMPTY : EXPR_NONE;
            joined.by[i | k] = expr_either(exprs, joined.by[i | k], expr_cat(exprs, x, y));
        }
    return joined;
}

struct piece_union {
    struct expr_union by[4];
};

static void piece_union_add(struct exprs *exprs, struct piece_union *all, struct piece piece)
{
    for (unsigned i = 0; i < 4; i++)
        expr_union_add(exprs, &all->by[i], piece.by[i]);
}

static struct piece piece_union_end(struct exprs *exprs, const struct piece_union *all)
{
    struct piece piece;
    for (unsigned i = 0; i < 4; i++)
        piece.by[i] = expr_union_end(exprs, &all->by[i]);
    return piece;
}

static bool has_anchor(struct piece piece)
{
    return piece.by[1] || piece.by[2] || piece.by[3];
}

/* What is left of the text once a piece was read to its end. */
static uint32_t closed_end(const struct reading *reading, struct piece piece, unsigned start, bool is_whole)
{
    uint32_t rest = is_whole ? EXPR_EMPTY : reading->any_text;
    return expr_either(reading->exprs, expr_cat(reading->exprs, piece.by[start], rest),
                       piece.by[start | AT_END]);
}

/* --- characters ----------------------------------------------------------------------------------------------------- */

static void add_digits(struct charset *set)
{
    charset_add(set, '0', '9');
}

static void add_word(struct charset *set)
{
    add_digits(set);
    charset_add(set, 'A', 'Z');
    charset_add(set, '_', '_');
    charset_add(set, 'a', 'z');
}

static void add_space(struct charset *set)
{
    static const struct char_range spaces[] = {
        {9, 13},          {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        charset_add(set, spaces[i].from, spaces[i].to);
}

/* \d and the like, behind the backslash: adds it and returns true. */
static bool add_class(uint32_t letter, struct charset *set)
{
    struct charset members = {0};
    switch (letter | 0x20) {
    case 'd':
        add_digits(&members);
        break;
    case 'w':
        add_word(&members);
        break;
    case 's':
        add_space(&members);
        break;
    default:
        return false;
    }
    if (letter < 'a')
        charset_negate(&members);
    charset_add_all(set, &members);
    charset_free(&members);
    return true;
}

/* \uHHHH, \u{H...}, a pair of surrogates; behind the u. */
static uint32_t take_unicode(struct reading *reading)
{
    struct pattern_text *text = &reading->text;
    uint32_t high, low, digit, number = 0;
    if (pattern_skip(text, "{")) {
        while (pattern_hex(text, 1, &digit) && number <= CHARSET_LAST)
            number = number << 4 | digit;
        if (number > CHARSET_LAST || !pattern_skip(text, "}"))
            is_wrong(reading, "expected a character's number and '}'");
        return number;
    }
    if (!pattern_hex(text, 4, &high))
        return 'u';
    size_t behind = text->at;
    if (high >= 0xd800 && high <= 0xdbff && pattern_skip(text, "\\u") && pattern_hex(text, 4, &low) &&
        low >= 0xdc00 && low <= 0xdfff)
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    text->at = behind;
    return high;
}

/* The character of an escape, behind its backslash. */
static uint32_t take_escape(struct reading *reading)
{
    struct pattern_text *text = &reading->text;
    uint32_t number, letter = pattern_take(text);
    switch (letter) {
    case 't':
        return '\t';
    case 'n':
        return '\n';
    case 'v':
        return '\v';
    case 'f':
        return '\f';
    case 'r':
        return '\r';
    case '0':
        if (pattern_peek(text) >= '0' && pattern_peek(text) <= '9')
            refuse(reading, "octal numbers of characters are not supported");
        return 0;
    case 'a':
        return 7;
    case 'e':
        return 27;
    case 'c':
        letter = pattern_take(text) | 0x20;
        if (letter < 'a' || letter > 'z')
            is_wrong(reading, "expected a letter behind '\\c'");
        return letter & 31;
    case 'x':
        return pattern_hex(text, 2, &number) ? number : 'x';
    case 'u':
        return take_unicode(reading);
    case TEXT_OVER:
        is_wrong(reading, "expected a character behind the backslash");
        return 0;
    default:
        break;
    }
    if (letter >= '1' && letter <= '9')
        refuse(reading, "references back are not supported");
    else if (letter == 'b' || letter == 'B')
        refuse(reading, "borders of words ('\\b') are not supported");
    else if (letter == 'p' || letter == 'P')
        refuse(reading, "properties of characters ('\\p') are not supported");
    else if (letter < 0x80 && ((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z'))
        refuse(reading, "the letter before this is no escape that is known");
    return letter;
}

/* One character of a class, or one of its escapes for many: then *is_many. */
static uint32_t take_member(struct reading *reading, struct charset *set, bool *is_many)
{
    struct pattern_text *text = &reading->text;
    *is_many = false;
    if (!pattern_skip(text, "\\"))
        return pattern_take(text);
    uint32_t letter = pattern_peek(text);
    if (letter < 0x80 && add_class(letter, set)) {
        *is_many = true;
        pattern_take(text);
        return 0;
    }
    if (pattern_skip(text, "b"))
        return '\b';
    if (pattern_skip(text, "-"))
        return '-';
    return take_escape(reading);
}

/* Behind '['. */
static uint32_t read_class(struct reading *reading)
{
    struct pattern_text *text = &reading->text;
    struct charset set = {0};
    bool is_negative = pattern_skip(text, "^"), is_many, other_is_many;
    while (!text->failed && !pattern_skip(text, "]")) {
        if (pattern_peek(text) == TEXT_OVER) {
            is_wrong(reading, "expected ']'");
            break;
        }
        uint32_t from = take_member(reading, &set, &is_many), to = from;
        size_t behind = text->at;
        if (pattern_skip(text, "-") && pattern_peek(text) != ']' && pattern_peek(text) != TEXT_OVER) {
            to = take_member(reading, &set, &other_is_many);
            if (is_many || other_is_many) { /* [\w-x]: the '-' is one of the members */
                charset_add(&set, '-', '-');
                if (!is_many)
                    charset_add(&set, from, from);
                if (!other_is_many)
                    charset_add(&set, to, to);
                continue;
            }
            if (to < from)
                is_wrong(reading, "a range ends before it begins");
        } else {
            text->at = behind;
        }
        if (!is_many)
            charset_add(&set, from, to);
    }
    if (is_negative)
        charset_negate(&set);
    else
        charset_sort(&set);
    uint32_t expr = charset_expr(reading->exprs, &set, reading->options->form);
    charset_free(&set);
    return expr;
}

static uint32_t read_escape(struct reading *reading)
{
    struct charset set = {0};
    uint32_t letter = pattern_peek(&reading->text);
    if (letter < 0x80 && add_class(letter, &set)) {
        pattern_take(&reading->text);
        charset_sort(&set);
        uint32_t expr = charset_expr(reading->exprs, &set, reading->options->form);
        charset_free(&set);
        return expr;
    }
    uint32_t character = take_escape(reading);
    return char_range_expr(reading->exprs, character, character, reading->options->form);
}

/* Any character but the end of a line. */
static uint32_t dot(struct reading *reading)
{
    struct char_range ranges[] = {
        {0, '\n' - 1}, {'\n' + 1, '\r' - 1}, {'\r' + 1, 0x2027}, {0x202a, CHARSET_LAST}};
    return charset_expr(reading->exprs, &(struct charset){.ranges = ranges, .n = 4}, reading->options->form);
}

/* --- parts ---------------------------------------------------------------------------------------------------------- */

static struct piece read_alternatives(struct reading *reading, unsigned depth);

/* Behind '('. */
static struct piece read_group(struct reading *reading, unsigned depth)
{
    struct pattern_text *text = &reading->text;
    struct piece piece = {{0}};
    if (pattern_skip(text, "?<=") || pattern_skip(text, "?<!")) {
        refuse(reading, "lookbehind is not supported");
    } else if (pattern_skip(text, "?=") || pattern_skip(text, "?!")) {
        refuse(reading, "lookahead within a group is not supported");
    } else if (pattern_skip(text, "?<") || pattern_skip(text, "?P<")) {
        while (pattern_peek(text) != TEXT_OVER && pattern_take(text) != '>')
            ;
    } else if (!pattern_skip(text, "?:") && pattern_peek(text) == '?') {
        refuse(reading, "flags of groups are not supported");
    }
    if (depth >= MAX_GROUPS)
        refuse(reading, "groups are nested too deep");
    if (text->failed)
        return piece;
    piece = read_alternatives(reading, depth + 1);
    if (!text->failed && !pattern_skip(text, ")"))
        is_wrong(reading, "expected ')'");
    return piece;
}

static struct piece read_atom(struct reading *reading, unsigned depth)
{
    struct pattern_text *text = &reading->text;
    size_t begin = text->at;
    uint32_t character = pattern_take(text), min, max;
    switch (character) {
    case '^':
        return (struct piece){.by = {[AT_START] = EXPR_EMPTY}};
    case '$':
        return (struct piece){.by = {[AT_END] = EXPR_EMPTY}};
    case '(':
        return read_group(reading, depth);
    case '[':
        return plain(read_class(reading));
    case '.':
        return plain(dot(reading));
    case '\\':
        return plain(read_escape(reading));
    case '{':
        if (!pattern_times(text, &min, &max))
            return plain(char_range_expr(reading->exprs, '{', '{', reading->options->form));
        text->at = begin + 1;
        is_wrong(reading, "there is nothing to repeat");
        return plain(EXPR_NONE);
    case '*':
    case '+':
    case '?':
        text->at--;
        is_wrong(reading, "there is nothing to repeat");
        return plain(EXPR_NONE);
    default:
        return plain(char_range_expr(reading->exprs, character, character, reading->options->form));
    }
}

static struct piece repeated(struct reading *reading, struct piece piece, uint32_t min, uint32_t max)
{
    struct exprs *exprs = reading->exprs;
    if (max < min)
        is_wrong(reading, "a repetition's upper bound is below its lower one");
    if (has_anchor(piece)) {
        if (max != 1)
            refuse(reading, "'^' and '$' within what is repeated are not supported");
        if (!min)
            piece.by[0] = expr_optional(exprs, piece.by[0]);
        return piece;
    }
    return plain(expr_repeat(exprs, piece.by[0], min, max));
}

static struct piece read_item(struct reading *reading, unsigned depth)
{
    struct pattern_text *text = &reading->text;
    struct piece piece = read_atom(reading, depth);
    uint32_t min = 1, max = 1;
    bool is_repeated = true;
    if (pattern_skip(text, "*"))
        min = 0, max = EXPR_FOREVER;
    else if (pattern_skip(text, "+"))
        max = EXPR_FOREVER;
    else if (pattern_skip(text, "?"))
        min = 0;
    else if (!pattern_skip(text, "{"))
        is_repeated = false;
    else if (!pattern_times(text, &min, &max)) {
        text->at--; /* a brace like others */
        is_repeated = false;
    }
    if (!is_repeated || text->failed)
        return piece;
    pattern_skip(text, "?"); /* lazy: the same texts */
    return repeated(reading, piece, min, max);
}

static bool is_end_of_alternative(struct reading *reading, unsigned depth)
{
    uint32_t next = pattern_peek(&reading->text);
    return next == TEXT_OVER || next == '|' || (depth && next == ')');
}

static struct piece read_sequence(struct reading *reading, unsigned depth)
{
    struct piece piece = plain(EXPR_EMPTY);
    while (!reading->text.failed && !is_end_of_alternative(reading, depth))
        piece = piece_cat(reading->exprs, piece, read_item(reading, depth));
    return piece;
}

static struct piece read_alternatives(struct reading *reading, unsigned depth)
{
    struct piece_union all = {{{0}}};
    do
        piece_union_add(reading->exprs, &all, read_sequence(reading, depth));
    while (!reading->text.failed && pattern_skip(&reading->text, "|"));
    return piece_union_end(reading->exprs, &all);
}

/* --- whole texts ---------------------------------------------------------------------------------------------------- */

/* "^" and nothing else. */
static bool is_start(const struct piece *piece)
{
    return !piece->by[0] && piece->by[AT_START] == EXPR_EMPTY && !piece->by[AT_END] &&
           !piece->by[AT_START | AT_END];
}

/* What it is at the beginning of a text, where "^" in it holds. */
static struct piece without_start(struct exprs *exprs, struct piece piece)
{
    return (struct piece){
        .by = {[0] = expr_either(exprs, piece.by[0], piece.by[AT_START]),
               [AT_END] = expr_either(exprs, piece.by[AT_END], piece.by[AT_START | AT_END])}};
}

/* The texts in which an alternative occurs, from its last part to its first. */
static uint32_t whole_texts(struct reading *reading, const struct alternative *alternative)
{
    struct exprs *exprs = reading->exprs;
    bool is_whole = reading->options->is_whole;
    unsigned last = alternative->n_looks;
    const struct piece *first = &alternative->parts[0];
    uint32_t rest = closed_end(reading, alternative->parts[last], 0, is_whole), anchored, loose;
    for (unsigned i = last; i-- > 0;) {
        const struct piece *part = &alternative->parts[i], *behind = part + 1;
        struct piece look = alternative->looks[i];
        if (i == 0 && is_start(part))
            look = without_start(exprs, look);
        if (look.by[1] || look.by[3] || behind->by[1] || behind->by[3] || part->by[2] || part->by[3])
            refuse(reading, "'^' behind a lookahead, or '$' before one, is not supported");
        uint32_t seen = closed_end(reading, look, 0, false);
        rest = expr_both(exprs, rest, alternative->is_negative[i] ? expr_not(exprs, seen) : seen);
        if (i)
            rest = expr_cat(exprs, part->by[0], rest);
    }
    if (last) {
        loose = expr_cat(exprs, first->by[0], rest);
        anchored = expr_cat(exprs, first->by[AT_START], rest);
    } else {
        loose = rest;
        anchored = closed_end(reading, *first, AT_START, is_whole);
    }
    if (!is_whole)
        loose = expr_cat(exprs, reading->any_text, loose);
    return expr_either(exprs, anchored, loose);
}

/* Whether a group begins here that stands last in its alternative and has a lookahead in it: what is before it is then before each of
 * its alternatives. */
static bool is_last_with_look(const struct reading *reading)
{
    const char *text = reading->text.text;
    size_t at = reading->text.at, len = reading->text.len;
    unsigned depth = 0;
    bool is_class = false, has_look = false;
    if (at + 2 < len && text[at + 1] == '?' && text[at + 2] != ':')
        return false;
    for (; at < len; at++) {
        char c = text[at];
        if (c == '\\') {
            at++;
        } else if (is_class || c == '[') {
            is_class = c != ']';
        } else if (c == '(') {
            depth++;
            has_look |= at + 2 < len && text[at + 1] == '?' && (text[at + 2] == '=' || text[at + 2] == '!');
        } else if (c == ')') {
            depth -= depth > 0;
        }
        if (!depth)
            break;
    }
    return has_look && (at + 1 >= len || text[at + 1] == '|' || text[at + 1] == ')');
}

/* Behind "(?=" or "(?!". */
static void read_look(struct reading *reading, struct alternative *alternative, bool is_negative)
{
    if (alternative->n_looks == MAX_LOOKS) {
        refuse(reading, "too many lookaheads");
        return;
    }
    alternative->looks[alternative->n_looks] = read_alternatives(reading, 1);
    alternative->is_negative[alternative->n_looks++] = is_negative;
    alternative->parts[alternative->n_looks] = plain(EXPR_EMPTY);
    if (!reading->text.failed && !pattern_skip(&reading->text, ")"))
        is_wrong(reading, "expected ')'");
}

/* What follows an alternative's beginning, in so many last groups; adds its texts, or those of the group's alternatives that end it. */
static void read_outer(struct reading *reading, struct alternative alternative, unsigned depth,
                       struct expr_union *all)
{
    struct pattern_text *text = &reading->text;
    while (!text->failed && !is_end_of_alternative(reading, depth)) {
        struct piece *part = &alternative.parts[alternative.n_looks];
        if (pattern_skip(text, "(?=")) {
            read_look(reading, &alternative, false);
        } else if (pattern_skip(text, "(?!")) {
            read_look(reading, &alternative, true);
        } else if (depth < MAX_LAST_GROUPS && is_last_with_look(reading) &&
                   (pattern_skip(text, "(?:") || pattern_skip(text, "("))) {
            do
                read_outer(reading, alternative, depth + 1, all);
            while (!text->failed && pattern_skip(text, "|"));
            if (!text->failed && !pattern_skip(text, ")"))
                is_wrong(reading, "expected ')'");
            return;
        } else {
            if (pattern_peek(text) == ')')
                is_wrong(reading, "there is no '(' for this");
            *part = piece_cat(reading->exprs, *part, read_item(reading, depth));
        }
    }
    if (!text->failed)
        expr_union_add(reading->exprs, all, whole_texts(reading, &alternative));
}

int regex_expr(struct exprs *exprs, const char *pattern, size_t len, const struct regex_options *options,
               uint32_t *out, runnel_error *error)
{
    runnel_error found = {0};
    struct reading reading = {
        .text = {.text = pattern, .len = len, .error = &found}, .exprs = exprs, .options = options};
    uint32_t any = char_range_expr(exprs, 0, CHARSET_LAST, options->form);
    struct expr_union all = {0};
    reading.any_text = expr_repeat(exprs, any, 0, EXPR_FOREVER);
    do
        read_outer(&reading, (struct alternative){.parts = {plain(EXPR_EMPTY)}}, 0, &all);
    while (!reading.text.failed && pattern_skip(&reading.text, "|"));
    uint32_t expr = expr_union_end(exprs, &all);
    if (reading.text.failed)
        return error_set(error, found.code, "pattern: %s", found.message);
    if (exprs->no_memory)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a pattern");
    if (exprs->failed)
        return error_set(error, RUNNEL_EUNSUPPORTED, "pattern: it is too large, or nested too deep");
    *out = expr;
    return RUNNEL_OK;
}

int regex_grammar(const struct constrain_limits *limits, const char *pattern, size_t len,
                  struct grammar **out, runnel_error *error)
{
    static const struct regex_options options = {.form = CHAR_UTF8, .is_whole = true};
    struct grammar *grammar;
    uint32_t expr;
    int code = grammar_create(limits, &grammar, error);
    if (code)
        return code;
    code = regex_expr(grammar->exprs, pattern, len, &options, &expr, error);
    if (!code) {
        grammar->start = grammar_rule(grammar, NULL, 0);
        grammar_define(grammar, grammar->start, grammar_terminal(grammar, expr));
        code = grammar_check(grammar, error);
    }
    if (code)
        grammar_free(grammar);
    else
        *out = grammar;
    return code;
}
