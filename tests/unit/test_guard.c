/* test_guard.c: which Host and Origin are whose, and API keys from lists and files. */
#include "server/limits/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct exchange_text text(const char *string)
{
    return (struct exchange_text){string, strlen(string)};
}

/* Host ---------------------------------------------------------------------------------------------------- */

static void test_loopback_names(void **state)
{
    static const char *const ours[] = {"localhost", "localhost:8080", "LocalHost:1", "127.0.0.1:8080",
                                       "127.9.8.7", "[::1]:8080",     "[::1]",       "app.localhost"};
    static const char *const others[] = {"evil.example",
                                         "localhost.evil.example",
                                         "127.0.0.1.evil.example",
                                         "127.0.0.1x",
                                         "128.0.0.1",
                                         "0.0.0.0",
                                         "[::2]",
                                         "[::1",
                                         "",
                                         "localhost.",
                                         "xlocalhost",
                                         "[127.0.0.1]",
                                         "2130706433",
                                         "127.1",
                                         ":8080",
                                         ".localhost"};
    const struct guard_options options = {.is_loopback = true};
    (void)state;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!guard_host_is_ours(&options, text(ours[i])))
            fail_msg("%s is ours", ours[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (guard_host_is_ours(&options, text(others[i])))
            fail_msg("%s is not ours", others[i]);
}

static void test_allowed_hosts(void **state)
{
    static const char *const lists[] = {"a.example, *.b.example", "[fe80::1]"};
    struct guard_options options = {
        .is_loopback = true, .host = "box", .allowed_hosts = lists, .n_allowed_hosts = 2};
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_true(guard_host_is_ours(&options, text("A.example:80")));
        assert_true(guard_host_is_ours(&options, text("x.b.example")));
        assert_true(guard_host_is_ours(&options, text("[fe80::1]:80")));
        assert_true(guard_host_is_ours(&options, text("box:8080")));
        assert_true(guard_host_is_ours(&options, text("localhost")));
        assert_false(guard_host_is_ours(&options, text("b.example")));
        assert_false(guard_host_is_ours(&options, text("xb.example")));
        assert_false(guard_host_is_ours(&options, text("x.a.example")));
        options.is_loopback = false; /* given, the list holds wherever the server listens */
    }
    options.n_allowed_hosts = 0;
    assert_true(guard_host_is_ours(&options, text("whatever.example")));
    static const char *const any[] = {"*"};
    const struct guard_options open = {.is_loopback = true, .allowed_hosts = any, .n_allowed_hosts = 1};
    assert_true(guard_host_is_ours(&open, text("whatever.example")));
}

/* Origin -------------------------------------------------------------------------------------------------- */

static void test_origins(void **state)
{
    static const char *const lists[] = {"https://app.example,http://b.example:81"};
    const struct guard_options none = {.is_loopback = true};
    const struct guard_options some = {.is_loopback = true, .cors_origins = lists, .n_cors_origins = 1};
    struct exchange_text entry, host = text("localhost:8080");
    (void)state;
    assert_int_equal(guard_judge_origin(&none, text("http://localhost:8080"), host, &entry),
                     GUARD_SAME_ORIGIN);
    assert_int_equal(guard_judge_origin(&none, text("https://LOCALHOST:8080"), host, &entry),
                     GUARD_SAME_ORIGIN);
    static const char *const foreign[] = {"http://localhost",
                                          "http://localhost:80800",
                                          "http://evil.example",
                                          "null",
                                          "",
                                          "localhost:8080",
                                          "ftp://localhost:8080",
                                          "http://127.0.0.1:8080",
                                          "http://",
                                          "https://app.example.evil",
                                          "http://app.example"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (guard_judge_origin(&some, text(foreign[i]), host, &entry) != GUARD_FOREIGN_ORIGIN)
            fail_msg("'%s' is foreign", foreign[i]);
    assert_int_equal(guard_judge_origin(&none, text("https://app.example"), host, &entry),
                     GUARD_FOREIGN_ORIGIN);
    assert_int_equal(guard_judge_origin(&some, text("https://APP.example"), host, &entry), GUARD_CORS_ORIGIN);
    assert_ptr_equal(entry.bytes, lists[0]); /* what is answered is ours, not the client's bytes */
    assert_int_equal(entry.len, 19);
    assert_int_equal(guard_judge_origin(&some, text("http://b.example:81"), host, &entry), GUARD_CORS_ORIGIN);
    static const char *const any[] = {"*"};
    const struct guard_options open = {.is_loopback = true, .cors_origins = any, .n_cors_origins = 1};
    assert_int_equal(guard_judge_origin(&open, text("null"), host, &entry), GUARD_CORS_ORIGIN);
    assert_true(exchange_text_is(entry, "*"));
}

static void test_wrong_entries(void **state)
{
    static const char *const hosts[] = {"a.example:80", "http://a", "a b/c"};
    static const char *const origins[] = {"app.example", "http://", "https://a/", "http://a/b",
                                          "https://a\r\nX: y"};
    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        const struct guard_options options = {.allowed_hosts = &hosts[i], .n_allowed_hosts = 1};
        runnel_error error;
        assert_int_equal(guard_check_options(&options, &error), RUNNEL_EINVAL);
        assert_non_null(strstr(error.message, "--allowed-host"));
    }
    for (size_t i = 0; i < sizeof origins / sizeof *origins; i++) {
        const struct guard_options options = {.cors_origins = &origins[i], .n_cors_origins = 1};
        runnel_error error;
        assert_int_equal(guard_check_options(&options, &error), RUNNEL_EINVAL);
        assert_non_null(strstr(error.message, "--cors-origin"));
    }
}

/* Keys ---------------------------------------------------------------------------------------------------- */

static uint32_t find(const struct keys *keys, const char *key)
{
    return keys_find(keys, key, strlen(key));
}

static void test_keys(void **state)
{
    static const char *const lists[] = {"one,two,", "three,one"};
    char path[] = "/tmp/runnel-keys-XXXXXX";
    struct keys *keys;
    runnel_error error;
    (void)state;
    int descriptor = mkstemp(path);
    static const char lines[] = "# a remark\n\n  four  \r\n\tfive\n#six\nse#ven";
    assert_int_equal(write(descriptor, lines, sizeof lines - 1), sizeof lines - 1);
    close(descriptor);
    assert_int_equal(keys_create(lists, 2, path, &keys, &error), RUNNEL_OK);
    unlink(path);
    assert_int_equal(keys_count(keys), 6);
    static const char *const expected[] = {"one", "two", "three", "four", "five", "se#ven"};
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(find(keys, expected[i]), i + 1);
    static const char *const wrong[] = {"", "on", "onee", "One", "one,two", "#six", "six", "  four", "four "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(find(keys, wrong[i]), 0);
    keys_free(keys);
    assert_int_equal(keys_create(NULL, 0, NULL, &keys, &error), RUNNEL_OK);
    assert_int_equal(keys_count(keys), 0);
    assert_int_equal(find(keys, ""), 0);
    keys_free(keys);
    assert_int_equal(keys_count(NULL), 0);
}

static void expect_refusal(const char *list, const char *file_text, const char *named)
{
    char path[] = "/tmp/runnel-keys-XXXXXX";
    struct keys *keys = NULL;
    runnel_error error;
    if (file_text) {
        int descriptor = mkstemp(path);
        assert_true(write(descriptor, file_text, strlen(file_text)) >= 0);
        close(descriptor);
    }
    assert_true(keys_create(&list, list ? 1 : 0, file_text ? path : NULL, &keys, &error) < 0);
    assert_null(keys);
    assert_non_null(strstr(error.message, named));
    assert_null(strstr(error.message, "SECRET"));
    if (file_text)
        unlink(path);
}

static void test_wrong_keys(void **state)
{
    static char many[4096];
    char longest[KEY_BYTES_MAX + 2];
    const char *list = longest;
    struct keys *keys;
    runnel_error error;
    (void)state;
    expect_refusal("", NULL, "--api-key");
    expect_refusal(",,", NULL, "--api-key");
    expect_refusal("SECRET KEY", NULL, "--api-key");
    expect_refusal("SECR\xc3\xa9T", NULL, "--api-key");
    expect_refusal(NULL, "", "expected a key");
    expect_refusal(NULL, "# only\n#remarks\n", "expected a key");
    expect_refusal(NULL, "good\nSECRET key\n", "line 2");
    assert_int_equal(keys_create(NULL, 0, "/nowhere/keys", &keys, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "/nowhere/keys"));

    memset(longest, 'k', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    expect_refusal(longest, NULL, "256");
    longest[sizeof longest - 2] = 0;
    assert_int_equal(keys_create(&list, 1, NULL, &keys, &error), RUNNEL_OK);
    keys_free(keys);

    size_t len = 0;
    for (int i = 0; i < 256; i++)
        len += (size_t)snprintf(many + len, sizeof many - len, "%d,", i);
    list = many;
    assert_int_equal(keys_create(&list, 1, NULL, &keys, &error), RUNNEL_OK);
    assert_int_equal(keys_count(keys), 256);
    assert_int_equal(find(keys, "255"), 256);
    keys_free(keys);
    snprintf(many + len, sizeof many - len, "256");
    expect_refusal(many, NULL, "at most 256 keys");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback_names), cmocka_unit_test(test_allowed_hosts),
        cmocka_unit_test(test_origins),        cmocka_unit_test(test_wrong_entries),
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_wrong_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
