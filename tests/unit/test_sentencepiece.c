/* test_sentencepiece.c: merges by score, spaces, bytes and unknown characters, what the loader refuses, and texts that are meant
 * to take long. */
#include "helpers/vocabulary_file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct vocabulary_file good = {
    .model = "llama",
    .tokens = {"<unk>", "<s>",  "</s>", "▁", "a",      "b",      "ab",  "▁ab", "bc",  "<0x0A>", "<t>",
               "aa",    "aaaa", "▁▁",   "é", "<0xC3>", "<0xA0>", "</s", ">",   "[P]", "</"},
    .types = {2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 4, 1, 1, 4, 1, 6, 6, 1, 1, 5, 1},
    .scores = {0, 0, 0, -10, -11, -12, -1, -2, -0.5f, 0, 0, -3, -4, 0, -13, 0, 0, -5, -6, 0, -7},
    .n_tokens = 21,
    .n_types = 21,
    .n_scores = 21,
};

static struct tokenizer *open_file(const struct vocabulary_file *file)
{
    struct tokenizer *tokenizer;
    runnel_error error;
    if (vocabulary_file_open(file, &tokenizer, &error))
        fail_msg("%s", error.message);
    return tokenizer;
}

static struct tokenizer *open_without_prefix(void)
{
    struct vocabulary_file file = good;
    file.bool_key = "tokenizer.ggml.add_space_prefix";
    file.is = false;
    return open_file(&file);
}

/* With text given no control tokens at all. */
static void check_plain(const struct tokenizer *tokenizer, const char *text, const char *expected)
{
    vocabulary_file_check_ids(tokenizer, text, 0, 0, expected);
}

static void the_highest_score_is_merged_first(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_without_prefix();
    check_plain(tokenizer, "ab", "6 ");
    check_plain(tokenizer, " ab", "7 ");
    check_plain(tokenizer, "abc", "4 8 ");  /* bc before ab; c alone is no token, and yet it is merged */
    check_plain(tokenizer, "aaa", "11 4 "); /* the leftmost of equal ones */
    check_plain(tokenizer, "aaaaa", "12 4 ");
    check_plain(tokenizer, "aab", "4 6 ");
    check_plain(tokenizer, "", "");
    tokenizer_free(tokenizer);
}

static void spaces(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_without_prefix();
    check_plain(tokenizer, "a b", "4 3 5 ");
    check_plain(tokenizer, "a▁b", "4 3 5 "); /* U+2581 is a space */
    check_plain(tokenizer, "a  b",
                "4 13 5 "); /* two are a user-defined token, which is written with U+2581 */
    check_plain(tokenizer, "a   ab", "4 13 7 ");
    check_plain(tokenizer, " ", "3 ");
    tokenizer_free(tokenizer);
}

static void a_space_is_set_before_texts(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_file(&good);
    check_plain(tokenizer, "ab", "7 ");
    check_plain(tokenizer, " ab",
                "3 7 "); /* two spaces of which one is not the text's: no user-defined token */
    check_plain(tokenizer, "", "");
    check_plain(tokenizer, "ab<t>ab", "7 10 7 "); /* after what stands for itself, too */
    check_plain(tokenizer, "<t>", "10 ");
    check_plain(tokenizer, "<t><t>a", "10 10 3 4 ");
    vocabulary_file_check_ids(tokenizer, "<s>ab</s>", 0, 9, "1 7 2 ");
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode_on(tokenizer, "ab<t>ab", 7, NULL, 0, &list, NULL), 0);
    static const int32_t expected[] = {6, 10, 7}; /* none before a text that goes on */
    assert_int_equal(list.n, 3);
    assert_memory_equal(list.ids, expected, sizeof expected);
    free(list.ids);
    tokenizer_free(tokenizer);
}

static void bytes_and_unknown_characters(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_without_prefix();
    check_plain(tokenizer, "\n", "9 ");
    check_plain(tokenizer, "é", "14 ");
    check_plain(tokenizer, "à", "15 16 ");
    check_plain(tokenizer, "à\n\n", "15 16 9 9 ");
    check_plain(tokenizer, "x", "0 ");
    check_plain(tokenizer, "xyzè", "0 "); /* è has but one byte token of two */
    check_plain(tokenizer, "xaxx", "0 4 0 ");
    check_plain(tokenizer,
                "\xc3\xc3"
                "a\xa0\xff\xff",
                "15 15 4 16 0 ");              /* no UTF-8 */
    check_plain(tokenizer, "<0x0A>", "0 18 "); /* the name of a byte token is text */
    tokenizer_free(tokenizer);
    struct vocabulary_file file = good;
    file.types[0] = TOKEN_UNUSED; /* then there is no unknown token */
    file.bool_key = "tokenizer.ggml.add_space_prefix";
    tokenizer = open_file(&file);
    check_plain(tokenizer, "xaxx", "4 ");
    tokenizer_free(tokenizer);
    file.id_key = "tokenizer.ggml.unknown_token_id";
    file.id = 5;
    tokenizer = open_file(&file);
    check_plain(tokenizer, "xaxx", "5 4 5 ");
    tokenizer_free(tokenizer);
}

/* The file says that unknown characters are the token that ends texts. */
static void unknown_characters_end_no_text(void **state)
{
    (void)state;
    static const char *const named[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id"};
    for (size_t i = 0; i < 3; i++) {
        struct vocabulary_file file = good;
        file.id_key = named[i];
        file.unknown_key = "tokenizer.ggml.unknown_token_id";
        file.id = 2;
        struct tokenizer *tokenizer = open_file(&file);
        check_plain(tokenizer, "xa", "3 4 ");
        tokenizer_free(tokenizer);
    }
}

/* The letters of a control token merge to its name in other tokenizers: </s and > are tokens. */
static void users_text_never_becomes_control(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_without_prefix();
    check_plain(tokenizer, "</s>", "17 18 ");
    check_plain(tokenizer, "<unk>", "0 18 "); /* < and its letters are unknown here */
    check_plain(tokenizer, "[P]", "0 ");
    vocabulary_file_check_ids(tokenizer, "a</s>", 0, 5, "4 2 ");
    vocabulary_file_check_ids(tokenizer, "a</s>", 0, 4, "4 17 18 ");
    vocabulary_file_check_ids(tokenizer, "a</s>", 2, 5, "4 17 18 ");
    vocabulary_file_check_ids(tokenizer, "a<unk>", 0, 6, "4 0 ");
    tokenizer_free(tokenizer);
}

static void decode(const struct tokenizer *tokenizer, const struct token_list *list, char *text)
{
    *text = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct gguf_string part = tokenizer_text(tokenizer, i ? list->ids[i - 1] : -1, list->ids[i]);
        strncat(text, part.bytes, part.len);
    }
}

static void texts_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab",     " ab",          "  ab",   "   a",          " ",        "  ",
                                        "a b ab", "<s>ab</s> ab", "<s> ab", "<t>  <t> a<t>", "é\nà\n ab"};
    for (int prefix = 0; prefix < 2; prefix++) {
        struct tokenizer *tokenizer = prefix ? open_file(&good) : open_without_prefix();
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            struct text_span all = {0, strlen(texts[i])};
            struct token_list list = {0};
            char found[64];
            assert_int_equal(tokenizer_encode(tokenizer, texts[i], all.end, &all, 1, &list, NULL), 0);
            decode(tokenizer, &list, found);
            assert_string_equal(found, texts[i]);
            free(list.ids);
        }
        tokenizer_free(tokenizer);
    }
}

static void what_the_file_does_not_say(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_file(&good);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_true(tokenizer_is_end(tokenizer, 2));
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_string_equal(tokenizer_pre(tokenizer), "");
    assert_false(tokenizer_has_text(tokenizer, 0));
    assert_false(tokenizer_has_text(tokenizer, 1));
    assert_true(tokenizer_has_text(tokenizer, 9));
    tokenizer_free(tokenizer);
    struct vocabulary_file file = good;
    file.types[1] = file.types[2] = TOKEN_NORMAL; /* no control tokens where they usually are */
    tokenizer = open_file(&file);
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    assert_int_equal(tokenizer_eos(tokenizer), -1);
    assert_false(tokenizer_adds_bos(tokenizer));
    tokenizer_free(tokenizer);
    file = good;
    file.bool_key = "tokenizer.ggml.add_bos_token";
    tokenizer = open_file(&file);
    assert_false(tokenizer_adds_bos(tokenizer));
    tokenizer_free(tokenizer);
}

static void check_refused(const struct vocabulary_file *file, const char *named, const char *found)
{
    struct tokenizer *tokenizer = NULL;
    runnel_error error = {0};
    assert_int_equal(vocabulary_file_open(file, &tokenizer, &error), RUNNEL_EFORMAT);
    assert_null(tokenizer);
    if (!strstr(error.message, named) || !strstr(error.message, found))
        fail_msg("\"%s\" names not both \"%s\" and \"%s\"", error.message, named, found);
}

static void refused_files(void **state)
{
    (void)state;
    struct vocabulary_file file = good;
    file.scores[7] = NAN;
    check_refused(&file, "tokenizer.ggml.scores", "token 7");
    file = good;
    file.n_scores = 0;
    check_refused(&file, "tokenizer.ggml.scores", "is missing");
    file.n_scores = 20;
    check_refused(&file, "tokenizer.ggml.scores", "21 expected");
    file = good;
    file.tokens[8] = "";
    check_refused(&file, "token 8", "empty");
    file = good;
    file.tokens[9] = "<0x0G>";
    check_refused(&file, "byte token 9", "<0x0G>");
    file = good;
    file.id_key = "tokenizer.ggml.unknown_token_id";
    file.id = 21;
    check_refused(&file, "unknown_token_id", "21 tokens");
    file.id_key = "tokenizer.ggml.add_space_prefix"; /* a number */
    check_refused(&file, "add_space_prefix", "bool");
    file = good;
    file.scores[11] = -INFINITY; /* the last of all, and no fault */
    file.scores[6] = INFINITY;
    struct tokenizer *tokenizer = open_file(&file);
    check_plain(tokenizer, "aab", "3 4 6 ");
    check_plain(tokenizer, "aaa", "3 11 4 ");
    tokenizer_free(tokenizer);
}

/* Against merging as it is defined --------------------------------------------------------------------------- */

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* The id of a normal token, -1: none. */
static int32_t find_normal(const struct vocabulary_file *file, const char *text, size_t len)
{
    for (size_t id = 0; id < file->n_tokens; id++)
        if (file->types[id] == TOKEN_NORMAL && strlen(file->tokens[id]) == len &&
            !memcmp(file->tokens[id], text, len))
            return (int32_t)id;
    return -1;
}

/* Merges the best pair of all, again and again. Text is of letters that are all tokens. */
static void merge_slowly(const struct vocabulary_file *file, const char *text, char *expected)
{
    size_t begins[64], n = strlen(text);
    for (size_t i = 0; i <= n; i++)
        begins[i] = i;
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t id = find_normal(file, text + begins[i], begins[i + 2] - begins[i]);
            int32_t best_id =
                best < n ? find_normal(file, text + begins[best], begins[best + 2] - begins[best]) : -1;
            if (id >= 0 && (best == n || file->scores[id] > file->scores[best_id]))
                best = i;
        }
        if (best == n)
            break;
        memmove(begins + best + 1, begins + best + 2, (n - best - 1) * sizeof *begins);
        n--;
    }
    *expected = 0;
    for (size_t i = 0; i < n; i++)
        sprintf(expected + strlen(expected), "%d ",
                (int)find_normal(file, text + begins[i], begins[i + 1] - begins[i]));
}

static void random_vocabularies_merge_as_defined(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int round = 0; round < 300; round++) {
        struct vocabulary_file file = {.model = "llama", .bool_key = "tokenizer.ggml.add_space_prefix"};
        char tokens[VOCABULARY_FILE_TOKENS][8];
        file.n_tokens = file.n_types = file.n_scores =
            4 + next_random(&random) % (VOCABULARY_FILE_TOKENS - 4);
        for (size_t id = 0; id < file.n_tokens; id++) {
            size_t len = id < 3 ? 1 : 2 + next_random(&random) % 5;
            for (size_t i = 0; i < len; i++)
                tokens[id][i] = (char)(id < 3 ? 'a' + id : 'a' + next_random(&random) % 3);
            tokens[id][len] = 0;
            file.tokens[id] = tokens[id];
            file.types[id] = TOKEN_NORMAL;
            file.scores[id] =
                (float)(next_random(&random) % 8) - 4; /* many equal ones, zeros of both signs */
            file.scores[id] = file.scores[id] == 0 && id % 2 ? -0.0f : file.scores[id];
        }
        struct tokenizer *tokenizer = open_file(&file);
        for (int k = 0; k < 20; k++) {
            char text[48], expected[256];
            size_t len = 1 + next_random(&random) % 40;
            for (size_t i = 0; i < len; i++)
                text[i] = (char)('a' + next_random(&random) % 3);
            text[len] = 0;
            merge_slowly(&file, text, expected);
            check_plain(tokenizer, text, expected);
        }
        tokenizer_free(tokenizer);
    }
}

/* Made to take long ------------------------------------------------------------------------------------------ */

/* A vocabulary of n tokens, of which write makes text i. */
static struct tokenizer *open_made(size_t n, void (*write)(size_t i, char *text, float *score))
{
    enum { CAP = 1100 };
    char *texts = malloc(n * CAP);
    struct gguf_string *tokens = malloc(n * sizeof *tokens);
    int32_t *types = malloc(n * sizeof *types);
    float *scores = malloc(n * sizeof *scores);
    struct gguf_writer *writer = gguf_writer_create();
    struct tokenizer *tokenizer;
    runnel_error error;
    for (size_t i = 0; i < n; i++) {
        write(i, texts + i * CAP, &scores[i]);
        tokens[i] = (struct gguf_string){texts + i * CAP, strlen(texts + i * CAP)};
        types[i] = TOKEN_NORMAL;
    }
    gguf_writer_add_string(writer, "tokenizer.ggml.model", "llama");
    gguf_writer_add_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, n, tokens);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, n, types);
    gguf_writer_add_array(writer, "tokenizer.ggml.scores", GGUF_F32, n, scores);
    if (vocabulary_file_open_keys(writer, &tokenizer, &error))
        fail_msg("%s", error.message);
    free(texts);
    free(tokens);
    free(types);
    free(scores);
    return tokenizer;
}

static void write_run(size_t i, char *text, float *score)
{
    memset(text, 'a', i + 1);
    text[i + 1] = 0;
    *score = (float)i; /* the longer the better: every merge is followed by another */
}

static void write_same(size_t i, char *text, float *score)
{
    strcpy(text, i ? "a" : "aa");
    *score = 0;
}

static void check_run(struct tokenizer *tokenizer, size_t n, size_t n_expected)
{
    char *text = malloc(n);
    struct token_list list = {0};
    memset(text, 'a', n);
    assert_int_equal(tokenizer_encode_on(tokenizer, text, n, NULL, 0, &list, NULL), 0);
    assert_int_equal(list.n, n_expected);
    free(list.ids);
    free(text);
    tokenizer_free(tokenizer);
}

/* Merging that scans the text again for every merge takes hours. */
static void a_megabyte_takes_no_long_time(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    alarm(1200);
    check_run(open_made(1024, write_run), N, N / 1024);
    check_run(open_made(16, write_run), N, N / 16);
    check_run(open_made(100000, write_same), N, N / 2);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_score_is_merged_first),
        cmocka_unit_test(spaces),
        cmocka_unit_test(a_space_is_set_before_texts),
        cmocka_unit_test(bytes_and_unknown_characters),
        cmocka_unit_test(unknown_characters_end_no_text),
        cmocka_unit_test(users_text_never_becomes_control),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(what_the_file_does_not_say),
        cmocka_unit_test(refused_files),
        cmocka_unit_test(random_vocabularies_merge_as_defined),
        cmocka_unit_test(a_megabyte_takes_no_long_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
