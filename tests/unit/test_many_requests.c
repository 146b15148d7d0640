/* test_many_requests.c: 64 requests at once, half of them behind one system prompt, give what each gives alone: the first
 * time, from the cache, and where pages run out. On a tiny model. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum {
    N = 64,
    N_SHARED = 300, /* more than an attention block */
    N_OWN = 20,
    N_TOKENS = 100, /* more than the headroom with which they are admitted */
    N_CONTEXT = 512,
    N_PAGES_ALL = N / 2 * (9 + 1) + N / 2 * 4 + 200, /* what all need, and more */
    KV_TOKENS_TIGHT = 2400,
    TRIES = 3,
};

static runnel_model *model;

static int open_model(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    options.n_hidden = options.n_ffn = 96;
    tiny_model_set_types(&options, TENSOR_Q8_0);
    model = tiny_engine_open(&options);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    runnel_model_close(model);
    return 0;
}

struct crowd {
    int32_t ids[N][N_SHARED + N_OWN];
    runnel_request requests[N];
    uint64_t hashes[N]; /* of each one alone */
    runnel_engine *engine;
    uint32_t most_running;
};

static bool watch_running(void *user, const runnel_event *event)
{
    struct crowd *crowd = user;
    runnel_stats_values stats = {.size = sizeof stats};
    (void)event;
    runnel_stats(crowd->engine, &stats);
    crowd->most_running = stats.n_running > crowd->most_running ? stats.n_running : crowd->most_running;
    return true;
}

/* Those with odd numbers have the system prompt, and all lengths are others. */
static void ask(struct crowd *crowd)
{
    for (int32_t i = 0; i < N; i++) {
        int32_t n_shared = i % 2 ? N_SHARED : 0, n = n_shared + 1 + i % N_OWN;
        for (int32_t j = 0; j < n; j++)
            crowd->ids[i][j] = (j < n_shared ? j * 31 : j * 37 + i * 101 + 7) % 256;
        runnel_request *request = &crowd->requests[i];
        runnel_request_init(request);
        request->prompt_ids = crowd->ids[i];
        request->n_prompt_ids = (size_t)n;
        request->max_tokens = N_TOKENS + i % 7;
        request->ignore_eos = true;
        request->wants_logits_hash = true;
        request->on_event = watch_running;
        request->user = crowd;
        own_sampling(model, request)->temperature = i % 3 ? 0.9f : 0;
        own_sampling(model, request)->seed = (uint64_t)i;
    }
}

static void answer_alone(struct crowd *crowd)
{
    crowd->engine = tiny_engine_start(model, (runnel_engine_options){.n_context = N_CONTEXT});
    for (int i = 0; i < N; i++) {
        runnel_response response = {.size = sizeof response};
        runnel_error error;
        if (runnel_respond(crowd->engine, &crowd->requests[i], &response, &error))
            fail_msg("%s", error.message);
        crowd->hashes[i] = response.logits_hash;
        runnel_response_free(&response);
    }
    runnel_engine_stop(crowd->engine);
}

/* Answers all at once. *n_preempted, *n_cached: of all of them. */
static void answer_together(struct crowd *crowd, uint32_t *n_preempted, uint32_t *n_cached)
{
    runnel_response responses[N] = {{.size = sizeof *responses}};
    runnel_error error;
    if (runnel_respond_many(crowd->engine, crowd->requests, N, responses, &error))
        fail_msg("%s", error.message);
    *n_preempted = *n_cached = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(responses[i].n_tokens, crowd->requests[i].max_tokens);
        if (responses[i].logits_hash != crowd->hashes[i])
            fail_msg("request %d of %d has another answer than alone", i, N);
        *n_preempted += responses[i].n_preempted;
        *n_cached += responses[i].n_cached_tokens;
        runnel_response_free(&responses[i]);
    }
}

static void all_at_once_as_alone(void **state)
{
    (void)state;
    static struct crowd crowd;
    uint32_t n_preempted, n_cached;
    ask(&crowd);
    answer_alone(&crowd);

    crowd.engine = tiny_engine_start(
        model,
        (runnel_engine_options){.n_context = N_CONTEXT, .n_parallel = N, .n_kv_tokens = N_PAGES_ALL * 32});
    answer_together(&crowd, &n_preempted, &n_cached);
    assert_int_equal(crowd.most_running, N);
    assert_int_equal(n_preempted, 0);
    answer_together(&crowd, &n_preempted, &n_cached);
    assert_true(n_cached >= N / 2 * (N_SHARED / 32 * 32));
    runnel_engine_stop(crowd.engine);

    n_preempted = 0; /* how soon pages run out depends on the time of steps, so that one try may do without */
    for (int i = 0; i < TRIES && !n_preempted; i++) {
        crowd.engine = tiny_engine_start(
            model,
            (runnel_engine_options){.n_context = N_CONTEXT, .n_parallel = N, .n_kv_tokens = KV_TOKENS_TIGHT});
        answer_together(&crowd, &n_preempted, &n_cached);
        tiny_engine_wait_until_idle(crowd.engine);
        runnel_engine_stop(crowd.engine);
    }
    assert_true(n_preempted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_at_once_as_alone)};
    return cmocka_run_group_tests(tests, open_model, close_model);
}
