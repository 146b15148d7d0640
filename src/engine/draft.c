/* draft.c: see draft.h. */
#include "engine/draft.h"

#include "engine/draft_rates.h"
#include "engine/suffix_index.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FOLLOW_MAX = 4096,         /* tokens in a call: a fraction of a millisecond */
    SLOTS_MAX = 1 << 17,       /* of an index: 512 KiB */
    KEYS = 16,                 /* whose answers are remembered */
    HISTORY_TOKENS = 1 << 13,  /* of a key's answers */
    HISTORY_ANSWER_MAX = 2048, /* of one of them, from its beginning */
    ANSWER_MIN = 4,            /* tokens of one that is remembered */
    TRY_STEPS = 512,           /* after so many without a draft one is tried, to see what rows cost */
};

/* Rows are added only if answers come so much faster with them: less is within what the costs are known to. */
static const double GAIN_MIN = 1.03;
/* No further guess is looked for where the ones before it are less likely to come true, all of them. */
static const double LIKELY_MIN = 0.01;

/* What is kept of an API key. */
struct key {
    uint64_t key;
    uint64_t last_used; /* 0: nobody's */
    int32_t *ids;       /* [n_history] a ring */
    struct suffix_text text;
    struct suffix_index index;
    struct draft_rates rates;
};

struct slot {
    struct key *key; /* where its key is, or was */
    uint64_t key_of; /* its key */
    struct suffix_index index;
    struct draft_rates rates;
    struct draft draft;
    uint8_t kinds[DRAFT_MAX];
    uint32_t n_guessed; /* of the step, whether chosen or not */
    uint32_t n;         /* tokens of its text */
    /* While they are chosen: */
    double n_expected; /* tokens that the step will give it */
    double share;      /* how likely its next guess is to be reached and to come true */
};

struct drafts {
    struct slot *slots; /* [n_slots] */
    struct key *keys;   /* [KEYS] */
    uint32_t n_slots;
    uint32_t *memory;            /* of all indexes and rings */
    struct draft_rates no_rates; /* of a key that has given way */
    struct slot **asked;         /* [n_slots] the n_asked that decode in this step */
    uint32_t n_asked;
    uint64_t n_uses;  /* of keys, so far */
    uint32_t n_steps; /* since the latest draft */
};

/* Life ---------------------------------------------------------------------------------------------------- */

struct sizes {
    uint32_t n_slot;    /* slots of an index of one text */
    uint32_t n_history; /* tokens of a key's ring, a power of two */
    uint32_t n_key;     /* slots of its index */
};

static struct sizes sizes_of(const struct drafts_options *options)
{
    struct sizes sizes = {.n_history = SUFFIX_MAX};
    while (sizes.n_history < HISTORY_TOKENS && sizes.n_history < 4ull * options->n_positions)
        sizes.n_history *= 2;
    sizes.n_slot = suffix_index_slots(options->n_positions, SLOTS_MAX);
    sizes.n_key = suffix_index_slots(sizes.n_history, SLOTS_MAX);
    return sizes;
}

_Static_assert(sizeof(struct suffix_slot) == sizeof(uint32_t), "slots and tokens are counted alike");

static uint64_t count_words(const struct drafts_options *options, const struct sizes *sizes)
{
    return (uint64_t)options->n_slots * sizes->n_slot + (uint64_t)KEYS * (sizes->n_key + sizes->n_history);
}

uint64_t drafts_bytes(const struct drafts_options *options)
{
    const struct sizes sizes = sizes_of(options);
    return count_words(options, &sizes) * sizeof(uint32_t);
}

/* Gives everything its part of the memory. */
static void divide(struct drafts *drafts, const struct sizes *sizes)
{
    uint32_t *next = drafts->memory;
    for (uint32_t i = 0; i < drafts->n_slots; i++, next += sizes->n_slot)
        drafts->slots[i].index =
            (struct suffix_index){.slots = (struct suffix_slot *)next, .n_slots = sizes->n_slot};
    for (uint32_t i = 0; i < KEYS; i++) {
        struct key *key = &drafts->keys[i];
        key->index = (struct suffix_index){.slots = (struct suffix_slot *)next, .n_slots = sizes->n_key};
        key->ids = (int32_t *)(next + sizes->n_key);
        key->text = (struct suffix_text){.ids = key->ids, .mask = sizes->n_history - 1};
        next += sizes->n_key + sizes->n_history;
    }
}

int drafts_create(const struct drafts_options *options, struct drafts **out, runnel_error *error)
{
    const struct sizes sizes = sizes_of(options);
    size_t n_bytes = (size_t)drafts_bytes(options);
    struct drafts *drafts = calloc(1, sizeof *drafts);
    if (!drafts)
        return error_set(error, RUNNEL_ENOMEM, "no memory for drafts");
    drafts->n_slots = options->n_slots;
    drafts->slots = calloc(options->n_slots, sizeof *drafts->slots);
    drafts->asked = calloc(options->n_slots, sizeof(struct slot *));
    drafts->keys = calloc(KEYS, sizeof *drafts->keys);
    drafts->memory = malloc(n_bytes);
    if (!drafts->slots || !drafts->asked || !drafts->keys || !drafts->memory) {
        drafts_free(drafts);
        return error_set(error, RUNNEL_ENOMEM, "no memory for drafts (%zu bytes)", n_bytes);
    }
    memset(drafts->memory, 0, n_bytes); /* and so it is there, before any step */
    divide(drafts, &sizes);
    for (uint32_t i = 0; i < options->n_slots; i++)
        drafts->slots[i].key = drafts->keys;
    *out = drafts;
    return RUNNEL_OK;
}

void drafts_free(struct drafts *drafts)
{
    if (!drafts)
        return;
    free(drafts->slots);
    free(drafts->asked);
    free(drafts->keys);
    free(drafts->memory);
    free(drafts);
}

/* Keys ---------------------------------------------------------------------------------------------------- */

static void forget_key(struct key *key)
{
    suffix_index_clear(&key->index);
    key->text.n = 0;
    memset(&key->rates, 0, sizeof key->rates);
    key->last_used = 0;
}

/* The key's place, or the one that was not used for longest. */
static struct key *find_key(struct drafts *drafts, uint64_t key)
{
    struct key *place = drafts->keys;
    for (uint32_t i = 0; i < KEYS; i++) {
        struct key *one = &drafts->keys[i];
        if (one->last_used && one->key == key)
            return one;
        if (one->last_used < place->last_used)
            place = one;
    }
    forget_key(place);
    place->key = key;
    return place;
}

/* What is known of the slot's key: NULL if its place is another's by now. */
static struct key *key_of(const struct slot *slot)
{
    return slot->key->last_used && slot->key->key == slot->key_of ? slot->key : NULL;
}

void drafts_begin(struct drafts *drafts, uint32_t at, uint64_t key)
{
    struct slot *slot = &drafts->slots[at];
    suffix_index_clear(&slot->index);
    memset(&slot->rates, 0, sizeof slot->rates);
    slot->key = find_key(drafts, key);
    slot->key->last_used = ++drafts->n_uses;
    slot->key_of = key;
    slot->n = slot->n_guessed = slot->draft.n = 0;
}

static void keep(struct key *key, int32_t token)
{
    key->ids[key->text.n++ & key->text.mask] = token;
}

void drafts_remember(struct drafts *drafts, uint32_t at, const int32_t *ids, uint32_t n_prompt, uint32_t n)
{
    struct key *key = key_of(&drafts->slots[at]);
    if (!key || n < n_prompt + ANSWER_MIN)
        return;
    uint32_t n_most = HISTORY_ANSWER_MAX < key->text.mask / 2 ? HISTORY_ANSWER_MAX : key->text.mask / 2;
    uint32_t end = n - n_prompt > n_most ? n_prompt + n_most : n;
    if (key->text.n > SUFFIX_POSITIONS_MAX / 2) { /* positions are counted on; years have passed */
        suffix_index_clear(&key->index);
        key->text.n = 0;
    }
    keep(key, SUFFIX_NO_TOKEN);
    for (uint32_t i = n_prompt > SUFFIX_MAX ? n_prompt - SUFFIX_MAX : 0; i < end; i++)
        keep(key, ids[i]);
    suffix_index_follow(&key->index, &key->text, key->text.n, UINT32_MAX);
}

/* Guesses ------------------------------------------------------------------------------------------------- */

void drafts_follow(struct drafts *drafts, uint32_t slot, const int32_t *ids, uint32_t n)
{
    const struct suffix_text text = {.ids = ids, .mask = UINT32_MAX, .n = n};
    suffix_index_follow(&drafts->slots[slot].index, &text, n - 1, FOLLOW_MAX);
}

void drafts_begin_step(struct drafts *drafts)
{
    drafts->n_asked = 0;
}

/* False: nothing can follow. */
static bool add_guess(struct slot *slot, const struct draft_ask *ask, int32_t token, unsigned kind)
{
    for (size_t i = 0; i < ask->n_ends; i++)
        if (ask->ends[i] == token)
            return false;
    slot->draft.tokens[slot->n_guessed] = token;
    slot->kinds[slot->n_guessed++] = (uint8_t)kind;
    return true;
}

static void guess_forced(struct slot *slot, const struct draft_ask *ask)
{
    for (uint32_t i = 0; i < ask->n_forced && i < ask->n_max; i++)
        if (!add_guess(slot, ask, ask->forced[i], i < ask->n_certain ? DRAFT_FORCED : DRAFT_LIKELY))
            return;
}

/* The best of what is found in one text. */
struct candidate {
    int32_t token;
    unsigned kind;
    double rate; /* 0: there is none */
};

/* Looks for the end of ids [n] in a text, and takes what came true most often of what followed there. */
static void look_in(const struct slot *slot, const struct draft_rates *of_key,
                    const struct suffix_index *index, const struct suffix_text *text, unsigned source,
                    const int32_t *ids, uint32_t n, struct candidate *best)
{
    struct suffix_match matches[SUFFIX_LENGTHS];
    suffix_find(index, text, ids, n, matches);
    for (uint32_t i = 0; i < SUFFIX_LENGTHS; i++) {
        unsigned kind = draft_kind(source, i, matches[i].habit);
        double rate = matches[i].end ? draft_rates_get(&slot->rates, of_key, kind) : 0;
        if (rate > best->rate)
            *best = (struct candidate){text->ids[matches[i].end & text->mask], kind, rate};
    }
}

/* Looks for the latest tokens in the answer's own text and in those of its key; for those with the token that was found; and so on. */
static void look_up(const struct drafts *drafts, struct slot *slot, const struct draft_ask *ask)
{
    const struct suffix_text text = {.ids = ask->ids, .mask = UINT32_MAX, .n = ask->n};
    const struct key *key = key_of(slot);
    const struct draft_rates *of_key = key ? &key->rates : &drafts->no_rates;
    bool has_own = slot->index.n + 1 == ask->n;
    int32_t latest[SUFFIX_MAX + DRAFT_MAX];
    uint32_t n = ask->n < SUFFIX_MAX ? ask->n : SUFFIX_MAX;
    memcpy(latest, ask->ids + ask->n - n, n * sizeof *latest);
    double likely = 1;
    while (slot->n_guessed < ask->n_max && likely >= LIKELY_MIN) {
        struct candidate best = {.rate = 0};
        if (has_own)
            look_in(slot, of_key, &slot->index, &text, DRAFT_OWN, latest, n, &best);
        if (key)
            look_in(slot, of_key, &key->index, &key->text, DRAFT_HISTORY, latest, n, &best);
        if (best.rate <= 0 || !add_guess(slot, ask, best.token, best.kind))
            return;
        latest[n++] = best.token;
        likely *= best.rate;
    }
}

void drafts_guess(struct drafts *drafts, const struct draft_ask *ask)
{
    struct slot *slot = &drafts->slots[ask->slot];
    struct draft_ask bounded = *ask;
    bounded.n_max = ask->n_max < DRAFT_MAX ? ask->n_max : DRAFT_MAX;
    drafts->asked[drafts->n_asked++] = slot;
    slot->n = ask->n;
    slot->n_guessed = slot->draft.n = 0;
    drafts_follow(drafts, ask->slot, ask->ids, ask->n);
    if (ask->n_forced)
        guess_forced(slot, &bounded);
    else
        look_up(drafts, slot, &bounded);
}

const struct draft *drafts_get(const struct drafts *drafts, uint32_t slot)
{
    return &drafts->slots[slot].draft;
}

/* How many -------------------------------------------------------------------------------------------------- */

static const struct draft_rates *key_rates(const struct drafts *drafts, const struct slot *slot)
{
    const struct key *key = key_of(slot);
    return key ? &key->rates : &drafts->no_rates;
}

/* How likely it is that the slot's first n + 1 guesses come true, if the first n are as likely as share. */
static double share_of(const struct drafts *drafts, const struct slot *slot, uint32_t n, double share)
{
    if (n == slot->n_guessed)
        return 0;
    return share * draft_rates_get(&slot->rates, key_rates(drafts, slot), slot->kinds[n]);
}

/* By what factor the next guess has the slot's answer come faster, less 1. */
static double gain_of(const struct slot *slot)
{
    return slot->share / slot->n_expected;
}

/* Whose answer gains most by its next guess; NULL: there is none. */
static struct slot *most_gaining(const struct drafts *drafts)
{
    struct slot *best = NULL;
    for (uint32_t i = 0; i < drafts->n_asked; i++)
        if (gain_of(drafts->asked[i]) > (best ? gain_of(best) : 0))
            best = drafts->asked[i];
    return best;
}

/* The guesses in the order of what they promise: picks [DRAFT_MAX] whose, log_gains the logarithm of the factor by which each has that
 * answer come faster. Returns how many. */
static uint32_t rank(struct drafts *drafts, struct slot **picks, double *log_gains)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < drafts->n_asked; i++) {
        drafts->asked[i]->n_expected = 1;
        drafts->asked[i]->share = share_of(drafts, drafts->asked[i], 0, 1);
    }
    for (struct slot *slot = most_gaining(drafts); slot && n < DRAFT_MAX; slot = most_gaining(drafts)) {
        picks[n] = slot;
        log_gains[n++] = log1p(gain_of(slot));
        slot->draft.n++;
        slot->n_expected += slot->share;
        slot->share = share_of(drafts, slot, slot->draft.n, slot->share);
    }
    return n;
}

/* How many of the first picks have answers come fastest, in the geometric mean of their speeds. By the number of all tokens, one
 * answer whose guesses all come true would take every row, and the others would wait for it. */
static uint32_t find_best(const struct drafts *drafts, const struct step_cost *cost,
                          struct slot *const *picks, const double *log_gains, uint32_t n_picks)
{
    uint32_t n_best = 0;
    double log_gain = 0, n_pairs = 0, best = log(GAIN_MIN);
    for (uint32_t i = 0; i < drafts->n_asked; i++)
        n_pairs += drafts->asked[i]->n;
    double plain_ms = step_cost_ms(cost, drafts->n_asked, n_pairs);
    for (uint32_t i = 0; i < n_picks; i++) {
        log_gain += log_gains[i];
        n_pairs += picks[i]->n;
        double ms = step_cost_ms(cost, drafts->n_asked + i + 1, n_pairs);
        double log_speed = log_gain / drafts->n_asked - log(ms / plain_ms);
        if (log_speed <= best)
            continue;
        best = log_speed;
        n_best = i + 1;
    }
    return n_best;
}

void drafts_choose(struct drafts *drafts, const struct step_cost *cost)
{
    struct slot *picks[DRAFT_MAX];
    double log_gains[DRAFT_MAX];
    uint32_t n_picks = rank(drafts, picks, log_gains);
    uint32_t n_best = find_best(drafts, cost, picks, log_gains, n_picks);
    if (!n_best && n_picks && drafts->n_steps >= TRY_STEPS)
        n_best = 1;
    for (uint32_t i = n_best; i < n_picks; i++)
        picks[i]->draft.n--;
    drafts->n_steps = n_best ? 0 : drafts->n_steps + 1;
}

void drafts_learn(struct drafts *drafts, uint32_t at, const int32_t *drawn, uint32_t n)
{
    struct slot *slot = &drafts->slots[at];
    struct draft_rates nobody = {0}, *of_key = key_of(slot) ? &slot->key->rates : &nobody;
    for (uint32_t i = 0; i < n && i < slot->n_guessed; i++) {
        bool came_true = drawn[i] == slot->draft.tokens[i];
        draft_rates_learn(&slot->rates, of_key, slot->kinds[i], came_true);
        if (!came_true)
            break;
    }
    slot->n_guessed = slot->draft.n = 0;
}
