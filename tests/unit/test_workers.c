/* test_workers.c: two servers on one shared block, each a process with a port of its own: whichever is asked tells of both,
 * limits and keys are of both, and what one leaves that is killed. The supervisor is this test. */
#include "helpers/tiny_engine.h"
#include "server/server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 2, PARALLEL = 2, WAIT_MS = 20000 };

static struct shared *shared;
static int listeners[WORKERS];
static pid_t pids[WORKERS];

/* A worker ------------------------------------------------------------------------------------------------ */

static int open_model(void *user, const runnel_model **model, runnel_error *error)
{
    struct server_options *options = user;
    struct tiny_model_options tiny = tiny_engine_model();
    (void)error;
    *model = tiny_engine_open(&tiny);
    runnel_sampling_init(*model, &options->sampling);
    return RUNNEL_OK;
}

static int start_engine(void *user, const runnel_model *model, runnel_engine **engine, runnel_error *error)
{
    runnel_engine_options options = {
        .size = sizeof options, .n_context = 4096, .n_parallel = PARALLEL, .n_requests = 16};
    (void)user;
    return runnel_engine_start(model, &options, engine, error);
}

static bool wake_nobody(void *user)
{
    (void)user;
    return true;
}

static void work(unsigned number)
{
    struct server_options options = {
        .model_path = "tiny",
        .max_tokens = 16,
        .n_context = 4096,
        .n_parallel = PARALLEL,
        .n_choices = PARALLEL,
        .sampling = {.size = sizeof options.sampling},
        .admin = {.n_workers_max = WORKERS, .wake = wake_nobody},
    };
    struct log log = {.descriptor = STDERR_FILENO};
    runnel_error error = {0};
    const struct server_listening listening = {
        .descriptor = listeners[number],
        .options = &options,
        .shared = shared,
        .worker = number,
        .log = &log,
        .open_model = open_model,
        .start_engine = start_engine,
        .user = &options,
    };
    int failure = server_run(&listening, &error);
    if (failure)
        fprintf(stderr, "worker %u: %s\n", number, error.message);
    _exit(failure ? 1 : 0);
}

static void rest_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void start_worker(unsigned number)
{
    pids[number] = fork();
    assert_true(pids[number] >= 0);
    if (!pids[number])
        work(number);
    for (int ms = 0; shared_state(shared, number) != SHARED_READY; ms += 10) {
        assert_true(ms < WAIT_MS);
        rest_ms(10);
    }
}

static void end_worker(unsigned number, int signal)
{
    int status;
    assert_int_equal(kill(pids[number], signal), 0);
    assert_int_equal(waitpid(pids[number], &status, 0), pids[number]);
    assert_true(signal == SIGKILL ? WIFSIGNALED(status) : WIFEXITED(status) && !WEXITSTATUS(status));
    pids[number] = 0;
}

static void read_keys(const char *list, struct keys *keys)
{
    struct keys *read;
    if (!list)
        return;
    assert_int_equal(keys_create(&list, 1, NULL, &read, NULL), RUNNEL_OK);
    *keys = *read;
    keys_free(read);
}

static void write_rules_of_both(const char *key, const char *admin_key, uint32_t n_requests)
{
    struct shared_rules rules = {
        .limits = {.n_requests = n_requests,
                   .drain_ms = 100,
                   .monitor = {.breaker = {.memory_percent = 100, .probe_ms = 1000},
                               .degraded_max_tokens = 16,
                               .degraded_temperature = 1,
                               .wedged_ms = 60000},
                   .loop = loop_default_limits},
    };
    read_keys(key, &rules.keys);
    read_keys(admin_key, &rules.admin_keys);
    shared_write_rules(shared, &rules);
}

static void write_rules(const char *key, uint32_t n_requests)
{
    write_rules_of_both(key, NULL, n_requests);
}

static int setup(void **state)
{
    (void)state;
    if (shared_create(&shared, NULL))
        return -1;
    write_rules(NULL, 16);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        listeners[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listeners[i], (struct sockaddr *)&address, sizeof address) || listen(listeners[i], 64))
            return -1;
        start_worker(i);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        if (pids[i])
            end_worker(i, SIGTERM);
        close(listeners[i]);
    }
    shared_free(shared);
    return 0;
}

/* Asking -------------------------------------------------------------------------------------------------- */

static char answer[1 << 18];

static int connect_to(unsigned number)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(getsockname(listeners[number], (struct sockaddr *)&address, &len), 0);
    assert_int_equal(connect(descriptor, (struct sockaddr *)&address, sizeof address), 0);
    return descriptor;
}

static int send_request(unsigned number, const char *method, const char *path, const char *key,
                        const char *body)
{
    char request[1024], authorization[128] = "";
    int descriptor = connect_to(number);
    if (key)
        snprintf(authorization, sizeof authorization, "Authorization: Bearer %s\r\n", key);
    int n = snprintf(
        request, sizeof request,
        "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        method, path, authorization, strlen(body), body);
    assert_int_equal(send(descriptor, request, (size_t)n, MSG_NOSIGNAL), n);
    return descriptor;
}

/* The status; the answer, head and all, is in `answer`. */
static int read_answer(int descriptor)
{
    size_t len = 0;
    ssize_t n;
    while ((n = recv(descriptor, answer + len, sizeof answer - 1 - len, 0)) > 0)
        len += (size_t)n;
    close(descriptor);
    answer[len] = 0;
    assert_true(len > 12);
    return atoi(answer + strlen("HTTP/1.1 "));
}

static int ask(unsigned number, const char *method, const char *path, const char *key, const char *body)
{
    return read_answer(send_request(number, method, path, key, body));
}

static int complete(unsigned number, const char *key)
{
    return ask(number, "POST", "/completion", key, "{\"prompt\":\"ab\",\"n_predict\":4,\"ignore_eos\":true}");
}

/* A request that takes seconds. It is cancelled when the descriptor is closed. */
static int complete_for_long(unsigned number)
{
    return send_request(number, "POST", "/completion", NULL,
                        "{\"prompt\":\"ab\",\"n_predict\":4000,\"ignore_eos\":true,\"stream\":true}");
}

/* A figure of /metrics, whose line begins so. */
static double figure(unsigned number, const char *name)
{
    char line[256];
    assert_int_equal(ask(number, "GET", "/metrics", NULL, ""), 200);
    snprintf(line, sizeof line, "\n%s", name);
    const char *at = strstr(answer, line);
    assert_non_null(at);
    const char *end = strchr(at + 1, '\n');
    assert_non_null(end);
    while (end[-1] != ' ') /* a label may have spaces, a number has none */
        end--;
    return strtod(end, NULL);
}

/* Engines and gauges of others are seen a moment later. */
static void expect_figure(unsigned number, const char *name, double expected)
{
    double found = figure(number, name);
    for (int ms = 0; found != expected && ms < WAIT_MS; ms += 20) {
        rest_ms(20);
        found = figure(number, name);
    }
    if (found != expected)
        fail_msg("%s of worker %u: expected %g, found %g", name, number, expected, found);
}

static size_t count(const char *text)
{
    size_t n = 0;
    for (const char *at = answer; (at = strstr(at, text)); at++)
        n++;
    return n;
}

/* Tests --------------------------------------------------------------------------------------------------- */

/* Whichever is asked tells of both, at once of what is counted with an answer. */
static void test_sums(void **state)
{
    (void)state;
    assert_int_equal(complete(0, NULL), 200);
    assert_int_equal(complete(0, NULL), 200);
    assert_int_equal(complete(1, NULL), 200);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_true(figure(i, "deepseek_requests_total") == 3);
        expect_figure(i, "runnel_http_responses_total{route=\"/completion\",status=\"200\"}", 3);
        expect_figure(i, "vllm:generation_tokens_total", 12);
        expect_figure(i, "vllm:prompt_tokens_total", 6);
        expect_figure(i, "vllm:num_requests_running", 0);
        expect_figure(i, "runnel_requests_admitted", 0);
        assert_true(figure(i, "runnel_workers") == WORKERS);
        assert_int_equal(ask(i, "GET", "/slots", NULL, ""), 200);
        assert_int_equal(count("\"is_processing\":false"), WORKERS * PARALLEL);
        assert_int_equal(count("\"id\":3,"), 1);
        assert_int_equal(ask(i, "GET", "/props", NULL, ""), 200);
        assert_int_equal(count("\"total_slots\":4"), 1);
        assert_int_equal(ask(i, "GET", "/health", NULL, ""), 200);
        assert_int_equal(count("{\"status\":\"ok\"}"), 1);
    }
}

/* A request's id says who has it, its slot is the one of /slots. */
static void test_ids(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(complete(i, NULL), 200);
        const char *id = strstr(answer, "X-Request-Id: ");
        assert_non_null(id);
        id += strlen("X-Request-Id: ");
        assert_int_equal(strspn(id, "0123456789abcdef"), 24);
        assert_int_equal(id[14], '0');
        assert_int_equal(id[15], (int)('0' + i));
        assert_int_equal(count(i ? "\"id_slot\":2" : "\"id_slot\":0"), 1);
    }
}

/* One is killed with a request on its way: its gauges go with it, no counter does. */
static void test_kill(void **state)
{
    static const char *const counters[] = {"deepseek_requests_total", "vllm:generation_tokens_total",
                                           "runnel_steps_total", "runnel_connections_accepted_total",
                                           "runnel_pool_allocations_total"};
    double before[sizeof counters / sizeof *counters];
    (void)state;
    assert_int_equal(complete(0, NULL), 200);
    expect_figure(1, "vllm:num_requests_running", 0); /* so that what runs below is the long one */
    expect_figure(1, "runnel_requests_admitted", 0);
    int descriptor = complete_for_long(0);
    expect_figure(1, "vllm:num_requests_running", 1);
    expect_figure(1, "runnel_requests_admitted", 1);
    assert_int_equal(ask(1, "GET", "/slots", NULL, ""), 200);
    assert_int_equal(count("\"is_processing\":true"), 1);
    end_worker(0, SIGKILL);
    close(descriptor);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        before[i] = figure(1, counters[i]);
    shared_reap(shared, 0);
    assert_true(figure(1, "vllm:num_requests_running") == 0);
    assert_true(figure(1, "runnel_requests_admitted") == 0);
    assert_true(figure(1, "runnel_workers") == 1);
    assert_int_equal(ask(1, "GET", "/slots", NULL, ""), 200);
    assert_int_equal(count("\"is_processing\""), PARALLEL);
    start_worker(0);
    assert_int_equal(complete(0, NULL), 200);
    for (unsigned worker = 0; worker < WORKERS; worker++)
        for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
            assert_true(figure(worker, counters[i]) >= before[i]);
    expect_figure(1, "deepseek_requests_total", before[0] + 1);
}

/* The limit is of both, and another one is taken over by both. */
static void test_limit(void **state)
{
    (void)state;
    write_rules(NULL, 1);
    int descriptor = complete_for_long(0);
    expect_figure(1, "runnel_requests_admitted", 1);
    assert_int_equal(complete(1, NULL), 429);
    assert_int_equal(count("expected at most 1"), 1);
    write_rules(NULL, 2);
    assert_int_equal(complete(1, NULL), 200);
    assert_true(figure(0, "runnel_requests_admitted_limit") == 2);
    close(descriptor);
    expect_figure(1, "runnel_requests_admitted", 0);
    expect_figure(1, "runnel_refusals_total{reason=\"full\"}", 1);
}

/* Keys of the next generation count from the next request on, in both. */
static void test_keys(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(complete(i, NULL), 200);
    write_rules("one,both", 16);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(complete(i, NULL), 401);
        assert_int_equal(complete(i, "one"), 200);
        assert_int_equal(complete(i, "two"), 401);
    }
    write_rules("two,both", 16);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(complete(i, "one"), 401);
        assert_int_equal(complete(i, "both"), 200);
        assert_int_equal(complete(i, "two"), 200);
        assert_int_equal(ask(i, "GET", "/health", NULL, ""), 200);
    }
    write_rules(NULL, 16);
    assert_int_equal(complete(0, NULL), 200);
}

static int ask_status(unsigned number, const char *key)
{
    return ask(number, "GET", "/admin/status", key, "");
}

/* The admin's keys likewise, and without any there are no orders. */
static void test_admin_keys(void **state)
{
    (void)state;
    write_rules_of_both("client", "one,both", 16);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(ask_status(i, "client"), 401);
        assert_int_equal(ask_status(i, "one"), 200);
        assert_int_equal(ask_status(i, "two"), 401);
    }
    write_rules_of_both("client", "two,both", 16);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(ask_status(i, "one"), 401);
        assert_int_equal(ask_status(i, "both"), 200);
        assert_int_equal(ask_status(i, "two"), 200);
    }
    write_rules(NULL, 16);
    assert_int_equal(ask_status(0, "two"), 404);
    assert_int_equal(complete(0, "two"), 200); /* it is no client's key, and none is asked for */
}

/* The last key goes between the head of an order and its body. */
static void test_an_order_without_a_route(void **state)
{
    static const char head[] = "POST /admin/workers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                               "Authorization: Bearer one\r\nContent-Type: application/json\r\n"
                               "Expect: 100-continue\r\nContent-Length: 13\r\n\r\n",
                      body[] = "{\"workers\":2}", go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    char heard[sizeof go_on] = "";
    (void)state;
    write_rules_of_both(NULL, "one", 16);
    int descriptor = connect_to(0);
    assert_int_equal(send(descriptor, head, strlen(head), MSG_NOSIGNAL), (ssize_t)strlen(head));
    assert_int_equal(recv(descriptor, heard, strlen(go_on), MSG_WAITALL), (ssize_t)strlen(go_on));
    assert_string_equal(heard, go_on);
    write_rules(NULL, 16);
    assert_int_equal(ask_status(0, "one"), 404); /* so it has taken them over */
    assert_int_equal(send(descriptor, body, strlen(body), MSG_NOSIGNAL), (ssize_t)strlen(body));
    assert_int_equal(read_answer(descriptor), 404);
    assert_int_equal(complete(0, NULL), 200);
}

/* A worker that drains is not the server's end as long as another answers. */
static void test_drain(void **state)
{
    (void)state;
    write_rules(NULL, 16);
    int descriptor = complete_for_long(0);
    expect_figure(1, "vllm:num_requests_running", 1);
    assert_int_equal(kill(pids[0], SIGTERM), 0);
    for (int ms = 0; shared_state(shared, 0) == SHARED_READY && ms < WAIT_MS; ms++)
        rest_ms(1);
    assert_int_equal(ask(1, "GET", "/health", NULL, ""), 200);
    end_worker(0, SIGTERM); /* the second one: at once */
    close(descriptor);
    shared_reap(shared, 0);
    assert_int_equal(complete(1, NULL), 200);
    assert_true(figure(1, "runnel_workers") == 1);
}

/* What others say of themselves counts in /health: this test plays a worker that is not well. */
static void test_health_of_others(void **state)
{
    struct shared_worker other;
    struct shared_gauges gauges = {.is_wedged = 1, .has_engine = 1};
    (void)state;
    shared_join(&other, shared, 2);
    shared_tell_gauges(&other, &gauges);
    assert_int_equal(ask(0, "GET", "/health", NULL, ""), 200);
    assert_int_equal(count("{\"status\":\"ok\"}"), 1); /* it does not answer yet */
    shared_set_state(&other, SHARED_READY);
    assert_int_equal(ask(0, "GET", "/health", NULL, ""), 200);
    assert_int_equal(count("1 of 3 workers do no steps"), 1);
    assert_true(figure(0, "runnel_engine_wedged") == 1);
    gauges = (struct shared_gauges){.breaker_by_memory = BREAKER_REFUSING, .has_engine = 1};
    shared_tell_gauges(&other, &gauges);
    assert_int_equal(ask(1, "GET", "/health", NULL, ""), 200);
    assert_int_equal(count("\"reason\":\"memory\""), 1);
    assert_int_equal(count("\"refusing\":true"), 1);
    assert_true(figure(1, "runnel_breaker_state") == 2);
    shared_reap(shared, 2);
    assert_int_equal(ask(1, "GET", "/health", NULL, ""), 200);
    assert_int_equal(count("{\"status\":\"ok\"}"), 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sums),
        TEST(test_ids),
        TEST(test_kill),
        TEST(test_limit),
        TEST(test_keys),
        TEST(test_admin_keys),
        TEST(test_an_order_without_a_route),
        TEST(test_drain),
        TEST(test_health_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
