/* test_mailbox.c: events put in by one thread and taken out by another: in order, as copies, the end always; and what the
 * descriptor and on_ready say meanwhile. */
#include "engine/mailbox.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { POOL_BYTES = 1 << 20, HANGS_MS = 60000, N_SENT = 20000 };

struct scene {
    struct pool *pool;
    struct mailbox mailbox;
    int n_ready;
};

static void on_ready(void *user)
{
    struct scene *scene = user;
    scene->n_ready++;
}

static int open_scene(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    runnel_error error;
    if (!scene || pool_create(POOL_BYTES, &scene->pool, &error))
        return -1;
    mailbox_open(&scene->mailbox, scene->pool, on_ready, scene);
    *state = scene;
    return 0;
}

/* Nothing that was put in is left in the pool, whether it was taken or not. */
static int close_scene(void **state)
{
    struct scene *scene = *state;
    mailbox_close(&scene->mailbox);
    uint64_t n_left = pool_free(scene->pool, NULL);
    free(scene);
    return n_left ? -1 : 0;
}

static void put_text(struct mailbox *mailbox, const char *text)
{
    const runnel_event event = {.kind = RUNNEL_EVENT_ANSWER, .text = text, .text_len = strlen(text)};
    assert_true(mailbox_put(mailbox, &event));
}

static void put_end(struct mailbox *mailbox)
{
    const runnel_event event = {.kind = RUNNEL_EVENT_FINISH, .text = "", .finish_reason = RUNNEL_FINISH_STOP};
    mailbox_put_end(mailbox, &event);
}

static bool is_readable(struct mailbox *mailbox)
{
    struct pollfd poll_fd = {.fd = mailbox_descriptor(mailbox), .events = POLLIN};
    assert_true(poll_fd.fd >= 0);
    return poll(&poll_fd, 1, 0) == 1;
}

static void assert_text(const runnel_event *event, const char *text)
{
    assert_non_null(event);
    assert_int_equal(event->kind, RUNNEL_EVENT_ANSWER);
    assert_string_equal(event->text, text);
    assert_int_equal(event->text_len, strlen(text));
}

static void test_takes_in_order_and_ends(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    put_text(mailbox, "one");
    put_text(mailbox, "two");
    put_end(mailbox);
    assert_text(mailbox_take(mailbox, 0), "one");
    assert_text(mailbox_take(mailbox, -1), "two");
    assert_int_equal(mailbox_take(mailbox, -1)->kind, RUNNEL_EVENT_FINISH);
    assert_null(mailbox_take(mailbox, -1)); /* nothing comes any more: it does not wait */
}

static void test_copies_what_an_event_points_to(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    char text[] = "text", first[] = "ab", second[] = "c";
    runnel_logprob logprobs[2] = {{.token = 7, .logprob = -1, .bytes = first, .n_bytes = 2},
                                  {.token = 8, .logprob = -2, .bytes = second, .n_bytes = 1}};
    runnel_response counts = {.n_tokens = 5};
    const runnel_event event = {.kind = RUNNEL_EVENT_TOKEN,
                                .text = text,
                                .text_len = 4,
                                .logprobs = logprobs,
                                .n_logprobs = 2,
                                .counts = &counts};
    assert_true(mailbox_put(mailbox, &event));
    memset(text, 'x', 4);
    first[0] = second[0] = 'x';
    memset(logprobs, 0, sizeof logprobs);
    counts.n_tokens = 0;
    const runnel_event *taken = mailbox_take(mailbox, 0);
    assert_string_equal(taken->text, "text");
    assert_int_equal(taken->n_logprobs, 2);
    assert_int_equal(taken->logprobs[0].token, 7);
    assert_string_equal(taken->logprobs[0].bytes, "ab");
    assert_int_equal(taken->logprobs[1].token, 8);
    assert_string_equal(taken->logprobs[1].bytes, "c");
    assert_int_equal(taken->counts->n_tokens, 5);
}

static void test_gives_nothing_while_nothing_waits(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    assert_null(mailbox_take(mailbox, 0));
    assert_null(mailbox_take(mailbox, 1));
    put_text(mailbox, "late");
    assert_text(mailbox_take(mailbox, 1), "late");
}

static void test_says_when_something_waits(void **state)
{
    struct scene *scene = *state;
    struct mailbox *mailbox = &scene->mailbox;
    put_text(mailbox, "before anybody asked for a descriptor");
    assert_true(is_readable(mailbox));
    assert_int_equal(scene->n_ready, 1);
    put_text(mailbox, "more");
    assert_int_equal(scene->n_ready, 1);
    mailbox_take(mailbox, 0);
    assert_true(is_readable(mailbox));
    mailbox_take(mailbox, 0);
    assert_false(is_readable(mailbox));
    put_text(mailbox, "again");
    assert_true(is_readable(mailbox));
    assert_int_equal(scene->n_ready, 2);
    mailbox_take(mailbox, 0);
    put_end(mailbox);
    assert_true(is_readable(mailbox));
    assert_int_equal(scene->n_ready, 3);
    mailbox_take(mailbox, 0);
    assert_false(is_readable(mailbox));
}

/* Memory runs out: that is said, what is there stays, and the end comes all the same. */
static void test_ends_without_memory(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    char *long_text = malloc(POOL_BYTES);
    assert_non_null(long_text);
    memset(long_text, 'a', POOL_BYTES);
    const runnel_event event = {.kind = RUNNEL_EVENT_ANSWER, .text = long_text, .text_len = POOL_BYTES};
    put_text(mailbox, "small");
    assert_false(mailbox_put(mailbox, &event));
    put_end(mailbox);
    free(long_text);
    assert_text(mailbox_take(mailbox, 0), "small");
    assert_int_equal(mailbox_take(mailbox, 0)->kind, RUNNEL_EVENT_FINISH);
}

static void test_frees_what_nobody_took(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    put_text(mailbox, "one");
    put_text(mailbox, "two");
    put_text(mailbox, "three");
    assert_text(mailbox_take(mailbox, 0), "one");
} /* close_scene counts */

static void *send_all(void *user)
{
    struct mailbox *mailbox = user;
    for (int i = 0; i < N_SENT; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        const runnel_event event = {.kind = RUNNEL_EVENT_ANSWER, .text = text, .text_len = strlen(text)};
        while (!mailbox_put(mailbox, &event))
            poll(NULL, 0, 1); /* the pool is full until the other one has taken some */
    }
    put_end(mailbox);
    return NULL;
}

/* One thread waits by the descriptor as an event loop does, the other one writes: nothing is lost and nobody sleeps on
 * while something waits. */
static void test_between_threads(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    struct pollfd poll_fd = {.fd = mailbox_descriptor(mailbox), .events = POLLIN};
    pthread_t thread;
    bool ended = false;
    int n = 0;
    assert_int_equal(pthread_create(&thread, NULL, send_all, mailbox), 0);
    while (!ended) {
        const runnel_event *event;
        assert_int_equal(poll(&poll_fd, 1, HANGS_MS), 1);
        while ((event = mailbox_take(mailbox, 0))) {
            ended = event->kind == RUNNEL_EVENT_FINISH;
            if (!ended)
                assert_int_equal(atoi(event->text), n++);
        }
    }
    pthread_join(thread, NULL);
    assert_int_equal(n, N_SENT);
}

static void *take_until_end(void *user)
{
    struct mailbox *mailbox = user;
    const runnel_event *event;
    while ((event = mailbox_take(mailbox, -1)) && event->kind != RUNNEL_EVENT_FINISH)
        ;
    return NULL;
}

/* Two threads take, which the header forbids: their events are spoilt, but neither sleeps for ever once the end was taken. */
static void test_wakes_all_at_the_end(void **state)
{
    struct mailbox *mailbox = &((struct scene *)*state)->mailbox;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_until_end, mailbox), 0);
    poll(NULL, 0, 50); /* so that both wait; one that comes later passes as well */
    put_end(mailbox);
    alarm(HANGS_MS / 1000); /* ends the test if one sleeps on */
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    alarm(0);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, open_scene, close_scene)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(test_takes_in_order_and_ends),
        SCENE(test_copies_what_an_event_points_to),
        SCENE(test_gives_nothing_while_nothing_waits),
        SCENE(test_says_when_something_waits),
        SCENE(test_ends_without_memory),
        SCENE(test_frees_what_nobody_took),
        SCENE(test_between_threads),
        SCENE(test_wakes_all_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
