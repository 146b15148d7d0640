/* forecast.c: how long a new request would wait, and whether refusals were right.
 *
 * A forecast plays the future in large pieces: a piece lasts until somebody's prompt is computed or
 * somebody's answer ends, at the speed that the cost model gives for who runs then. It knows nothing of
 * requests still to come. A refused request stays as a ghost, which takes no time from anybody: the record is
 * right if its turn would not have come within max_wait_ms. */
#include "engine/scheduler_state.h"

#include <math.h>

static const double LEARNING_RATE = 0.05;
static const double CALM_MS = 1000;
static const double RIGHT = 0.75; /* of max_wait_ms: a refused request would have waited so long at least */

/* Answers ------------------------------------------------------------------------------------------------- */

void forecast_learn(struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    double rate = fmax(LEARNING_RATE, 1.0 / (double)(++scheduler->n_ended + 1));
    scheduler->mean_drawn += rate * (entry->n_drawn - scheduler->mean_drawn);
    bool at_limit = entry->n_drawn >= entry->max_tokens;
    scheduler->own_share += rate * (!at_limit - scheduler->own_share);
}

/* Tokens that an answer is still going to have. If at each token the same share of answers ends, the usual
 * length is all tokens by all ends that were not at a limit, and an answer of most tokens has
 * usual * (1 - exp(-most / usual)) of them in the mean, however many it has had. */
static double expected_tokens(const struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    double most = entry->max_tokens > entry->n_drawn ? entry->max_tokens - entry->n_drawn : 1;
    double usual = scheduler->mean_drawn / fmax(scheduler->own_share, 1e-6);
    return fmax(1, -usual * expm1(-most / usual));
}

/* The forecast -------------------------------------------------------------------------------------------- */

/* What is expected to happen, up to `ms` from now. */
struct course {
    struct scheduler *scheduler;
    struct forecast_item *items; /* those that run first, then those that wait, in no order */
    uint32_t n_items, n_running; /* items[0 .. n_running) run */
    double ms;
};

static void add_item(struct course *course, const struct scheduler_entry *entry)
{
    const struct scheduler *scheduler = course->scheduler;
    uint32_t n_rows = entry->n_tokens - entry_position(entry);
    bool in_table = entry->state != SCHEDULER_OUT;
    course->items[course->n_items++] = (struct forecast_item){
        .entry = entry,
        .n_rows = entry->state == SCHEDULER_RUNNING && n_rows <= 1 ? 0 : n_rows,
        .n_tokens = expected_tokens(scheduler, entry),
        .score = scheduler_score(scheduler, entry),
        .key_slot = in_table ? entry->key_slot : scheduler->n_keys,
    };
}

static void swap(struct forecast_item *a, struct forecast_item *b)
{
    struct forecast_item c = *a;
    *a = *b;
    *b = c;
}

/* Gives free sequences to those that wait: the order of pick() in scheduler.c; the keys are charged ahead
 * with what the whole request is going to take. */
static void admit(struct course *course)
{
    const struct scheduler *scheduler = course->scheduler;
    while (course->n_running < scheduler->options.n_parallel && course->n_running < course->n_items) {
        double least = INFINITY;
        for (uint32_t i = course->n_running; i < course->n_items; i++)
            least = fmin(least, scheduler->charges[course->items[i].key_slot]);
        uint32_t best = UINT32_MAX;
        for (uint32_t i = course->n_running; i < course->n_items; i++)
            if (scheduler->charges[course->items[i].key_slot] <= least + KEY_SLACK_MS &&
                (best == UINT32_MAX || course->items[i].score < course->items[best].score))
                best = i;
        struct forecast_item *item = &course->items[best];
        uint32_t n_parallel = scheduler->options.n_parallel;
        scheduler->charges[item->key_slot] +=
            step_cost_ms(&scheduler->cost, (uint32_t)item->n_rows, 0) +
            item->n_tokens * step_cost_ms(&scheduler->cost, n_parallel, 0) / n_parallel;
        swap(item, &course->items[course->n_running++]);
    }
}

/* Prompts that begin alike have what this one has computed of the common beginning. */
static void share(struct course *course, const struct forecast_item *prompt)
{
    const struct scheduler_entry *entry = prompt->entry;
    double computed = fmin(entry->n_tokens - prompt->n_rows, entry->n_common);
    for (uint32_t i = 0; i < course->n_items && entry->prefix_group; i++) {
        struct forecast_item *item = &course->items[i];
        double shared = fmin(computed, fmin(item->entry->n_common, item->entry->n_tokens - 1.0));
        if (item != prompt && item->entry->prefix_group == entry->prefix_group && item->n_rows > 0)
            item->n_rows = fmin(item->n_rows, item->entry->n_tokens - shared);
    }
}

/* The next piece: returns the prompt that is computed in it, or NULL. */
static struct forecast_item *advance(struct course *course)
{
    const struct scheduler *scheduler = course->scheduler;
    struct scheduler_step step = {.n_decode = 0};
    struct forecast_item *prompt = NULL;
    double n_steps = INFINITY;
    for (uint32_t i = 0; i < course->n_running; i++) {
        struct forecast_item *item = &course->items[i];
        if (item->n_rows > 0) {
            prompt = prompt && prompt->score <= item->score ? prompt : item;
            continue;
        }
        step.n_decode++;
        step.n_pairs += item->entry->n_tokens;
        step.draws = true;
        n_steps = fmin(n_steps, item->n_tokens);
    }
    double n_share = 0, ms = step_cost_ms(&scheduler->cost, step.n_decode, step.n_pairs);
    if (prompt) {
        step.decode_ms = ms;
        uint32_t n_left = (uint32_t)ceil(prompt->n_rows), room = scheduler->options.n_batch - step.n_decode;
        uint32_t position =
            prompt->entry->n_tokens - n_left / 2; /* attention costs more and more: the mean */
        uint32_t n = scheduler_share(scheduler, &step, position, n_left < room ? n_left : room);
        n_share = fmin(n > 0 ? n : 1, prompt->n_rows);
        step.n_pairs += step_cost_pairs(position, (uint32_t)ceil(n_share));
        ms = step_cost_ms(&scheduler->cost, step.n_decode + (uint32_t)ceil(n_share), step.n_pairs);
        n_steps = fmin(n_steps, prompt->n_rows / n_share);
    }
    course->ms += n_steps * ms;
    for (uint32_t i = course->n_running; i-- > 0;) {
        struct forecast_item *item = &course->items[i];
        if (item->n_rows > 0)
            continue;
        item->n_tokens -= n_steps;
        if (item->n_tokens > 1e-6)
            continue;
        /* It ends: the last running one takes its place, the last of all that one's. */
        course->n_running--;
        course->n_items--;
        if (prompt == &course->items[course->n_running])
            prompt = item;
        *item = course->items[course->n_running];
        course->items[course->n_running] = course->items[course->n_items];
    }
    if (prompt) {
        prompt->n_rows -= n_steps * n_share;
        if (prompt->n_rows < 1e-6)
            prompt->n_rows = 0;
        share(course, prompt);
    }
    return prompt;
}

void scheduler_predict(struct scheduler *scheduler, const struct scheduler_entry *entry, double now_ms,
                       struct scheduler_forecast *forecast)
{
    struct scheduler_entry added = *entry;
    added.state = SCHEDULER_OUT;
    added.n_tokens = entry->n_prompt;
    added.n_computed = added.n_drawn = 0;
    (void)now_ms; /* the forecast counts from now on */
    struct course course = {.scheduler = scheduler, .items = scheduler->items};
    for (const struct scheduler_entry *other = scheduler->running.first; other; other = other->next)
        add_item(&course, other);
    course.n_running = course.n_items;
    for (const struct scheduler_entry *other = scheduler->waiting.first; other; other = other->next)
        add_item(&course, other);
    add_item(&course, &added);
    for (uint32_t i = 0; i < scheduler->n_keys; i++)
        scheduler->charges[i] = scheduler->keys[i].charged_ms;
    for (uint32_t i = 0; i < course.n_items; i++) /* its key may be in the table already */
        if (course.items[i].entry != &added && course.items[i].entry->key == added.key)
            course.items[course.n_items - 1].key_slot = course.items[i].key_slot;
    scheduler->charges[scheduler->n_keys] = scheduler_charged(scheduler, added.key);

    *forecast = (struct scheduler_forecast){.wait_ms = -1};
    for (uint32_t n = 0; n < 4 * (scheduler->options.n_requests + 1); n++) {
        admit(&course);
        double before_ms = course.ms;
        const struct forecast_item *prompt = advance(&course);
        if (!prompt || prompt->entry != &added)
            continue;
        if (forecast->wait_ms < 0)
            forecast->wait_ms = before_ms;
        if (prompt->n_rows == 0)
            break;
    }
    forecast->first_token_ms = course.ms;
    if (forecast->wait_ms < 0)
        forecast->wait_ms = course.ms;
    double more_ms =
        forecast->wait_ms * (forecast_correction(scheduler, forecast_class(scheduler, entry)) - 1);
    forecast->wait_ms += more_ms;
    forecast->first_token_ms += more_ms;
}

uint32_t forecast_class(const struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    bool charged = scheduler_charged(scheduler, entry->key) > scheduler->base_ms + KEY_SLACK_MS;
    return (entry->n_prompt < 256 ? 0 : entry->n_prompt < 1024 ? 1 : 2) + (charged ? 3 : 0);
}

void forecast_waited(struct scheduler *scheduler, const struct scheduler_entry *entry, double waited_ms)
{
    double *foretold = &scheduler->foretold_ms[entry->forecast_class];
    double *waited = &scheduler->waited_ms[entry->forecast_class];
    *foretold += LEARNING_RATE * (entry->foretold_ms - *foretold);
    *waited += LEARNING_RATE * (waited_ms - *waited);
}

/* Waits below CALM_MS teach little: an idle engine's noise. */
double forecast_correction(const struct scheduler *scheduler, uint32_t class)
{
    double ratio = (scheduler->waited_ms[class] + CALM_MS) / (scheduler->foretold_ms[class] + CALM_MS);
    return fmin(4, fmax(0.25, ratio));
}

/* Refusals, followed up ----------------------------------------------------------------------------------- */

void forecast_refused(struct scheduler *scheduler, const struct scheduler_entry *entry)
{
    struct scheduler_ghost *ghost = &scheduler->ghosts[scheduler->next_ghost++ % N_GHOSTS];
    *ghost = (struct scheduler_ghost){.open = true, .entry = *entry};
    ghost->entry.state = SCHEDULER_OUT;
}

/* True if an entry of the list would have its turn before the ghost. */
static bool overtaken(const struct scheduler *scheduler, const struct scheduler_list *list,
                      const struct scheduler_entry *ghost)
{
    double charged = scheduler_charged(scheduler, ghost->key), score = scheduler_score(scheduler, ghost);
    for (const struct scheduler_entry *entry = list->first; entry; entry = entry->next) {
        double other = scheduler->keys[entry->key_slot].charged_ms;
        if (entry->state == SCHEDULER_RUNNING && !entry_is_prompt(entry))
            continue;
        if (other + KEY_SLACK_MS < charged ||
            (other <= charged + KEY_SLACK_MS && scheduler_score(scheduler, entry) <= score))
            return true;
    }
    return false;
}

void forecast_follow_up(struct scheduler *scheduler, double now_ms)
{
    for (uint32_t i = 0; i < N_GHOSTS; i++) {
        struct scheduler_ghost *ghost = &scheduler->ghosts[i];
        if (!ghost->open)
            continue;
        if (now_ms - ghost->entry.arrival_ms > RIGHT * scheduler->options.max_wait_ms) {
            scheduler->n_right++;
            ghost->open = false;
            continue;
        }
        if (!ghost->has_sequence)
            ghost->has_sequence = scheduler->running.n < scheduler->options.n_parallel &&
                                  !overtaken(scheduler, &scheduler->waiting, &ghost->entry);
        if (ghost->has_sequence && !overtaken(scheduler, &scheduler->running, &ghost->entry)) {
            scheduler->n_wrong++;
            ghost->open = false;
        }
    }
}
