/* trie.c: see trie.h. */
#include "constrain/trie.h"

#include <stdlib.h>
#include <string.h>

void trie_free(struct trie *trie)
{
    if (!trie)
        return;
    for (unsigned i = 0; i < TRIE_PARTS; i++)
        trie_part_free(&trie->parts[i]);
    string_tokens_free(&trie->strings);
    free(trie->all_chars);
    free(trie->tokens);
    free(trie->bytes);
    free(trie->ends);
    free(trie);
}

/* It may be in masks, by its bytes. */
static bool is_walked(const struct trie *trie, int32_t token)
{
    size_t len = trie->tokens[token].len;
    return len && len <= TRIE_DEPTH && !trie_is_end(trie, token);
}

/* Whole characters, none of which JSON would escape. */
static bool is_of_chars(const struct trie_token *token)
{
    for (size_t i = 0; i < token->len;) {
        unsigned char first = (unsigned char)token->bytes[i],
                      next = i + 1 < token->len ? (unsigned char)token->bytes[i + 1] : 0;
        size_t n = first < 0x80   ? 1
                   : first < 0xc2 ? 0
                   : first < 0xe0 ? 2
                   : first < 0xf0 ? 3
                   : first < 0xf5 ? 4
                                  : 0;
        if (first < 0x20 || first == '"' || first == '\\' || !n || n > token->len - i)
            return false;
        for (size_t k = 1; k < n; k++)
            if (((unsigned char)token->bytes[i + k] & 0xc0) != 0x80)
                return false;
        if ((first == 0xe0 && next < 0xa0) || (first == 0xed && next > 0x9f) ||
            (first == 0xf0 && next < 0x90) || (first == 0xf4 && next > 0x8f))
            return false;
        i += n;
    }
    return true;
}

/* The tokens of a part as a trie. */
static int make_part(struct trie *trie, unsigned which, runnel_error *error)
{
    struct trie_part *part = &trie->parts[which];
    part->order = malloc((trie->n_tokens + (size_t)1) * sizeof *part->order);
    for (uint32_t i = 0; i < trie->n_tokens && part->order; i++) {
        const struct trie_token *token = &trie->tokens[i];
        if (!is_walked(trie, (int32_t)i) || is_of_chars(token) != (which == TRIE_CHARS))
            continue;
        part->order[part->n_order++] = (int32_t)i;
        if (which == TRIE_CHARS)
            trie->all_chars[i / 32] |= 1u << (i % 32);
    }
    if (!part->order || !trie_part_build(part, trie->tokens))
        return error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", trie->n_tokens);
    return RUNNEL_OK;
}

/* Tokens without those that are in no mask, or only as an end. */
static int make_strings(struct trie *trie, runnel_error *error)
{
    struct trie_token *walked = calloc(trie->n_tokens + (size_t)1, sizeof *walked);
    for (uint32_t i = 0; i < trie->n_tokens && walked; i++)
        if (is_walked(trie, (int32_t)i))
            walked[i] = trie->tokens[i];
    bool made = walked && string_tokens_create(walked, trie->n_tokens, &trie->strings);
    free(walked);
    return made ? RUNNEL_OK
                : error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", trie->n_tokens);
}

/* Copies of all tokens and ends. False: no memory. */
static bool copy_tokens(struct trie *trie, const struct trie_token *tokens, const int32_t *ends)
{
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < trie->n_tokens; i++)
        n_bytes += tokens[i].len;
    trie->tokens = calloc(trie->n_tokens + (size_t)1, sizeof *trie->tokens);
    trie->all_chars = calloc(trie_mask_words(trie) + (size_t)1, sizeof *trie->all_chars);
    trie->bytes = malloc(n_bytes + 1);
    trie->ends = malloc((trie->n_ends + 1) * sizeof *trie->ends);
    if (!trie->tokens || !trie->all_chars || !trie->bytes || !trie->ends)
        return false;
    if (trie->n_ends)
        memcpy(trie->ends, ends, trie->n_ends * sizeof *ends);
    n_bytes = 0;
    for (uint32_t i = 0; i < trie->n_tokens; i++) {
        trie->tokens[i] = (struct trie_token){.bytes = trie->bytes + n_bytes, .len = tokens[i].len};
        if (tokens[i].len)
            memcpy(trie->bytes + n_bytes, tokens[i].bytes, tokens[i].len);
        n_bytes += tokens[i].len;
    }
    return true;
}

int trie_create(const struct trie_token *tokens, uint32_t n_tokens, const int32_t *ends, size_t n_ends,
                struct trie **out, runnel_error *error)
{
    struct trie *trie = calloc(1, sizeof *trie);
    int code = RUNNEL_OK;
    if (!trie)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", n_tokens);
    trie->n_tokens = n_tokens;
    trie->n_ends = n_ends;
    if (!copy_tokens(trie, tokens, ends))
        code = error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", n_tokens);
    for (unsigned i = 0; i < TRIE_PARTS && !code; i++)
        code = make_part(trie, i, error);
    if (!code)
        code = make_strings(trie, error);
    if (code)
        trie_free(trie);
    else
        *out = trie;
    return code;
}

bool trie_is_end(const struct trie *trie, int32_t token)
{
    for (size_t i = 0; i < trie->n_ends; i++)
        if (trie->ends[i] == token)
            return true;
    return false;
}
