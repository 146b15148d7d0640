/* test_next.c: events that are taken with runnel_next: the same as on_event is told, in the same order, on the caller's
 * thread; what the descriptor says; cancelling, freeing and stopping in between. On a tiny model that thinks. */
#include "helpers/tiny_engine.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HANGS_MS = 60000, TOLD_BYTES = 1 << 16 };

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    options.chat = "r1";
    *state = model = tiny_engine_open(&options);
    return 0;
}

static runnel_engine *start_engine(void)
{
    return tiny_engine_start(model, (runnel_engine_options){.n_context = 1024, .n_parallel = 2});
}

static runnel_request ask_for(int max_tokens)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = "Why is the sky blue?";
    request.max_tokens = max_tokens;
    request.thinking_budget = 5;
    request.ignore_eos = true;
    request.n_logprobs = 2;
    request.wants_counts = true;
    request.wants_progress = true;
    return request;
}

/* All that events say, as text. Of progress what it comes to: into how many steps a prompt is divided depends on their time. */
struct told {
    char text[TOLD_BYTES];
    size_t len;
    unsigned n_progress, n_computed;
};

static void tell(struct told *told, const runnel_event *event)
{
    if (event->kind == RUNNEL_EVENT_PROMPT) {
        told->n_progress++;
        assert_in_range(event->counts->n_computed_tokens, told->n_computed, UINT32_MAX);
        told->n_computed = event->counts->n_computed_tokens;
        return;
    }
    int room = (int)(sizeof told->text - told->len);
    char *place = told->text + told->len;
    int n =
        snprintf(place, (size_t)room, "%d '%s' %d", (int)event->kind, event->text, (int)event->finish_reason);
    for (size_t i = 0; i < event->n_logprobs; i++)
        n += snprintf(place + n, (size_t)(room - n), " %d %.6f %zu", event->logprobs[i].token,
                      (double)event->logprobs[i].logprob, event->logprobs[i].n_bytes);
    if (event->counts)
        n += snprintf(place + n, (size_t)(room - n), " %u of %u '%s' '%s'", event->counts->n_tokens,
                      event->counts->n_computed_tokens, event->counts->text ? event->counts->text : "",
                      event->counts->reasoning ? event->counts->reasoning : "");
    n += snprintf(place + n, (size_t)(room - n), "\n");
    assert_in_range(n, 1, room - 1);
    told->len += (size_t)n;
}

static bool on_event(void *user, const runnel_event *event)
{
    tell(user, event);
    return true;
}

static void the_same_events(void **state)
{
    (void)state;
    static struct told called, taken;
    runnel_engine *engine = start_engine();
    runnel_request request = ask_for(40);
    runnel_response response = {.size = sizeof response};
    runnel_event event = {.size = sizeof event};
    runnel_future *future;
    called = taken = (struct told){0};
    request.on_event = on_event;
    request.user = &called;
    request.key = 1; /* of another cache */
    assert_int_equal(runnel_respond(engine, &request, &response, NULL), RUNNEL_OK);
    runnel_response_free(&response);
    request.on_event = NULL;
    request.wants_events = true;
    request.key = 2;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_OK);
    assert_int_equal(runnel_next(future, &event, -1), RUNNEL_OK);
    assert_int_equal(event.kind, RUNNEL_EVENT_TAKEN);
    do {
        assert_int_equal(runnel_next(future, &event, -1), RUNNEL_OK);
        tell(&taken, &event);
    } while (event.kind != RUNNEL_EVENT_FINISH);
    assert_string_equal(taken.text, called.text);
    assert_true(taken.n_progress && called.n_progress && called.n_computed);
    assert_int_equal(taken.n_computed, called.n_computed);
    assert_true(strstr(called.text, "\n1 '") && strstr(called.text, "\n2 '") && strstr(called.text, "\n4 '"));

    assert_int_equal(runnel_next(future, &event, -1), RUNNEL_OK); /* and then none: it does not wait */
    assert_int_equal(event.kind, RUNNEL_EVENT_NONE);
    assert_int_equal(runnel_wait(future, &response, NULL), RUNNEL_OK);
    assert_true(response.text_len && response.reasoning_len);
    runnel_response_free(&response);
    runnel_free(future);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

/* A loop over several requests, as a server has it: none of them is asked before its descriptor says so. */
static void a_loop_over_descriptors(void **state)
{
    (void)state;
    enum { N = 4 };
    runnel_engine *engine = start_engine();
    runnel_request requests[N];
    runnel_future *futures[N];
    struct pollfd waits[N];
    int n_open = N, n_texts = 0;
    for (int i = 0; i < N; i++) {
        requests[i] = ask_for(20);
        requests[i].wants_events = true;
    }
    assert_int_equal(runnel_submit(engine, requests, N, futures, NULL), RUNNEL_OK);
    for (int i = 0; i < N; i++) {
        waits[i] = (struct pollfd){.fd = runnel_descriptor(futures[i]), .events = POLLIN};
        assert_true(waits[i].fd >= 0);
        assert_int_equal(runnel_descriptor(futures[i]), waits[i].fd);
    }
    while (n_open) {
        assert_true(poll(waits, N, HANGS_MS) > 0);
        for (int i = 0; i < N; i++) {
            runnel_event event = {.size = sizeof event};
            if (waits[i].fd < 0 || !waits[i].revents)
                continue;
            assert_int_equal(runnel_next(futures[i], &event, 0), RUNNEL_OK);
            assert_int_not_equal(event.kind, RUNNEL_EVENT_NONE);
            n_texts += event.kind == RUNNEL_EVENT_ANSWER;
            if (event.kind == RUNNEL_EVENT_FINISH) {
                waits[i].fd = -1;
                n_open--;
            }
        }
    }
    assert_true(n_texts > N);
    for (int i = 0; i < N; i++)
        runnel_free(futures[i]);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

static void count_ready(void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

static void cancelled_freed_and_stopped(void **state)
{
    (void)state;
    runnel_engine *engine = start_engine();
    runnel_request request = ask_for(900);
    runnel_event event = {.size = sizeof event};
    runnel_future *cancelled, *freed, *stopped;
    atomic_int n_ready;
    atomic_init(&n_ready, 0);
    request.wants_events = true;
    request.on_ready = count_ready;
    request.user = &n_ready;
    assert_int_equal(runnel_submit(engine, &request, 1, &cancelled, NULL), RUNNEL_OK);
    assert_int_equal(runnel_submit(engine, &request, 1, &freed, NULL), RUNNEL_OK);
    assert_int_equal(runnel_submit(engine, &request, 1, &stopped, NULL), RUNNEL_OK);
    assert_int_equal(runnel_next(cancelled, &event, -1), RUNNEL_OK);
    runnel_cancel(cancelled);
    while (event.kind != RUNNEL_EVENT_FINISH)
        assert_int_equal(runnel_next(cancelled, &event, -1), RUNNEL_OK);
    assert_int_equal(event.finish_reason, RUNNEL_FINISH_CANCELLED);
    assert_true(atomic_load(&n_ready) > 0);
    assert_int_equal(runnel_next(freed, &event, -1), RUNNEL_OK);
    runnel_free(freed); /* with events that nobody took */
    assert_int_equal(runnel_engine_stop(engine), 2);
    while (event.kind != RUNNEL_EVENT_FINISH)
        assert_int_equal(runnel_next(stopped, &event, 0),
                         RUNNEL_OK); /* all are there: nothing is waited for */
    assert_int_equal(event.finish_reason, RUNNEL_FINISH_CANCELLED);
    runnel_free(cancelled);
    runnel_free(stopped);
}

static void what_is_refused(void **state)
{
    (void)state;
    runnel_engine *engine = start_engine();
    runnel_request request = ask_for(1);
    runnel_event event = {.size = sizeof event};
    runnel_future *future;
    runnel_error error;
    request.on_event = on_event;
    request.wants_events = true;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "wants_events"));
    request.on_event = NULL;
    request.wants_events = false;
    request.on_ready = count_ready;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "on_ready"));
    request.on_ready = NULL;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_OK);
    assert_int_equal(runnel_next(future, &event, 0), RUNNEL_EINVAL); /* it has no events to be taken */
    assert_int_equal(runnel_descriptor(future), RUNNEL_EINVAL);
    runnel_free(future);
    request.wants_events = true;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_OK);
    event.size = 0;
    assert_int_equal(runnel_next(future, &event, 0), RUNNEL_EINVAL);
    runnel_free(future);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_events),
        cmocka_unit_test(a_loop_over_descriptors),
        cmocka_unit_test(cancelled_freed_and_stopped),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
