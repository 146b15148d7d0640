/* test_shared_prompts.c: prompts that begin alike and come together are computed once. The engine on a tiny model, where
 * rows that were computed are counted and answers compared with those alone; then the scheduler's part on a machine that
 * is made up, in virtual time, with prompts that end, are put back or lose their pages at any moment. */
#include "engine/engine.h"
#include "helpers/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* The engine ---------------------------------------------------------------------------------------------- */

static char path[] = "/tmp/runnel-shared-XXXXXX";
static runnel_model *model;

static int open_model(void **state)
{
    (void)state;
    runnel_error error;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_context = 4096;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    if (tiny_model_write(&options, path, &error) || runnel_model_open(path, NULL, &model, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    runnel_model_close(model);
    unlink(path);
    return 0;
}

static runnel_engine *start(runnel_engine_options options)
{
    runnel_error error;
    runnel_engine *engine;
    options.size = sizeof options;
    if (runnel_engine_start(model, &options, &engine, &error))
        fail_msg("%s", error.message);
    return engine;
}

enum { N_PROMPT_MAX = 2000 };

/* A prompt that begins with n_common tokens of one text and goes on as nobody else's. */
static runnel_request request_of(int32_t ids[N_PROMPT_MAX], size_t n_common, size_t n_prompt, unsigned own)
{
    runnel_request request;
    runnel_request_init(model, &request);
    for (size_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((i * 31 + i * i + (i < n_common ? 0 : (own + 1) * 7)) % TINY_MODEL_TOKENS);
    request.prompt_ids = ids;
    request.n_prompt_ids = n_prompt;
    request.max_tokens = 12;
    request.ignore_eos = true;
    request.wants_logits_hash = true;
    request.sampling.temperature = 0.9f;
    request.sampling.seed = own;
    return request;
}

static uint64_t n_computed(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    return stats.n_prompt_tokens;
}

/* What the request answers in an engine of its own. */
static void expect_as_alone(const runnel_request *request, const runnel_response *together)
{
    runnel_request quiet = *request;
    quiet.on_event = NULL;
    runnel_response alone;
    runnel_engine *engine = start((runnel_engine_options){.n_context = 4096, .n_parallel = 1});
    assert_int_equal(runnel_respond(engine, &quiet, &alone, NULL), RUNNEL_OK);
    assert_int_equal(together->n_tokens, alone.n_tokens);
    assert_true(together->logits_hash == alone.logits_hash);
    assert_string_equal(together->text, alone.text);
    runnel_response_free(&alone);
    runnel_engine_stop(engine);
}

enum { N = 8 };

static void respond_together(runnel_engine *engine, const runnel_request *requests,
                             runnel_response *responses)
{
    runnel_error error;
    if (runnel_respond_many(engine, requests, N, responses, &error))
        fail_msg("%s", error.message);
    uint64_t n_own = 0;
    for (int i = 0; i < N; i++) {
        expect_as_alone(&requests[i], &responses[i]);
        n_own += responses[i].n_prompt_tokens - responses[i].n_cached_tokens;
    }
    assert_int_equal(n_computed(engine),
                     n_own); /* what is called cached was not computed, and nothing else */
}

static void free_responses(runnel_response *responses)
{
    for (int i = 0; i < N; i++)
        runnel_response_free(&responses[i]);
}

static void equal_prompts_are_computed_once(void **state)
{
    (void)state;
    runnel_engine *engine = start((runnel_engine_options){.n_context = 512, .n_parallel = N, .n_batch = 64});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N];
    for (unsigned i = 0; i < N; i++) {
        requests[i] = request_of(ids[i], 300, 300, i);
        requests[i].sampling.seed = i; /* as the choices of one request */
    }
    respond_together(engine, requests, responses);
    assert_int_equal(n_computed(engine), 300 + 7 * (300 - 288));
    assert_int_equal(responses[0].n_cached_tokens, 0); /* it came first */
    for (int i = 1; i < N; i++)
        assert_int_equal(responses[i].n_cached_tokens, 288);
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    assert_int_equal(stats.n_prefix_queries, N * 300);
    assert_int_equal(stats.n_prefix_hits, 7 * 288);
    free_responses(responses);
    runnel_engine_stop(engine);
}

/* One system prompt, questions of all lengths; steps of a few rows, in which nobody's page is whole for long. */
static void what_prompts_share_is_computed_once(void **state)
{
    (void)state;
    static const uint32_t batches[] = {8, 24, 512};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        runnel_engine *engine =
            start((runnel_engine_options){.n_context = 1024, .n_parallel = 5, .n_batch = batches[b]});
        static int32_t ids[N][N_PROMPT_MAX];
        runnel_request requests[N];
        runnel_response responses[N];
        uint64_t n_own = 0;
        for (unsigned i = 0; i < N; i++) {
            uint32_t n_prompt = 600 + 37 * ((i * 5) % N);
            requests[i] = request_of(ids[i], 590, n_prompt, i);
            n_own += n_prompt - 576;
        }
        respond_together(engine, requests, responses);
        assert_in_range(n_computed(engine), 576 + n_own, 576 + n_own + N * (KV_PAGE - 1));
        free_responses(responses);
        runnel_engine_stop(engine);
    }
}

static void keys_do_not_share(void **state)
{
    (void)state;
    runnel_engine *engine = start((runnel_engine_options){.n_context = 512, .n_parallel = N, .n_batch = 64});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N];
    for (unsigned i = 0; i < N; i++) {
        requests[i] = request_of(ids[i], 300, 300, i);
        requests[i].key = i % 4;
    }
    respond_together(engine, requests, responses);
    assert_int_equal(n_computed(engine), 4 * 300 + 4 * (300 - 288));
    for (int i = 0; i < 4; i++)
        assert_int_equal(responses[i].n_cached_tokens, 0);
    free_responses(responses);
    runnel_engine_stop(engine);
}

static void a_window_shares_as_well(void **state)
{
    (void)state;
    const runnel_engine_options options = {
        .n_context = 512, .n_parallel = N, .n_batch = 64, .keep_first = 32, .keep_last = 128};
    runnel_engine *engine = start(options);
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N], alone;
    for (unsigned i = 0; i < N; i++)
        requests[i] = request_of(ids[i], 300, 300, i);
    assert_int_equal(runnel_respond_many(engine, requests, N, responses, NULL), RUNNEL_OK);
    runnel_engine_stop(engine);
    for (int i = 0; i < N; i++) {
        engine = start(options);
        assert_int_equal(runnel_respond(engine, &requests[i], &alone, NULL), RUNNEL_OK);
        assert_true(responses[i].logits_hash == alone.logits_hash);
        assert_int_equal(responses[i].n_cached_tokens,
                         i ? 192 : 0); /* what is computed before the first drop */
        runnel_response_free(&alone);
        runnel_engine_stop(engine);
    }
    free_responses(responses);
}

/* Equal prompts in a pool that is too small for all answers: some are put back, and all come to their end. */
static void a_small_pool_is_enough(void **state)
{
    (void)state;
    runnel_engine *engine =
        start((runnel_engine_options){.n_context = 640, .n_parallel = N, .n_kv_tokens = 900});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N];
    uint32_t n_preempted = 0;
    for (unsigned i = 0; i < N; i++) {
        requests[i] = request_of(ids[i], 190, 200 + 8 * i, i);
        requests[i].max_tokens = 300;
    }
    assert_int_equal(runnel_respond_many(engine, requests, N, responses, NULL), RUNNEL_OK);
    for (int i = 0; i < N; i++) {
        expect_as_alone(&requests[i], &responses[i]);
        n_preempted += responses[i].n_preempted;
    }
    assert_true(n_preempted > 0);
    free_responses(responses);
    runnel_engine_stop(engine);
}

/* Somebody who computes for others goes away ------------------------------------------------------------ */

/* A stream that runs beside, whose events come on the engine's thread between two steps. */
struct witness {
    runnel_engine *engine;
    runnel_future *leader,
        *follower; /* guarded by lock until the leader is seen in the midst of its prompt */
    pthread_mutex_t lock;
    bool cancels;      /* the leader, itself; else it waits until the test calls the engine's thread */
    atomic_bool begun; /* it has a token */
    atomic_bool acted;
};

static bool look_at_leader(void *user, const runnel_event *event)
{
    struct witness *witness = user;
    atomic_store(&witness->begun, true);
    if (event->kind == RUNNEL_EVENT_FINISH || atomic_load(&witness->acted))
        return true;
    pthread_mutex_lock(&witness->lock);
    struct runnel_future *leader = witness->leader, *follower = witness->follower;
    pthread_mutex_unlock(&witness->lock);
    if (!leader || leader->entry.n_computed < 3 * KV_PAGE || follower->entry.state != SCHEDULER_RUNNING)
        return true;
    assert_true(leader->entry.n_computed < 512 &&
                follower->entry.n_computed < 512); /* both in the shared part */
    atomic_store(&witness->acted, true);
    if (witness->cancels)
        runnel_cancel(leader);
    for (bool called = false; !witness->cancels && !called;) {
        pthread_mutex_lock(&witness->engine->lock);
        called = witness->engine->calls != NULL;
        pthread_mutex_unlock(&witness->engine->lock);
    }
    return true;
}

static void wait_for(atomic_bool *flag)
{
    for (int i = 0; !atomic_load(flag); i++) {
        if (i == 30000)
            fail_msg("it did not happen within 30 s");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Puts the leader back, and nobody else: it came last. */
static void put_back(struct runnel_engine *engine, void *arg)
{
    struct witness *witness = arg;
    struct scheduler_entry *victim = scheduler_preempt(engine->scheduler);
    assert_ptr_equal(victim, &witness->leader->entry);
    kvcache_close(engine->cache, witness->leader->sequence);
    witness->leader->sequence = -1;
    witness->leader->n_preempted++;
}

/* Two long prompts with a common beginning of 512, and a short one, which comes last and is the first in turn. */
static void leader_goes_away(bool cancels)
{
    enum { N_LONG = 2 };
    runnel_engine *engine = start((runnel_engine_options){.n_context = 4096, .n_parallel = 4, .n_batch = 16});
    static int32_t ids[N_LONG + 2][N_PROMPT_MAX];
    struct witness witness = {.engine = engine, .cancels = cancels, .lock = PTHREAD_MUTEX_INITIALIZER};
    runnel_future *beside, *futures[N_LONG + 1];
    runnel_response responses[N_LONG + 1];
    runnel_request stream = request_of(ids[N_LONG + 1], 0, 10, 90), requests[N_LONG + 1];
    stream.max_tokens = 0;
    stream.wants_tokens = true;
    stream.on_event = look_at_leader;
    stream.user = &witness;
    assert_int_equal(runnel_submit(engine, &stream, 1, &beside, NULL), RUNNEL_OK);
    wait_for(&witness.begun);
    for (unsigned i = 0; i <= N_LONG; i++)
        requests[i] = request_of(ids[i], 512, i == N_LONG ? 560 : 900, i);
    assert_int_equal(runnel_submit(engine, requests, N_LONG + 1, futures, NULL), RUNNEL_OK);
    pthread_mutex_lock(&witness.lock);
    witness.follower = futures[0];
    witness.leader = futures[N_LONG];
    pthread_mutex_unlock(&witness.lock);
    wait_for(&witness.acted);
    if (!cancels)
        engine_call(engine, put_back, &witness);
    for (int i = 0; i <= N_LONG; i++)
        assert_int_equal(runnel_wait(futures[i], &responses[i], NULL), RUNNEL_OK);
    for (int i = 0; i < N_LONG + !cancels; i++)
        expect_as_alone(&requests[i], &responses[i]);
    if (cancels) {
        assert_int_equal(responses[N_LONG].finish_reason, RUNNEL_FINISH_CANCELLED);
        assert_int_equal(responses[N_LONG].n_tokens, 0);
    } else {
        assert_int_equal(responses[N_LONG].n_preempted, 1);
    }
    uint64_t n_own = 10 + N_LONG * (900 - 512) + (cancels ? 0 : 560 - 512);
    assert_in_range(n_computed(engine), n_own + 512, n_own + 512 + 4 * KV_PAGE);
    for (int i = 0; i <= N_LONG; i++) {
        runnel_response_free(&responses[i]);
        runnel_free(futures[i]);
    }
    runnel_free(beside);
    runnel_engine_stop(engine);
}

static void others_go_on_when_one_is_cancelled(void **state)
{
    (void)state;
    leader_goes_away(true);
}

static void others_go_on_when_one_is_put_back(void **state)
{
    (void)state;
    leader_goes_away(false);
}

/* The scheduler alone ------------------------------------------------------------------------------------- */

enum { TEXTS = 4, REQUESTS_MAX = 400 };

/* A request whose prompt begins with n_common tokens of a text that others have too. */
struct simulated {
    struct scheduler_entry entry; /* first: an entry is its request */
    uint32_t text, n_common, n_answer;
    struct scheduler_forecast forecast;
    double first_ms, done_ms; /* negative: not yet */
    uint32_t n_rows;          /* of the prompt, and of what was computed again */
};

struct world {
    struct scheduler *scheduler;
    struct simulated *requests;
    uint32_t n_requests, n_arrived; /* in the order of their arrival */
    uint32_t n_cached[TEXTS];       /* positions of a text that are in the cache */
    double now_ms;
    uint64_t n_rows;
};

static uint64_t seed = 1;

static uint32_t below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static double cost_ms(uint32_t n_rows)
{
    return fmax(36, 3.4 * n_rows);
}

static void open_world(struct world *world, const struct scheduler_options *options)
{
    *world = (struct world){.requests = calloc(REQUESTS_MAX, sizeof *world->requests)};
    assert_non_null(world->requests);
    assert_int_equal(scheduler_create(options, &world->scheduler, NULL), RUNNEL_OK);
    for (int i = 0; i < 4; i++) {
        scheduler_learn(world->scheduler, 1, 1, cost_ms(1));
        scheduler_learn(world->scheduler, 64, step_cost_pairs(0, 64), cost_ms(64));
    }
}

static void close_world(struct world *world)
{
    scheduler_free(world->scheduler);
    free(world->requests);
}

static struct simulated *add(struct world *world, double arrival_ms, uint32_t text, uint32_t n_common,
                             uint32_t n_prompt, uint32_t n_answer)
{
    assert_true(world->n_requests < REQUESTS_MAX);
    struct simulated *request = &world->requests[world->n_requests++];
    *request = (struct simulated){
        .entry = {.key = text, .n_prompt = n_prompt, .max_tokens = n_answer, .arrival_ms = arrival_ms},
        .text = text,
        .n_common = n_common,
        .n_answer = n_answer,
        .first_ms = -1,
        .done_ms = -1,
    };
    return request;
}

static uint32_t whole_pages(uint32_t n)
{
    return n / KV_PAGE * KV_PAGE;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What the cache has of a prompt. */
static uint32_t match(const struct world *world, const struct simulated *request)
{
    uint32_t n = least(world->n_cached[request->text], whole_pages(request->n_common));
    return least(n, whole_pages(request->entry.n_tokens - 1));
}

static void arrive(struct world *world)
{
    while (world->n_arrived < world->n_requests &&
           world->requests[world->n_arrived].entry.arrival_ms <= world->now_ms) {
        struct simulated *request = &world->requests[world->n_arrived];
        request->entry.n_tokens = request->entry.n_prompt;
        request->entry.n_cached = match(world, request);
        request->entry.text = 1 + request->text;
        request->entry.n_common = request->n_common;
        assert_int_equal(scheduler_add(world->scheduler, &request->entry, world->now_ms, &request->forecast),
                         SCHEDULER_ACCEPTED);
        world->n_arrived++;
    }
}

/* As engine_share_pages. */
static void share(struct world *world)
{
    for (uint32_t i = 0; i < world->n_arrived; i++) {
        struct simulated *request = &world->requests[i];
        struct scheduler_entry *entry = &request->entry;
        entry->next_page = 0;
        if (entry->state != SCHEDULER_RUNNING || entry->n_tokens - entry->n_computed < 2)
            continue;
        uint32_t n = match(world, request);
        entry->n_computed = n > entry->n_computed ? n : entry->n_computed;
        uint32_t end = whole_pages(entry->n_computed) + KV_PAGE;
        if (end < entry->n_tokens)
            entry->next_page = end <= request->n_common ? 1 + request->text * 1000 + end / KV_PAGE
                                                        : 5000 + i; /* nobody else's */
    }
}

/* Of a page that several want, one computes rows; and a plan is never empty while somebody has something to do. */
static void check_plan(const struct world *world, const struct scheduler_plan *plan)
{
    const char *wrong = scheduler_check(world->scheduler);
    if (wrong)
        fail_msg("%s", wrong);
    for (uint32_t i = 0; i < plan->n_items; i++)
        for (uint32_t j = 0; j < i; j++)
            if (plan->items[i].entry->next_page &&
                plan->items[i].entry->next_page == plan->items[j].entry->next_page)
                fail_msg("two entries compute page %u in one step", plan->items[i].entry->next_page);
    bool idle = true;
    for (uint32_t i = 0; i < world->n_arrived; i++)
        idle &= world->requests[i].entry.state != SCHEDULER_RUNNING;
    assert_true(plan->n_rows > 0 || idle);
}

static void finish_step(struct world *world, const struct scheduler_plan *plan)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        if (plan->items[i].entry)
            ((struct simulated *)plan->items[i].entry)->n_rows += plan->items[i].n_rows;
        n_rows += plan->items[i].n_rows;
    }
    world->n_rows += n_rows;
    world->now_ms += cost_ms(n_rows);
    scheduler_done(world->scheduler, cost_ms(n_rows));
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct simulated *request = (struct simulated *)plan->items[i].entry;
        if (!request)
            continue;
        uint32_t n = whole_pages(least(request->entry.n_computed, request->n_common));
        if (n > world->n_cached[request->text])
            world->n_cached[request->text] = n;
        if (request->entry.n_computed < request->entry.n_tokens)
            continue;
        if (request->entry.n_drawn == 0)
            request->first_ms = world->now_ms;
        scheduler_drew(world->scheduler, &request->entry);
        if (request->entry.n_drawn == request->n_answer) {
            request->done_ms = world->now_ms;
            scheduler_remove(world->scheduler, &request->entry);
        }
    }
}

/* One step, or the time until the next arrival. False: nothing comes any more. */
static bool step(struct world *world)
{
    arrive(world);
    for (struct scheduler_entry *entry;
         (entry = scheduler_admit(world->scheduler, world->now_ms, UINT64_MAX));)
        entry->n_computed = match(world, (struct simulated *)entry);
    share(world);
    const struct scheduler_plan *plan = scheduler_plan(world->scheduler, world->now_ms);
    check_plan(world, plan);
    if (plan->n_items) {
        finish_step(world, plan);
        return true;
    }
    if (world->n_arrived == world->n_requests)
        return false;
    world->now_ms = world->requests[world->n_arrived].entry.arrival_ms;
    return true;
}

static void run(struct world *world)
{
    while (step(world))
        ;
    for (uint32_t i = 0; i < world->n_requests; i++)
        if (world->requests[i].done_ms < 0)
            fail_msg("request %u of %u was never answered", i, world->n_requests);
}

static void one_of_equals_computes(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 10});
    for (int i = 0; i < 8; i++)
        add(&world, i, 0, 600, 620, 4);
    struct simulated *other = add(&world, 8, 1, 0, 620, 4); /* of another key, with another prompt */
    run(&world);
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < 8; i++)
        n_rows += world.requests[i].n_rows;
    assert_int_equal(n_rows, 576 + 8 * (620 - 576 + 3));
    /* Two keys share: while one prompt of each is computed, nobody has more than half of the machine. */
    assert_true(other->first_ms < 1.25 * (2 * 620 + 7 * (620 - 576)) * 3.4);
    close_world(&world);
}

/* A short prompt comes while a long one with the same beginning is computed: it takes what is there, and goes first. */
static void a_short_prompt_leads_a_long_one(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 2});
    struct simulated *prompt = add(&world, 0, 0, 1000, 3000, 4),
                     *question = add(&world, 1000, 0, 1000, 1020, 4);
    run(&world);
    assert_true(question->first_ms < prompt->first_ms);
    assert_true(question->n_rows < 1020 - 200 &&
                prompt->n_rows < 3000 - 600); /* each computed a part of the common one */
    assert_in_range(world.n_rows, 992 + 28 + 2008 + 6, 992 + 28 + 2008 + 6 + KV_PAGE);
    /* It does not wait for more than the common part. */
    assert_true(question->first_ms - 1000 < 1.2 * 3.4 * (1020 - 224) + 240);
    close_world(&world);
}

/* Prompts with a common beginning come all the time: a long one that came before most of them has its turn. */
static void nobody_starves_beside_prompts_that_share(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 8, .n_requests = 400});
    for (int i = 0; i < 10; i++)
        add(&world, 200 * i, 0, 600, 640, 4);
    struct simulated *prompt = add(&world, 2000, 0, 0, 2000, 4);
    for (int i = 0; i < 300; i++)
        add(&world, 2001 + 200 * i, 0, 600, 640, 4);
    run(&world);
    /* 6.8 s of its own, and of others what arrives in as long, each with 64 rows and a share of the steps. */
    if (prompt->first_ms - 2000 > 30e3)
        fail_msg("it waited %.0f ms", prompt->first_ms - 2000);
    close_world(&world);
}

static void forecasts_know_what_is_shared(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 8});
    for (int i = 0; i < 8; i++)
        add(&world, i, 0, 1990, 2000, 20);
    struct simulated *later = add(&world, 3500, 1, 0, 2500, 20); /* when the first one is halfway */
    later->entry.key = 0;
    struct simulated *last = &world.requests[7];
    run(&world);
    double first_ms = last->first_ms - last->entry.arrival_ms;
    if (fabs(last->forecast.first_token_ms - first_ms) > 0.3 * first_ms)
        fail_msg("first token after %.0f ms, predicted %.0f", first_ms, last->forecast.first_token_ms);
    first_ms = later->first_ms - later->entry.arrival_ms;
    if (fabs(later->forecast.first_token_ms - first_ms) > 0.3 * first_ms)
        fail_msg("later one: first token after %.0f ms, predicted %.0f", first_ms,
                 later->forecast.first_token_ms);
    close_world(&world);
}

/* Anything happens to anybody: cancelled, put back, pages lost, rows of a step not computed. All others are answered. */
static void anybody_may_go_at_any_time(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct world world;
        open_world(&world,
                   &(struct scheduler_options){.n_parallel = 2 + below(7), .n_batch = 8 + below(200)});
        for (uint32_t i = 0; i < 60; i++) {
            uint32_t n_common = below(500), n_prompt = n_common + 1 + below(below(4) ? 40 : 600);
            add(&world, 40.0 * i, below(TEXTS), n_common, n_prompt, 1 + below(30));
        }
        uint32_t n_cancelled = 0;
        for (int steps = 0; step(&world); steps++) {
            assert_true(steps < 20000);
            struct simulated *any = &world.requests[below(world.n_requests)];
            if (below(40) == 0 && any->entry.state != SCHEDULER_OUT) {
                scheduler_remove(world.scheduler, &any->entry);
                any->done_ms = world.now_ms;
                n_cancelled++;
            }
            if (steps < 3000 && below(20) == 0)
                scheduler_preempt(world.scheduler);
            if (below(20) == 0) /* evicted; who runs keeps its own */
                world.n_cached[below(TEXTS)] = 0;
        }
        for (uint32_t i = 0; i < world.n_requests; i++)
            assert_true(world.requests[i].done_ms >= 0);
        assert_true(n_cancelled > 0);
        close_world(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_prompts_are_computed_once),
        cmocka_unit_test(what_prompts_share_is_computed_once),
        cmocka_unit_test(keys_do_not_share),
        cmocka_unit_test(a_window_shares_as_well),
        cmocka_unit_test(a_small_pool_is_enough),
        cmocka_unit_test(others_go_on_when_one_is_cancelled),
        cmocka_unit_test(others_go_on_when_one_is_put_back),
        cmocka_unit_test(one_of_equals_computes),
        cmocka_unit_test(a_short_prompt_leads_a_long_one),
        cmocka_unit_test(nobody_starves_beside_prompts_that_share),
        cmocka_unit_test(forecasts_know_what_is_shared),
        cmocka_unit_test(anybody_may_go_at_any_time),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
