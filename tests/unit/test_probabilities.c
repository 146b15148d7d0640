/* test_probabilities.c: the probabilities after sampling, as the sampler tells them of a draw and the engine in events.
 * test_sampler.c compares them with a plain model, for each option. */
#include "engine/sampler.h"
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_VOCAB = 48, N_REQUESTS = 6, N_TOKENS = 30 };

static runnel_sampling plain_sampling(float temperature)
{
    return (runnel_sampling){.size = sizeof(runnel_sampling),
                             .temperature = temperature,
                             .top_p = 1,
                             .repetition_penalty = 1,
                             .penalty_window = -1};
}

/* Where nothing is left to chance the drawn token has probability 1, and whatever was told before is forgotten. */
static void greedy_draws_are_certain(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(N_VOCAB, &s, NULL), 0);
    float logits[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++)
        logits[i] = (float)(i * 29 % N_VOCAB) * 0.05f;
    struct sampler_context context = {0};
    struct sampler_choice told[RUNNEL_LOGPROBS_MAX + 1];
    for (int i = 0; i < 3; i++) {
        int32_t token;
        runnel_sampling warm = plain_sampling(2), p = plain_sampling(i == 1 ? 1 : 0);
        p.top_k = i == 1;
        p.presence_penalty = i == 2 ? 0.5f : 0;
        assert_int_equal(sampler_draw(s, &warm, &context, logits, &token, NULL, NULL), 0);
        assert_int_equal(sampler_tell(s, token, 5, told), 6);
        assert_true(told[1].logprob < 0);
        assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
        assert_int_equal(sampler_tell(s, token, 5, told), 2);
        assert_true(told[0].token == token && told[0].logprob == 0);
        assert_true(told[1].token == token && told[1].logprob == 0);
        int32_t other = token ? 0 : 1;
        assert_int_equal(sampler_tell(s, other, 0, told), 1);
        assert_true(told[0].token == other && told[0].logprob == -INFINITY);
    }
    sampler_free(s);
}

/* Of equals the lower ids are told, and what temperature makes impossible is not. */
static void ties_are_told_in_the_order_of_ids(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(6, &s, NULL), 0);
    const float logits[6] = {1, 3, 3, 1, 3, -200};
    struct sampler_context context = {0};
    struct sampler_choice told[RUNNEL_LOGPROBS_MAX + 1];
    runnel_sampling p = plain_sampling(1);
    int32_t token;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(sampler_tell(s, 4, 4, told), 5);
    assert_true(told[1].token == 1 && told[2].token == 2 && told[3].token == 4 && told[4].token == 0);
    assert_true(told[1].logprob == told[3].logprob && told[0].logprob == told[3].logprob);
    assert_int_equal(sampler_tell(s, 5, 20, told), 6); /* not the last, which no draw can reach */
    assert_true(told[0].logprob == -INFINITY);
    sampler_free(s);
}

struct told {
    int32_t ids[N_TOKENS];
    size_t n, n_least, n_most; /* tokens; alternatives that one had */
    bool any_between;          /* a probability between 0 and 1 */
};

static bool note_token(void *user, const runnel_event *event)
{
    struct told *told = user;
    if (event->kind != RUNNEL_EVENT_TOKEN)
        return true;
    assert_true(told->n < N_TOKENS);
    told->ids[told->n++] = event->logprobs[0].token;
    return true;
}

/* Of a request that keeps fewer tokens than it asks to be told. */
static bool note_probabilities(void *user, const runnel_event *event)
{
    struct told *told = user;
    double sum = 0;
    bool is_listed = false;
    if (event->kind != RUNNEL_EVENT_TOKEN)
        return true;
    note_token(user, event);
    assert_true(event->n_logprobs >= 2 && event->logprobs[0].logprob <= 0);
    for (size_t i = 1; i < event->n_logprobs; i++) {
        const runnel_logprob *here = &event->logprobs[i];
        assert_true(i == 1 || here->logprob <= here[-1].logprob);
        sum += exp((double)here->logprob);
        is_listed = is_listed ||
                    (here->token == event->logprobs[0].token && here->logprob == event->logprobs[0].logprob);
    }
    assert_true(fabs(sum - 1) < 1e-6 && is_listed);
    size_t n = event->n_logprobs - 1;
    told->n_least = told->n == 1 || n < told->n_least ? n : told->n_least;
    told->n_most = n > told->n_most ? n : told->n_most;
    told->any_between = told->any_between || event->logprobs[0].logprob < 0;
    return true;
}

static const int top_k[N_REQUESTS] = {3, 1, 7, 0, 20, 2};

static runnel_request ask_for(const runnel_model *model, int i, struct told *told)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = "Why is the sky blue?";
    request.max_tokens = N_TOKENS;
    request.ignore_eos = true;
    *own_sampling(model, &request) = plain_sampling(top_k[i] ? 1.5f : 0);
    own_sampling(model, &request)->top_k = top_k[i];
    own_sampling(model, &request)->seed = (uint64_t)i;
    request.wants_tokens = true;
    request.on_event = note_token;
    request.user = told;
    return request;
}

/* They are those of each request's own draw, though the requests of a step share samplers; and asking for them changes no
 * token. */
static void each_request_is_told_its_own(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    runnel_model *model = tiny_engine_open(&options);
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 256, .n_parallel = N_REQUESTS});
    runnel_request requests[N_REQUESTS];
    runnel_response responses[N_REQUESTS] = {{.size = sizeof *responses}};
    struct told plain[N_REQUESTS] = {0}, told[N_REQUESTS] = {0};
    for (int i = 0; i < N_REQUESTS; i++) {
        requests[i] = ask_for(model, i, &plain[i]);
        requests[i].wants_sampled_probs = true; /* nothing without n_logprobs */
    }
    assert_int_equal(runnel_respond_many(engine, requests, N_REQUESTS, responses, NULL), RUNNEL_OK);
    for (int i = 0; i < N_REQUESTS; i++) {
        runnel_response_free(&responses[i]);
        requests[i].n_logprobs = 20;
        requests[i].on_event = note_probabilities;
        requests[i].user = &told[i];
    }
    assert_int_equal(runnel_respond_many(engine, requests, N_REQUESTS, responses, NULL), RUNNEL_OK);
    for (int i = 0; i < N_REQUESTS; i++) {
        size_t n_kept = top_k[i] ? (size_t)top_k[i] : 1;
        assert_true(plain[i].n == N_TOKENS && told[i].n == N_TOKENS);
        assert_memory_equal(told[i].ids, plain[i].ids, sizeof told[i].ids);
        assert_true(told[i].n_least == n_kept && told[i].n_most == n_kept);
        assert_true(told[i].any_between == (n_kept > 1));
        runnel_response_free(&responses[i]);
    }
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_draws_are_certain),
        cmocka_unit_test(ties_are_told_in_the_order_of_ids),
        cmocka_unit_test(each_request_is_told_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
