/* test_tokenizer.c: tiny vocabularies: what is read, how text is cut and merged, what the loader refuses. */
#include "helpers/tiny_model.h"
#include "helpers/vocabulary_file.h"
#include "model/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Changed by each test before it is written. */
static const struct vocabulary_file good = {
    .model = "gpt2",
    .pre = "qwen2",
    .tokens = {"a", "b", "c", "Ġ", "ab", "abc", "Ġab", "<|end|>", "<t>", "<0x0A>", "aa", "aaaa", "<tt>",
               "bc"},
    .types = {1, 1, 1, 1, 1, 1, 1, 3, 4, 6, 1, 1, 4, 1},
    .merges = {"a b", "ab c", "Ġ ab", "a a", "aa aa", "b c"},
    .n_tokens = 14,
    .n_types = 14,
    .n_merges = 6,
};

static struct tokenizer *create_good(void)
{
    struct tokenizer *tokenizer;
    runnel_error error;
    if (vocabulary_file_open(&good, &tokenizer, &error))
        fail_msg("%s", error.message);
    return tokenizer;
}

static void test_merges_in_rank_order(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_good();
    vocabulary_file_check_ids(tokenizer, "abc", 0, 0, "5 ");
    vocabulary_file_check_ids(tokenizer, "ab", 0, 0, "4 ");
    vocabulary_file_check_ids(tokenizer, "bc", 0, 0, "13 ");
    vocabulary_file_check_ids(tokenizer, "ab ab", 0, 0, "4 6 ");
    vocabulary_file_check_ids(tokenizer, "aaab", 0, 0, "10 4 "); /* a+b ranks before a+a */
    vocabulary_file_check_ids(tokenizer, "aaaaaaa", 0, 0, "11 10 0 ");
    vocabulary_file_check_ids(tokenizer, "a\nb", 0, 0, "0 9 1 "); /* the newline has a byte token only */
    vocabulary_file_check_ids(tokenizer, "axbyc", 0, 0,
                              "5 "); /* x and y have none: left out before the merges */
    vocabulary_file_check_ids(tokenizer, "xyz", 0, 0, "");
    vocabulary_file_check_ids(tokenizer, "", 0, 0, "");
    tokenizer_free(tokenizer);
}

static void test_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_good();
    vocabulary_file_check_ids(tokenizer, "a<|end|>b", 0, 9, "0 7 1 ");
    vocabulary_file_check_ids(tokenizer, "a<|end|>b", 1, 8, "0 7 1 ");
    vocabulary_file_check_ids(tokenizer, "a<|end|>b", 1, 7,
                              "0 1 "); /* not whole in the span; its letters have no tokens */
    vocabulary_file_check_ids(tokenizer, "a<|end|>b", 2, 9, "0 1 ");
    vocabulary_file_check_ids(tokenizer, "a<|end|>b", 0, 0, "0 1 ");
    vocabulary_file_check_ids(tokenizer, "a<t>b<tt>", 0, 0,
                              "0 8 1 12 "); /* user-defined ones match everywhere */
    vocabulary_file_check_ids(tokenizer, "<<t><t", 0, 0, "8 ");
    struct text_span spans[] = {{0, 7}, {7, 7}, {8, 15}, {16, 99}};
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tokenizer, "<|end|>a<|end|>a<|end|>", 23, spans, 4, &list, NULL), 0);
    static const int32_t expected[] = {7, 0, 7, 0, 7};
    assert_int_equal(list.n, 5);
    assert_memory_equal(list.ids, expected, sizeof expected);
    free(list.ids);
    tokenizer_free(tokenizer);
}

static void test_invalid_utf8_byte_by_byte(void **state)
{
    (void)state;
    char path[] = "/tmp/test_tokenizer_XXXXXX";
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    close(mkstemp(path));
    tiny_model_add_tokenizer(writer, "smollm", "r1", 0);
    assert_int_equal(gguf_writer_save(writer, path, NULL), 0);
    assert_int_equal(gguf_open(path, &gguf, NULL), 0);
    assert_int_equal(tokenizer_create(gguf, &tokenizer, NULL), 0);
    static const char *const texts[] = {"\xff",         "\xe2\x82",         "a\xc0\x80z",
                                        "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80\xbf"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct token_list list = {0};
        size_t len = strlen(texts[i]);
        assert_int_equal(tokenizer_encode(tokenizer, texts[i], len, NULL, 0, &list, NULL), 0);
        assert_int_equal(list.n, len);
        for (size_t k = 0; k < len; k++)
            assert_memory_equal(tokenizer_piece(tokenizer, list.ids[k]).bytes, texts[i] + k, 1);
        free(list.ids);
    }
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tokenizer, "a\0\0b", 4, NULL, 0, &list, NULL), 0);
    assert_int_equal(list.n, 4); /* NUL is a character like others */
    free(list.ids);
    tokenizer_free(tokenizer);
    gguf_close(gguf);
    gguf_writer_free(writer);
    unlink(path);
}

static void test_end_tokens_by_name_and_key(void **state)
{
    (void)state;
    struct vocabulary_file keys = good;
    struct tokenizer *tokenizer;
    keys.tokens[7] = "<|im_end|>";
    keys.tokens[8] = "<|endoftext|>"; /* user-defined: not an end */
    keys.id_key = "tokenizer.ggml.eot_token_id";
    keys.id = 2;
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    for (int32_t id = -1; id < 15; id++)
        assert_int_equal(tokenizer_is_end(tokenizer, id), id == 2 || id == 7);
    assert_int_equal(tokenizer_eos(tokenizer), -1);
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    tokenizer_free(tokenizer);
    keys.id_key = "tokenizer.ggml.eos_token_id";
    keys.id = 0;
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    assert_int_equal(tokenizer_eos(tokenizer), 0);
    assert_true(tokenizer_is_end(tokenizer, 0));
    tokenizer_free(tokenizer);
}

static void test_pieces_and_kinds(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_good();
    assert_int_equal(tokenizer_n_tokens(tokenizer), 14);
    assert_string_equal(tokenizer_pre(tokenizer), "qwen2");
    assert_int_equal(tokenizer_find(tokenizer, " ab", 3), 6);
    assert_int_equal(tokenizer_find(tokenizer, "\n", 1), 9);
    assert_int_equal(tokenizer_find(tokenizer, "<|end|>", 7), 7);
    assert_int_equal(tokenizer_find(tokenizer, "<|end|", 6), -1);
    assert_int_equal(tokenizer_kind(tokenizer, 7), TOKEN_CONTROL);
    assert_int_equal(tokenizer_kind(tokenizer, 9), TOKEN_BYTE);
    assert_int_equal(tokenizer_kind(tokenizer, -1), TOKEN_UNUSED);
    assert_int_equal(tokenizer_piece(tokenizer, 14).len, 0);
    assert_int_equal(tokenizer_piece(tokenizer, -1).len, 0);
    assert_int_equal(tokenizer_piece(tokenizer, 6).len, 3);
    tokenizer_free(tokenizer);
}

/* Llama 3: a word that is a token is taken whole, also where no merge leads to it. A control token is not. */
static void test_whole_words(void **state)
{
    (void)state;
    struct vocabulary_file keys = good;
    struct tokenizer *tokenizer;
    keys.tokens[13] = "cab";
    keys.n_merges = 5;
    keys.id_key = "tokenizer.ggml.bos_token_id";
    keys.id = 7;
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    vocabulary_file_check_ids(tokenizer, "cab", 0, 0, "2 4 ");
    assert_false(tokenizer_adds_bos(tokenizer));
    tokenizer_free(tokenizer);
    keys.pre = "llama-bpe";
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    vocabulary_file_check_ids(tokenizer, "cab", 0, 0, "13 ");
    vocabulary_file_check_ids(tokenizer, "cabab", 0, 0, "2 4 4 ");
    assert_true(tokenizer_adds_bos(tokenizer)); /* the file does not say */
    tokenizer_free(tokenizer);
    keys.types[13] = TOKEN_CONTROL;
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    vocabulary_file_check_ids(tokenizer, "cab", 0, 0, "2 4 ");
    tokenizer_free(tokenizer);
}

/* Of two tokens with the same bytes the one that is written in the byte-level alphabet is what merges make, whichever comes
 * first: real vocabularies have a character as such beside it. */
static void test_misspelled_tokens_are_not_merged(void **state)
{
    (void)state;
    struct vocabulary_file keys = good;
    struct tokenizer *tokenizer;
    keys.tokens[2] = "\xe2\x80\x8d";     /* U+200D as such */
    keys.tokens[5] = "\xc3\xa2\xc4\xa2"; /* the letters of 0xe2 and 0x80 */
    keys.tokens[10] = "\xc3\xa2";
    keys.tokens[11] = "\xc4\xa2";
    keys.tokens[13] = "\xc4\xaf"; /* of 0x8d */
    keys.tokens[6] = "\xc3\xa2\xc4\xa2\xc4\xaf";
    keys.merges[1] = "\xc3\xa2 \xc4\xa2";
    keys.merges[2] = "\xc3\xa2\xc4\xa2 \xc4\xaf";
    keys.n_merges = 3;
    assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
    vocabulary_file_check_ids(tokenizer, "\xe2\x80\x8d", 0, 0, "6 ");
    assert_int_equal(tokenizer_piece(tokenizer, 2).len, 3);
    tokenizer_free(tokenizer);
}

/* A text that names the token which ends texts must not end it. */
static void test_ids_of_the_file_are_control_tokens(void **state)
{
    (void)state;
    static const char *const named[] = {"bos", "eos", "eot"};
    for (size_t i = 0; i < 3; i++) {
        struct vocabulary_file keys = good;
        struct tokenizer *tokenizer;
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", named[i]);
        keys.id_key = key;
        keys.id = 8; /* <t>, user-defined */
        assert_int_equal(vocabulary_file_open(&keys, &tokenizer, NULL), 0);
        vocabulary_file_check_ids(tokenizer, "a<t>b", 0, 0, "0 1 ");
        vocabulary_file_check_ids(tokenizer, "a<t>b", 0, 5, "0 8 1 ");
        tokenizer_free(tokenizer);
        keys.types[4] = TOKEN_USER_DEFINED; /* ab, which a merge makes */
        keys.id = 4;
        runnel_error error;
        assert_int_equal(vocabulary_file_open(&keys, &tokenizer, &error), RUNNEL_EFORMAT);
        assert_non_null(strstr(error.message, "merge 0"));
    }
}

static void check_refused(const struct vocabulary_file *keys, int code, const char *named, const char *found)
{
    struct tokenizer *tokenizer = NULL;
    runnel_error error = {0};
    assert_int_equal(vocabulary_file_open(keys, &tokenizer, &error), code);
    assert_null(tokenizer);
    if (!strstr(error.message, named) || !strstr(error.message, found))
        fail_msg("\"%s\" names not both \"%s\" and \"%s\"", error.message, named, found);
}

static void test_refused_files(void **state)
{
    (void)state;
    char long_token[2000];
    memset(long_token, 'a', sizeof long_token - 1);
    long_token[sizeof long_token - 1] = '\0';
#define REFUSED(change, code, named, found)                                                                  \
    do {                                                                                                     \
        struct vocabulary_file keys = good;                                                                  \
        change;                                                                                              \
        check_refused(&keys, code, named, found);                                                            \
    } while (0)
    REFUSED(keys.model = "bert", RUNNEL_EUNSUPPORTED, "\"bert\"",
            "gpt2 (byte-level BPE), llama (SentencePiece)");
    REFUSED(keys.pre = "qwen3", RUNNEL_EUNSUPPORTED, "\"qwen3\"", "llama-bpe, mpt, qwen2");
    REFUSED(keys.n_types = 13, RUNNEL_EFORMAT, "token_type", "14 expected");
    REFUSED(keys.n_scores = 3, RUNNEL_EFORMAT, "scores", "14 expected");
    REFUSED(keys.n_tokens = keys.n_types = 0, RUNNEL_EFORMAT, "tokenizer.ggml.tokens", "at least one");
    REFUSED(keys.types[3] = 0, RUNNEL_EFORMAT, "token 3", "1 to 6");
    REFUSED(keys.types[13] = 7, RUNNEL_EFORMAT, "token 13", "1 to 6");
    REFUSED(keys.types[0] = -1, RUNNEL_EFORMAT, "token 0", "1 to 6");
    REFUSED(keys.tokens[5] = "", RUNNEL_EFORMAT, "token 5", "empty");
    REFUSED(keys.tokens[5] = long_token, RUNNEL_EFORMAT, "token 5", "1999 bytes");
    static const char *const byte_tokens[] = {"<0x0>",  "<0xG0>", "<0x0A", "0x0A>>",
                                              "<0x 1>", "<0x-1>", "<0X0A>"};
    for (size_t i = 0; i < sizeof byte_tokens / sizeof *byte_tokens; i++)
        REFUSED(keys.tokens[9] = byte_tokens[i], RUNNEL_EFORMAT, "byte token 9", byte_tokens[i]);
    static const char *const merges[] = {"ab",  "",    " ",   "a ",    " b", "  ",
                                         "x b", "a x", "a c", "a b c", "< t"};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        REFUSED(keys.merges[5] = merges[i], RUNNEL_EFORMAT, "merge 5", merges[i]);
    /* A merge that makes a control token would make one of a user's text. */
    REFUSED(keys.types[4] = TOKEN_CONTROL, RUNNEL_EFORMAT, "merge 0", "result");
    static const char *const ids[] = {"bos", "eos", "eot", "unknown", "padding", "whatever"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        REFUSED(keys.id_key = key; keys.id = 14, RUNNEL_EFORMAT, key, "14 tokens");
    }
}

/* Many equal tokens or merges must not slow the tables down. */
static void test_equal_tokens_load_quickly(void **state)
{
    (void)state;
    enum { N = 300000 };
    char path[] = "/tmp/test_tokenizer_XXXXXX";
    struct gguf_string *tokens = malloc(N * sizeof *tokens), *merges = malloc(N * sizeof *merges);
    int32_t *types = malloc(N * sizeof *types);
    for (size_t i = 0; i < N; i++) {
        tokens[i] = i ? (struct gguf_string){"a", 1} : (struct gguf_string){"aa", 2};
        merges[i] = (struct gguf_string){"a a", 3};
        types[i] = i % 2 ? TOKEN_NORMAL : TOKEN_USER_DEFINED;
    }
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    close(mkstemp(path));
    gguf_writer_add_string(writer, "tokenizer.ggml.model", "gpt2");
    gguf_writer_add_string(writer, "tokenizer.ggml.pre", "qwen2");
    gguf_writer_add_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, N, tokens);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, N, types);
    gguf_writer_add_array(writer, "tokenizer.ggml.merges", GGUF_STRING, N, merges);
    assert_int_equal(gguf_writer_save(writer, path, NULL), 0);
    assert_int_equal(gguf_open(path, &gguf, NULL), 0);
    alarm(60); /* quadratic tables take far longer */
    assert_int_equal(tokenizer_create(gguf, &tokenizer, NULL), 0);
    char *text = malloc(N);
    memset(text, 'a', N);
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tokenizer, text, N, NULL, 0, &list, NULL), 0);
    assert_int_equal(list.n, N / 2); /* "aa" is user-defined: it matches, the longest first */
    alarm(0);
    free(list.ids);
    free(text);
    tokenizer_free(tokenizer);
    gguf_close(gguf);
    gguf_writer_free(writer);
    unlink(path);
    free(tokens);
    free(merges);
    free(types);
}

static void *encode_often(void *arg)
{
    for (int i = 0; i < 200; i++) {
        struct token_list list = {0};
        if (tokenizer_encode(arg, "abc ab<t>aaaa", 13, NULL, 0, &list, NULL) || list.n != 4)
            abort();
        free(list.ids);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_good();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, tokenizer), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_in_rank_order),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_invalid_utf8_byte_by_byte),
        cmocka_unit_test(test_end_tokens_by_name_and_key),
        cmocka_unit_test(test_pieces_and_kinds),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_equal_tokens_load_quickly),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_whole_words),
        cmocka_unit_test(test_misspelled_tokens_are_not_merged),
        cmocka_unit_test(test_ids_of_the_file_are_control_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
