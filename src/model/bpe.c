/* bpe.c: the merge rules and the merge queue. See bpe.h. */
#include "model/bpe.h"

#include "base/utf8.h"
#include "model/merge_queue.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX /* no symbol; no rule */

/* What merges are made of and make. A control token among them would let plain text become one. */
#define CHARACTERS (KIND_BIT(TOKEN_NORMAL) | KIND_BIT(TOKEN_USER_DEFINED))
#define BYTES      (CHARACTERS | KIND_BIT(TOKEN_BYTE))

static size_t slot_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    return hash_mix(bpe->seed, (uint64_t)(uint32_t)left << 32 | (uint32_t)right) & bpe->slot_mask;
}

static uint32_t find_rank(const struct bpe *bpe, int32_t left, int32_t right)
{
    for (size_t slot = slot_of(bpe, left, right);; slot = (slot + 1) & bpe->slot_mask) {
        const struct bpe_slot *entry = &bpe->slots[slot];
        if (!entry->rank_plus_1)
            return NONE;
        if (entry->left == left && entry->right == right)
            return entry->rank_plus_1 - 1;
    }
}

static void enter_rule(struct bpe *bpe, uint32_t rank)
{
    const struct bpe_rule *rule = &bpe->rules[rank];
    if (find_rank(bpe, rule->left, rule->right) != NONE)
        return; /* the first of two equal rules holds */
    size_t slot = slot_of(bpe, rule->left, rule->right);
    while (bpe->slots[slot].rank_plus_1)
        slot = (slot + 1) & bpe->slot_mask;
    bpe->slots[slot] = (struct bpe_slot){rule->left, rule->right, rank + 1};
}

static int parse_rule(const struct vocabulary *vocabulary, enum token_spelling spelling,
                      struct gguf_string merge, size_t i, struct bpe_rule *rule, runnel_error *error)
{
    bool of_bytes = spelling == SPELLED_BYTE_LEVEL;
    size_t (*decode)(const char *, size_t, char *) = of_bytes ? byte_level_decode : space_decode;
    unsigned kinds = of_bytes ? BYTES : CHARACTERS;
    char bytes[2 * TOKEN_MAX_BYTES];
    const char *space = merge.len > 2 ? memchr(merge.bytes + 1, ' ', merge.len - 2) : NULL;
    size_t left_len = space ? (size_t)(space - merge.bytes) : 0;
    size_t right_len = space ? merge.len - left_len - 1 : 0;
    if (!space || left_len > TOKEN_MAX_BYTES || right_len > TOKEN_MAX_BYTES)
        return error_set(
            error, RUNNEL_EFORMAT,
            "tokenizer.ggml.merges: merge %zu is \"%.*s\", two tokens with a space between expected", i,
            (int)(merge.len < 64 ? merge.len : 64), merge.bytes);
    size_t n_left = decode(merge.bytes, left_len, bytes);
    size_t n_right = decode(space + 1, right_len, bytes + n_left);
    rule->left = vocabulary_find(vocabulary, bytes, n_left, kinds);
    rule->right = vocabulary_find(vocabulary, bytes + n_left, n_right, kinds);
    rule->merged = vocabulary_find(vocabulary, bytes, n_left + n_right, kinds);
    if (rule->left < 0 || rule->right < 0 || rule->merged < 0)
        return error_set(
            error, RUNNEL_EFORMAT,
            "tokenizer.ggml.merges: merge %zu is \"%.*s\": its %s is not a token of the vocabulary", i,
            (int)(merge.len < 64 ? merge.len : 64), merge.bytes,
            rule->left < 0    ? "left side"
            : rule->right < 0 ? "right side"
                              : "result");
    return RUNNEL_OK;
}

static void find_byte_tokens(struct bpe *bpe, const struct vocabulary *vocabulary)
{
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        int32_t normal = bpe->characters ? -1 : vocabulary_find(vocabulary, &text, 1, KIND_BIT(TOKEN_NORMAL));
        bpe->byte_tokens[byte] =
            normal >= 0 ? normal : vocabulary_find(vocabulary, &text, 1, KIND_BIT(TOKEN_BYTE));
    }
}

int bpe_build(struct bpe *bpe, const struct vocabulary *vocabulary, enum token_spelling spelling,
              const struct gguf_string *merges, size_t n_merges, runnel_error *error)
{
    int code;
    *bpe = (struct bpe){.characters = spelling == SPELLED_BYTE_LEVEL ? NULL : vocabulary};
    if (n_merges > INT32_MAX / 4) {
        code =
            error_set(error, RUNNEL_EFORMAT, "tokenizer.ggml.merges: %zu merges are more than fit", n_merges);
        goto fail;
    }
    find_byte_tokens(bpe, vocabulary);
    size_t n_slots = 16;
    while (n_slots * 2 < n_merges * 3) /* at most two thirds full */
        n_slots *= 2;
    bpe->seed = hash_seed();
    bpe->slot_mask = n_slots - 1;
    bpe->slots = calloc(n_slots, sizeof *bpe->slots);
    bpe->rules = malloc((n_merges + 1) * sizeof *bpe->rules);
    if (!bpe->slots || !bpe->rules) {
        code = error_set(error, RUNNEL_ENOMEM, "out of memory for %zu merges", n_merges);
        goto fail;
    }
    for (size_t i = 0; i < n_merges; i++) {
        code = parse_rule(vocabulary, spelling, merges[i], i, &bpe->rules[i], error);
        if (code)
            goto fail;
        enter_rule(bpe, (uint32_t)i);
    }
    return RUNNEL_OK;
fail:
    bpe_free(bpe);
    return code;
}

void bpe_free(struct bpe *bpe)
{
    free(bpe->rules);
    free(bpe->slots);
    *bpe = (struct bpe){0};
}

void bpe_scratch_free(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->queue);
    *scratch = (struct bpe_scratch){0};
}

static int scratch_reserve(struct bpe_scratch *scratch, size_t n, runnel_error *error)
{
    if (n <= scratch->cap)
        return RUNNEL_OK;
    size_t cap = scratch->cap ? scratch->cap : 64;
    while (cap < n)
        cap *= 2;
    bpe_scratch_free(scratch); /* nothing in it is kept from word to word */
    scratch->symbols = malloc(cap * sizeof *scratch->symbols);
    scratch->queue = malloc(2 * cap * sizeof *scratch->queue);
    if (!scratch->symbols || !scratch->queue) {
        bpe_scratch_free(scratch);
        return error_set(error, RUNNEL_ENOMEM, "out of memory for a word of %zu bytes", n);
    }
    scratch->cap = cap;
    return RUNNEL_OK;
}

/* The pair that starts at place, if there is a rule for it. */
static bool pair_entry(const struct bpe *bpe, const struct bpe_symbol *symbols, uint32_t place,
                       uint64_t *entry)
{
    uint32_t next = symbols[place].next;
    if (next == NONE)
        return false;
    uint32_t rank = find_rank(bpe, symbols[place].token, symbols[next].token);
    *entry = merge_entry(rank, place);
    return rank != NONE;
}

/* Merges until no rule applies. The queue holds at most n - 1 entries at first and grows by one with a merge,
 * of which there are at most n - 1. An entry whose symbols have changed since is passed over. */
static void merge_all(const struct bpe *bpe, struct bpe_symbol *symbols, uint32_t n, uint64_t *entries)
{
    struct merge_queue queue = {entries, 0};
    uint64_t entry;
    for (uint32_t i = 0; i < n; i++)
        if (pair_entry(bpe, symbols, i, &entry))
            queue.entries[queue.n++] = entry;
    merge_queue_arrange(&queue);
    while (queue.n) {
        entry = merge_queue_pop(&queue);
        const struct bpe_rule *rule = &bpe->rules[entry >> 32];
        uint32_t place = (uint32_t)entry;
        struct bpe_symbol *left = &symbols[place];
        if (left->token != rule->left || left->next == NONE || symbols[left->next].token != rule->right)
            continue;
        struct bpe_symbol *right = &symbols[left->next];
        left->token = rule->merged;
        left->next = right->next;
        right->token = -1;
        if (left->next != NONE)
            symbols[left->next].previous = place;
        if (left->previous != NONE && pair_entry(bpe, symbols, left->previous, &entry))
            merge_queue_push(&queue, entry);
        if (pair_entry(bpe, symbols, place, &entry))
            merge_queue_push(&queue, entry);
    }
}

/* Puts a symbol behind the n that are there; a token that the vocabulary lacks is left out. */
static uint32_t add_symbol(struct bpe_symbol *symbols, uint32_t n, int32_t token)
{
    if (token < 0)
        return n;
    symbols[n] = (struct bpe_symbol){token, n ? n - 1 : NONE, n + 1};
    return n + 1;
}

static uint32_t add_bytes(const struct bpe *bpe, const char *bytes, size_t len, struct bpe_symbol *symbols,
                          uint32_t n)
{
    for (size_t i = 0; i < len; i++)
        n = add_symbol(symbols, n, bpe->byte_tokens[(unsigned char)bytes[i]]);
    return n;
}

static uint32_t add_characters(const struct bpe *bpe, const char *word, size_t len,
                               struct bpe_symbol *symbols)
{
    uint32_t n = 0;
    for (size_t i = 0, width; i < len; i += width) {
        width = utf8_width(word[i]);
        int32_t token = vocabulary_find(bpe->characters, word + i, width, CHARACTERS);
        n = token >= 0 ? add_symbol(symbols, n, token) : add_bytes(bpe, word + i, width, symbols, n);
    }
    return n;
}

int bpe_encode(const struct bpe *bpe, const char *word, size_t len, struct bpe_scratch *scratch,
               struct token_list *out, runnel_error *error)
{
    int code = scratch_reserve(scratch, len, error);
    if (code)
        return code;
    struct bpe_symbol *symbols = scratch->symbols;
    uint32_t n =
        bpe->characters ? add_characters(bpe, word, len, symbols) : add_bytes(bpe, word, len, symbols, 0);
    if (!n)
        return RUNNEL_OK;
    symbols[n - 1].next = NONE;
    merge_all(bpe, symbols, n, scratch->queue);
    uint32_t n_left = 0;
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        n_left++;
    code = token_list_reserve(out, n_left, error);
    if (code)
        return code;
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        out->ids[out->n++] = symbols[i].token;
    return RUNNEL_OK;
}
