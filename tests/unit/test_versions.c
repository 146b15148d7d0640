/* test_versions.c: callers that were built against another header of the same soname: their structs are shorter or longer
 * than the library's, alone and in arrays. On a tiny model. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MORE = 24 /* bytes that a later header has behind a struct */, N = 3, GARBAGE = 0x5a };

static runnel_model *model;
static runnel_engine *engine;

static int start(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    model = tiny_engine_open(&options);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256, .n_parallel = N});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(runnel_engine_stop(engine), 0);
    runnel_model_close(model);
    return 0;
}

static const int32_t ids[] = {5, 6, 7};

/* n elements of size bytes, full of garbage, with as much behind the last one. */
static char *make_array(size_t n, size_t size)
{
    char *memory = malloc((n + 1) * size);
    assert_non_null(memory);
    memset(memory, GARBAGE, (n + 1) * size);
    return memory;
}

static void assert_garbage(const char *memory, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(memory[i], GARBAGE);
}

/* A request as a caller has it whose runnel_request is size bytes long. */
static void fill_request(char *place, size_t size, int max_tokens)
{
    runnel_request_init_sized(place, size);
    runnel_request request = {.size = 0};
    memcpy(&request, place, size < sizeof request ? size : sizeof request);
    assert_int_equal(request.size, size);
    assert_int_equal(request.n_logprobs, -1);
    request.prompt_ids = ids;
    request.n_prompt_ids = 3;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    memcpy(place, &request, size < sizeof request ? size : sizeof request);
}

/* Requests and responses in steps of another length; the middle one asks for something else, so that it is known. */
static void ask(size_t request_size, size_t response_size)
{
    char *requests = make_array(N, request_size), *responses = make_array(N, response_size);
    runnel_error error;
    for (int i = 0; i < N; i++)
        fill_request(requests + (size_t)i * request_size, request_size, i == 1 ? 7 : 3);
    assert_garbage(requests + N * request_size, request_size);
    memcpy(responses, &response_size, sizeof response_size);
    if (runnel_respond_many(engine, (const runnel_request *)requests, N, (runnel_response *)responses,
                            &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < N; i++) {
        const char *place = responses + (size_t)i * response_size;
        runnel_response response = {.size = 0};
        memcpy(&response, place, response_size < sizeof response ? response_size : sizeof response);
        assert_int_equal(response.size, response_size);
        assert_int_equal(response.n_tokens, i == 1 ? 7 : 3);
        for (size_t at = sizeof response; at < response_size; at++)
            assert_int_equal(place[at], 0); /* what this library does not know is zero, not garbage */
        runnel_response_free(&response);
    }
    assert_garbage(responses + N * response_size, response_size);
    free(requests);
    free(responses);
}

static void requests_and_responses(void **state)
{
    (void)state;
    const size_t short_request = offsetof(runnel_request, encoded),
                 short_response = offsetof(runnel_response, n_preempted);
    ask(sizeof(runnel_request), sizeof(runnel_response));
    ask(sizeof(runnel_request) + MORE, sizeof(runnel_response) + MORE);
    ask(short_request / 8 * 8, short_response / 8 * 8);
}

static void sizes_that_differ_are_refused(void **state)
{
    (void)state;
    runnel_request requests[2];
    runnel_response responses[2] = {{.size = sizeof *responses}};
    runnel_error error;
    for (int i = 0; i < 2; i++)
        fill_request((char *)&requests[i], sizeof *requests, 1);
    requests[1].size -= 8;
    assert_int_equal(runnel_respond_many(engine, requests, 2, responses, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "requests[1].size"));
    requests[0].size = 0;
    assert_int_equal(runnel_respond(engine, requests, responses, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "runnel_request.size: 0"));
    fill_request((char *)requests, sizeof *requests, 1);
    responses->size = 0;
    assert_int_equal(runnel_respond(engine, requests, responses, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "runnel_response.size: 0"));
}

/* No struct has such a size, whose steps would leave the elements of an array between the places for their fields. */
static void sizes_that_no_struct_has_are_refused(void **state)
{
    (void)state;
    _Alignas(8) char requests[64] = {0};
    const size_t odd = sizeof odd + 1;
    runnel_future *futures[2];
    runnel_error error;
    memcpy(requests, &odd, sizeof odd);
    memcpy(requests + odd, &odd, sizeof odd);
    assert_int_equal(runnel_submit(engine, (const runnel_request *)requests, 2, futures, &error),
                     RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "runnel_request.size: 9"));
    runnel_slot slots[3];
    memset(slots, GARBAGE, sizeof slots);
    runnel_slots(engine, slots, 3);
    assert_garbage((const char *)slots, sizeof slots);
    char *large = make_array(1, 8192);
    *(size_t *)large = 8192;
    runnel_model_get_info(model, (runnel_model_info *)large);
    assert_garbage(large + sizeof(size_t), 8192 - sizeof(size_t));
    free(large);
}

static void options_and_sampling(void **state)
{
    (void)state;
    const size_t sizes[] = {offsetof(runnel_sampling, seed), sizeof(runnel_sampling),
                            sizeof(runnel_sampling) + MORE};
    runnel_sampling known;
    runnel_sampling_init(model, &known);
    for (size_t i = 0; i < 3; i++) {
        char *sampling = make_array(1, sizes[i]);
        runnel_sampling read = {.size = 0};
        runnel_request request;
        runnel_response response = {.size = sizeof response};
        runnel_sampling_init_sized(model, sampling, sizes[i]);
        assert_garbage(sampling + sizes[i], sizes[i]);
        memcpy(&read, sampling, sizes[i] < sizeof read ? sizes[i] : sizeof read);
        assert_true(read.temperature == known.temperature && read.penalty_window == known.penalty_window);
        fill_request((char *)&request, sizeof request, 1);
        request.sampling = (const runnel_sampling *)sampling;
        assert_int_equal(runnel_respond(engine, &request, &response, NULL), RUNNEL_OK);
        runnel_response_free(&response);
        free(sampling);
    }
    char *options = make_array(1, sizeof(runnel_engine_options) + MORE);
    runnel_engine *other = NULL;
    runnel_engine_options_init_sized(options, sizeof(runnel_engine_options) + MORE);
    ((runnel_engine_options *)options)->n_context = 64;
    assert_int_equal(runnel_engine_start(model, (runnel_engine_options *)options, &other, NULL), RUNNEL_OK);
    runnel_engine_stop(other);
    free(options);
}

static void slots_and_events(void **state)
{
    (void)state;
    const size_t sizes[] = {offsetof(runnel_slot, n_tokens), sizeof(runnel_slot) + MORE};
    for (size_t i = 0; i < 2; i++) {
        char *slots = make_array(N + 1, sizes[i]);
        memcpy(slots, &sizes[i], sizeof sizes[i]);
        runnel_slots(engine, (runnel_slot *)slots, N + 1);
        for (size_t j = 0; j < N + 1; j++)
            assert_int_equal(*(const size_t *)(slots + j * sizes[i]), sizes[i]);
        assert_garbage(slots + (N + 1) * sizes[i], sizes[i]);
        free(slots);
    }
    const size_t short_event = offsetof(runnel_event, error);
    char *event = make_array(1, short_event);
    runnel_request request;
    runnel_future *future;
    fill_request((char *)&request, sizeof request, 1);
    request.wants_events = true;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_OK);
    memcpy(event, &short_event, sizeof short_event);
    assert_int_equal(runnel_next(future, (runnel_event *)event, -1), RUNNEL_OK);
    assert_int_equal(((runnel_event *)event)->kind, RUNNEL_EVENT_TAKEN);
    assert_garbage(event + short_event, short_event);
    runnel_free(future);
    free(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_responses),
        cmocka_unit_test(sizes_that_differ_are_refused),
        cmocka_unit_test(sizes_that_no_struct_has_are_refused),
        cmocka_unit_test(options_and_sampling),
        cmocka_unit_test(slots_and_events),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
