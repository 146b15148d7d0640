/* step.c: one step of the engine thread: who computes what, the computation, and the tokens that come of it. */
#include "engine/step.h"

#include "base/clock.h"
#include "engine/guessing.h"
#include "engine/sharing.h"

#include <stddef.h>
#include <string.h>

struct runnel_future *engine_future_of(struct scheduler_entry *entry)
{
    return (struct runnel_future *)(void *)((char *)entry - offsetof(struct runnel_future, entry));
}

static void close_sequence(struct runnel_engine *engine, struct runnel_future *future)
{
    if (future->sequence >= 0)
        kvcache_close(engine->cache, future->sequence);
    future->sequence = -1;
}

static void free_place(struct runnel_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->n_requests--;
    pthread_mutex_unlock(&engine->lock);
}

void engine_retire(struct runnel_engine *engine, struct runnel_future *future,
                   const struct answer_outcome *outcome)
{
    free_place(engine); /* before anybody hears of the end: who does may ask again at once */
    request_end(future, outcome);
    if (future->entry.state != SCHEDULER_OUT)
        scheduler_remove(engine->scheduler, &future->entry);
    engine_guess_end(engine, future);
    close_sequence(engine, future);
    for (struct runnel_future **link = &engine->live; *link; link = &(*link)->next)
        if (*link == future) {
            *link = future->next;
            break;
        }
    request_set_done(future);
}

void engine_fail(struct runnel_engine *engine, struct runnel_future *future, const runnel_error *error)
{
    const struct answer_outcome outcome = {true, RUNNEL_FINISH_ERROR, error};
    engine_retire(engine, future, &outcome);
}

void engine_cancel(struct runnel_engine *engine, struct runnel_future *future)
{
    const struct answer_outcome outcome = answer_finish(&future->answer, RUNNEL_FINISH_CANCELLED);
    engine_retire(engine, future, &outcome);
}

/* Room ---------------------------------------------------------------------------------------------------- */

/* Pages that it has in common with what runs are there already: the scheduler counts them once. */
static void tell_what_is_held(struct runnel_engine *engine, struct scheduler_entry *entry)
{
    const struct runnel_future *future = engine_future_of(entry);
    kvcache_find(engine->cache, entry->key, future->answer.tokens.ids, (uint32_t)future->answer.tokens.n,
                 &entry->n_held);
}

void engine_admit(struct runnel_engine *engine, double now_ms)
{
    for (;;) {
        struct kvcache_stats stats;
        kvcache_get_stats(engine->cache, &stats);
        uint64_t room_tokens = (uint64_t)(stats.n_free + stats.n_cached) * KV_PAGE;
        struct scheduler_entry *entry = scheduler_next(engine->scheduler, now_ms);
        if (entry)
            tell_what_is_held(engine, entry);
        entry = scheduler_admit(engine->scheduler, now_ms, room_tokens);
        if (!entry)
            return;
        struct runnel_future *future = engine_future_of(entry);
        future->slot = future->sequence =
            kvcache_open(engine->cache, entry->key, engine->keep_first, engine->keep_last);
        entry->n_committed = kvcache_match(engine->cache, future->sequence, future->answer.tokens.ids,
                                           (uint32_t)future->answer.tokens.n);
        engine_guess_begin(engine, future);
        if (!entry->n_preempted)
            future->n_cached = entry->n_committed;
    }
}

/* With a window, where a prompt is cut matters: no reserve may go past the cache's chunk. */
static void limit_rows(struct runnel_engine *engine)
{
    if (!engine->keep_last)
        return;
    for (struct runnel_future *future = engine->live; future; future = future->next)
        if (future->sequence >= 0) {
            uint32_t chunk = kvcache_chunk(engine->cache, future->sequence);
            future->entry.n_rows_max = chunk == UINT32_MAX ? 0 : chunk;
        }
}

/* There is no room for more of a sequence, not even alone. An answer ends there, as at the end of the context; a prompt
 * has nothing to show. */
static void end_for_room(struct runnel_engine *engine, struct runnel_future *future, int failure,
                         uint32_t n_rows)
{
    runnel_error error;
    error_set(&error, failure, "no room in the KV cache for %u more tokens", n_rows);
    if (future->entry.n_drawn == 0) {
        engine_fail(engine, future, &error);
        return;
    }
    const struct answer_outcome outcome = answer_finish(&future->answer, RUNNEL_FINISH_LENGTH);
    engine_retire(engine, future, &outcome);
}

/* Makes room for an item's rows, but for those of guesses; where pages run out, another request is put back and will be
 * computed again. */
static void reserve(struct runnel_engine *engine, struct scheduler_item *item)
{
    while (item->entry) {
        struct runnel_future *future = engine_future_of(item->entry);
        uint32_t n_rows = item->n_rows - item->n_draft;
        int failure = kvcache_reserve(engine->cache, future->sequence, n_rows);
        if (!failure)
            return;
        struct scheduler_entry *victim =
            failure == RUNNEL_ENOMEM ? scheduler_preempt(engine->scheduler) : NULL;
        if (victim)
            close_sequence(engine, engine_future_of(victim));
        else
            end_for_room(engine, future, failure, n_rows);
    }
}

/* Once all items have theirs: guesses are worth no room that another request would have to give. */
static void reserve_guesses(struct runnel_engine *engine, struct scheduler_item *item)
{
    if (!item->entry || !item->n_draft ||
        !kvcache_reserve(engine->cache, engine_future_of(item->entry)->sequence, item->n_rows))
        return;
    item->n_rows -= item->n_draft;
    item->n_draft = 0;
}

/* Tells those who want to know how far their prompts have come. */
static void tell_progress(struct runnel_engine *engine)
{
    struct runnel_future *next;
    for (struct runnel_future *future = engine->live; future; future = next) {
        next = future->next;
        if (future->sequence >= 0 && !request_tell_progress(future))
            engine_cancel(engine, future);
    }
}

/* Computing ----------------------------------------------------------------------------------------------- */

/* The rows of one item, from there on; those of guesses last. */
static void build_item(const struct runnel_engine *engine, const struct scheduler_item *item,
                       struct forward_row *rows)
{
    const struct runnel_future *future = engine_future_of(item->entry);
    const struct token_list *tokens = &future->answer.tokens;
    for (uint32_t i = 0; i < item->n_rows; i++) {
        uint32_t position = item->entry->n_committed + i;
        rows[i] = (struct forward_row){
            .sequence = future->sequence,
            .position = position,
            .token = position < tokens->n
                         ? tokens->ids[position]
                         : engine_guessed_token(engine, future, position - (uint32_t)tokens->n),
            .wants_logits = position + 1 >= tokens->n,
        };
    }
}

/* Whoever has all tokens computed after this step draws from it. *n_logits: rows of logits before its own. */
static void build_drawing(struct runnel_engine *engine, struct scheduler_item *item, uint32_t *n_logits)
{
    if (item->n_rows < entry_left(item->entry))
        return;
    engine->drawings[engine->n_drawings++] = (struct drawing){
        .item = item,
        .future = engine_future_of(item->entry),
        .first_logits = *n_logits,
        .draws = engine->draws + *n_logits,
    };
    *n_logits += 1 + item->n_draft;
}

static uint32_t build_rows(struct runnel_engine *engine, const struct scheduler_plan *plan)
{
    uint32_t n_rows = 0, n_logits = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_item *item = &plan->items[i];
        if (!item->entry)
            continue;
        build_item(engine, item, engine->rows + n_rows);
        build_drawing(engine, item, &n_logits);
        n_rows += item->n_rows;
    }
    return n_rows;
}

/* Of which rows the best token is enough: all that a request draws from, if it is for its first one. What comes after a guess is looked at
 * when it is drawn. True: of some. */
static bool find_enough(struct runnel_engine *engine)
{
    bool any = false;
    for (uint32_t i = 0; i < engine->n_drawings; i++) {
        const struct drawing *drawing = &engine->drawings[i];
        bool is_enough = answer_takes_best(&drawing->future->answer);
        for (uint32_t k = 0; k <= drawing->item->n_draft; k++)
            engine->best_is_enough[drawing->first_logits + k] = is_enough;
        any |= is_enough;
    }
    return any;
}

/* A best token that is none: logits say why. */
static bool lacks_best(const struct runnel_engine *engine, uint32_t n_logits)
{
    for (uint32_t i = 0; i < n_logits; i++)
        if (engine->best_is_enough[i] && engine->best[i] < 0)
            return true;
    return false;
}

/* Asks for the logits of all rows that want some, or for no more of those for which that is enough. */
static int wait_for_logits(struct runnel_engine *engine, uint32_t n_logits, bool finds_best,
                           runnel_error *error)
{
    const struct backend_best best = {
        .n = n_logits, .is_enough = engine->best_is_enough, .tokens = engine->best};
    if (finds_best)
        forward_begin_best(engine->forward, &best);
    else if (n_logits)
        forward_begin_logits(engine->forward, 0, n_logits);
    return forward_wait(engine->forward, &engine->logits, error);
}

/* Computes the first n_rows of engine->rows: the logits of those that want them, one after the other, or their best tokens. */
static int compute(struct runnel_engine *engine, uint32_t n_rows, runnel_error *error)
{
    uint32_t n_wanted;
    bool finds_best = forward_finds_best(engine->forward) && find_enough(engine);
    int failure = forward_begin(engine->forward, engine->rows, n_rows, &n_wanted, error);
    if (!failure)
        failure = wait_for_logits(engine, n_wanted, finds_best, error);
    if (!failure && finds_best && lacks_best(engine, n_wanted)) {
        memset(engine->best_is_enough, 0, n_wanted * sizeof *engine->best_is_enough);
        failure = wait_for_logits(engine, n_wanted, false, error);
    }
    return failure;
}

/* The step could not be computed: every request that had rows in it ends with that. */
static void fail_all(struct runnel_engine *engine, const struct scheduler_plan *plan,
                     const runnel_error *error)
{
    for (uint32_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].entry)
            engine_fail(engine, engine_future_of(plan->items[i].entry), error);
}

static void commit(struct runnel_engine *engine, const struct scheduler_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct scheduler_item *item = &plan->items[i];
        if (!item->entry)
            continue;
        struct runnel_future *future = engine_future_of(item->entry);
        kvcache_commit(engine->cache, future->sequence, future->answer.tokens.ids + item->entry->n_committed,
                       item->n_rows - item->n_draft);
        if (!item->entry->n_drawn)
            engine->n_prompt_tokens += item->n_rows - item->n_draft;
    }
}

/* What the decoding requests of a step waited for others' prompts, and for what others compute again. */
static void count_stalls(const struct scheduler_plan *plan, double elapsed_ms)
{
    uint32_t n_prompt_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].entry && plan->items[i].phase == SCHEDULER_PROMPT)
            n_prompt_rows += plan->items[i].n_rows - plan->items[i].n_draft;
    for (uint32_t i = 0; i < plan->n_items && n_prompt_rows; i++)
        if (plan->items[i].entry && plan->items[i].phase == SCHEDULER_DECODE)
            engine_future_of(plan->items[i].entry)->stall_ms += elapsed_ms * n_prompt_rows / plan->n_rows;
}

/* Drawing ------------------------------------------------------------------------------------------------- */

/* What was drawn is what was guessed, and its row is computed. */
static bool came_true(const struct runnel_engine *engine, const struct drawing *drawing, uint32_t i)
{
    return i < drawing->item->n_draft && answer_goes_on(&drawing->future->answer, &drawing->draws[i]) &&
           drawing->draws[i].token == engine_guessed_token(engine, drawing->future, i);
}

/* Draws from the next row; false if all that is known of it is the best token, and something else has come to matter. */
static bool draw_next(const struct runnel_engine *engine, unsigned member, struct drawing *drawing)
{
    size_t n_vocab = engine->model->weights->config.n_vocab, row = drawing->first_logits + drawing->n_draws;
    struct answer *answer = &drawing->future->answer;
    struct answer_draw *made = &drawing->draws[drawing->n_draws];
    if (!engine->best_is_enough[row])
        answer_draw(answer, engine->scratches[member], engine->logits + row * n_vocab, made);
    else if (drawing->n_draws == 0 || answer_takes_best(answer))
        answer_take(answer, engine->best[row], made);
    else
        return false;
    drawing->n_draws++;
    return true;
}

/* Draws the next token, and from the row of each guess that came true the one after it. */
static void draw(const struct runnel_engine *engine, unsigned member, struct drawing *drawing)
{
    if (!drawing->item->entry) /* it has ended meanwhile */
        return;
    while (draw_next(engine, member, drawing) && came_true(engine, drawing, drawing->n_draws - 1)) {
    }
}

/* The members of the team share the requests of a step. */
static void draw_work(void *arg, unsigned member)
{
    const struct runnel_engine *engine = arg;
    struct team_loop loop = {.n = engine->n_drawings, .grain = 1};
    while (team_next(engine->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++)
            draw(engine, member, &engine->drawings[i]);
}

/* The rows of guesses that came true stand, the others never were. */
static void settle(struct runnel_engine *engine, const struct drawing *drawing)
{
    const struct scheduler_item *item = drawing->item;
    struct runnel_future *future = drawing->future;
    if (!item->entry)
        return;
    engine_guess_learn(engine, drawing);
    if (!item->n_draft)
        return;
    kvcache_commit(engine->cache, future->sequence, future->answer.tokens.ids + item->entry->n_committed,
                   drawing->n_draws - 1);
    kvcache_rollback(engine->cache, future->sequence);
    future->n_draft_tokens += item->n_draft;
    engine->n_drafts++;
    engine->n_draft_tokens += item->n_draft;
}

/* A token is about to be told: whoever hears of it, or of the end that it brings, finds it counted. */
static void count_token(struct runnel_engine *engine, const struct drawing *drawing, uint32_t i)
{
    bool was_guessed = i + 1 < drawing->n_draws;
    drawing->future->n_draft_accepted += was_guessed;
    if (was_guessed)
        scheduler_accepted(engine->scheduler, drawing->item);
    else
        scheduler_drew(engine->scheduler, &drawing->future->entry);
    engine->n_draft_accepted += was_guessed;
    engine->n_generated_tokens++;
    pthread_mutex_lock(&engine->lock);
    engine->stats.n_draft_accepted = engine->n_draft_accepted;
    engine->stats.n_generated_tokens = engine->n_generated_tokens;
    pthread_mutex_unlock(&engine->lock);
}

/* The tokens from draw n on were not told, and nobody will hear of them. */
static void take_back(const struct drawing *drawing, uint32_t n)
{
    uint32_t n_drawn = drawing->n_draws - (drawing->draws[drawing->n_draws - 1].failure ? 1 : 0);
    if (n < n_drawn)
        answer_undo(&drawing->future->answer, n_drawn - n);
}

/* The request gets its tokens, or its end. Who does not want to hear more of them ends before the next step. */
static void deliver(struct runnel_engine *engine, const struct drawing *drawing)
{
    struct runnel_future *future = drawing->future;
    struct answer_outcome outcome = {.ended = false};
    uint32_t n = 0;
    while (n < drawing->n_draws && !outcome.ended && (n == 0 || !atomic_load(&future->cancelled))) {
        if (!drawing->draws[n].failure)
            count_token(engine, drawing, n);
        outcome = answer_tell(&future->answer, &drawing->draws[n++]);
    }
    take_back(drawing, n);
    if (outcome.ended)
        engine_retire(engine, future, &outcome);
}

void engine_tell(struct runnel_engine *engine)
{
    for (uint32_t i = 0; i < engine->n_drawings; i++)
        if (engine->drawings[i].item->entry)
            deliver(engine, &engine->drawings[i]);
    engine->n_drawings = 0;
}

/* Every request whose tokens are all computed draws the next one. */
static void draw_all(struct runnel_engine *engine)
{
    if (engine->n_drawings == 1)
        draw(engine, 0, &engine->drawings[0]);
    else if (engine->n_drawings > 1)
        team_run(engine->team, draw_work, engine);
    for (uint32_t i = 0; i < engine->n_drawings; i++)
        settle(engine, &engine->drawings[i]);
}

bool engine_step(struct runnel_engine *engine, double start_ms)
{
    engine_share_pages(engine);
    tell_progress(engine);
    limit_rows(engine);
    engine_guess(engine);
    const struct scheduler_plan *plan = scheduler_plan(engine->scheduler, start_ms);
    if (!plan->n_items)
        return false;
    for (uint32_t i = 0; i < plan->n_items; i++)
        reserve(engine, &plan->items[i]);
    for (uint32_t i = 0; i < plan->n_items; i++)
        reserve_guesses(engine, &plan->items[i]);
    uint32_t n_rows = build_rows(engine, plan);
    runnel_error error;
    if (n_rows && compute(engine, n_rows, &error)) {
        fail_all(engine, plan, &error);
        n_rows = 0;
    } else if (n_rows) {
        commit(engine, plan);
    }
    engine->last_step_ms = clock_ms();
    count_stalls(plan, engine->last_step_ms - start_ms);
    scheduler_done(engine->scheduler, n_rows ? engine->last_step_ms - start_ms : 0);
    tell_progress(engine);
    draw_all(engine);
    return true;
}
