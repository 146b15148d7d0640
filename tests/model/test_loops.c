/* test_loops.c: the loop detector on the tokens of real vocabularies: texts that go in circles are found in their third cycle, recorded
 * answers and what only repeats much are none. */
#include "engine/loop_detector.h"
#include "helpers/texts.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SKIPPED = 77,
    TOKEN_MAX = 16, /* bytes: the first of a cycle's tokens may be another one where the cycle begins */
};

static const char *const files[] = {"smollm2-135m.gguf", "coder-0.5b.gguf", "coder-1.5b.gguf",
                                    "r1-coder-1.5b.gguf", "gemma3-270m.gguf"};
enum { N_FILES = sizeof files / sizeof *files };

static struct tokenizer *tokenizers[N_FILES]; /* NULL: the file is absent */

static bool open_tokenizer(size_t i)
{
    const char *folder = getenv("RUNNEL_MODELS_DIR");
    char path[512];
    struct gguf *gguf = NULL;
    runnel_error error;
    snprintf(path, sizeof path, "%s/%s", folder ? folder : TEST_DATA "/../../models", files[i]);
    if (access(path, R_OK) != 0)
        return false;
    if (gguf_open(path, &gguf, &error) || tokenizer_create(gguf, &tokenizers[i], &error)) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    gguf_close(gguf);
    return true;
}

/* How many bytes of a text there are when a loop is found in it; -1: none is. */
static long find_loop(const struct tokenizer *tokenizer, const char *text)
{
    struct loop_detector *detector = calloc(1, sizeof *detector);
    size_t len = strlen(text);
    struct text_span all = {0, len};
    struct token_list tokens = {0};
    long at = 0;
    bool found = false;
    assert_non_null(detector);
    assert_int_equal(tokenizer_encode(tokenizer, text, len, &all, 0, &tokens, NULL), 0);
    for (size_t i = 0; i < tokens.n && !found; i++) {
        struct gguf_string piece = tokenizer_text(tokenizer, i ? tokens.ids[i - 1] : -1, tokens.ids[i]);
        loop_detector_push(detector, tokens.ids[i], piece.bytes, piece.len);
        found = loop_detector_found(detector);
        at += (long)piece.len;
    }
    free(tokens.ids);
    free(detector);
    return found ? at : -1;
}

static unsigned count_loops(const struct tokenizer *tokenizer, const char *vocabulary)
{
    char *file = texts_read_file(TEST_DATA "/loops.txt"), *rest = file, *looping;
    const char *name;
    unsigned n_loops = 0;
    for (; (looping = texts_next(&rest, &name)); n_loops++) {
        size_t n_prefix, n_cycle;
        char *text = texts_repeat_cycle(looping, 4, &n_prefix, &n_cycle);
        long found = find_loop(tokenizer, text);
        long least = (long)(n_prefix + 2 * n_cycle), most = (long)(n_prefix + 3 * n_cycle) + TOKEN_MAX;
        if (found <= least || found > most)
            fail_msg(
                "%s, %s: a loop is found after %ld bytes (-1: none), expected more than %ld, %ld at most",
                vocabulary, name, found, least, most);
        free(text);
    }
    free(file);
    return n_loops;
}

static unsigned count_circles(const struct tokenizer *tokenizer, const char *vocabulary)
{
    char *file = texts_read_file(TEST_DATA "/circles.txt"), *rest = file, *text;
    const char *name;
    unsigned n_circles = 0;
    for (; (text = texts_next(&rest, &name)); n_circles++) {
        long begin, n_cycle;
        assert_int_equal(sscanf(name, "%ld %ld", &begin, &n_cycle), 2);
        long found = find_loop(tokenizer, text);
        if (found < begin || found > begin + 3 * n_cycle + TOKEN_MAX)
            fail_msg("%s: a loop is found after %ld bytes (-1: none), expected %ld to %ld: %s", vocabulary,
                     found, begin, begin + 3 * n_cycle + TOKEN_MAX, text);
    }
    free(file);
    return n_circles;
}

static unsigned count_straight(const struct tokenizer *tokenizer, const char *vocabulary, const char *path)
{
    char *file = texts_read_file(path), *rest = file, *text;
    const char *name;
    unsigned n_texts = 0;
    for (; (text = texts_next(&rest, &name)); n_texts++) {
        long found = find_loop(tokenizer, text);
        if (found >= 0)
            fail_msg("%s, %s: a loop is found after %.*s", vocabulary, name, (int)found, text);
    }
    free(file);
    return n_texts;
}

static void loops_are_found_in_their_third_cycle(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++)
        if (tokenizers[i]) {
            assert_true(count_loops(tokenizers[i], files[i]) >= 34);
            assert_true(count_circles(tokenizers[i], files[i]) >= 20);
        }
}

static void answers_and_repetition_are_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++)
        if (tokenizers[i]) {
            assert_true(count_straight(tokenizers[i], files[i], TEST_DATA "/answers.txt") >= 200);
            assert_true(count_straight(tokenizers[i], files[i], TEST_DATA "/straight.txt") >= 46);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_are_found_in_their_third_cycle),
        cmocka_unit_test(answers_and_repetition_are_none),
    };
    size_t n_open = 0;
    for (size_t i = 0; i < N_FILES; i++)
        n_open += open_tokenizer(i);
    int failed = n_open ? cmocka_run_group_tests(tests, NULL, NULL) : SKIPPED;
    for (size_t i = 0; i < N_FILES; i++)
        tokenizer_free(tokenizers[i]);
    return failed;
}
