/* test_inbox.c: two workers, here in one process, one of which asks the other about a request: what comes back, and what does
 * not. What a request says to it is tested from outside (tests/server/test_thoughts.py). */
#include "server/core/inbox.h"

#include "server/core/job.h"
#include "server/core/server.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MESSAGES = 8 /* of a ring */ };

struct workers {
    struct shared *shared;
    struct server asking, asked;
};

/* One that notes its answer. */
struct question {
    struct inbox_question question;
    unsigned n_answers;
    uint32_t answer;
    bool is_late;
};

static void on_answer(struct inbox_question *asked, uint32_t answer, bool is_late)
{
    struct question *question = (struct question *)asked;
    question->n_answers++;
    question->answer = answer;
    question->is_late = is_late;
}

static void start(struct server *server, struct shared *shared, unsigned number)
{
    const struct loop_handlers handlers = {0};
    shared_join(&server->worker, shared, number);
    assert_int_equal(loop_create(&loop_default_limits, &handlers, &server->loop, NULL), 0);
    assert_int_equal(inbox_start(server, NULL), 0);
}

static int setup(void **state)
{
    struct workers *workers = calloc(1, sizeof *workers);
    assert_non_null(workers);
    assert_int_equal(shared_create(&workers->shared, NULL), 0);
    start(&workers->asking, workers->shared, 3);
    start(&workers->asked, workers->shared, 4);
    *state = workers;
    return 0;
}

static int teardown(void **state)
{
    struct workers *workers = *state;
    inbox_stop(&workers->asking);
    inbox_stop(&workers->asked);
    loop_free(workers->asking.loop);
    loop_free(workers->asked.loop);
    shared_free(workers->shared);
    free(workers);
    return 0;
}

/* Of request n of a worker. */
static struct record_id make_id(unsigned worker, unsigned n)
{
    return (struct record_id){.first = (uint64_t)n << 8 | worker, .rest = n};
}

static bool ask(struct workers *workers, struct question *question, unsigned worker, unsigned n)
{
    const struct record_id id = make_id(worker, n), asker = make_id(3, n);
    *question = (struct question){.question = {.on_answer = on_answer}};
    return inbox_ask_to_end_thoughts(&workers->asking, &question->question, &id, 0, &asker);
}

/* Until the asking worker has looked at its inbox once more. */
static void run_once(struct workers *workers)
{
    event_base_loop(loop_base(workers->asking.loop), EVLOOP_ONCE);
}

static void test_answers_reach_who_asked(void **state)
{
    struct workers *workers = *state;
    struct question questions[3];
    for (unsigned n = 0; n < 3; n++)
        assert_true(ask(workers, &questions[n], 4, n + 1));
    run_once(workers);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(questions[n].n_answers, 0);
    inbox_look(&workers->asked);
    while (workers->asking.inbox.waiting)
        run_once(workers);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(questions[n].n_answers, 1);
        assert_int_equal(questions[n].answer, JOB_CONTROL_UNKNOWN);
        assert_false(questions[n].is_late);
    }
}

static void test_an_answer_that_nobody_wants(void **state)
{
    struct workers *workers = *state;
    struct question questions[3];
    for (unsigned n = 0; n < 3; n++)
        assert_true(ask(workers, &questions[n], 4, n + 1));
    inbox_drop(&questions[1].question);
    memset(&questions[1], 0, sizeof questions[1]); /* as if it had been freed */
    inbox_look(&workers->asked);
    while (workers->asking.inbox.waiting)
        run_once(workers);
    assert_int_equal(questions[0].n_answers, 1);
    assert_int_equal(questions[1].n_answers, 0);
    assert_int_equal(questions[2].n_answers, 1);
}

static void test_nobody_is_asked(void **state)
{
    struct workers *workers = *state;
    struct question questions[MESSAGES + 1];
    assert_false(ask(workers, &questions[0], 5, 1));
    for (unsigned n = 0; n < MESSAGES; n++)
        assert_true(ask(workers, &questions[n], 4, n + 1));
    assert_false(ask(workers, &questions[MESSAGES], 4, MESSAGES + 1)); /* its inbox is full */
    inbox_look(&workers->asked);
    while (workers->asking.inbox.waiting)
        run_once(workers);
    for (unsigned n = 0; n <= MESSAGES; n++)
        assert_int_equal(questions[n].n_answers, n < MESSAGES);
}

/* Another one has its number at once, and does not know what was asked. */
static void test_the_worker_dies(void **state)
{
    struct workers *workers = *state;
    struct question question;
    assert_true(ask(workers, &question, 4, 1));
    shared_reap(workers->shared, 4);
    while (workers->asking.inbox.waiting)
        run_once(workers);
    assert_int_equal(question.n_answers, 1);
    assert_int_equal(question.answer, JOB_CONTROL_UNKNOWN);
    assert_false(question.is_late);
}

static void test_ids(void **state)
{
    (void)state;
    struct record_id id;
    static const char *const wrong[] = {"",
                                        "0123456789abcdef0123456",
                                        "0123456789abcdef012345678",
                                        "0123456789abcdeF01234567",
                                        "0x23456789abcdef01234567",
                                        " 123456789abcdef01234567"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(record_read_id(wrong[i], strlen(wrong[i]), &id));
    assert_true(record_read_id("fedcba9876543210ffffffff", 24, &id));
    assert_int_equal(id.first, UINT64_C(0xfedcba9876543210));
    assert_int_equal(id.rest, UINT32_MAX);
    assert_int_equal(record_worker(&id), 0x10);
    struct record record = {.number = id};
    assert_true(record_is(&record, &id));
    id.rest--;
    assert_false(record_is(&record, &id));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers_reach_who_asked), TEST(test_an_answer_that_nobody_wants),
        TEST(test_nobody_is_asked),         TEST(test_the_worker_dies),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
