/* test_quick_start.c: engines that start within milliseconds answer as others do, take the memory that was foretold, and have it soon
 * without anybody asking them anything. On a tiny model. */
#include "helpers/tiny_engine.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { KV_BYTES = 64 << 20, N_TOKENS = 40, TRIES = 3000 };

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    *state = model = tiny_engine_open(&options);
    return 0;
}

static uint64_t hash_of_answer(runnel_engine *engine)
{
    runnel_request request;
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    runnel_request_init(&request);
    request.prompt = "A prompt of some tokens, so that there are several pages of them";
    request.max_tokens = N_TOKENS;
    request.ignore_eos = request.wants_logits_hash = true;
    own_sampling(model, &request)->seed = 7;
    if (runnel_respond(engine, &request, &response, &error))
        fail_msg("%s", error.message);
    uint64_t hash = response.logits_hash;
    assert_int_equal(response.n_tokens, N_TOKENS);
    runnel_response_free(&response);
    return hash;
}

static runnel_stats_values stats_of(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    return stats;
}

/* This process's own memory, as the system counts it. */
static uint64_t own_bytes(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) && sscanf(line, "RssAnon: %llu kB", &kib) != 1)
        ;
    fclose(file);
    assert_true(kib > 0);
    return (uint64_t)kib << 10;
}

static void answers_are_the_same_with_and_without_a_warm_up(void **state)
{
    (void)state;
    runnel_engine *slow = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    runnel_engine *quick =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .quick_start = true});
    uint64_t hash = hash_of_answer(slow);
    assert_true(hash_of_answer(quick) == hash);
    assert_true(hash_of_answer(quick) == hash);
    assert_int_equal(runnel_engine_stop(slow), 0);
    assert_int_equal(runnel_engine_stop(quick), 0);
}

static void what_a_warm_up_took_is_handed_on(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    runnel_stats_values stats = stats_of(engine);
    assert_true(stats.warm_up_prompt_ms > 0 && stats.warm_up_token_ms > 0);
    assert_int_equal(runnel_engine_stop(engine), 0);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .quick_start = true});
    assert_true(stats_of(engine).warm_up_prompt_ms == 0 && stats_of(engine).warm_up_token_ms == 0);
    assert_int_equal(runnel_engine_stop(engine), 0);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512,
                                                              .quick_start = true,
                                                              .warm_up_prompt_ms = stats.warm_up_prompt_ms,
                                                              .warm_up_token_ms = stats.warm_up_token_ms});
    runnel_stats_values handed_on = stats_of(engine);
    assert_true(handed_on.warm_up_prompt_ms == stats.warm_up_prompt_ms);
    assert_true(handed_on.warm_up_token_ms == stats.warm_up_token_ms);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

/* A token that takes a minute: a request with a limit would wait longer. */
static void what_was_handed_on_is_expected(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512,
                                                                             .max_wait_ms = 1000,
                                                                             .quick_start = true,
                                                                             .warm_up_prompt_ms = 60000,
                                                                             .warm_up_token_ms = 60000});
    runnel_request requests[2];
    runnel_response responses[2] = {{.size = sizeof *responses}};
    runnel_error error;
    for (int i = 0; i < 2; i++) {
        runnel_request_init(&requests[i]);
        requests[i].prompt = "a";
        requests[i].max_tokens = 100;
    }
    assert_int_equal(runnel_respond_many(engine, requests, 2, responses, &error), RUNNEL_ESLOW);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

static void an_idle_engine_brings_its_memory_in(void **state)
{
    (void)state;
    const runnel_engine_options options = {.n_context = 512, .n_kv_bytes = KV_BYTES, .quick_start = true};
    uint64_t before = own_bytes(), hash = 0;
    runnel_engine *engine = tiny_engine_start(model, options);
    hash = hash_of_answer(engine); /* beside it */
    for (int i = 0; own_bytes() - before < KV_BYTES; i++) {
        if (i == TRIES)
            fail_msg("of %d bytes only %llu came", KV_BYTES, (unsigned long long)(own_bytes() - before));
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    while (stats_of(engine).n_kv_bytes_to_touch) /* as soon as it is told; else the test hangs */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(hash_of_answer(engine) == hash);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

static void bytes_are_foretold(void **state)
{
    (void)state;
    runnel_engine_options options;
    uint64_t n_bytes = 0, n_more = 0;
    runnel_error error;
    runnel_engine_options_init(&options);
    options.n_context = 512;
    options.n_kv_bytes = KV_BYTES;
    assert_int_equal(runnel_engine_bytes(model, &options, &n_bytes, &error), RUNNEL_OK);
    runnel_engine *engine = tiny_engine_start(model, options);
    assert_in_range(n_bytes, stats_of(engine).n_kv_bytes + 1, 2 * (uint64_t)KV_BYTES);
    assert_int_equal(stats_of(engine).n_kv_bytes_to_touch, 0);
    assert_int_equal(runnel_engine_stop(engine), 0);
    options.n_batch = 2048;
    assert_int_equal(runnel_engine_bytes(model, &options, &n_more, &error), RUNNEL_OK);
    assert_true(n_more > n_bytes); /* scratch */
    options.n_kv_bytes = 1;
    assert_int_equal(runnel_engine_bytes(model, &options, &n_bytes, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "n_kv_bytes"));
}

static void without_room_it_does_not_start(void **state)
{
    (void)state;
    const runnel_engine_options options = {
        .size = sizeof options, .n_kv_bytes = UINT64_C(1) << 44, .quick_start = true};
    runnel_engine *engine = NULL;
    runnel_error error;
    assert_int_equal(runnel_engine_start(model, &options, &engine, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "its KV cache 16777216 MiB of them: expected at most the "));
    assert_null(engine);
}

static int count_threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    int n = 0;
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder));)
        n += *entry->d_name != '.';
    closedir(folder);
    return n;
}

static void an_engine_may_have_threads_of_its_own_number(void **state)
{
    (void)state;
    uint64_t hashes[2];
    int n_threads[2];
    for (int i = 0; i < 2; i++) {
        runnel_engine *engine =
            tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_threads = i ? 4 : 1});
        n_threads[i] = count_threads();
        hashes[i] = hash_of_answer(engine);
        assert_int_equal(runnel_engine_stop(engine), 0);
    }
    assert_int_equal(n_threads[1] - n_threads[0], 3);
    assert_true(hashes[0] == hashes[1]);
    runnel_engine_options options = {.size = sizeof options, .n_threads = 257};
    runnel_engine *engine;
    runnel_error error;
    assert_int_equal(runnel_engine_start(model, &options, &engine, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "n_threads: 257, expected 1 to 256");
    options = (runnel_engine_options){.size = sizeof options, .warm_up_token_ms = -1};
    assert_int_equal(runnel_engine_start(model, &options, &engine, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "warm_up_token_ms: -1, expected 0 or more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same_with_and_without_a_warm_up),
        cmocka_unit_test(what_a_warm_up_took_is_handed_on),
        cmocka_unit_test(what_was_handed_on_is_expected),
        cmocka_unit_test(an_idle_engine_brings_its_memory_in),
        cmocka_unit_test(bytes_are_foretold),
        cmocka_unit_test(without_room_it_does_not_start),
        cmocka_unit_test(an_engine_may_have_threads_of_its_own_number),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
