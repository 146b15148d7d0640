/* step.c: one step of the engine thread: who computes what, the computation, and the tokens that come of it. */
#include "engine/engine.h"

#include "base/clock.h"

#include <math.h>
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

void engine_retire(struct runnel_engine *engine, struct runnel_future *future)
{
    if (future->entry.state != SCHEDULER_OUT)
        scheduler_remove(engine->scheduler, &future->entry);
    close_sequence(engine, future);
    for (struct runnel_future **link = &engine->live; *link; link = &(*link)->next)
        if (*link == future) {
            *link = future->next;
            break;
        }
    request_set_done(future);
}

static void fail(struct runnel_engine *engine, struct runnel_future *future, const runnel_error *error)
{
    request_fail(future, error);
    engine_retire(engine, future);
}

/* Room ---------------------------------------------------------------------------------------------------- */

/* Gives sequences to those whose turn it is, with what the cache has of their prompts. */
static void admit(struct runnel_engine *engine, double now_ms)
{
    for (;;) {
        struct kvcache_stats stats;
        kvcache_get_stats(engine->cache, &stats);
        uint64_t room_tokens = (uint64_t)(stats.n_free + stats.n_cached) * KV_PAGE;
        struct scheduler_entry *entry = scheduler_admit(engine->scheduler, now_ms, room_tokens);
        if (!entry)
            return;
        struct runnel_future *future = engine_future_of(entry);
        future->slot = future->sequence =
            kvcache_open(engine->cache, future->key, engine->keep_first, engine->keep_last);
        entry->n_computed =
            kvcache_match(engine->cache, future->sequence, future->tokens.ids, (uint32_t)future->tokens.n);
        if (future->start_ms == 0) {
            future->start_ms = now_ms;
            future->n_cached = entry->n_computed;
        }
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

/* Makes room for an item's rows; where pages run out, another request is put back and will be computed again. */
static void reserve(struct runnel_engine *engine, struct scheduler_item *item)
{
    while (item->entry) {
        struct runnel_future *future = engine_future_of(item->entry);
        int failure = kvcache_reserve(engine->cache, future->sequence, item->n_rows);
        if (!failure)
            return;
        struct scheduler_entry *victim =
            failure == RUNNEL_ENOMEM ? scheduler_preempt(engine->scheduler) : NULL;
        if (victim) {
            engine_future_of(victim)->n_preempted++;
            close_sequence(engine, engine_future_of(victim));
        } else {
            runnel_error error;
            error_set(&error, failure, "no room in the KV cache for %u more tokens", item->n_rows);
            fail(engine, future, &error);
        }
    }
}

/* Tells those who want to know how far their prompts have come. */
static void tell_progress(struct runnel_engine *engine)
{
    struct runnel_future *next;
    for (struct runnel_future *future = engine->live; future; future = next) {
        next = future->next;
        if (future->sequence >= 0 && !request_tell_progress(future)) {
            request_finish(future, RUNNEL_FINISH_CANCELLED);
            engine_retire(engine, future);
        }
    }
}

/* Computing ----------------------------------------------------------------------------------------------- */

static uint32_t build_rows(struct runnel_engine *engine, const struct scheduler_plan *plan)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct scheduler_item *item = &plan->items[i];
        if (!item->entry)
            continue;
        const struct runnel_future *future = engine_future_of(item->entry);
        uint32_t begin = item->entry->n_computed;
        for (uint32_t j = begin; j < begin + item->n_rows; j++)
            engine->rows[n_rows++] = (struct forward_row){
                .sequence = future->sequence,
                .position = j,
                .token = future->tokens.ids[j],
                .wants_logits = j + 1 == future->tokens.n,
            };
    }
    return n_rows;
}

/* Computes the first n_rows of engine->rows. *logits: of those that want them, one after the other. */
static int compute(struct runnel_engine *engine, uint32_t n_rows, float **logits, runnel_error *error)
{
    uint32_t n_wanted;
    int failure = forward_begin(engine->forward, engine->rows, n_rows, &n_wanted, error);
    if (failure)
        return failure;
    if (n_wanted)
        forward_begin_logits(engine->forward, 0, n_wanted);
    return forward_wait(engine->forward, logits, error);
}

/* The step could not be computed: every request that had rows in it ends with that. */
static void fail_all(struct runnel_engine *engine, const struct scheduler_plan *plan,
                     const runnel_error *error)
{
    for (uint32_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].entry)
            fail(engine, engine_future_of(plan->items[i].entry), error);
}

static void commit(struct runnel_engine *engine, const struct scheduler_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct scheduler_item *item = &plan->items[i];
        if (!item->entry)
            continue;
        struct runnel_future *future = engine_future_of(item->entry);
        kvcache_commit(engine->cache, future->sequence, future->tokens.ids + item->entry->n_computed,
                       item->n_rows);
        if (!future->n_drawn)
            engine->n_prompt_tokens += item->n_rows;
    }
}

/* What the decoding requests of a step waited for others' prompts. */
static void count_stalls(const struct scheduler_plan *plan, double elapsed_ms)
{
    uint32_t n_prompt_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].entry && !engine_future_of(plan->items[i].entry)->n_drawn)
            n_prompt_rows += plan->items[i].n_rows;
    for (uint32_t i = 0; i < plan->n_items && n_prompt_rows; i++)
        if (plan->items[i].entry && engine_future_of(plan->items[i].entry)->n_drawn)
            engine_future_of(plan->items[i].entry)->stall_ms += elapsed_ms * n_prompt_rows / plan->n_rows;
}

/* Drawing ------------------------------------------------------------------------------------------------- */

static uint64_t hash_logits(uint64_t hash, const float *logits, uint32_t n)
{
    const uint8_t *bytes = (const uint8_t *)logits;
    for (size_t i = 0; i < n * sizeof *logits; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* The n likeliest tokens, the likeliest first; ties in the order of ids. */
static size_t find_likeliest(const float *logits, uint32_t n_vocab, size_t n, int32_t *tokens)
{
    size_t n_found = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (n_found == n && (n == 0 || logits[i] <= logits[tokens[n - 1]]))
            continue;
        size_t place = n_found < n ? n_found++ : n - 1;
        for (; place > 0 && logits[i] > logits[tokens[place - 1]]; place--)
            tokens[place] = tokens[place - 1];
        tokens[place] = (int32_t)i;
    }
    return n_found;
}

/* A drawn control token is no text; as an alternative it has its name. */
static runnel_logprob describe(const struct runnel_engine *engine, int32_t token, bool is_drawn,
                               float logprob)
{
    struct gguf_string piece = tokenizer_piece(engine->model->tokenizer, token);
    bool is_silent = is_drawn && tokenizer_kind(engine->model->tokenizer, token) == TOKEN_CONTROL;
    return (runnel_logprob){
        .token = token,
        .logprob = logprob,
        .bytes = is_silent ? "" : piece.bytes,
        .n_bytes = is_silent ? 0 : piece.len,
    };
}

/* Tells the drawn token's probability and those of the likeliest ones. */
static void tell_logprobs(const struct runnel_engine *engine, struct runnel_future *future,
                          const float *logits, int32_t token, float normalizer)
{
    int32_t tokens[REQUEST_LOGPROBS_MAX + 1] = {token};
    runnel_logprob logprobs[REQUEST_LOGPROBS_MAX + 1];
    size_t n = 1 + find_likeliest(logits, engine->model->weights->config.n_vocab, (size_t)future->n_logprobs,
                                  tokens + 1);
    for (size_t i = 0; i < n; i++)
        logprobs[i] = describe(engine, tokens[i], i == 0, logits[tokens[i]] - normalizer);
    request_tell_logprobs(future, logprobs, n);
}

/* The same of the probabilities after sampling, which the draw has noted. */
static void tell_choices(const struct runnel_engine *engine, const struct drawing *drawing)
{
    runnel_logprob logprobs[REQUEST_LOGPROBS_MAX + 1];
    for (size_t i = 0; i < drawing->n_choices; i++)
        logprobs[i] = describe(engine, drawing->choices[i].token, i == 0, drawing->choices[i].logprob);
    request_tell_logprobs(drawing->future, logprobs, drawing->n_choices);
}

/* Tells the token alone. */
static void tell_token(const struct runnel_engine *engine, struct runnel_future *future, int32_t token)
{
    const runnel_logprob alone = describe(engine, token, true, 0);
    request_tell_logprobs(future, &alone, 1);
}

/* The next draw of the same sampler forgets this one, so what will be told of it is noted at once. */
static void note_choices(const struct sampler *sampler, struct drawing *drawing)
{
    int32_t forced = request_forced_token(drawing->future);
    drawing->n_choices = sampler_tell(sampler, forced >= 0 ? forced : drawing->token,
                                      (size_t)drawing->future->n_logprobs, drawing->choices);
}

static void draw(const struct runnel_engine *engine, unsigned member, struct drawing *drawing)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    struct runnel_future *future = drawing->future;
    if (future->hashes_logits)
        future->logits_hash = hash_logits(future->logits_hash, drawing->logits, n_vocab);
    for (size_t i = tokenizer_n_tokens(engine->model->tokenizer); i < n_vocab; i++) /* rows without a token */
        drawing->logits[i] = -INFINITY;
    runnel_sampling sampling = future->sampling;
    if (future->n_drawn < future->min_tokens)
        sampling.n_logit_bias += future->n_end_bias;
    const struct sampler_context context = {
        .tokens = future->tokens.ids,
        .n_tokens = future->tokens.n,
        .position = future->tokens.n,
    };
    bool tells_model = future->n_logprobs >= 0 && !future->tells_sampled;
    drawing->failure = sampler_draw(engine->samplers[member], &sampling, &context, drawing->logits,
                                    &drawing->token, tells_model ? &drawing->logprob : NULL, &drawing->error);
    if (!drawing->failure && future->tells_sampled)
        note_choices(engine->samplers[member], drawing);
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

/* Tells what was drawn and gives the request its token, or its end. */
static void deliver(struct runnel_engine *engine, const struct drawing *drawing)
{
    struct runnel_future *future = drawing->future;
    if (drawing->failure) {
        fail(engine, future, &drawing->error);
        return;
    }
    int32_t token = drawing->token, forced = request_forced_token(future);
    bool has_logprobs = future->n_logprobs >= 0 && !future->tells_sampled;
    engine->n_generated_tokens++;
    float normalizer = has_logprobs ? drawing->logits[token] - drawing->logprob : 0;
    if (forced >= 0)
        token = forced;
    if (future->tells_sampled)
        tell_choices(engine, drawing);
    else if (has_logprobs)
        tell_logprobs(engine, future, drawing->logits, token, normalizer);
    else if (future->tells_tokens)
        tell_token(engine, future, token);
    request_take(engine->model, future, token);
    if (future->finished)
        engine_retire(engine, future);
    else
        scheduler_drew(engine->scheduler, &future->entry);
}

/* Every request whose tokens are all computed draws the next one; the logits stand in the order of the plan. */
static void draw_all(struct runnel_engine *engine, const struct scheduler_plan *plan, float *logits)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    engine->n_drawings = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (entry && entry->n_computed == entry->n_tokens) {
            uint32_t n = engine->n_drawings++;
            engine->drawings[n] =
                (struct drawing){.future = engine_future_of(entry), .logits = logits + (size_t)n * n_vocab};
        }
    }
    if (engine->n_drawings == 1)
        draw(engine, 0, &engine->drawings[0]);
    else if (engine->n_drawings > 1)
        team_run(engine->team, draw_work, engine);
    for (uint32_t i = 0; i < engine->n_drawings; i++)
        deliver(engine, &engine->drawings[i]);
}

bool engine_step(struct runnel_engine *engine)
{
    double start_ms = clock_ms();
    admit(engine, start_ms);
    engine_share_pages(engine);
    tell_progress(engine);
    limit_rows(engine);
    const struct scheduler_plan *plan = scheduler_plan(engine->scheduler, start_ms);
    if (!plan->n_items)
        return false;
    for (uint32_t i = 0; i < plan->n_items; i++)
        reserve(engine, &plan->items[i]);
    uint32_t n_rows = build_rows(engine, plan);
    float *logits = NULL;
    runnel_error error;
    if (n_rows && compute(engine, n_rows, &logits, &error)) {
        fail_all(engine, plan, &error);
        n_rows = 0;
    } else if (n_rows) {
        commit(engine, plan);
    }
    engine->last_step_ms = clock_ms();
    count_stalls(plan, engine->last_step_ms - start_ms);
    scheduler_done(engine->scheduler, n_rows ? engine->last_step_ms - start_ms : 0);
    tell_progress(engine);
    draw_all(engine, plan, logits);
    return true;
}
