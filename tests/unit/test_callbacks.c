/* test_callbacks.c: what may be called from on_event, on_taken and on_logits, which run on the engine's own thread. What
 * would wait for that thread is refused, all else works there as it does elsewhere. On a tiny model; whatever hangs is ended
 * by a signal. */
#include "helpers/tiny_engine.h"

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { HANGS_S = 120 };

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    *state = model = tiny_engine_open(&options);
    alarm(HANGS_S);
    return 0;
}

static const int32_t some_ids[] = {5, 6, 7};

static runnel_request request_of(int max_tokens)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt_ids = some_ids;
    request.n_prompt_ids = 3;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.wants_tokens = true; /* an event for every token, whatever its text is */
    return request;
}

static runnel_engine *start_engine(void)
{
    return tiny_engine_start(model, (runnel_engine_options){.n_context = 1024, .n_parallel = 4});
}

/* What happens in a callback, once. */
struct scene {
    void (*play)(struct scene *scene);
    int at; /* a runnel_event_kind, or: */
#define AT_TAKEN 100
    sem_t submitted;   /* own is known */
    bool played;       /* the engine's thread's, until own is done */
    atomic_bool began; /* any thread's */
    runnel_engine *engine;
    runnel_future *own, *other;
    struct asker *asker;
    int results[16];
    size_t n_results;
    runnel_error error;
};

static void play(struct scene *scene, int at)
{
    if (at != scene->at || scene->played)
        return;
    sem_wait(&scene->submitted);
    scene->played = true;
    atomic_store(&scene->began, true);
    scene->play(scene);
}

static bool on_event(void *user, const runnel_event *event)
{
    play(user, (int)event->kind);
    return true;
}

static void on_taken(void *user)
{
    play(user, AT_TAKEN);
}

/* Submits a request in whose callback the scene is played. */
static void begin(struct scene *scene, int max_tokens)
{
    runnel_request request = request_of(max_tokens);
    request.on_event = on_event;
    request.on_taken = on_taken;
    request.user = scene;
    sem_init(&scene->submitted, 0, 0);
    if (runnel_submit(scene->engine, &request, 1, &scene->own, &scene->error))
        fail_msg("%s", scene->error.message);
    sem_post(&scene->submitted);
}

static void wait_for(runnel_future *future)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_wait(future, &response, &error))
        fail_msg("%s", error.message);
    runnel_response_free(&response);
}

/* Refused ------------------------------------------------------------------------------------------------- */

static bool never(void *user, size_t index, const float *logits)
{
    (void)user;
    (void)index;
    (void)logits;
    return false;
}

static bool never_inputs(void *user, const runnel_inputs *inputs)
{
    (void)user;
    (void)inputs;
    return false;
}

/* Everything that waits for the engine. */
static void call_what_waits(struct scene *scene)
{
    runnel_request request = request_of(1);
    runnel_response response = {.size = sizeof response};
    runnel_model_info info = {.size = sizeof info};
    char *text = NULL;
    runnel_model_get_info(model, &info);
    float *logits = malloc(info.n_vocab * sizeof *logits);
    int *results = scene->results;
    size_t n = 0;
    results[n++] = runnel_respond(scene->engine, &request, &response, &scene->error);
    results[n++] = runnel_respond_many(scene->engine, &request, 1, &response, &scene->error);
    results[n++] = runnel_respond_many(scene->engine, NULL, 0, NULL, &scene->error);
    results[n++] = runnel_generate(scene->engine, "a", 1, 0, &text, &scene->error);
    results[n++] = runnel_get_logits(scene->engine, "a", logits, info.n_vocab, &scene->error);
    results[n++] = runnel_logits_each(scene->engine, some_ids, 3, 0, never, NULL, &scene->error);
    results[n++] = runnel_inputs_each(scene->engine, some_ids, 3, 0, never_inputs, NULL, &scene->error);
    if (scene->own)
        results[n++] = runnel_wait(scene->own, &response, &scene->error);
    results[n++] = runnel_wait(scene->other, &response, &scene->error);
    results[n++] = runnel_engine_stop(scene->engine) == UINT_MAX ? RUNNEL_EINVAL : RUNNEL_OK;
    scene->n_results = n;
    free(logits);
}

static void expect_refusals(const struct scene *scene)
{
    assert_true(scene->played);
    assert_in_range(scene->n_results, 8, 16);
    for (size_t i = 0; i < scene->n_results; i++)
        if (scene->results[i] != RUNNEL_EINVAL)
            fail_msg("call %zu: %d, expected %d", i, scene->results[i], RUNNEL_EINVAL);
    assert_non_null(strstr(scene->error.message, "runnel_wait: called on the engine's own thread"));
}

static void what_waits_is_refused(void **state)
{
    (void)state;
    const int places[] = {RUNNEL_EVENT_TOKEN, RUNNEL_EVENT_FINISH, AT_TAKEN};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct scene scene = {.play = call_what_waits, .at = places[i], .engine = start_engine()};
        runnel_request long_one = request_of(900);
        assert_int_equal(runnel_submit(scene.engine, &long_one, 1, &scene.other, NULL), RUNNEL_OK);
        begin(&scene, 4);
        wait_for(scene.own); /* the engine goes on after all that */
        expect_refusals(&scene);
        runnel_free(scene.own);
        runnel_free(scene.other);
        assert_int_equal(runnel_engine_stop(scene.engine), 0);
    }
}

static bool play_at_logits(void *user, size_t index, const float *logits)
{
    (void)logits;
    struct scene *scene = user;
    if (index == 0) {
        scene->played = true;
        call_what_waits(scene);
    }
    return true;
}

static void what_waits_is_refused_in_on_logits(void **state)
{
    (void)state;
    struct scene scene = {.engine = start_engine()};
    runnel_request long_one = request_of(900);
    assert_int_equal(runnel_submit(scene.engine, &long_one, 1, &scene.other, NULL), RUNNEL_OK);
    assert_int_equal(runnel_logits_each(scene.engine, some_ids, 3, 0, play_at_logits, &scene, NULL),
                     RUNNEL_OK);
    expect_refusals(&scene);
    runnel_free(scene.other);
    assert_int_equal(runnel_engine_stop(scene.engine), 0);
}

/* Allowed ------------------------------------------------------------------------------------------------- */

static void call_what_does_not_wait(struct scene *scene)
{
    runnel_request request = request_of(3);
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_slot slots[4] = {{.size = sizeof *slots}};
    int32_t *ids = NULL;
    size_t n_ids = 0, n = 0;
    runnel_future *another = NULL, *freed = NULL;
    int *results = scene->results;
    results[n++] = runnel_submit(scene->engine, &request, 1, &another, &scene->error);
    results[n++] = runnel_submit(scene->engine, &request, 1, &freed, &scene->error);
    runnel_free(freed);
    results[n++] = runnel_poll(scene->own) ? RUNNEL_EINVAL : RUNNEL_OK;
    results[n++] = runnel_poll(another) ? RUNNEL_EINVAL : RUNNEL_OK;
    runnel_cancel(scene->other);
    runnel_stats(scene->engine, &stats);
    runnel_slots(scene->engine, slots, 4);
    results[n++] = runnel_tokenize(model, "ab", 2, false, &ids, &n_ids, &scene->error);
    runnel_tokens_free(ids);
    results[n++] = runnel_prompt_tokens(model, &request, &ids, &n_ids, &scene->error);
    runnel_tokens_free(ids);
    scene->n_results = n;
    runnel_free(scene->own);
    scene->own = another;
}

static void what_does_not_wait_works(void **state)
{
    (void)state;
    const int places[] = {RUNNEL_EVENT_TOKEN, RUNNEL_EVENT_FINISH, AT_TAKEN};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct scene scene = {.play = call_what_does_not_wait, .at = places[i], .engine = start_engine()};
        runnel_request long_one = request_of(900);
        runnel_response response = {.size = sizeof response};
        assert_int_equal(runnel_submit(scene.engine, &long_one, 1, &scene.other, NULL), RUNNEL_OK);
        begin(&scene, 4);
        /* The other one ends because it was cancelled; what was done in the callback is done then. */
        assert_int_equal(runnel_wait(scene.other, &response, NULL), RUNNEL_OK);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
        runnel_response_free(&response);
        runnel_free(scene.other);
        wait_for(scene.own); /* the one that was submitted in there: the first own was freed there */
        runnel_free(scene.own);
        assert_int_equal(scene.n_results, 6);
        for (size_t j = 0; j < scene.n_results; j++)
            assert_int_equal(scene.results[j], RUNNEL_OK);
        assert_int_equal(runnel_engine_stop(scene.engine), 0);
    }
}

static void wait_for_other(struct scene *scene)
{
    runnel_response response = {.size = sizeof response};
    scene->results[0] = runnel_wait(scene->other, &response, &scene->error);
    if (!scene->results[0])
        runnel_response_free(&response);
}

static void what_is_done_need_not_be_waited_for(void **state)
{
    (void)state;
    struct scene scene = {.play = wait_for_other, .at = RUNNEL_EVENT_TOKEN, .engine = start_engine()};
    runnel_request short_one = request_of(1);
    assert_int_equal(runnel_submit(scene.engine, &short_one, 1, &scene.other, NULL), RUNNEL_OK);
    while (!runnel_poll(scene.other))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    begin(&scene, 2);
    wait_for(scene.own);
    assert_true(scene.played);
    assert_int_equal(scene.results[0], RUNNEL_OK);
    runnel_free(scene.own);
    runnel_free(scene.other);
    assert_int_equal(runnel_engine_stop(scene.engine), 0);
}

/* Another engine's thread is not this one's. */
static void ask_the_other_engine(struct scene *scene)
{
    runnel_engine *second = start_engine();
    runnel_request request = request_of(2);
    runnel_response response = {.size = sizeof response};
    scene->results[0] = runnel_respond(second, &request, &response, &scene->error);
    if (!scene->results[0])
        runnel_response_free(&response);
    scene->results[1] = (int)runnel_engine_stop(second);
}

static void another_engine_can_be_asked(void **state)
{
    (void)state;
    struct scene scene = {.play = ask_the_other_engine, .at = RUNNEL_EVENT_TOKEN, .engine = start_engine()};
    begin(&scene, 2);
    wait_for(scene.own);
    assert_int_equal(scene.results[0], RUNNEL_OK);
    assert_int_equal(scene.results[1], 0);
    runnel_free(scene.own);
    assert_int_equal(runnel_engine_stop(scene.engine), 0);
}

/* Ends ---------------------------------------------------------------------------------------------------- */

/* Submits until the stop, which another thread has asked for or soon will, is why nothing is taken any more. */
static void submit_until_refused(struct scene *scene)
{
    runnel_request request = request_of(3);
    int failure = RUNNEL_OK;
    for (int i = 0; i < 30000 && failure != RUNNEL_ECANCELLED; i++) {
        runnel_future *future = NULL;
        failure = runnel_submit(scene->engine, &request, 1, &future, &scene->error);
        runnel_free(future);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    scene->results[0] = failure;
}

/* Nobody would take what is submitted while the engine ends its last requests. */
static void a_stopping_engine_takes_nothing(void **state)
{
    (void)state;
    struct scene scene = {.play = submit_until_refused, .at = RUNNEL_EVENT_TOKEN, .engine = start_engine()};
    begin(&scene, 900);
    while (!atomic_load(&scene.began))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(runnel_engine_stop(scene.engine), 1); /* own is still held */
    assert_int_equal(scene.results[0], RUNNEL_ECANCELLED);
    runnel_free(scene.own);
}

/* Another thread, that asks an engine which is being stopped. */
struct asker {
    runnel_engine *engine;
    pthread_t thread;
    atomic_bool has_asked; /* most likely */
    int logits_result, generate_result;
    char *text;
    runnel_error error;
};

static void *ask_for_logits(void *user)
{
    struct asker *asker = user;
    const int32_t id = 5;
    asker->logits_result = runnel_logits_each(asker->engine, &id, 1, 0, never, NULL, &asker->error);
    return NULL;
}

static void ask_for_logits_and_wait(struct scene *scene)
{
    pthread_create(&scene->asker->thread, NULL, ask_for_logits, scene->asker);
    pthread_join(scene->asker->thread, NULL);
}

/* The engine's thread has taken its last calls when it tells of the end: a call that comes then is refused, and nobody
 * waits for it. */
static void a_stopping_engine_takes_no_calls(void **state)
{
    (void)state;
    struct asker asker = {.engine = start_engine()};
    struct scene scene = {
        .play = ask_for_logits_and_wait, .at = RUNNEL_EVENT_FINISH, .engine = asker.engine, .asker = &asker};
    begin(&scene, 100000);
    assert_int_equal(runnel_engine_stop(scene.engine), 1); /* own is still held */
    assert_true(scene.played);
    assert_int_equal(asker.logits_result, RUNNEL_ECANCELLED);
    assert_non_null(strstr(asker.error.message, "being stopped"));
    runnel_free(scene.own);
}

static void *generate(void *user)
{
    struct asker *asker = user;
    asker->generate_result = runnel_generate(asker->engine, "a", 0, 0, &asker->text, &asker->error);
    return NULL;
}

static void generate_until_stopped(struct scene *scene)
{
    pthread_create(&scene->asker->thread, NULL, generate, scene->asker);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    atomic_store(&scene->asker->has_asked, true);
    submit_until_refused(scene);
}

/* runnel_generate has no finish reason: half a text, or none, must not look like an answer. One that asks after the stop
 * has begun is refused with the same code. */
static void a_stopped_text_is_an_error(void **state)
{
    (void)state;
    struct asker asker = {.engine = start_engine()};
    struct scene scene = {
        .play = generate_until_stopped, .at = RUNNEL_EVENT_TOKEN, .engine = asker.engine, .asker = &asker};
    begin(&scene, 900);
    while (!atomic_load(&asker.has_asked))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    runnel_engine_stop(scene.engine);
    pthread_join(asker.thread, NULL);
    assert_int_equal(asker.generate_result, RUNNEL_ECANCELLED);
    assert_null(asker.text);
    assert_non_null(strstr(asker.error.message, "being stopped"));
    runnel_free(scene.own);
}

static void close_the_model(struct scene *scene)
{
    (void)scene;
    runnel_model_close(model);
}

/* An engine keeps its model: closing it, in a callback or elsewhere, gives its memory back once the engine has stopped. */
static void a_model_closed_under_its_engine(void **state)
{
    (void)state;
    runnel_model *shared = model;
    struct tiny_model_options options = tiny_engine_model();
    model = tiny_engine_open(&options);
    struct scene scene = {.play = close_the_model, .at = RUNNEL_EVENT_TOKEN, .engine = start_engine()};
    begin(&scene, 50);
    wait_for(scene.own);
    runnel_free(scene.own);
    model = shared;
    assert_true(scene.played);
    char *text = NULL;
    assert_int_equal(runnel_generate(scene.engine, "a", 3, 0, &text, NULL), RUNNEL_OK);
    runnel_text_free(text);
    assert_int_equal(runnel_engine_stop(scene.engine), 0);
}

static void look_at_counts(struct scene *scene)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(scene->engine, &stats);
    scene->results[0] = (int)stats.n_prompt_tokens;
    scene->results[1] = (int)stats.n_generated_tokens;
}

static void who_hears_of_an_end_finds_it_counted(void **state)
{
    struct scene scene = {.play = look_at_counts, .at = RUNNEL_EVENT_FINISH, .engine = start_engine()};
    (void)state;
    begin(&scene, 5);
    wait_for(scene.own);
    runnel_free(scene.own);
    assert_true(scene.played);
    assert_int_equal(scene.results[0], 3);
    assert_int_equal(scene.results[1], 5);
    assert_int_equal(runnel_engine_stop(scene.engine), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_is_refused),
        cmocka_unit_test(what_waits_is_refused_in_on_logits),
        cmocka_unit_test(what_does_not_wait_works),
        cmocka_unit_test(what_is_done_need_not_be_waited_for),
        cmocka_unit_test(who_hears_of_an_end_finds_it_counted),
        cmocka_unit_test(another_engine_can_be_asked),
        cmocka_unit_test(a_stopping_engine_takes_nothing),
        cmocka_unit_test(a_stopping_engine_takes_no_calls),
        cmocka_unit_test(a_stopped_text_is_an_error),
        cmocka_unit_test(a_model_closed_under_its_engine),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
