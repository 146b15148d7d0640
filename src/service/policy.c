/* policy.c: see policy.h. */
#include "service/policy.h"

#include <math.h>
#include <string.h>

enum {
    GAP_MS = 5000
}; /* nobody looked for so long: the supervisor itself stood still, and knows nothing of others */

void policy_init(struct policy *policy, const struct policy_options *options)
{
    *policy = (struct policy){.options = *options};
    policy->n_teams = 1;
    policy->team = (struct policy_team){1, POLICY_NONE, options->n_workers};
    policy->before.keeper = POLICY_NONE;
}

/* Looking --------------------------------------------------------------------------------------------------- */

static bool is_open(const struct policy *policy, uint32_t keeper)
{
    return keeper != POLICY_NONE && policy->keepers[keeper] == POLICY_KEEPER_OPEN;
}

bool policy_has_model(const struct policy *policy)
{
    return is_open(policy, policy->team.keeper);
}

bool policy_is_loading(const struct policy *policy)
{
    for (unsigned i = 0; i < POLICY_KEEPERS; i++)
        if (policy->keepers[i] == POLICY_KEEPER_LOADING)
            return true;
    return false;
}

uint32_t policy_count(const struct policy *policy, enum policy_worker_state state)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        n += policy->workers[i].state == state && policy->workers[i].team == policy->team.number;
    return n;
}

/* Of all teams. */
static uint32_t count_all(const struct policy *policy, enum policy_worker_state state)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        n += policy->workers[i].state == state;
    return n;
}

static bool is_somebody(const struct policy *policy, enum policy_worker_state state)
{
    return count_all(policy, state) > 0;
}

static bool lives_nobody(const struct policy *policy)
{
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (policy->workers[i].state != POLICY_FREE)
            return false;
    return true;
}

static bool has_workers(const struct policy *policy, uint32_t keeper)
{
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (policy->workers[i].state != POLICY_FREE && policy->workers[i].keeper == keeper)
            return true;
    return false;
}

/* A worker of the team that had its share of requests; POLICY_NONE: none. */
static uint32_t find_spent(const struct policy *policy)
{
    for (uint32_t i = 0; i < POLICY_SLOTS; i++)
        if (policy->workers[i].state == POLICY_READY && policy->workers[i].is_spent &&
            policy->workers[i].team == policy->team.number)
            return i;
    return POLICY_NONE;
}

static double delay_ms(const struct policy *policy, uint32_t n_early)
{
    return fmin(ldexp(policy->options.first_delay_ms, (int)(n_early < 60 ? n_early : 60) - 1),
                policy->options.longest_delay_ms);
}

/* What happened --------------------------------------------------------------------------------------------- */

static void set_state(struct policy_worker *worker, enum policy_worker_state state, double now_ms)
{
    worker->state = state;
    worker->since_ms = now_ms;
}

static void begin_drain(struct policy *policy, uint32_t slot, double now_ms)
{
    const struct policy_options *options = &policy->options;
    bool is_awaited = policy->is_ending || policy->must_make_room;
    set_state(&policy->workers[slot], POLICY_DRAINING, now_ms);
    policy->workers[slot].drain_ms = is_awaited ? options->drain_ms : options->retire_ms;
}

/* No other model is loaded before those that drain have gone. */
static void make_room(struct policy *policy, double now_ms)
{
    policy->must_make_room = true;
    for (unsigned i = 0; i < POLICY_SLOTS; i++) {
        struct policy_worker *worker = &policy->workers[i];
        if (worker->state == POLICY_DRAINING)
            worker->drain_ms = fmin(worker->drain_ms, now_ms - worker->since_ms + policy->options.drain_ms);
    }
}

/* Nobody could be asked yet, and nobody ever will be. */
static void fail(struct policy *policy)
{
    policy->is_ending = true;
    policy->has_failed = true;
}

/* Starts do not wait any more. */
static void forget_early_deaths(struct policy *policy)
{
    policy->n_early = 0;
    policy->worker_retry_ms = 0;
    policy->delay_untold = false;
}

static void change_team(struct policy *policy, uint32_t keeper, uint32_t n_workers)
{
    policy->before = policy->team;
    policy->team = (struct policy_team){++policy->n_teams, keeper, n_workers};
    policy->is_changing = true;
    forget_early_deaths(policy);
}

static void give_up_change(struct policy *policy)
{
    policy->team = policy->before;
    policy->before.keeper = POLICY_NONE;
    policy->is_changing = false;
    forget_early_deaths(policy);
    policy->given_up_untold = true;
}

void policy_keeper_opened(struct policy *policy, uint32_t keeper)
{
    if (policy->keepers[keeper] != POLICY_KEEPER_LOADING)
        return;
    policy->keepers[keeper] = POLICY_KEEPER_OPEN;
    policy->n_keeper_early = 0;
    policy->must_make_room = false;
    policy->is_swapping = false;
    if (policy->was_ready)
        change_team(policy, keeper, policy->team.n_workers);
    else
        policy->team.keeper = keeper;
}

/* It did not come to open its model. */
static void lose_loading_keeper(struct policy *policy, double now_ms)
{
    if (!policy->was_ready) {
        fail(policy);
    } else if (policy->is_swapping && is_open(policy, policy->team.keeper)) {
        policy->is_swapping = false;
        policy->given_up_untold = true;
    } else {
        policy->keeper_retry_ms = now_ms + delay_ms(policy, ++policy->n_keeper_early);
        policy->keeper_delay_untold = true;
    }
}

static void lose_open_keeper(struct policy *policy, uint32_t keeper, bool fits_beside, double now_ms)
{
    if (policy->before.keeper == keeper)
        policy->before.keeper = POLICY_NONE;
    if (policy->team.keeper != keeper)
        return;
    policy->team.keeper = POLICY_NONE;
    if (!policy->was_ready)
        fail(policy);
    else if (policy->is_changing && is_open(policy, policy->before.keeper))
        give_up_change(policy);
    else if (!fits_beside)
        make_room(policy, now_ms);
}

void policy_keeper_died(struct policy *policy, uint32_t keeper, bool fits_beside, double now_ms)
{
    enum policy_keeper_state state = policy->keepers[keeper];
    policy->keepers[keeper] = POLICY_KEEPER_NONE;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (policy->workers[i].keeper == keeper)
            policy->workers[i].keeper = POLICY_NONE;
    if (policy->is_ending)
        return;
    if (state == POLICY_KEEPER_LOADING)
        lose_loading_keeper(policy, now_ms);
    else if (state == POLICY_KEEPER_OPEN)
        lose_open_keeper(policy, keeper, fits_beside, now_ms);
}

void policy_worker_ready(struct policy *policy, uint32_t slot, double now_ms)
{
    struct policy_worker *worker = &policy->workers[slot];
    if (worker->state != POLICY_STARTING)
        return;
    set_state(worker, POLICY_READY, now_ms);
    worker->step_ms = worker->beat_ms = worker->told_ms = now_ms;
    policy->was_ready = true;
    if (worker->team == policy->team.number)
        policy->n_early = 0;
}

/* A worker of the team came to nothing before it was ready. */
static void count_early_death(struct policy *policy, bool has_said_why, double now_ms)
{
    policy->worker_retry_ms = now_ms + delay_ms(policy, ++policy->n_early);
    bool is_hopeless = has_said_why || policy->n_early >= policy->options.n_early_deaths;
    if (!policy->was_ready && is_hopeless)
        fail(policy);
    else if (is_hopeless && policy->is_changing && is_open(policy, policy->before.keeper))
        give_up_change(policy);
    else
        policy->delay_untold = true;
}

void policy_worker_died(struct policy *policy, uint32_t slot, bool has_said_why, double now_ms)
{
    struct policy_worker *worker = &policy->workers[slot];
    bool is_of_team = worker->team == policy->team.number;
    bool is_early =
        worker->state == POLICY_STARTING && is_of_team && worker->keeper != POLICY_NONE && !policy->is_ending;
    if (worker->state == POLICY_READY && is_of_team) /* what one more lacked is there now */
        forget_early_deaths(policy);
    *worker = (struct policy_worker){.keeper = POLICY_NONE};
    if (is_early)
        count_early_death(policy, has_said_why, now_ms);
}

void policy_worker_progress(struct policy *policy, uint32_t slot, uint64_t n_steps, uint64_t n_beats,
                            bool has_work, double now_ms)
{
    struct policy_worker *worker = &policy->workers[slot];
    bool nobody_looked = now_ms - worker->told_ms > GAP_MS;
    worker->told_ms = now_ms;
    if (!has_work || n_steps != worker->n_steps || nobody_looked)
        worker->step_ms = now_ms;
    if (n_beats != worker->n_beats || nobody_looked)
        worker->beat_ms = now_ms;
    worker->n_steps = n_steps;
    worker->n_beats = n_beats;
    worker->hangs = policy->options.hang_ms > 0 &&
                    now_ms - fmin(worker->step_ms, worker->beat_ms) > policy->options.hang_ms;
}

void policy_worker_spent(struct policy *policy, uint32_t slot)
{
    policy->workers[slot].is_spent = true;
}

void policy_worker_drains(struct policy *policy, uint32_t slot, double now_ms)
{
    if (policy->workers[slot].state == POLICY_READY)
        begin_drain(policy, slot, now_ms);
}

void policy_greeter_ended(struct policy *policy, double now_ms)
{
    if (!policy->greeter_ends)
        policy->greeter_retry_ms =
            now_ms + policy->options.longest_delay_ms; /* it is of use, but not needed */
    policy->has_greeter = policy->greeter_ends = false;
}

void policy_time_passes(struct policy *policy, double now_ms)
{
    double gap_ms = policy->passed_ms > 0 ? now_ms - policy->passed_ms : 0;
    policy->passed_ms = now_ms;
    if (gap_ms <= GAP_MS)
        return;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (policy->workers[i].state == POLICY_STARTING || policy->workers[i].state == POLICY_DRAINING)
            policy->workers[i].since_ms = fmin(policy->workers[i].since_ms + gap_ms, now_ms);
}

/* What somebody wants ----------------------------------------------------------------------------------------- */

static const char *refuse_change(const struct policy *policy)
{
    if (policy->is_ending)
        return "the server is about to end";
    if (!is_open(policy, policy->team.keeper) || !policy->was_ready)
        return "no model is open yet";
    if (policy->is_changing || policy->is_swapping)
        return "another change is under way";
    return NULL;
}

bool policy_is_settled(const struct policy *policy)
{
    return policy->is_ending || !refuse_change(policy);
}

const char *policy_scale(struct policy *policy, uint32_t n_workers)
{
    const char *why = refuse_change(policy);
    if (why)
        return why;
    if (n_workers == policy->team.n_workers)
        policy->changed_untold = true;
    else
        change_team(policy, policy->team.keeper, n_workers);
    return NULL;
}

/* The workers of another team start, which comes to an end by itself: they are ready, or there is a team to return to. */
static bool comes_to_an_end(const struct policy *policy)
{
    return policy->is_changing && policy_has_model(policy) &&
           (is_open(policy, policy->before.keeper) || !policy->n_early);
}

static const char *refuse_swap(const struct policy *policy)
{
    if (policy->is_ending)
        return "the server is about to end";
    if (!policy->was_ready)
        return "no model is open yet";
    return comes_to_an_end(policy) ? "another change is under way" : NULL;
}

bool policy_can_swap(const struct policy *policy)
{
    return policy->is_ending || !refuse_swap(policy);
}

const char *policy_swap(struct policy *policy)
{
    const char *why = refuse_swap(policy);
    if (why)
        return why;
    policy->is_swapping = true;
    policy->must_load_anew = policy_is_loading(policy);
    policy->keeper_retry_ms = 0;
    policy->n_keeper_early = 0;
    return NULL;
}

void policy_set_limits(struct policy *policy, double drain_ms, double retire_ms, double hang_ms)
{
    policy->options.drain_ms = drain_ms;
    policy->options.retire_ms = retire_ms;
    policy->options.hang_ms = hang_ms;
}

void policy_end(struct policy *policy, double now_ms)
{
    (void)now_ms;
    policy->is_hurried = policy->is_ending;
    policy->is_ending = true;
}

/* What is to be done -------------------------------------------------------------------------------------------
 *
 * Each of the following looks for one thing to do, and notes that it is begun. */

static bool act(struct policy_action *action, enum policy_do what, uint32_t slot)
{
    *action = (struct policy_action){.what = what, .slot = slot, .keeper = POLICY_NONE};
    return true;
}

static bool act_on_keeper(struct policy *policy, struct policy_action *action, enum policy_do what,
                          uint32_t keeper)
{
    act(action, what, POLICY_NONE);
    action->keeper = keeper;
    policy->keepers[keeper] = what == POLICY_START_KEEPER ? POLICY_KEEPER_LOADING : POLICY_KEEPER_ENDING;
    return true;
}

static bool drain(struct policy *policy, struct policy_action *action, enum policy_do what, uint32_t slot,
                  double now_ms)
{
    begin_drain(policy, slot, now_ms);
    return act(action, what, slot);
}

static bool kill_worker(struct policy *policy, struct policy_action *action, uint32_t slot, const char *why,
                        double now_ms)
{
    set_state(&policy->workers[slot], POLICY_DYING, now_ms);
    act(action, POLICY_KILL_WORKER, slot);
    action->why = why;
    return true;
}

static double drained_by_ms(const struct policy *policy, const struct policy_worker *worker)
{
    return worker->since_ms + (worker->is_hurried ? policy->options.hurry_ms : worker->drain_ms);
}

/* Workers that do not what they should. */
static bool kill_one(struct policy *policy, double now_ms, struct policy_action *action)
{
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        const struct policy_worker *worker = &policy->workers[i];
        bool is_alive = worker->state == POLICY_READY || worker->state == POLICY_DRAINING;
        if (is_alive && worker->hangs) {
            if (worker->team == policy->team.number)
                forget_early_deaths(policy);
            return kill_worker(policy, action, i, "it stands still", now_ms);
        }
        if (worker->state == POLICY_DRAINING && now_ms >= drained_by_ms(policy, worker))
            return kill_worker(policy, action, i, "it drains for too long", now_ms);
        if (worker->state == POLICY_STARTING && now_ms >= worker->since_ms + policy->options.start_ms) {
            kill_worker(policy, action, i, "it takes too long to start", now_ms);
            if (worker->team == policy->team.number && !policy->is_ending)
                count_early_death(policy, false, now_ms);
            return true;
        }
    }
    return false;
}

static bool end_greeter(struct policy *policy, struct policy_action *action)
{
    if (!policy->has_greeter || policy->greeter_ends)
        return false;
    policy->greeter_ends = true;
    return act(action, POLICY_END_GREETER, POLICY_NONE);
}

static bool end_worker(struct policy *policy, double now_ms, struct policy_action *action)
{
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        struct policy_worker *worker = &policy->workers[i];
        if (worker->state == POLICY_READY || (worker->state == POLICY_DRAINING && !worker->ends)) {
            worker->ends = true;
            return drain(policy, action, POLICY_END_WORKER, i, now_ms);
        }
        if (worker->state == POLICY_STARTING)
            return kill_worker(policy, action, i, NULL, now_ms);
        if (worker->state == POLICY_DRAINING && policy->is_hurried && !worker->is_hurried) {
            worker->is_hurried = true;
            worker->since_ms = now_ms;
            return act(action, POLICY_HURRY_WORKER, i);
        }
    }
    return false;
}

/* Loading ones at once, others with their last worker. */
static bool end_keeper(struct policy *policy, struct policy_action *action)
{
    bool is_alone = lives_nobody(policy);
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        if (policy->keepers[i] == POLICY_KEEPER_LOADING ||
            (policy->keepers[i] == POLICY_KEEPER_OPEN && is_alone))
            return act_on_keeper(policy, action, POLICY_END_KEEPER, i);
    return false;
}

static bool exit_at_last(struct policy *policy, struct policy_action *action)
{
    bool has_keeper = false;
    for (unsigned i = 0; i < POLICY_KEEPERS; i++)
        has_keeper |= policy->keepers[i] != POLICY_KEEPER_NONE;
    if (has_keeper || policy->has_greeter || !lives_nobody(policy) || policy->has_exited)
        return false;
    policy->has_exited = true;
    return act(action, policy->has_failed ? POLICY_EXIT_FAILED : POLICY_EXIT_DONE, POLICY_NONE);
}

/* What was not told yet. */
static bool tell(struct policy *policy, double now_ms, struct policy_action *action)
{
    if (policy->delay_untold) {
        policy->delay_untold = false;
        act(action, POLICY_TELL_DELAY, 0);
        action->delay_ms = policy->worker_retry_ms - now_ms;
        return true;
    }
    if (policy->keeper_delay_untold) {
        policy->keeper_delay_untold = false;
        act(action, POLICY_TELL_DELAY, POLICY_NONE);
        action->delay_ms = policy->keeper_retry_ms - now_ms;
        return true;
    }
    if (policy->given_up_untold) {
        policy->given_up_untold = false;
        act(action, POLICY_TELL_GIVEN_UP, POLICY_NONE);
        action->n_workers = policy->team.n_workers;
        return true;
    }
    if (policy->changed_untold) {
        policy->changed_untold = false;
        act(action, POLICY_TELL_CHANGED, POLICY_NONE);
        action->n_workers = policy->team.n_workers;
        return true;
    }
    if (!policy->has_told_ready && !policy->has_greeter && is_somebody(policy, POLICY_READY)) {
        policy->has_told_ready = true;
        return act(action, POLICY_TELL_READY, POLICY_NONE);
    }
    return false;
}

static bool start_keeper(struct policy *policy, double now_ms, struct policy_action *action)
{
    bool is_needed = policy->is_swapping || !is_open(policy, policy->team.keeper);
    bool has_room = !policy->must_make_room || lives_nobody(policy);
    if (!is_needed || !has_room || policy_is_loading(policy) || now_ms < policy->keeper_retry_ms)
        return false;
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        if (policy->keepers[i] == POLICY_KEEPER_NONE)
            return act_on_keeper(policy, action, POLICY_START_KEEPER, i);
    return false; /* one that was told to end has not gone yet */
}

static bool end_loading_keeper(struct policy *policy, struct policy_action *action)
{
    if (!policy->must_load_anew)
        return false;
    policy->must_load_anew = false;
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        if (policy->keepers[i] == POLICY_KEEPER_LOADING)
            return act_on_keeper(policy, action, POLICY_END_KEEPER, i);
    return false;
}

static bool end_old_keeper(struct policy *policy, struct policy_action *action)
{
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        if (policy->keepers[i] == POLICY_KEEPER_OPEN && i != policy->team.keeper &&
            !(policy->is_changing && i == policy->before.keeper) && !has_workers(policy, i))
            return act_on_keeper(policy, action, POLICY_END_KEEPER, i);
    return false;
}

/* The lowest rank that nobody of the team has. */
static uint32_t find_rank(const struct policy *policy)
{
    uint32_t rank = 0;
    for (unsigned i = 0; i < POLICY_SLOTS; i++) {
        const struct policy_worker *worker = &policy->workers[i];
        bool has_it = worker->team == policy->team.number && worker->rank == rank &&
                      (worker->state == POLICY_STARTING || worker->state == POLICY_READY) &&
                      !worker->is_spent;
        if (has_it) {
            rank++;
            i = UINT32_MAX; /* from the first one again */
        }
    }
    return rank;
}

static bool start_worker(struct policy *policy, double now_ms, struct policy_action *action)
{
    bool replaces = !policy->is_changing && find_spent(policy) != POLICY_NONE &&
                    count_all(policy, POLICY_DRAINING) < policy->team.n_workers;
    uint32_t n_wanted = policy->team.n_workers + replaces;
    if (!is_open(policy, policy->team.keeper) || now_ms < policy->worker_retry_ms ||
        policy_count(policy, POLICY_STARTING) + policy_count(policy, POLICY_READY) >= n_wanted)
        return false;
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        struct policy_worker *worker = &policy->workers[i];
        if (worker->state != POLICY_FREE)
            continue;
        act(action, POLICY_START_WORKER, i);
        action->keeper = policy->team.keeper;
        action->rank = find_rank(policy);
        action->n_workers = policy->team.n_workers;
        *worker = (struct policy_worker){
            .team = policy->team.number, .rank = action->rank, .keeper = action->keeper, .told_ms = now_ms};
        set_state(worker, POLICY_STARTING, now_ms);
        return true;
    }
    return false;
}

/* Workers of another team once this one is complete, and those that somebody has replaced. */
static bool retire_worker(struct policy *policy, double now_ms, struct policy_action *action)
{
    uint32_t n_ready = policy_count(policy, POLICY_READY);
    bool is_complete = is_open(policy, policy->team.keeper) && n_ready >= policy->team.n_workers;
    if (is_complete && policy->is_changing) {
        policy->is_changing = false;
        policy->before.keeper = POLICY_NONE;
        policy->changed_untold = true;
    }
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        enum policy_worker_state state = policy->workers[i].state;
        bool is_old = policy->workers[i].team != policy->team.number;
        if (state == POLICY_READY && ((is_old && is_complete) || policy->must_make_room))
            return drain(policy, action, POLICY_RETIRE_WORKER, i, now_ms);
        if (state == POLICY_STARTING && (is_old || policy->must_make_room))
            return kill_worker(policy, action, i, NULL, now_ms);
    }
    if (!is_complete || n_ready == policy->team.n_workers)
        return false;
    uint32_t slot = find_spent(policy);
    for (uint32_t i = 0; i < POLICY_SLOTS && slot == POLICY_NONE;
         i++) /* it died, and its successor came to stay */
        if (policy->workers[i].state == POLICY_READY)
            slot = i;
    return drain(policy, action, POLICY_RETIRE_WORKER, slot, now_ms);
}

static bool start_greeter(struct policy *policy, double now_ms, struct policy_action *action)
{
    bool must_wait = !policy->was_ready || policy->n_early || !is_open(policy, policy->team.keeper);
    if (policy->has_greeter || !must_wait || is_somebody(policy, POLICY_READY) ||
        now_ms < policy->greeter_retry_ms)
        return false;
    policy->has_greeter = true;
    return act(action, POLICY_START_GREETER, POLICY_NONE);
}

bool policy_next(struct policy *policy, double now_ms, struct policy_action *action)
{
    if (policy->is_ending)
        return end_greeter(policy, action) || end_worker(policy, now_ms, action) ||
               kill_one(policy, now_ms, action) || end_keeper(policy, action) || exit_at_last(policy, action);
    if (kill_one(policy, now_ms, action) || start_greeter(policy, now_ms, action) ||
        end_loading_keeper(policy, action) || start_keeper(policy, now_ms, action) ||
        start_worker(policy, now_ms, action) || retire_worker(policy, now_ms, action) ||
        end_old_keeper(policy, action))
        return true;
    if (is_somebody(policy, POLICY_READY) && end_greeter(policy, action))
        return true;
    return tell(policy, now_ms, action);
}

static void wake_by(double *wake_ms, double at_ms, double now_ms)
{
    if (at_ms > now_ms)
        *wake_ms = fmin(*wake_ms, at_ms);
}

double policy_wake_ms(const struct policy *policy, double now_ms)
{
    double wake_ms = HUGE_VAL;
    wake_by(&wake_ms, policy->worker_retry_ms, now_ms);
    wake_by(&wake_ms, policy->keeper_retry_ms, now_ms);
    wake_by(&wake_ms, policy->greeter_retry_ms, now_ms);
    for (unsigned i = 0; i < POLICY_SLOTS; i++) {
        const struct policy_worker *worker = &policy->workers[i];
        if (worker->state == POLICY_DRAINING)
            wake_by(&wake_ms, drained_by_ms(policy, worker), now_ms);
        if (worker->state == POLICY_STARTING)
            wake_by(&wake_ms, worker->since_ms + policy->options.start_ms, now_ms);
    }
    return wake_ms;
}
