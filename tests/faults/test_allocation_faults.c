/* test_allocation_faults.c: the n-th allocation fails, once and from then on, for every n, in everything that
 * the library does: it says so, leaves outputs alone and memory as it was, and then does the same as if
 * nothing had happened. */
#include "engine/call_constraint.h"
#include "engine/grammar_constraint.h"
#include "engine/grammar_source.h"
#include "engine/model.h"
#include "engine/thread_trial.h"
#include "faults/faults.h"
#include "helpers/split_model.h"
#include "helpers/tiny_model.h"
#include "runnel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_THREADS = 2, N_PARTS = 3, MORE_THAN_ENOUGH = 10000 };

static char path[] = "/tmp/runnel-faults-XXXXXX";
static char parts_path[64]; /* of the first of the same model in parts */
static runnel_model *shared_model;
static runnel_engine *shared_engine;

#define FNV_OFFSET 0xcbf29ce484222325u

/* Files that hold a vocabulary alone. */
static struct {
    const char *pre;
    char path[32];
} vocabularies[] = {{"sentencepiece", "/tmp/faults-XXXXXX"}, {"falcon", "/tmp/faults-XXXXXX"}};
enum { N_VOCABULARIES = sizeof vocabularies / sizeof *vocabularies };

/* What an action gave, so that two runs can be compared. */
struct result {
    uint64_t hash;
};

static void add(struct result *result, const void *bytes, size_t n)
{
    const unsigned char *from = bytes;
    for (size_t i = 0; i < n; i++)
        result->hash = (result->hash ^ from[i]) * 0x100000001b3u;
}

static void assert_untouched(const void *output, size_t n)
{
    const unsigned char *bytes = output;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], 0xa5);
}

/* Actions: each runs one thing, and frees all that it got. *result is changed only by a success.
 * ------------- */

static int open_model_at(const char *model_path, runnel_model **model, runnel_error *error)
{
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.n_threads = N_THREADS;
    memset(model, 0xa5, sizeof *model);
    int failure = runnel_model_open(model_path, &options, model, error);
    if (failure)
        assert_untouched(model, sizeof *model);
    return failure;
}

static int open_model(runnel_model **model, runnel_error *error)
{
    return open_model_at(path, model, error);
}

static int start_engine(runnel_engine **engine, runnel_error *error)
{
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = 256;
    options.n_parallel = 3;
    memset(engine, 0xa5, sizeof *engine);
    int failure = runnel_engine_start(shared_model, &options, engine, error);
    if (failure)
        assert_untouched(engine, sizeof *engine);
    return failure;
}

static int act_open(struct result *result, runnel_error *error)
{
    runnel_model *model;
    runnel_model_info info = {.size = sizeof info};
    int failure = open_model(&model, error);
    if (failure)
        return failure;
    runnel_model_get_info(model, &info);
    add(result, info.name, strlen(info.name));
    add(result, info.chat_template, strlen(info.chat_template));
    add(result, &info.n_parameters, sizeof info.n_parameters);
    runnel_model_close(model);
    return RUNNEL_OK;
}

static int act_open_parts(struct result *result, runnel_error *error)
{
    runnel_model *model;
    runnel_model_info info = {.size = sizeof info};
    int failure = open_model_at(parts_path, &model, error);
    if (failure)
        return failure;
    runnel_model_get_info(model, &info);
    add(result, info.name, strlen(info.name));
    add(result, info.chat_template, strlen(info.chat_template));
    add(result, &info.n_parameters, sizeof info.n_parameters);
    runnel_model_close(model);
    return RUNNEL_OK;
}

/* As opening does under a quota or beside a busy CPU. */
static int act_measure_threads(struct result *result, runnel_error *error)
{
    struct team *team;
    struct thread_choice choice;
    int failure = team_create(N_THREADS, &team, error);
    if (failure)
        return failure;
    failure = thread_trial_measure(shared_model->kernels, shared_model->weights, team, THREADS_BUSY_CPU, 0,
                                   &choice, error);
    team_free(team);
    if (!failure)
        add(result, &choice.cause, sizeof choice.cause);
    return failure;
}

static int act_start(struct result *result, runnel_error *error)
{
    runnel_engine *engine;
    int failure = start_engine(&engine, error);
    if (failure)
        return failure;
    add(result, "started", 7);
    runnel_engine_stop(engine);
    return RUNNEL_OK;
}

static void add_response(struct result *result, runnel_response *response)
{
    add(result, response->text, response->text_len);
    add(result, response->reasoning, response->reasoning_len);
    add(result, &response->logits_hash, sizeof response->logits_hash);
    runnel_response_free(response);
}

static const char *const stops[] = {"never to be seen", "nor this"};
static const runnel_logit_bias bias = {.token = 7, .bias = -100};

static void describe_request(runnel_request *request)
{
    static runnel_sampling sampling;
    runnel_sampling_init(shared_model, &sampling);
    runnel_request_init(request);
    request->max_tokens = 40;
    request->ignore_eos = true;
    request->wants_logits_hash = true;
    request->stop = stops;
    request->n_stop = 2;
    sampling.seed = 5;
    sampling.repetition_penalty = 1.1f;
    sampling.logit_bias = &bias;
    sampling.n_logit_bias = 1;
    request->sampling = &sampling;
}

static int act_respond(struct result *result, runnel_error *error)
{
    static const runnel_message messages[] = {{"system", "Be brief.", 0},
                                              {"user", "What is 12 times 12?", 0},
                                              {"assistant", "144", 0},
                                              {"user", "And 13?", 0}};
    runnel_request request;
    runnel_response response;
    describe_request(&request);
    request.messages = messages;
    request.n_messages = 4;
    memset(&response, 0xa5, sizeof response);
    response.size = sizeof response;
    int failure = runnel_respond(shared_engine, &request, &response, error);
    if (failure)
        assert_untouched(&response.size + 1, sizeof response - sizeof response.size);
    else
        add_response(result, &response);
    return failure;
}

static int act_respond_many(struct result *result, runnel_error *error)
{
    static const int32_t ids[] = {65, 66, 67, 68};
    runnel_request requests[3];
    runnel_response responses[3];
    for (int i = 0; i < 3; i++)
        describe_request(&requests[i]);
    requests[0].prompt = "A question";
    requests[0].thinking_message = "So.";
    requests[1].prompt = "Raw text <think> and so on";
    requests[1].raw = true;
    requests[2].prompt_ids = ids;
    requests[2].n_prompt_ids = 4;
    memset(responses, 0xa5, sizeof responses);
    responses->size = sizeof *responses;
    int failure = runnel_respond_many(shared_engine, requests, 3, responses, error);
    if (failure)
        assert_untouched(&responses->size + 1, sizeof responses - sizeof responses->size);
    for (int i = 0; i < 3 && !failure; i++)
        add_response(result, &responses[i]);
    return failure;
}

static int act_generate(struct result *result, runnel_error *error)
{
    char *text;
    memset(&text, 0xa5, sizeof text);
    int failure = runnel_generate(shared_engine, "Say something", 20, 0, &text, error);
    if (failure) {
        assert_untouched(&text, sizeof text);
        return failure;
    }
    add(result, text, strlen(text) + 1);
    runnel_text_free(text);
    return RUNNEL_OK;
}

static int act_logits(struct result *result, runnel_error *error)
{
    float logits[TINY_MODEL_TOKENS];
    memset(logits, 0xa5, sizeof logits);
    int failure = runnel_get_logits(shared_engine, "some words in a row", logits, TINY_MODEL_TOKENS, error);
    if (failure)
        assert_untouched(logits, sizeof logits);
    else
        add(result, logits, sizeof logits);
    return failure;
}

static int act_tokens(struct result *result, runnel_error *error)
{
    static const char words[] = "Gr\xc3\xbc\xc3\x9f"
                                "e, <think> 12345 \n\n and a good many more words, so that lists grow: "
                                "one two three four five six seven eight nine ten eleven twelve thirteen";
    int32_t *ids;
    size_t n_ids, len;
    char *text;
    memset(&ids, 0xa5, sizeof ids);
    memset(&n_ids, 0xa5, sizeof n_ids);
    memset(&text, 0xa5, sizeof text);
    int failure = runnel_tokenize(shared_model, words, sizeof words - 1, true, &ids, &n_ids, error);
    if (failure) {
        assert_untouched(&ids, sizeof ids);
        assert_untouched(&n_ids, sizeof n_ids);
        return failure;
    }
    failure = runnel_detokenize(shared_model, ids, n_ids, true, &text, &len, error);
    if (failure) {
        assert_untouched(&text, sizeof text);
    } else {
        add(result, ids, n_ids * sizeof *ids);
        add(result, text, len);
        runnel_text_free(text);
    }
    runnel_tokens_free(ids);
    return failure;
}

/* Other tokenizers than the model's. */
static int act_tokenizers(struct result *result, runnel_error *error)
{
    static const char words[] =
        "Gr\xc3\xbc\xc3\x9f"
        "e, <think> 12345 \n\n \xff and a good many more words: one two three four five";
    struct result all = *result;
    for (size_t i = 0; i < N_VOCABULARIES; i++) {
        struct token_list list = {0};
        struct tokenizer *tokenizer = NULL;
        struct gguf *gguf = NULL;
        int failure = gguf_open(vocabularies[i].path, &gguf, error);
        if (!failure)
            failure = tokenizer_create(gguf, &tokenizer, error);
        gguf_close(gguf);
        if (!failure)
            failure = tokenizer_encode(tokenizer, words, sizeof words - 1, NULL, 0, &list, error);
        if (failure)
            assert_int_equal(list.n, 0);
        add(&all, list.ids, list.n * sizeof *list.ids);
        free(list.ids);
        tokenizer_free(tokenizer);
        if (failure)
            return failure;
    }
    *result = all;
    return RUNNEL_OK;
}

static int act_format(struct result *result, runnel_error *error)
{
    static const runnel_message messages[] = {{"system", "Be brief.", 0},
                                              {"user", "What is 12 times 12?", 0}};
    char *text;
    memset(&text, 0xa5, sizeof text);
    int failure = runnel_chat_format(shared_model, messages, 2, true, &text, error);
    if (failure) {
        assert_untouched(&text, sizeof text);
        return failure;
    }
    add(result, text, strlen(text));
    runnel_text_free(text);
    return RUNNEL_OK;
}

/* Failing ---------------------------------------------------------------------------------------------------
 */

static struct result act_well(int (*act)(struct result *result, runnel_error *error))
{
    struct result result = {FNV_OFFSET};
    runnel_error error;
    if (act(&result, &error))
        fail_msg("without a fault: %s", error.message);
    assert_true(result.hash != FNV_OFFSET);
    return result;
}

/* Runs act with the n-th allocation failing. Returns whether it got that far. */
static bool act_with_fault(int (*act)(struct result *result, runnel_error *error), unsigned n,
                           unsigned n_failing, struct result expected, unsigned *n_failed)
{
    struct result result = {FNV_OFFSET};
    runnel_error error = {.code = 1};
    size_t n_pieces = faults_live_pieces(), n_mapped = faults_mapped_bytes();
    faults_arm(FAULT_MEMORY, n, n_failing);
    int failure = act(&result, &error);
    unsigned n_faults = faults_disarm();
    if (failure) {
        ++*n_failed;
        if (failure != RUNNEL_ENOMEM || error.code != failure || !n_faults)
            fail_msg("allocation %u: code %d, error.code %d: %s", n, failure, error.code, error.message);
        if (!*error.message || strchr(error.message, '\n'))
            fail_msg("allocation %u: expected a line of text, found '%s'", n, error.message);
    } else if (result.hash != expected.hash) {
        fail_msg("allocation %u: another result", n);
    }
    if (faults_live_pieces() != n_pieces)
        fail_msg("allocation %u: %zu pieces alive, before it %zu (%s)", n, faults_live_pieces(), n_pieces,
                 failure ? error.message : "it succeeded");
    if (faults_mapped_bytes() != n_mapped)
        fail_msg("allocation %u: %zu bytes mapped, before it %zu", n, faults_mapped_bytes(), n_mapped);
    struct result again = act_well(act);
    if (again.hash != expected.hash)
        fail_msg("after allocation %u failed: another result", n);
    return n_faults > 0;
}

static void fail_every_allocation(void **state)
{
    int (*act)(struct result *, runnel_error *) = *(int (**)(struct result *, runnel_error *)) * state;
    struct result expected = act_well(act);
    assert_true(act_well(act).hash == expected.hash); /* else the comparisons below mean nothing */
    for (unsigned n_failing = 0; n_failing <= 1; n_failing++) {
        unsigned n = 1, n_failed = 0;
        while (act_with_fault(act, n, n_failing, expected, &n_failed))
            assert_true(n++ < MORE_THAN_ENOUGH);
        print_message("%u allocations, failing %s: %u errors\n", n - 1, n_failing ? "once" : "from then on",
                      n_failed);
        assert_true(n > 1 && n_failed > 0);
        if (!n_failing)
            assert_int_equal(n_failed, n - 1);
    }
}

/* The form in which a tiny model calls tools. */
static const struct tool_form *hermes(void)
{
    size_t n;
    const struct tool_form *form = tool_forms(&n);
    while (strcmp(form->name, "hermes") != 0)
        form++;
    return form;
}

/* A constraint of its own vocabulary, compiled, and an answer's part of it. */
static int constrain(const runnel_request *request, runnel_error *error)
{
    static const struct grammar_constraint_options options = {.waits_for_thought = true};
    static const struct tool_names no_names;
    struct grammar_store *store;
    struct constraint *constraint;
    runnel_grammar *grammar;
    int failure = grammar_store_create(shared_model->tokenizer, TINY_MODEL_TOKENS, hermes(), &store, error);
    if (failure)
        return failure;
    failure = grammar_store_get(store, request, &grammar, error);
    if (!failure && grammar_source_kind(request) == GRAMMAR_OF_PARTS)
        failure = call_constraint_create(grammar, hermes(), &no_names, &constraint, error);
    else if (!failure)
        failure = grammar_constraint_create(grammar, &options, &constraint, error);
    if (!failure)
        constraint->free(constraint);
    grammar_store_let_go(store);
    return failure;
}

/* Where memory runs out while a grammar grows, it may be said to be too large. */
static void check_constraint(const runnel_request *request)
{
    unsigned n = 1, n_faults = 1;
    for (; n_faults; n++) {
        runnel_error error = {0};
        size_t n_pieces = faults_live_pieces(), n_mapped = faults_mapped_bytes();
        faults_arm(FAULT_MEMORY, n, 0);
        int failure = constrain(request, &error);
        n_faults = faults_disarm();
        if ((failure != 0) != (n_faults != 0) || failure != error.code ||
            (failure && failure != RUNNEL_ENOMEM && failure != RUNNEL_EUNSUPPORTED))
            fail_msg("allocation %u: code %d: %s", n, failure, error.message);
        assert_int_equal(faults_live_pieces(), n_pieces);
        assert_int_equal(faults_mapped_bytes(), n_mapped);
    }
    assert_true(n > 5);
}

static void constraints_fail_and_leave_nothing(void **state)
{
    (void)state;
    static const char *const choices[] = {"one", "two"};
    static const struct {
        enum runnel_constraint kind;
        const char *text;
    } kinds[] = {
        {RUNNEL_CONSTRAINT_JSON, NULL},
        {RUNNEL_CONSTRAINT_SCHEMA,
         "{\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"pattern\":\"x+\"}},\"required\":[\"b\"]}"},
        {RUNNEL_CONSTRAINT_REGEX, "(a|b{2,5})*c"},
        {RUNNEL_CONSTRAINT_CHOICE, NULL},
        {RUNNEL_CONSTRAINT_GRAMMAR, "root ::= root \"a\" | b\nb ::= \"b\" b?"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        runnel_request request;
        runnel_request_init(&request);
        request.constraint = kinds[i].kind;
        request.constraint_text = kinds[i].text;
        request.choices = choices;
        request.n_choices = kinds[i].kind == RUNNEL_CONSTRAINT_CHOICE ? 2 : 0;
        check_constraint(&request);
    }
}

static void constraints_of_tools_fail_and_leave_nothing(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        runnel_request request;
        runnel_request_init(&request);
        request.tools =
            "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"enum\":[1,2]}}}}},"
            "{\"function\":{\"name\":\"g\"}}]";
        request.must_call = kind == 1;
        request.constraint = kind == 2 ? RUNNEL_CONSTRAINT_JSON : RUNNEL_CONSTRAINT_NONE;
        check_constraint(&request);
    }
}

/* Without a runnel_error to fill, the code is all there is. */
static void the_code_is_right_without_an_error_to_fill(void **state)
{
    (void)state;
    runnel_model *model;
    for (unsigned n = 1;; n++) {
        faults_arm(FAULT_MEMORY, n, 1);
        int failure = runnel_model_open(path, NULL, &model, NULL);
        if (!faults_disarm()) {
            assert_int_equal(failure, RUNNEL_OK);
            runnel_model_close(model);
            break;
        }
        if (!failure)
            runnel_model_close(model);
        else
            assert_int_equal(failure, RUNNEL_ENOMEM);
    }
}

static int write_vocabulary(const char *pre, char *vocabulary_path)
{
    struct gguf_writer *writer = gguf_writer_create();
    int fd = mkstemp(vocabulary_path);
    if (fd < 0 || !writer)
        return -1;
    close(fd);
    tiny_model_add_tokenizer(writer, pre, NULL, 0);
    int failure = gguf_writer_save(writer, vocabulary_path, NULL);
    gguf_writer_free(writer);
    return failure;
}

static int set_up(void **state)
{
    (void)state;
    runnel_error error;
    struct tiny_model_options options;
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    tiny_model_defaults(&options);
    options.chat = "r1";
    options.pre = "deepseek-r1-qwen";
    struct split_model_options split;
    split_model_defaults(&split, N_PARTS);
    split_model_path(path, 1, N_PARTS, parts_path, sizeof parts_path);
    for (size_t i = 0; i < N_VOCABULARIES; i++)
        if (write_vocabulary(vocabularies[i].pre, vocabularies[i].path))
            return -1;
    if (tiny_model_write(&options, path, &error) || split_model_write(&split, path, path, &error) ||
        open_model(&shared_model, &error) || start_engine(&shared_engine, &error)) {
        print_error("%s\n", error.message);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    runnel_engine_stop(shared_engine);
    runnel_model_close(shared_model);
    unlink(path);
    for (unsigned part = 1; part <= N_PARTS; part++) {
        split_model_path(path, part, N_PARTS, parts_path, sizeof parts_path);
        unlink(parts_path);
    }
    for (size_t i = 0; i < N_VOCABULARIES; i++)
        unlink(vocabularies[i].path);
    if (faults_live_pieces() || faults_mapped_bytes()) {
        print_error("%zu pieces and %zu mapped bytes are left\n", faults_live_pieces(),
                    faults_mapped_bytes());
        return -1;
    }
    return 0;
}

#define ACTION(name) static int (*const name##_action)(struct result *, runnel_error *) = name
ACTION(act_open);
ACTION(act_open_parts);
ACTION(act_measure_threads);
ACTION(act_start);
ACTION(act_respond);
ACTION(act_respond_many);
ACTION(act_generate);
ACTION(act_logits);
ACTION(act_tokens);
ACTION(act_tokenizers);
ACTION(act_format);

#define FAIL_EVERY(name)                                                                                     \
    {                                                                                                        \
#name, fail_every_allocation, NULL, NULL, (void *)(uintptr_t)&name##_action                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAIL_EVERY(act_open),
        FAIL_EVERY(act_open_parts),
        FAIL_EVERY(act_measure_threads),
        FAIL_EVERY(act_start),
        FAIL_EVERY(act_respond),
        FAIL_EVERY(act_respond_many),
        FAIL_EVERY(act_generate),
        FAIL_EVERY(act_logits),
        FAIL_EVERY(act_tokens),
        FAIL_EVERY(act_tokenizers),
        FAIL_EVERY(act_format),
        cmocka_unit_test(constraints_fail_and_leave_nothing),
        cmocka_unit_test(constraints_of_tools_fail_and_leave_nothing),
        cmocka_unit_test(the_code_is_right_without_an_error_to_fill),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
