/* loop_detector.c: see loop_detector.h. */
#include "engine/loop_detector.h"

#include "engine/constraint.h"

#include <string.h>

/* What a token is. */
enum kind {
    WORD = 1,         /* it begins a word of two letters or more */
    LETTER = 2,       /* it has one */
    SENTENCE_END = 4, /* nothing but punctuation that ends a sentence */
    MARKUP = 8,       /* it is of a table, of JSON or HTML */
    LINE_END = 16,
    JOINED = 32, /* it begins with a letter or a digit, which may be the rest of a name or a number */
    EQUALS = 64,
    CALL = 128, /* of a function, with a text */
};

enum {
    CYCLES = 3, /* in a row, at least */
    WORDS = 4,  /* that differ make a clause, or a list */
    /* Of the same cycle, tokens in all. */
    SENTENCES_MIN = 18,
    CLAUSES_MIN = 30,
    LISTS_MIN = 45,
    LETTERS_MIN = 96,
    MARKUP_MIN = 160,
    SIGNS_MIN = 512,
};

/* An undo leaves nothing of the oldest tokens that were written over. */
_Static_assert(CYCLES *LOOP_CYCLE_MAX <= LOOP_TOKENS - CONSTRAINT_UNDO_MAX, "three cycles are there");
_Static_assert(SIGNS_MIN <= CYCLES * LOOP_CYCLE_MAX, "and so is what else is looked at");

/* Kinds ----------------------------------------------------------------------------------------------------- */

static bool is_ascii_letter(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* How many bytes the letter there has, roughly: signs have code points between those of alphabets. 0: it is none. */
static size_t letter_at(const char *text, size_t len)
{
    uint8_t first = (uint8_t)text[0], second = len > 1 ? (uint8_t)text[1] : 0;
    if (first < 0xc3)
        return is_ascii_letter(first);
    if (first < 0xe0)
        return 2;
    bool is_sign = first == 0xe2 || (first == 0xe3 && second == 0x80) || first >= 0xee;
    return is_sign ? 0 : 3;
}

/* 。！？ */
static bool is_wide_end(const char *text, size_t len)
{
    return len >= 3 && (memcmp(text, "\xe3\x80\x82", 3) == 0 || memcmp(text, "\xef\xbc\x81", 3) == 0 ||
                        memcmp(text, "\xef\xbc\x9f", 3) == 0);
}

/* A character of an alphabet without spaces is a word of its own. */
static bool begins_word(const char *text, size_t len, bool line_begins)
{
    size_t at = len && text[0] == ' ';
    if (at == len)
        return false;
    size_t first = letter_at(text + at, len - at);
    if (first == 3)
        return true;
    return first && (at || line_begins) && at + first < len &&
           letter_at(text + at + first, len - at - first) > 0;
}

/* Signs that may stand around the end of a sentence, outside of code. */
static bool may_surround_end(char c)
{
    return c && (strchr(".!?\"')*$` \t\r\n", c) || (uint8_t)c >= 0x80);
}

static bool ends_sentence(const char *text, size_t len)
{
    bool has_end = false;
    for (size_t i = 0; i < len; i++) {
        if (!may_surround_end(text[i]))
            return false;
        has_end = has_end || strchr(".!?", text[i]) || is_wide_end(text + i, len - i);
    }
    return has_end;
}

static bool has_letter(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (letter_at(text + i, len - i))
            return true;
    return false;
}

static bool has_pair(const char *text, size_t len, const char *const *pairs)
{
    for (size_t i = 0; i + 1 < len; i++)
        for (const char *const *pair = pairs; *pair; pair++)
            if (memcmp(text + i, *pair, 2) == 0)
                return true;
    return false;
}

static bool has_markup(const char *text, size_t len)
{
    static const char *const pairs[] = {"{\"", "\":", "</", "/>", NULL};
    return memchr(text, '|', len) || has_pair(text, len, pairs);
}

static bool begins_call(const char *text, size_t len)
{
    static const char *const pairs[] = {"(\"", "('", NULL};
    return has_pair(text, len, pairs);
}

/* The sign alone, which no rule of a page is. */
static bool has_equals(const char *text, size_t len)
{
    const char *sign = memchr(text, '=', len);
    return sign && (sign + 1 == text + len || sign[1] != '=');
}

static uint8_t kind_of(const char *text, size_t len, bool line_begins)
{
    unsigned kind = 0;
    if (!len)
        return 0;
    if (begins_word(text, len, line_begins))
        kind |= WORD;
    if (has_letter(text, len))
        kind |= LETTER;
    else if (ends_sentence(text, len))
        kind |= SENTENCE_END;
    if (has_markup(text, len))
        kind |= MARKUP;
    if (text[len - 1] == '\n')
        kind |= LINE_END;
    if (is_ascii_letter((uint8_t)text[0]) || (text[0] >= '0' && text[0] <= '9'))
        kind |= JOINED;
    if (has_equals(text, len))
        kind |= EQUALS;
    if (begins_call(text, len))
        kind |= CALL;
    return (uint8_t)kind;
}

/* Tokens ---------------------------------------------------------------------------------------------------- */

void loop_detector_push(struct loop_detector *detector, int32_t id, const char *bytes, size_t len)
{
    uint32_t at = detector->n % LOOP_TOKENS, before = (detector->n - 1) % LOOP_TOKENS;
    bool line_begins = !detector->n || (detector->kinds[before] & LINE_END);
    detector->ids[at] = id;
    detector->kinds[at] = kind_of(bytes, len, line_begins);
    detector->n++;
}

void loop_detector_undo(struct loop_detector *detector, uint32_t n)
{
    detector->n -= n;
}

/* Loops ----------------------------------------------------------------------------------------------------- */

static int32_t id_back(const struct loop_detector *detector, uint32_t n)
{
    return detector->ids[(detector->n - n) % LOOP_TOKENS];
}

/* How many of the latest tokens are the one `cycle` tokens before them, up to n. */
static uint32_t count_equal(const struct loop_detector *detector, uint32_t cycle, uint32_t n)
{
    uint32_t n_equal = 0;
    if (n > detector->n - cycle)
        n = detector->n - cycle;
    while (n_equal < n && id_back(detector, n_equal + 1) == id_back(detector, n_equal + 1 + cycle))
        n_equal++;
    return n_equal;
}

static uint8_t kind_back(const struct loop_detector *detector, uint32_t n)
{
    return detector->kinds[(detector->n - n) % LOOP_TOKENS];
}

/* What a cycle is made of. */
struct makeup {
    uint32_t n_words, n_ends /* of sentences */;
    uint8_t n_different; /* words, up to WORDS */
    uint8_t all;         /* kinds of its tokens */
    int32_t words[WORDS];
};

static void add_word(struct makeup *makeup, int32_t id)
{
    makeup->n_words++;
    for (uint8_t i = 0; i < makeup->n_different; i++)
        if (makeup->words[i] == id)
            return;
    if (makeup->n_different < WORDS)
        makeup->words[makeup->n_different++] = id;
}

static struct makeup make_up(const struct loop_detector *detector, uint32_t cycle)
{
    struct makeup makeup = {.all = 0};
    uint8_t next = kind_back(detector, cycle);
    for (uint32_t i = 1; i <= cycle; i++) {
        uint8_t kind = kind_back(detector, i);
        if (kind & WORD)
            add_word(&makeup, id_back(detector, i));
        makeup.n_ends += (kind & SENTENCE_END) && ((kind & LINE_END) || !(next & JOINED));
        makeup.all |= kind;
        next = kind;
    }
    return makeup;
}

/* How many tokens it takes to call a cycle like the latest one a loop. */
static uint32_t wanted(const struct loop_detector *detector, uint32_t cycle)
{
    const struct makeup makeup = make_up(detector, cycle);
    uint32_t n_words = makeup.n_words;
    bool says_much = n_words * 4 >= cycle || (cycle >= 16 && n_words >= 4 && n_words * 8 >= cycle);
    bool is_equation = (makeup.all & EQUALS) && (makeup.all & (JOINED | LETTER));
    bool has_one_word =
        makeup.n_different == 1 && n_words > 2 && !makeup.n_ends && !is_equation; /* values of a board */
    if ((makeup.all & MARKUP) || has_one_word)
        return makeup.all & LETTER ? MARKUP_MIN : SIGNS_MIN;
    if (makeup.all & CALL)
        return LETTERS_MIN;
    if (n_words && makeup.n_ends)
        return says_much ? SENTENCES_MIN : CLAUSES_MIN;
    if (makeup.n_different == WORDS && n_words * 2 > cycle)
        return CLAUSES_MIN;
    if (is_equation || (makeup.n_different == WORDS && n_words * 4 >= cycle))
        return LISTS_MIN;
    return makeup.all & LETTER ? LETTERS_MIN : SIGNS_MIN;
}

/* The latest tokens are that cycle, three times at least, and often enough for what it is. */
static bool is_loop(const struct loop_detector *detector, uint32_t cycle)
{
    uint32_t n = wanted(detector, cycle);
    return CYCLES * cycle >= n || cycle + count_equal(detector, cycle, n - cycle) >= n;
}

bool loop_detector_found(const struct loop_detector *detector)
{
    uint32_t n_max = detector->n / CYCLES < LOOP_CYCLE_MAX ? detector->n / CYCLES : LOOP_CYCLE_MAX;
    uint32_t shortest = 0; /* a multiple of a cycle that comes three times says nothing new */
    for (uint32_t cycle = 1; cycle <= n_max; cycle++) {
        uint32_t n_more = (CYCLES - 1) * cycle;
        if (id_back(detector, 1) != id_back(detector, 1 + cycle) || (shortest && cycle % shortest == 0) ||
            count_equal(detector, cycle, n_more) < n_more)
            continue;
        if (is_loop(detector, cycle))
            return true;
        if (!shortest)
            shortest = cycle;
    }
    return false;
}
