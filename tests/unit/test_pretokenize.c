/* test_pretokenize.c: texts cut into words, for each family of expressions, and in linear time. */
#include "model/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What an independent tokenizer makes of these texts; words end at a bar. clang-format would break the pairs. */
/* clang-format off */
static const struct {
    const char *pre, *text, *words;
} cases[] = {
    {"deepseek-coder", "I'll  go, 12345 6\n\n end.  ",
     "I|'|ll| | go|,| |1|2|3|4|5| |6|\n|\n| end|.|  "},
    {"deepseek-coder", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301|te|\u0301 |\u00bd| |3|\u00b3| x|\u0301|!"},
    {"deepseek-coder", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " |\u4f60\u597d|\uff0c|world|  |\t|\u4e16| |\u20ac|  |\u20ac"},
    {"deepseek-coder", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|5|0|]|  |\r|\n| '|D| '|s\u0640\u0627"},
    {"deepseek-llm", "I'll  go, 12345 6\n\n end.  ",
     "I|'|ll| | go|,| |12345| |6|\n|\n| end|.|  "},
    {"deepseek-llm", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301|te|\u0301 |\u00bd| |3\u00b3| x|\u0301|!"},
    {"deepseek-llm", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " |\u4f60\u597d|\uff0c|world|  \t|\u4e16| |\u20ac|  |\u20ac"},
    {"deepseek-llm", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|50|]|  |\r|\n| '|D| '|s|\u0640\u0627"},
    {"falcon", "I'll  go, 12345 6\n\n end.  ",
     "I|'|ll| | go|,| |123|45| 6|\n\n| end|.|  "},
    {"falcon", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301|te|\u0301| \u00bd| 3\u00b3| x|\u0301|!"},
    {"falcon", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0c|world|  |\t|\u4e16| \u20ac| | \u20ac"},
    {"falcon", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| |[|1|.|50|]|  \r\n |'|D| |'|s\u0640\u0627"},
    {"gpt-2", "I'll  go, 12345 6\n\n end.  ",
     "I|'ll| | go|,| 12345| 6|\n\n| end|.|  "},
    {"gpt-2", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301|te|\u0301| \u00bd| 3\u00b3| x|\u0301!"},
    {"gpt-2", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0c|world|  |\t|\u4e16| \u20ac| | \u20ac"},
    {"gpt-2", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|50|]|  \r\n| '|D| '|s\u0640\u0627"},
    {"llama-bpe", "I'll  go, 12345 6\n\n end.  ",
     "I|'ll| | go|,| |123|45| |6|\n\n| end|.|  "},
    {"llama-bpe", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301te|\u0301| |\u00bd| |3\u00b3| x|\u0301!"},
    {"llama-bpe", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0cworld|  |\t\u4e16| \u20ac| | \u20ac"},
    {"llama-bpe", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|50|]|  \r\n| '|D| '|s\u0640\u0627"},
    {"qwen2", "I'll  go, 12345 6\n\n end.  ",
     "I|'ll| | go|,| |1|2|3|4|5| |6|\n\n| end|.|  "},
    {"qwen2", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301te|\u0301| |\u00bd| |3|\u00b3| x|\u0301!"},
    {"qwen2", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0cworld|  |\t\u4e16| \u20ac| | \u20ac"},
    {"qwen2", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|5|0|]|  \r\n| '|D| '|s\u0640\u0627"},
    {"qwen35", "I'll  go, 12345 6\n\n end.  ",
     "I|'ll| | go|,| |1|2|3|4|5| |6|\n\n| end|.|  "},
    {"qwen35", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e\u0301te\u0301| |\u00bd| |3|\u00b3| x\u0301|!"},
    {"qwen35", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0cworld|  |\t\u4e16| \u20ac| | \u20ac"},
    {"qwen35", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|5|0|]|  \r\n| '|D| '|s\u0640\u0627"},
    {"starcoder", "I'll  go, 12345 6\n\n end.  ",
     "I|'ll| | go|,| |1|2|3|4|5| |6|\n\n| end|.|  "},
    {"starcoder", "e\u0301te\u0301 \u00bd 3\u00b3 x\u0301!",
     "e|\u0301|te|\u0301| |\u00bd| |3|\u00b3| x|\u0301!"},
    {"starcoder", " \u4f60\u597d\uff0cworld  \t\u4e16 \u20ac  \u20ac",
     " \u4f60\u597d|\uff0c|world|  |\t|\u4e16| \u20ac| | \u20ac"},
    {"starcoder", "a$+<b> [1.50]  \r\n 'D 's\u0640\u0627",
     "a|$+<|b|>| [|1|.|5|0|]|  \r\n| '|D| '|s\u0640\u0627"},
};
/* clang-format on */

static const char *const families[] = {
    "command-r", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen", "falcon", "gpt-2",    "llama-bpe",
    "mpt",       "qwen2",          "qwen35",       "refact",           "smollm", "starcoder"};
enum { N_FAMILIES = sizeof families / sizeof *families };

struct cut {
    struct pretokenizer *pretokenizer;
    struct cutter *cutter;
};

static struct cut cut_by(const char *pre)
{
    struct cut cut;
    runnel_error error;
    if (pretokenizer_create((struct gguf_string){pre, strlen(pre)}, &cut.pretokenizer, &error) ||
        cutter_create(cut.pretokenizer, &cut.cutter, &error))
        fail_msg("%s", error.message);
    return cut;
}

static void close_cut(struct cut *cut)
{
    cutter_free(cut->cutter);
    pretokenizer_free(cut->pretokenizer);
}

static void check_words(const char *pre, const char *text, const char *expected)
{
    struct cut cut = cut_by(pre);
    struct word word;
    char found[256] = "";
    cutter_begin(cut.cutter, text, strlen(text));
    while (cutter_next(cut.cutter, &word, NULL) > 0)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%.*s", *found ? "|" : "",
                 (int)word.len, word.text);
    if (strcmp(found, expected) != 0)
        fail_msg("%s: \"%s\" became \"%s\", not \"%s\"", pre, text, found, expected);
    close_cut(&cut);
}

static void words_are_those_of_the_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_words(cases[i].pre, cases[i].text, cases[i].words);
}

/* Some names stand for the same words. */
static void names_that_are_alike(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *like;
    } alike[] = {{"command-r", "starcoder"},
                 {"refact", "starcoder"},
                 {"smollm", "starcoder"},
                 {"mpt", "gpt-2"},
                 {"deepseek-r1-qwen", "qwen2"}};
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            if (!strcmp(cases[k].pre, alike[i].like))
                check_words(alike[i].pre, cases[k].text, cases[k].words);
}

/* Words follow each other from the beginning to the end of text. */
static size_t count_words(struct cutter *cutter, const char *text, size_t len)
{
    struct word word;
    size_t n = 0, done = 0;
    int more;
    cutter_begin(cutter, text, len);
    for (; (more = cutter_next(cutter, &word, NULL)) > 0; n++) {
        assert_ptr_equal(word.text, text + done);
        assert_true(word.len > 0);
        done += word.len;
    }
    assert_int_equal(more, 0);
    assert_int_equal(done, len);
    return n;
}

/* What is cut again and again, or searched to the end for each of its spaces, takes minutes; the test's alarm ends it. */
static void a_megabyte_is_cut_in_linear_time(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    static const char *const units[] = {" ",
                                        "a",
                                        "1",
                                        "\n",
                                        "\r",
                                        "€",
                                        " €",
                                        "  €",
                                        "\t1",
                                        "'",
                                        "'s",
                                        ".",
                                        "你",
                                        "a 1",
                                        "\xcc\x81",
                                        "½",
                                        "                                                               €"};
    char *text = malloc(N);
    assert_non_null(text);
    alarm(1200);
    for (size_t f = 0; f < N_FAMILIES; f++) {
        struct cut cut = cut_by(families[f]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t len = strlen(units[u]), n = N / len * len;
            for (size_t i = 0; i < n; i += len)
                memcpy(text + i, units[u], len);
            assert_true(count_words(cut.cutter, text, n) >= 1);
        }
        assert_int_equal(count_words(cut.cutter, text, 0), 0);
        close_cut(&cut);
    }
    alarm(0);
    free(text);
}

/* A cutter serves one text after the other, also when the words of one were not all asked for. */
static void a_cutter_forgets(void **state)
{
    (void)state;
    struct cut cut = cut_by("falcon");
    struct word word;
    cutter_begin(cut.cutter, "a+b 123456", 10);
    assert_int_equal(cutter_next(cut.cutter, &word, NULL), 1);
    assert_int_equal(count_words(cut.cutter, "x", 1), 1);
    assert_int_equal(cutter_next(cut.cutter, &word, NULL), 0);
    close_cut(&cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_those_of_the_models),
        cmocka_unit_test(names_that_are_alike),
        cmocka_unit_test(a_megabyte_is_cut_in_linear_time),
        cmocka_unit_test(a_cutter_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
