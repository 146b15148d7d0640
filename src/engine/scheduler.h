/* scheduler.h: who gets how many rows of the next step. A pure policy: times come as arguments (ms, never
 * falling), nothing is read or waited for, nothing is allocated after scheduler_create. The engine thread
 * alone calls it.
 *
 * An entry waits, then has a sequence and runs: first its prompt, then one row a step. The loop:
 *
 *     scheduler_add(...)                                      for each new request
 *     scheduler_next(s, now)->n_held = ...                    before each of the following
 *     while ((entry = scheduler_admit(s, now, room)))         open its sequence, match its prefix,
 *         entry->n_committed = what the cache had
 *     plan = scheduler_plan(s, now)                           no items: sleep until scheduler_wakeup_ms
 *     reserve pages; while there are none: victim = scheduler_preempt(s), close the victim's sequence
 *     compute the items of the plan
 *     scheduler_done(s, elapsed)
 *     for each item with entry->n_committed == entry->n_tokens: draw, scheduler_drew, and scheduler_remove at the end;
 *         while what is drawn is what was guessed: scheduler_accepted instead, and draw from the guess's row
 *
 * Steps. Every decoding entry gets its row; then prompts get what fits into the budget (step_budget.h), or, where there are
 * none, guesses (n_draft) do, as far as the batch has room.
 *
 * Order, for admission and for prompts: turns.h. A preempted entry keeps its arrival.
 *
 * Prompts that begin alike. Of entries that want the same page next (page_group), one gets rows in a step: the one whose
 * turn it is. The others have the page from the cache afterwards, and the caller raises their n_committed. They are
 * looked at anew before each plan, so that nobody waits for an entry that gets no rows. */
#ifndef RUNNEL_ENGINE_SCHEDULER_H
#define RUNNEL_ENGINE_SCHEDULER_H

#include "base/error.h"
#include "engine/scheduler_entry.h"
#include "engine/step_cost.h"

struct scheduler;

struct scheduler_options {    /* 0: the default in brackets */
    uint32_t n_parallel;      /* sequences at once [8] */
    uint32_t n_batch;         /* rows of a step, n_parallel at least [512] */
    uint32_t n_requests;      /* waiting or running, n_parallel at least [100] */
    uint32_t n_rows_together; /* what the back end likes, see backend.h [8] */
    uint32_t n_rows_prompt;   /* likewise [32] */
    double step_budget_ms;    /* of a step in which somebody decodes [60] */
    double prompt_budget_ms;  /* of one in which nobody does [4 step budgets] */
    double window_ms;         /* the first request of an idle engine waits for others [0: it does not] */
    double max_wait_ms;       /* predicted longer waits are refused [0: none] */
};

int scheduler_create(const struct scheduler_options *options, struct scheduler **scheduler,
                     runnel_error *error);
void scheduler_free(struct scheduler *scheduler); /* entries still in it are the caller's */

enum scheduler_answer {
    SCHEDULER_ACCEPTED = 0,
    SCHEDULER_FULL, /* n_requests are there */
    SCHEDULER_SLOW, /* the predicted wait is past max_wait_ms */
};

/* Takes an entry, which waits from then on, or refuses it and keeps nothing of it. forecast (may be NULL) is
 * filled in any case; a wait_ms of a refusal is what Retry-After should say. */
enum scheduler_answer scheduler_add(struct scheduler *scheduler, struct scheduler_entry *entry, double now_ms,
                                    struct scheduler_forecast *forecast);

/* Finished or cancelled, waiting or running, even between plan and done. Its length teaches the forecast. */
void scheduler_remove(struct scheduler *scheduler, struct scheduler_entry *entry);

/* Who gets the next sequence, if there is room; NULL: none waits, no sequence is free, or the window is open. */
struct scheduler_entry *scheduler_next(const struct scheduler *scheduler, double now_ms);

/* The same entry, which now runs; or NULL, also if the KV cache has too little room (room_tokens: positions it can
 * still give, cached pages that may be evicted included) for what it needs beside its n_held tokens and for what the
 * running ones still need; nobody overtakes it then. With nothing running, room is not asked. The entry's
 * n_committed is 0; the caller sets what the cache had, n_tokens - 1 at most. */
struct scheduler_entry *scheduler_admit(struct scheduler *scheduler, double now_ms, uint64_t room_tokens);

enum scheduler_phase {
    SCHEDULER_PROMPT, /* rows of a prompt, or of what is computed again after a preemption */
    SCHEDULER_DECODE, /* the row of the token that was drawn last, and those of guesses that follow it */
};

/* The caller may lower n_rows before scheduler_done (guesses go first, and n_draft with them). An entry that is removed or preempted meanwhile becomes
 * NULL with 0 rows. */
struct scheduler_item {
    struct scheduler_entry *entry;
    enum scheduler_phase phase;
    uint32_t n_rows;     /* to be computed */
    uint32_t n_draft;    /* the last ones of these: rows of guessed tokens */
    uint32_t n_accepted; /* the first ones of n_draft: guesses that came true, see scheduler_accepted */
};

struct scheduler_plan {
    uint32_t n_items, n_rows;     /* items: entries that lack one row first */
    struct scheduler_item *items; /* valid until the next plan */
    double expected_ms;
};

const struct scheduler_plan *scheduler_plan(struct scheduler *scheduler, double now_ms);

/* The latest plan was computed in elapsed_ms: keys are charged for all its rows, and the cost model learns (0: it
 * does not; for a step that was not computed, lower all rows to 0). Entries' n_committed advance by all rows but those
 * of guesses. */
void scheduler_done(struct scheduler *scheduler, double elapsed_ms);

/* The entry has one token more; of the last one this is told, too, before the entry is removed. */
void scheduler_drew(struct scheduler *scheduler, struct scheduler_entry *entry);
/* After scheduler_done, in place of scheduler_drew, n_draft times at most: what was drawn is the item's next guess. The
 * entry has one token more, and the row of that token, which is computed, stands. */
void scheduler_accepted(struct scheduler *scheduler, struct scheduler_item *item);

/* Pages ran out: of the running entries the one that arrived last, if there are two or more, waits again, all
 * to be computed anew, and is returned; the caller closes its sequence. NULL: only one runs, or none. The
 * oldest is never chosen, so something always comes to its end. */
struct scheduler_entry *scheduler_preempt(struct scheduler *scheduler);

/* A waiting entry that has never run and waits longer than max_wait_ms, to be removed and answered; or
 * NULL. */
struct scheduler_entry *scheduler_expired(struct scheduler *scheduler, double now_ms);

/* When there is something to do without a new request: now_ms or before, later (a window, an expiry), or
 * INFINITY. Assumes that admission would not fail for lack of room. */
double scheduler_wakeup_ms(const struct scheduler *scheduler, double now_ms);

struct scheduler_stats {
    uint32_t n_waiting, n_running;
    uint64_t n_steps, n_preemptions, n_full;
    /* Refusals for a long predicted wait. Each is followed up: its turn would have come later than
     * max_wait_ms (right) or sooner (wrong); the rest is still open, or was pushed out of the record. */
    uint64_t n_refused, n_refusals_right, n_refusals_wrong;
    uint64_t n_expired;         /* taken, and then waited longer than max_wait_ms before their first row */
    uint64_t n_forecast_visits; /* how often a prediction looked at an entry: what forecasts cost */
    double answer_tokens;       /* the mean of answers that ended, old ones fading */
    struct step_cost cost;
};
void scheduler_get_stats(const struct scheduler *scheduler, struct scheduler_stats *stats);

/* What steps cost, as far as is known; valid as long as the scheduler. */
const struct step_cost *scheduler_cost(const struct scheduler *scheduler);

/* Feeds the cost model alone: steps of the warm-up. */
void scheduler_learn(struct scheduler *scheduler, uint32_t n_rows, double n_pairs, double ms);

/* NULL, or what is wrong (static text). For tests and debug builds. */
const char *scheduler_check(const struct scheduler *scheduler);

#endif
