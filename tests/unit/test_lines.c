/* test_lines.c: BPE over characters and lines (Gemma 4): merges by rank, newlines, spaces, bytes, and what the loader refuses. */
#include "helpers/vocabulary_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct vocabulary_file good = {
    .model = "gemma4",
    .tokens = {"<pad>", "<eos>", "<bos>", "<unk>", "<0x61>", "<0xC3>", "<0xA0>", "▁", "a", "b", "ab", "▁ab",
               "\n", "\n\n", "<t>", "ba", "<0x0A>"},
    .types = {3, 3, 3, 2, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 4, 1, 6},
    .merges = {"a b", "▁ ab", "b a", "\n \n"},
    .n_tokens = 17,
    .n_types = 17,
    .n_merges = 4,
    .id_key = "tokenizer.ggml.bos_token_id",
    .id = 2,
};

static struct tokenizer *open_file(const struct vocabulary_file *file)
{
    struct tokenizer *tokenizer;
    runnel_error error;
    if (vocabulary_file_open(file, &tokenizer, &error))
        fail_msg("%s", error.message);
    return tokenizer;
}

static void check_plain(const struct tokenizer *tokenizer, const char *text, const char *expected)
{
    vocabulary_file_check_ids(tokenizer, text, 0, 0, expected);
}

static void lines_are_merged_by_rank(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_file(&good);
    check_plain(tokenizer, "ab", "10 "); /* of the letters a and b, not of the byte token 4 */
    check_plain(tokenizer, "ab ab", "10 11 ");
    check_plain(tokenizer, "ab▁ab", "10 11 ");
    check_plain(tokenizer, "bab", "9 10 ");
    check_plain(tokenizer, "a  b", "8 7 7 9 ");
    check_plain(tokenizer, "\n", "12 ");
    check_plain(tokenizer, "\n\n", "13 ");
    check_plain(tokenizer, "\n\n\n", "13 12 ");
    check_plain(tokenizer, "a\nb", "8 12 9 ");
    check_plain(tokenizer, "a\n\nb\n", "8 13 9 12 ");
    check_plain(tokenizer, "a<t>b", "8 14 9 ");
    check_plain(tokenizer, "", "");
    assert_true(tokenizer_adds_bos(tokenizer));
    tokenizer_free(tokenizer);
}

static void bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_file(&good);
    check_plain(tokenizer, "aàb", "8 5 6 9 ");
    check_plain(tokenizer, "xaè", "8 5 "); /* x and the second byte of è have none */
    check_plain(tokenizer,
                "\xc3"
                "ab\xa0",
                "5 10 6 ");
    check_plain(tokenizer, "<0x61>", ""); /* the name of a byte token is text, whose letters have none */
    tokenizer_free(tokenizer);
    struct vocabulary_file file = good;
    file.tokens[12] = "c"; /* then a newline is a byte */
    file.n_merges = 3;
    tokenizer = open_file(&file);
    check_plain(tokenizer, "a\nb", "8 16 9 ");
    tokenizer_free(tokenizer);
}

static void users_text_never_becomes_control(void **state)
{
    (void)state;
    struct vocabulary_file file = good;
    file.tokens[0] = "ba"; /* a control token with the letters of an ordinary one */
    struct tokenizer *tokenizer = open_file(&file);
    check_plain(tokenizer, "ba", "15 ");
    vocabulary_file_check_ids(tokenizer, "ba", 0, 2, "0 ");
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
    static const char *const merges[] = {"x b", "a x", "a c", "a", "", "a bb"};
    struct vocabulary_file file = good;
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        file.merges[3] = merges[i];
        check_refused(&file, "merge 3", merges[i]);
    }
    file = good;
    file.types[10] = TOKEN_CONTROL; /* ab */
    check_refused(&file, "merge 0", "result");
    file.types[10] = TOKEN_BYTE;
    file.tokens[10] = "<0x0B>";
    check_refused(&file, "merge 0", "result");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_merged_by_rank),
        cmocka_unit_test(bytes),
        cmocka_unit_test(users_text_never_becomes_control),
        cmocka_unit_test(refused_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
