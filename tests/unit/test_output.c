/* test_output.c: text events against a simple model that looks at the whole text at once, for every way to
 * cut the bytes into tokens; and what is held back while the text comes in. */
#include "base/utf8.h"
#include "engine/output.h"
#include "engine/sampler.h" /* for its random numbers */
#include "engine/thought_tags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { CAP = 4096 };

/* What came out, thoughts and answers in one string: "T" or "A", then the text, whenever the kind changes. */
struct record {
    char text[CAP];
    size_t len;
    int kind;
    int n_until_cancel; /* events to accept; negative: all */
    int n_events;
};

static void append(struct record *r, int kind, const char *text, size_t len)
{
    if (kind != r->kind && len)
        r->text[r->len++] = kind == RUNNEL_EVENT_THOUGHT ? 'T' : 'A';
    r->kind = len ? kind : r->kind;
    assert_true(r->len + len < CAP);
    memcpy(r->text + r->len, text, len);
    r->len += len;
    r->text[r->len] = 0;
}

static bool on_event(void *user, const runnel_event *event)
{
    struct record *r = user;
    assert_true(event->kind == RUNNEL_EVENT_THOUGHT || event->kind == RUNNEL_EVENT_ANSWER);
    assert_true(event->text_len > 0);
    assert_int_equal(event->text[event->text_len], 0);
    assert_true(utf8_valid(event->text, event->text_len));
    append(r, event->kind, event->text, event->text_len);
    r->n_events++;
    return r->n_until_cancel != 0 && r->n_until_cancel-- != 0;
}

static struct record empty_record(void)
{
    return (struct record){.n_until_cancel = -1};
}

/* The model ----------------------------------------------------------------------------------------------- */

/* Length of the well-formed character at text, or 0; *subpart: bytes that one U+FFFD stands for. Written from
 * the definition: decode by the leading byte, then ask whether a longer beginning could become anything. */
static size_t character_len(const uint8_t *text, size_t len, size_t *subpart)
{
    static const struct {
        uint8_t first, last, low, high, n;
    } forms[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    *subpart = 1;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        if (text[0] < forms[f].first || text[0] > forms[f].last)
            continue;
        size_t n = 1;
        while (n < forms[f].n && n < len && text[n] >= (n == 1 ? forms[f].low : 0x80) &&
               text[n] <= (n == 1 ? forms[f].high : 0xbf))
            n++;
        *subpart = n;
        return n == forms[f].n ? n : 0;
    }
    return 0;
}

static size_t model_utf8(const char *bytes, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        size_t subpart, whole = character_len((const uint8_t *)bytes + i, len - i, &subpart);
        memcpy(out + n, whole ? bytes + i : "\xef\xbf\xbd", whole ? whole : 3);
        n += whole ? whole : 3;
        i += whole ? whole : subpart;
    }
    return n;
}

static size_t find(const char *text, size_t len, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 0; i + n <= len; i++)
        if (memcmp(text + i, what, n) == 0)
            return i;
    return len;
}

/* Appends a piece of the answer up to the first stop text that is complete in it, where white space that nothing came before but
 * a thought is none. True if there is one. */
static bool append_answer(const struct output_options *options, bool follows_thought, const char *text,
                          size_t len, struct record *r)
{
    size_t n_bare = follows_thought ? strspn(text, " \t\r\n") : 0;
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (size_t s = 0; s < options->n_stop; s++) {
            size_t n = strlen(options->stop[s]);
            if (end <= n_bare && strspn(options->stop[s], " \t\r\n") == n)
                continue;
            if (n <= end && n > longest && memcmp(text + end - n, options->stop[s], n) == 0)
                longest = n;
        }
        if (longest) {
            append(r, RUNNEL_EVENT_ANSWER, text, end - longest);
            return true;
        }
    }
    append(r, RUNNEL_EVENT_ANSWER, text, len);
    return false;
}

static enum output_state model_output(const struct output_options *options, const char *bytes, size_t n_bytes,
                                      struct record *r)
{
    char text[CAP] = "";
    size_t len = model_utf8(bytes, n_bytes, text);
    const char *at = text;
    bool follows_thought = false;
    if (options->split_thoughts) {
        if (!options->starts_in_thought) {
            size_t n = find(at, len, "<think>");
            if (append_answer(options, false, at, n, r))
                return OUTPUT_STOPPED;
            if (n == len)
                return OUTPUT_GOING_ON;
            at += n + 7;
            len -= n + 7;
            if (len && *at == '\n')
                at++, len--;
        }
        size_t n = find(at, len, "</think>");
        append(r, RUNNEL_EVENT_THOUGHT, at, n);
        if (n == len)
            return OUTPUT_GOING_ON;
        at += n + 8;
        len -= n + 8;
        for (int i = 0; i < 2 && len && *at == '\n'; i++)
            at++, len--;
        follows_thought = true;
    }
    return append_answer(options, follows_thought, at, len, r) ? OUTPUT_STOPPED : OUTPUT_GOING_ON;
}

/* Comparing ----------------------------------------------------------------------------------------------- */

/* Runs bytes cut after each position whose bit is set in cuts (positions past 63: by random numbers of seed
 * cuts). */
static void check_cut(const struct output_options *options, const char *bytes, size_t len, uint64_t cuts)
{
    struct record expected = empty_record(), found = empty_record();
    enum output_state model_state = model_output(options, bytes, len, &expected);
    struct output *o;
    assert_int_equal(output_create(options, &o, NULL), 0);
    size_t begin = 0;
    for (size_t i = 0; i < len; i++) {
        bool cut = i < 64 && len <= 64 ? cuts >> i & 1 : sampler_random(cuts, i) & 1;
        if (!cut && i + 1 < len)
            continue;
        char *token = malloc(i + 1 - begin); /* of its exact size, so that reading past it is noticed */
        memcpy(token, bytes + begin, i + 1 - begin);
        output_push(o, token, i + 1 - begin, on_event, &found);
        free(token);
        begin = i + 1;
    }
    enum output_state state = output_finish(o, false, on_event, &found);
    output_free(o);
    assert_int_equal(state, model_state);
    assert_int_equal(found.len, expected.len);
    assert_memory_equal(found.text, expected.text, expected.len);
}

static void check_every_cut(struct output_options options, const char *bytes, size_t len)
{
    assert_true(len <= 14);
    for (uint64_t cuts = 0; cuts < 1ull << (len ? len - 1 : 0); cuts++)
        check_cut(&options, bytes, len, cuts);
}

static void test_every_split(void **state)
{
    (void)state;
    const char *stops[] = {"abab", "ba\n", "\xe2\x82\xac", "\xef\xbf\xbd<"};
    struct output_options none = {0}, split = {.split_thoughts = true};
    struct output_options inside = {.split_thoughts = true, .starts_in_thought = true};
    struct output_options stop = {.stop = stops, .n_stop = 4}, both = split;
    both.stop = stops;
    both.n_stop = 4;
    static const char *const texts[] = {
        "",
        "plain",
        "a<think>\n\nb",
        "<think>x</think>",
        "<<think></thin",
        "ab</think>\n\n\nc",
        "</think>\n<think>",
        "aababa",
        "abaabab!",
        "xba\nyy",
        "aba",
        "1\xe2\x82\xac+",
        "1\xe2\x82",
        "\xff\xff<a",
        "\xe2\x82<b",
        "\xf0\x9f\x98\x80\xf0\x9f",
        "\xed\xa0\x80z",
        "\xc0\xaf\xf4\x90\x80",
        "\xf0\x80\x80\x80",
        "<thi\xc3\xa9nk>",
        "aba<think>ba",
        "</think\n\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t len = strlen(texts[i]) < 14 ? strlen(texts[i]) : 14;
        check_every_cut(none, texts[i], len);
        check_every_cut(split, texts[i], len);
        check_every_cut(inside, texts[i], len);
        check_every_cut(stop, texts[i], len);
        check_every_cut(both, texts[i], len);
    }
}

/* Random texts and stop texts made of few pieces, so that beginnings of tags and stops are everywhere. */
static void test_random_texts(void **state)
{
    (void)state;
    static const char *const pieces[] = {"<think>",
                                         "</think>",
                                         "<",
                                         "/",
                                         "think>",
                                         "\n",
                                         "a",
                                         "b",
                                         "ab",
                                         "ba",
                                         "\xc3\xa9",
                                         "\xe2\x82\xac",
                                         "\xf0\x9f\x98\x80",
                                         "\xe2",
                                         "\x82",
                                         "\xf0\x9f",
                                         "\xff",
                                         "</thi"};
    enum { N_PIECES = sizeof pieces / sizeof *pieces, VALID_PIECES = 13 };
    uint64_t counter = 0;
#define PICK(n) (sampler_random(42, counter++) % (n))
    for (int round = 0; round < 30000; round++) {
        char stop_text[4][64], text[1024];
        const char *stops[4];
        size_t n_stop = PICK(4), len = 0;
        for (size_t s = 0; s < n_stop; s++) {
            stop_text[s][0] = 0;
            for (size_t n = 1 + PICK(4); n > 0; n--)
                strcat(stop_text[s], pieces[2 + PICK(VALID_PIECES - 2)]);
            stops[s] = stop_text[s];
        }
        size_t n_pieces = PICK(60);
        for (size_t n = 0; n < n_pieces; n++) {
            const char *piece = pieces[PICK(N_PIECES)];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        struct output_options options = {.stop = stops, .n_stop = n_stop};
        options.split_thoughts = PICK(4) != 0;
        options.starts_in_thought = PICK(2);
        check_cut(&options, text, len, PICK(1ull << 60));
        check_cut(&options, text, len, ~0ull);
    }
#undef PICK
}

static enum output_state push(struct output *o, const char *text, struct record *r)
{
    return output_push(o, text, strlen(text), on_event, r);
}

/* Text comes as soon as it is certain, and not before. */
static void test_holds_no_more_than_needed(void **state)
{
    (void)state;
    const char *stops[] = {"END", "xyz"};
    struct output_options options = {
        .stop = stops, .n_stop = 2, .split_thoughts = true, .starts_in_thought = true};
    struct output *o;
    struct record r = empty_record();
    assert_int_equal(output_create(&options, &o, NULL), 0);
    assert_true(output_in_thought(o));
    push(o, "hm E", &r); /* no stop text ends a thought, and none is waited for */
    assert_string_equal(r.text, "Thm E");
    push(o, "N", &r);
    assert_string_equal(r.text, "Thm EN");
    push(o, "ExyE</th", &r); /* "</th" may be a tag */
    assert_string_equal(r.text, "Thm ENExyE");
    push(o, "ink", &r);
    assert_true(output_in_thought(o));
    push(o, ">", &r);
    assert_false(output_in_thought(o));
    push(o, "\n\n\xc3", &r);
    assert_string_equal(r.text, "Thm ENExyE");
    push(o, "\xa9<think>E", &r); /* after the thought a tag is text */
    assert_string_equal(r.text, "Thm ENExyEA\xc3\xa9<think>");
    assert_int_equal(push(o, "ND and more", &r), OUTPUT_STOPPED);
    assert_int_equal(push(o, "more", &r), OUTPUT_STOPPED);
    assert_int_equal(output_finish(o, false, on_event, &r), OUTPUT_STOPPED);
    assert_string_equal(r.text, "Thm ENExyEA\xc3\xa9<think>");
    output_free(o);
}

/* Whoever follows the bytes alone knows at each token's end whether the next text is a thought. */
static void test_tags_are_followed_without_the_text(void **state)
{
    (void)state;
    static const char *const pieces[] = {"<think>", "</think>", "<",    "</thi",    "nk>",
                                         "\n",      "a",        "\xe2", "\xc3\xa9", "<th"};
    uint32_t n_changes = 0;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        struct output_options options = {.split_thoughts = seed % 4 != 0, .starts_in_thought = seed % 3 == 0};
        struct thought_tags tags = thought_tags_begin(options.split_thoughts, options.starts_in_thought);
        struct output *o;
        struct record r = empty_record();
        assert_int_equal(output_create(&options, &o, NULL), 0);
        for (uint64_t i = 0; i < 30; i++) {
            const char *piece = pieces[sampler_random(seed, i) % (sizeof pieces / sizeof *pieces)];
            bool was_thought = output_in_thought(o);
            push(o, piece, &r);
            thought_tags_push_all(&tags, piece, strlen(piece));
            assert_int_equal(output_in_thought(o), tags.phase == IN_THOUGHT);
            n_changes += was_thought != output_in_thought(o);
        }
        output_free(o);
    }
    assert_true(n_changes > 4000);
}

/* What clients send with every request ends no thought: not in it, not in its tags, not from one side to the other. */
static void test_stops_match_in_the_answer_alone(void **state)
{
    (void)state;
    const char *stops[] = {"\n\n", "think", "!</", "xy"};
    static const struct {
        bool starts_in_thought;
        const char *text, *expected;
    } cases[] = {
        {true, "a\n\nb think xy!</think>\n\nc\n\nd", "Ta\n\nb think xy!Ac"},
        {false, "<think>\na\n\nb</think>c think", "Ta\n\nbAc "},
        {false, "x<think>y</think>z\n\n", "AxTyAz"}, /* "x" and what comes after the tag are apart */
        {true, "ax</think>yb", "TaxAyb"},
        {true, "a</think>\n\n\n\n \n\nb\n\nc", "TaA\n\n \n\nb"}, /* an answer has something in it */
        {true, "a</think>\n\n\n\n", "TaA\n\n"},
        {false, "no thought\n\nat all", "Ano thought"},
        {false, "<thin\n\n", "A<thin"}, /* the beginning of a tag is answer, after all */
        {false, "a<think", "Aa<"},      /* complete only once no tag can come any more */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct output_options options = {.stop = stops,
                                         .n_stop = 4,
                                         .split_thoughts = true,
                                         .starts_in_thought = cases[i].starts_in_thought};
        struct record r = empty_record();
        struct output *o;
        assert_int_equal(output_create(&options, &o, NULL), 0);
        push(o, cases[i].text, &r);
        output_finish(o, false, on_event, &r);
        assert_string_equal(r.text, cases[i].expected);
        output_free(o);
    }
}

static void test_cancel(void **state)
{
    (void)state;
    struct output_options options = {.split_thoughts = true};
    struct output *o;
    struct record r = {.n_until_cancel = 1};
    assert_int_equal(output_create(&options, &o, NULL), 0);
    assert_int_equal(push(o, "one", &r), OUTPUT_GOING_ON);
    assert_int_equal(push(o, "two<think>three</think>four", &r), OUTPUT_CANCELLED);
    assert_int_equal(push(o, "five", &r), OUTPUT_CANCELLED);
    assert_int_equal(output_finish(o, false, on_event, &r), OUTPUT_CANCELLED);
    assert_string_equal(r.text, "Aonetwo");
    assert_int_equal(r.n_events, 2);
    output_free(o);
}

static void test_refuses_bad_stops(void **state)
{
    (void)state;
    runnel_error error;
    struct output *o = NULL;
    const char *bad[] = {"", NULL, "\xff", "a\xe2\x82"};
    for (int i = 0; i < 4; i++) {
        const char *stops[] = {"good", bad[i]};
        struct output_options options = {.stop = stops, .n_stop = 2};
        assert_int_equal(output_create(&options, &o, &error), RUNNEL_EINVAL);
        assert_non_null(strstr(error.message, "stop[1]: expected UTF-8"));
        assert_null(o);
    }
}

/* The model stopped in the middle of a character: that is a mistake of its own. Cut off there by the limit, the character is left
 * out, and all that was held back before it comes. */
static void test_half_a_character_at_the_end(void **state)
{
    (void)state;
    static const char text[] = "ok st\xe6\x97";
    const char *stops[] = {"stop"};
    const struct output_options options = {.stop = stops, .n_stop = 1};
    for (int is_cut = 0; is_cut < 2; is_cut++) {
        struct record r = empty_record();
        struct output *o;
        assert_int_equal(output_create(&options, &o, NULL), 0);
        output_push(o, text, strlen(text), on_event, &r);
        output_finish(o, is_cut, on_event, &r);
        assert_string_equal(r.text, is_cut ? "Aok st" : "Aok st\xef\xbf\xbd");
        output_free(o);
    }
}

static bool count_bytes(void *user, const runnel_event *event)
{
    *(size_t *)user += event->text_len;
    return true;
}

/* Megabytes of almost-a-stop. Quadratic work would take hours; the bound is generous for sanitizers. */
static void test_linear_time(void **state)
{
    (void)state;
    enum { STOP_LEN = 1024, TEXT_LEN = 4 << 20 };
    char stop[STOP_LEN + 1];
    memset(stop, 'a', STOP_LEN);
    stop[STOP_LEN - 1] = 'b';
    stop[STOP_LEN] = 0;
    const char *stops[16];
    for (int i = 0; i < 16; i++)
        stops[i] = stop + i;
    struct output_options options = {.stop = stops, .n_stop = 16, .split_thoughts = true};
    struct output *o;
    assert_int_equal(output_create(&options, &o, NULL), 0);
    char *text = malloc(TEXT_LEN);
    for (size_t i = 0; i < TEXT_LEN; i++)
        text[i] = i % STOP_LEN == STOP_LEN - 500 ? '<' : 'a';
    clock_t start = clock();
    size_t n_bytes = 0;
    for (size_t i = 0; i < TEXT_LEN; i += 7)
        output_push(o, text + i, TEXT_LEN - i < 7 ? TEXT_LEN - i : 7, count_bytes, &n_bytes);
    assert_int_equal(output_finish(o, false, count_bytes, &n_bytes), OUTPUT_GOING_ON);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 20);
    assert_int_equal(n_bytes, TEXT_LEN);
    free(text);
    output_free(o);
}

/* The examples of the Unicode Standard, tables 3-8 to 3-11. */
static void test_maximal_subparts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A"},
        {"\xe1\x80", "?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct utf8_assembler a = {0};
        char text[64], out[UTF8_PUSH_MAX];
        size_t len = 0;
        for (const char *at = cases[i].bytes; *at; at++) {
            size_t n = utf8_push(&a, (uint8_t)*at, out);
            memcpy(text + len, out, n);
            len += n;
        }
        len += utf8_finish(&a, text + len);
        char marked[64];
        size_t n = 0;
        for (size_t at = 0; at < len; n++) {
            bool replaced = memcmp(text + at, "\xef\xbf\xbd", 3) == 0;
            marked[n] = replaced ? '?' : text[at];
            at += replaced ? 3 : 1;
        }
        marked[n] = 0;
        assert_string_equal(marked, cases[i].text);
        assert_false(utf8_valid(cases[i].bytes, strlen(cases[i].bytes)));
    }
    assert_true(utf8_valid("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf", 14));
    assert_true(utf8_valid("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maximal_subparts),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_holds_no_more_than_needed),
        cmocka_unit_test(test_tags_are_followed_without_the_text),
        cmocka_unit_test(test_stops_match_in_the_answer_alone),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_refuses_bad_stops),
        cmocka_unit_test(test_half_a_character_at_the_end),
        cmocka_unit_test(test_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
