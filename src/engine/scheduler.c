/* scheduler.c: the lists and the steps. Whose turn it is: turns.c; how much a step takes: step_budget.c; how long somebody
 * will wait: forecast.c. */
#include "engine/scheduler.h"

#include "engine/forecast.h"
#include "engine/step_budget.h"
#include "engine/turns.h"

#include <math.h>
#include <stdlib.h>

enum {
    PARALLEL_DEFAULT = 8,
    BATCH_DEFAULT = 512,
    REQUESTS_DEFAULT = 100,
    ROWS_TOGETHER_DEFAULT = 8,
    ROWS_PROMPT_DEFAULT = 32,
    HEADROOM_TOKENS = 64, /* of each running sequence, at admission */
};

static const double STEP_BUDGET_DEFAULT_MS = 60;
struct scheduler {
    struct scheduler_options options;
    struct scheduler_list waiting, running;
    struct scheduler_plan plan;
    bool plan_is_open; /* not done yet */
    struct step_cost cost;
    struct step_budget budget;
    struct turns turns;
    struct forecast *forecast;
    /* Of the latest step, if nobody's prompt was in it: what guesses made of it. */
    struct {
        uint32_t n_answers, n_rows, n_tokens;
        double n_pairs;
    } decoded;
    double window_until_ms; /* the idle engine's first request waits; -INFINITY: no window is open */
    uint64_t last_serial;
    uint64_t n_steps, n_preemptions, n_full, n_refused, n_expired;
};

/* Makes what a scheduler of these options consists of. */
static int create_parts(struct scheduler *scheduler, runnel_error *error)
{
    const struct scheduler_options *options = &scheduler->options;
    step_cost_init(&scheduler->cost);
    scheduler->budget = (struct step_budget){
        .cost = &scheduler->cost,
        .n_batch = options->n_batch,
        .n_rows_together = options->n_rows_together,
        .n_rows_prompt = options->n_rows_prompt,
        .step_ms = options->step_budget_ms,
        .prompt_ms = options->prompt_budget_ms,
    };
    scheduler->plan.items = calloc(options->n_parallel, sizeof *scheduler->plan.items);
    if (!scheduler->plan.items)
        return error_set(error, RUNNEL_ENOMEM, "no memory for steps of %u requests", options->n_parallel);
    int failure = turns_init(&scheduler->turns, &scheduler->cost, options->n_requests, error);
    const struct forecast_options forecast = {
        .running = &scheduler->running,
        .waiting = &scheduler->waiting,
        .turns = &scheduler->turns,
        .budget = &scheduler->budget,
        .n_parallel = options->n_parallel,
        .n_requests = options->n_requests,
        .max_wait_ms = options->max_wait_ms,
    };
    return failure ? failure : forecast_create(&forecast, &scheduler->forecast, error);
}

int scheduler_create(const struct scheduler_options *given, struct scheduler **out, runnel_error *error)
{
    struct scheduler_options options = *given;
    options.n_parallel = options.n_parallel ? options.n_parallel : PARALLEL_DEFAULT;
    options.n_batch = options.n_batch ? options.n_batch : BATCH_DEFAULT;
    options.n_requests = options.n_requests ? options.n_requests : REQUESTS_DEFAULT;
    options.n_rows_together = options.n_rows_together ? options.n_rows_together : ROWS_TOGETHER_DEFAULT;
    options.n_rows_prompt = options.n_rows_prompt ? options.n_rows_prompt : ROWS_PROMPT_DEFAULT;
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
    int failure = create_parts(scheduler, error);
    if (failure) {
        scheduler_free(scheduler);
        return failure;
    }
    *out = scheduler;
    return RUNNEL_OK;
}

void scheduler_free(struct scheduler *scheduler)
{
    if (!scheduler)
        return;
    forecast_free(scheduler->forecast);
    turns_free(&scheduler->turns);
    free(scheduler->plan.items);
    free(scheduler);
}

/* Lists ---------------------------------------------------------------------------------------------------- */

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

/* Coming and going ---------------------------------------------------------------------------------------- */

enum scheduler_answer scheduler_add(struct scheduler *scheduler, struct scheduler_entry *entry, double now_ms,
                                    struct scheduler_forecast *forecast)
{
    struct scheduler_forecast own;
    if (!forecast)
        forecast = &own;
    entry->n_tokens = entry->n_prompt;
    entry->n_committed = entry->n_drawn = 0;
    forecast_predict(scheduler->forecast, entry, forecast);
    if (scheduler->waiting.n + scheduler->running.n >= scheduler->options.n_requests) {
        scheduler->n_full++;
        return SCHEDULER_FULL;
    }
    if (scheduler->options.max_wait_ms > 0 && forecast->wait_ms > scheduler->options.max_wait_ms) {
        scheduler->n_refused++;
        forecast_refused(scheduler->forecast, entry);
        return SCHEDULER_SLOW;
    }
    if (scheduler->waiting.n + scheduler->running.n == 0)
        scheduler->window_until_ms = now_ms + scheduler->options.window_ms;
    entry->serial = ++scheduler->last_serial;
    entry->key_slot = turns_join(&scheduler->turns, entry->key, entry->serial);
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
        forecast_learn(scheduler->forecast, entry);
    unlink_entry(entry->state == SCHEDULER_RUNNING ? &scheduler->running : &scheduler->waiting, entry);
    drop_from_plan(scheduler, entry);
    entry->state = SCHEDULER_OUT;
    turns_leave(&scheduler->turns, entry->key_slot);
    turns_settle(&scheduler->turns);
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
    /* What is cached and held by nobody is part of the room, too. */
    uint64_t needed = next->n_tokens - next->n_held + HEADROOM_TOKENS;
    for (const struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next)
        needed += entry_left(entry) + HEADROOM_TOKENS;
    return needed <= room_tokens;
}

struct scheduler_entry *scheduler_next(const struct scheduler *scheduler, double now_ms)
{
    if (scheduler->waiting.n == 0 || scheduler->running.n >= scheduler->options.n_parallel ||
        window_is_open(scheduler, now_ms))
        return NULL;
    return turns_pick(&scheduler->turns, &scheduler->waiting);
}

struct scheduler_entry *scheduler_admit(struct scheduler *scheduler, double now_ms, uint64_t room_tokens)
{
    forecast_follow_up(scheduler->forecast, now_ms);
    struct scheduler_entry *entry = scheduler_next(scheduler, now_ms);
    if (!entry || (scheduler->running.n > 0 && !has_room(scheduler, entry, room_tokens)))
        return NULL;
    unlink_entry(&scheduler->waiting, entry);
    append(&scheduler->running, entry);
    entry->state = SCHEDULER_RUNNING;
    if (!entry->n_preempted)
        entry->admitted_ms = now_ms;
    entry->n_committed = 0;
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
    victim->n_committed = victim->n_cached_likely = 0;
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
                forecast_waited(scheduler->forecast, entry, now_ms - entry->arrival_ms);
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

static void add_item(struct scheduler *scheduler, struct scheduler_entry *entry, uint32_t n_rows,
                     double now_ms)
{
    struct scheduler_plan *plan = &scheduler->plan;
    bool decodes = entry->n_drawn > 0 && !entry_is_prompt(entry);
    uint32_t n_left = entry_left(entry);
    plan->items[plan->n_items++] = (struct scheduler_item){
        .entry = entry,
        .phase = decodes ? SCHEDULER_DECODE : SCHEDULER_PROMPT,
        .n_rows = n_rows,
        .n_draft = n_rows > n_left ? n_rows - n_left : 0,
    };
    plan->n_rows += n_rows;
    entry->planned = true;
    if (entry->begun_ms >= 0)
        return;
    entry->begun_ms = now_ms;
    forecast_waited(scheduler->forecast, entry, now_ms - entry->arrival_ms);
}

/* Rows of an entry that lacks one: that one, and guesses, of which the step has room for n_room. */
static uint32_t count_rows(const struct scheduler_entry *entry, uint32_t n_room)
{
    uint32_t n_draft = entry->n_draft < n_room ? entry->n_draft : n_room;
    if (entry->n_rows_max && n_draft > entry->n_rows_max - 1)
        n_draft = entry->n_rows_max - 1;
    return 1 + n_draft;
}

/* Rows that a step has for guesses beside those of everybody who lacks one: none if there is a prompt, which would get fewer; all of them
 * where a longer step makes nobody else wait. */
static uint32_t room_for_guesses(const struct scheduler *scheduler)
{
    struct step_fill step = {.n_decode = 0};
    uint32_t n_room = scheduler->options.n_batch;
    for (const struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next) {
        if (entry_is_prompt(entry))
            return 0;
        if (!entry_left(entry))
            continue;
        n_room--;
        step.n_decode++;
        step.n_pairs += step_cost_pairs(entry->n_committed, 1);
    }
    if (scheduler->running.n == 1 && scheduler->waiting.n == 0)
        return n_room;
    step.decode_ms = step_cost_ms(&scheduler->cost, step.n_decode, step.n_pairs);
    return step_budget_guesses(&scheduler->budget, &step, n_room);
}

/* Everybody who lacks one row. */
static void add_decoding(struct scheduler *scheduler, struct step_fill *step, double now_ms)
{
    uint32_t n_room = room_for_guesses(scheduler);
    for (struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next)
        entry->planned = entry->held = false;
    for (struct scheduler_entry *entry = scheduler->running.first; entry; entry = entry->next) {
        if (entry_left(entry) != 1)
            continue;
        uint32_t n = count_rows(entry, n_room);
        n_room -= n - 1;
        add_item(scheduler, entry, n, now_ms);
        step->n_decode += n;
        step->n_pairs += step_cost_pairs(entry->n_committed, n);
        step->draws = true;
    }
    step->decode_ms = step_cost_ms(&scheduler->cost, step->n_decode, step->n_pairs);
}

/* An entry computes its next page: those that will have the same one wait for it. */
static void hold_others(struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    for (struct scheduler_entry *other = scheduler->running.first; other; other = other->next)
        other->held |= entry->page_group != 0 && other->page_group == entry->page_group;
}

/* A step that gives somebody a token keeps to the step budget, also where that token is the first one: the
 * rest of the longer budget would only delay it. */
static void add_prompts(struct scheduler *scheduler, struct step_fill *step, double now_ms)
{
    for (;;) {
        uint32_t room = scheduler->options.n_batch - scheduler->plan.n_rows;
        struct scheduler_entry *entry = turns_pick(&scheduler->turns, &scheduler->running);
        if (!entry || room == 0)
            return;
        uint32_t n_max = entry_left(entry) < room ? entry_left(entry) : room;
        if (entry->n_rows_max && entry->n_rows_max < n_max)
            n_max = entry->n_rows_max;
        uint32_t n = step_budget_share(&scheduler->budget, step, entry->n_committed, n_max);
        if (n == 0)
            return;
        add_item(scheduler, entry, n, now_ms);
        hold_others(scheduler, entry);
        step->n_prompt += n;
        step->n_pairs += step_cost_pairs(entry->n_committed, n);
        step->draws |= n == entry_left(entry);
    }
}

/* The forecast hears how much faster tokens came than one for each answer in a step of its row alone. */
static void learn_gain(struct scheduler *scheduler)
{
    if (scheduler->decoded.n_answers && scheduler->decoded.n_tokens) {
        double plain = scheduler->decoded.n_answers, n_pairs = scheduler->decoded.n_pairs,
               tokens = scheduler->decoded.n_tokens;
        double plain_ms = step_cost_ms(&scheduler->cost, scheduler->decoded.n_answers, n_pairs);
        double ms = step_cost_ms(&scheduler->cost, scheduler->decoded.n_rows, n_pairs);
        forecast_guessed(scheduler->forecast, tokens / plain * plain_ms / ms);
    }
    scheduler->decoded.n_answers = 0;
}

const struct scheduler_plan *scheduler_plan(struct scheduler *scheduler, double now_ms)
{
    learn_gain(scheduler);
    scheduler->plan.n_items = scheduler->plan.n_rows = 0;
    struct step_fill step = {.n_decode = 0};
    add_decoding(scheduler, &step, now_ms);
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
    uint32_t n_rows = 0, n_decode = 0;
    double n_pairs = 0;
    const struct scheduler_plan *plan = &scheduler->plan;
    bool has_prompt = false;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (!entry)
            continue;
        n_rows += plan->items[i].n_rows;
        n_decode += plan->items[i].phase == SCHEDULER_DECODE;
        has_prompt |= plan->items[i].phase == SCHEDULER_PROMPT;
        n_pairs += step_cost_pairs(entry->n_committed, plan->items[i].n_rows);
    }
    if (n_rows == 0)
        return;
    scheduler->decoded.n_answers = has_prompt ? 0 : n_decode;
    scheduler->decoded.n_rows = n_rows;
    scheduler->decoded.n_pairs = n_pairs;
    scheduler->decoded.n_tokens = 0;
    step_cost_learn(&scheduler->cost, n_rows, n_pairs, elapsed_ms);
    double charge_ms = elapsed_ms > 0 ? elapsed_ms / n_rows : 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (!entry)
            continue;
        entry->n_committed += plan->items[i].n_rows - plan->items[i].n_draft;
        turns_charge(&scheduler->turns, entry->key_slot, charge_ms * plan->items[i].n_rows);
    }
    turns_settle(&scheduler->turns);
    scheduler->n_steps++;
}

void scheduler_drew(struct scheduler *scheduler, struct scheduler_entry *entry)
{
    entry->n_tokens++;
    entry->n_drawn++;
    scheduler->decoded.n_tokens++;
}

void scheduler_accepted(struct scheduler *scheduler, struct scheduler_item *item)
{
    scheduler_drew(scheduler, item->entry);
    item->entry->n_committed++;
    item->n_accepted++;
}

void scheduler_learn(struct scheduler *scheduler, uint32_t n_rows, double n_pairs, double ms)
{
    step_cost_learn(&scheduler->cost, n_rows, n_pairs, ms);
}

const struct step_cost *scheduler_cost(const struct scheduler *scheduler)
{
    return &scheduler->cost;
}

void scheduler_get_stats(const struct scheduler *scheduler, struct scheduler_stats *stats)
{
    struct forecast_record record = forecast_get_record(scheduler->forecast);
    *stats = (struct scheduler_stats){
        .n_waiting = scheduler->waiting.n,
        .n_running = scheduler->running.n,
        .n_steps = scheduler->n_steps,
        .n_preemptions = scheduler->n_preemptions,
        .n_full = scheduler->n_full,
        .n_refused = scheduler->n_refused,
        .n_refusals_right = record.n_right,
        .n_refusals_wrong = record.n_wrong,
        .n_expired = scheduler->n_expired,
        .n_forecast_visits = record.n_visits,
        .answer_tokens = record.answer_tokens,
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
        if (entry->n_tokens != entry->n_prompt + entry->n_drawn || entry->n_committed > entry->n_tokens)
            return "an entry's tokens do not add up";
        if (expected == SCHEDULER_WAITING && entry->n_committed)
            return "a waiting entry has computed rows";
        if (scheduler->turns.keys[entry->key_slot].key != entry->key)
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
        if (scheduler->plan_is_open && item->n_rows - item->n_draft > entry_left(item->entry))
            return "a plan has more rows than are left";
        if (item->n_draft > item->n_rows || item->n_accepted > item->n_draft)
            return "a plan has more guesses than rows, or more of them came true";
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
    if (!wrong)
        wrong = turns_check(&scheduler->turns, scheduler->running.n + scheduler->waiting.n);
    return wrong;
}
