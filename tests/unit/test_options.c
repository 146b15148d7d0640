/* test_options.c: where a value may come from, who wins, what is refused and how the help looks. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct settings {
    const char *model, *kind;
    int n;
    bool has_n;
    float top_p;
    bool has_top_p;
    uint64_t seed;
    bool json;
    struct option_ints sizes;
    char *config_text;
    const char *in, *out;
    uint64_t untouched;
};

static const struct option_spec specs[] = {
    {"model", 'm', OPTION_STRING, "FILE", "the model, a path or a pulled name",
     OPTION_FIELD(struct settings, model)},
    {"kind", 0, OPTION_STRING, "KIND", "what to do", OPTION_FIELD(struct settings, kind),
     .choices = "one|two", .default_text = "two"},
    {"tokens", 'n', OPTION_INT, "N", "how many", OPTION_FIELD(struct settings, n),
     OPTION_HAS(struct settings, has_n), .minimum = -1, .maximum = 100, .default_text = "16"},
    {"top-p", 0, OPTION_FLOAT, "P",
     "keep the likeliest tokens whose probabilities reach P, among those that top-k has left, all others "
     "never being drawn",
     OPTION_FIELD(struct settings, top_p), OPTION_HAS(struct settings, has_top_p), .minimum = 0, .maximum = 1,
     .default_text = "0.95"},
    {"seed", 0, OPTION_UINT64, "S", "seed of the draws", OPTION_FIELD(struct settings, seed)},
    {"json", 'j', OPTION_FLAG, NULL, "print JSON", OPTION_FIELD(struct settings, json)},
    {"sizes", 'b', OPTION_INTS, "N,N,...", "batches", OPTION_FIELD(struct settings, sizes), .minimum = 1,
     .maximum = 64, .default_text = "1,2,4"},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE",
     OPTION_FIELD(struct settings, config_text)},
    {"IN", 0, OPTION_STRING, NULL, "what to read", OPTION_FIELD(struct settings, in), .positional = true},
    {"OUT", 0, OPTION_STRING, NULL, "what to write", OPTION_FIELD(struct settings, out), .positional = true},
};
static const struct options_table table = {"runnel test", "Tests options.", specs, OPTION_COUNT(specs)};

static runnel_error error;

/* Arguments up to NULL. */
static int read_from(const struct options_table *t, struct settings *settings, va_list args)
{
    char *argv[32] = {(char *)"test"};
    int argc = 1;
    while ((argv[argc] = va_arg(args, char *)))
        argc++;
    memset(settings, 0x55, sizeof *settings);
    error.message[0] = 0;
    return options_read(t, argc, argv, settings, &error);
}

static struct settings good(int first, ...)
{
    struct settings settings;
    va_list args;
    va_start(args, first);
    int status = read_from(&table, &settings, args);
    va_end(args);
    if (status)
        fail_msg("%s", error.message);
    assert_true(settings.untouched == 0x5555555555555555u);
    free(settings.config_text);
    return settings;
}

/* Checks that the arguments are refused, with a message that holds the text. */
static void refused(const char *text, ...)
{
    struct settings settings, before;
    va_list args;
    va_start(args, text);
    assert_int_equal(read_from(&table, &settings, args), RUNNEL_EINVAL);
    va_end(args);
    if (!strstr(error.message, text))
        fail_msg("expected '%s' in '%s'", text, error.message);
    memset(&before, 0x55, sizeof before);
    assert_memory_equal(&settings, &before, sizeof before);
}

static void test_defaults(void **state)
{
    (void)state;
    struct settings s = good(0, NULL);
    assert_null(s.model);
    assert_string_equal(s.kind, "two");
    assert_int_equal(s.n, 16);
    assert_false(s.has_n || s.has_top_p || s.json);
    assert_true(s.top_p == 0.95f);
    assert_true(s.seed == 0);
    assert_int_equal(s.sizes.n, 3);
    assert_int_equal(s.sizes.values[2], 4);
    assert_null(s.config_text);
    assert_null(s.in);
}

static void test_flags(void **state)
{
    (void)state;
    struct settings s = good(0, "--model", "a b", "-n", "-1", "--top-p=0.5", "--seed", "18446744073709551615",
                             "-j", "-b", "7", "--kind=one", NULL);
    assert_string_equal(s.model, "a b");
    assert_string_equal(s.kind, "one");
    assert_int_equal(s.n, -1);
    assert_true(s.has_n && s.has_top_p && s.json);
    assert_true(s.top_p == 0.5f);
    assert_true(s.seed == UINT64_MAX);
    assert_int_equal(s.sizes.n, 1);
    assert_int_equal(s.sizes.values[0], 7);

    s = good(0, "-n5", "-m--model", "-n", "6", "--json", "--json=no", "--top-p", "1e-1", NULL);
    assert_int_equal(s.n, 6);
    assert_string_equal(s.model, "--model");
    assert_false(s.json);
    assert_true(s.top_p == 0.1f);
    s = good(0, "--model=", "--sizes", "64,1,2", NULL);
    assert_string_equal(s.model, "");
    assert_int_equal(s.sizes.values[0], 64);
}

static void test_positional(void **state)
{
    (void)state;
    struct settings s = good(0, "from", "-j", "-", NULL);
    assert_string_equal(s.in, "from");
    assert_string_equal(s.out, "-");
    s = good(0, "--", "--json", "-h", NULL);
    assert_string_equal(s.in, "--json");
    assert_string_equal(s.out, "-h");
    assert_false(s.json);
    refused("'three': expected an option, found an argument too many", "one", "two", "three", NULL);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("--tokens: expected a whole number from -1 to 100, found '101'", "-n", "101", NULL);
    refused("--tokens: expected a whole number from -1 to 100, found '-2'", "--tokens=-2", NULL);
    refused("found '1x'", "-n", "1x", NULL);
    refused("found ''", "-n", "", NULL);
    refused("found ' 1'", "-n", " 1", NULL);
    refused("found '99999999999999999999'", "-n", "99999999999999999999", NULL);
    refused("found '1.5'", "-n", "1.5", NULL);
    refused("--top-p: expected a number from 0 to 1, found '1.01'", "--top-p", "1.01", NULL);
    refused("found 'nan'", "--top-p", "nan", NULL);
    refused("found 'inf'", "--top-p", "inf", NULL);
    refused("found '0x1p-1'", "--top-p", "0x1p-1", NULL);
    refused("found '0X0'", "--top-p", "0X0", NULL);
    refused("found '0.5 '", "--top-p", "0.5 ", NULL);
    refused("--seed: expected a whole number from 0 to 2^64 - 1, found '-1'", "--seed", "-1", NULL);
    refused("found '18446744073709551616'", "--seed", "18446744073709551616", NULL);
    refused("found ''", "--seed", "", NULL);
    refused("--json: expected yes or no, found 'maybe'", "--json=maybe", NULL);
    refused("--kind: expected one|two, found 'three'", "--kind", "three", NULL);
    refused("found 'on'", "--kind", "on", NULL);
    refused("--sizes: expected up to 32 whole numbers, with commas, from 1 to 64, found '1,65'", "-b", "1,65",
            NULL);
    refused("found '1,'", "-b", "1,", NULL);
    refused("found '1;2'", "-b", "1;2", NULL);
    refused("found ''", "-b", "", NULL);
    refused("--sizes", "-b", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", NULL);
    refused("--tokens: expected a value (N) behind it, found nothing", "--tokens", NULL);
    refused("-n: expected a value (N) behind it, found nothing", "-j", "-n", NULL);
}

static void test_unknown_names(void **state)
{
    (void)state;
    refused("--modle: unknown option; did you mean --model?", "--modle", "x", NULL);
    refused("--top_p: unknown option; did you mean --top-p?", "--top_p=1", NULL);
    refused("--zebra: unknown option; runnel test --help lists them", "--zebra", NULL);
    refused("-z: unknown option", "-z", NULL);
    refused("-jm: unknown option", "-jm", NULL);
    refused("-xmodel: unknown option; did you mean --model?", "-xmodel", NULL);
}

static void test_required(void **state)
{
    (void)state;
    static const struct option_spec required[] = {
        {"model", 'm', OPTION_STRING, "FILE", "the model", OPTION_FIELD(struct settings, model),
         .required = true},
        {"IN", 0, OPTION_STRING, NULL, "what to read", OPTION_FIELD(struct settings, in), .positional = true,
         .required = true},
    };
    static const struct options_table t = {"runnel t", "T.", required, OPTION_COUNT(required)};
    struct settings settings;
    char *argv[] = {(char *)"t", (char *)"in", (char *)"-m", (char *)"x", NULL};
    assert_int_equal(options_read(&t, 2, argv, &settings, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "expected --model FILE, found none"));
    assert_int_equal(options_read(&t, 3, argv + 1, &settings, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "expected IN, found none"));
    assert_int_equal(options_read(&t, 4, argv, &settings, &error), OPTIONS_READ);
    assert_int_equal(setenv("RUNNEL_MODEL", "from environment", 1), 0);
    assert_int_equal(options_read(&t, 2, argv, &settings, &error), OPTIONS_READ);
    assert_string_equal(settings.model, "from environment");
    unsetenv("RUNNEL_MODEL");
}

static char config_path[64];

static void write_config(const char *text)
{
    strcpy(config_path, "/tmp/runnel-options-XXXXXX");
    int file = mkstemp(config_path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
}

/* Of two values the last one counts, of two texts neither may be ignored. */
static void test_once(void **state)
{
    (void)state;
    struct texts {
        const char *prompt;
        int n;
        char *config_text;
    } s;
    static const struct option_spec once_specs[] = {
        {"prompt", 'p', OPTION_STRING, "TEXT", "a text", OPTION_FIELD(struct texts, prompt), .once = true},
        {"tokens", 'n', OPTION_INT, "N", "how many", OPTION_FIELD(struct texts, n), .minimum = 0,
         .maximum = 9},
        {"config", 0, OPTION_CONFIG, "FILE", "config", OPTION_FIELD(struct texts, config_text)},
    };
    static const struct options_table t = {"runnel t", "T.", once_specs, OPTION_COUNT(once_specs)};
    char *good_ones[] = {(char *)"t", (char *)"-n", (char *)"1", (char *)"-n2", (char *)"-p", (char *)"a"};
    char *twice[] = {(char *)"t", (char *)"-p", (char *)"a", (char *)"--prompt=b"};
    char *file[] = {(char *)"t", (char *)"--config", config_path, (char *)"-p", (char *)"flag"};
    assert_int_equal(options_read(&t, 6, good_ones, &s, &error), OPTIONS_READ);
    assert_int_equal(s.n, 2);
    assert_int_equal(options_read(&t, 4, twice, &s, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "--prompt: expected it once, found 'a' and 'b'");
    char *files[] = {(char *)"t", (char *)"--config", config_path, (char *)"--config=other"};
    write_config("tokens = 1\n");
    assert_int_equal(options_read(&t, 4, files, &s, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "--config: expected it once, found '"));
    write_config("prompt = a\n\nprompt = b\n");
    assert_int_equal(options_read(&t, 3, file, &s, &error), RUNNEL_EINVAL);
    assert_non_null(
        strstr(error.message, "line 3: prompt: expected it once, found 'b' here and 'a' in line 1"));
    write_config("prompt = a\n");
    assert_int_equal(options_read(&t, 5, file, &s, &error), OPTIONS_READ);
    assert_string_equal(s.prompt, "flag"); /* another source */
    free(s.config_text);
    unlink(config_path);
}

static void test_precedence(void **state)
{
    (void)state;
    write_config("# remark\n\n  tokens = 1\ntop-p=0.1\n seed = 11 \nkind = \"one\"\r\njson = on\ntokens = 2");
    struct settings s = good(0, "--config", config_path, NULL);
    assert_int_equal(s.n, 2); /* the last line that has it */
    assert_true(s.has_n && s.top_p == 0.1f && s.seed == 11 && s.json);
    setenv("RUNNEL_TOP_P", "0.2", 1);
    setenv("RUNNEL_SEED", "22", 1);
    setenv("RUNNEL_TOKENS", "", 1); /* empty: not set */
    s = good(0, "--config", config_path, "--seed", "33", NULL);
    assert_true(s.n == 2 && s.top_p == 0.2f && s.seed == 33);
    setenv("RUNNEL_CONFIG", config_path, 1);
    setenv("RUNNEL_JSON", "off", 1);
    s = good(0, NULL);
    assert_true(s.n == 2 && s.top_p == 0.2f && s.seed == 22 && !s.json);
    setenv("RUNNEL_TOP_P", "2", 1);
    refused("RUNNEL_TOP_P: expected a number from 0 to 1, found '2'", NULL);
    s = good(0, "--top-p", "0.3", NULL); /* what loses is not looked at */
    assert_true(s.top_p == 0.3f);
    unsetenv("RUNNEL_TOP_P");
    unsetenv("RUNNEL_SEED");
    unsetenv("RUNNEL_TOKENS");
    unsetenv("RUNNEL_CONFIG");
    unsetenv("RUNNEL_JSON");
    unlink(config_path);
}

static void test_string_of_the_config_file_lives_in_its_text(void **state)
{
    (void)state;
    write_config("model = \" a path \"\n");
    char *argv[] = {(char *)"t", (char *)"--config", config_path};
    struct settings s;
    assert_int_equal(options_read(&table, 3, argv, &s, &error), OPTIONS_READ);
    assert_string_equal(s.model, " a path ");
    assert_non_null(s.config_text);
    free(s.config_text);
    unlink(config_path);
}

static void test_config_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"tokens = 1\ntokens 2\n", ", line 2: expected 'name = value', found 'tokens 2'"},
        {"\n\ntokens = many", ", line 3: tokens: expected a whole number from -1 to 100, found 'many'"},
        {"tokans = 1", ", line 1: tokans: unknown option; did you mean tokens?"},
        {"config = x", ", line 1: expected an option, found another config file"},
        {"IN = x", "unknown option"},
        {"= x", "unknown option"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_config(cases[i].text);
        refused(cases[i].message, "--config", config_path, NULL);
        unlink(config_path);
    }
    struct settings s;
    char *argv[] = {(char *)"t", (char *)"--config", (char *)"/nowhere/at all"};
    assert_int_equal(options_read(&table, 3, argv, &s, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "/nowhere/at all"));
    argv[2] = (char *)"/tmp";
    assert_int_equal(options_read(&table, 3, argv, &s, &error), RUNNEL_EIO);
}

static void test_help(void **state)
{
    (void)state;
    struct settings s;
    char *argv[] = {(char *)"t", (char *)"-n", (char *)"5", (char *)"--help"};
    assert_int_equal(options_read(&table, 4, argv, &s, &error), OPTIONS_HELP);
    argv[3] = (char *)"-h";
    assert_int_equal(options_read(&table, 4, argv, &s, &error), OPTIONS_HELP);

    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    options_print_help(&table, out);
    fclose(out);
    assert_non_null(strstr(text, "Usage: runnel test [OPTION...] [IN] [OUT]\n\nTests options.\n\n"));
    assert_non_null(strstr(text, "  -m, --model FILE     the model, a path or a pulled name\n"));
    assert_non_null(strstr(text, "      --kind KIND      what to do: one|two (default two)\n"));
    assert_non_null(strstr(text, "  -n, --tokens N       how many (default 16)\n"));
    assert_non_null(strstr(text, "  -h, --help           print this text\n"));
    assert_non_null(strstr(text, "RUNNEL_MODEL=..."));
    for (char *line = text, *next; *line; line = next + 1) {
        next = strchr(line, '\n');
        assert_non_null(next);
        assert_true(next - line <= 80);
        assert_true(next == line || next[-1] != ' ');
    }
    free(text);
}

/* An argument that may have a flag, and options that go or do not go together. */
static void test_together(void **state)
{
    (void)state;
    struct together {
        const char *model, *system;
        bool raw, has_first;
        int first, last;
        float real;
        char *config_text;
    } s;
    static const struct option_spec together_specs[] = {
        {"model", 'm', OPTION_STRING, "MODEL", "a model", OPTION_FIELD(struct together, model),
         .required = true, .bare = true, .extra_hint = "questions go behind -p"},
        {"system", 0, OPTION_STRING, "TEXT", "a text", OPTION_FIELD(struct together, system)},
        {"raw", 'r', OPTION_FLAG, NULL, "as it is", OPTION_FIELD(struct together, raw),
         .excludes = "other|system"},
        {"first", 0, OPTION_INT, "N", "first", OPTION_FIELD(struct together, first),
         OPTION_HAS(struct together, has_first), .minimum = 0, .maximum = 9, .default_text = "4",
         .needs = "last|other"},
        {"last", 0, OPTION_INT, "N", "last", OPTION_FIELD(struct together, last)},
        {"real", 0, OPTION_FLOAT, "X", "real", OPTION_FIELD(struct together, real), .minimum = 0,
         .maximum = 1},
        {"config", 0, OPTION_CONFIG, "FILE", "config", OPTION_FIELD(struct together, config_text)},
    };
    static const struct options_table t = {"runnel t", "T.", together_specs, OPTION_COUNT(together_specs)};
    static const struct {
        const char *argv[5];
        const char *message; /* NULL: it is taken */
    } cases[] = {
        {{"a"}, NULL},
        {{"-m", "a"}, NULL},
        {{"-m", "a", "--model", "b"}, NULL},
        {{"a", "b"}, "'b': expected an option, found an argument too many; questions go behind -p"},
        {{"a", "-m", "b"}, "expected one MODEL, found 'a' and --model 'b'; questions go behind -p"},
        {{"-m", "b", "a"}, "expected one MODEL, found 'a' and --model 'b'; questions go behind -p"},
        {{NULL}, "expected --model MODEL, found none"},
        {{"a", "--raw", "--system", "x"}, "--raw: expected it without --system, found both"},
        {{"a", "--system", "x", "--raw"}, "--raw: expected it without --system, found both"},
        {{"a", "--system", "x", "--raw=no"}, NULL},
        {{"a", "--first", "3"}, "--first: expected --last or --other beside it, found none"},
        {{"a", "--first", "3", "--last=0"}, "--first: expected --last"},
        {{"a", "--first", "3", "--last=5"}, NULL},
        {{"a", "--first", "0"}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[6] = {(char *)"t"};
        int argc = 1;
        for (; argc < 6 && cases[i].argv[argc - 1]; argc++)
            argv[argc] = (char *)(uintptr_t)cases[i].argv[argc - 1];
        int status = options_read(&t, argc, argv, &s, &error);
        assert_int_equal(status, cases[i].message ? RUNNEL_EINVAL : OPTIONS_READ);
        if (cases[i].message && !strstr(error.message, cases[i].message))
            fail_msg("expected '%s', found '%s'", cases[i].message, error.message);
    }
    write_config("system = x\n");
    char *argv[] = {(char *)"t", (char *)"a", (char *)"-r", (char *)"--config", config_path};
    assert_int_equal(options_read(&t, 5, argv, &s, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "--raw: expected it without "));
    assert_non_null(strstr(error.message, "line 1: system, found both"));
    unlink(config_path);
    setenv("RUNNEL_MODEL", "from outside", 1);
    assert_int_equal(options_read(&t, 2, argv, &s, &error), OPTIONS_READ);
    assert_string_equal(s.model, "a");
    unsetenv("RUNNEL_MODEL");

    s.has_first = false;
    assert_int_equal(options_set(&t, "first", "7", &s, &error), RUNNEL_OK);
    assert_true(s.has_first && s.first == 7);
    assert_int_equal(options_set(&t, "first", "17", &s, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "first: expected a whole number from 0 to 9, found '17'");
    assert_int_equal(options_set(&t, "frist", "7", &s, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "frist: unknown option; did you mean first?");
    assert_int_equal(s.first, 7);

    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    options_print_help(&t, out);
    fclose(out);
    assert_non_null(strstr(text, "Usage: runnel t [OPTION...] MODEL\n"));
    assert_non_null(strstr(text, "  -m, --model MODEL  a model (required; also without the flag)\n"));
    free(text);
}

/* Options that may come several times: in the order given; whoever has it first wins, with all of it. */
static void test_texts(void **state)
{
    struct texts_settings {
        struct option_texts keys, others;
        char *config_text;
    } s;
    static const struct option_spec texts_specs[] = {
        {"keys", 0, OPTION_TEXTS, "KEY", "keys", OPTION_FIELD(struct texts_settings, keys)},
        {"others", 0, OPTION_TEXTS, "X", "others", OPTION_FIELD(struct texts_settings, others),
         .default_text = "none"},
        {"config", 0, OPTION_CONFIG, "FILE", "config", OPTION_FIELD(struct texts_settings, config_text)},
    };
    static const struct options_table texts_table = {"runnel texts", "Tests texts.", texts_specs,
                                                     OPTION_COUNT(texts_specs)};
    (void)state;
    char *argv[2 + 2 * OPTION_TEXTS_MAX] = {(char *)"t", (char *)"--keys", (char *)"a,b",
                                            (char *)"--others=x", (char *)"--keys=c"};
    assert_int_equal(options_read(&texts_table, 5, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, 2);
    assert_string_equal(s.keys.values[0], "a,b");
    assert_string_equal(s.keys.values[1], "c");
    assert_int_equal(s.others.n, 1);

    setenv("RUNNEL_KEYS", "e", 1);
    assert_int_equal(options_read(&texts_table, 5, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, 2);
    assert_int_equal(options_read(&texts_table, 1, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, 1);
    assert_string_equal(s.keys.values[0], "e");
    assert_string_equal(s.others.values[0], "none");
    unsetenv("RUNNEL_KEYS");

    char path[] = "/tmp/runnel-texts-XXXXXX";
    int descriptor = mkstemp(path);
    static const char lines[] = "keys = f\nothers = y\nkeys = g\n";
    assert_int_equal(write(descriptor, lines, sizeof lines - 1), sizeof lines - 1);
    close(descriptor);
    argv[3] = (char *)"--config";
    argv[4] = path;
    assert_int_equal(options_read(&texts_table, 5, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, 1);
    assert_string_equal(s.keys.values[0], "a,b");
    free(s.config_text);
    argv[1] = (char *)"--config";
    argv[2] = path;
    assert_int_equal(options_read(&texts_table, 3, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, 2);
    assert_string_equal(s.keys.values[1], "g");
    assert_string_equal(s.others.values[0], "y");
    free(s.config_text);
    unlink(path);

    for (int i = 0; i <= OPTION_TEXTS_MAX; i++)
        argv[1 + i] = (char *)"--keys=x";
    assert_int_equal(options_read(&texts_table, 1 + OPTION_TEXTS_MAX, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.keys.n, OPTION_TEXTS_MAX);
    assert_int_equal(options_read(&texts_table, 2 + OPTION_TEXTS_MAX, argv, &s, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "--keys"));
}

/* What stands without a flag may come several times, too. */
static void test_positional_texts(void **state)
{
    struct names_settings {
        struct option_texts names;
        bool json;
    } s;
    static const struct option_spec names_specs[] = {
        {"NAME", 0, OPTION_TEXTS, NULL, "names", OPTION_FIELD(struct names_settings, names),
         .positional = true, .required = true},
        {"json", 0, OPTION_FLAG, NULL, "print JSON", OPTION_FIELD(struct names_settings, json)},
    };
    static const struct options_table names_table = {"runnel names", "Tests names.", names_specs,
                                                     OPTION_COUNT(names_specs)};
    (void)state;
    char *argv[2 + OPTION_TEXTS_MAX] = {(char *)"t",   (char *)"one", (char *)"--json",
                                        (char *)"two", (char *)"--",  (char *)"-three"};
    assert_int_equal(options_read(&names_table, 6, argv, &s, &error), OPTIONS_READ);
    assert_int_equal(s.names.n, 3);
    assert_string_equal(s.names.values[0], "one");
    assert_string_equal(s.names.values[1], "two");
    assert_string_equal(s.names.values[2], "-three");
    assert_true(s.json);
    assert_int_equal(options_read(&names_table, 1, argv, &s, &error), RUNNEL_EINVAL);
    for (int i = 0; i <= OPTION_TEXTS_MAX; i++)
        argv[1 + i] = (char *)"x";
    assert_int_equal(options_read(&names_table, 2 + OPTION_TEXTS_MAX, argv, &s, &error), RUNNEL_EINVAL);
    assert_string_equal(error.message, "NAME: expected it 32 times at most");
}

int main(void)
{
    for (size_t i = 0; i < OPTION_COUNT(specs); i++) { /* whoever runs the tests may have some set */
        char name[64] = "RUNNEL_";
        for (size_t c = 0; specs[i].name[c]; c++)
            name[7 + c] = specs[i].name[c] == '-' ? '_' : (char)(specs[i].name[c] & ~0x20);
        unsetenv(name);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_positional),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_string_of_the_config_file_lives_in_its_text),
        cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_positional_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
