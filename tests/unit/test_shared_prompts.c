/* test_shared_prompts.c: prompts that begin alike and come together are computed once. The engine on a tiny model, where
 * rows that were computed are counted and answers compared with those alone. test_shared_plans.c has the scheduler's part. */
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    *state = model = tiny_engine_open(&options);
    return 0;
}

enum { N_PROMPT_MAX = 2000 };

/* A prompt that begins with n_common tokens of one text and goes on as nobody else's. */
static runnel_request request_of(int32_t ids[N_PROMPT_MAX], size_t n_common, size_t n_prompt, unsigned own)
{
    runnel_request request;
    runnel_request_init(&request);
    for (size_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((i * 31 + i * i + (i < n_common ? 0 : (own + 1) * 7)) % TINY_MODEL_TOKENS);
    request.prompt_ids = ids;
    request.n_prompt_ids = n_prompt;
    request.max_tokens = 12;
    request.ignore_eos = true;
    request.wants_logits_hash = true;
    own_sampling(model, &request)->temperature = 0.9f;
    own_sampling(model, &request)->seed = own;
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
    runnel_response alone = {.size = sizeof alone};
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 4096, .n_parallel = 1});
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
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = N, .n_batch = 64});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}};
    for (unsigned i = 0; i < N; i++) {
        requests[i] = request_of(ids[i], 300, 300, i);
        own_sampling(model, &requests[i])->seed = i; /* as the choices of one request */
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
        runnel_engine *engine = tiny_engine_start(
            model, (runnel_engine_options){.n_context = 1024, .n_parallel = 5, .n_batch = batches[b]});
        static int32_t ids[N][N_PROMPT_MAX];
        runnel_request requests[N];
        runnel_response responses[N] = {{.size = sizeof *responses}};
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
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = N, .n_batch = 64});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}};
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
    runnel_engine *engine = tiny_engine_start(model, options);
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}}, alone = {.size = sizeof alone};
    for (unsigned i = 0; i < N; i++)
        requests[i] = request_of(ids[i], 300, 300, i);
    assert_int_equal(runnel_respond_many(engine, requests, N, responses, NULL), RUNNEL_OK);
    runnel_engine_stop(engine);
    for (int i = 0; i < N; i++) {
        engine = tiny_engine_start(model, options);
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
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 640, .n_parallel = N, .n_kv_tokens = 900});
    static int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}};
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

static void wait_for(atomic_bool *flag)
{
    for (int i = 0; !atomic_load(flag); i++) {
        if (i == 30000)
            fail_msg("it did not happen within 30 s");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Two requests that begin alike, in a pool that has room for both only because they have pages in common. */
struct pair {
    atomic_bool begun, both_are_there;
    bool first_has_ended; /* the engine's thread */
    bool second_came_first;
};

static bool look_at_first(void *user, const runnel_event *event)
{
    struct pair *pair = user;
    atomic_store(&pair->begun, true);
    while (!atomic_load(&pair->both_are_there))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    pair->first_has_ended |= event->kind == RUNNEL_EVENT_FINISH;
    return true;
}

static bool look_at_second(void *user, const runnel_event *event)
{
    struct pair *pair = user;
    if (event->kind == RUNNEL_EVENT_FINISH)
        pair->second_came_first = !pair->first_has_ended;
    return true;
}

static void pages_in_common_take_room_once(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 640, .n_parallel = 2, .n_kv_tokens = 640});
    static int32_t ids[2][N_PROMPT_MAX];
    struct pair pair = {.first_has_ended = false};
    runnel_request first = request_of(ids[0], 310, 320, 0), second = request_of(ids[1], 310, 330, 1);
    first.max_tokens = 200;
    first.wants_tokens = true;
    second.max_tokens = 4;
    first.user = second.user = &pair;
    first.on_event = look_at_first;
    second.on_event = look_at_second;
    runnel_future *futures[2];
    assert_int_equal(runnel_submit(engine, &first, 1, &futures[0], NULL), RUNNEL_OK);
    wait_for(&pair.begun);
    assert_int_equal(runnel_submit(engine, &second, 1, &futures[1], NULL), RUNNEL_OK);
    atomic_store(&pair.both_are_there, true);
    runnel_response responses[2] = {{.size = sizeof *responses}, {.size = sizeof *responses}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(runnel_wait(futures[i], &responses[i], NULL), RUNNEL_OK);
        expect_as_alone(i ? &second : &first, &responses[i]);
        assert_int_equal(responses[i].n_preempted, 0);
        runnel_response_free(&responses[i]);
        runnel_free(futures[i]);
    }
    assert_true(pair.second_came_first);
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
    if (!leader || leader->entry.n_committed < 3 * KV_PAGE || follower->entry.state != SCHEDULER_RUNNING)
        return true;
    assert_true(leader->entry.n_committed < 512 &&
                follower->entry.n_committed < 512); /* both in the shared part */
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

/* Puts the leader back, and nobody else: it came last. */
static void put_back(struct runnel_engine *engine, void *arg)
{
    struct witness *witness = arg;
    struct scheduler_entry *victim = scheduler_preempt(engine->scheduler);
    assert_ptr_equal(victim, &witness->leader->entry);
    kvcache_close(engine->cache, witness->leader->sequence);
    witness->leader->sequence = -1;
}

/* Two long prompts with a common beginning of 512, and a short one, which comes last and is the first in turn. */
static void leader_goes_away(bool cancels)
{
    enum { N_LONG = 2 };
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 4096, .n_parallel = 4, .n_batch = 16});
    static int32_t ids[N_LONG + 2][N_PROMPT_MAX];
    struct witness witness = {.engine = engine, .cancels = cancels, .lock = PTHREAD_MUTEX_INITIALIZER};
    runnel_future *beside, *futures[N_LONG + 1];
    runnel_response responses[N_LONG + 1] = {{.size = sizeof *responses}};
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
        assert_int_equal(engine_call(engine, put_back, &witness, NULL), RUNNEL_OK);
    for (int i = 0; i <= N_LONG; i++) {
        responses[i].size = sizeof *responses;
        assert_int_equal(runnel_wait(futures[i], &responses[i], NULL), RUNNEL_OK);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_prompts_are_computed_once),
        cmocka_unit_test(what_prompts_share_is_computed_once),
        cmocka_unit_test(keys_do_not_share),
        cmocka_unit_test(a_window_shares_as_well),
        cmocka_unit_test(a_small_pool_is_enough),
        cmocka_unit_test(pages_in_common_take_room_once),
        cmocka_unit_test(others_go_on_when_one_is_cancelled),
        cmocka_unit_test(others_go_on_when_one_is_put_back),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
