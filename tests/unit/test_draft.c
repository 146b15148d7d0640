/* test_draft.c: guesses of draft.c, without a model: what they are, how many of them are worth their rows, and that keys are apart. */
#include "engine/draft.h"
#include "engine/draft_rates.h"
#include "helpers/chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { N_SLOTS = 8, N_POSITIONS = 4096, N_PROMPT = 40, KEY = 7, OTHER_KEY = 8 };

/* A machine whose rows cost so much of its first one. */
static struct step_cost cost_of(double row)
{
    struct step_cost cost;
    step_cost_init(&cost);
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t n = i % 24 + 1;
        step_cost_learn(&cost, n, 0, 30 * (1 - row + row * n));
    }
    return cost;
}

static struct drafts *new_drafts(void)
{
    struct drafts *drafts;
    runnel_error error;
    assert_int_equal(drafts_create(&(struct drafts_options){N_SLOTS, N_POSITIONS}, &drafts, &error),
                     RUNNEL_OK);
    return drafts;
}

/* A text that is there. */
struct stream {
    uint32_t slot, n;
    int32_t ids[N_POSITIONS];
};

static void begin(struct drafts *drafts, struct stream *stream, uint64_t key)
{
    drafts_begin(drafts, stream->slot, key);
}

static struct draft_ask ask_of(const struct stream *stream, uint32_t n_max)
{
    return (struct draft_ask){.slot = stream->slot, .ids = stream->ids, .n = stream->n, .n_max = n_max};
}

/* What is chosen for one stream alone. */
static struct draft choose(struct drafts *drafts, const struct draft_ask *ask, const struct step_cost *cost)
{
    drafts_begin_step(drafts);
    drafts_guess(drafts, ask);
    drafts_choose(drafts, cost);
    return *drafts_get(drafts, ask->slot);
}

/* Goes through a text, of which the first n tokens are there, step by step as an engine would. Returns how many steps. */
static uint32_t run(struct drafts *drafts, struct stream *stream, uint32_t end, const struct step_cost *cost,
                    uint32_t *n_rows)
{
    uint32_t n_steps = 0;
    for (; stream->n < end; n_steps++) {
        const struct draft_ask ask = ask_of(stream, end - stream->n - 1);
        const struct draft draft = choose(drafts, &ask, cost);
        uint32_t n_true = 0;
        assert_true(draft.n <= ask.n_max);
        while (n_true < draft.n && draft.tokens[n_true] == stream->ids[stream->n + n_true])
            n_true++;
        drafts_learn(drafts, stream->slot, stream->ids + stream->n, n_true + 1);
        stream->n += n_true + 1;
        *n_rows += draft.n + 1;
    }
    return n_steps;
}

/* Numbers without a pattern; a period repeats them. */
static void fill(struct stream *stream, uint32_t from, uint32_t period, uint32_t n_kinds)
{
    for (uint32_t i = from; i < N_POSITIONS; i++)
        stream->ids[i] = i >= from + period ? stream->ids[i - period] : (int32_t)chance_below(n_kinds);
    stream->n = N_PROMPT;
}

static void what_repeats_is_guessed(void **state)
{
    (void)state;
    struct drafts *drafts = new_drafts();
    const struct step_cost cost = cost_of(0.05);
    struct stream stream = {.slot = 3};
    uint32_t n_rows = 0;
    fill(&stream, 0, 60, 30000);
    begin(drafts, &stream, KEY);
    uint32_t n_steps = run(drafts, &stream, 1000, &cost, &n_rows);
    assert_true(n_steps < 160); /* 960 tokens */
    assert_true(n_rows < 1200);
    drafts_free(drafts);
}

/* A period that is shorter than the draft: what was guessed goes on. */
static void a_short_loop_is_guessed_to_its_full_length(void **state)
{
    (void)state;
    struct drafts *drafts = new_drafts();
    const struct step_cost cost = cost_of(0.02);
    struct stream stream = {.slot = 0};
    uint32_t n_rows = 0;
    fill(&stream, 0, 3, 30000);
    begin(drafts, &stream, KEY);
    run(drafts, &stream, 600, &cost, &n_rows);
    const struct draft_ask ask = ask_of(&stream, 100);
    const struct draft draft = choose(drafts, &ask, &cost);
    assert_int_equal(draft.n, DRAFT_MAX);
    for (uint32_t i = 0; i < draft.n; i++)
        assert_int_equal(draft.tokens[i], stream.ids[stream.n + i]);
    drafts_free(drafts);
}

static void what_does_not_repeat_costs_nothing(void **state)
{
    (void)state;
    struct drafts *drafts = new_drafts();
    const struct step_cost cost = cost_of(0.2);
    struct stream stream = {.slot = 0};
    uint32_t n_rows = 0;
    fill(&stream, 0, N_POSITIONS, 40); /* each token has come before, and nothing follows from it */
    begin(drafts, &stream, KEY);
    uint32_t n_steps = run(drafts, &stream, 3000, &cost, &n_rows);
    assert_true(n_steps > 2900);
    assert_true(n_rows < n_steps * 102 / 100);
    drafts_free(drafts);
}

/* Off, because nothing repeated; then it does. */
static void it_comes_back(void **state)
{
    (void)state;
    struct drafts *drafts = new_drafts();
    const struct step_cost cost = cost_of(0.1);
    struct stream stream = {.slot = 0};
    uint32_t n_rows = 0;
    fill(&stream, 0, N_POSITIONS, 40);
    for (uint32_t i = 2000; i < 3000; i++)
        stream.ids[i] = stream.ids[i - 80];
    begin(drafts, &stream, KEY);
    run(drafts, &stream, 2000, &cost, &n_rows);
    assert_true(run(drafts, &stream, 3000, &cost, &n_rows) < 250);
    drafts_free(drafts);
}

/* Short matches give short drafts, long ones long drafts; where rows cost more, fewer. */
static void the_length_follows_the_match_and_the_cost(void **state)
{
    (void)state;
    static const double rows[] = {0.01, 0.05, 0.15, 0.3, 0.7};
    uint32_t n_before[2] = {UINT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct step_cost cost = cost_of(rows[i]);
        for (uint32_t length = 2; length <= 20; length += 18) {
            struct drafts *drafts = new_drafts();
            struct stream stream = {.slot = 1};
            fill(&stream, 0, N_POSITIONS, 1 << 20);
            stream.n = 500;
            memcpy(stream.ids + stream.n - length, stream.ids + 100, length * sizeof *stream.ids);
            begin(drafts, &stream, KEY);
            const struct draft_ask ask = ask_of(&stream, 100);
            const struct draft draft = choose(drafts, &ask, &cost);
            assert_memory_equal(draft.tokens, stream.ids + 100 + length, draft.n * sizeof *draft.tokens);
            assert_true(draft.n <= n_before[length > 2]);
            n_before[length > 2] = draft.n;
            if (length > 2)
                assert_true(draft.n >= n_before[0]);
            if (length > 2)
                assert_true(i == sizeof rows / sizeof *rows - 1 || draft.n > 2);
            else
                assert_true(draft.n < 11);
            drafts_free(drafts);
        }
    }
    assert_int_equal(n_before[0], 0);
}

/* The others' rows are in the step, too: what pays for one does not for one of eight. */
static void many_streams_switch_it_off(void **state)
{
    (void)state;
    static struct stream streams[N_SLOTS];
    const struct step_cost cost = cost_of(0.1);
    uint32_t n_chosen[2] = {0, 0};
    for (int all = 0; all < 2; all++) {
        struct drafts *drafts = new_drafts();
        drafts_begin_step(drafts);
        for (uint32_t i = 0; i < (all ? N_SLOTS : 1); i++) {
            streams[i] = (struct stream){.slot = i};
            fill(&streams[i], 0, N_POSITIONS, 1 << 20);
            streams[i].n = 500;
            memcpy(streams[i].ids + 497, streams[i].ids + 100, 3 * sizeof *streams[i].ids);
            begin(drafts, &streams[i], KEY);
            const struct draft_ask ask = ask_of(&streams[i], 100);
            drafts_guess(drafts, &ask);
        }
        /* of a machine that computes as many rows as there are streams at the price of one, and each further one as dearly */
        struct step_cost steep = cost;
        for (uint32_t i = 0; all && i < 400; i++)
            step_cost_learn(&steep, i % 8 + 1, 0, 43 + i % 8);
        for (uint32_t i = 0; all && i < 400; i++)
            step_cost_learn(&steep, i % 16 + 9, 0, 50 + 8 * (i % 16 + 1));
        drafts_choose(drafts, all ? &steep : &cost);
        for (uint32_t i = 0; i < (all ? N_SLOTS : 1); i++)
            n_chosen[all] += drafts_get(drafts, i)->n;
        drafts_free(drafts);
    }
    assert_true(n_chosen[0] > 0);
    assert_int_equal(n_chosen[1], 0);
}

/* An answer whose guesses all come true gets the rows it likes while it is alone, and few while seven others would wait for them. */
static void one_answer_does_not_take_every_row(void **state)
{
    (void)state;
    static struct stream streams[N_SLOTS];
    const struct step_cost cost = cost_of(0.05);
    uint32_t n_rows = 0, n_chosen[2];
    for (int all = 0; all < 2; all++) {
        struct drafts *drafts = new_drafts();
        for (uint32_t i = 0; i < N_SLOTS; i++) {
            streams[i] = (struct stream){.slot = i};
            fill(&streams[i], 0, i == 0 ? 60 : N_POSITIONS, 1 << 20);
            begin(drafts, &streams[i], KEY);
        }
        run(drafts, &streams[0], 1000, &cost, &n_rows);
        drafts_begin_step(drafts);
        for (uint32_t i = 0; i < (all ? N_SLOTS : 1); i++) {
            const struct draft_ask ask = ask_of(&streams[i], DRAFT_MAX);
            drafts_guess(drafts, &ask);
        }
        drafts_choose(drafts, &cost);
        n_chosen[all] = drafts_get(drafts, 0)->n;
        for (uint32_t i = 1; all && i < N_SLOTS; i++)
            assert_int_equal(drafts_get(drafts, i)->n, 0);
        drafts_free(drafts);
    }
    assert_true(n_chosen[0] > 8);
    /* A row more is 1/27 of a step of 8 rows: all 15 would give most tokens. */
    assert_in_range(n_chosen[1], 1, 3);
}

/* All answers together get no more guesses than a step has rows of logits for. */
static void a_step_is_bounded(void **state)
{
    (void)state;
    static struct stream streams[N_SLOTS];
    struct drafts *drafts = new_drafts();
    const struct step_cost cost = cost_of(0.001);
    uint32_t n = 0;
    drafts_begin_step(drafts);
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        streams[i] = (struct stream){.slot = i};
        fill(&streams[i], 0, 30, 1 << 20);
        streams[i].n = 500;
        begin(drafts, &streams[i], KEY);
        const struct draft_ask ask = ask_of(&streams[i], 100);
        drafts_guess(drafts, &ask);
    }
    drafts_choose(drafts, &cost);
    for (uint32_t i = 0; i < N_SLOTS; i++)
        n += drafts_get(drafts, i)->n;
    assert_int_equal(n, DRAFT_MAX);
    drafts_free(drafts);
}

/* The same question again: the answer is guessed from the first token on, and only for its own key. */
static void answers_are_remembered_for_their_key(void **state)
{
    (void)state;
    const struct step_cost cost = cost_of(0.05);
    uint32_t n_steps[3], n_rows = 0;
    static const uint64_t keys[3] = {KEY, OTHER_KEY, KEY};
    struct drafts *drafts = new_drafts();
    struct stream stream = {.slot = 0};
    fill(&stream, 0, N_POSITIONS, 1 << 20);
    for (int i = 0; i < 3; i++) {
        stream.n = N_PROMPT;
        stream.slot = (uint32_t)i;
        begin(drafts, &stream, keys[i]);
        n_steps[i] = run(drafts, &stream, 600, &cost, &n_rows);
        if (i != 1)
            drafts_remember(drafts, stream.slot, stream.ids, N_PROMPT, stream.n);
    }
    assert_int_equal(n_steps[0], 560);
    assert_int_equal(n_steps[1], 560);
    assert_true(n_steps[2] < 100);
    drafts_free(drafts);
}

/* Whatever one key's answers were like, another's are guessed as if there had been none: the same drafts at each step. */
static void nothing_of_a_key_shows_in_another(void **state)
{
    (void)state;
    static struct stream secret, stream;
    const struct step_cost cost = cost_of(0.05);
    struct drafts *with = new_drafts(), *without = new_drafts();
    uint32_t n_rows = 0, n_drafted = 0;
    secret.slot = 0;
    stream.slot = 1;
    fill(&secret, 0, 50, 200);
    begin(with, &secret, KEY);
    run(with, &secret, 2000, &cost, &n_rows);
    drafts_remember(with, 0, secret.ids, N_PROMPT, secret.n);
    fill(&stream, 0, 90, 200);
    memcpy(stream.ids, secret.ids,
           300 * sizeof *stream.ids); /* it tries what the other one may have been told */
    begin(with, &stream, OTHER_KEY);
    begin(without, &stream, OTHER_KEY);
    while (stream.n < 600) {
        const struct draft_ask ask = ask_of(&stream, DRAFT_MAX);
        const struct draft a = choose(with, &ask, &cost), b = choose(without, &ask, &cost);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.tokens, b.tokens, a.n * sizeof *a.tokens);
        drafts_learn(with, 1, stream.ids + stream.n, 1);
        drafts_learn(without, 1, stream.ids + stream.n, 1);
        stream.n++;
        n_drafted += a.n;
    }
    assert_true(n_drafted > 100);
    drafts_free(with);
    drafts_free(without);
}

/* Of many keys the one that was not used for longest gives way, and what runs for it goes on without a history. */
static void keys_give_way(void **state)
{
    (void)state;
    static struct stream stream;
    const struct step_cost cost = cost_of(0.05);
    struct drafts *drafts = new_drafts();
    uint32_t n_rows = 0;
    fill(&stream, 0, N_POSITIONS, 1 << 20);
    begin(drafts, &stream, 0); /* of no key: a key like others */
    run(drafts, &stream, 300, &cost, &n_rows);
    for (uint64_t key = 100; key < 150; key++)
        drafts_begin(drafts, 1, key);
    run(drafts, &stream, 400, &cost, &n_rows);
    drafts_remember(drafts, 0, stream.ids, N_PROMPT, stream.n); /* nowhere */
    stream.n = N_PROMPT;
    begin(drafts, &stream, 0);
    assert_int_equal(run(drafts, &stream, 300, &cost, &n_rows), 260);
    drafts_free(drafts);
}

/* A ring of answers goes round. */
static void old_answers_are_forgotten(void **state)
{
    (void)state;
    static struct stream stream;
    const struct step_cost cost = cost_of(0.05);
    struct drafts *drafts = new_drafts();
    uint32_t n_rows = 0, n_steps = 0;
    for (int i = 0; i < 30; i++) {
        fill(&stream, 0, N_POSITIONS, 1 << 20);
        begin(drafts, &stream, KEY);
        stream.n = 1000;
        drafts_remember(drafts, 0, stream.ids, N_PROMPT, stream.n);
    }
    stream.n = N_PROMPT;
    begin(drafts, &stream, KEY);
    n_steps = run(drafts, &stream, 600, &cost, &n_rows);
    assert_true(n_steps < 150);
    drafts_free(drafts);
}

static void what_is_forced_comes_first(void **state)
{
    (void)state;
    static const int32_t forced[] = {11, 12, 13, 14};
    static const int32_t ends[] = {13};
    const struct step_cost cost = cost_of(0.3);
    struct drafts *drafts = new_drafts();
    static struct stream stream;
    fill(&stream, 0, 30, 1 << 20);
    stream.n = 500;
    begin(drafts, &stream, KEY);
    struct draft_ask ask = ask_of(&stream, 20);
    ask.forced = forced;
    ask.n_forced = 4;
    ask.n_certain = 4;
    struct draft draft = choose(drafts, &ask, &cost);
    assert_int_equal(draft.n, 4);
    assert_memory_equal(draft.tokens, forced, sizeof forced);
    ask.n_max = 2;
    assert_int_equal(choose(drafts, &ask, &cost).n, 2);
    ask.n_max = 20;
    ask.ends = ends; /* nothing follows an end */
    ask.n_ends = 1;
    assert_int_equal(choose(drafts, &ask, &cost).n, 2);
    ask.n_max = 0;
    assert_int_equal(choose(drafts, &ask, &cost).n, 0);
    drafts_free(drafts);
}

/* What only seems forced is learned as any other guess is. */
static void what_is_likely_is_measured(void **state)
{
    (void)state;
    static const int32_t forced[] = {11};
    const struct step_cost cost = cost_of(0.3);
    struct drafts *drafts = new_drafts();
    static struct stream stream;
    fill(&stream, 0, N_POSITIONS, 1 << 20);
    begin(drafts, &stream, KEY);
    struct draft_ask ask = ask_of(&stream, 20);
    ask.forced = forced;
    ask.n_forced = 1;
    assert_int_equal(choose(drafts, &ask, &cost).n, 1);
    for (int i = 0; i < 60; i++) {
        choose(drafts, &ask, &cost);
        drafts_learn(drafts, 0, (const int32_t[]){12}, 1);
    }
    assert_int_equal(choose(drafts, &ask, &cost).n, 0);
    ask.n_certain = 1;
    assert_int_equal(choose(drafts, &ask, &cost).n, 1);
    drafts_free(drafts);
}

/* Where nothing was worth it for long, one row is tried, so that its cost is known again. */
static void costs_are_tried_again(void **state)
{
    (void)state;
    const struct step_cost cost = cost_of(0.9);
    struct drafts *drafts = new_drafts();
    static struct stream stream;
    uint32_t n_rows = 0;
    fill(&stream, 0, N_POSITIONS, 40);
    begin(drafts, &stream, KEY);
    uint32_t n_steps = run(drafts, &stream, 3000, &cost, &n_rows);
    assert_true(n_rows > n_steps && n_rows <= n_steps + 6);
    drafts_free(drafts);
}

/* What will be taken is told before. */
static void the_memory_is_foretold(void **state)
{
    (void)state;
    const struct drafts_options small = {2, 256}, large = {64, 1 << 17};
    assert_true(drafts_bytes(&small) < 2 << 20);
    assert_true(drafts_bytes(&large) > 16 << 20 && drafts_bytes(&large) < 64 << 20);
}

static void rates_follow_what_was_seen(void **state)
{
    (void)state;
    struct draft_rates request = {0}, key = {0}, fresh = {0};
    double before = draft_rates_get(&request, &key, DRAFT_OWN + 2);
    assert_true(draft_rates_get(&request, &key, DRAFT_FORCED) == 1);
    for (uint32_t i = 0; i + 1 < SUFFIX_LENGTHS;
         i++) { /* longer matches, and what followed each time, come true more often */
        assert_true(draft_rates_get(&request, &key, draft_kind(DRAFT_OWN, i, SUFFIX_ONCE)) <
                    draft_rates_get(&request, &key, draft_kind(DRAFT_OWN, i + 1, SUFFIX_ONCE)));
        assert_true(draft_rates_get(&request, &key, draft_kind(DRAFT_OWN, i, SUFFIX_CHANGED)) <
                    draft_rates_get(&request, &key, draft_kind(DRAFT_OWN, i, SUFFIX_ALWAYS)));
    }
    for (int i = 0; i < 200; i++)
        draft_rates_learn(&request, &key, DRAFT_OWN + 2, i % 10 == 0);
    assert_true(draft_rates_get(&request, &key, DRAFT_OWN + 2) < 0.2);
    assert_true(draft_rates_get(&fresh, &key, DRAFT_OWN + 2) < 0.2); /* the key's next request */
    assert_true(draft_rates_get(&fresh, &fresh, DRAFT_OWN + 2) == before);
    for (int i = 0; i < 60; i++)
        draft_rates_learn(&request, &key, DRAFT_OWN + 2, true);
    assert_true(draft_rates_get(&request, &key, DRAFT_OWN + 2) > 0.6); /* the request's own count most */
    assert_true(draft_rates_get(&fresh, &key, DRAFT_OWN + 2) < 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_repeats_is_guessed),
        cmocka_unit_test(a_short_loop_is_guessed_to_its_full_length),
        cmocka_unit_test(what_does_not_repeat_costs_nothing),
        cmocka_unit_test(it_comes_back),
        cmocka_unit_test(the_length_follows_the_match_and_the_cost),
        cmocka_unit_test(many_streams_switch_it_off),
        cmocka_unit_test(one_answer_does_not_take_every_row),
        cmocka_unit_test(a_step_is_bounded),
        cmocka_unit_test(answers_are_remembered_for_their_key),
        cmocka_unit_test(nothing_of_a_key_shows_in_another),
        cmocka_unit_test(keys_give_way),
        cmocka_unit_test(old_answers_are_forgotten),
        cmocka_unit_test(what_is_forced_comes_first),
        cmocka_unit_test(what_is_likely_is_measured),
        cmocka_unit_test(costs_are_tried_again),
        cmocka_unit_test(the_memory_is_foretold),
        cmocka_unit_test(rates_follow_what_was_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
