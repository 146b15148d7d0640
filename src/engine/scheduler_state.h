/* scheduler_state.h: what scheduler.c (steps) and forecast.c (waits) share, and nobody else. */
#ifndef RUNNEL_ENGINE_SCHEDULER_STATE_H
#define RUNNEL_ENGINE_SCHEDULER_STATE_H

#include "engine/scheduler.h"

enum { N_GHOSTS = 64, N_CLASSES = 6 };

#define KEY_SLACK_MS 250.0 /* keys this close to the least charged one are equals */
#define KEY_LEAD_MS  2000.0

struct scheduler_list {
    struct scheduler_entry *first, *last;
    uint32_t n;
};

/* Charged: machine time that the key's rows took, on a clock of its own (only differences matter). */
struct scheduler_key {
    uint64_t key;
    double charged_ms;
    uint32_t n_entries; /* 0: a memory, or unused */
    uint64_t last_used; /* serial of its latest entry; 0: unused */
};

/* A refused request that is followed up: when would its turn have come? */
struct scheduler_ghost {
    bool open, has_sequence;
    struct scheduler_entry entry; /* in no list */
};

/* A request in a forecast. */
struct forecast_item {
    const struct scheduler_entry *entry;
    double n_rows, n_tokens; /* still to compute of the prompt, to draw */
    double score;
    uint32_t key_slot; /* n_keys: one that is not in the table */
};

struct scheduler {
    struct scheduler_options options;
    struct scheduler_list waiting, running;
    struct scheduler_plan plan;
    bool plan_is_open; /* not done yet */
    struct step_cost cost;
    double window_until_ms; /* the idle engine's first request waits; -INFINITY: no window is open */
    uint64_t last_serial;

    struct scheduler_key *keys; /* [n_keys] */
    uint32_t n_keys;
    double base_ms; /* the least charged of the keys with entries, so far: never falls */

    double mean_drawn, own_share; /* of answers that ended: tokens; how many before their limit */
    uint64_t n_ended;
    /* Means over requests that were taken, old ones fading, by class: long prompts, and those whose key is
     * charged more than others, are overtaken by requests that a forecast does not know yet. */
    double foretold_ms[N_CLASSES], waited_ms[N_CLASSES];
    struct forecast_item *items; /* [n_requests + 1] scratch of a forecast */
    double *charges;             /* [n_keys + 1] too */
    struct scheduler_ghost ghosts[N_GHOSTS];
    uint32_t next_ghost;

    uint64_t n_steps, n_preemptions, n_full, n_refused, n_right, n_wrong, n_expired;
};

/* Rows of an entry that are still to be computed. */
static inline uint32_t entry_left(const struct scheduler_entry *entry)
{
    return entry->n_tokens - entry->n_computed;
}

/* True while it has more than the row that every decoding entry has. */
static inline bool entry_is_prompt(const struct scheduler_entry *entry)
{
    return entry_left(entry) > 1;
}

/* Where its computing begins: for one that waits, what the cache is likely to have. */
static inline uint32_t entry_position(const struct scheduler_entry *entry)
{
    if (entry->state == SCHEDULER_RUNNING)
        return entry->n_computed;
    return entry->n_cached_likely < entry->n_tokens ? entry->n_cached_likely : entry->n_tokens - 1;
}

/* The lower, the earlier its turn. */
double scheduler_score(const struct scheduler *scheduler, const struct scheduler_entry *entry);

/* A step while it is filled. */
struct scheduler_step {
    uint32_t n_decode, n_prompt; /* rows */
    double n_pairs;              /* of all of them */
    double decode_ms;            /* what the decoding rows alone would take */
    bool draws;                  /* somebody gets a token from it */
};

/* Rows of one prompt at a position, n_max at most, that the step takes besides: the rule of the budget. */
uint32_t scheduler_share(const struct scheduler *scheduler, const struct scheduler_step *step,
                         uint32_t position, uint32_t n_max);

/* What a key has been charged, or where it would start. */
double scheduler_charged(const struct scheduler *scheduler, uint64_t key);

/* forecast.c */
void forecast_learn(struct scheduler *scheduler, const struct scheduler_entry *entry);
/* What a computed wait is multiplied by, from how long others have waited. */
double forecast_correction(const struct scheduler *scheduler, uint32_t forecast_class);
uint32_t forecast_class(const struct scheduler *scheduler, const struct scheduler_entry *entry);
void forecast_refused(struct scheduler *scheduler, const struct scheduler_entry *entry);
/* An entry that was taken has waited, until its first row or its expiry. */
void forecast_waited(struct scheduler *scheduler, const struct scheduler_entry *entry, double waited_ms);
/* Before a step is planned: closes the record of refused requests whose turn would have come. */
void forecast_follow_up(struct scheduler *scheduler, double now_ms);

#endif
