/* trie.c: see trie.h. */
#include "constrain/trie.h"

#include <stdlib.h>
#include <string.h>

void trie_free(struct trie *trie)
{
    if (!trie)
        return;
    free(trie->nodes);
    free(trie->same);
    free(trie->tokens);
    free(trie->bytes);
    free(trie->ends);
    free(trie);
}

static int by_bytes(const void *one, const void *other, void *tokens)
{
    int32_t x = *(const int32_t *)one, y = *(const int32_t *)other;
    const struct trie_token *a = (const struct trie_token *)tokens + x,
                            *b = (const struct trie_token *)tokens + y;
    size_t len = a->len < b->len ? a->len : b->len;
    int order = memcmp(a->bytes, b->bytes, len);
    if (order || a->len != b->len)
        return order ? order : a->len < b->len ? -1 : 1;
    return (x > y) - (x < y);
}

static size_t common(const struct trie_token *a, const struct trie_token *b)
{
    size_t n = 0;
    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Tokens in the order of their bytes to nodes: each adds those behind what it has in common with the one before. */
static void build(struct trie *trie, const int32_t *order, uint32_t n)
{
    uint32_t path[TRIE_DEPTH]; /* the nodes of the token before */
    size_t depth = 0;
    int32_t before = -1;
    for (uint32_t i = 0; i < n; i++) {
        const struct trie_token *token = &trie->tokens[order[i]];
        size_t shared = before < 0 ? 0 : common(token, &trie->tokens[before]);
        if (before >= 0 && shared == token->len && shared == depth) { /* the same bytes */
            trie->same[order[i]] = trie->same[before];
            trie->same[before] = order[i];
            continue;
        }
        for (; depth > shared; depth--)
            trie->nodes[path[depth - 1]].after = trie->n_nodes;
        for (; depth < token->len; depth++) {
            path[depth] = trie->n_nodes;
            trie->nodes[trie->n_nodes++] = (struct trie_node){
                .token = -1, .byte = (uint8_t)token->bytes[depth], .depth = (uint8_t)depth};
        }
        trie->nodes[trie->n_nodes - 1].token = order[i];
        before = order[i];
    }
    for (; depth; depth--)
        trie->nodes[path[depth - 1]].after = trie->n_nodes;
}

int trie_create(const struct trie_token *tokens, uint32_t n_tokens, const int32_t *ends, size_t n_ends,
                struct trie **out, runnel_error *error)
{
    struct trie *trie = calloc(1, sizeof *trie);
    int32_t *order = malloc((n_tokens + (size_t)1) * sizeof *order);
    size_t n_bytes = 0;
    uint32_t n = 0;
    if (!trie || !order)
        goto no_memory;
    for (uint32_t i = 0; i < n_tokens; i++)
        n_bytes += tokens[i].len;
    trie->n_tokens = n_tokens;
    trie->n_ends = n_ends;
    trie->nodes = malloc((n_bytes + 1) * sizeof *trie->nodes);
    trie->same = malloc((n_tokens + (size_t)1) * sizeof *trie->same);
    trie->tokens = calloc(n_tokens + (size_t)1, sizeof *trie->tokens);
    trie->bytes = malloc(n_bytes + 1);
    trie->ends = malloc((n_ends + 1) * sizeof *trie->ends);
    if (!trie->nodes || !trie->same || !trie->tokens || !trie->bytes || !trie->ends)
        goto no_memory;
    if (n_ends)
        memcpy(trie->ends, ends, n_ends * sizeof *ends);
    n_bytes = 0;
    for (uint32_t i = 0; i < n_tokens; i++) {
        trie->same[i] = -1;
        trie->tokens[i] = (struct trie_token){.bytes = trie->bytes + n_bytes, .len = tokens[i].len};
        if (!tokens[i].len)
            continue;
        memcpy(trie->bytes + n_bytes, tokens[i].bytes, tokens[i].len);
        n_bytes += tokens[i].len;
        if (tokens[i].len <= TRIE_DEPTH && !trie_is_end(trie, (int32_t)i))
            order[n++] = (int32_t)i;
    }
    qsort_r(order, n, sizeof *order, by_bytes, trie->tokens);
    build(trie, order, n);
    struct trie_node *fitting = realloc(trie->nodes, (trie->n_nodes + (size_t)1) * sizeof *fitting);
    if (fitting)
        trie->nodes = fitting;
    free(order);
    *out = trie;
    return RUNNEL_OK;
no_memory:
    free(order);
    trie_free(trie);
    return error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", n_tokens);
}

bool trie_is_end(const struct trie *trie, int32_t token)
{
    for (size_t i = 0; i < trie->n_ends; i++)
        if (trie->ends[i] == token)
            return true;
    return false;
}
