/* test_requests.c: requests on their way through the engine's thread: submitted together or not at all, waited for, polled,
 * cancelled, freed early, put back when pages run out, in a window, from several threads. On a tiny model. */
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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

enum { N_PROMPT_MAX = 200 };

static runnel_request request_of(int32_t ids[N_PROMPT_MAX], size_t n_prompt, int max_tokens, unsigned seed)
{
    runnel_request request;
    runnel_request_init(&request);
    for (size_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((i * 31 + seed * 101 + i * i * seed) % TINY_MODEL_TOKENS);
    request.prompt_ids = ids;
    request.n_prompt_ids = n_prompt;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.wants_logits_hash = true;
    own_sampling(model, &request)->temperature = seed % 2 ? 0 : 0.9f;
    own_sampling(model, &request)->seed = seed;
    return request;
}

static runnel_stats_values stats_of(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    return stats;
}

/* Before its thread has had a turn. */
static void stats_as_soon_as_it_is_started(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        runnel_engine *engine =
            tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 2});
        assert_int_equal(stats_of(engine).n_kv_pages, 2 * 512 / KV_PAGE);
        runnel_engine_stop(engine);
    }
}

static void all_or_none(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 2, .n_requests = 3});
    int32_t ids[4][N_PROMPT_MAX];
    runnel_request requests[4];
    runnel_future *futures[4] = {NULL, NULL, NULL, NULL};
    runnel_error error;
    for (unsigned i = 0; i < 4; i++)
        requests[i] = request_of(ids[i], 20, 100, i);
    assert_int_equal(runnel_submit(engine, requests, 4, futures, &error), RUNNEL_EBUSY);
    ids[2][7] = -5;
    assert_int_equal(runnel_submit(engine, requests, 3, futures, &error), RUNNEL_EINVAL);
    for (int i = 0; i < 4; i++)
        assert_null(futures[i]);
    assert_int_equal(stats_of(engine).n_prompt_tokens, 0);
    ids[2][7] = 5;
    assert_int_equal(runnel_submit(engine, requests, 3, futures, &error), RUNNEL_OK);
    assert_int_equal(runnel_submit(engine, requests, 1, futures + 3, &error), RUNNEL_EBUSY);
    for (int i = 0; i < 3; i++) {
        runnel_response response = {.size = sizeof response};
        assert_int_equal(runnel_wait(futures[i], &response, &error), RUNNEL_OK);
        assert_true(runnel_poll(futures[i]));
        assert_int_equal(response.n_tokens, 100);
        assert_true(response.queue_ms >= 0 && response.prefill_ms > 0 && response.decode_ms > 0);
        runnel_response_free(&response);
        assert_int_equal(runnel_wait(futures[i], &response, &error), RUNNEL_EINVAL); /* once only */
        runnel_free(futures[i]);
    }
    assert_int_equal(runnel_submit(engine, requests, 1, futures, &error),
                     RUNNEL_OK); /* there is room again */
    runnel_free(futures[0]);
    runnel_engine_stop(engine);
}

struct counted {
    atomic_int n_events, n_finishes;
};

static bool count_events(void *user, const runnel_event *event)
{
    struct counted *counted = user;
    atomic_fetch_add(&counted->n_events, 1);
    if (event->kind == RUNNEL_EVENT_FINISH)
        atomic_fetch_add(&counted->n_finishes, 1);
    return true;
}

static void cancelled_requests_give_all_back(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 4096, .n_parallel = 2, .n_kv_tokens = 8192});
    int32_t ids[4][N_PROMPT_MAX];
    runnel_request requests[4];
    runnel_future *futures[4];
    struct counted counted[4] = {0};
    runnel_error error;
    runnel_response response = {.size = sizeof response};
    for (unsigned i = 0; i < 4; i++) {
        requests[i] = request_of(ids[i], 150, 3000, i);
        requests[i].on_event = count_events;
        requests[i].user = &counted[i];
    }
    assert_int_equal(runnel_submit(engine, requests, 4, futures, &error), RUNNEL_OK);
    while (!atomic_load(&counted[0].n_events))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    runnel_stats_values stats = stats_of(engine);
    assert_true(stats.n_kv_used > 0 && stats.n_running == 2 && stats.n_waiting == 2);
    assert_false(runnel_poll(futures[0]));
    runnel_cancel(futures[0]); /* running */
    runnel_cancel(futures[3]); /* waiting */
    for (int i = 0; i < 4; i += 3) {
        assert_int_equal(runnel_wait(futures[i], &response, &error), RUNNEL_OK);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
        assert_true(response.n_tokens < 3000);
        assert_int_equal(atomic_load(&counted[i].n_finishes), 1);
        runnel_response_free(&response);
    }
    runnel_free(futures[1]); /* running or waiting: that cancels, and no event comes after */
    int n_events = atomic_load(&counted[1].n_events);
    runnel_free(futures[2]);
    tiny_engine_wait_until_idle(engine);
    assert_true(stats_of(engine).n_pool_blocks > 0);
    assert_int_equal(atomic_load(&counted[1].n_events), n_events);
    assert_int_equal(stats_of(engine).n_kv_used, 0);
    runnel_free(futures[0]);
    runnel_free(futures[3]);
    runnel_free(NULL);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

static void stopping_ends_what_runs(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 4096, .n_parallel = 1});
    int32_t ids[2][N_PROMPT_MAX];
    runnel_request requests[] = {request_of(ids[0], 10, 3000, 1), request_of(ids[1], 10, 3000, 2)};
    runnel_future *futures[2];
    runnel_response response = {.size = sizeof response};
    assert_int_equal(runnel_submit(engine, requests, 2, futures, NULL), RUNNEL_OK);
    assert_int_equal(runnel_engine_stop(engine), 2); /* that many futures are still held */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(runnel_wait(futures[i], &response, NULL), RUNNEL_OK);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
        runnel_response_free(&response);
        runnel_free(futures[i]);
    }
}

static uint64_t hash_alone(const runnel_request *request, runnel_engine_options options)
{
    options.n_parallel = 1;
    runnel_engine *engine = tiny_engine_start(model, options);
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    uint64_t hash = response.logits_hash;
    runnel_response_free(&response);
    runnel_engine_stop(engine);
    return hash;
}

/* Six requests of 350 positions in a pool of 800: some are put back and computed again, none fails, nothing changes. */
static void preempted_requests_give_the_same_answer(void **state)
{
    (void)state;
    enum { N = 6 };
    const runnel_engine_options options = {.n_context = 512, .n_parallel = N, .n_kv_tokens = 800};
    runnel_engine *engine = tiny_engine_start(model, options);
    int32_t ids[N][N_PROMPT_MAX];
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}};
    runnel_error error;
    uint32_t n_preempted = 0;
    for (unsigned i = 0; i < N; i++)
        requests[i] = request_of(ids[i], 50, 300, i);
    if (runnel_respond_many(engine, requests, N, responses, &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < N; i++) {
        assert_int_equal(responses[i].n_tokens, 300);
        assert_true(responses[i].logits_hash ==
                    hash_alone(&requests[i], (runnel_engine_options){.n_context = 512}));
        n_preempted += responses[i].n_preempted;
        runnel_response_free(&responses[i]);
    }
    assert_true(n_preempted > 0);
    assert_int_equal(stats_of(engine).n_preemptions, n_preempted);
    tiny_engine_wait_until_idle(engine);
    assert_int_equal(stats_of(engine).n_kv_used, 0);
    runnel_engine_stop(engine);
}

struct watched {
    runnel_engine *engine;
    uint32_t most_pages;
    size_t n_tokens;
};

static bool watch_pages(void *user, const runnel_event *event)
{
    struct watched *watched = user;
    if (event->kind == RUNNEL_EVENT_TOKEN && watched->n_tokens++ > 300) {
        uint32_t n_pages = stats_of(watched->engine).n_kv_used;
        watched->most_pages = n_pages > watched->most_pages ? n_pages : watched->most_pages;
    }
    return true;
}

/* An answer far longer than the context, in pages for little more than its window; in company as alone. */
static void a_window_bounds_memory(void **state)
{
    (void)state;
    const runnel_engine_options options = {
        .n_context = 256, .n_parallel = 3, .n_kv_tokens = 1024, .keep_first = 32, .keep_last = 128};
    runnel_engine *engine = tiny_engine_start(model, options);
    int32_t ids[3][N_PROMPT_MAX];
    runnel_request requests[3];
    runnel_response responses[3] = {{.size = sizeof *responses}};
    runnel_error error;
    for (unsigned i = 0; i < 3; i++)
        requests[i] = request_of(ids[i], 20 + 60 * i, 1000, i);
    if (runnel_respond_many(engine, requests, 3, responses, &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(responses[i].n_tokens, 1000);
        assert_true(responses[i].logits_hash == hash_alone(&requests[i], options));
        runnel_response_free(&responses[i]);
    }
    struct watched watched = {.engine = engine};
    requests[0].n_logprobs = 0;
    requests[0].on_event = watch_pages;
    requests[0].user = &watched;
    assert_int_equal(runnel_respond(engine, &requests[0], &responses[0], &error), RUNNEL_OK);
    runnel_response_free(&responses[0]);
    assert_int_equal(watched.n_tokens, 1000);
    assert_in_range(watched.most_pages, 1, (32 + 128) / 32 + 2);
    runnel_engine_stop(engine);
}

/* The largest windows that are taken: whole pages, the last of which are just enough. */
static void a_window_as_large_as_the_cache(void **state)
{
    (void)state;
    static const uint32_t sizes[][3] = {{128, 4, 64}, {128, 64, 32}, {128, 0, 96},
                                        {96, 4, 4},   {128, 33, 1},  {160, 32, 65}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const runnel_engine_options options = {
            .n_context = sizes[i][0], .keep_first = sizes[i][1], .keep_last = sizes[i][2]};
        runnel_engine *engine = tiny_engine_start(model, options);
        int32_t ids[N_PROMPT_MAX];
        runnel_request request = request_of(ids, 20, 500, 1);
        runnel_response response = {.size = sizeof response};
        runnel_error error;
        if (runnel_respond(engine, &request, &response, &error))
            fail_msg("%u, %u: %s", options.keep_first, options.keep_last, error.message);
        assert_int_equal(response.n_tokens, 500);
        runnel_response_free(&response);
        runnel_engine_stop(engine);
    }
}

/* Takes all pages that nobody has, from the answer's first token to its end. */
struct page_taker {
    runnel_engine *engine;
    int sequence; /* -1: nothing is taken yet */
};

static bool take_pages(void *user, const runnel_event *event)
{
    struct page_taker *taker = user;
    struct kvcache *cache = taker->engine->cache; /* this is its thread */
    if (event->kind == RUNNEL_EVENT_TOKEN && taker->sequence < 0) {
        struct kvcache_stats stats;
        kvcache_get_stats(cache, &stats);
        taker->sequence = kvcache_open(cache, 1, 0, 0);
        assert_int_equal(kvcache_reserve(cache, taker->sequence, (stats.n_free + stats.n_cached) * KV_PAGE),
                         RUNNEL_OK);
    } else if (event->kind == RUNNEL_EVENT_FINISH && taker->sequence >= 0) {
        kvcache_close(cache, taker->sequence);
    }
    return true;
}

static void an_answer_without_room_for_more_keeps_its_text(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    int32_t ids[N_PROMPT_MAX];
    runnel_request request = request_of(ids, 20, KV_PAGE + 1 - 20, 1);
    runnel_response shorter = {.size = sizeof shorter}, response = {.size = sizeof response};
    assert_int_equal(runnel_respond(engine, &request, &shorter, NULL), RUNNEL_OK);
    struct page_taker taker = {engine, -1};
    request.max_tokens = 200;
    request.wants_tokens = true;
    request.on_event = take_pages;
    request.user = &taker;
    runnel_error error;
    if (runnel_respond(engine, &request, &response, &error))
        fail_msg("%s", error.message);
    assert_true(taker.sequence >= 0);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(response.n_tokens, KV_PAGE + 1 - 20); /* the last one needs no place */
    assert_string_equal(response.text, shorter.text);
    runnel_response_free(&shorter);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

enum { N_SUBMITTERS = 4, N_EACH = 6 };

struct submitter {
    runnel_engine *engine;
    unsigned number;
    uint64_t hashes[N_EACH];
    bool failed;
};

static void *submit_many(void *arg)
{
    struct submitter *submitter = arg;
    for (unsigned i = 0; i < N_EACH; i++) {
        int32_t ids[N_PROMPT_MAX];
        runnel_request request = request_of(ids, 5 + 20 * i, 20, i);
        runnel_response response = {.size = sizeof response};
        if (runnel_respond(submitter->engine, &request, &response, NULL)) {
            submitter->failed = true;
            break;
        }
        submitter->hashes[i] = response.logits_hash;
        runnel_response_free(&response);
    }
    return NULL;
}

static void threads_submit_at_once(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 3});
    struct submitter submitters[N_SUBMITTERS];
    pthread_t threads[N_SUBMITTERS];
    for (unsigned i = 0; i < N_SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.engine = engine, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &submitters[i]), 0);
    }
    for (unsigned i = 0; i < N_SUBMITTERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < N_SUBMITTERS; i++) {
        assert_false(submitters[i].failed);
        assert_memory_equal(submitters[i].hashes, submitters[0].hashes, sizeof submitters[0].hashes);
    }
    assert_true(stats_of(engine).n_prefix_hits > 0); /* they asked the same */
    runnel_engine_stop(engine);
}

/* The first request of an idle engine waits for a second one, and both are computed from the first step on. */
static void a_batch_window_holds_the_first(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 512, .n_parallel = 2, .batch_window_ms = 300});
    int32_t ids[N_PROMPT_MAX];
    runnel_request request = request_of(ids, 10, 5, 1);
    runnel_response response = {.size = sizeof response};
    assert_int_equal(runnel_respond(engine, &request, &response, NULL), RUNNEL_OK);
    assert_true(response.queue_ms >= 290);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

enum { N_COUNTED = 8 };

struct told_tokens {
    int32_t ids[N_COUNTED];
    size_t n, n_end_bytes,
        n_wanted; /* tokens told, bytes of the last one, after how many the answer shall end */
};

static bool note_tokens(void *user, const runnel_event *event)
{
    struct told_tokens *counted = user;
    if (event->kind != RUNNEL_EVENT_TOKEN)
        return true;
    assert_true(counted->n < N_COUNTED);
    counted->ids[counted->n++] = event->logprobs[0].token;
    counted->n_end_bytes = event->logprobs[0].n_bytes;
    return counted->n != counted->n_wanted;
}

/* runnel.h says which tokens n_tokens and the TOKEN events have: the end token is one of them. */
static void the_end_token_is_told_and_counted(void **state)
{
    (void)state;
    static const struct {
        int max_tokens;
        bool ignore_eos;
        size_t n_wanted, n_told;
        uint32_t n_tokens;
        enum runnel_finish_reason reason;
    } cases[] = {{0, false, 0, 4, 4, RUNNEL_FINISH_STOP},
                 {3, false, 0, 3, 3, RUNNEL_FINISH_LENGTH},
                 {6, true, 0, 6, 6, RUNNEL_FINISH_LENGTH},
                 {0, false, 2, 2, 2, RUNNEL_FINISH_CANCELLED}};
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    static const runnel_logit_bias to_the_end = {TINY_TOKEN_IM_END, 1e4f};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t ids[N_PROMPT_MAX];
        struct told_tokens counted = {.n_wanted = cases[i].n_wanted};
        runnel_response response = {.size = sizeof response};
        runnel_request request = request_of(ids, 10, cases[i].max_tokens, 1);
        request.ignore_eos = cases[i].ignore_eos;
        request.min_tokens = 3;
        request.wants_tokens = true;
        request.on_event = note_tokens;
        request.user = &counted;
        own_sampling(model, &request)->logit_bias = &to_the_end;
        own_sampling(model, &request)->n_logit_bias = 1;
        assert_int_equal(runnel_respond(engine, &request, &response, NULL), RUNNEL_OK);
        assert_int_equal(counted.n, cases[i].n_told);
        assert_int_equal(response.n_tokens, cases[i].n_tokens);
        assert_int_equal(response.finish_reason, cases[i].reason);
        bool has_end = counted.n > 3;
        assert_int_equal(counted.ids[counted.n - 1] == TINY_TOKEN_IM_END, has_end);
        assert_int_equal(has_end ? counted.n_end_bytes : 0, 0);
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_as_soon_as_it_is_started),
        cmocka_unit_test(all_or_none),
        cmocka_unit_test(cancelled_requests_give_all_back),
        cmocka_unit_test(stopping_ends_what_runs),
        cmocka_unit_test(preempted_requests_give_the_same_answer),
        cmocka_unit_test(a_window_bounds_memory),
        cmocka_unit_test(a_window_as_large_as_the_cache),
        cmocka_unit_test(an_answer_without_room_for_more_keeps_its_text),
        cmocka_unit_test(threads_submit_at_once),
        cmocka_unit_test(a_batch_window_holds_the_first),
        cmocka_unit_test(the_end_token_is_told_and_counted),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
