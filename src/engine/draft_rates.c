/* draft_rates.c: see draft_rates.h. */
#include "engine/draft_rates.h"

/* An observation's weight falls by this factor with each later one of its kind. */
static const float FADING_OF_REQUEST = 0.97f, FADING_OF_KEY = 0.995f;
/* For how many observations the key's rate counts beside a request's, and what is known beforehand beside a key's. */
static const double WEIGHT_OF_KEY = 12, WEIGHT_BEFORE = 8;

/* Before anything was seen. */
static double before(unsigned kind)
{
    static const double own[SUFFIX_LENGTHS] = {0.15, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8};
    static const double history[SUFFIX_LENGTHS] = {0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.75, 0.85};
    if (kind < DRAFT_OWN)
        return kind == DRAFT_FORCED ? 1 : 0.8;
    return kind < DRAFT_HISTORY ? own[kind - DRAFT_OWN] : history[kind - DRAFT_HISTORY];
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
