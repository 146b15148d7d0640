/* test_server_entry.c: the server's entry with what is open already: one socket and one tiny model, servers in forked processes on
 * both, one of them retiring; and a server without a model. */
#include "helpers/tiny_engine.h"
#include "server/server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { HANGS_S = 300, N_WORKERS = 2, N_ASKED = 20, ANSWER_BYTES = 16384 };

static runnel_model *model;
static struct shared *shared;
static int listener;
static struct sockaddr_in address;

static int open_both(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    socklen_t len = sizeof address;
    alarm(HANGS_S);
    *state = model = tiny_engine_open(&options);
    const struct shared_rules rules = {
        .limits = {.n_requests = 50,
                   .drain_ms = 10000,
                   .retire_ms = 10000,
                   .monitor = {.breaker = {.memory_percent = 99, .n_timeouts = 3, .probe_ms = 1000},
                               .degraded_max_tokens = 8,
                               .wedged_ms = 60000},
                   .loop = loop_default_limits},
    };
    assert_int_equal(shared_create(&shared, NULL), RUNNEL_OK);
    shared_write_rules(shared, &rules);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    return 0;
}

/* Servers -------------------------------------------------------------------------------------------------- */

static int start_engine(void *user, const runnel_model *opened, runnel_engine **engine, runnel_error *error)
{
    const runnel_engine_options options = {
        .size = sizeof options, .n_context = 512, .n_parallel = 2, .quick_start = true};
    (void)user;
    return runnel_engine_start(opened, &options, engine, error);
}

static void on_ready(void *user, const struct server *server)
{
    (void)server;
    if (write(*(int *)user, "", 1) != 1)
        _exit(2);
}

/* In the child: serves until a signal; its status says whether it went well. */
static int serve(const runnel_model *opened, unsigned record, int ready)
{
    struct log log = {.descriptor = STDERR_FILENO};
    runnel_error error;
    struct server_options options = {
        .model_path = "tiny",
        .max_tokens = 8,
        .n_context = 512,
        .n_parallel = 2,
        .n_choices = 2,
        .guard = {.host = "127.0.0.1", .is_loopback = true},
    };
    if (opened)
        runnel_sampling_init(opened, &options.sampling);
    const struct server_listening listening = {
        .descriptor = listener,
        .options = &options,
        .shared = shared,
        .worker = record,
        .log = &log,
        .model = opened,
        .start_engine = start_engine,
        .on_ready = on_ready,
        .user = &ready,
        .is_worker = true,
    };
    int failure = server_run(&listening, &error);
    if (failure)
        fprintf(stderr, "%s\n", error.message);
    return failure ? 1 : 0;
}

struct child {
    pid_t pid;
    int ready; /* a byte comes, once */
};

static struct child start_server(const runnel_model *opened, unsigned record)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        alarm(HANGS_S);
        _exit(serve(opened, record, pipes[1]));
    }
    close(pipes[1]);
    return (struct child){pid, pipes[0]};
}

static void wait_until_ready(const struct child *child)
{
    char byte;
    assert_int_equal(read(child->ready, &byte, 1), 1);
}

static void assert_ends(const struct child *child)
{
    int status;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(child->ready);
}

/* Clients -------------------------------------------------------------------------------------------------- */

static int connect_client(void)
{
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    return client;
}

static void send_request(int client, const char *method, const char *path, const char *body)
{
    char request[1024];
    int len = snprintf(request, sizeof request,
                       "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                       "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
                       method, path, strlen(body), body);
    assert_int_equal(send(client, request, (size_t)len, MSG_NOSIGNAL), len);
}

/* The status; the body is in answer. */
static int read_answer(int client, char answer[ANSWER_BYTES])
{
    size_t len = 0;
    for (ssize_t n; len + 1 < ANSWER_BYTES && (n = read(client, answer + len, ANSWER_BYTES - 1 - len)) > 0;)
        len += (size_t)n;
    answer[len] = 0;
    close(client);
    int status = 0;
    if (sscanf(answer, "HTTP/1.1 %d", &status) != 1)
        fail_msg("no answer: %s", answer);
    const char *body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    memmove(answer, body + 4, strlen(body + 4) + 1);
    return status;
}

static int ask(const char *method, const char *path, const char *body, char answer[ANSWER_BYTES])
{
    int client = connect_client();
    send_request(client, method, path, body);
    return read_answer(client, answer);
}

static const char completion[] = "{\"prompt\":\"Where to?\",\"n_predict\":8,\"temperature\":0}";

/* The text of a /completion, up to where its figures begin. */
static void cut_text(char *answer)
{
    const char *content = strstr(answer, "\"content\":");
    assert_non_null(content);
    memmove(answer, content, strlen(content) + 1);
    answer[strcspn(answer, ",")] = 0;
}

/* Tests ---------------------------------------------------------------------------------------------------- */

static void servers_share_a_socket_and_a_model(void **state)
{
    (void)state;
    struct child workers[N_WORKERS];
    char first[ANSWER_BYTES], answer[ANSWER_BYTES];
    for (unsigned i = 0; i < N_WORKERS; i++)
        workers[i] = start_server(model, i);
    for (unsigned i = 0; i < N_WORKERS; i++)
        wait_until_ready(&workers[i]);
    assert_int_equal(ask("GET", "/health", "", answer), 200);
    assert_int_equal(ask("POST", "/completion", completion, first), 200);
    cut_text(first);
    for (int i = 0; i < N_ASKED; i++) {
        if (i == N_ASKED / 2)
            kill(workers[0].pid, SIGTERM); /* its clients go to the other one */
        assert_int_equal(ask("POST", "/completion", completion, answer), 200);
        cut_text(answer);
        assert_string_equal(answer, first);
    }
    assert_ends(&workers[0]);
    assert_int_equal(ask("GET", "/health", "", answer), 200);
    kill(workers[1].pid, SIGUSR1);
    assert_ends(&workers[1]);
}

static void without_a_model_health_is_answered(void **state)
{
    (void)state;
    char answer[ANSWER_BYTES];
    struct child greeter = start_server(NULL, N_WORKERS);
    assert_int_equal(ask("GET", "/health", "", answer), 503);
    assert_non_null(strstr(answer, "\"loading model\""));
    assert_int_equal(ask("POST", "/completion", completion, answer), 503);
    assert_non_null(strstr(answer, "the model is being loaded"));
    assert_int_equal(ask("GET", "/metrics", "", answer), 200);
    kill(greeter.pid, SIGTERM);
    assert_ends(&greeter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_share_a_socket_and_a_model),
        cmocka_unit_test(without_a_model_health_is_answered),
    };
    return cmocka_run_group_tests(tests, open_both, tiny_engine_close);
}
