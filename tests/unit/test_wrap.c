/* test_wrap.c: where lines break, and what is left as it is, however the text comes. */
#include "cli/wrap.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* The text, n_step characters at a time, as it comes out. To be freed. */
static char *wrapped(const char *text, unsigned columns, size_t n_step)
{
    char *out = NULL;
    size_t len = 0, text_len = strlen(text);
    FILE *file = open_memstream(&out, &len);
    struct wrap wrap;
    wrap_start(&wrap, file, columns);
    for (size_t at = 0, n; at < text_len; at += n) {
        n = at + n_step < text_len ? n_step : text_len - at;
        while (at + n < text_len && (text[at + n] & 0xc0) == 0x80)
            n++;
        wrap_write(&wrap, text + at, n);
    }
    wrap_end(&wrap);
    fclose(file);
    return out;
}

static void check(const char *text, unsigned columns, const char *expected)
{
    for (size_t n_step = 1; n_step < 40; n_step += 3) {
        char *out = wrapped(text, columns, n_step);
        assert_string_equal(out, expected);
        free(out);
    }
}

static void test_words(void **state)
{
    (void)state;
    check("", 10, "");
    check("one two three", 80, "one two three");
    check("one two three", 10, "one two\nthree");
    check("one two three", 7, "one two\nthree");
    check("one two three", 6, "one\ntwo\nthree");
    check("one  two\n\nthree  ", 80, "one  two\n\nthree");
    check("one two\nthree four", 9, "one two\nthree\nfour");
    check("  one two three", 9, "  one two\nthree");
}

static void test_long_words(void **state)
{
    (void)state;
    check("see http://example.org/a/long/one now", 10, "see\nhttp://example.org/a/long/one\nnow");
    check("abcdefghijkl mn", 10, "abcdefghijkl mn"); /* the terminal broke the first, so there is room */
    char text[3 * WRAP_WORD_MAX + 8], *out;
    memset(text, 'x', sizeof text);
    strcpy(text + sizeof text - 5, " end");
    out = wrapped(text, 80, 7);
    assert_string_equal(out, text);
    free(out);
}

static void test_wide_characters(void **state)
{
    (void)state;
    check("天空是蓝色的", 6, "天空是\n蓝色的");
    check("天空是蓝色的", 7, "天空是\n蓝色的");
    check("天空是。蓝色", 6, "天空\n是。蓝\n色"); /* no line begins with what closes */
    check("天空（蓝色）", 6, "天空\n（蓝\n色）");
    check("é é é é", 4, "é é\né é"); /* one column each */
    check("e\xcc\x81 e\xcc\x81 e\xcc\x81", 3, "e\xcc\x81 e\xcc\x81\ne\xcc\x81");
    check("a \xf0\x9f\x98\x80 b", 4, "a \xf0\x9f\x98\x80\nb");
}

static void test_code_is_left_alone(void **state)
{
    (void)state;
    check("```c\nint main(void) { return 0; }\n```\none two three", 10,
          "```c\nint main(void) { return 0; }\n```\none two\nthree");
    check("~~~\n```\na b c d e f g h\n~~~\none two three", 10,
          "~~~\n```\na b c d e f g h\n~~~\none two\nthree");
    check("    a line of code\none two three", 10, "    a line of code\none two\nthree");
    check("\ta line of code\tx\none two three", 10, "\ta line of code\tx\none two\nthree");
    check("| a | table of words |", 10, "| a | table of words |");
    check("```\n  x  y\n\n    z\n```", 10, "```\n  x  y\n\n    z\n```");
}

static void test_items_hang(void **state)
{
    (void)state;
    check("- one two three", 10, "- one two\n  three");
    check("12. one two three", 12, "12. one two\n    three");
    check("    - one two three", 14, "    - one two\n      three");
    check("1984 was one", 10, "1984 was\none");
}

static void test_no_control_character_reaches_the_terminal(void **state)
{
    (void)state;
    check("a\033[31mb\007 \x7f", 80, "a\xe2\x90\x9b[31mb\xe2\x90\x87 \xe2\x90\xa1");
    check("a\xc2\x9b"
          "2Jb",
          80,
          "a\xef\xbf\xbd"
          "2Jb"); /* CSI as one character */
    check("one\r\ntwo\rthree\v", 80, "one\ntwothree\xe2\x90\x8b");
    check("```\n\033[2J\tx\n```", 80, "```\n\xe2\x90\x9b[2J\tx\n```"); /* in code, too */
    check("\033\033\033 \033\033", 5, "\xe2\x90\x9b\xe2\x90\x9b\xe2\x90\x9b\n\xe2\x90\x9b\xe2\x90\x9b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_wide_characters),
        cmocka_unit_test(test_code_is_left_alone),
        cmocka_unit_test(test_items_hang),
        cmocka_unit_test(test_no_control_character_reaches_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
