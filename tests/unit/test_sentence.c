/* test_sentence.c: where a text may be cut as a sentence has ended, and where it may not. */
#include "engine/sentence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static bool has_ended(const char *text)
{
    struct sentence sentence = {.code = 0};
    sentence_push(&sentence, text, strlen(text));
    return sentence_has_ended(&sentence);
}

static void ends(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "That is right.",  "Is it?",     "Oh no!",           "What?!",           "Hmm...",
        "Yes. ",           "Yes.\n\n",   "a line\n",         "He said \"yes.\"", "(It is.)",
        "(It is).",        "**It is.**", "so \\(y = ab\\).", "Is it 5?",         "5.\n",
        "It is f(ab).",    "这是对的。", "真的吗？",         "太好了！",         "他说：“好。”",
        "（好。）",        "well…",      "Да, точно.",       "Wait. No.",        "see etc.",
        "First: it is.\n", "`code`.",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!has_ended(texts[i]))
            fail_msg("no end is found: %s", texts[i]);
}

static void ends_of_none(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",       "That is", "3.",       "3.1",         "1. ",   "x = 3.14",   "e.g.",   "i.e.",
        "5!",     "Mr. X",   "Yes. So",  "Yes. \"",     "a, b,", "The steps:", "!",      "The list:\n",
        "one,\n", "if (!",   "wait -",   ".",           "?x",    "好，",       "他说：", "他说：\n",
        "好",     "a.b",     "file.txt", "Yes.\n\nSo,", "(It",   "Yes. (",     "a =",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (has_ended(texts[i]))
            fail_msg("an end is found: %s", texts[i]);
}

/* However the bytes come, and never within a character. */
static void bytes_may_come_one_by_one(void **state)
{
    (void)state;
    static const char text[] = "他说：“好。”So it is. 3.5 是。\n";
    struct sentence bytewise = {.code = 0};
    for (size_t n = 1; n < sizeof text; n++) {
        struct sentence whole = {.code = 0};
        sentence_push(&bytewise, &text[n - 1], 1);
        sentence_push(&whole, text, n);
        assert_int_equal(sentence_has_ended(&bytewise), sentence_has_ended(&whole));
        bool is_within = ((unsigned char)text[n] & 0xc0) == 0x80;
        assert_false(is_within && sentence_has_ended(&whole));
    }
    assert_true(sentence_has_ended(&bytewise));
    assert_false(has_ended("\xff\xfe\x80\xe3\x80")); /* what is no character ends nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends),
        cmocka_unit_test(ends_of_none),
        cmocka_unit_test(bytes_may_come_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
