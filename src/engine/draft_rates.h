/* draft_rates.h: how often guesses come true, by where they come from.
 *
 * Old observations fade. A request's own rates begin as those of its API key, and a key's as those of texts that were measured
 * once (draft_rates.c); nothing goes from one key to another. Pure arithmetic. */
#ifndef RUNNEL_ENGINE_DRAFT_RATES_H
#define RUNNEL_ENGINE_DRAFT_RATES_H

#include "engine/suffix_index.h"

#include <stdbool.h>

enum {
    DRAFT_FORCED, /* a constraint says what comes: it always comes true */
    DRAFT_LIKELY, /* the text is forced, but it can be cut into tokens in another way */
    DRAFT_OWN, /* found in the request's own text; by length of match, and what followed there the times before */
    DRAFT_HISTORY = DRAFT_OWN + SUFFIX_LENGTHS * SUFFIX_HABITS, /* found in earlier answers; likewise */
    DRAFT_KINDS = DRAFT_HISTORY + SUFFIX_LENGTHS * SUFFIX_HABITS
};

/* Of a match in one of the two. */
static inline unsigned draft_kind(unsigned source, uint32_t number_of_length, enum suffix_habit habit)
{
    return source + number_of_length * SUFFIX_HABITS + habit;
}

/* Fading sums. */
struct draft_rate {
    float n, n_true;
};

struct draft_rates {
    struct draft_rate of[DRAFT_KINDS];
};

/* A guess of that kind was looked at, as those before it in its draft had come true. */
void draft_rates_learn(struct draft_rates *request, struct draft_rates *key, unsigned kind, bool came_true);

/* How likely one is to come true. */
double draft_rates_get(const struct draft_rates *request, const struct draft_rates *key, unsigned kind);

#endif
