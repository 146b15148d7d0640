/* policy.h: which processes of a server shall live: a state machine without a clock and without system calls.
 *
 * The supervisor tells what happened (a keeper opened its model, a worker is ready or dead, somebody wants more workers) and asks
 * for what is to be done, one action after the other, until there is none. An action counts as begun once it was given.
 *
 *     policy_worker_died(&policy, slot, false, now_ms);
 *     while (policy_next(&policy, now_ms, &action))
 *         carry_out(&action);
 *     wait_until(policy_wake_ms(&policy, now_ms));
 *
 * Workers stand in slots. Those that divide threads and memory among the same number, and have the same model, are a team;
 * another number of workers, or another model, is another team, which is ready before the one before it drains. Rules:
 *
 * - A worker that dies after it was ready is replaced at once. Deaths before that make the next start wait, each one in a
 *   row twice as long; the first worker that is ready ends that.
 * - Until the first worker was ever ready, a keeper that fails, a worker that says why it cannot start, and n_early_deaths
 *   deaths in a row end the server. Afterwards nothing but a signal does: a change (more workers, another model) is
 *   given up for the team before it, and what is needed is tried for ever.
 * - A worker that had its share of requests drains once its successor is ready; one after the other, and not while as many as
 *   there shall be drain already: each has memory of its own.
 * - A worker that stands still is killed. One that drains for too long, too: drain_ms at the end and where the next keeper waits
 *   for it to go, retire_ms elsewhere.
 * - Where a keeper dies, its workers go on; they drain once another keeper's are ready. If another model does not fit beside
 *   theirs, they drain first.
 * - While nobody is ready and somebody must wait, there is a greeter. It has gone before a server is called ready.
 *
 * Owns nothing; one thread. */
#ifndef RUNNEL_SERVICE_POLICY_H
#define RUNNEL_SERVICE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    POLICY_SLOTS = 31,       /* workers that live at the same time, draining ones included */
    POLICY_WORKERS_MAX = 15, /* wanted: two teams fit, and some that still drain */
    POLICY_KEEPERS = 2,
    POLICY_NONE = UINT32_MAX, /* no slot, no keeper */
};

struct policy_options {
    uint32_t n_workers;
    double first_delay_ms, longest_delay_ms; /* after deaths before ready */
    uint32_t n_early_deaths;                 /* in a row: a start or a change is given up */
    double start_ms;                         /* a worker must be ready after so long */
    double drain_ms;  /* a worker that drains must have gone after so long at the end of all */
    double retire_ms; /* after so long where others take its place; HUGE_VAL: never */
    double hurry_ms;  /* after so long, when hurried */
    double hang_ms;   /* a worker with work that does no step for so long is killed; 0: never */
};

enum policy_do {
    POLICY_START_KEEPER, /* keeper: opens the model, then policy_keeper_opened, or policy_keeper_died */
    POLICY_END_KEEPER,   /* keeper */
    POLICY_START_WORKER, /* slot, of keeper: one of n_workers, the rank-th; then policy_worker_ready or _died */
    POLICY_RETIRE_WORKER, /* slot: it accepts nothing more, finishes what it has, and dies */
    POLICY_END_WORKER, /* slot: likewise, but tells whoever comes that the server ends; also one that retires */
    POLICY_HURRY_WORKER, /* slot: what it has not finished is given up */
    POLICY_KILL_WORKER,  /* slot; why */
    POLICY_START_GREETER,
    POLICY_END_GREETER,   /* then policy_greeter_ended */
    POLICY_TELL_READY,    /* the first worker can be asked; once */
    POLICY_TELL_CHANGED,  /* all n_workers of a change are ready */
    POLICY_TELL_GIVEN_UP, /* a change failed: the team before it stays */
    POLICY_TELL_DELAY,    /* the next worker, or keeper if slot is POLICY_NONE, is started after delay_ms */
    POLICY_EXIT_DONE,     /* nobody lives */
    POLICY_EXIT_FAILED,   /* likewise, and nobody could ever be asked */
};

struct policy_action {
    enum policy_do what;
    uint32_t slot, keeper, rank, n_workers;
    double delay_ms;
    const char *why; /* for people; NULL: as what says */
};

enum policy_worker_state {
    POLICY_FREE,
    POLICY_STARTING,
    POLICY_READY,
    POLICY_DRAINING,
    POLICY_DYING, /* killed, and not yet dead */
};

struct policy_worker {
    enum policy_worker_state state;
    uint32_t team, rank, keeper; /* keeper: POLICY_NONE once that is dead */
    bool is_spent;               /* had its share of requests */
    bool ends;                   /* it was told that the server ends */
    bool is_hurried;             /* it was told that there is no more time */
    bool hangs;
    double since_ms; /* in this state, or hurried */
    double drain_ms; /* the limit that held when it began to drain */
    uint64_t n_steps, n_beats;
    double step_ms, beat_ms,
        told_ms; /* when it last did a step or had no work; a turn; when the figures were last told */
};

enum policy_keeper_state {
    POLICY_KEEPER_NONE,
    POLICY_KEEPER_LOADING,
    POLICY_KEEPER_OPEN,
    POLICY_KEEPER_ENDING
};

struct policy_team {
    uint32_t number, keeper, n_workers;
};

struct policy {
    struct policy_options options;
    struct policy_worker workers[POLICY_SLOTS];
    enum policy_keeper_state keepers[POLICY_KEEPERS];
    struct policy_team team, before; /* the one that is wanted; the one to return to while is_changing */
    uint32_t n_teams;                /* ever made: the next one's number */
    bool is_changing;                /* the team was not complete yet, and there is one before it */
    bool is_swapping;                /* a keeper loads for a change */
    bool must_load_anew; /* the keeper that loads is to end: what it opens is not wanted any more */
    bool must_make_room; /* no keeper loads before all workers have gone */
    bool has_greeter, greeter_ends;
    bool was_ready, has_told_ready;
    bool is_ending, is_hurried, has_failed, has_exited;
    uint32_t n_early, n_keeper_early; /* deaths before ready in a row */
    double worker_retry_ms, keeper_retry_ms, greeter_retry_ms;
    double passed_ms; /* when policy_time_passes was last called; 0: never */
    bool delay_untold, keeper_delay_untold, given_up_untold, changed_untold;
};

void policy_init(struct policy *policy, const struct policy_options *options);

/* What happened ------------------------------------------------------------------------------------------- */

void policy_keeper_opened(struct policy *policy, uint32_t keeper);
/* It ended, whether or not it was told to. fits_beside: another model has room beside the workers that it left. */
void policy_keeper_died(struct policy *policy, uint32_t keeper, bool fits_beside, double now_ms);
void policy_worker_ready(struct policy *policy, uint32_t slot, double now_ms);
/* has_said_why: it could not start, for a reason that will not go away by itself. */
void policy_worker_died(struct policy *policy, uint32_t slot, bool has_said_why, double now_ms);
/* What a worker shows of itself, about once a second: steps of its engine, turns of its loop, whether requests are computed
 * or wait. */
void policy_worker_progress(struct policy *policy, uint32_t slot, uint64_t n_steps, uint64_t n_beats,
                            bool has_work, double now_ms);
void policy_worker_spent(struct policy *policy, uint32_t slot);
/* Somebody else told it to end: it accepts nothing more. */
void policy_worker_drains(struct policy *policy, uint32_t slot, double now_ms);
void policy_greeter_ended(struct policy *policy, double now_ms);
/* Told about once a second. Where it was not for long, all stood still, and workers that start or drain have that time again. */
void policy_time_passes(struct policy *policy, double now_ms);

/* What somebody wants --------------------------------------------------------------------------------------- */

/* NULL: it is begun; else why not. */
const char *policy_scale(struct policy *policy, uint32_t n_workers);
/* Another model, or the same once more. A keeper that loads meanwhile is ended, and what was to be tried later is tried at once. */
const char *policy_swap(struct policy *policy);
/* From now on drain_ms, retire_ms and hang_ms of the options are these; a worker that drains already has as long as it was given. */
void policy_set_limits(struct policy *policy, double drain_ms, double retire_ms, double hang_ms);
/* The first time all drain; the second time what still runs is given up. */
void policy_end(struct policy *policy, double now_ms);

/* True: a change can begin, or is refused for good. */
bool policy_is_settled(const struct policy *policy);
/* Likewise of policy_swap, which need not wait for a keeper that loads, nor for what is tried for ever. */
bool policy_can_swap(const struct policy *policy);
bool policy_has_model(const struct policy *policy); /* one is open */
bool policy_is_loading(const struct policy *policy);

/* What is to be done ---------------------------------------------------------------------------------------- */

/* False: nothing for now. */
bool policy_next(struct policy *policy, double now_ms, struct policy_action *action);
/* When to ask again though nothing happened; HUGE_VAL: no need. */
double policy_wake_ms(const struct policy *policy, double now_ms);

/* Workers of the team that is wanted. */
uint32_t policy_count(const struct policy *policy, enum policy_worker_state state);

#endif
