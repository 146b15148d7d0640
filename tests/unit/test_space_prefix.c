/* test_space_prefix.c: a model whose tokenizer sets a space before texts (SentencePiece): the space is in the tokens and in no text:
 * neither of an answer, nor of its probabilities, nor where tokens are turned back. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static runnel_model *model;
static runnel_engine *engine;

static int open_all(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    options.pre = "sentencepiece";
    model = tiny_engine_open(&options);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return 0;
}

static size_t encode(const char *text, int32_t ids[64])
{
    int32_t *found;
    size_t n;
    assert_int_equal(runnel_tokenize(model, text, strlen(text), true, &found, &n, NULL), 0);
    assert_in_range(n, 0, 64);
    memcpy(ids, found, n * sizeof *ids);
    runnel_tokens_free(found);
    return n;
}

static int32_t token_of(const char *text)
{
    int32_t ids[64];
    assert_int_equal(encode(text, ids), 1);
    return ids[0];
}

static void check_decoded(const int32_t *ids, size_t n, bool special, const char *expected)
{
    char *text;
    size_t len;
    assert_int_equal(runnel_detokenize(model, ids, n, special, &text, &len, NULL), 0);
    assert_int_equal(len, strlen(expected));
    assert_string_equal(text, expected);
    runnel_text_free(text);
}

static void tokens_turn_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"hello world", " hello", "  hello", "<|im_start|>the<|im_end|> the",
                                        "東 x",        "\n",     ""};
    int32_t ids[64];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = encode(texts[i], ids);
        check_decoded(ids, n, true, texts[i]);
    }
    check_decoded(ids, encode("<|im_start|>the<|im_end|> the", ids), false, "the the");
    assert_int_equal(encode("the", ids), 1);
    assert_int_equal(ids[0], token_of("the")); /* " the" is the token */
}

struct heard {
    char text[256], bytes[256]; /* of the events; of the tokens that were drawn */
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    if (event->kind == RUNNEL_EVENT_ANSWER)
        strcat(heard->text, event->text);
    if (event->kind == RUNNEL_EVENT_TOKEN)
        strncat(heard->bytes, event->logprobs[0].bytes, event->logprobs[0].n_bytes);
    return true;
}

/* The model says nothing but one token. */
static void check_answer(const char *prompt, int32_t token, const char *expected)
{
    struct heard heard = {.text = ""};
    int32_t ids[64];
    size_t n_ids = encode(prompt, ids);
    const runnel_logit_bias bias = {token, 1000};
    runnel_request request;
    runnel_response response = {.size = sizeof response};
    runnel_future *future;
    runnel_error error;
    runnel_request_init(&request);
    request.prompt_ids = ids;
    request.n_prompt_ids = n_ids;
    request.max_tokens = 3;
    request.n_logprobs = 1;
    request.on_event = hear;
    request.user = &heard;
    runnel_sampling *sampling = own_sampling(model, &request);
    sampling->logit_bias = &bias;
    sampling->n_logit_bias = 1;
    if (runnel_submit(engine, &request, 1, &future, &error) || runnel_wait(future, &response, &error))
        fail_msg("%s", error.message);
    runnel_free(future);
    assert_string_equal(response.text, expected);
    assert_string_equal(heard.text, expected);
    assert_string_equal(heard.bytes, expected);
    runnel_response_free(&response);
}

static void answers_begin_as_texts_do(void **state)
{
    (void)state;
    int32_t the = token_of("the");
    check_answer("hello<|im_start|>", the, "the the the"); /* as after a control token in a prompt */
    check_answer("hello<think>", the, "the the the");
    check_answer("hello", the, " the the the"); /* in the middle of a text */
    check_answer("<|im_start|>assistant\n", the, " the the the");
    check_answer("<|im_start|>", 'x', "xxx");
    check_answer("<|im_start|>", ' ', "  "); /* a byte's token is a space, too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_turn_back),
        cmocka_unit_test(answers_begin_as_texts_do),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
