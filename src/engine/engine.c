/* engine.c: starting and stopping an engine, its thread and its inbox (see engine_state.h for who owns what). */
#include "engine/engine.h"

#include "engine/arguments.h"
#include "engine/engine_memory.h"
#include "engine/engine_options.h"
#include "engine/sharing.h"
#include "engine/step.h"

#include "backend/devices.h"
#include "base/clock.h"
#include "base/thread.h"
#include "base/versioned.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WARM_UP_ROWS = 64,       /* of a prompt; more where the back end likes more */
    MEMORY_BYTES = 64 << 20, /* of requests at most, besides their tokens */
    /* Of the KV cache's memory, brought in at a time: a request waits for it a millisecond or two. */
    TOUCH_BYTES = 8 << 20,
};

/* Starting ------------------------------------------------------------------------------------------------ */

/* The forward pass; where the device has not the memory after all, with fewer layers there. */
static int create_forward(struct runnel_engine *engine, struct engine_memory *plan, runnel_error *error)
{
    int failure = forward_create(&plan->forward, &engine->forward, error);
    while (failure == RUNNEL_ENOMEM && engine_memory_take_fewer(engine->model, plan)) {
        failure = engine_memory_check_room(engine->model, plan, error);
        if (!failure)
            failure = forward_create(&plan->forward, &engine->forward, error);
    }
    return failure;
}

/* The cache, and the forward pass that has its keys and values. A device that computes none of them is given back. */
static int create_cache(struct runnel_engine *engine, struct engine_memory *plan, runnel_error *error)
{
    int failure = kvcache_create(&plan->cache, &engine->cache, error);
    if (failure)
        return failure;
    plan->forward.team = engine->team;
    plan->forward.cache = engine->cache;
    failure = create_forward(engine, plan, error);
    if (failure)
        return failure;
    engine->n_device_layers = plan->n_device_layers;
    if (!engine->n_device_layers) {
        backend_device_close(engine->device);
        engine->device = NULL;
    }
    return RUNNEL_OK;
}

static int create_scratches(struct runnel_engine *engine, uint32_t n_vocab, runnel_error *error)
{
    unsigned n = team_size(engine->team);
    engine->scratches = calloc(n, sizeof(struct answer_scratch *));
    if (!engine->scratches)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scratch of %u threads", n);
    int failure = RUNNEL_OK;
    for (unsigned i = 0; i < n && !failure; i++)
        failure = answer_scratch_create(n_vocab, &engine->scratches[i], error);
    return failure;
}

static void free_scratches(struct runnel_engine *engine)
{
    for (unsigned i = 0; engine->scratches && i < team_size(engine->team); i++)
        answer_scratch_free(engine->scratches[i]);
    free(engine->scratches);
}

/* The scheduler, for the steps that the forward pass likes. */
static int create_scheduler(struct runnel_engine *engine, const runnel_engine_options *options,
                            runnel_error *error)
{
    struct backend_preference preference;
    forward_get_preference(engine->forward, &preference);
    const struct scheduler_options scheduler = {
        .n_parallel = options->n_parallel,
        .n_batch = options->n_batch,
        .n_requests = options->n_requests,
        .n_rows_together = preference.n_rows_together,
        .n_rows_prompt = preference.n_rows_prompt,
        .step_budget_ms = (double)options->step_budget_ms,
        .window_ms = (double)options->batch_window_ms,
        .max_wait_ms = (double)options->max_wait_ms,
    };
    return scheduler_create(&scheduler, &engine->scheduler, error);
}

static int create_parts(struct runnel_engine *engine, const runnel_engine_options *options, bool uses_device,
                        runnel_error *error)
{
    const struct runnel_model *model = engine->model;
    uint32_t n_vocab = model->weights->config.n_vocab;
    struct engine_memory plan;
    int failure = RUNNEL_OK;
    if (uses_device)
        failure = backend_device_open(model->device, model->device_approximates, &engine->device, error);
    if (!failure)
        failure = engine_memory_plan(model, options, engine->device, &plan, error);
    if (!failure)
        failure = engine_memory_check_room(model, &plan, error);
    if (failure)
        return failure;
    engine->n_logits = plan.forward.n_logits_max;
    engine->slots = calloc(engine->n_parallel, sizeof *engine->slots);
    engine->rows = malloc(engine->n_batch * sizeof *engine->rows);
    engine->drawings = malloc(engine->n_parallel * sizeof *engine->drawings);
    engine->draws = malloc(engine->n_logits * sizeof *engine->draws);
    engine->best_is_enough = calloc(engine->n_logits, sizeof *engine->best_is_enough);
    engine->best = malloc(engine->n_logits * sizeof *engine->best);
    engine->wanting = malloc(engine->n_parallel * sizeof(struct runnel_future *));
    if (!engine->slots || !engine->rows || !engine->drawings || !engine->draws || !engine->best_is_enough ||
        !engine->best || !engine->wanting)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the steps of %u requests", engine->n_parallel);
    size_t tokens_bytes = (size_t)engine->n_requests_max * engine->limits.n_positions * sizeof(int32_t);
    failure = request_memory_create(MEMORY_BYTES + tokens_bytes, &engine->memory, error);
    if (!failure)
        failure = team_create(options->n_threads, &engine->team, error);
    if (!failure)
        failure = create_cache(engine, &plan, error);
    if (!failure)
        failure = create_scratches(engine, n_vocab, error);
    if (!failure)
        failure = create_scheduler(engine, options, error);
    if (!failure && plan.draft_bytes)
        failure = drafts_create(&plan.drafts, &engine->drafts, error);
    return failure;
}

/* Computes the first n rows of engine->rows, the last of which wants logits. */
static int compute_alone(struct runnel_engine *engine, uint32_t n_rows, runnel_error *error)
{
    uint32_t n_kept;
    float *logits;
    int failure = forward_begin(engine->forward, engine->rows, n_rows, &n_kept, error);
    if (failure)
        return failure;
    forward_begin_logits(engine->forward, 0, 1);
    return forward_wait(engine->forward, &logits, error);
}

/* How long the prompt of a warm-up is. */
static uint32_t warm_up_rows(const struct runnel_engine *engine)
{
    struct backend_preference preference;
    forward_get_preference(engine->forward, &preference);
    uint32_t n_rows = preference.n_rows_prompt > WARM_UP_ROWS ? preference.n_rows_prompt : WARM_UP_ROWS;
    if (n_rows > engine->n_batch)
        n_rows = engine->n_batch;
    return n_rows < engine->limits.n_context ? n_rows : engine->limits.n_context - 1;
}

/* The scheduler expects of steps what a warm-up took. */
static void expect(struct runnel_engine *engine, double prompt_ms, double token_ms)
{
    engine->warm_up_prompt_ms = prompt_ms;
    engine->warm_up_token_ms = token_ms;
    scheduler_learn(engine->scheduler, warm_up_rows(engine), 0, prompt_ms);
    scheduler_learn(engine->scheduler, 1, 0, token_ms);
}

/* Computes a prompt and a token that nobody asked for: brings memory in, and teaches the scheduler what steps cost. */
static int warm_up(struct runnel_engine *engine, runnel_error *error)
{
    uint32_t n_rows = warm_up_rows(engine);
    int failure = RUNNEL_OK, sequence = kvcache_open(engine->cache, UINT64_MAX, 0, 0);
    if (sequence < 0 || kvcache_reserve(engine->cache, sequence, n_rows + 1) != RUNNEL_OK)
        n_rows = 0;
    for (uint32_t i = 0; i < n_rows; i++)
        engine->rows[i] =
            (struct forward_row){.sequence = sequence, .position = i, .wants_logits = i + 1 == n_rows};
    if (n_rows) {
        double start_ms = clock_ms();
        failure = compute_alone(engine, n_rows, error);
        double prompt_ms = clock_ms();
        engine->rows[0].position = n_rows;
        engine->rows[0].wants_logits = true;
        if (!failure)
            failure = compute_alone(engine, 1, error);
        expect(engine, prompt_ms - start_ms, clock_ms() - prompt_ms);
    }
    if (sequence >= 0)
        kvcache_close(engine->cache, sequence);
    return failure;
}

static void *engine_main(void *arg);
static void publish_stats(struct runnel_engine *engine);

/* why_no_device: why the one that could be used is not, for stats. */
static int start(const runnel_model *model, const runnel_engine_options *options, bool uses_device,
                 const char *why_no_device, runnel_engine **out, runnel_error *error)
{
    struct runnel_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return error_set(error, RUNNEL_ENOMEM, "no memory for an engine");
    engine->model = model_hold(model);
    snprintf(engine->why_no_device, sizeof engine->why_no_device, "%s", why_no_device);
    engine->limits.n_context = options->n_context;
    engine->limits.n_positions =
        options->keep_last ? model->weights->config.n_context_train : options->n_context;
    engine->limits.answer_reserve = options->answer_reserve;
    engine->n_batch = options->n_batch;
    engine->n_parallel = options->n_parallel;
    engine->n_requests_max = options->n_requests;
    engine->max_wait_ms = (double)options->max_wait_ms;
    engine->keep_first = options->keep_first;
    engine->keep_last = options->keep_last;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    atomic_init(&engine->n_inside, 0);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->wake, &monotonic);
    pthread_cond_init(&engine->called, NULL);
    pthread_condattr_destroy(&monotonic);

    int failure = create_parts(engine, options, uses_device, error);
    if (!failure && options->quick_start)
        expect(engine, options->warm_up_prompt_ms, options->warm_up_token_ms);
    else if (!failure)
        failure = warm_up(engine, error);
    if (!failure) {
        publish_stats(engine); /* the thread may take a while to do so */
        int problem = thread_start(&engine->thread, engine_main, engine);
        engine->has_thread = problem == 0;
        if (problem)
            failure = error_set(error, RUNNEL_ENOMEM, "the engine's thread could not be started: %s",
                                strerror(problem));
    }
    if (failure) {
        runnel_engine_stop(engine);
        return failure;
    }
    *out = engine;
    return RUNNEL_OK;
}

int runnel_engine_start(const runnel_model *model, const runnel_engine_options *given, runnel_engine **out,
                        runnel_error *error)
{
    runnel_engine_options options;
    runnel_error why_no_device;
    int failure = arguments_check(__func__, ARGUMENTS(POINTER(model, model), POINTER(engine, out)), error);
    if (!failure)
        failure = engine_options_read(model, given, &options, error);
    if (failure)
        return failure;
    if (!model->device || !backend_device_is_optional(model->device))
        return start(model, &options, model->device != NULL, "", out, error);
    failure = start(model, &options, true, "", out, &why_no_device);
    return failure ? start(model, &options, false, why_no_device.message, out, error) : RUNNEL_OK;
}

/* Has the thread end, if no other call of runnel_engine_stop has asked for that already: false. */
static bool begin_stop(struct runnel_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool is_first = !engine->stopping;
    engine->stopping = true;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
    return is_first;
}

/* Until only the caller is inside the engine. */
static void wait_until_alone(struct runnel_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    while (atomic_load(&engine->n_inside) > 1)
        pthread_cond_wait(&engine->called, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
}

unsigned runnel_engine_stop(runnel_engine *engine)
{
    if (!engine)
        return 0;
    engine_enter(engine);
    if (engine_is_this_thread(engine) || !begin_stop(engine)) {
        engine_leave(engine);
        return UINT_MAX;
    }
    if (engine->has_thread)
        pthread_join(engine->thread, NULL);
    wait_until_alone(engine);
    drafts_free(engine->drafts);
    scheduler_free(engine->scheduler);
    free_scratches(engine);
    forward_free(engine->forward);
    backend_device_close(engine->device);
    kvcache_free(engine->cache);
    team_free(engine->team);
    free(engine->slots);
    free(engine->rows);
    free(engine->drawings);
    free(engine->draws);
    free(engine->best_is_enough);
    free(engine->best);
    free(engine->wanting);
    pthread_cond_destroy(&engine->wake);
    pthread_cond_destroy(&engine->called);
    pthread_mutex_destroy(&engine->lock);
    unsigned n_held = request_memory_let_go(engine->memory);
    model_let_go(engine->model);
    free(engine);
    return n_held;
}

/* The thread ---------------------------------------------------------------------------------------------- */

/* Adds one to the scheduler, or ends it. */
static void take_request(struct runnel_engine *engine, struct runnel_future *future)
{
    struct scheduler_forecast forecast;
    runnel_error error;
    engine_compare_prompt(engine, future);
    enum scheduler_answer answer = scheduler_add(engine->scheduler, &future->entry, clock_ms(), &forecast);
    switch (answer) {
    case SCHEDULER_ACCEPTED:
        request_tell_taken(future);
        return;
    case SCHEDULER_SLOW:
        error_set(&error, RUNNEL_ESLOW,
                  "the request would wait about %.0f s for its turn, expected at most %.3g s",
                  ceil(forecast.wait_ms / 1e3), engine->max_wait_ms / 1e3);
        break;
    default:
        error_set(&error, RUNNEL_EBUSY, "the queue is full");
    }
    engine_fail(engine, future, &error);
}

/* Puts the requests of the inbox into the scheduler in the order in which they came. */
static void take_requests(struct runnel_engine *engine, struct runnel_future *latest)
{
    struct runnel_future *in_order = NULL;
    while (latest) {
        struct runnel_future *next = latest->next;
        latest->next = in_order;
        in_order = latest;
        latest = next;
    }
    while (in_order) {
        struct runnel_future *future = in_order;
        in_order = future->next;
        future->next = engine->live;
        engine->live = future;
        take_request(engine, future);
    }
}

/* Ends those that have waited too long. */
static void end_expired(struct runnel_engine *engine)
{
    struct scheduler_entry *entry;
    while ((entry = scheduler_expired(engine->scheduler, clock_ms()))) {
        struct runnel_future *future = engine_future_of(entry);
        runnel_error error;
        error_set(&error, RUNNEL_EEXPIRED, "its turn did not come within %.3g s", engine->max_wait_ms / 1e3);
        engine_fail(engine, future, &error);
    }
}

static void end_cancelled(struct runnel_engine *engine, bool all)
{
    for (struct runnel_future *future = engine->live, *next; future; future = next) {
        next = future->next;
        if (all || atomic_load(&future->cancelled))
            engine_cancel(engine, future);
    }
}

/* Closes the thoughts that somebody wants closed. */
static void end_thoughts(struct runnel_engine *engine)
{
    for (struct runnel_future *future = engine->live; future; future = future->next)
        if (atomic_exchange(&future->thought_end_wished, false))
            answer_end_thought(&future->answer);
}

static void run_calls(struct runnel_engine *engine, struct engine_call *calls)
{
    while (calls) {
        struct engine_call *call = calls;
        calls = call->next;
        call->run(engine, call->arg);
        pthread_mutex_lock(&engine->lock);
        call->done = true;
        pthread_cond_broadcast(&engine->called);
        pthread_mutex_unlock(&engine->lock);
    }
}

/* Takes what came in; true once the engine shall stop. */
static bool take_inbox(struct runnel_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct runnel_future *inbox = engine->inbox;
    struct engine_call *calls = engine->calls;
    bool stopping = engine->stopping;
    engine->inbox = NULL;
    engine->calls = NULL;
    engine->poked = false;
    pthread_mutex_unlock(&engine->lock);
    take_requests(engine, inbox);
    run_calls(engine, calls);
    end_cancelled(engine, stopping);
    end_thoughts(engine);
    end_expired(engine);
    return stopping;
}

/* Sleeps until something comes in or it is time for what waits. */
static void sleep_until_work(struct runnel_engine *engine)
{
    double now_ms = clock_ms(), wakeup_ms = scheduler_wakeup_ms(engine->scheduler, now_ms);
    pthread_mutex_lock(&engine->lock);
    if (!engine->inbox && !engine->calls && !engine->stopping && !engine->poked) {
        if (isinf(wakeup_ms)) {
            pthread_cond_wait(&engine->wake, &engine->lock);
        } else if (wakeup_ms > now_ms) {
            struct timespec until = {.tv_sec = (time_t)(wakeup_ms / 1e3)};
            until.tv_nsec = (long)((wakeup_ms - (double)until.tv_sec * 1e3) * 1e6);
            pthread_cond_timedwait(&engine->wake, &engine->lock, &until);
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

/* With the lock held. */
static void publish_slots(struct runnel_engine *engine)
{
    memset(engine->slots, 0, engine->n_parallel * sizeof *engine->slots);
    for (const struct runnel_future *future = engine->live; future; future = future->next)
        if (future->sequence >= 0 && (uint32_t)future->sequence < engine->n_parallel)
            engine->slots[future->sequence] = (runnel_slot){
                .is_processing = true,
                .n_prompt_tokens = future->entry.n_prompt,
                .n_cached_tokens = future->n_cached,
                .n_computed = future->entry.n_committed,
                .n_tokens = future->answer.n_drawn,
                .max_tokens = future->entry.max_tokens,
            };
}

_Static_assert((int)RUNNEL_PAGE_TOKENS == (int)KV_PAGE, "runnel.h tells the size of a page");

static void publish_stats(struct runnel_engine *engine)
{
    struct backend_device_state device = {.name = "", .problem = ""};
    struct scheduler_stats scheduler;
    struct kvcache_stats cache;
    struct pool_stats pool;
    struct backend_memory memory;
    forward_get_memory(engine->forward, &memory);
    if (engine->device)
        backend_device_look(engine->device, &device);
    pool_get_stats(engine->memory->pool, &pool);
    scheduler_get_stats(engine->scheduler, &scheduler);
    kvcache_get_stats(engine->cache, &cache);
    pthread_mutex_lock(&engine->lock);
    engine->stats = (runnel_stats_values){
        .n_running = scheduler.n_running,
        .n_waiting = scheduler.n_waiting,
        .n_kv_pages = cache.n_pages,
        .n_kv_used = cache.n_referenced,
        .n_kv_cached = cache.n_cached,
        .n_kv_bytes = memory.kv_bytes,
        .n_prefix_queries = cache.n_queries,
        .n_prefix_hits = cache.n_hits,
        .n_prompt_tokens = engine->n_prompt_tokens,
        .n_generated_tokens = engine->n_generated_tokens,
        .n_steps = scheduler.n_steps,
        .n_preemptions = scheduler.n_preemptions,
        .last_step_ms = engine->last_step_ms,
        .n_pool_bytes = pool.held_bytes,
        .n_pool_bytes_used = pool.in_use_bytes,
        .n_pool_blocks = pool.n_in_use,
        .n_pool_allocations = pool.n_allocations,
        .n_pool_reuses = pool.n_reuses,
        .n_pool_refusals = pool.n_refusals,
        .n_kv_bytes_to_touch = memory.kv_bytes_to_touch,
        .warm_up_prompt_ms = engine->warm_up_prompt_ms,
        .warm_up_token_ms = engine->warm_up_token_ms,
        .n_drafts = engine->n_drafts,
        .n_draft_tokens = engine->n_draft_tokens,
        .n_draft_accepted = engine->n_draft_accepted,
        .device = device.name,
        .n_device_layers = engine->n_device_layers,
        .n_device_bytes = device.memory_bytes,
        .n_device_bytes_used = device.used_bytes,
        .device_is_lost = device.is_lost,
        .device_problem = *engine->why_no_device ? engine->why_no_device : device.problem,
    };
    publish_slots(engine);
    pthread_mutex_unlock(&engine->lock);
}

static void *engine_main(void *arg)
{
    struct runnel_engine *engine = arg;
    thread_begin("runnel-engine");
    while (!take_inbox(engine)) {
        double start_ms = clock_ms();
        engine_admit(engine, start_ms);
        publish_stats(
            engine); /* who left is seen to be gone, and who runs to run, from the events of this step */
        bool worked = engine_step(engine, start_ms);
        publish_stats(engine); /* who hears of an end finds all of it counted */
        engine_tell(engine);
        publish_stats(engine);
        if (!worked && !forward_touch(engine->forward, TOUCH_BYTES))
            sleep_until_work(engine);
    }
    return NULL;
}

/* From other threads -------------------------------------------------------------------------------------- */

bool engine_is_this_thread(const struct runnel_engine *engine)
{
    return engine->has_thread && pthread_equal(engine->thread, pthread_self());
}

int engine_check_thread(const struct runnel_engine *engine, const char *function, runnel_error *error)
{
    return engine_is_this_thread(engine) ? error_set(error, RUNNEL_EINVAL, "%s: " ENGINE_WOULD_HANG, function)
                                         : RUNNEL_OK;
}

void engine_enter(struct runnel_engine *engine)
{
    atomic_fetch_add(&engine->n_inside, 1);
}

void engine_leave(struct runnel_engine *engine)
{
    /* With the lock: else runnel_engine_stop could free the engine between the counting and the telling. */
    pthread_mutex_lock(&engine->lock);
    atomic_fetch_sub(&engine->n_inside, 1);
    if (engine->stopping)
        pthread_cond_broadcast(&engine->called);
    pthread_mutex_unlock(&engine->lock);
}

void engine_poke(struct runnel_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->poked = true;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
}

int engine_call(struct runnel_engine *engine, void (*run)(struct runnel_engine *engine, void *arg), void *arg,
                runnel_error *error)
{
    struct engine_call call = {.run = run, .arg = arg};
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping) { /* the engine's thread may have looked for calls for the last time */
        pthread_mutex_unlock(&engine->lock);
        return error_set(error, RUNNEL_ECANCELLED, ENGINE_IS_STOPPING);
    }
    call.next = engine->calls;
    engine->calls = &call; // cppcheck-suppress autoVariables ; it is taken out before this returns
    pthread_cond_signal(&engine->wake);
    while (!call.done)
        pthread_cond_wait(&engine->called, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    return RUNNEL_OK;
}

void runnel_stats(runnel_engine *engine, runnel_stats_values *stats)
{
    if (!engine || !stats)
        return;
    engine_enter(engine);
    pthread_mutex_lock(&engine->lock);
    runnel_stats_values now = engine->stats;
    pthread_mutex_unlock(&engine->lock);
    engine_leave(engine);
    versioned_write(&now, sizeof now, stats);
}

void runnel_slots(runnel_engine *engine, runnel_slot *slots, size_t n)
{
    if (!engine || !slots || !n || versioned_check("runnel_slot", slots, NULL))
        return;
    const runnel_slot idle = {0};
    char *place = (char *)slots;
    size_t step = slots->size;
    engine_enter(engine);
    pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < n; i++, place += step)
        versioned_init(i < engine->n_parallel ? &engine->slots[i] : &idle, sizeof idle, place, step);
    pthread_mutex_unlock(&engine->lock);
    engine_leave(engine);
}
