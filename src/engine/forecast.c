/* forecast.c: how long a new request would wait, and whether refusals were right.
 *
 * A forecast plays the future in large pieces: a piece lasts until somebody's prompt is computed or
 * somebody's answer ends, at the speed that the cost model gives for who runs then. It knows nothing of
 * requests still to come. A refused request stays as a ghost, which takes no time from anybody: the record is
 * right if its turn would not have come within max_wait_ms. */
#include "engine/forecast.h"

#include <math.h>
#include <stdlib.h>

enum { N_GHOSTS = 64, N_CLASSES = 6 };

static const double LEARNING_RATE = 0.05;
static const double CALM_MS = 1000;
static const double RIGHT = 0.75; /* of max_wait_ms: a refused request would have waited so long at least */

/* A refused request that is followed up. */
struct ghost {
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

struct forecast {
    struct forecast_options options;
    double mean_drawn, own_share; /* of answers that ended: tokens; how many before their limit */
    uint64_t n_ended;
    /* Means over requests that were taken, old ones fading, by class: long prompts, and those whose key is
     * charged more than others, are overtaken by requests that a forecast does not know yet. */
    double foretold_ms[N_CLASSES], waited_ms[N_CLASSES];
    struct forecast_item *items; /* [n_requests + 1] scratch of a prediction */
    double *charges;             /* [n_keys + 1] too */
    struct ghost ghosts[N_GHOSTS];
    uint32_t next_ghost;
    uint64_t n_right, n_wrong;
};

int forecast_create(const struct forecast_options *options, struct forecast **out, runnel_error *error)
{
    struct forecast *forecast = calloc(1, sizeof *forecast);
    if (!forecast)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a forecast");
    *forecast = (struct forecast){.options = *options, .mean_drawn = 150, .own_share = 0.5};
    forecast->charges = calloc((size_t)options->turns->n_keys + 1, sizeof *forecast->charges);
    forecast->items = calloc((size_t)options->n_requests + 1, sizeof *forecast->items);
    if (!forecast->charges || !forecast->items) {
        forecast_free(forecast);
        return error_set(error, RUNNEL_ENOMEM, "no memory for forecasts of %u requests", options->n_requests);
    }
    *out = forecast;
    return RUNNEL_OK;
}

void forecast_free(struct forecast *forecast)
{
    if (!forecast)
        return;
    free(forecast->charges);
    free(forecast->items);
    free(forecast);
}

struct forecast_record forecast_get_record(const struct forecast *forecast)
{
    return (struct forecast_record){
        .n_right = forecast->n_right,
        .n_wrong = forecast->n_wrong,
        .answer_tokens = forecast->mean_drawn,
    };
}

/* Answers ------------------------------------------------------------------------------------------------- */

void forecast_learn(struct forecast *forecast, const struct scheduler_entry *entry)
{
    double rate = fmax(LEARNING_RATE, 1.0 / (double)(++forecast->n_ended + 1));
    forecast->mean_drawn += rate * (entry->n_drawn - forecast->mean_drawn);
    bool at_limit = entry->n_drawn >= entry->max_tokens;
    forecast->own_share += rate * (!at_limit - forecast->own_share);
}

/* Tokens that an answer is still going to have. If at each token the same share of answers ends, the usual
 * length is all tokens by all ends that were not at a limit, and an answer of most tokens has
 * usual * (1 - exp(-most / usual)) of them in the mean, however many it has had. */
static double expected_tokens(const struct forecast *forecast, const struct scheduler_entry *entry)
{
    double most = entry->max_tokens > entry->n_drawn ? entry->max_tokens - entry->n_drawn : 1;
    double usual = forecast->mean_drawn / fmax(forecast->own_share, 1e-6);
    return fmax(1, -usual * expm1(-most / usual));
}

/* The forecast -------------------------------------------------------------------------------------------- */

/* What is expected to happen, up to `ms` from now. */
struct course {
    struct forecast *forecast;
    struct forecast_item *items; /* those that run first, then those that wait, in no order */
    uint32_t n_items, n_running; /* items[0 .. n_running) run */
    double ms;
};

static void add_item(struct course *course, const struct scheduler_entry *entry)
{
    const struct forecast *forecast = course->forecast;
    uint32_t n_rows = entry->n_tokens - entry_position(entry);
    bool in_table = entry->state != SCHEDULER_OUT;
    course->items[course->n_items++] = (struct forecast_item){
        .entry = entry,
        .n_rows = entry->state == SCHEDULER_RUNNING && n_rows <= 1 ? 0 : n_rows,
        .n_tokens = expected_tokens(forecast, entry),
        .score = turns_score(forecast->options.turns, entry),
        .key_slot = in_table ? entry->key_slot : forecast->options.turns->n_keys,
    };
}

static void swap(struct forecast_item *a, struct forecast_item *b)
{
    struct forecast_item c = *a;
    *a = *b;
    *b = c;
}

/* Gives free sequences to those that wait: the order of turns_pick; the keys are charged ahead
 * with what the whole request is going to take. */
static void admit(struct course *course)
{
    const struct forecast *forecast = course->forecast;
    while (course->n_running < forecast->options.n_parallel && course->n_running < course->n_items) {
        double least = INFINITY;
        for (uint32_t i = course->n_running; i < course->n_items; i++)
            least = fmin(least, forecast->charges[course->items[i].key_slot]);
        uint32_t best = UINT32_MAX;
        for (uint32_t i = course->n_running; i < course->n_items; i++)
            if (forecast->charges[course->items[i].key_slot] <= least + KEY_SLACK_MS &&
                (best == UINT32_MAX || course->items[i].score < course->items[best].score))
                best = i;
        struct forecast_item *item = &course->items[best];
        uint32_t n_parallel = forecast->options.n_parallel;
        forecast->charges[item->key_slot] +=
            step_cost_ms(forecast->options.turns->cost, (uint32_t)item->n_rows, 0) +
            item->n_tokens * step_cost_ms(forecast->options.turns->cost, n_parallel, 0) / n_parallel;
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
    const struct forecast *forecast = course->forecast;
    struct step_fill step = {.n_decode = 0};
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
    double n_share = 0, ms = step_cost_ms(forecast->options.turns->cost, step.n_decode, step.n_pairs);
    if (prompt) {
        step.decode_ms = ms;
        uint32_t n_left = (uint32_t)ceil(prompt->n_rows),
                 room = forecast->options.budget->n_batch - step.n_decode;
        uint32_t position =
            prompt->entry->n_tokens - n_left / 2; /* attention costs more and more: the mean */
        uint32_t n =
            step_budget_share(forecast->options.budget, &step, position, n_left < room ? n_left : room);
        n_share = fmin(n > 0 ? n : 1, prompt->n_rows);
        step.n_pairs += step_cost_pairs(position, (uint32_t)ceil(n_share));
        ms = step_cost_ms(forecast->options.turns->cost, step.n_decode + (uint32_t)ceil(n_share),
                          step.n_pairs);
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

static uint32_t class_of(const struct forecast *forecast, const struct scheduler_entry *entry)
{
    const struct turns *turns = forecast->options.turns;
    bool charged = turns_charged(turns, entry->key) > turns->base_ms + KEY_SLACK_MS;
    return (entry->n_prompt < 256 ? 0 : entry->n_prompt < 1024 ? 1 : 2) + (charged ? 3 : 0);
}

/* What a computed wait is multiplied by, from how long others have waited. Waits below CALM_MS teach little: an idle
 * engine's noise. */
static double correction_of(const struct forecast *forecast, uint32_t class)
{
    double ratio = (forecast->waited_ms[class] + CALM_MS) / (forecast->foretold_ms[class] + CALM_MS);
    return fmin(4, fmax(0.25, ratio));
}

void forecast_predict(struct forecast *forecast, struct scheduler_entry *entry,
                      struct scheduler_forecast *predicted)
{
    const struct turns *turns = forecast->options.turns;
    struct course course = {.forecast = forecast, .items = forecast->items};
    for (const struct scheduler_entry *other = forecast->options.running->first; other; other = other->next)
        add_item(&course, other);
    course.n_running = course.n_items;
    for (const struct scheduler_entry *other = forecast->options.waiting->first; other; other = other->next)
        add_item(&course, other);
    add_item(&course, entry);
    for (uint32_t i = 0; i < turns->n_keys; i++)
        forecast->charges[i] = turns->keys[i].charged_ms;
    for (uint32_t i = 0; i < course.n_items; i++) /* its key may be in the table already */
        if (course.items[i].entry != entry && course.items[i].entry->key == entry->key)
            course.items[course.n_items - 1].key_slot = course.items[i].key_slot;
    forecast->charges[turns->n_keys] = turns_charged(turns, entry->key);

    *predicted = (struct scheduler_forecast){.wait_ms = -1};
    for (uint32_t n = 0; n < 4 * (forecast->options.n_requests + 1); n++) {
        admit(&course);
        double before_ms = course.ms;
        const struct forecast_item *prompt = advance(&course);
        if (!prompt || prompt->entry != entry)
            continue;
        if (predicted->wait_ms < 0)
            predicted->wait_ms = before_ms;
        if (prompt->n_rows == 0)
            break;
    }
    predicted->first_token_ms = course.ms;
    if (predicted->wait_ms < 0)
        predicted->wait_ms = course.ms;
    entry->forecast_class = class_of(forecast, entry);
    entry->foretold_ms = predicted->wait_ms;
    double more_ms = predicted->wait_ms * (correction_of(forecast, entry->forecast_class) - 1);
    predicted->wait_ms += more_ms;
    predicted->first_token_ms += more_ms;
    entry->predicted_wait_ms = predicted->wait_ms;
}

void forecast_waited(struct forecast *forecast, const struct scheduler_entry *entry, double waited_ms)
{
    double *foretold = &forecast->foretold_ms[entry->forecast_class];
    double *waited = &forecast->waited_ms[entry->forecast_class];
    *foretold += LEARNING_RATE * (entry->foretold_ms - *foretold);
    *waited += LEARNING_RATE * (waited_ms - *waited);
}

/* Refusals, followed up ----------------------------------------------------------------------------------- */

void forecast_refused(struct forecast *forecast, const struct scheduler_entry *entry)
{
    struct ghost *ghost = &forecast->ghosts[forecast->next_ghost++ % N_GHOSTS];
    *ghost = (struct ghost){.open = true, .entry = *entry};
    ghost->entry.state = SCHEDULER_OUT;
}

/* True if an entry of the list would have its turn before the ghost. */
static bool overtaken(const struct forecast *forecast, const struct scheduler_list *list,
                      const struct scheduler_entry *ghost)
{
    double charged = turns_charged(forecast->options.turns, ghost->key),
           score = turns_score(forecast->options.turns, ghost);
    for (const struct scheduler_entry *entry = list->first; entry; entry = entry->next) {
        double other = forecast->options.turns->keys[entry->key_slot].charged_ms;
        if (entry->state == SCHEDULER_RUNNING && !entry_is_prompt(entry))
            continue;
        if (other + KEY_SLACK_MS < charged ||
            (other <= charged + KEY_SLACK_MS && turns_score(forecast->options.turns, entry) <= score))
            return true;
    }
    return false;
}

void forecast_follow_up(struct forecast *forecast, double now_ms)
{
    for (uint32_t i = 0; i < N_GHOSTS; i++) {
        struct ghost *ghost = &forecast->ghosts[i];
        if (!ghost->open)
            continue;
        if (now_ms - ghost->entry.arrival_ms > RIGHT * forecast->options.max_wait_ms) {
            forecast->n_right++;
            ghost->open = false;
            continue;
        }
        if (!ghost->has_sequence)
            ghost->has_sequence = forecast->options.running->n < forecast->options.n_parallel &&
                                  !overtaken(forecast, forecast->options.waiting, &ghost->entry);
        if (ghost->has_sequence && !overtaken(forecast, forecast->options.running, &ghost->entry)) {
            forecast->n_wrong++;
            ghost->open = false;
        }
    }
}
