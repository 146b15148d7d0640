/* string_tokens.h: the tokens of a vocabulary that may stand in a JSON string of any characters, and those that end it.
 *
 * Most masks of JSON are of such strings, some with a number of characters that are still to come at least or at most. Whether a token
 * fits depends on how many characters it has, and behind a closing quote on what may follow there, so it is found out once for
 * a vocabulary. Never changed once it is made; owned by whoever made it. */
#ifndef RUNNEL_CONSTRAIN_STRING_TOKENS_H
#define RUNNEL_CONSTRAIN_STRING_TOKENS_H

#include "constrain/trie_part.h"

enum {
    STRING_LEVELS = 16, /* characters up to which there is a set of tokens for each number */
};

struct string_tokens {
    uint32_t *
        within; /* [STRING_LEVELS + 1, n_words] bits of tokens that stay in the string and begin no more characters */
    uint32_t *all;           /* [n_words] of all tokens that stay in the string */
    int32_t *longer;         /* [n_longer] those that begin more than STRING_LEVELS, shorter ones first */
    int32_t *closing;        /* [n_closing] tokens that end with the closing quote */
    struct trie_part behind; /* tokens that go on behind the closing quote: a trie of what they have there */
    uint16_t *n_chars;       /* [n_tokens] characters that each of all these begins within the string */
    uint32_t n_longer, n_closing, n_words, max_chars;
};

/* Tokens that are in no mask are empty. False: no memory. */
bool string_tokens_create(const struct trie_token *tokens, uint32_t n_tokens, struct string_tokens *strings);
void string_tokens_free(struct string_tokens *strings);
/* Adds to words those that stay in a string of at most n characters. */
void string_tokens_add_within(const struct string_tokens *strings, uint32_t n, uint32_t *words);

#endif
