/* draft_rates.c: see draft_rates.h. */
#include "engine/draft_rates.h"

/* An observation's weight falls by this factor with each later one of its kind. */
static const float FADING_OF_REQUEST = 0.97f, FADING_OF_KEY = 0.995f;
/* For how many observations the key's rate counts beside a request's, and what is known beforehand beside a key's. */
static const double WEIGHT_OF_KEY = 20, WEIGHT_BEFORE = 20;

/* Before anything was seen: what was counted in programs, pages and answers. */
static double before(unsigned kind)
{
    static const double matches[SUFFIX_LENGTHS][SUFFIX_HABITS] = {
        {0.30, 0.11, 0.43, 0.60}, {0.42, 0.20, 0.60, 0.76}, {0.55, 0.24, 0.70, 0.82},
        {0.60, 0.22, 0.82, 0.88}, {0.67, 0.30, 0.88, 0.93}, {0.74, 0.35, 0.91, 0.95},
        {0.80, 0.35, 0.95, 0.97}, {0.90, 0.45, 0.96, 0.98}};
    if (kind < DRAFT_OWN)
        return kind == DRAFT_FORCED ? 1 : 0.8;
    unsigned match = (kind - DRAFT_OWN) % (SUFFIX_LENGTHS * SUFFIX_HABITS);
    return matches[match / SUFFIX_HABITS][match % SUFFIX_HABITS];
}

static void learn(struct draft_rate *rate, float fading, bool came_true)
{
    rate->n = fading * rate->n + 1;
    rate->n_true = fading * rate->n_true + (came_true ? 1 : 0);
}

void draft_rates_learn(struct draft_rates *request, struct draft_rates *key, unsigned kind, bool came_true)
{
    learn(&request->of[kind], FADING_OF_REQUEST, came_true);
    learn(&key->of[kind], FADING_OF_KEY, came_true);
}

double draft_rates_get(const struct draft_rates *request, const struct draft_rates *key, unsigned kind)
{
    if (kind == DRAFT_FORCED)
        return 1;
    const struct draft_rate *own = &request->of[kind], *others = &key->of[kind];
    double of_key =
        ((double)others->n_true + WEIGHT_BEFORE * before(kind)) / ((double)others->n + WEIGHT_BEFORE);
    return ((double)own->n_true + WEIGHT_OF_KEY * of_key) / ((double)own->n + WEIGHT_OF_KEY);
}
