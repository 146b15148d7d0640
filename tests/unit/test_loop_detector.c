/* test_loop_detector.c: texts that go in circles are found when their third cycle is complete, and not before the second one is; those that
 * only repeat much are none: tables, code, rules, lists, and all of this project's own pages and sources. */
#include "engine/constraint.h"
#include "engine/loop_detector.h"
#include "helpers/texts.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKEN_MAX = 16 /* bytes */ };

/* Tokens ---------------------------------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_sign(char c)
{
    return c > ' ' && c < 0x7f && !is_letter(c) && !(c >= '0' && c <= '9');
}

/* About as byte-level vocabularies cut: words with their space, the longer ones in pieces, single digits, signs with the newlines after
 * them, white space. */
static size_t token_len(const char *text)
{
    size_t n = text[0] == ' ' && (is_letter(text[1]) || is_sign(text[1]) || (text[1] & 0x80));
    if (is_letter(text[n])) {
        size_t begin = n;
        while (is_letter(text[n]) && n - begin < 8)
            n++;
        return n;
    }
    if (is_sign(text[n])) {
        while (is_sign(text[n]) && n < 32)
            n++;
        while (text[n] == '\n')
            n++;
        return n;
    }
    if ((text[n] & 0xe0) == 0xc0) { /* letters of two bytes, in fours */
        for (size_t begin = n; (text[n] & 0xe0) == 0xc0 && n - begin < 8; n += 2)
            continue;
        return n;
    }
    if (text[n] & 0x80) {
        for (n++; (text[n] & 0xc0) == 0x80; n++)
            continue;
        return n;
    }
    if (text[0] == ' ' || text[0] == '\n') {
        for (n = 1; text[n] == text[0] && n < 64; n++)
            continue;
        return n;
    }
    return 1;
}

static int32_t id_of(const char *text, size_t len)
{
    uint32_t hash = 0x811c9dc5u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)text[i]) * 0x01000193u;
    return (int32_t)(hash & 0x7fffffff);
}

/* Pushes a text; returns how many of its bytes there are when a loop is found, or -1. */
static long push_text(struct loop_detector *detector, const char *text)
{
    for (const char *at = text; *at;) {
        size_t len = token_len(at);
        loop_detector_push(detector, id_of(at, len), at, len);
        at += len;
        if (loop_detector_found(detector))
            return at - text;
    }
    return -1;
}

static long find_loop(const char *text)
{
    struct loop_detector *detector = calloc(1, sizeof *detector);
    assert_non_null(detector);
    long found = push_text(detector, text);
    free(detector);
    return found;
}

/* Tests ----------------------------------------------------------------------------------------------------- */

static void loops_are_found_in_their_third_cycle(void **state)
{
    (void)state;
    char *file = texts_read_file(TEST_DATA "/loops.txt"), *rest = file, *looping;
    const char *name;
    unsigned n_loops = 0;
    while ((looping = texts_next(&rest, &name))) {
        size_t n_prefix, n_cycle;
        char *text = texts_repeat_cycle(looping, 3, &n_prefix, &n_cycle);
        long found = find_loop(text);
        if (found < 0)
            fail_msg("%s: three cycles, and no loop is found", name);
        if (found <= (long)(n_prefix + 2 * n_cycle))
            fail_msg("%s: a loop is found after %.30s", name, text + found - 30);
        free(text);
        n_loops++;
    }
    assert_true(n_loops >= 20);
    free(file);
}

static void repetition_is_no_loop(void **state)
{
    (void)state;
    char *file = texts_read_file(TEST_DATA "/straight.txt"), *rest = file, *text;
    const char *name;
    unsigned n_texts = 0;
    for (; (text = texts_next(&rest, &name)); n_texts++) {
        long found = find_loop(text);
        if (found >= 0)
            fail_msg("%s: a loop is found after %.*s", name, (int)found, text);
    }
    assert_true(n_texts >= 35);
    free(file);
}

/* What a model said and repeated until it was cut: found as soon as the third cycle is complete. */
static void recorded_circles_are_found(void **state)
{
    (void)state;
    char *file = texts_read_file(TEST_DATA "/circles.txt"), *rest = file, *text;
    const char *name;
    unsigned n_found = 0;
    while ((text = texts_next(&rest, &name))) {
        long begin, n_cycle;
        assert_int_equal(sscanf(name, "%ld %ld", &begin, &n_cycle), 2);
        long found = find_loop(text);
        if (found < 0)
            fail_msg("no loop is found in %s", text);
        if (found < begin)
            fail_msg("a loop is found before it begins: %s", text);
        if (found > begin + 3 * n_cycle + TOKEN_MAX)
            fail_msg("a loop is found after more than three cycles: %s", text);
        n_found++;
    }
    assert_true(n_found >= 20);
    free(file);
}

/* What a model answered to 200 questions: prose, tables, programs, lists, JSON, verse. */
static void recorded_answers_are_none(void **state)
{
    (void)state;
    char *file = texts_read_file(TEST_DATA "/answers.txt"), *rest = file, *text;
    const char *name;
    unsigned n_texts = 0;
    for (; (text = texts_next(&rest, &name)); n_texts++)
        if (find_loop(text) >= 0)
            fail_msg("a loop is found in the answer to: %s", name);
    assert_true(n_texts >= 200);
    free(file);
}

static unsigned n_read;

static int read_one(const char *path, const struct stat *stat, int kind, struct FTW *place)
{
    static const char *const endings[] = {".c", ".h", ".py", ".md", ".js", ".css", ".html", ".txt"};
    const char *ending = strrchr(path, '.');
    (void)stat;
    (void)place;
    if (kind != FTW_F || strstr(path, "loops.txt"))
        return 0;
    for (size_t i = 0; ending && i < sizeof endings / sizeof *endings; i++)
        if (strcmp(ending, endings[i]) == 0) {
            char *text = texts_read_file(path);
            long found = find_loop(text);
            if (found >= 0)
                fail_msg("%s: a loop is found at byte %ld, before %.60s", path, found, text + found);
            free(text);
            n_read++;
        }
    return 0;
}

/* Hundreds of pages and sources that people wrote. */
static void this_project_is_no_loop(void **state)
{
    (void)state;
    static const char *const folders[] = {"/../../src",       "/../../docs",       "/../../tests/server",
                                          "/../../tests/cli", "/../../tests/unit", "/../../bench",
                                          "/../../include"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", TEST_DATA, folders[i]);
        nftw(path, read_one, 16, FTW_PHYS);
    }
    assert_true(n_read > 200);
}

/* How often a cycle comes until it is a loop; 0: it is none. */
static size_t count_cycles(const char *cycle, size_t n_max)
{
    char *text = texts_repeat("", cycle, n_max);
    long found = find_loop(text);
    free(text);
    return found < 0 ? 0 : ((size_t)found + strlen(cycle) - 1) / strlen(cycle);
}

/* The shorter a cycle, and the less it is a sentence, the more often it has to come. */
static void what_it_takes(void **state)
{
    (void)state;
    assert_int_equal(count_cycles(" I do not know it.", 100), 3); /* 6 tokens */
    assert_int_equal(count_cycles(" So we get x = 5 + 3 - 2 = 6, now.", 100),
                     3);                                                  /* 19: few words, but some */
    assert_int_equal(count_cycles(" I do not know.", 100), 4);            /* 5: 18 in all */
    assert_int_equal(count_cycles(" No.", 100), 9);                       /* 2 */
    assert_int_equal(count_cycles(" So 2 + 2 = 4.", 100), 3);             /* 30 in all; 10 */
    assert_int_equal(count_cycles(" and so it goes on and on,", 100), 4); /* 8 */
    assert_int_equal(count_cycles(" x = 5 + 3 - 2 = 6\n", 100), 4);       /* 45 in all; 14 */
    assert_int_equal(count_cycles(" red, blue, green, white,", 100), 6);  /* 8 */
    assert_int_equal(count_cycles(" red, blue,", 100), 24);             /* 96 in all: two words are no list */
    assert_int_equal(count_cycles("x is 0.5, ", 100), 14);              /* a decimal point is no end */
    assert_int_equal(count_cycles("time.sleep(5)\n", 100), 16);         /* nor is one in a name */
    assert_int_equal(count_cycles("print(x)\n", 100), 24);              /* 4 */
    assert_int_equal(count_cycles("print(\"Well done!\")\n", 100), 20); /* a text in a call is no sentence */
    assert_int_equal(count_cycles("| Not yet. |\n", 100), 32);          /* 160 in all */
    assert_int_equal(count_cycles("-+", 300), 0);
    assert_int_equal(count_cycles("1 ", 2000), 256); /* 512 */
}

static void cycles_of_many_lengths(void **state)
{
    (void)state;
    for (uint32_t cycle = 1; cycle <= LOOP_CYCLE_MAX + 1; cycle++) {
        struct loop_detector *detector = calloc(1, sizeof *detector);
        uint32_t n = 0, n_before = cycle * 7 % 3000;
        assert_non_null(detector);
        for (uint32_t i = 0; i < n_before; i++)
            loop_detector_push(detector, (int32_t)(100000 + i), " before", 7);
        bool found = false;
        for (; !found && n < 4 * LOOP_CYCLE_MAX; n++) {
            uint32_t at = n % cycle;
            loop_detector_push(detector, (int32_t)at, at ? " word" : ".", at ? 5 : 1);
            found = loop_detector_found(detector);
        }
        assert_int_equal(found, cycle <= LOOP_CYCLE_MAX);
        uint32_t expected = 3 * cycle > 18 ? 3 * cycle : cycle == 1 ? 512 : 18;
        if (found)
            assert_int_equal(n, expected);
        free(detector);
    }
}

/* What is taken back and pushed again, or something else in its place, is as if it had not been there. */
static void undone_tokens_leave_nothing(void **state)
{
    (void)state;
    struct loop_detector *straight = calloc(1, sizeof *straight), *undone = calloc(1, sizeof *undone);
    assert_true(straight && undone);
    for (uint32_t i = 0; i < 3 * LOOP_TOKENS; i++) {
        uint32_t n = i * 2654435761u >> 27, at = i % (40 + i / 2000);
        _Static_assert(CONSTRAINT_UNDO_MAX == 32, "n is smaller");
        for (uint32_t j = 0; j < n; j++)
            loop_detector_push(undone, (int32_t)(i * j % 5), "|\n", 2);
        loop_detector_undo(undone, n);
        const char *text = at % 10 ? " word" : ".";
        loop_detector_push(undone, (int32_t)at, text, strlen(text));
        loop_detector_push(straight, (int32_t)at, text, strlen(text));
        assert_int_equal(loop_detector_found(undone), loop_detector_found(straight));
    }
    assert_true(loop_detector_found(straight));
    free(straight);
    free(undone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_are_found_in_their_third_cycle),
        cmocka_unit_test(repetition_is_no_loop),
        cmocka_unit_test(recorded_circles_are_found),
        cmocka_unit_test(recorded_answers_are_none),
        cmocka_unit_test(this_project_is_no_loop),
        cmocka_unit_test(what_it_takes),
        cmocka_unit_test(cycles_of_many_lengths),
        cmocka_unit_test(undone_tokens_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
