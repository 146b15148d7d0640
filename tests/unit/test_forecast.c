/* test_forecast.c: what the engine teaches the scheduler's forecast. Its predictions on a machine that is made up:
 * test_scheduler_forecasts.c. */
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    *state = model = tiny_engine_open(&options);
    return 0;
}

static void read_stats(struct runnel_engine *engine, void *arg)
{
    scheduler_get_stats(engine->scheduler, arg);
}

/* The mean length of answers as the engine's scheduler knows it after n answers of max_tokens at most; with ends, the
 * model's end token is what it draws first. */
static double learn_length(size_t n, int max_tokens, bool ends)
{
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 128});
    size_t n_ends;
    const runnel_logit_bias bias = {.token = tokenizer_ends(model->tokenizer, &n_ends)[0], .bias = 1e6f};
    assert_true(n_ends > 0);
    const int32_t ids[] = {5, 6, 7};
    runnel_request request;
    runnel_request_init(&request);
    request.prompt_ids = ids;
    request.n_prompt_ids = sizeof ids / sizeof *ids;
    request.max_tokens = max_tokens;
    request.ignore_eos = !ends;
    if (ends) {
        own_sampling(model, &request)->logit_bias = &bias;
        own_sampling(model, &request)->n_logit_bias = 1;
    }
    for (size_t i = 0; i < n; i++) {
        runnel_future *future;
        runnel_response response = {.size = sizeof response};
        runnel_error error;
        if (runnel_submit(engine, &request, 1, &future, &error))
            fail_msg("%s", error.message);
        assert_int_equal(runnel_wait(future, &response, &error), RUNNEL_OK);
        assert_int_equal(response.n_tokens, ends ? 1 : max_tokens);
        runnel_response_free(&response);
        runnel_free(future);
    }
    struct scheduler_stats stats;
    assert_int_equal(engine_call(engine, read_stats, &stats, NULL), RUNNEL_OK);
    runnel_engine_stop(engine);
    return stats.answer_tokens;
}

static void answers_teach_their_length(void **state)
{
    (void)state;
    double begin = learn_length(0, 1, false), shorter = learn_length(100, 4, false);
    assert_true(begin > 100);
    if (shorter < 3.9 || shorter > 5)
        fail_msg("100 answers of 4 tokens: %.2f are expected", shorter);
}

static void answers_of_one_token_teach_too(void **state)
{
    (void)state;
    double at_limit = learn_length(100, 1, false), at_end = learn_length(100, 100, true);
    if (at_limit > 2 || at_end > 2)
        fail_msg(
            "100 answers of one token: %.2f are expected where it was the limit, %.2f where it was the end",
            at_limit, at_end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_teach_their_length),
        cmocka_unit_test(answers_of_one_token_teach_too),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
