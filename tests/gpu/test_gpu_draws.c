/* test_gpu_draws.c: where a request wants nothing but the likeliest token the device finds it, and no logits come back; the answers are the
 * CPU's. On a card, or on PoCL's device (skipped where there is neither); and in test_soft_gpu_draws over a device that is made of the CPU's
 * kernels (soft_gpu.h).
 *
 * gpu_read is wrapped (the linker's --wrap): what comes back is counted. */
#include "engine/engine.h"
#include "gpu/kernels.h"
#include "helpers/tiny_engine.h"
#include "model/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SKIPPED = 77,
    N_TOKENS = 48,
    N_FREE = 30, /* tokens that may come before an end token, of min_tokens */
    N_VOCAB = TINY_MODEL_TOKENS + 7,
    N_HIDDEN = 256,
};

/* What comes back ------------------------------------------------------------------------------------------- */

int __real_gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error);
int __wrap_gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error);

static atomic_size_t n_read_bytes;

int __wrap_gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error)
{
    n_read_bytes += n_bytes;
    return __real_gpu_read(gpu, from, data, n_bytes, error);
}

static size_t bytes_of(size_t n_best, size_t n_logits)
{
    return n_best * sizeof(struct gpu_best) + n_logits * N_VOCAB * sizeof(float);
}

/* Models ---------------------------------------------------------------------------------------------------- */

static char plain_path[] = "/tmp/runnel-draws-XXXXXX", tied_path[] = "/tmp/runnel-draws-XXXXXX",
            poisoned_path[] = "/tmp/runnel-draws-XXXXXX";

/* A file of a model whose head is floats; where its rows begin. */
static FILE *write_model(char *path, uint64_t *offset)
{
    struct tiny_model_options options = tiny_engine_model();
    struct gguf *gguf = NULL;
    runnel_error error;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    options.n_hidden = N_HIDDEN;
    options.n_vocab = N_VOCAB;
    options.output = TENSOR_F32;
    if (tiny_model_write(&options, path, &error) || gguf_open(path, &gguf, &error))
        fail_msg("%s", error.message);
    *offset = gguf_find_tensor(gguf, "output.weight")->offset;
    gguf_close(gguf);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    return file;
}

static void move_to(FILE *file, uint64_t offset, uint32_t row)
{
    assert_int_equal(fseek(file, (long)(offset + (uint64_t)row * N_HIDDEN * sizeof(float)), SEEK_SET), 0);
}

/* Each row of an odd token becomes that of the even one before it: their logits are equal. */
static void write_tied(void)
{
    uint64_t offset;
    FILE *file = write_model(tied_path, &offset);
    float row[N_HIDDEN];
    for (uint32_t i = 0; i + 1 < N_VOCAB; i += 2) {
        move_to(file, offset, i);
        assert_int_equal(fread(row, sizeof *row, N_HIDDEN, file), N_HIDDEN);
        move_to(file, offset, i + 1);
        assert_int_equal(fwrite(row, sizeof *row, N_HIDDEN, file), N_HIDDEN);
    }
    fclose(file);
}

/* The logit of this row is a NaN. */
static void write_poisoned(uint32_t row)
{
    static const uint8_t nan_float[] = {0, 0, 0xc0, 0x7f};
    uint64_t offset;
    FILE *file = write_model(poisoned_path, &offset);
    move_to(file, offset, row);
    assert_int_equal(fwrite(nan_float, 1, sizeof nan_float, file), sizeof nan_float);
    fclose(file);
}

static int write_models(void **state)
{
    (void)state;
    uint64_t offset;
    fclose(write_model(plain_path, &offset));
    write_tied();
    write_poisoned(7);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    unlink(plain_path);
    unlink(tied_path);
    unlink(poisoned_path);
    return 0;
}

struct fixture {
    runnel_model *model;
    runnel_engine *engine;
};

static struct fixture open_on(const char *path, const char *device, bool drafts)
{
    struct fixture fixture;
    runnel_model_options opening;
    runnel_error error;
    runnel_model_options_init(&opening);
    opening.device = device;
    if (runnel_model_open(path, &opening, &fixture.model, &error))
        fail_msg("%s", error.message);
    fixture.engine = tiny_engine_start(
        fixture.model, (runnel_engine_options){.n_context = 512, .n_parallel = 4, .no_drafts = !drafts});
    n_read_bytes = 0; /* a start reads logits */
    return fixture;
}

static void close_all(struct fixture *fixture)
{
    runnel_engine_stop(fixture->engine);
    runnel_model_close(fixture->model);
}

/* Requests -------------------------------------------------------------------------------------------------- */

/* What a request wants besides the likeliest token; n_best: of how many of its tokens the best is enough, one after the other. */
enum wish { NOTHING, TOP_1, WARMTH, LOGPROBS, HASH, PENALTY, NO_PENALTY, BIAS, MIN_TOKENS, CHOICE, WISHES };
static const struct {
    const char *name;
    uint32_t n_best;
} wishes[WISHES] = {
    [NOTHING] = {"nothing", N_TOKENS},
    [TOP_1] = {"top_k 1", N_TOKENS},
    [WARMTH] = {"a temperature", 0},
    [LOGPROBS] = {"logprobs", 0},
    [HASH] = {"a hash", 0},
    [PENALTY] = {"a penalty", 0},
    [NO_PENALTY] = {"no penalty", N_TOKENS},
    [BIAS] = {"a bias", 0},
    [MIN_TOKENS] = {"min_tokens", N_TOKENS - N_FREE},
    [CHOICE] = {"one of two texts", 0},
};

static bool ignore_event(void *user, const runnel_event *event)
{
    (void)user;
    (void)event;
    return true;
}

static runnel_request request_of(const runnel_model *model, enum wish wish)
{
    static const char *const prompts[] = {"a prompt", "another one, longer than the first",
                                          "a b a b a b a b"};
    static const char *const choices[] = {
        "yes, this text is long enough for forty tokens and more, I should say",
        "no, this text is as long as the other, or nearly as long, not more"};
    static const runnel_logit_bias bias = {.token = 'e', .bias = 0.5f};
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = prompts[wish % 3];
    request.raw = true;
    request.max_tokens = N_TOKENS;
    request.ignore_eos = wish != MIN_TOKENS;
    runnel_sampling *sampling = own_sampling(model, &request);
    sampling->temperature = wish == TOP_1 || wish == WARMTH ? 1 : 0;
    sampling->top_k = wish == TOP_1 ? 1 : 0;
    sampling->seed = 3;
    sampling->repetition_penalty = wish == PENALTY ? 1.2f : 1;
    request.n_logprobs = wish == LOGPROBS ? 2 : -1;
    request.on_event = wish == LOGPROBS ? ignore_event : NULL;
    request.wants_logits_hash = wish == HASH;
    request.min_tokens = wish == MIN_TOKENS ? N_FREE : 0;
    if (wish == BIAS) {
        sampling->logit_bias = &bias;
        sampling->n_logit_bias = 1;
    }
    if (wish == CHOICE) {
        request.constraint = RUNNEL_CONSTRAINT_CHOICE;
        request.choices = choices;
        request.n_choices = 2;
    }
    return request;
}

static runnel_response respond(const struct fixture *fixture, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(fixture->engine, request, &response, &error))
        fail_msg("%s", error.message);
    return response;
}

static void expect_same(const char *name, runnel_response *found, runnel_response *expected)
{
    if (found->n_tokens != expected->n_tokens || found->text_len != expected->text_len ||
        found->reasoning_len != expected->reasoning_len || found->logits_hash != expected->logits_hash ||
        found->finish_reason != expected->finish_reason ||
        memcmp(found->text, expected->text, found->text_len) != 0 ||
        memcmp(found->reasoning, expected->reasoning, found->reasoning_len) != 0)
        fail_msg("%s: %u tokens, %s, %s; expected %u, %s, %s", name, found->n_tokens, found->reasoning,
                 found->text, expected->n_tokens, expected->reasoning, expected->text);
    runnel_response_free(found);
    runnel_response_free(expected);
}

/* One after the other, without drafts: each token is a step, of which one row is asked for. */
static void no_logits_come_back_where_none_are_wanted(void **state)
{
    (void)state;
    struct fixture cpu = open_on(plain_path, "cpu", false), gpu = open_on(plain_path, "gpu", false);
    for (enum wish wish = 0; wish < WISHES; wish++) {
        const runnel_request of_cpu = request_of(cpu.model, wish), of_gpu = request_of(gpu.model, wish);
        runnel_response expected = respond(&cpu, &of_cpu);
        n_read_bytes = 0;
        runnel_response found = respond(&gpu, &of_gpu);
        size_t n_best = wishes[wish].n_best;
        if (wish == MIN_TOKENS) /* an end token may end it from there on */
            n_best = expected.n_tokens - N_FREE;
        if (n_read_bytes != bytes_of(n_best, expected.n_tokens - n_best))
            fail_msg("%s: %zu bytes came back for %u tokens, expected %zu", wishes[wish].name, n_read_bytes,
                     expected.n_tokens, bytes_of(n_best, expected.n_tokens - n_best));
        expect_same(wishes[wish].name, &found, &expected);
    }
    close_all(&cpu);
    close_all(&gpu);
}

/* All of them in the same steps, twice, so that drafts find something: rows of both kinds, in any order. */
static void what_others_want_changes_nothing(void **state)
{
    (void)state;
    struct fixture cpu = open_on(plain_path, "cpu", true), gpu = open_on(plain_path, "gpu", true);
    uint64_t n_accepted = 0;
    for (int round = 0; round < 2; round++) {
        runnel_request requests[WISHES];
        runnel_response expected[WISHES], found[WISHES];
        runnel_error error;
        for (enum wish wish = 0; wish < WISHES; wish++) {
            requests[wish] = request_of(cpu.model, wish);
            expected[wish].size = found[wish].size = sizeof *found;
        }
        if (runnel_respond_many(cpu.engine, requests, WISHES, expected, &error) ||
            runnel_respond_many(gpu.engine, requests, WISHES, found, &error))
            fail_msg("%s", error.message);
        for (enum wish wish = 0; wish < WISHES; wish++) {
            n_accepted += found[wish].n_draft_accepted;
            expect_same(wishes[wish].name, &found[wish], &expected[wish]);
        }
    }
    assert_true(n_accepted > 0);
    close_all(&cpu);
    close_all(&gpu);
}

/* Thoughts that a budget ends: constraints limit some draws, in the middle of a draft, too. */
static void thoughts_end_as_they_do_on_the_cpu(void **state)
{
    (void)state;
    for (int budget = 0; budget < 40; budget += 3) {
        const bool drafts = budget % 4 > 0;
        struct fixture cpu = open_on(plain_path, "cpu", drafts), gpu = open_on(plain_path, "gpu", drafts);
        const runnel_message message = {.role = "user", .content = "Think."};
        runnel_request request = request_of(cpu.model, NOTHING);
        request.prompt = NULL;
        request.raw = false;
        request.messages = &message;
        request.n_messages = 1;
        request.thinking_budget = budget % 2 ? budget : -1;
        request.soft_thinking_budget = budget % 2 ? -1 : budget;
        request.ignore_eos = false;
        request.max_tokens = 60;
        runnel_response expected = respond(&cpu, &request);
        n_read_bytes = 0;
        runnel_response found = respond(&gpu, &request);
        if (!drafts) /* draws behind a thought may want logits, most do not */
            assert_true(n_read_bytes < bytes_of(found.n_tokens, found.n_tokens / 2 + 1));
        expect_same("thoughts", &found, &expected);
        close_all(&cpu);
        close_all(&gpu);
    }
}

static bool expect_even(void *user, const runnel_event *event)
{
    uint32_t *n = user;
    if (event->kind == RUNNEL_EVENT_TOKEN) {
        assert_int_equal(event->logprobs[0].token % 2, 0);
        ++*n;
    }
    return true;
}

/* Of equal logits the token with the lowest number. */
static void ties_are_drawn_as_on_the_cpu(void **state)
{
    (void)state;
    struct fixture cpu = open_on(tied_path, "cpu", false), gpu = open_on(tied_path, "gpu", false);
    runnel_request request = request_of(cpu.model, NOTHING);
    uint32_t n_told = 0;
    request.wants_tokens = true;
    request.on_event = expect_even;
    request.user = &n_told;
    runnel_response expected = respond(&cpu, &request);
    n_read_bytes = 0;
    runnel_response found = respond(&gpu, &request);
    assert_int_equal(n_read_bytes, bytes_of(N_TOKENS, 0));
    assert_int_equal(n_told, 2 * N_TOKENS);
    expect_same("ties", &found, &expected);
    close_all(&cpu);
    close_all(&gpu);
}

/* A NaN fails the request in the same words. */
static void numbers_that_are_not_finite(void **state)
{
    (void)state;
    runnel_error of_cpu, of_gpu;
    runnel_response response = {.size = sizeof response};
    struct fixture cpu = open_on(poisoned_path, "cpu", false), gpu = open_on(poisoned_path, "gpu", false);
    const runnel_request request = request_of(cpu.model, NOTHING);
    assert_int_equal(runnel_respond(cpu.engine, &request, &response, &of_cpu), RUNNEL_ENUMERIC);
    assert_int_equal(runnel_respond(gpu.engine, &request, &response, &of_gpu), RUNNEL_ENUMERIC);
    assert_string_equal(of_gpu.message, of_cpu.message);
    assert_non_null(strstr(of_gpu.message, "for token 7"));
    assert_int_equal(n_read_bytes, bytes_of(1, 1));
    close_all(&cpu);
    close_all(&gpu);
}

/* Layers that the CPU ends with: its head gives logits. */
static void a_head_on_the_cpu(void **state)
{
    (void)state;
    runnel_error error;
    struct fixture cpu = open_on(plain_path, "cpu", false), gpu;
    runnel_model_options opening;
    runnel_model_options_init(&opening);
    opening.device = "gpu";
    opening.gpu_layers = 1;
    if (runnel_model_open(plain_path, &opening, &gpu.model, &error))
        fail_msg("%s", error.message);
    gpu.engine = tiny_engine_start(gpu.model, (runnel_engine_options){.n_context = 512});
    const runnel_request request = request_of(cpu.model, NOTHING);
    runnel_response expected = respond(&cpu, &request), found = respond(&gpu, &request);
    expect_same("a head on the CPU", &found, &expected);
    close_all(&cpu);
    close_all(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_logits_come_back_where_none_are_wanted),
        cmocka_unit_test(what_others_want_changes_nothing),
        cmocka_unit_test(thoughts_end_as_they_do_on_the_cpu),
        cmocka_unit_test(ties_are_drawn_as_on_the_cpu),
        cmocka_unit_test(numbers_that_are_not_finite),
        cmocka_unit_test(a_head_on_the_cpu),
    };
    if (!tiny_engine_has_gpu()) {
        puts("skipped: no driver shows a GPU, nor is PoCL installed (packages.txt)");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
