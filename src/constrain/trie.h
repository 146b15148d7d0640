/* trie.h: the tokens of a vocabulary as tries (trie_part.h).
 *
 * Made once for a model, and never changed: any number of threads read it. Tokens of whole characters that a JSON string holds
 * as they are (no quote, no backslash, no control character) are a trie of their own: where any such text may come, all of them
 * may, and none is looked at. */
#ifndef RUNNEL_CONSTRAIN_TRIE_H
#define RUNNEL_CONSTRAIN_TRIE_H

#include "base/error.h"
#include "constrain/string_tokens.h"

enum {
    TRIE_CHARS,  /* whole characters that a JSON string holds as they are */
    TRIE_OTHERS, /* all other tokens */
    TRIE_PARTS,
};

struct trie {
    struct trie_part parts[TRIE_PARTS];
    struct string_tokens strings;
    uint32_t *all_chars;       /* [trie_mask_words] the tokens of TRIE_CHARS */
    struct trie_token *tokens; /* [n_tokens]; their bytes lie in bytes */
    char *bytes;
    uint32_t n_tokens;
    int32_t *ends; /* tokens that end an answer */
    size_t n_ends;
};

/* All is copied. */
int trie_create(const struct trie_token *tokens, uint32_t n_tokens, const int32_t *ends, size_t n_ends,
                struct trie **trie, runnel_error *error);
void trie_free(struct trie *trie);
bool trie_is_end(const struct trie *trie, int32_t token);

/* Words of a mask of all tokens. */
static inline uint32_t trie_mask_words(const struct trie *trie)
{
    return (trie->n_tokens + 31) / 32;
}

#endif
