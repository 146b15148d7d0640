/* trie_part.c: see trie_part.h. */
#include "constrain/trie_part.h"

#include <stdlib.h>
#include <string.h>

void trie_part_free(struct trie_part *part)
{
    free(part->nodes);
    free(part->order);
    *part = (struct trie_part){0};
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
static void make_nodes(struct trie_part *part, const struct trie_token *tokens)
{
    uint32_t path[TRIE_DEPTH]; /* the nodes of the token before */
    struct trie_node *nodes = part->nodes;
    size_t depth = 0;
    for (uint32_t i = 0; i < part->n_order; i++) {
        const struct trie_token *token = &tokens[part->order[i]];
        size_t shared = i ? common(token, &tokens[part->order[i - 1]]) : 0;
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

bool trie_part_build(struct trie_part *part, const struct trie_token *tokens)
{
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < part->n_order; i++)
        n_bytes += tokens[part->order[i]].len;
    part->nodes = malloc((n_bytes + 1) * sizeof *part->nodes);
    if (!part->nodes)
        return false;
    if (part->n_order)
        qsort_r(part->order, part->n_order, sizeof *part->order, by_bytes, (void *)(uintptr_t)tokens);
    make_nodes(part, tokens);
    count_chars(part);
    struct trie_node *fitting = realloc(part->nodes, (part->n_nodes + (size_t)1) * sizeof *fitting);
    if (fitting)
        part->nodes = fitting;
    return true;
}
