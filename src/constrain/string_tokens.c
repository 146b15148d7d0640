/* string_tokens.c: see string_tokens.h. */
#include "constrain/string_tokens.h"
#include "constrain/charset.h"
#include "constrain/scanner.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_EXPRS = 1 << 12, /* of one character as JSON writes it; a few hundred are made */
    MAX_SCANS = 1 << 8,
    MAX_WORK = 1000000,
};

enum token_place {
    PLACE_NONE, /* it may not stand in a string */
    PLACE_WITHIN,
    PLACE_CLOSING, /* it has the closing quote */
};

/* Reads strings: between two characters it is in the state `home`. */
struct reader {
    struct exprs *exprs;
    struct scanner *scanner;
    uint32_t home;
};

static void reader_free(struct reader *reader)
{
    scanner_free(reader->scanner);
    exprs_free(reader->exprs);
}

static bool reader_create(struct reader *reader)
{
    uint32_t chars = EXPR_NONE;
    *reader = (struct reader){.exprs = exprs_create(MAX_EXPRS, MAX_WORK)};
    if (reader->exprs) {
        chars = char_range_expr(reader->exprs, 0, CHARSET_LAST, CHAR_JSON);
        chars = expr_repeat(reader->exprs, chars, 0, EXPR_FOREVER);
        reader->scanner = scanner_create(reader->exprs, MAX_SCANS);
    }
    if (reader->scanner) {
        reader->home = scanner_state(reader->scanner, chars);
        return true;
    }
    reader_free(reader);
    return false;
}

/* len: bytes up to the end, or to the closing quote, which is included. */
static enum token_place look_at(struct reader *reader, const struct trie_token *token, uint16_t *n_chars,
                                size_t *len)
{
    struct scanner *scanner = reader->scanner;
    uint32_t scan = reader->home;
    for (*len = 0, *n_chars = 0; *len < token->len;) {
        unsigned char byte = (unsigned char)token->bytes[(*len)++];
        if (scan == reader->home && byte == '"')
            return PLACE_CLOSING;
        scan = scanner_next(scanner, scan, scanner->class_of[byte]);
        if (scan == SCAN_DEAD)
            return PLACE_NONE;
        *n_chars += scan == reader->home;
    }
    *n_chars += scan != reader->home; /* one that is begun */
    return *len ? PLACE_WITHIN : PLACE_NONE;
}

static void add(uint32_t *words, int32_t token)
{
    words[token / 32] |= 1u << (token % 32);
}

static void add_within(struct string_tokens *strings, int32_t token, uint16_t n_chars)
{
    add(strings->all, token);
    if (n_chars > strings->max_chars)
        strings->max_chars = n_chars;
    if (n_chars > STRING_LEVELS)
        strings->longer[strings->n_longer++] = token;
    for (uint32_t level = n_chars; level <= STRING_LEVELS; level++)
        add(strings->within + (size_t)level * strings->n_words, token);
}

static int by_chars(const void *one, const void *other, void *user)
{
    const uint16_t *n_chars = user;
    int32_t a = *(const int32_t *)one, b = *(const int32_t *)other;
    return n_chars[a] != n_chars[b] ? (n_chars[a] > n_chars[b]) - (n_chars[a] < n_chars[b])
                                    : (a > b) - (a < b);
}

/* suffixes: [n_tokens] what tokens have behind the closing quote. False: no memory. */
static bool sort_tokens(struct string_tokens *strings, struct reader *reader, const struct trie_token *tokens,
                        uint32_t n_tokens, struct trie_token *suffixes)
{
    for (uint32_t i = 0; i < n_tokens; i++) {
        size_t len;
        int32_t token = (int32_t)i;
        switch (look_at(reader, &tokens[i], &strings->n_chars[i], &len)) {
        case PLACE_NONE:
            break;
        case PLACE_WITHIN:
            add_within(strings, token, strings->n_chars[i]);
            break;
        case PLACE_CLOSING:
            suffixes[i] = (struct trie_token){tokens[i].bytes + len, tokens[i].len - len};
            if (suffixes[i].len)
                strings->behind.order[strings->behind.n_order++] = token;
            else
                strings->closing[strings->n_closing++] = token;
            break;
        }
    }
    if (strings->n_longer)
        qsort_r(strings->longer, strings->n_longer, sizeof *strings->longer, by_chars, strings->n_chars);
    return !reader->scanner->failed && !reader->exprs->failed && trie_part_build(&strings->behind, suffixes);
}

void string_tokens_free(struct string_tokens *strings)
{
    free(strings->within);
    free(strings->all);
    free(strings->longer);
    free(strings->closing);
    free(strings->n_chars);
    trie_part_free(&strings->behind);
    *strings = (struct string_tokens){0};
}

bool string_tokens_create(const struct trie_token *tokens, uint32_t n_tokens, struct string_tokens *strings)
{
    struct reader reader;
    struct trie_token *suffixes = calloc(n_tokens + (size_t)1, sizeof *suffixes);
    *strings = (struct string_tokens){.n_words = (n_tokens + 31) / 32};
    strings->within = calloc(((size_t)STRING_LEVELS + 1) * strings->n_words + 1, sizeof *strings->within);
    strings->all = calloc(strings->n_words + (size_t)1, sizeof *strings->all);
    strings->longer = calloc(n_tokens + (size_t)1, sizeof *strings->longer);
    strings->closing = calloc(n_tokens + (size_t)1, sizeof *strings->closing);
    strings->behind.order = calloc(n_tokens + (size_t)1, sizeof *strings->behind.order);
    strings->n_chars = calloc(n_tokens + (size_t)1, sizeof *strings->n_chars);
    bool made = suffixes && strings->within && strings->all && strings->longer && strings->closing &&
                strings->behind.order && strings->n_chars && reader_create(&reader);
    if (made) {
        made = sort_tokens(strings, &reader, tokens, n_tokens, suffixes);
        reader_free(&reader);
    }
    free(suffixes);
    if (!made)
        string_tokens_free(strings);
    return made;
}

void string_tokens_add_within(const struct string_tokens *strings, uint32_t n, uint32_t *words)
{
    const uint32_t *set =
        n >= strings->max_chars
            ? strings->all
            : strings->within + (size_t)(n < STRING_LEVELS ? n : STRING_LEVELS) * strings->n_words;
    for (uint32_t i = 0; i < strings->n_words; i++)
        words[i] |= set[i];
    for (uint32_t i = 0; n < strings->max_chars && i < strings->n_longer; i++) {
        int32_t token = strings->longer[i];
        if (strings->n_chars[token] > n)
            break;
        add(words, token);
    }
}
