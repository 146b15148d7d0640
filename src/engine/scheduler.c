/* scheduler.c: the lists, the keys' shares, the order and the steps. Waits are predicted in forecast.c. */
#include "engine/scheduler_state.h"

#include <math.h>
#include <stdlib.h>

enum {
    PARALLEL_DEFAULT = 8,
    BATCH_DEFAULT = 512,
    REQUESTS_DEFAULT = 100,
    KEYS_REMEMBERED = 64,  /* besides those with requests */
    PROMPT_ROWS_MIN = 16,  /* even if they take the step past its budget, */
    PROMPT_ROWS_FLOOR = 4, /* unless they take it much further; then so many */
    ROWS_MULTIPLE = 8,     /* rows that products take together: a cut prompt leaves no fewer over */
    HEADROOM_TOKENS = 64,  /* of each running sequence, at admission */
};

static const double STEP_BUDGET_DEFAULT_MS = 60;
static const double PROMPT_SHARE = 0.25; /* of the decode time, at least */
static const double STALL_BUDGETS = 1.6; /* what a step may take for the sake of those 16 rows, */
static const double STALL_SHARE = 0.5;   /* or so much more than decoding alone */

int scheduler_create(const struct scheduler_options *given, struct scheduler **out, runnel_error *error)
{
    struct scheduler_options options = *given;
    options.n_parallel = options.n_parallel ? options.n_parallel : PARALLEL_DEFAULT;
    options.n_batch = options.n_batch ? options.n_batch : BATCH_DEFAULT;
    options.n_requests = options.n_requests ? options.n_requests : REQUESTS_DEFAULT;
    if (options.n_batch < options.n_parallel || options.n_requests < options.n_parallel)
        return error_set(error, RUNNEL_EINVAL,
                         "scheduler: %u rows a step and %u requests, expected at least the %u run together",
                         options.n_batch, options.n_requests, options.n_parallel);
    double *times[] = {&options.step_budget_ms, &options.prompt_budget_ms, &options.window_ms,
                       &options.max_wait_ms};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (!isfinite(*times[i]) || *times[i] < 0)
            return error_set(error, RUNNEL_EINVAL, "scheduler: a time of %g ms, expected 0 or more",
                             *times[i]);
    if (options.step_budget_ms == 0)
        options.step_budget_ms = STEP_BUDGET_DEFAULT_MS;
    if (options.prompt_budget_ms == 0)
        options.prompt_budget_ms = 4 * options.step_budget_ms;

    struct scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a scheduler");
    scheduler->options = options;
    scheduler->window_until_ms = -INFINITY;
    scheduler->mean_drawn = 150;
    scheduler->own_share = 0.5;
    scheduler->n_keys = options.n_requests + KEYS_REMEMBERED;
    step_cost_init(&scheduler->cost);
    scheduler->keys = calloc(scheduler->n_keys, sizeof *scheduler->keys);
    scheduler->charges = calloc((size_t)scheduler->n_keys + 1, sizeof *scheduler->charges);
    scheduler->items = calloc((size_t)options.n_requests + 1, sizeof *scheduler->items);
    scheduler->plan.items = calloc(options.n_parallel, sizeof *scheduler->plan.items);
    if (!scheduler->keys || !scheduler->charges || !scheduler->items || !scheduler->plan.items) {
        scheduler_free(scheduler);
        return error_set(error, RUNNEL_ENOMEM, "no memory for a scheduler of %u requests",
                         options.n_requests);
    }
    *out = scheduler;
    return RUNNEL_OK;
}

void scheduler_free(struct scheduler *scheduler)
{
    if (!scheduler)
        return;
    free(scheduler->keys);
    free(scheduler->charges);
    free(scheduler->items);
    free(scheduler->plan.items);
    free(scheduler);
}

/* Lists and keys ------------------------------------------------------------------------------------------ */

static void append(struct scheduler_list *list, struct scheduler_entry *entry)
{
    entry->next = NULL;
    entry->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = entry;
    list->last = entry;
    list->n++;
}

static void unlink_entry(struct scheduler_list *list, struct scheduler_entry *entry)
{
    *(entry->previous ? &entry->previous->next : &list->first) = entry->next;
    *(entry->next ? &entry->next->previous : &list->last) = entry->previous;
    entry->next = entry->previous = NULL;
    list->n--;
}

static struct scheduler_key *find_key(const struct scheduler *scheduler, uint64_t key)
{
    for (uint32_t i = 0; i < scheduler->n_keys; i++)
        if (scheduler->keys[i].last_used && scheduler->keys[i].key == key)
            return &scheduler->keys[i];
    return NULL;
}

double scheduler_charged(const struct scheduler *scheduler, uint64_t key)
{
    const struct scheduler_key *found = find_key(scheduler, key);
    return found ? fmax(found->charged_ms, scheduler->base_ms) : scheduler->base_ms;
}

/* A key that has no request in here starts where the least charged one is, unless it is charged more. */
static uint32_t join_key(struct scheduler *scheduler, uint64_t key)
{
    struct scheduler_key *found = find_key(scheduler, key);
    if (!found) { /* forget the one that was away longest; there is one, as keys outnumber requests */
        for (uint32_t i = 0; i < scheduler->n_keys; i++) {
            struct scheduler_key *other = &scheduler->keys[i];
            if (other->n_entries == 0 && (!found || other->last_used < found->last_used))
                found = other;
        }
        *found = (struct scheduler_key){.key = key};
    }
    if (found->n_entries++ == 0)
        found->charged_ms = fmax(found->charged_ms, scheduler->base_ms);
    found->last_used = scheduler->last_serial;
    return (uint32_t)(found - scheduler->keys);
}

/* After charging: moves the base up, and forgives what passes the lead. */
static void settle_keys(struct scheduler *scheduler)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < scheduler->n_keys; i++)
        if (scheduler->keys[i].n_entries)
            least = fmin(least, scheduler->keys[i].charged_ms);
    if (!isfinite(least))
        return;
    scheduler->base_ms = least;
    for (uint32_t i = 0; i < scheduler->n_keys; i++)
        scheduler->keys[i].charged_ms = fmin(scheduler->keys[i].charged_ms, least + KEY_LEAD_MS);
}

double scheduler_score(const struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    uint32_t position = entry_position(entry), n_left = entry->n_tokens - position;
    return entry->arrival_ms + step_cost_ms(&scheduler->cost, n_left, step_cost_pairs(position, n_left));
}

static bool is_candidate(const struct scheduler_entry *entry)
{
    return entry->state == SCHEDULER_WAITING || (entry_is_prompt(entry) && !entry->planned && !entry->held);
}

/* Whose turn it is: of the waiting list, or of the running ones' prompts. */
static struct scheduler_entry *pick(const struct scheduler *scheduler, const struct scheduler_list *list)
{
    double least = INFINITY, best_score = INFINITY;
    for (const struct scheduler_entry *entry = list->first; entry; entry = entry->next)
        if (is_candidate(entry))
            least = fmin(least, scheduler->keys[entry->key_slot].charged_ms);
    struct scheduler_entry *best = NULL;
    for (struct scheduler_entry *entry = list->first; entry; entry = entry->next) {
        if (!is_candidate(entry) || scheduler->keys[entry->key_slot].charged_ms > least + KEY_SLACK_MS)
            continue;
        double score = scheduler_score(scheduler, entry);
        if (!best || score < best_score || (score == best_score && entry->serial < best->serial)) {
            best = entry;
            best_score = score;
        }
    }
    return best;
}

/* Coming and going ---------------------------------------------------------------------------------------- */

enum scheduler_answer scheduler_add(struct scheduler *scheduler, struct scheduler_entry *entry, double now_ms,
                                    struct scheduler_forecast *forecast)
{
    struct scheduler_forecast own;
    if (!forecast)
        forecast = &own;
    entry->n_tokens = entry->n_prompt;
    entry->n_computed = entry->n_drawn = 0;
    scheduler_predict(scheduler, entry, now_ms, forecast);
    entry->predicted_wait_ms = forecast->wait_ms;
    entry->forecast_class = forecast_class(scheduler, entry);
    entry->foretold_ms = forecast->wait_ms / forecast_correction(scheduler, entry->forecast_class);
    if (scheduler->waiting.n + scheduler->running.n >= scheduler->options.n_requests) {
        scheduler->n_full++;
        return SCHEDULER_FULL;
    }
    if (scheduler->options.max_wait_ms > 0 && forecast->wait_ms > scheduler->options.max_wait_ms) {
        scheduler->n_refused++;
        forecast_refused(scheduler, entry);
        return SCHEDULER_SLOW;
    }
    if (scheduler->waiting.n + scheduler->running.n == 0)
        scheduler->window_until_ms = now_ms + scheduler->options.window_ms;
    entry->serial = ++scheduler->last_serial;
    entry->key_slot = join_key(scheduler, entry->key);
    entry->n_preempted = 0;
    entry->admitted_ms = entry->begun_ms = -1;
    entry->planned = entry->expired = entry->held = false;
    entry->state = SCHEDULER_WAITING;
    append(&scheduler->waiting, entry);
    return SCHEDULER_ACCEPTED;
}

static void drop_from_plan(struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    for (uint32_t i = 0; i < scheduler->plan.n_items; i++)
        if (scheduler->plan.items[i].entry == entry)
            scheduler->plan.items[i] = (struct scheduler_item){.entry = NULL};
}

void scheduler_remove(struct scheduler *scheduler, struct scheduler_entry *entry)
{
    if (entry->state == SCHEDULER_OUT)
        return;
    if (entry->n_drawn > 0)
        forecast_learn(scheduler, entry);
    unlink_entry(entry->state == SCHEDULER_RUNNING ? &scheduler->running : &scheduler->waiting, entry);
    drop_from_plan(scheduler, entry);
    entry->state = SCHEDULER_OUT;
    scheduler->keys[entry->key_slot].n_entries--;
    settle_keys(scheduler);
}

/* The window is open: the first request waits for others, unless all sequences have one already. */
static bool window_is_open(const struct scheduler *scheduler, double now_ms)
{
    return scheduler->running.n == 0 && now_ms < scheduler->window_until_ms &&
           scheduler->waiting.n < scheduler->options.n_parallel;
}

static bool has_room(const struct scheduler *scheduler, const struct scheduler_entry *next,
                     uint64_t room_tokens)
{
    uint64_t needed = next->n_tokens + HEADROOM_TOKENS; /* what is cached is part of the room, too */
    for (const struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next)
        needed += entry_left(entry) + HEADROOM_TOKENS;
    return needed <= room_tokens;
}

struct scheduler_entry *scheduler_admit(struct scheduler *scheduler, double now_ms, uint64_t room_tokens)
{
    forecast_follow_up(scheduler, now_ms);
    if (scheduler->waiting.n == 0 || scheduler->running.n >= scheduler->options.n_parallel ||
        window_is_open(scheduler, now_ms))
        return NULL;
    struct scheduler_entry *entry = pick(scheduler, &scheduler->waiting);
    if (!entry || (scheduler->running.n > 0 && !has_room(scheduler, entry, room_tokens)))
        return NULL;
    unlink_entry(&scheduler->waiting, entry);
    append(&scheduler->running, entry);
    entry->state = SCHEDULER_RUNNING;
    if (!entry->n_preempted)
        entry->admitted_ms = now_ms;
    entry->n_computed = 0;
    entry->planned = entry->held = false;
    return entry;
}

struct scheduler_entry *scheduler_preempt(struct scheduler *scheduler)
{
    if (scheduler->running.n < 2)
        return NULL;
    struct scheduler_entry *victim = scheduler->running.first;
    for (struct scheduler_entry *entry = victim->next; entry; entry = entry->next)
        if (entry->arrival_ms > victim->arrival_ms ||
            (entry->arrival_ms == victim->arrival_ms && entry->serial > victim->serial))
            victim = entry;
    drop_from_plan(scheduler, victim);
    unlink_entry(&scheduler->running, victim);
    append(&scheduler->waiting, victim);
    victim->state = SCHEDULER_WAITING;
    victim->n_computed = victim->n_cached_likely = 0;
    victim->n_preempted++;
    scheduler->n_preemptions++;
    return victim;
}

struct scheduler_entry *scheduler_expired(struct scheduler *scheduler, double now_ms)
{
    if (scheduler->options.max_wait_ms == 0)
        return NULL;
    for (struct scheduler_entry *entry = scheduler->waiting.first; entry; entry = entry->next)
        if (entry->begun_ms < 0 && now_ms - entry->arrival_ms > scheduler->options.max_wait_ms) {
            if (!entry->expired) {
                scheduler->n_expired++;
                forecast_waited(scheduler, entry, now_ms - entry->arrival_ms);
            }
            entry->expired = true;
            return entry;
        }
    return NULL;
}

double scheduler_wakeup_ms(const struct scheduler *scheduler, double now_ms)
{
    for (const struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next)
        if (entry_left(entry) > 0)
            return now_ms;
    double wakeup = INFINITY;
    if (scheduler->waiting.n > 0 && scheduler->running.n < scheduler->options.n_parallel)
        wakeup = window_is_open(scheduler, now_ms) ? scheduler->window_until_ms : now_ms;
    if (scheduler->options.max_wait_ms > 0)
        for (const struct scheduler_entry *entry = scheduler->waiting.first; entry; entry = entry->next)
            if (entry->begun_ms < 0)
                wakeup = fmin(wakeup, entry->arrival_ms + scheduler->options.max_wait_ms);
    return wakeup;
}

/* Steps --------------------------------------------------------------------------------------------------- */

uint32_t scheduler_share(const struct scheduler *scheduler, const struct scheduler_step *step,
                         uint32_t position, uint32_t n_max)
{
    double limit_ms = scheduler->options.prompt_budget_ms;
    if (step->draws)
        limit_ms = fmax(scheduler->options.step_budget_ms, (1 + PROMPT_SHARE) * step->decode_ms);
    uint32_t n = step_cost_fit_rows(&scheduler->cost, step->n_decode + step->n_prompt, step->n_pairs,
                                    position, n_max, limit_ms);
    if (n + step->n_prompt < PROMPT_ROWS_MIN) {
        uint32_t n_wanted = PROMPT_ROWS_MIN - step->n_prompt;
        double bearable_ms =
            fmax(STALL_BUDGETS * scheduler->options.step_budget_ms, (1 + STALL_SHARE) * step->decode_ms);
        uint32_t n_bearable = n_wanted;
        if (step->draws)
            n_bearable = step_cost_fit_rows(&scheduler->cost, step->n_decode + step->n_prompt, step->n_pairs,
                                            position, n_wanted, bearable_ms);
        n = n > n_bearable ? n : n_bearable;
        if (n + step->n_prompt < PROMPT_ROWS_FLOOR)
            n = PROMPT_ROWS_FLOOR - step->n_prompt;
    }
    if (n >= n_max)
        return n_max;
    uint32_t n_over = (step->n_decode + step->n_prompt + n) % ROWS_MULTIPLE;
    return n >= PROMPT_ROWS_MIN + n_over ? n - n_over : n;
}

static void add_item(struct scheduler *scheduler, struct scheduler_entry *entry, uint32_t n_rows,
                     double now_ms)
{
    struct scheduler_plan *plan = &scheduler->plan;
    plan->items[plan->n_items++] = (struct scheduler_item){.entry = entry, .n_rows = n_rows};
    plan->n_rows += n_rows;
    entry->planned = true;
    if (entry->begun_ms >= 0)
        return;
    entry->begun_ms = now_ms;
    forecast_waited(scheduler, entry, now_ms - entry->arrival_ms);
}

/* An entry computes its next page: those that will have the same one wait for it. */
static void hold_others(struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    for (struct scheduler_entry *other = scheduler->running.first; other; other = other->next)
        other->held |= entry->page_group != 0 && other->page_group == entry->page_group;
}

/* A step that gives somebody a token keeps to the step budget, also where that token is the first one: the
 * rest of the longer budget would only delay it. */
static void add_prompts(struct scheduler *scheduler, struct scheduler_step *step, double now_ms)
{
    for (;;) {
        uint32_t room = scheduler->options.n_batch - scheduler->plan.n_rows;
        struct scheduler_entry *entry = pick(scheduler, &scheduler->running);
        if (!entry || room == 0)
            return;
        uint32_t n_max = entry_left(entry) < room ? entry_left(entry) : room;
        if (entry->n_rows_max && entry->n_rows_max < n_max)
            n_max = entry->n_rows_max;
        uint32_t n = scheduler_share(scheduler, step, entry->n_computed, n_max);
        if (n == 0)
            return;
        add_item(scheduler, entry, n, now_ms);
        hold_others(scheduler, entry);
        step->n_prompt += n;
        step->n_pairs += step_cost_pairs(entry->n_computed, n);
        step->draws |= n == entry_left(entry);
    }
}

const struct scheduler_plan *scheduler_plan(struct scheduler *scheduler, double now_ms)
{
    scheduler->plan.n_items = scheduler->plan.n_rows = 0;
    struct scheduler_step step = {.n_decode = 0};
    for (struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next) {
        entry->planned = entry->held = false;
        if (entry_left(entry) != 1)
            continue;
        add_item(scheduler, entry, 1, now_ms);
        step.n_decode++;
        step.n_pairs += step_cost_pairs(entry->n_computed, 1);
        step.draws = true;
    }
    step.decode_ms = step_cost_ms(&scheduler->cost, step.n_decode, step.n_pairs);
    add_prompts(scheduler, &step, now_ms);
    scheduler->plan.expected_ms = step_cost_ms(&scheduler->cost, scheduler->plan.n_rows, step.n_pairs);
    scheduler->plan_is_open = true;
    return &scheduler->plan;
}

void scheduler_done(struct scheduler *scheduler, double elapsed_ms)
{
    if (!scheduler->plan_is_open)
        return;
    scheduler->plan_is_open = false;
    uint32_t n_rows = 0;
    double n_pairs = 0;
    const struct scheduler_plan *plan = &scheduler->plan;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (!entry)
            continue;
        n_rows += plan->items[i].n_rows;
        n_pairs += step_cost_pairs(entry->n_computed, plan->items[i].n_rows);
    }
    if (n_rows == 0)
        return;
    step_cost_learn(&scheduler->cost, n_rows, n_pairs, elapsed_ms);
    double charge_ms = elapsed_ms > 0 ? elapsed_ms / n_rows : 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (!entry)
            continue;
        entry->n_computed += plan->items[i].n_rows;
        scheduler->keys[entry->key_slot].charged_ms += charge_ms * plan->items[i].n_rows;
    }
    settle_keys(scheduler);
    scheduler->n_steps++;
}

void scheduler_drew(struct scheduler *scheduler, struct scheduler_entry *entry)
{
    (void)scheduler;
    entry->n_tokens++;
    entry->n_drawn++;
}

void scheduler_learn(struct scheduler *scheduler, uint32_t n_rows, double n_pairs, double ms)
{
    step_cost_learn(&scheduler->cost, n_rows, n_pairs, ms);
}

void scheduler_get_stats(const struct scheduler *scheduler, struct scheduler_stats *stats)
{
    *stats = (struct scheduler_stats){
        .n_waiting = scheduler->waiting.n,
        .n_running = scheduler->running.n,
        .n_steps = scheduler->n_steps,
        .n_preemptions = scheduler->n_preemptions,
        .n_full = scheduler->n_full,
        .n_refused = scheduler->n_refused,
        .n_refusals_right = scheduler->n_right,
        .n_refusals_wrong = scheduler->n_wrong,
        .n_expired = scheduler->n_expired,
        .answer_tokens = scheduler->mean_drawn,
        .cost = scheduler->cost,
    };
}

/* The check ----------------------------------------------------------------------------------------------- */

static const char *check_list(const struct scheduler *scheduler, const struct scheduler_list *list,
                              enum scheduler_state expected)
{
    uint32_t n = 0;
    const struct scheduler_entry *previous = NULL;
    for (const struct scheduler_entry *entry = list->first; entry; previous = entry, entry = entry->next) {
        if (++n > list->n || entry->previous != previous)
            return "a list is not whole";
        if (entry->state != expected)
            return "an entry's state differs from its list";
        if (entry->n_tokens != entry->n_prompt + entry->n_drawn || entry->n_computed > entry->n_tokens)
            return "an entry's tokens do not add up";
        if (expected == SCHEDULER_WAITING && entry->n_computed)
            return "a waiting entry has computed rows";
        if (scheduler->keys[entry->key_slot].key != entry->key)
            return "an entry's key is another one";
    }
    return n == list->n && list->last == previous ? NULL : "a list's count or end is wrong";
}

static const char *check_plan(const struct scheduler *scheduler)
{
    const struct scheduler_plan *plan = &scheduler->plan;
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct scheduler_item *item = &plan->items[i];
        if (!item->entry && item->n_rows)
            return "a plan has rows of nobody";
        if (!item->entry)
            continue;
        if (item->entry->state != SCHEDULER_RUNNING)
            return "a plan has an entry that does not run";
        if (scheduler->plan_is_open && item->n_rows > entry_left(item->entry))
            return "a plan has more rows than are left";
        n_rows += item->n_rows;
        for (uint32_t j = 0; j < i; j++)
            if (plan->items[j].entry == item->entry)
                return "a plan has an entry twice";
    }
    return n_rows <= scheduler->options.n_batch ? NULL : "a plan has more rows than a step";
}

const char *scheduler_check(const struct scheduler *scheduler)
{
    if (scheduler->running.n > scheduler->options.n_parallel)
        return "more run than there are sequences";
    if (scheduler->running.n + scheduler->waiting.n > scheduler->options.n_requests)
        return "more requests than there may be";
    const char *wrong = check_list(scheduler, &scheduler->waiting, SCHEDULER_WAITING);
    if (!wrong)
        wrong = check_list(scheduler, &scheduler->running, SCHEDULER_RUNNING);
    if (!wrong)
        wrong = check_plan(scheduler);
    uint32_t n_entries = 0;
    for (uint32_t i = 0; i < scheduler->n_keys && !wrong; i++) {
        const struct scheduler_key *key = &scheduler->keys[i];
        n_entries += key->n_entries;
        if (key->n_entries && (key->charged_ms < scheduler->base_ms ||
                               key->charged_ms > scheduler->base_ms + KEY_LEAD_MS * 1.000001))
            wrong = "a key is charged out of bounds";
    }
    if (!wrong && n_entries != scheduler->running.n + scheduler->waiting.n)
        wrong = "the keys' requests do not add up";
    return wrong;
}
