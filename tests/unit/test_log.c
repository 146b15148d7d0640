/* test_log.c: lines for the operator, as a pipe, a full disk and a reader that does not read get them. */
#include "base/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int ends[2];

static int make_pipe(void **state)
{
    (void)state;
    return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
}

static int close_pipe(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* What was written since the last call. */
static const char *written(void)
{
    static char bytes[1 << 17];
    ssize_t n = read(ends[0], bytes, sizeof bytes - 1);
    bytes[n > 0 ? n : 0] = 0;
    return bytes;
}

/* The line after its time, which is checked and cut off. */
static const char *after_time(const char *line)
{
    int year, month, day, hour, minute, second, thousandth, len = 0;
    assert_int_equal(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute,
                            &second, &thousandth, &len),
                     7);
    assert_int_equal(len, 24);
    return line + len;
}

static void test_text(void **state)
{
    (void)state;
    struct log log = {.descriptor = ends[1]};
    struct log_line line;
    log_say(&log, "ready", "Runnel serves %s", "a model");
    assert_string_equal(after_time(written()), " Runnel serves a model\n");
    log_begin(&line, &log, "request");
    log_add_text(&line, "path", "/health", 7);
    log_add_text(&line, "words", "two words", 9);
    log_add_text(&line, "none", "", 0);
    log_add_number(&line, "total_ms", 12.5);
    log_add_number(&line, "n", 1234567);
    log_add_number(&line, "zero", 0);
    log_add_flag(&line, "left", true);
    log_end(&line);
    assert_string_equal(
        after_time(written()),
        " request path=/health words=\"two words\" none=\"\" total_ms=12.5 n=1234567 zero=0 left=true\n");
    assert_int_equal(log.n_lost, 0);
}

static void test_json(void **state)
{
    (void)state;
    static const char nasty[] = "a\"b\\c\nd\x1b[2J\x7f\xc2\x9b";
    struct log log = {.descriptor = ends[1], .is_json = true};
    struct log_line line;
    log_begin(&line, &log, "request");
    log_add_text(&line, "path", nasty, strlen(nasty));
    log_add_text(&line, "bad", "\xff/\xc3\xa9", 4);
    log_add_text(&line, "word", "caf\xc3\xa9", 5);
    log_add_number(&line, "ms", 0.125);
    log_add_flag(&line, "left", false);
    log_end(&line);
    json_error_t error;
    const char *bytes = written();
    assert_int_equal(strcspn(bytes, "\n"), strlen(bytes) - 1);
    json_t *root = json_loads(bytes, 0, &error);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "event")), "request");
    after_time(json_string_value(json_object_get(root, "time")));
    assert_string_equal(json_string_value(json_object_get(root, "path")),
                        "a\"b\\c\\x0ad\\x1b[2J\\x7f\\xc2\\x9b");
    assert_string_equal(json_string_value(json_object_get(root, "bad")), "\\xff/\\xc3\\xa9");
    assert_string_equal(json_string_value(json_object_get(root, "word")), "caf\xc3\xa9");
    assert_true(json_real_value(json_object_get(root, "ms")) == 0.125);
    assert_true(json_is_false(json_object_get(root, "left")));
    json_decref(root);
    log_say(&log, "ready", "at %d%%", 100);
    root = json_loads(written(), 0, &error);
    assert_string_equal(json_string_value(json_object_get(root, "message")), "at 100%");
    json_decref(root);
}

/* Whatever a client sends, a line stays one line of printable characters. */
static void test_no_byte_gets_through(void **state)
{
    (void)state;
    for (int is_json = 0; is_json < 2; is_json++)
        for (int byte = 0; byte < 256; byte++) {
            struct log log = {.descriptor = ends[1], .is_json = is_json};
            struct log_line line;
            char text[3] = {'a', (char)byte, 'b'};
            log_begin(&line, &log, "request");
            log_add_text(&line, "path", text, sizeof text);
            log_end(&line);
            const char *bytes = written();
            size_t len = strlen(bytes);
            assert_int_equal(bytes[len - 1], '\n');
            for (size_t i = 0; i + 1 < len; i++)
                assert_true(bytes[i] >= ' ' && bytes[i] < 0x7f);
        }
}

static void test_what_does_not_fit_is_left_out(void **state)
{
    (void)state;
    static char text[LOG_LINE_BYTES];
    struct log log = {.descriptor = ends[1], .is_json = true};
    struct log_line line;
    memset(text, 'x', sizeof text);
    log_begin(&line, &log, "request");
    log_add_text(&line, "long", text, sizeof text);
    log_add_number(&line, "n", 1);
    for (int i = 0; i < LOG_LINE_BYTES; i++)
        log_add_number(&line, "m", 1);
    log_end(&line);
    const char *bytes = written();
    assert_true(strlen(bytes) <= LOG_LINE_BYTES && strlen(bytes) > LOG_LINE_BYTES - 16);
    json_t *root = json_loads(bytes, 0, NULL);
    assert_non_null(root);
    assert_null(json_object_get(root, "long"));
    assert_int_equal(json_integer_value(json_object_get(root, "n")), 1);
    json_decref(root);
    memset(text, 1, sizeof text);
    text[sizeof text - 1] = 0;
    log_say(&log, "ready", "%s", text); /* each byte becomes five */
    root = json_loads(written(), 0, NULL);
    assert_true(json_string_length(json_object_get(root, "message")) > 1000);
    json_decref(root);
}

/* A reader that does not read costs lines and nobody's time; once it reads, it is told. */
static void test_a_full_pipe(void **state)
{
    (void)state;
    struct log log = {.descriptor = ends[1]};
    int flags = fcntl(ends[1], F_GETFL);
    assert_int_equal(fcntl(ends[1], F_SETFL, flags & ~O_NONBLOCK), 0); /* or writing could wait */
    for (int i = 0; i < 10000; i++)
        log_say(&log, "test", "line %d", i);
    assert_true(log.n_lost > 100);
    uint64_t n_lost = log.n_lost;
    while (*written())
        ;
    log_say(&log, "test", "again");
    const char *bytes = after_time(written());
    char told[64];
    int len = snprintf(told, sizeof told, " lost lines=%llu\n", (unsigned long long)n_lost);
    assert_memory_equal(bytes, told, (size_t)len);
    assert_string_equal(after_time(bytes + len), " again\n");
    assert_int_equal(log.n_lost, n_lost);
    log_say(&log, "test", "once more");
    assert_string_equal(after_time(written()), " once more\n");
}

static void test_a_full_disk_and_a_closed_descriptor(void **state)
{
    (void)state;
    struct log log = {.descriptor = open("/dev/full", O_WRONLY | O_CLOEXEC)};
    assert_true(log.descriptor >= 0);
    log_say(&log, "test", "one");
    log_say(&log, "test", "two");
    assert_int_equal(log.n_lost, 2);
    close(log.descriptor);
    log_say(&log, "test", "three");
    assert_int_equal(log.n_lost, 3);
    log.descriptor = ends[1];
    log_say(&log, "test", "four");
    assert_non_null(strstr(written(), " lost lines=3\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_json, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_no_byte_gets_through, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_what_does_not_fit_is_left_out, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_full_pipe, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_full_disk_and_a_closed_descriptor, make_pipe, close_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
