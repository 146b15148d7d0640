/* grammar_constraint.c: see grammar_constraint.h. */
#include "engine/grammar_constraint.h"

#include "constrain/matcher.h"

#include <stdlib.h>
#include <string.h>

enum { NEWLINES = 2 }; /* behind a thought, that are no part of the answer */

struct state {
    bool in_answer;
    bool failed;        /* the text cannot be followed further: error says why */
    uint8_t n_newlines; /* in the answer: so many may still come before its text */
    uint8_t n_matched;  /* 1: the latest token was the matcher's */
};

struct grammar_constraint {
    struct constraint constraint;
    runnel_grammar *grammar;
    const struct vocabulary *vocabulary;
    struct matcher *matcher;
    bool ignores_end;
    struct state now,
        before[CONSTRAINT_UNDO_MAX]; /* before token i of the answer: at i % CONSTRAINT_UNDO_MAX */
    uint32_t n_accepted;
    runnel_error error; /* of the first failure */
    uint32_t words[];   /* a mask */
};

static uint32_t n_words(const struct grammar_constraint *bound)
{
    return (bound->vocabulary->n_vocab + 31) / 32;
}

/* Masks --------------------------------------------------------------------------------------------------- */

/* Whether the text is nothing but newlines, n at most. */
static bool is_newlines(const char *bytes, size_t len, size_t n)
{
    size_t n_newlines = 0;
    while (n_newlines < len && bytes[n_newlines] == '\n')
        n_newlines++;
    return len && n_newlines == len && len <= n;
}

/* Newlines behind a thought are taken as such, so that the text itself cannot begin with one yet. */
static void allow_newlines(struct grammar_constraint *bound)
{
    const struct vocabulary *vocabulary = bound->vocabulary;
    for (uint32_t i = 0; i < n_words(bound); i++)
        for (uint32_t bits = vocabulary->newlines[i]; bits; bits &= bits - 1) {
            uint32_t bit = bits & -bits;
            int32_t token = (int32_t)(i * 32 + (uint32_t)__builtin_ctz(bits));
            struct gguf_string text = tokenizer_piece(vocabulary->tokenizer, token);
            if (is_newlines(text.bytes, text.len, bound->now.n_newlines))
                bound->words[i] |= bit;
            else
                bound->words[i] &= ~bit;
        }
}

/* At the beginning of a text some models' tokens lose their space, and are another text than the grammar was told. */
static void forbid_spaces(struct grammar_constraint *bound, int32_t before)
{
    const struct vocabulary *vocabulary = bound->vocabulary;
    int32_t space = vocabulary->space;
    if (space < 0 || tokenizer_text(vocabulary->tokenizer, before, space).len ==
                         tokenizer_piece(vocabulary->tokenizer, space).len)
        return;
    for (uint32_t i = 0; i < n_words(bound); i++)
        bound->words[i] &= ~vocabulary->spaces[i];
}

/* If there is anything else. */
static void forbid_ends(struct grammar_constraint *bound)
{
    size_t n_ends;
    const int32_t *ends = tokenizer_ends(bound->vocabulary->tokenizer, &n_ends);
    if (matcher_is_over(bound->matcher))
        return;
    for (size_t i = 0; i < n_ends; i++)
        bound->words[ends[i] / 32] &= ~(1u << (ends[i] % 32));
}

static bool limits_next(const struct constraint *constraint)
{
    const struct grammar_constraint *bound = (const struct grammar_constraint *)constraint;
    return bound->now.failed || bound->now.in_answer;
}

static int mask(struct constraint *constraint, struct constraint_mask *limits, runnel_error *error)
{
    struct grammar_constraint *bound = (struct grammar_constraint *)constraint;
    if (bound->now.failed) {
        *error = bound->error;
        return error->code;
    }
    if (!bound->now.in_answer)
        return RUNNEL_OK;
    int failure = matcher_mask(bound->matcher, bound->words, error);
    if (failure)
        return failure;
    if (bound->ignores_end)
        forbid_ends(bound);
    if (bound->now.n_newlines)
        allow_newlines(bound);
    forbid_spaces(bound, limits->before);
    constraint_mask_insist(limits, bound->words);
    return RUNNEL_OK;
}

/* Tokens -------------------------------------------------------------------------------------------------- */

static void note(struct grammar_constraint *bound, int failure)
{
    bound->now.n_matched = !failure;
    bound->now.failed = failure != RUNNEL_OK;
}

/* The thought has ended; what the token has behind that is text. */
static void begin_answer(struct grammar_constraint *bound, const struct constraint_token *token)
{
    const char *text = token->bytes + token->answer_at;
    size_t len = token->len - token->answer_at;
    bound->now.in_answer = true;
    bound->now.n_newlines = NEWLINES;
    for (; len && bound->now.n_newlines && *text == '\n'; text++, len--)
        bound->now.n_newlines--;
    if (!len)
        return;
    bound->now.n_newlines = 0;
    note(bound, matcher_accept_bytes(bound->matcher, text, len, &bound->error));
}

static void take(struct grammar_constraint *bound, const struct constraint_token *token)
{
    if (is_newlines(token->bytes, token->len, bound->now.n_newlines)) {
        bound->now.n_newlines = (uint8_t)(bound->now.n_newlines - token->len);
        return;
    }
    bound->now.n_newlines = 0;
    note(bound, matcher_accept(bound->matcher, token->id, &bound->error));
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct grammar_constraint *bound = (struct grammar_constraint *)constraint;
    bound->before[bound->n_accepted++ % CONSTRAINT_UNDO_MAX] = bound->now;
    bound->now.n_matched = 0;
    if (bound->now.failed)
        return;
    if (bound->now.in_answer)
        take(bound, token);
    else if (token->is_thought && !token->next_is_thought)
        begin_answer(bound, token);
}

static void undo(struct constraint *constraint, uint32_t n)
{
    struct grammar_constraint *bound = (struct grammar_constraint *)constraint;
    uint32_t n_matched = 0;
    for (; n; n--) {
        n_matched += bound->now.n_matched;
        bound->now = bound->before[--bound->n_accepted % CONSTRAINT_UNDO_MAX];
    }
    matcher_undo(bound->matcher, n_matched);
}

static bool is_over(const struct constraint *constraint)
{
    const struct grammar_constraint *bound = (const struct grammar_constraint *)constraint;
    return bound->now.in_answer && bound->now.n_matched && matcher_is_over(bound->matcher);
}

/* Life ---------------------------------------------------------------------------------------------------- */

static void free_bound(struct constraint *constraint)
{
    struct grammar_constraint *bound = (struct grammar_constraint *)constraint;
    matcher_free(bound->matcher);
    grammar_release(bound->grammar);
    free(bound);
}

int grammar_constraint_create(runnel_grammar *grammar, const struct grammar_constraint_options *options,
                              struct constraint **out, runnel_error *error)
{
    const struct vocabulary *vocabulary = grammar_vocabulary(grammar);
    size_t n = ((size_t)vocabulary->n_vocab + 31) / 32;
    struct grammar_constraint *bound = calloc(1, sizeof *bound + n * sizeof bound->words[0]);
    if (!bound) {
        grammar_release(grammar);
        return error_set(error, RUNNEL_ENOMEM, "no memory for an answer's constraint");
    }
    bound->constraint = (struct constraint){.mask = mask,
                                            .limits = limits_next,
                                            .accept = accept,
                                            .undo = undo,
                                            .is_over = is_over,
                                            .free = free_bound};
    bound->grammar = grammar;
    bound->vocabulary = vocabulary;
    bound->ignores_end = options->ignores_end;
    bound->now.in_answer = !options->waits_for_thought;
    int failure = matcher_create(grammar_automaton(grammar), &bound->matcher, error);
    if (failure) {
        free_bound(&bound->constraint);
        return failure;
    }
    *out = &bound->constraint;
    return RUNNEL_OK;
}
