/* test_progress.c: RUNNEL_EVENT_PROMPT: how far a prompt has come is told in order, before the first token, in any company, and
 * only to who wants to know. On a tiny model. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
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

enum { N_PROMPT = 200, N_BATCH = 32, N_TOLD_MAX = 512, N_TOKENS = 5, NEVER = -1 };

/* What came to one request's on_event; filled on the engine's thread, read after its end. */
struct watched {
    runnel_response told[N_TOLD_MAX];
    size_t n_told, n_after; /* PROMPT events; other ones, FINISH among them */
    bool late;              /* a PROMPT event came after another one */
    int ends_at;            /* says no to the PROMPT event with so many positions or more */
};

static bool watch(void *user, const runnel_event *event)
{
    struct watched *watched = user;
    if (event->kind != RUNNEL_EVENT_PROMPT) {
        watched->n_after++;
        return true;
    }
    watched->late = watched->late || watched->n_after;
    if (event->text_len || *event->text || watched->n_told == N_TOLD_MAX)
        abort();
    watched->told[watched->n_told++] = *event->counts;
    return watched->ends_at == NEVER || event->counts->n_computed_tokens < (uint32_t)watched->ends_at;
}

static runnel_request request_of(int32_t *ids, size_t n_prompt, unsigned seed, struct watched *watched)
{
    runnel_request request;
    runnel_request_init(&request);
    for (size_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((i * 31 + seed * 101 + i * i * seed) % TINY_MODEL_TOKENS);
    request.prompt_ids = ids;
    request.n_prompt_ids = n_prompt;
    request.max_tokens = N_TOKENS;
    request.ignore_eos = true;
    request.wants_tokens = true;
    request.wants_progress = true;
    request.wants_logits_hash = true;
    own_sampling(model, &request)->temperature = 0;
    request.on_event = watch;
    request.user = watched;
    *watched = (struct watched){.ends_at = NEVER};
    return request;
}

static runnel_response respond(runnel_engine *engine, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    runnel_response_free(&response);
    return response;
}

/* All in one; responses are to be freed. */
static void respond_together(runnel_engine *engine, const runnel_request *requests, size_t n,
                             runnel_response *responses)
{
    runnel_error error;
    for (size_t i = 0; i < n; i++)
        responses[i] = (runnel_response){.size = sizeof *responses};
    if (runnel_respond_many(engine, requests, n, responses, &error))
        fail_msg("%s", error.message);
}

/* From the beginning to the whole prompt, further with each event, by no more than a step computes. */
static void check_whole(const struct watched *watched, uint32_t n_prompt, uint32_t n_most)
{
    assert_false(watched->late);
    assert_true(watched->n_told >= 2);
    for (size_t i = 0; i < watched->n_told; i++) {
        const runnel_response *told = &watched->told[i];
        assert_int_equal(told->n_prompt_tokens, n_prompt);
        assert_int_equal(told->n_tokens, 0);
        assert_true(told->n_cached_tokens <= told->n_computed_tokens);
        assert_null(told->text);
        assert_true(told->prefill_ms >= 0);
        if (i) {
            assert_true(told->n_computed_tokens > told[-1].n_computed_tokens);
            assert_true(told->n_computed_tokens - told[-1].n_computed_tokens <= n_most);
            assert_true(told->prefill_ms >= told[-1].prefill_ms);
        }
    }
    assert_int_equal(watched->told[watched->n_told - 1].n_computed_tokens, n_prompt);
}

static void it_grows_with_each_step(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_batch = N_BATCH});
    struct watched watched;
    int32_t ids[N_PROMPT];
    runnel_request request = request_of(ids, N_PROMPT, 1, &watched);
    runnel_response response = respond(engine, &request);
    check_whole(&watched, N_PROMPT, N_BATCH);
    assert_int_equal(watched.told[0].n_computed_tokens, 0);
    assert_true(watched.n_told > N_PROMPT / N_BATCH);
    assert_true(watched.told[watched.n_told - 1].prefill_ms <= response.prefill_ms);
    assert_int_equal(response.n_computed_tokens, N_PROMPT);
    uint64_t hash = response.logits_hash;

    request = request_of(ids, N_PROMPT, 1, &watched); /* most of it is in the cache now */
    respond(engine, &request);
    check_whole(&watched, N_PROMPT, N_BATCH);
    assert_true(watched.told[0].n_cached_tokens > N_PROMPT / 2);
    for (size_t i = 0; i < watched.n_told; i++)
        assert_int_equal(watched.told[i].n_cached_tokens, watched.told[0].n_cached_tokens);
    assert_int_equal(watched.told[0].n_computed_tokens, watched.told[0].n_cached_tokens);

    request.wants_progress = false;
    watched = (struct watched){.ends_at = NEVER};
    assert_true(respond(engine, &request).logits_hash == hash);
    assert_int_equal(watched.n_told, 0);
    assert_true(watched.n_after > N_TOKENS);
    runnel_engine_stop(engine);
}

/* Others' prompts, and a prompt that another request computes for it. */
static void in_company(void **state)
{
    enum { N = 4 };
    (void)state;
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 512, .n_batch = N_BATCH, .n_parallel = N});
    struct watched watched[N];
    int32_t ids[N][N_PROMPT];
    runnel_request requests[N];
    runnel_response responses[N];
    for (unsigned i = 0; i < N; i++)
        requests[i] =
            request_of(ids[i], N_PROMPT - 10 * (i / 2), i / 2, &watched[i]); /* two and two are equal */
    requests[2].wants_progress = false;
    respond_together(engine, requests, N, responses);
    for (unsigned i = 0; i < N; i++) {
        if (i == 2)
            assert_int_equal(watched[i].n_told, 0);
        else
            check_whole(&watched[i], N_PROMPT - 10 * (i / 2), N_PROMPT);
        runnel_response_free(&responses[i]);
    }
    runnel_engine_stop(engine);
}

/* A prompt that is put back and computed again is not told again. */
static void put_back_for_want_of_pages(void **state)
{
    enum { N = 3, N_LONG = 600 };
    (void)state;
    runnel_engine *engine = tiny_engine_start(
        model, /* while the long prompt is computed, a few rows a step, the others' answers take its room */
        (runnel_engine_options){.n_context = 1024, .n_batch = 4, .n_parallel = N, .n_kv_tokens = 1024});
    struct watched watched[N];
    int32_t ids[N][N_LONG];
    runnel_request requests[N];
    runnel_future *futures[N];
    runnel_error error;
    unsigned n_preempted = 0;
    for (unsigned i = 0; i < N; i++) {
        requests[i] = request_of(ids[i], i == N - 1 ? N_LONG : 60, i, &watched[i]);
        requests[i].max_tokens = i == N - 1 ? 3 : 400;
    }
    if (runnel_submit(engine, requests, N, futures, &error))
        fail_msg("%s", error.message);
    for (unsigned i = 0; i < N; i++) {
        runnel_response response = {.size = sizeof response};
        assert_int_equal(runnel_wait(futures[i], &response, &error), RUNNEL_OK);
        check_whole(&watched[i], (uint32_t)requests[i].n_prompt_ids, N_LONG);
        n_preempted += response.n_preempted;
        runnel_response_free(&response);
        runnel_free(futures[i]);
    }
    assert_true(n_preempted > 0);
    runnel_engine_stop(engine);
}

/* Whoever says no gets the end next, at the first event, in between, and at the last one. */
static void saying_no_ends_the_request(void **state)
{
    (void)state;
    static const int ends[] = {0, 2 * N_BATCH, N_PROMPT};
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_batch = N_BATCH});
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct watched watched;
        int32_t ids[N_PROMPT];
        runnel_request request = request_of(ids, N_PROMPT, 3 + i, &watched);
        watched.ends_at = ends[i];
        runnel_response response = respond(engine, &request);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
        assert_int_equal(response.n_tokens, 0);
        assert_int_equal(watched.n_after, 1);
        assert_int_equal(response.n_computed_tokens, watched.told[watched.n_told - 1].n_computed_tokens);
        tiny_engine_wait_until_idle(engine);
    }
    runnel_engine_stop(engine);
}

/* Two prompts end with one step, and the first of them says no to that: the other one draws from its own logits. */
static void saying_no_leaves_others_alone(void **state)
{
    enum { N = 2 };
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = N});
    struct watched watched[N];
    int32_t ids[N][N_PROMPT];
    runnel_request requests[N];
    runnel_response responses[N];
    for (unsigned i = 0; i < N; i++)
        requests[i] = request_of(ids[i], 20 + 4 * i, 7 + i, &watched[i]);
    uint64_t hash = respond(engine, &requests[1]).logits_hash;
    requests[1] = request_of(ids[1], 24, 8, &watched[1]);
    watched[0].ends_at = 20;
    respond_together(engine, requests, N, responses);
    assert_int_equal(responses[0].finish_reason, RUNNEL_FINISH_CANCELLED);
    assert_int_equal(responses[1].n_tokens, N_TOKENS);
    assert_true(responses[1].logits_hash == hash);
    for (unsigned i = 0; i < N; i++)
        runnel_response_free(&responses[i]);
    runnel_engine_stop(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_grows_with_each_step),       cmocka_unit_test(in_company),
        cmocka_unit_test(put_back_for_want_of_pages),    cmocka_unit_test(saying_no_ends_the_request),
        cmocka_unit_test(saying_no_leaves_others_alone),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
