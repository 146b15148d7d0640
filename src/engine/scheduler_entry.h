/* scheduler_entry.h: one request as the scheduler's parts see it: scheduler.c (steps), turns.c (order), forecast.c (waits). */
#ifndef RUNNEL_ENGINE_SCHEDULER_ENTRY_H
#define RUNNEL_ENGINE_SCHEDULER_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

enum scheduler_state { SCHEDULER_OUT = 0, SCHEDULER_WAITING, SCHEDULER_RUNNING };

/* Owned by the caller, zeroed at first; it stays in place while it is in the scheduler. */
struct scheduler_entry {
    /* Set by the caller before scheduler_add. */
    uint64_t key;        /* whose it is */
    uint32_t n_prompt;   /* tokens, 1 at least */
    uint32_t max_tokens; /* of the answer */
    uint32_t
        n_cached_likely;   /* how many tokens of the prompt the cache will have, as far as is known: a hint */
    uint64_t prefix_group; /* for forecasts: prompts of one group begin with the same tokens; 0: of none */
    uint32_t n_common;     /* how many tokens that is in this prompt */
    double arrival_ms;

    /* May be set before each scheduler_admit: tokens of its beginning whose pages running entries hold, so that
     * they take no room. */
    uint32_t n_held;

    /* May be set before each plan: rows in one step at most (a window's cut); 0: no limit. */
    uint32_t n_rows_max;
    /* Likewise: the group of running prompts that want the same page of tokens next; 0: none. */
    uint32_t page_group;
    /* Likewise: tokens that are guessed to follow; of an entry that decodes they are rows of the same step, as far as there
     * is room. */
    uint32_t n_draft;

    /* The scheduler's; to be read. The caller sets n_committed when the entry is admitted, and may raise it before
     * a plan where the cache has more. */
    enum scheduler_state state;
    uint32_t n_tokens;    /* prompt and what was drawn */
    uint32_t n_committed; /* of these, from the first on: whose rows are computed and stand */
    uint32_t n_drawn;
    uint32_t n_preempted;     /* how often */
    double admitted_ms;       /* when it first got a sequence; negative: not yet */
    double begun_ms;          /* when its first row ever was planned; negative: not yet */
    double predicted_wait_ms; /* until begun, as predicted on arrival; of a refused one, too */

    /* The scheduler's own. */
    struct scheduler_entry *next, *previous;
    uint64_t serial;
    uint32_t key_slot;
    bool planned, expired;
    bool held;          /* somebody else computes its next page in this step */
    double foretold_ms; /* predicted_wait_ms before it was corrected for what is usual in its class */
    uint32_t forecast_class;
    double likely_tokens;  /* of the answer, as the forecast knew it after likely_as_of - 1 answers */
    uint64_t likely_as_of; /* 0: not known */
};

struct scheduler_list {
    struct scheduler_entry *first, *last;
    uint32_t n;
};

/* What a new request may expect, by the measured cost of steps and the usual length of answers. */
struct scheduler_forecast {
    double wait_ms;        /* until its first row is computed */
    double first_token_ms; /* until its first token */
};

/* Tokens of an entry whose rows are still to be computed. */
static inline uint32_t entry_left(const struct scheduler_entry *entry)
{
    return entry->n_tokens - entry->n_committed;
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
        return entry->n_committed;
    return entry->n_cached_likely < entry->n_tokens ? entry->n_cached_likely : entry->n_tokens - 1;
}

#endif
