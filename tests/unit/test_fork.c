/* test_fork.c: one model in several processes at once, as runnel.h allows: opened here, used by children of fork. What an engine of
 * this process answered is what engines of theirs must answer. On a made-up model of some huge pages. */
#include "engine/model.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    N_CHILDREN = 2,
    N_QUESTIONS = 3,
    N_TOKENS = 16,
    N_AGAIN = 4,
    HUGE_BYTES = 2 << 20,
    HANGS_S = 600,
};

static runnel_model *model;

/* What the questions are answered with. */
struct answers {
    uint64_t hashes[N_QUESTIONS];
    uint32_t n_tokens[N_QUESTIONS];
};
static struct answers expected;

/* In a child cmocka would go on with the next test. */
static void give_up(const runnel_error *error)
{
    fprintf(stderr, "process %d: %s\n", (int)getpid(), error->message);
    _exit(1);
}

static runnel_engine *start_engine(void)
{
    const runnel_engine_options options = {
        .size = sizeof options, .n_context = 4096, .n_parallel = N_QUESTIONS};
    runnel_engine *engine;
    runnel_error error;
    if (runnel_engine_start(model, &options, &engine, &error))
        give_up(&error);
    return engine;
}

static struct answers answer(runnel_engine *engine)
{
    static const char *const questions[N_QUESTIONS] = {"Where do pages go?", "Who wrote this?",
                                                       "Again, please"};
    struct answers answers = {.n_tokens = {0}};
    runnel_request requests[N_QUESTIONS];
    runnel_response responses[N_QUESTIONS] = {{.size = sizeof *responses}};
    runnel_error error;
    for (int i = 0; i < N_QUESTIONS; i++) {
        runnel_request_init(&requests[i]);
        own_sampling(model, &requests[i])->seed = (uint64_t)i;
        requests[i].prompt = questions[i];
        requests[i].max_tokens = N_TOKENS;
        requests[i].ignore_eos = requests[i].wants_logits_hash = true;
    }
    if (runnel_respond_many(engine, requests, N_QUESTIONS, responses, &error))
        give_up(&error);
    for (int i = 0; i < N_QUESTIONS; i++) {
        answers.hashes[i] = responses[i].logits_hash;
        answers.n_tokens[i] = responses[i].n_tokens;
        runnel_response_free(&responses[i]);
    }
    return answers;
}

static int open_and_answer(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    options.n_layers = 6;
    options.n_hidden = 512;
    options.n_ffn = 2048;
    options.n_vocab = 8192;
    alarm(HANGS_S);
    *state = model = tiny_engine_open(&options);
    runnel_engine *engine = start_engine();
    expected = answer(engine);
    assert_int_equal(expected.n_tokens[0], N_TOKENS);
    assert_int_equal(runnel_engine_stop(engine), 0);
    return 0;
}

/* Children ------------------------------------------------------------------------------------------------ */

struct child {
    pid_t pid;
    int from, to; /* pipes */
};

/* Runs `run` in a child with its ends of the pipes; whatever fails there ends it with another status than 0. */
static struct child start_child(void (*run)(int from, int to))
{
    int down[2], up[2];
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        alarm(HANGS_S); /* a fork clears it */
        close(down[1]);
        close(up[0]);
        run(down[0], up[1]);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    return (struct child){.pid = pid, .from = up[0], .to = down[1]};
}

static void assert_ended(struct child *child, int signal)
{
    int status;
    close(child->from);
    close(child->to);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    if (signal)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signal);
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void tell(int to, const void *bytes, size_t n)
{
    if (write(to, bytes, n) != (ssize_t)n)
        _exit(2);
}

/* Until the parent writes or has gone. */
static void wait_for_parent(int from)
{
    char byte;
    while (read(from, &byte, 1) < 0)
        ;
}

static void let_go_on(const struct child *child)
{
    assert_int_equal(write(child->to, "", 1), 1);
}

static void assert_told_answers(const struct child *child)
{
    struct answers answers;
    assert_int_equal(read(child->from, &answers, sizeof answers), sizeof answers);
    assert_memory_equal(&answers, &expected, sizeof answers);
}

/* An engine of its own; it stays until the parent has looked. */
static void run_answers(int from, int to)
{
    runnel_engine *engine = start_engine();
    struct answers answers = answer(engine);
    tell(to, &answers, sizeof answers);
    wait_for_parent(from);
    if (runnel_engine_stop(engine) != 0)
        _exit(3);
    runnel_model_close(model);
}

/* Memory --------------------------------------------------------------------------------------------------- */

/* Of the mapping of the weights in a process, in bytes. */
struct mapping {
    uint64_t size, rss, pss, huge;
    char permissions[8];
};

static struct mapping read_mapping(pid_t pid)
{
    struct mapping mapping = {.size = 0};
    char path[64], line[512], name[64], permissions[8];
    unsigned long long start, end, kib;
    bool is_it = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx %7s", &start, &end, permissions) == 3) {
            is_it = start == (uintptr_t)model->weights->region;
            if (is_it)
                mapping.size = end - start;
            if (is_it)
                memcpy(mapping.permissions, permissions, sizeof permissions);
        } else if (is_it && sscanf(line, "%63[A-Za-z]: %llu kB", name, &kib) == 2) {
            uint64_t *value = !strcmp(name, "Rss")             ? &mapping.rss
                              : !strcmp(name, "Pss")           ? &mapping.pss
                              : !strcmp(name, "AnonHugePages") ? &mapping.huge
                                                               : NULL;
            if (value)
                *value = (uint64_t)kib << 10;
        }
    }
    fclose(file);
    return mapping;
}

/* Tests ---------------------------------------------------------------------------------------------------- */

static void weights_are_whole_huge_pages_and_read_only(void **state)
{
    (void)state;
    struct mapping mapping = read_mapping(getpid());
    assert_int_equal((uintptr_t)model->weights->region % HUGE_BYTES, 0);
    assert_int_equal(mapping.size % HUGE_BYTES, 0);
    assert_true(mapping.size >= model->weights->region_bytes);
    assert_true(mapping.size >= 4 * HUGE_BYTES); /* else the test tells little */
    assert_string_equal(mapping.permissions, "r--p");
}

static void children_answer_at_once_as_their_parent_did(void **state)
{
    (void)state;
    struct child children[N_CHILDREN];
    for (int i = 0; i < N_CHILDREN; i++)
        children[i] = start_child(run_answers);
    for (int i = 0; i < N_CHILDREN; i++)
        assert_told_answers(&children[i]);
    struct mapping mapping = read_mapping(getpid());
    uint64_t all = mapping.rss, pss = mapping.pss;
    assert_in_range(all, model->weights->region_bytes - HUGE_BYTES, mapping.size);
    for (int i = 0; i < N_CHILDREN; i++) {
        mapping = read_mapping(children[i].pid);
        assert_int_equal(mapping.rss, all);
        pss += mapping.pss;
    }
    if (pss < all - all / 64 || pss > all + all / 64)
        fail_msg("the weights take %llu KiB; of %d processes together %llu KiB",
                 (unsigned long long)all >> 10, N_CHILDREN + 1, (unsigned long long)pss >> 10);
    for (int i = 0; i < N_CHILDREN; i++) {
        let_go_on(&children[i]);
        assert_ended(&children[i], 0);
    }
    mapping = read_mapping(getpid());
    assert_int_equal(mapping.pss, all);
}

static void huge_pages_survive_a_fork(void **state)
{
    (void)state;
    uint64_t n_huge = read_mapping(getpid()).huge;
    if (!n_huge) {
        print_message("skipped: this system gave no huge pages to the weights\n");
        skip();
    }
    struct child child = start_child(run_answers);
    assert_told_answers(&child);
    assert_int_equal(read_mapping(child.pid).huge, n_huge);
    assert_int_equal(read_mapping(getpid()).huge, n_huge);
    let_go_on(&child);
    assert_ended(&child, 0);
    assert_int_equal(read_mapping(getpid()).huge, n_huge);
}

static void write_to(size_t at)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would tell of it at length */
    *(volatile uint8_t *)(model->weights->region + at) = 1;
}

static void run_write_to_first(int from, int to)
{
    (void)from;
    (void)to;
    write_to(0);
}

static void run_write_to_last(int from, int to)
{
    (void)from;
    (void)to;
    write_to(model->weights->region_bytes - 1);
}

static void a_write_to_a_weight_ends_the_process(void **state)
{
    (void)state;
    struct child first = start_child(run_write_to_first), last = start_child(run_write_to_last);
    assert_ended(&first, SIGSEGV);
    assert_ended(&last, SIGSEGV);
}

static bool tell_event(void *user, const runnel_event *event)
{
    (void)event;
    tell(*(int *)user, "", 1);
    return true;
}

/* An answer without an end, told event by event. */
static void run_long_answer(int from, int to)
{
    (void)from;
    runnel_engine *engine = start_engine();
    runnel_request request;
    runnel_response response = {.size = sizeof response};
    runnel_request_init(&request);
    request.prompt = "Tell me all of it";
    request.ignore_eos = true;
    request.on_event = tell_event;
    request.user = &to;
    runnel_respond(engine, &request, &response, NULL);
    _exit(4); /* it should have been killed long ago */
}

static void run_answers_again_and_again(int from, int to)
{
    (void)from;
    runnel_engine *engine = start_engine();
    for (int i = 0; i < N_AGAIN; i++) {
        struct answers answers = answer(engine);
        tell(to, &answers, sizeof answers);
    }
    runnel_engine_stop(engine);
}

static void a_killed_child_disturbs_nobody(void **state)
{
    (void)state;
    struct child killed = start_child(run_long_answer), other = start_child(run_answers_again_and_again);
    char byte;
    assert_int_equal(read(killed.from, &byte, 1), 1);
    assert_told_answers(&other);
    assert_int_equal(kill(killed.pid, SIGKILL), 0);
    assert_ended(&killed, SIGKILL);
    for (int i = 1; i < N_AGAIN; i++)
        assert_told_answers(&other);
    assert_ended(&other, 0);
    struct child successor = start_child(run_answers);
    assert_told_answers(&successor);
    let_go_on(&successor);
    assert_ended(&successor, 0);
    runnel_engine *engine = start_engine(); /* this process goes on, too */
    struct answers answers = answer(engine);
    assert_memory_equal(&answers, &expected, sizeof answers);
    assert_int_equal(runnel_engine_stop(engine), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_whole_huge_pages_and_read_only),
        cmocka_unit_test(children_answer_at_once_as_their_parent_did),
        cmocka_unit_test(huge_pages_survive_a_fork),
        cmocka_unit_test(a_write_to_a_weight_ends_the_process),
        cmocka_unit_test(a_killed_child_disturbs_nobody),
    };
    return cmocka_run_group_tests(tests, open_and_answer, tiny_engine_close);
}
