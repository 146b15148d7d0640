/* test_engine.c: one arithmetic (the same bits in any company, in any chunks, on any number of threads,
 * cached or not), and what requests can ask for. On tiny models, with every instruction set that this machine
 * has. */
#include "engine/engine.h"
#include "helpers/cpu_levels.h"
#include "helpers/tiny_engine.h"
#include "kernels/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char mixed_path[] = "/tmp/runnel-mixed-XXXXXX";  /* Q4_K and Q6_K, ChatML */
static char small_path[] = "/tmp/runnel-small-XXXXXX";  /* 32-blocks, llama */
static char r1_path[] = "/tmp/runnel-r1-XXXXXX";        /* R1's template */
static char poisoned_path[] = "/tmp/runnel-nan-XXXXXX"; /* weights that are not finite */

static void write_model(char *path, const struct tiny_model_options *options)
{
    runnel_error error;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    if (tiny_model_write(options, path, &error))
        fail_msg("%s", error.message);
}

/* Makes the first value of a tensor's first block scale a NaN. */
static void poison(const char *path)
{
    struct gguf *gguf;
    assert_int_equal(gguf_open(path, &gguf, NULL), RUNNEL_OK);
    uint64_t offset = gguf_find_tensor(gguf, "blk.0.ffn_up.weight")->offset;
    gguf_close(gguf);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    const uint8_t nan_half[] = {0x00, 0x7e};
    assert_int_equal(fwrite(nan_half, 1, sizeof nan_half, file), sizeof nan_half);
    fclose(file);
}

static int write_models(void **state)
{
    (void)state;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_context = 1024;
    write_model(mixed_path, &options);
    write_model(poisoned_path, &options);
    poison(poisoned_path);
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    write_model(r1_path, &options);

    tiny_model_defaults(&options);
    options.n_context = 1024;
    options.architecture = "llama";
    options.n_hidden = 96;
    options.n_heads = 3;
    options.n_kv_heads = 1;
    options.n_ffn = 288;
    tiny_model_set_types(&options, TENSOR_Q8_0);
    options.gate = options.up = TENSOR_Q4_1;
    options.biases = false;
    options.tied = true;
    write_model(small_path, &options);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    unlink(mixed_path);
    unlink(small_path);
    unlink(r1_path);
    unlink(poisoned_path);
    return 0;
}

struct fixture {
    runnel_model *model;
    runnel_engine *engine;
    uint32_t n_vocab;
};

static struct fixture open_model(const char *path, int n_threads, uint32_t n_context, uint32_t n_parallel)
{
    struct fixture fixture;
    runnel_error error;
    runnel_model_options model_options = tiny_engine_options();
    model_options.n_threads = n_threads;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = n_context;
    options.n_parallel = n_parallel;
    if (runnel_model_open(path, &model_options, &fixture.model, &error) ||
        runnel_engine_start(fixture.model, &options, &fixture.engine, &error))
        fail_msg("%s", error.message);
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(fixture.model, &info);
    fixture.n_vocab = info.n_vocab;
    return fixture;
}

static void close_model(struct fixture *fixture)
{
    runnel_engine_stop(fixture->engine);
    runnel_model_close(fixture->model);
}

/* One arithmetic ------------------------------------------------------------------------------------------ */

enum { N_IDS = 290 };

struct collected {
    float *logits;
    uint32_t n_vocab;
};

static bool collect(void *user, size_t index, const float *logits)
{
    const struct collected *collected = user;
    memcpy(collected->logits + index * collected->n_vocab, logits, collected->n_vocab * sizeof *logits);
    return true;
}

static void make_ids(int32_t *ids, size_t n, int first)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 53 + (size_t)first * 17 + i * i) % TINY_MODEL_TOKENS);
}

static float *all_logits(const struct fixture *fixture, size_t n_chunk)
{
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, 1);
    struct collected collected = {malloc((size_t)N_IDS * fixture->n_vocab * sizeof(float)), fixture->n_vocab};
    runnel_error error;
    if (runnel_logits_each(fixture->engine, ids, N_IDS, n_chunk, collect, &collected, &error))
        fail_msg("%s", error.message);
    return collected.logits;
}

static void chunks_and_threads_change_no_bit(const char *path)
{
    struct fixture fixture = open_model(path, 1, 0, 1);
    float *expected = all_logits(&fixture, 64);
    size_t n_bytes = (size_t)N_IDS * fixture.n_vocab * sizeof *expected;
    static const size_t chunks[] = {1, 7, 37, 512};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        float *logits = all_logits(&fixture, chunks[i]);
        assert_memory_equal(logits, expected, n_bytes);
        free(logits);
    }
    close_model(&fixture);
    for (int n_threads = 2; n_threads <= 4; n_threads++) {
        fixture = open_model(path, n_threads, 0, 1);
        float *logits = all_logits(&fixture, 37);
        assert_memory_equal(logits, expected, n_bytes);
        free(logits);
        close_model(&fixture);
    }
    free(expected);
}

static runnel_request request_of(const struct fixture *fixture, const int32_t *ids, size_t n)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt_ids = ids;
    request.n_prompt_ids = n;
    request.max_tokens = 40;
    request.ignore_eos = true;
    request.wants_logits_hash = true;
    own_sampling(fixture->model, &request)->temperature = 0.9f;
    own_sampling(fixture->model, &request)->seed = n;
    return request;
}

/* Each of several requests together has the answer, bit for bit, that it has alone, in an engine of its own.
 */
static void company_changes_no_bit(const char *path)
{
    enum { N = 5 };
    static const size_t lengths[N] = {1, 33, 300, 64, 17};
    int32_t ids[N][300];
    runnel_request requests[N];
    runnel_response together[N] = {{.size = sizeof *together}}, alone = {.size = sizeof alone},
                    again = {.size = sizeof again};
    runnel_error error;
    struct fixture fixture = open_model(path, 2, 512, N);
    for (int i = 0; i < N; i++) {
        make_ids(ids[i], lengths[i], i);
        requests[i] = request_of(&fixture, ids[i], lengths[i]);
    }
    if (runnel_respond_many(fixture.engine, requests, N, together, &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < N; i++) {
        struct fixture single = open_model(path, 1, 512, 1);
        if (runnel_respond(single.engine, &requests[i], &alone, &error) ||
            runnel_respond(single.engine, &requests[i], &again, &error))
            fail_msg("%s", error.message);
        assert_int_equal(alone.n_tokens, 40);
        assert_true(together[i].logits_hash == alone.logits_hash);
        assert_string_equal(together[i].text, alone.text);
        /* The second time, whole pages of the prompt come from the cache, and nothing changes. */
        assert_int_equal(alone.n_cached_tokens, 0);
        assert_int_equal(again.n_cached_tokens, (lengths[i] - 1) / KV_PAGE * KV_PAGE);
        assert_true(again.logits_hash == alone.logits_hash);
        runnel_response_free(&alone);
        runnel_response_free(&again);
        runnel_response_free(&together[i]);
        close_model(&single);
    }
    close_model(&fixture);
}

struct drawn {
    int32_t ids[512];
    size_t n;
};

static bool note_token(void *user, const runnel_event *event)
{
    struct drawn *drawn = user;
    if (event->kind == RUNNEL_EVENT_TOKEN)
        drawn->ids[drawn->n++] = event->logprobs[0].token;
    return true;
}

static void draw_greedily(const char *path, int n_threads, const int32_t *ids, size_t n, int max_tokens,
                          struct drawn *drawn)
{
    struct fixture fixture = open_model(path, n_threads, 512, 1);
    runnel_request request = request_of(&fixture, ids, n);
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    drawn->n = 0;
    own_sampling(fixture.model, &request)->temperature = 0;
    request.max_tokens = max_tokens;
    request.n_logprobs = 0;
    request.on_event = note_token;
    request.user = drawn;
    if (runnel_respond(fixture.engine, &request, &response, &error))
        fail_msg("%s", error.message);
    assert_int_equal(drawn->n, max_tokens);
    runnel_response_free(&response);
    close_model(&fixture);
}

/* A token that was generated leaves the same state behind as one that stood in the prompt. */
static void generated_is_as_prompted(const char *path)
{
    enum { N_PROMPT = 50, N_DRAWN = 40 };
    int32_t ids[N_PROMPT + N_DRAWN];
    struct drawn drawn;
    make_ids(ids, N_PROMPT, 3);
    draw_greedily(path, 2, ids, N_PROMPT, N_DRAWN, &drawn);
    memcpy(ids + N_PROMPT, drawn.ids, N_DRAWN * sizeof *ids);
    for (size_t cut = N_PROMPT + 1; cut < N_PROMPT + N_DRAWN; cut += 13) {
        draw_greedily(path, 1, ids, cut, 1, &drawn);
        assert_int_equal(drawn.ids[0], ids[cut]);
    }
}

static void with_every_instruction_set(void (*check)(const char *path))
{
    const struct kernels *tables;
    const size_t n_tables = kernels_possible(&tables);
    for (size_t i = 0; i < n_tables; i++) {
        setenv("RUNNEL_CPU", tables[i].name, 1);
        check(mixed_path);
        check(small_path);
    }
    unsetenv("RUNNEL_CPU");
}

static void chunks_and_threads(void **state)
{
    (void)state;
    with_every_instruction_set(chunks_and_threads_change_no_bit);
}

static void company(void **state)
{
    (void)state;
    with_every_instruction_set(company_changes_no_bit);
}

static void generated_and_prompted(void **state)
{
    (void)state;
    with_every_instruction_set(generated_is_as_prompted);
}

/* Requests ------------------------------------------------------------------------------------------------ */

static void expect_failure(const struct fixture *fixture, const runnel_request *request, int code,
                           const char *named)
{
    runnel_error error;
    runnel_response response;
    memset(&response, 0x5a, sizeof response);
    response.size = sizeof response;
    runnel_response before = response;
    assert_int_equal(runnel_respond(fixture->engine, request, &response, &error), code);
    if (!strstr(error.message, named))
        fail_msg("\"%s\" does not name %s", error.message, named);
    assert_memory_equal(&response, &before, sizeof response);
}

static void wrong_requests_are_named(void **state)
{
    (void)state;
    struct fixture fixture = open_model(mixed_path, 1, 64, 1);
    int32_t ids[64] = {1, 2, 3};
    runnel_request good = request_of(&fixture, ids, 3), request = good;
    good.max_tokens = 4;

    request = good;
    request.prompt = "both";
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "prompt_ids");
    request.encoded = true;
    request.n_messages = 1;
    request.messages = &(const runnel_message){.role = "user", .content = "three"};
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "prompt_ids");
    request = good;
    request.n_prompt_ids = 0;
    request.prompt_ids = NULL;
    request.n_messages = 1;
    request.messages = &(const runnel_message){.role = "user", .content = "three"};
    request.raw = true;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "raw: given with messages");
    request = good;
    request.encoded = true; /* from what? */
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "prompt_ids");
    request = good;
    request.n_prompt_ids = 0;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "empty");
    request = good;
    request.n_prompt_ids = 64;
    expect_failure(&fixture, &request, RUNNEL_ECONTEXT, "64 tokens");
    request = good;
    request.max_tokens = -1;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "max_tokens");
    request = good;
    request.min_tokens = 5;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "min_tokens: 5, expected at most max_tokens, 4");
    request = good;
    own_sampling(fixture.model, &request)->temperature = -1;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "temperature");
    request = good;
    request.stop = (const char *const[]){""};
    request.n_stop = 1;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "stop");
    ids[1] = (int32_t)fixture.n_vocab;
    expect_failure(&fixture, &good, RUNNEL_EINVAL, "token 1");
    ids[1] = -1;
    expect_failure(&fixture, &good, RUNNEL_EINVAL, "token 1");
    request = good;
    request.size = 3;
    expect_failure(&fixture, &request, RUNNEL_EINVAL, "size");

    ids[1] = 2; /* and after all that, a good one is answered */
    runnel_response response = {.size = sizeof response};
    assert_int_equal(runnel_respond(fixture.engine, &good, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.n_tokens, 4);
    runnel_response_free(&response);
    close_model(&fixture);
}

static void the_context_bounds_the_answer(void **state)
{
    (void)state;
    struct fixture fixture = open_model(mixed_path, 1, 64, 1);
    int32_t ids[40];
    make_ids(ids, 40, 9);
    runnel_request request = request_of(&fixture, ids, 40);
    runnel_response response = {.size = sizeof response};
    request.max_tokens = 0;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.n_prompt_tokens + response.n_tokens, 64);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    runnel_response_free(&response);
    close_model(&fixture);
}

struct heard {
    char thoughts[4096], answer[4096];
    size_t thoughts_len, answer_len;
    size_t n_events;
    size_t ends_after; /* events */
    enum runnel_finish_reason finish_reason;
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    heard->n_events++;
    if (event->kind == RUNNEL_EVENT_FINISH)
        heard->finish_reason = event->finish_reason;
    else {
        bool is_thought = event->kind == RUNNEL_EVENT_THOUGHT;
        size_t *len = is_thought ? &heard->thoughts_len : &heard->answer_len;
        assert_true(event->text_len > 0 && *len + event->text_len <= sizeof heard->answer);
        memcpy((is_thought ? heard->thoughts : heard->answer) + *len, event->text, event->text_len);
        *len += event->text_len;
    }
    return !heard->ends_after || heard->n_events < heard->ends_after;
}

/* A logit bias leads a random model by the hand: it can only draw these tokens. */
static runnel_request led_by(const struct fixture *fixture, const runnel_logit_bias *bias, size_t n)
{
    runnel_request request;
    runnel_request_init(&request);
    own_sampling(fixture->model, &request)->logit_bias = bias;
    own_sampling(fixture->model, &request)->n_logit_bias = n;
    return request;
}

/* 日 is three tokens of this vocabulary. */
static void a_character_that_is_cut_off_is_left_out(void **state)
{
    (void)state;
    struct fixture fixture = open_model(r1_path, 2, 256, 1);
    runnel_logit_bias byte = {.bias = 100};
    runnel_request request = led_by(&fixture, &byte, 1);
    runnel_response response = {.size = sizeof response};
    request.prompt = "world";
    request.raw = true;
    request.max_tokens = 2;
    byte.token = 0xe6;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(response.n_tokens, 2);
    assert_string_equal(response.text, "\xef\xbf\xbd"); /* the first is no character, whatever comes */
    runnel_response_free(&response);
    request.max_tokens = 1;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.n_tokens, 1);
    assert_string_equal(response.text, "");
    runnel_response_free(&response);
    close_model(&fixture);
}

static void events_are_the_response(void **state)
{
    (void)state;
    struct fixture fixture = open_model(r1_path, 2, 256, 1);
    const runnel_logit_bias think_end[] = {{TINY_TOKEN_THINK_END, 1}, {TINY_TOKEN_R1_END, -100}};
    runnel_request request = led_by(&fixture, think_end, 2);
    struct heard heard = {0};
    runnel_response response = {.size = sizeof response};
    request.prompt = "world";
    request.max_tokens = 100;
    own_sampling(fixture.model, &request)->seed = 6;
    request.on_event = hear;
    request.user = &heard;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(heard.thoughts_len, response.reasoning_len);
    assert_int_equal(heard.answer_len, response.text_len);
    assert_memory_equal(heard.thoughts, response.reasoning, heard.thoughts_len);
    assert_memory_equal(heard.answer, response.text, heard.answer_len);
    assert_int_equal(heard.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_true(response.reasoning_len > 0); /* R1's prompt has opened <think> */
    assert_true(response.text_len > 0);
    assert_null(strstr(response.reasoning, "think>"));
    assert_true(response.n_reasoning_tokens > 0 && response.n_reasoning_tokens < response.n_tokens);
    runnel_response_free(&response);

    request.no_thinking = true;
    memset(&heard, 0, sizeof heard);
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.n_reasoning_tokens, 0);
    runnel_response_free(&response);
    close_model(&fixture);
}

static void answers_end_where_they_should(void **state)
{
    (void)state;
    struct fixture fixture = open_model(r1_path, 1, 256, 1);
    const runnel_logit_bias only_end[] = {{TINY_TOKEN_R1_END, 100}};
    const runnel_logit_bias only_letter[] = {{'a', 100}}; /* not the letter's id, but always the same token */
    runnel_response response = {.size = sizeof response};

    runnel_request request = led_by(&fixture, only_end, 1);
    request.prompt = "hello";
    request.no_thinking = true; /* in a thought it is no end of the answer */
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
    assert_int_equal(response.n_tokens, 1);
    assert_string_equal(response.text, "");
    runnel_response_free(&response);

    request.ignore_eos = true;
    request.max_tokens = 7;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(response.n_tokens, 7);
    runnel_response_free(&response);

    request = led_by(&fixture, only_letter, 1);
    request.prompt = "hello";
    request.raw = true;
    request.max_tokens = 50;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    char letter = response.text[0];
    runnel_response_free(&response);
    char stop[] = {letter, letter, letter, 0};
    request.stop = (const char *const[]){stop};
    request.n_stop = 1;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
    assert_string_equal(response.text, "");
    assert_int_equal(response.n_tokens, 3);
    runnel_response_free(&response);

    struct heard heard = {.ends_after = 2};
    request.n_stop = 0;
    request.on_event = hear;
    request.user = &heard;
    assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
    assert_true(response.n_tokens < 5);
    runnel_response_free(&response);
    close_model(&fixture);
}

/* The end token is not drawn before its time, however likely it is. */
static void end_tokens_wait_for_min_tokens(void **state)
{
    (void)state;
    struct fixture fixture = open_model(r1_path, 1, 256, 1);
    const runnel_logit_bias towards_end[] = {{TINY_TOKEN_R1_END, 100}};
    for (int n = 0; n < 4; n++) {
        runnel_response response = {.size = sizeof response};
        runnel_request request = led_by(&fixture, towards_end, 1);
        request.prompt = "hello";
        request.no_thinking = true;
        request.min_tokens = n;
        request.max_tokens = 9;
        assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_OK);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
        assert_int_equal(response.n_tokens, n + 1);
        runnel_response_free(&response);
        request.min_tokens = -1 - n;
        assert_int_equal(runnel_respond(fixture.engine, &request, &response, NULL), RUNNEL_EINVAL);
    }
    close_model(&fixture);
}

static void numbers_that_are_not_finite_end_the_request_alone(void **state)
{
    (void)state;
    const struct kernels *tables;
    const size_t n_tables = kernels_possible(&tables);
    for (size_t i = 0; i < n_tables; i++) {
        setenv("RUNNEL_CPU", tables[i].name, 1);
        struct fixture fixture = open_model(poisoned_path, 1, 64, 1);
        const int32_t ids[] = {1, 2, 3};
        runnel_request request = request_of(&fixture, ids, 3);
        for (int j = 0; j < 3; j++)
            expect_failure(&fixture, &request, RUNNEL_ENUMERIC, "finite");
        close_model(&fixture);
    }
    unsetenv("RUNNEL_CPU");
}

/* Of several requests, the one at fault: when they are checked, and when they are computed. */
static void a_batch_names_the_request_at_fault(void **state)
{
    (void)state;
    struct fixture fixture = open_model(mixed_path, 1, 64, 3);
    const int32_t ids[] = {1, 2, 3};
    runnel_request requests[3] = {request_of(&fixture, ids, 3), request_of(&fixture, ids, 3),
                                  request_of(&fixture, ids, 3)};
    runnel_future *futures[3];
    runnel_response responses[3] = {{.size = sizeof *responses}};
    runnel_error error;
    requests[2].max_tokens = -1;
    assert_int_equal(runnel_submit(fixture.engine, requests, 3, futures, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "requests[2]: max_tokens: -1, expected 0 or more");
    assert_int_equal(runnel_submit(fixture.engine, &requests[2], 1, futures, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "max_tokens: -1, expected 0 or more"); /* which one is plain */
    requests[1].n_prompt_ids = 0;
    assert_int_equal(runnel_respond_many(fixture.engine, requests, 3, responses, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "requests[1]: the prompt is empty");
    assert_int_equal(runnel_submit(fixture.engine, requests, 3, futures, NULL), RUNNEL_EINVAL);
    close_model(&fixture);

    fixture = open_model(poisoned_path, 1, 64, 2);
    requests[0] = requests[1] = request_of(&fixture, ids, 3);
    assert_int_equal(runnel_respond_many(fixture.engine, requests, 2, responses, &error), RUNNEL_ENUMERIC);
    assert_ptr_equal(strstr(error.message, "requests[0]: "), error.message);
    close_model(&fixture);
}

static void the_short_form_answers(void **state)
{
    (void)state;
    struct fixture fixture = open_model(mixed_path, 2, 128, 1);
    runnel_error error;
    char *text = NULL;
    assert_int_equal(runnel_generate(fixture.engine, "hello world", 12, 0, &text, &error), RUNNEL_OK);
    assert_non_null(text);
    runnel_text_free(text);

    float *logits = calloc(fixture.n_vocab, sizeof *logits);
    assert_int_equal(runnel_get_logits(fixture.engine, "hello", logits, fixture.n_vocab, &error), RUNNEL_OK);
    float sum = 0;
    for (uint32_t i = 0; i < fixture.n_vocab; i++)
        sum += logits[i] * logits[i];
    assert_true(sum > 0);
    assert_int_equal(runnel_get_logits(fixture.engine, "hello", logits, fixture.n_vocab - 1, &error),
                     RUNNEL_EINVAL);
    assert_int_equal(runnel_get_logits(fixture.engine, "", logits, fixture.n_vocab, &error), RUNNEL_EINVAL);
    free(logits);
    close_model(&fixture);
}

/* Scratch grows with the rows of a step and not with the context: attention holds no scores of whole
 * contexts. */
static void attention_memory_is_linear_in_the_context(void **state)
{
    (void)state;
    size_t scratch[2], cache[2];
    for (int i = 0; i < 2; i++) {
        struct fixture fixture = open_model(mixed_path, 1, i ? 1024 : 128, 1);
        struct backend_memory memory;
        forward_get_memory(fixture.engine->forward, &memory);
        scratch[i] = memory.scratch_bytes;
        cache[i] = memory.kv_bytes;
        close_model(&fixture);
    }
    assert_int_equal(scratch[0], scratch[1]);
    assert_int_equal(cache[1], 8 * cache[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_and_threads),
        cmocka_unit_test(company),
        cmocka_unit_test(generated_and_prompted),
        cmocka_unit_test(wrong_requests_are_named),
        cmocka_unit_test(the_context_bounds_the_answer),
        cmocka_unit_test(a_character_that_is_cut_off_is_left_out),
        cmocka_unit_test(events_are_the_response),
        cmocka_unit_test(answers_end_where_they_should),
        cmocka_unit_test(end_tokens_wait_for_min_tokens),
        cmocka_unit_test(numbers_that_are_not_finite_end_the_request_alone),
        cmocka_unit_test(a_batch_names_the_request_at_fault),
        cmocka_unit_test(the_short_form_answers),
        cmocka_unit_test(attention_memory_is_linear_in_the_context),
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
