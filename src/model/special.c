/* special.c: tokens that stand for themselves in a text. See special.h.
 *
 * The sorted list serves as a prefix tree: with every byte of the text the range of tokens that begin so is
 * narrowed by binary search, until it is empty. A token is at most TOKEN_MAX_BYTES long, which bounds the
 * work at one place. */
#include "model/special.h"

#include <stdlib.h>
#include <string.h>

/* qsort has no argument for the vocabulary: the pieces are sorted along with the ids. */
struct sort_entry {
    struct gguf_string piece;
    int32_t id;
};

static int compare_entries(const void *a, const void *b)
{
    const struct sort_entry *left = a, *right = b;
    size_t len = left->piece.len < right->piece.len ? left->piece.len : right->piece.len;
    int order = memcmp(left->piece.bytes, right->piece.bytes, len);
    if (order == 0 && left->piece.len != right->piece.len)
        order = left->piece.len < right->piece.len ? -1 : 1;
    return order != 0 ? order : left->id < right->id ? -1 : left->id > right->id;
}

static bool is_special(const struct vocabulary *vocabulary, size_t id)
{
    unsigned special = KIND_BIT(TOKEN_CONTROL) | KIND_BIT(TOKEN_UNKNOWN) | KIND_BIT(TOKEN_USER_DEFINED);
    return KIND_BIT(vocabulary->kinds[id]) & special;
}

/* Anybody's text may hold it. */
static bool matches_everywhere(const struct vocabulary *vocabulary, int32_t id)
{
    return vocabulary->kinds[id] == TOKEN_USER_DEFINED;
}

/* Whether the set has the same bytes already, as a token that matches everywhere or, like this one, in spans alone:
 * of equal tokens at most two are entered, however many a file has. */
static bool repeats(const struct vocabulary *vocabulary, const struct special_set *set,
                    const struct sort_entry *entry)
{
    for (size_t i = set->n; i > 0 && i + 2 > set->n; i--) {
        int32_t id = set->ids[i - 1];
        struct gguf_string piece = vocabulary_piece(vocabulary, id);
        if (piece.len != entry->piece.len || memcmp(piece.bytes, entry->piece.bytes, piece.len) != 0)
            return false;
        if (matches_everywhere(vocabulary, id) || !matches_everywhere(vocabulary, entry->id))
            return true;
    }
    return false;
}

int special_set_build(struct special_set *set, const struct vocabulary *vocabulary, runnel_error *error)
{
    *set = (struct special_set){.vocabulary = vocabulary};
    for (size_t id = 0; id < vocabulary->n; id++)
        set->n += is_special(vocabulary, id);
    struct sort_entry *entries = malloc((set->n + 1) * sizeof *entries);
    set->ids = malloc((set->n + 1) * sizeof *set->ids);
    if (!entries || !set->ids) {
        free(entries);
        special_set_free(set);
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the special tokens");
    }
    size_t n = 0;
    for (size_t id = 0; id < vocabulary->n; id++)
        if (is_special(vocabulary, id))
            entries[n++] = (struct sort_entry){vocabulary_piece(vocabulary, (int32_t)id), (int32_t)id};
    qsort(entries, n, sizeof *entries, compare_entries);
    set->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (repeats(vocabulary, set, &entries[i]))
            continue;
        set->ids[set->n++] = entries[i].id;
        set->begin[(unsigned char)entries[i].piece.bytes[0] + 1]++;
    }
    for (int byte = 0; byte < 256; byte++)
        set->begin[byte + 1] += set->begin[byte];
    free(entries);
    return RUNNEL_OK;
}

void special_set_free(struct special_set *set)
{
    free(set->ids);
    *set = (struct special_set){0};
}

/* The first of ids[low, high), which agree in their first `depth` bytes and are all longer, whose byte there
 * is at least `byte`. */
static uint32_t lower_bound(const struct special_set *set, uint32_t low, uint32_t high, size_t depth,
                            unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)vocabulary_piece(set->vocabulary, set->ids[middle]).bytes[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token at text[0] of at most len bytes, control ones of at most control_len. -1: none. */
static int32_t longest_at(const struct special_set *set, const char *text, size_t len, size_t control_len,
                          size_t *match_len)
{
    int32_t found = -1;
    uint32_t low = set->begin[(unsigned char)text[0]], high = set->begin[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high && depth <= len; depth++) {
        /* Those that end here sort first; of equal ones, each is tried. */
        for (; low < high && vocabulary_piece(set->vocabulary, set->ids[low]).len == depth; low++) {
            bool anywhere = matches_everywhere(set->vocabulary, set->ids[low]);
            if (*match_len != depth && (anywhere || depth <= control_len)) {
                found = set->ids[low];
                *match_len = depth;
            }
        }
        if (depth == len)
            break;
        unsigned byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return found;
}

bool special_set_next(const struct special_set *set, const char *text, size_t len, size_t from,
                      const struct text_span *spans, size_t n_spans, size_t *span,
                      struct special_match *match)
{
    for (size_t i = from; i < len; i++) {
        unsigned char first = (unsigned char)text[i];
        if (set->begin[first] == set->begin[first + 1])
            continue;
        while (*span < n_spans && spans[*span].end <= i)
            ++*span;
        size_t control_len = 0;
        if (*span < n_spans && spans[*span].begin <= i)
            control_len = (spans[*span].end < len ? spans[*span].end : len) - i;
        size_t match_len = 0;
        int32_t id = longest_at(set, text + i, len - i, control_len, &match_len);
        if (id >= 0) {
            *match = (struct special_match){i, i + match_len, id};
            return true;
        }
    }
    return false;
}
