/* constrain_walk.c: see constrain_walk.h. */
#include "helpers/constrain_walk.h"

#include <stdlib.h>
#include <string.h>

enum {
    N_BYTES = 256,
    MAX_STEPS = 16,   /* tokens that are chosen by the input */
    MAX_ENDING = 200, /* ... and until the text ends */
    MAX_COMMAS = 24,  /* ... where a comma is taken if it may come */
    MAX_TOKENS = 512,
    N_WORDS = MAX_TOKENS / 32,
    MAX_WHAT = 4096,
};

static const struct constrain_limits limits = {
    .n_exprs = 1u << 12,
    .n_scans = 1u << 10,
    .n_frames = 1u << 10,
    .n_states = 1u << 9, /* so few that they are forgotten at times */
    .n_masks = 4,
    .n_insides = 2,
    .n_rules = 1u << 9,
    .n_nodes = 1u << 12,
    .work = 100000,
    .work_step = 50000,
};

static const char *const pieces[] = {
    "ab",           "abc",      "ba",       "{\"",   "\"a\"",      "\"a\":",
    "\": ",         "},",       "}]",       "[]",    "{}",         "[1",
    "10",           "-1",       "0.5",      "1e",    "true",       "fals",
    "null",         ", ",       "\n ",      "\\u00", "\\n",        "\xc3\xa9",
    "\xe2\x82",     "\x82\xac", "yes",      "no",    "0123456789", "  ",
    "\"\"",         "\\\"",     "aaaaaaaa", "a\"",   "\xf0\x9f",   "\xf0\x9f\x98\x80",
    "\xed\xa0\x80",
};

static const int32_t end_token = N_BYTES + (int32_t)(sizeof pieces / sizeof *pieces);

struct walk {
    const struct trie *trie;
    struct matcher *matcher;
    uint32_t masks[MAX_STEPS + 1][N_WORDS]; /* before each token */
    bool has_mask[MAX_STEPS + 1];           /* else it would have taken too much work */
    int32_t tokens[MAX_STEPS];
    uint32_t n;
    char text[(MAX_STEPS + MAX_ENDING) * 16];
    size_t len;
};

static void require(bool holds)
{
    if (!holds)
        abort();
}

static const struct trie *vocabulary(void)
{
    static struct trie *trie;
    static char bytes[N_BYTES];
    struct trie_token tokens[MAX_TOKENS] = {{0}};
    if (trie)
        return trie;
    for (unsigned i = 0; i < N_BYTES; i++) {
        bytes[i] = (char)i;
        tokens[i] = (struct trie_token){&bytes[i], 1};
    }
    for (int32_t i = N_BYTES; i < end_token; i++)
        tokens[i] = (struct trie_token){pieces[i - N_BYTES], strlen(pieces[i - N_BYTES])};
    require(!trie_create(tokens, (uint32_t)end_token + 1, &end_token, 1, &trie, NULL));
    return trie;
}

static bool is_set(const uint32_t *mask, int32_t token)
{
    return mask[token / 32] >> (token % 32) & 1;
}

/* An error is one of these, and says something. RUNNEL_OK: true. */
static bool went_well(int code, const runnel_error *error, bool may_be_wrong)
{
    require(!code || code == RUNNEL_EUNSUPPORTED || (may_be_wrong && code == RUNNEL_EINVAL));
    require(!code || error->message[0]);
    return !code;
}

static bool take_mask(struct matcher *matcher, uint32_t *mask)
{
    runnel_error error = {0};
    return went_well(matcher_mask(matcher, mask, &error), &error, false);
}

/* The mask says of each token what trying it says. */
static void check_tokens(struct walk *walk, const uint32_t *mask)
{
    uint32_t n_set = 0, again[N_WORDS];
    for (int32_t token = 0; token <= end_token; token++) {
        int code = matcher_accept(walk->matcher, token, NULL);
        if (!code)
            matcher_undo(walk->matcher, 1);
        require(!code || code == RUNNEL_EINVAL || code == RUNNEL_EUNSUPPORTED);
        require(code == RUNNEL_EUNSUPPORTED || is_set(mask, token) == !code);
        n_set += token < end_token && is_set(mask, token);
    }
    require(is_set(mask, end_token) == matcher_is_complete(walk->matcher));
    require(matcher_is_over(walk->matcher) == !n_set);
    require(n_set || is_set(mask, end_token));
    if (take_mask(walk->matcher, again))
        require(!memcmp(mask, again, trie_mask_words(walk->trie) * sizeof *mask));
}

/* The token of this number among those that are set. */
static int32_t choose(const uint32_t *mask, unsigned number)
{
    unsigned n = 0;
    for (int32_t token = 0; token < end_token; token++)
        n += is_set(mask, token);
    number = n ? number % n : 0;
    for (int32_t token = 0; token < end_token; token++)
        if (is_set(mask, token) && !number--)
            return token;
    return -1;
}

static void add_text(struct walk *walk, int32_t token)
{
    memcpy(walk->text + walk->len, walk->trie->tokens[token].bytes, walk->trie->tokens[token].len);
    walk->len += walk->trie->tokens[token].len;
}

static void go(struct walk *walk, const uint8_t *choices, size_t n_choices)
{
    for (; walk->n < n_choices && walk->n < MAX_STEPS; walk->n++) {
        uint32_t *mask = walk->masks[walk->n];
        walk->has_mask[walk->n] = take_mask(walk->matcher, mask);
        if (!walk->has_mask[walk->n])
            return;
        check_tokens(walk, mask);
        int32_t token = choose(mask, choices[walk->n]);
        if (token < 0 || matcher_accept(walk->matcher, token, NULL))
            return;
        walk->tokens[walk->n] = token;
        add_text(walk, token);
    }
    walk->has_mask[walk->n] = take_mask(walk->matcher, walk->masks[walk->n]);
}

static void expect_mask(struct walk *walk, uint32_t n)
{
    uint32_t mask[N_WORDS];
    if (walk->has_mask[n] && take_mask(walk->matcher, mask))
        require(!memcmp(mask, walk->masks[n], trie_mask_words(walk->trie) * sizeof *mask));
}

/* Back to the beginning, and the whole way again. False: it could not be gone again, as it takes too much work now. */
static bool go_back(struct walk *walk)
{
    bool was_complete = matcher_is_complete(walk->matcher);
    for (uint32_t n = walk->n; n > 0; n--) {
        expect_mask(walk, n);
        matcher_undo(walk->matcher, 1);
    }
    expect_mask(walk, 0);
    int code = matcher_accept_bytes(walk->matcher, walk->text, walk->len, NULL);
    require(!code || code == RUNNEL_EUNSUPPORTED);
    if (!code) {
        require(matcher_is_complete(walk->matcher) == was_complete);
        expect_mask(walk, walk->n);
        matcher_undo(walk->matcher, 1);
    }
    for (uint32_t n = 0; n < walk->n; n++) {
        code = matcher_accept(walk->matcher, walk->tokens[n], NULL);
        require(!code || code == RUNNEL_EUNSUPPORTED);
        if (code)
            return false;
    }
    expect_mask(walk, walk->n);
    matcher_undo(walk->matcher, walk->n < 3 ? walk->n : 3);
    expect_mask(walk, walk->n < 3 ? 0 : walk->n - 3);
    for (uint32_t n = walk->n < 3 ? 0 : walk->n - 3; n < walk->n; n++)
        if (matcher_accept(walk->matcher, walk->tokens[n], NULL))
            return false;
    require(matcher_is_complete(walk->matcher) == was_complete);
    return true;
}

/* What brings a text to its end soon, if it may come; at first a comma, so that lists and objects have more than one member. */
static int32_t choose_ending(const uint32_t *mask, unsigned step)
{
    static const char soon[] = "}]\"0:,";
    if (step < MAX_COMMAS && is_set(mask, ','))
        return ',';
    for (const char *c = soon; *c; c++)
        if (is_set(mask, *c) && (step + 1) % 16)
            return *c;
    return choose(mask, step % 16 == 15 ? step * 7 : 0);
}

/* A copy of the text goes on to an end. */
static bool end(struct walk *walk)
{
    struct matcher *copy;
    runnel_error error = {0};
    uint32_t mask[N_WORDS];
    bool is_done = false;
    if (!went_well(matcher_copy(walk->matcher, &copy, &error), &error, false))
        return false;
    for (unsigned step = 0; step < MAX_ENDING && take_mask(copy, mask); step++) {
        if (is_set(mask, end_token)) {
            require(!matcher_accept(copy, end_token, NULL));
            require(matcher_is_over(copy) && matcher_is_complete(copy));
            require(take_mask(copy, mask) && choose(mask, 0) < 0 && !is_set(mask, end_token));
            is_done = true;
            break;
        }
        int32_t token = choose_ending(mask, step);
        require(token >= 0);
        if (matcher_accept(copy, token, NULL))
            break;
        add_text(walk, token);
    }
    matcher_free(copy);
    return is_done;
}

void constrain_walk(constrain_read *read, const uint8_t *data, size_t size, constrain_finished *finished)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t len = zero ? (size_t)(zero - data) : size;
    char *what = len <= MAX_WHAT ? malloc(len ? len : 1) : NULL; /* so that reading behind its end is seen */
    struct grammar *grammar;
    struct automaton *automaton;
    struct walk walk = {.trie = vocabulary()};
    runnel_error error = {0};
    if (!what)
        return;
    if (len)
        memcpy(what, data, len);
    if (went_well(read(&limits, what, len, &grammar, &error), &error, true) &&
        went_well(automaton_create(grammar, walk.trie, &automaton, &error), &error, true)) {
        if (went_well(matcher_create(automaton, &walk.matcher, &error), &error, false)) {
            go(&walk, zero ? zero + 1 : data, zero ? size - len - 1 : 0);
            if (go_back(&walk) && end(&walk) && finished)
                finished(what, len, walk.text, walk.len);
            matcher_free(walk.matcher);
        }
        automaton_release(automaton);
    }
    free(what);
}
