/* trie.c: see trie.h. */
#include "constrain/trie.h"

#include <stdlib.h>
#include <string.h>

void trie_free(struct trie *trie)
{
    if (!trie)
        return;
    for (unsigned i = 0; i < TRIE_PARTS; i++) {
        free(trie->parts[i].nodes);
        free(trie->parts[i].order);
    }
    free(trie->all_chars);
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
static void build(const struct trie *trie, struct trie_part *part)
{
    uint32_t path[TRIE_DEPTH]; /* the nodes of the token before */
    struct trie_node *nodes = part->nodes;
    size_t depth = 0;
    for (uint32_t i = 0; i < part->n_order; i++) {
        const struct trie_token *token = &trie->tokens[part->order[i]];
        size_t shared = i ? common(token, &trie->tokens[part->order[i - 1]]) : 0;
        for (; depth > shared; depth--)
            nodes[path[depth - 1]].after = part->n_nodes;
        for (; depth < token->len; depth++) {
            path[depth] = part->n_nodes;
            nodes[part->n_nodes++] = (struct trie_node){
                .first = i,
                .byte = (uint8_t)token->bytes[depth],
                .depth = (uint8_t)depth,
                .ends_a_char =
                    depth + 1 == token->len || ((unsigned char)token->bytes[depth + 1] & 0xc0) != 0x80,
            };
        }
        nodes[path[depth - 1]].n_own++;
    }
    for (; depth; depth--)
        nodes[path[depth - 1]].after = part->n_nodes;
    nodes[part->n_nodes] = (struct trie_node){.after = part->n_nodes, .first = part->n_order};
}

/* How many characters there are below each node. From the last node on: those of a depth are brothers until one above comes. */
static void count_chars(struct trie_part *part)
{
    uint16_t most[TRIE_DEPTH + 1] = {0};
    for (uint32_t i = part->n_nodes; i-- > 0;) {
        struct trie_node *node = &part->nodes[i];
        uint16_t here;
        node->n_below = most[node->depth + 1];
        most[node->depth + 1] = 0;
        here = (uint16_t)(node->n_below + node->ends_a_char);
        most[node->depth] = here > most[node->depth] ? here : most[node->depth];
    }
    part->n_chars = most[0];
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

/* Sorts the tokens of a part, and builds it. */
static int make_part(struct trie *trie, unsigned which, runnel_error *error)
{
    struct trie_part *part = &trie->parts[which];
    size_t n_bytes = 0;
    part->order = malloc((trie->n_tokens + (size_t)1) * sizeof *part->order);
    if (!part->order)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", trie->n_tokens);
    for (uint32_t i = 0; i < trie->n_tokens; i++) {
        const struct trie_token *token = &trie->tokens[i];
        if (!token->len || token->len > TRIE_DEPTH || trie_is_end(trie, (int32_t)i) ||
            is_of_chars(token) != (which == TRIE_CHARS))
            continue;
        part->order[part->n_order++] = (int32_t)i;
        n_bytes += token->len;
        if (which == TRIE_CHARS)
            trie->all_chars[i / 32] |= 1u << (i % 32);
    }
    qsort_r(part->order, part->n_order, sizeof *part->order, by_bytes, trie->tokens);
    part->nodes = malloc((n_bytes + 1) * sizeof *part->nodes);
    if (!part->nodes)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the trie of %u tokens", trie->n_tokens);
    build(trie, part);
    count_chars(part);
    struct trie_node *fitting = realloc(part->nodes, (part->n_nodes + (size_t)1) * sizeof *fitting);
    if (fitting)
        part->nodes = fitting;
    return RUNNEL_OK;
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
