/* test_constrained.c: answers that are kept to something: whatever the model would draw, the text is one of those that it may be;
 * alone and beside others, after draws that were taken back, behind a thought, and together with all else that a request may
 * say. */
#include "constrain/json_tree.h"
#include "engine/answer.h"
#include "engine/grammar_store.h"
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_VOCAB = TINY_MODEL_TOKENS, N_TOKENS = 400, N_SEEDS = 12, N_KINDS = 5 };

static const char point[] = "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":0,"
                            "\"maximum\":99},\"to\":{\"enum\":["
                            "\"x\",\"yy\"]}},\"required\":[\"n\",\"to\"],\"additionalProperties\":false}";
static const char *const colours[] = {"red", "green", "\nblue"};

static runnel_model *model;

static int open_model(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1"; /* it thinks */
    model = tiny_engine_open(&options);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    runnel_model_close(model);
    return 0;
}

static runnel_engine *start(uint32_t n_parallel)
{
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_parallel = n_parallel;
    options.n_context = 512;
    return tiny_engine_start(model, options);
}

/* One of each kind. */
static runnel_request constrained(unsigned kind, uint64_t seed)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = "say something";
    request.no_thinking = true;
    request.max_tokens = N_TOKENS;
    runnel_sampling *sampling = own_sampling(model, &request);
    sampling->temperature = 2;
    sampling->top_k = 0;
    sampling->top_p = 1;
    sampling->min_p = 0;
    sampling->seed = seed;
    switch (kind) {
    case 0:
        request.constraint = RUNNEL_CONSTRAINT_SCHEMA;
        request.constraint_text = point;
        break;
    case 1:
        request.constraint = RUNNEL_CONSTRAINT_CHOICE;
        request.choices = colours;
        request.n_choices = 3;
        break;
    case 2:
        request.constraint = RUNNEL_CONSTRAINT_REGEX;
        request.constraint_text = "[ab]{2,5}c?";
        break;
    case 3:
        request.constraint = RUNNEL_CONSTRAINT_GRAMMAR;
        request.constraint_text = "root ::= (\"<\" root \">\" | \"o\" | \"think\"){1,2}";
        break;
    default:
        request.constraint = RUNNEL_CONSTRAINT_JSON;
        break;
    }
    return request;
}

/* Values ---------------------------------------------------------------------------------------------------- */

static const char *skip_spaces(const char *text)
{
    return text + strspn(text, " \t\r\n");
}

/* Its members in their order, however they are written. */
static bool is_point(const char *text)
{
    struct json_text json;
    if (json_tree_read(text, strlen(text), &json, NULL))
        return false;
    const struct json *root = &json.root, *n = root->items, *to = root->items + 1;
    bool good = root->kind == JSON_OBJECT && root->n == 2 && !strcmp(n->name, "n") &&
                n->kind == JSON_NUMBER && atof(n->text) >= 0 && atof(n->text) <= 99 &&
                !strcmp(to->name, "to") && (json_tree_is(to, "x") || json_tree_is(to, "yy"));
    json_tree_free(&json);
    return good;
}

static bool is_ab(const char *text)
{
    size_t n = strspn(text, "ab");
    return n >= 2 && n <= 5 && (!text[n] || !strcmp(text + n, "c"));
}

/* Of the grammar above. */
static const char *read_root(const char *text)
{
    for (int i = 0; i < 2; i++) {
        if (*text == '<') {
            text = read_root(text + 1);
            if (!text || *text++ != '>')
                return NULL;
        } else if (*text == 'o') {
            text++;
        } else if (!strncmp(text, "think", 5)) {
            text += 5;
        } else {
            return i ? text : NULL;
        }
    }
    return text;
}

static void check_text(unsigned kind, const runnel_response *response)
{
    const char *text = response->text;
    bool good;
    switch (kind) {
    case 0:
        good = is_point(text);
        break;
    case 1:
        good = !strcmp(text, colours[0]) || !strcmp(text, colours[1]) || !strcmp(text, colours[2]);
        break;
    case 2:
        good = is_ab(text);
        break;
    case 3:
        good = read_root(text) && !*read_root(text);
        break;
    default:
        good = *skip_spaces(text) == '{';
        break;
    }
    if (response->finish_reason == RUNNEL_FINISH_LENGTH && (kind == 3 || kind == 4))
        return; /* nests without an end */
    if (!good || strlen(text) != response->text_len)
        fail_msg("constraint %u: '%s'", kind, text);
    assert_int_equal(response->finish_reason, RUNNEL_FINISH_STOP);
    assert_int_equal(response->stop_index, -1);
}

static runnel_response ask(runnel_engine *engine, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    return response;
}

/* Texts ----------------------------------------------------------------------------------------------------- */

static void texts_are_kept_to_it(void **state)
{
    (void)state;
    runnel_engine *engine = start(1);
    for (unsigned kind = 0; kind < N_KINDS; kind++)
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            runnel_request request = constrained(kind, seed);
            runnel_response response = ask(engine, &request);
            check_text(kind, &response);
            runnel_response_free(&response);
        }
    runnel_engine_stop(engine);
}

/* The same seed, with others beside it whose constraints are the same and other ones. */
static void company_changes_nothing(void **state)
{
    (void)state;
    enum { N = 2 * N_KINDS };
    runnel_request requests[N];
    runnel_response responses[N] = {{.size = sizeof *responses}};
    runnel_error error;
    runnel_engine *alone = start(1), *together = start(N);
    for (unsigned i = 0; i < N; i++) {
        requests[i] = constrained(i % N_KINDS, i);
        requests[i].no_thinking = i < N_KINDS;
        requests[i].thinking_budget = 9;
        requests[i].wants_logits_hash = true;
    }
    if (runnel_respond_many(together, requests, N, responses, &error))
        fail_msg("%s", error.message);
    for (unsigned i = 0; i < N; i++) {
        runnel_response one = ask(alone, &requests[i]);
        assert_string_equal(one.text, responses[i].text);
        assert_string_equal(one.reasoning, responses[i].reasoning);
        assert_true(one.logits_hash == responses[i].logits_hash);
        runnel_response_free(&one);
        runnel_response_free(&responses[i]);
    }
    runnel_engine_stop(alone);
    runnel_engine_stop(together);
}

static void thoughts_are_free(void **state)
{
    (void)state;
    runnel_engine *engine = start(1);
    size_t n_thoughts = 0;
    for (unsigned kind = 0; kind < N_KINDS; kind++)
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            const runnel_logit_bias ends[] = {{TINY_TOKEN_R1_END, 100}};
            runnel_request request = constrained(kind, seed);
            request.no_thinking = false;
            request.thinking_budget = seed % 2 ? 7 : 20;
            if (seed % 3 == 0) { /* likelier than anything: it would leave no answer */
                runnel_sampling *sampling = own_sampling(model, &request);
                sampling->logit_bias = ends;
                sampling->n_logit_bias = 1;
            }
            runnel_response response = ask(engine, &request);
            check_text(kind, &response);
            assert_true(response.thought_closed || !response.reasoning_len);
            n_thoughts += response.reasoning_len;
            runnel_response_free(&response);
        }
    assert_true(n_thoughts > 100);
    runnel_engine_stop(engine);
}

/* What would end an answer early, or keep it from ending, gives way; what cuts it says so. */
static void other_wishes_give_way(void **state)
{
    (void)state;
    static const char *const stop[] = {"c"};
    runnel_engine *engine = start(1);
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        const runnel_logit_bias biases[] = {{TINY_TOKEN_R1_END, seed % 2 ? 100.0f : -INFINITY}};
        runnel_request request = constrained(2, seed);
        runnel_sampling *sampling = own_sampling(model, &request);
        sampling->logit_bias = biases;
        sampling->n_logit_bias = 1;
        request.ignore_eos = seed % 3 == 0;
        request.min_tokens = seed % 4 < 2 ? 300 : 0;
        request.n_logprobs = 3;
        runnel_response response = ask(engine, &request);
        check_text(2, &response);
        if (request.ignore_eos || request.min_tokens) /* goes on for as long as it can */
            assert_int_equal(response.text[response.text_len - 1], 'c');
        runnel_response_free(&response);
        request.stop = stop;
        request.n_stop = 1;
        response = ask(engine, &request);
        assert_null(strchr(response.text, 'c'));
        runnel_response_free(&response);
        request.max_tokens = 1;
        request.min_tokens = 0;
        response = ask(engine, &request);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

/* A tag within the text is text. */
static void tags_are_text(void **state)
{
    (void)state;
    runnel_request request = constrained(2, 1);
    request.constraint_text = "<think>a</think>b";
    runnel_engine *engine = start(1);
    runnel_response response = ask(engine, &request);
    assert_string_equal(response.text, "<think>a</think>b");
    assert_string_equal(response.reasoning, "");
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

/* Undoing --------------------------------------------------------------------------------------------------- */

static bool hear(void *user, const runnel_event *event)
{
    (void)user;
    (void)event;
    return true;
}

static void draw(struct answer *answer, struct answer_scratch *scratch, uint64_t salt,
                 struct answer_draw *drawn)
{
    float logits[N_VOCAB];
    size_t position = answer->tokens.n;
    for (uint32_t i = 0; i < N_VOCAB; i++)
        logits[i] = (float)(sampler_random(position * 64 + salt, i) >> 40) * 0x1p-22f;
    answer_draw(answer, scratch, logits, drawn);
    if (drawn->failure)
        fail_msg("%s", drawn->error.message);
}

/* An answer of made-up logits, of which each token is drawn after others that are taken back. */
static struct answer answer_of(const runnel_request *request, struct pool *pool,
                               struct answer_scratch *scratch, bool thinks, unsigned n_undone)
{
    int32_t ids[] = {1, 2, 3};
    const struct token_list prompt = {.ids = ids, .n = 3};
    const struct answer_options options = {.pool = pool,
                                           .prompt = &prompt,
                                           .max_tokens = N_TOKENS + 40,
                                           .splits_thoughts = thinks,
                                           .starts_in_thought = thinks,
                                           .on_event = hear};
    struct answer answer;
    struct answer_draw drawn = {0};
    struct answer_outcome outcome = {0};
    runnel_error error;
    if (answer_create(&answer, model, request, &options, &error))
        fail_msg("%s", error.message);
    for (unsigned i = 0; i < N_TOKENS && !outcome.ended; i++) {
        unsigned n = 0;
        do
            draw(&answer, scratch, 1 + i % 3, &drawn);
        while (++n < n_undone && !drawn.is_last && drawn.token != TINY_TOKEN_R1_END);
        answer_undo(&answer, n);
        draw(&answer, scratch, 0, &drawn);
        outcome = answer_tell(&answer, &drawn);
    }
    return answer;
}

static void undone_draws_change_nothing(void **state)
{
    (void)state;
    struct pool *pool;
    struct answer_scratch *scratch;
    assert_int_equal(pool_create(4 << 20, &pool, NULL), 0);
    assert_int_equal(answer_scratch_create(N_VOCAB, &scratch, NULL), 0);
    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned n = 2; n <= CONSTRAINT_UNDO_MAX; n *= 2)
            for (int thinks = 0; thinks < 2; thinks++) {
                runnel_request request = constrained(kind, n);
                request.thinking_budget = 5;
                struct answer plain = answer_of(&request, pool, scratch, thinks, 1),
                              undone = answer_of(&request, pool, scratch, thinks, n);
                assert_true(plain.text.len > 0);
                assert_int_equal(plain.text.len, undone.text.len);
                assert_memory_equal(plain.text.bytes, undone.text.bytes, plain.text.len);
                answer_free(&plain);
                answer_free(&undone);
            }
    answer_scratch_free(scratch);
    assert_int_equal(pool_free(pool, NULL), 0);
}

/* Compiling ------------------------------------------------------------------------------------------------- */

static void check_refusal(const runnel_request *request, int code, const char *named)
{
    runnel_grammar *grammar = NULL;
    runnel_error error = {0};
    assert_int_equal(runnel_grammar_compile(model, request, &grammar, &error), code);
    assert_int_equal(error.code, code);
    if (!strstr(error.message, named))
        fail_msg("'%s' does not name '%s'", error.message, named);
    assert_null(grammar);
}

static void what_cannot_be_is_named(void **state)
{
    (void)state;
    runnel_request request = constrained(0, 0);
    request.constraint_text = "{\"type\":\"object\"";
    check_refusal(&request, RUNNEL_EINVAL, "");
    request.constraint_text = "{\"type\":\"array\",\"items\":{\"type\":\"object\"},\"uniqueItems\":true}";
    check_refusal(&request, RUNNEL_EUNSUPPORTED, "uniqueItems");
    request.constraint_text = NULL;
    check_refusal(&request, RUNNEL_EINVAL, "constraint_text");
    request = constrained(3, 0);
    request.constraint_text = "root ::= nothing";
    check_refusal(&request, RUNNEL_EINVAL, "nothing");
    request = constrained(2, 0);
    request.constraint_text = "(a";
    check_refusal(&request, RUNNEL_EINVAL, "");
    request = constrained(1, 0);
    request.n_choices = 0;
    check_refusal(&request, RUNNEL_EINVAL, "choices");
    request.constraint = (enum runnel_constraint)77;
    check_refusal(&request, RUNNEL_EINVAL, "77");
    runnel_request_init(&request);
    runnel_grammar *grammar = (runnel_grammar *)&request;
    assert_int_equal(runnel_grammar_compile(model, &request, &grammar, NULL), 0);
    assert_null(grammar); /* it has none */
}

static void same_texts_are_compiled_once(void **state)
{
    (void)state;
    enum { N = GRAMMAR_STORE_MAX + GRAMMAR_STORE_KEPT };
    static runnel_grammar *grammars[N];
    runnel_grammar *again, *other;
    runnel_error error;
    runnel_request request = constrained(1, 0), more = constrained(1, 0);
    more.n_choices = 2;
    assert_int_equal(runnel_grammar_compile(model, &request, &grammars[0], &error), 0);
    assert_int_equal(runnel_grammar_compile(model, &request, &again, &error), 0);
    assert_int_equal(runnel_grammar_compile(model, &more, &other, &error), 0);
    assert_ptr_equal(grammars[0], again);
    assert_ptr_not_equal(other, again);
    runnel_grammar_free(other);
    runnel_grammar_free(again);
    runnel_grammar_free(grammars[0]); /* nobody uses it, and it is kept */
    assert_int_equal(runnel_grammar_compile(model, &request, &again, &error), 0);
    assert_ptr_equal(grammars[0], again);
    runnel_grammar_free(again);

    request = constrained(2, 0);
    size_t n = 0;
    int failure = 0;
    while (!failure && n < N) { /* no end of different ones */
        char pattern[32];
        snprintf(pattern, sizeof pattern, "a{%zu}", n + 1);
        request.constraint_text = pattern;
        failure = runnel_grammar_compile(model, &request, &grammars[n], &error);
        n += !failure;
    }
    assert_int_equal(failure, RUNNEL_EBUSY);
    assert_in_range(n, GRAMMAR_STORE_MAX, N - 1);
    for (size_t i = 0; i < n; i++)
        runnel_grammar_free(grammars[i]);
    request.constraint_text = "b";
    assert_int_equal(runnel_grammar_compile(model, &request, &again, &error), 0);
    runnel_grammar_free(again);
}

static struct grammar_store_stats stats(void)
{
    struct grammar_store_stats stats;
    grammar_store_get_stats(model->grammars, &stats);
    return stats;
}

static runnel_grammar *compiled(const runnel_request *request)
{
    runnel_grammar *grammar;
    runnel_error error;
    if (runnel_grammar_compile(model, request, &grammar, &error))
        fail_msg("%s", error.message);
    return grammar;
}

static runnel_grammar *found(const runnel_request *request)
{
    runnel_grammar *grammar;
    assert_int_equal(runnel_grammar_find(model, request, &grammar, NULL), 0);
    return grammar;
}

/* How long an answer takes says nothing of what others have asked for. */
static void keys_have_their_own(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < N_KINDS + 1; kind++) {
        static const runnel_message question = {"user", "q", 0};
        runnel_request request = constrained(kind < N_KINDS ? kind : 0, 0);
        if (kind == N_KINDS) { /* tools */
            request.constraint = RUNNEL_CONSTRAINT_NONE;
            request.constraint_text = request.prompt = NULL;
            request.messages = &question;
            request.n_messages = 1;
            request.tools = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
        }
        runnel_grammars_forget(model);
        const uint64_t n_before = stats().n_compiled;
        request.key = 1;
        assert_null(found(&request));
        runnel_grammar *first = compiled(&request), *again = compiled(&request);
        assert_ptr_equal(first, again);
        assert_int_equal(stats().n_compiled - n_before, 1);
        runnel_grammar_free(again);
        again = found(&request);
        assert_ptr_equal(first, again);
        runnel_grammar_free(again);

        request.key = 2;
        assert_null(found(&request));
        runnel_grammar *other = compiled(&request);
        assert_ptr_not_equal(first, other);
        assert_int_equal(stats().n_compiled - n_before, 2);
        runnel_grammar_free(other);
        runnel_grammar_free(first); /* nobody has them, and they are kept, each for its key */
        first = found(&request);
        assert_ptr_equal(first, other);
        runnel_grammar_free(first);
        request.key = 3;
        assert_null(found(&request));
        assert_int_equal(stats().n_compiled - n_before, 2);
    }
}

/* Those that nobody has go, the oldest first, when they take more than may be kept; and all of them where memory is short. */
static void what_nobody_has_takes_little(void **state)
{
    (void)state;
    enum { N = 3, N_BYTES = 24 << 20 }; /* two of them are more than is kept */
    runnel_request request = constrained(0, 0);
    char *text = malloc(N_BYTES);
    assert_non_null(text);
    runnel_grammars_forget(model);
    assert_int_equal(stats().n_unused, 0);
    assert_int_equal(stats().unused_bytes, 0);
    request.constraint_text = text;
    request.constraint_len = N_BYTES;
    for (int i = 0; i < N; i++) {
        memset(text, ' ', N_BYTES);
        text[snprintf(text, 32, "{\"const\":%d}", i)] = ' ';
        runnel_grammar *grammar = compiled(&request);
        assert_int_equal(stats().n_used, 1);
        runnel_grammar_free(grammar);
        assert_int_equal(stats().n_used, 0);
        assert_int_equal(stats().n_unused, 1);
        assert_in_range(stats().unused_bytes, N_BYTES, GRAMMAR_STORE_KEPT_BYTES);
        grammar = found(&request);
        assert_non_null(grammar);
        runnel_grammar_free(grammar);
    }
    text[9] = '0'; /* the first one */
    assert_null(found(&request));
    free(text);

    runnel_request small = constrained(0, 0);
    runnel_grammar *used = compiled(&small);
    runnel_grammars_forget(model);
    assert_int_equal(stats().n_unused, 0);
    assert_int_equal(stats().n_used, 1); /* somebody has it */
    runnel_grammar_free(used);
    assert_int_equal(stats().n_unused, 1);
    runnel_grammars_forget(model);
    assert_int_equal(stats().n_unused, 0);
}

/* What a grammar takes grows with the texts that it is used for, up to a bound, and is no more than is set aside. */
static void use_is_counted(void **state)
{
    (void)state;
    enum { N_TEXT = 4000 };
    runnel_request request = constrained(2, 0);
    request.constraint_text = "([a-c]{2,9}[x-z]|[^a-c][0-9]{1,7})*";
    runnel_grammars_forget(model);
    runnel_grammar_free(compiled(&request));
    const uint64_t n_before = stats().unused_bytes;
    runnel_grammar *grammar = found(&request);
    runnel_text_check check = {.size = sizeof check};
    char text[N_TEXT];
    for (size_t i = 0; i < N_TEXT; i++)
        text[i] = "abcax010b"[i % 9];
    assert_non_null(grammar);
    assert_int_equal(runnel_grammar_check(grammar, text, N_TEXT, &check, NULL), 0);
    assert_true(check.n_masks > 5);
    runnel_text_check_free(&check);
    runnel_grammar_free(grammar);
    assert_in_range(stats().unused_bytes, n_before + 1, GRAMMAR_STORE_KEPT_BYTES);
    runnel_grammars_forget(model);
}

static void grammars_outlive_the_model(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    runnel_model *other = tiny_engine_open(&options);
    runnel_request request = constrained(0, 0);
    runnel_grammar *grammar;
    assert_int_equal(runnel_grammar_compile(other, &request, &grammar, NULL), 0);
    runnel_model_close(other);
    runnel_grammar_free(grammar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_kept_to_it),    cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(thoughts_are_free),       cmocka_unit_test(other_wishes_give_way),
        cmocka_unit_test(tags_are_text),           cmocka_unit_test(undone_draws_change_nothing),
        cmocka_unit_test(what_cannot_be_is_named), cmocka_unit_test(same_texts_are_compiled_once),
        cmocka_unit_test(keys_have_their_own),     cmocka_unit_test(what_nobody_has_takes_little),
        cmocka_unit_test(use_is_counted),          cmocka_unit_test(grammars_outlive_the_model),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
