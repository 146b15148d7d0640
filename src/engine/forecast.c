/* forecast.c: how long a new request would wait, and whether refusals were right.
 *
 * A forecast finds those whose turn comes before the new one's, in one walk over all that wait, and plays the future in
 * large pieces: a piece lasts until somebody's prompt is computed or somebody's answer ends, at the speed that the cost
 * model gives for who runs then. Of a long queue only the first ones are played; the others are a stream of equal
 * requests, so that a prediction takes no more than linear time. It knows nothing of requests still to come. A refused request stays as a ghost, which takes no time from anybody: the record is
 * right if its turn would not have come within max_wait_ms. */
#include "engine/forecast.h"

#include <math.h>
#include <stdlib.h>

enum {
    N_GHOSTS = 64,
    N_CLASSES = 6,
    PLAYED_PER_SEQUENCE = 1, /* so many of those that wait are played one by one, times n_parallel */
};

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
};

/* How much the requests of a prefix_group that a prediction has seen have computed, or will have, of their beginning. */
struct beginning {
    uint64_t prediction, group; /* of another prediction: unused */
    uint32_t n_common;
};

struct forecast {
    struct forecast_options options;
    double mean_drawn, own_share; /* of answers that ended: tokens; how many before their limit */
    double gain;                  /* by guesses, of steps without prompts; a mean, old ones fading */
    uint64_t n_ended;
    /* Means over requests that were taken, old ones fading, by class: long prompts, and those whose key is
     * charged more than others, are overtaken by requests that a forecast does not know yet. */
    double foretold_ms[N_CLASSES], waited_ms[N_CLASSES];
    uint64_t n_predictions;
    uint32_t n_items;
    struct forecast_item *items, *running; /* [n_items], [n_parallel] scratch of a prediction */
    struct beginning *beginnings;          /* [n_items] too */
    double *charges;                       /* [n_keys] too */
    struct ghost ghosts[N_GHOSTS];
    uint32_t next_ghost;
    uint64_t n_right, n_wrong, n_visits;
};

int forecast_create(const struct forecast_options *options, struct forecast **out, runnel_error *error)
{
    struct forecast *forecast = calloc(1, sizeof *forecast);
    if (!forecast)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a forecast");
    *forecast = (struct forecast){.options = *options, .mean_drawn = 150, .own_share = 0.5, .gain = 1};
    forecast->n_items = options->n_requests + 1;
    forecast->charges = calloc(options->turns->n_keys, sizeof *forecast->charges);
    forecast->items = calloc(forecast->n_items, sizeof *forecast->items);
    forecast->beginnings = calloc(forecast->n_items, sizeof *forecast->beginnings);
    forecast->running = calloc(options->n_parallel, sizeof *forecast->running);
    if (!forecast->charges || !forecast->items || !forecast->beginnings || !forecast->running) {
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
    free(forecast->beginnings);
    free(forecast->running);
    free(forecast);
}

struct forecast_record forecast_get_record(const struct forecast *forecast)
{
    return (struct forecast_record){
        .n_right = forecast->n_right,
        .n_wrong = forecast->n_wrong,
        .n_visits = forecast->n_visits,
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

void forecast_guessed(struct forecast *forecast, double gain)
{
    forecast->gain += LEARNING_RATE * (gain - forecast->gain);
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

/* The same, remembered until an answer teaches something else: a burst of predictions asks for all that wait again and
 * again. */
static double likely_tokens(const struct forecast *forecast, struct scheduler_entry *entry)
{
    uint64_t as_of = forecast->n_ended + 1;
    if (entry->n_drawn || entry->likely_as_of != as_of) {
        entry->likely_tokens = expected_tokens(forecast, entry);
        entry->likely_as_of = as_of;
    }
    return entry->likely_tokens;
}

/* Who goes first ------------------------------------------------------------------------------------------ */

/* Requests whose prompts begin alike compute the common beginning once. A table by group, in which one group may push
 * another one out: the forecast is longer then. Returns how many tokens others will have computed of the entry's prompt,
 * and notes that it will have computed its own. */
static uint32_t share_beginning(struct forecast *forecast, const struct scheduler_entry *entry)
{
    if (!entry->prefix_group)
        return 0;
    struct beginning *beginning = &forecast->beginnings[entry->prefix_group % forecast->n_items];
    if (beginning->prediction != forecast->n_predictions || beginning->group != entry->prefix_group)
        *beginning = (struct beginning){forecast->n_predictions, entry->prefix_group, 0};
    uint32_t n_shared = beginning->n_common < entry->n_common ? beginning->n_common : entry->n_common;
    if (entry->n_common > beginning->n_common)
        beginning->n_common = entry->n_common;
    return n_shared < entry->n_tokens ? n_shared : entry->n_tokens - 1;
}

static struct forecast_item item_of(struct forecast *forecast, struct scheduler_entry *entry)
{
    uint32_t position = entry_position(entry);
    bool decodes = entry->state == SCHEDULER_RUNNING && !entry_is_prompt(entry);
    forecast->n_visits++;
    return (struct forecast_item){
        .entry = entry,
        .n_rows = decodes ? 0 : entry->n_tokens - position,
        .n_tokens = likely_tokens(forecast, entry),
        .score = turns_score(forecast->options.turns, entry),
    };
}

/* Rows that others will have computed are none of its own. */
static void take_shared(struct forecast *forecast, struct forecast_item *item)
{
    uint32_t n_shared = share_beginning(forecast, item->entry);
    item->n_rows = fmin(item->n_rows, item->entry->n_tokens - n_shared);
}

/* What a whole request will be charged. */
static double work_of(const struct forecast *forecast, const struct forecast_item *item, double token_ms)
{
    return step_cost_ms(forecast->options.turns->cost, (uint32_t)item->n_rows, 0) + item->n_tokens * token_ms;
}

/* Notes those who wait and whose turn comes before the new one's, in the order of their arrival: of its own key all with a
 * lower score; of another key as many as have been charged no more than the new one's key will be when those have gone.
 * That is turns_pick's order without its last step, which of two keys that are equals has the lower score. */
static uint32_t find_those_before(struct forecast *forecast, const struct forecast_item *new_one,
                                  struct forecast_item *before)
{
    const struct turns *turns = forecast->options.turns;
    uint32_t n = 0, n_before = 0, n_parallel = forecast->options.n_parallel;
    double token_ms = step_cost_ms(turns->cost, n_parallel, 0) / n_parallel;
    struct turn turn = {turns_charged(turns, new_one->entry->key), new_one->score};
    for (struct scheduler_entry *other = forecast->options.waiting->first; other; other = other->next) {
        struct forecast_item item = item_of(forecast, other);
        bool is_own = other->key == new_one->entry->key;
        if (is_own && item.score > new_one->score)
            continue;
        forecast->charges[other->key_slot] = turns->keys[other->key_slot].charged_ms;
        turn.charged_ms += is_own ? work_of(forecast, &item, token_ms) : 0;
        before[n++] = item;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct forecast_item item = before[i];
        double *charged_ms = &forecast->charges[item.entry->key_slot];
        const struct turn other = {*charged_ms, item.score};
        if (item.entry->key != new_one->entry->key && !turns_goes_first(&other, &turn))
            continue;
        take_shared(forecast, &item);
        *charged_ms += work_of(forecast, &item, token_ms);
        before[n_before++] = item;
    }
    forecast->n_visits += n;
    return n_before;
}

/* The course ---------------------------------------------------------------------------------------------- */

/* What is expected to happen, up to `ms` from now. */
struct course {
    struct forecast *forecast;
    struct forecast_item *running; /* [n_running] */
    uint32_t n_running;
    const struct forecast_item *queue; /* [n_queue] who gets a sequence next; the new one is the last */
    uint32_t n_queue, n_admitted;
    double ms;
};

/* Gives free sequences to those that wait. */
static void admit(struct course *course)
{
    while (course->n_running < course->forecast->options.n_parallel && course->n_admitted < course->n_queue)
        course->running[course->n_running++] = course->queue[course->n_admitted++];
}

/* What a step takes with rows of a prompt (NULL: none) beside those that decode; returns how many rows. Without a prompt it
 * has room for guesses, and takes as much less as tokens come faster with them. */
static double fill_step(const struct forecast *forecast, const struct forecast_item *prompt,
                        struct step_fill *step, double *ms)
{
    const struct step_budget *budget = forecast->options.budget;
    step->decode_ms = *ms = step_cost_ms(budget->cost, step->n_decode, step->n_pairs);
    if (!prompt) {
        *ms /= fmax(1, forecast->gain);
        return 0;
    }
    uint32_t n_left = (uint32_t)ceil(prompt->n_rows), room = budget->n_batch - step->n_decode;
    uint32_t position = prompt->entry->n_tokens - n_left / 2; /* attention costs more and more: the mean */
    uint32_t n = step_budget_share(budget, step, position, n_left < room ? n_left : room);
    double n_share = fmin(n > 0 ? n : 1, prompt->n_rows);
    step->n_pairs += step_cost_pairs(position, (uint32_t)ceil(n_share));
    *ms = step_cost_ms(budget->cost, step->n_decode + (uint32_t)ceil(n_share), step->n_pairs);
    return n_share;
}

/* The answers that n_steps bring to their end leave; returns where the prompt is now. */
static struct forecast_item *end_answers(struct course *course, double n_steps, struct forecast_item *prompt)
{
    for (uint32_t i = course->n_running; i-- > 0;) {
        struct forecast_item *item = &course->running[i];
        if (item->n_rows > 0)
            continue;
        item->n_tokens -= n_steps;
        if (item->n_tokens > 1e-6)
            continue;
        *item = course->running[--course->n_running]; /* the last one takes its place */
        if (prompt == &course->running[course->n_running])
            prompt = item;
    }
    return prompt;
}

/* The next piece: returns the prompt that is computed in it, or NULL. */
static struct forecast_item *advance(struct course *course)
{
    struct step_fill step = {.n_decode = 0};
    struct forecast_item *prompt = NULL;
    double n_steps = INFINITY, ms;
    for (uint32_t i = 0; i < course->n_running; i++) {
        struct forecast_item *item = &course->running[i];
        if (item->n_rows > 0) {
            prompt = prompt && prompt->score <= item->score ? prompt : item;
            continue;
        }
        step.n_decode++;
        step.n_pairs += item->entry->n_tokens;
        step.draws = true;
        n_steps = fmin(n_steps, item->n_tokens);
    }
    course->forecast->n_visits += 2 * course->n_running;
    double n_share = fill_step(course->forecast, prompt, &step, &ms);
    if (prompt)
        n_steps = fmin(n_steps, prompt->n_rows / n_share);
    course->ms += n_steps * ms;
    prompt = end_answers(course, n_steps, prompt);
    if (prompt) {
        prompt->n_rows -= n_steps * n_share;
        if (prompt->n_rows < 1e-6)
            prompt->n_rows = 0;
    }
    return prompt;
}

/* How long it takes to answer those n in a long queue, on top of what is played: each sequence has its next request at
 * once, so per step as many come to their end as the sequences, or the prompts, one after the other, allow. */
static double stream_ms(const struct forecast *forecast, const struct forecast_item *items, uint32_t n)
{
    double n_rows = 0, n_tokens = 0, n_positions = 0;
    for (uint32_t i = 0; i < n; i++) {
        n_rows += items[i].n_rows / n;
        n_tokens += items[i].n_tokens / n;
        n_positions += (double)items[i].entry->n_tokens / n;
    }
    struct scheduler_entry usual = {.n_tokens = (uint32_t)n_positions};
    const struct forecast_item prompt = {.entry = &usual, .n_rows = n_rows};
    double n_parallel = forecast->options.n_parallel, n_decode = n_parallel - 1, prompt_ms = 0,
           prompt_steps = 1;
    /* How many decode depends on how long prompts take, and the reverse. */
    for (int round = 0; round < 2; round++) {
        struct step_fill step = {.n_decode = (uint32_t)ceil(n_decode)};
        step.n_pairs = step.n_decode * n_positions;
        step.draws = step.n_decode > 0;
        prompt_steps = n_rows / fill_step(forecast, &prompt, &step, &prompt_ms);
        n_decode = fmin(n_parallel - 1, n_tokens / prompt_steps);
    }
    double steps_each = fmax((prompt_steps + n_tokens) / n_parallel, prompt_steps);
    double decode_ms =
        step_cost_ms(forecast->options.budget->cost, (uint32_t)n_parallel, n_parallel * n_positions) /
        fmax(1, forecast->gain);
    return n * (prompt_steps * prompt_ms + (steps_each - prompt_steps) * decode_ms);
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

/* Plays the course up to the new one's first token, without those for whom skipped_ms is a long enough answer. */
static void play(struct course *course, double skipped_ms, struct scheduler_forecast *predicted)
{
    const struct scheduler_entry *new_one = course->queue[course->n_queue - 1].entry;
    *predicted = (struct scheduler_forecast){.wait_ms = -1};
    for (uint32_t n = 2 * (course->n_running + course->n_queue); n > 0; n--) {
        admit(course);
        if (course->n_admitted == course->n_queue) {
            course->ms += skipped_ms;
            skipped_ms = 0;
        }
        double before_ms = course->ms;
        const struct forecast_item *prompt = advance(course);
        if (!prompt || prompt->entry != new_one)
            continue;
        if (predicted->wait_ms < 0)
            predicted->wait_ms = before_ms;
        if (prompt->n_rows == 0)
            break;
    }
    predicted->first_token_ms = course->ms;
    if (predicted->wait_ms < 0)
        predicted->wait_ms = course->ms;
}

void forecast_predict(struct forecast *forecast, struct scheduler_entry *entry,
                      struct scheduler_forecast *predicted)
{
    entry->likely_as_of = 0;
    struct forecast_item new_one = item_of(forecast, entry), *queue = forecast->items;
    struct course course = {.forecast = forecast, .running = forecast->running, .queue = queue};
    forecast->n_predictions++;
    for (struct scheduler_entry *other = forecast->options.running->first; other; other = other->next) {
        struct forecast_item item = item_of(forecast, other);
        if (item.n_rows == 0 || item.score <= new_one.score)
            take_shared(forecast, &item);
        course.running[course.n_running++] = item;
    }
    uint32_t n_before = find_those_before(forecast, &new_one, queue);
    uint32_t n_played = PLAYED_PER_SEQUENCE * forecast->options.n_parallel;
    double skipped_ms = 0;
    if (n_before > n_played) {
        forecast->n_visits += n_before - n_played;
        skipped_ms = stream_ms(forecast, queue + n_played, n_before - n_played);
        n_before = n_played;
    }
    take_shared(forecast, &new_one);
    for (uint32_t i = 0; i < n_before;
         i++) /* of its key, or of keys that are behind: their prompts go first, too */
        queue[i].score = fmin(queue[i].score, new_one.score);
    queue[n_before] = new_one;
    course.n_queue = n_before + 1;
    play(&course, skipped_ms, predicted);

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
    const struct turn turn = turns_turn(forecast->options.turns, ghost);
    for (const struct scheduler_entry *entry = list->first; entry; entry = entry->next) {
        if (entry->state == SCHEDULER_RUNNING && !entry_is_prompt(entry))
            continue;
        const struct turn other = turns_turn(forecast->options.turns, entry);
        if (turns_goes_first(&other, &turn))
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
