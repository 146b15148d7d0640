/* text_check.c: see text_check.h. */
#include "engine/text_check.h"

#include "base/clock.h"

#include <stdlib.h>

/* A mask before every token, as an answer has it, up to the first that may not come. */
static int follow(struct matcher *matcher, const struct token_list *tokens, uint32_t *words,
                  runnel_text_check *check, runnel_error *error)
{
    for (size_t i = 0; i < tokens->n; i++) {
        uint32_t id = (uint32_t)tokens->ids[i];
        double began = clock_ms();
        int failure = matcher_mask(matcher, words, error);
        check->mask_us[check->n_masks++] = (clock_ms() - began) * 1e3;
        if (!failure && !(words[id / 32] >> (id % 32) & 1))
            return RUNNEL_OK;
        if (!failure)
            failure = matcher_accept(matcher, tokens->ids[i], error);
        if (failure)
            return failure;
    }
    check->accepted = matcher_is_complete(matcher);
    return RUNNEL_OK;
}

int text_check(const struct tokenizer *tokenizer, struct automaton *automaton, uint32_t n_vocab,
               const char *text, size_t len, runnel_text_check *check, runnel_error *error)
{
    struct token_list tokens = {0};
    struct matcher *matcher = NULL;
    uint32_t *words = malloc(((size_t)n_vocab + 31) / 32 * sizeof *words);
    int failure = tokenizer_encode_on(tokenizer, text, len, NULL, 0, &tokens, error);
    double *mask_us = malloc(tokens.n * sizeof *mask_us + 1);
    if (!failure && (!words || !mask_us))
        failure = error_set(error, RUNNEL_ENOMEM, "no memory to check a text of %zu bytes", len);
    if (!failure)
        failure = matcher_create(automaton, &matcher, error);
    if (failure) {
        free(mask_us);
    } else {
        *check = (runnel_text_check){.size = check->size, .n_tokens = tokens.n, .mask_us = mask_us};
        failure = follow(matcher, &tokens, words, check, error);
    }
    matcher_free(matcher);
    free(words);
    free(tokens.ids);
    return failure;
}
