/* test_sampler.c: each option on cases small enough to do by hand, and all of them by distribution.
 *
 * Distributions are tested by chi-square against probabilities that a plain model (sort everything, double
 * precision) gives. The bound is the 1 - FALSE_ALARM quantile, so that a right sampler with fresh seeds fails
 * one test in 100,000; the seeds are fixed, so a test that passes goes on passing. check_distribution also
 * asserts that the same draws fail against a slightly wrong distribution, so that the test itself is known to
 * see something. */
#include "engine/sampler.h"
#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { N_VOCAB = 48, N_DRAWS = 200000 };

static const double FALSE_ALARM_Z = 4.265; /* normal quantile of 1 - 1e-5 */

static runnel_sampling plain_sampling(float temperature)
{
    return (runnel_sampling){
        .temperature = temperature, .top_p = 1, .repetition_penalty = 1, .penalty_window = -1};
}

static void fill_logits(float *logits, int n, float scale)
{
    for (int i = 0; i < n; i++)
        logits[i] = scale * ((float)(sampler_random(77, (uint64_t)i) >> 40) * 0x1p-24f - 0.5f);
}

/* The model: probabilities of one draw, by sorting all tokens. -------------------------------------------- */

struct ranked {
    double logit;
    int id;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

static void model_probabilities(const runnel_sampling *p, const struct sampler_context *context,
                                const float *logits, int n_vocab, double *probability)
{
    struct ranked *ranked = calloc((size_t)n_vocab, sizeof *ranked);
    for (int i = 0; i < n_vocab; i++) {
        double x = logits[i];
        for (size_t b = 0; b < p->n_logit_bias; b++)
            x += p->logit_bias[b].token == i ? (double)p->logit_bias[b].bias : 0;
        for (size_t b = 0; b < context->n_bias; b++)
            x += context->bias[b].token == i ? (double)context->bias[b].bias : 0;
        size_t seen = 0;
        for (size_t t = 0; t < context->n_tokens; t++)
            seen += context->tokens[t] == i &&
                    (p->penalty_window < 0 || t + (size_t)p->penalty_window >= context->n_tokens);
        if (seen) {
            x = x > 0 ? x / (double)p->repetition_penalty : x * (double)p->repetition_penalty;
            x -= (double)p->presence_penalty + (double)seen * (double)p->frequency_penalty;
        }
        if (context->allowed && !(context->allowed[i / 32] >> (i % 32) & 1))
            x = -INFINITY;
        ranked[i] = (struct ranked){x, i};
    }
    qsort(ranked, (size_t)n_vocab, sizeof *ranked, compare_ranked);
    int n = 0;
    while (n < n_vocab && ranked[n].logit > -INFINITY)
        n++;
    if (p->top_k && p->top_k < n)
        n = p->top_k;
    double all = 0, sum = 0;
    for (int i = 0; i < n; i++)
        all += exp((ranked[i].logit - ranked[0].logit) / (double)p->temperature);
    int kept = 0;
    for (; kept < n && (p->top_p == 1 || sum < (double)p->top_p * all); kept++)
        sum += exp((ranked[kept].logit - ranked[0].logit) / (double)p->temperature);
    n = kept;
    while (n > 1 && exp((ranked[n - 1].logit - ranked[0].logit) / (double)p->temperature) < (double)p->min_p)
        n--;
    sum = 0;
    memset(probability, 0, (size_t)n_vocab * sizeof *probability);
    for (int i = 0; i < n; i++)
        sum += probability[ranked[i].id] = exp((ranked[i].logit - ranked[0].logit) / (double)p->temperature);
    for (int i = 0; i < n_vocab; i++)
        probability[i] /= sum;
    free(ranked);
}

/* Chi-square over the bound: at most 1 passes. Cells that expect fewer than 10 are put together. A token that
 * the model excludes and that was drawn: infinity. */
static double chi_square_over_bound(const uint32_t *counts, const double *probability, int n, double n_draws)
{
    double statistic = 0, rare_expected = 0, rare_found = 0;
    int cells = 0;
    for (int i = 0; i < n; i++) {
        double expected = probability[i] * n_draws;
        if (probability[i] == 0 && counts[i])
            return INFINITY;
        if (expected < 10) {
            rare_expected += expected;
            rare_found += counts[i];
            continue;
        }
        statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells++;
    }
    if (rare_expected >= 10) {
        statistic += (rare_found - rare_expected) * (rare_found - rare_expected) / rare_expected;
        cells++;
    }
    if (cells < 2)
        return 0;
    double k = cells - 1; /* quantile of chi-square by Wilson and Hilferty */
    double root = 1 - 2 / (9 * k) + FALSE_ALARM_Z * sqrt(2 / (9 * k));
    return statistic / (k * root * root * root);
}

static void draw_many(struct sampler *s, const runnel_sampling *p, struct sampler_context context,
                      const float *logits, int n_draws, uint32_t *counts)
{
    for (int i = 0; i < n_draws; i++) {
        int32_t token = -1;
        context.position = (uint64_t)i;
        assert_int_equal(sampler_draw(s, p, &context, logits, &token, NULL, NULL), 0);
        assert_in_range(token, 0, N_VOCAB - 1);
        counts[token]++;
    }
}

/* What is told of the latest draw, of every token and of the likeliest, against the model's probabilities. */
static void check_told(const struct sampler *s, const double *probability, int n_vocab)
{
    struct sampler_choice told[RUNNEL_LOGPROBS_MAX + 1];
    double sum = 0;
    size_t n_possible = 0;
    for (int i = 0; i < n_vocab; i++) {
        assert_int_equal(sampler_tell(s, i, 0, told), 1);
        assert_int_equal(told[0].token, i);
        double p = exp((double)told[0].logprob);
        sum += p;
        n_possible += p > 0;
        assert_true(probability[i] > 0 || p == 0);
        assert_true(fabs(p - probability[i]) <= 1e-5 * probability[i] || probability[i] < 1e-20);
    }
    assert_true(fabs(sum - 1) < 1e-6);
    size_t n = n_possible < RUNNEL_LOGPROBS_MAX ? n_possible : RUNNEL_LOGPROBS_MAX;
    assert_int_equal(sampler_tell(s, 0, RUNNEL_LOGPROBS_MAX + 9, told), 1 + n);
    bool listed[N_VOCAB] = {false};
    for (size_t i = 1; i <= n; i++) {
        assert_true(i == 1 || told[i].logprob < told[i - 1].logprob ||
                    (told[i].logprob == told[i - 1].logprob && told[i].token > told[i - 1].token));
        assert_true(fabs(exp((double)told[i].logprob) - probability[told[i].token]) < 1e-5);
        assert_false(listed[told[i].token]);
        listed[told[i].token] = true;
    }
    for (int i = 0; i < n_vocab; i++) /* nothing likelier was left out */
        assert_true(listed[i] || probability[i] <= exp((double)told[n].logprob) * (1 + 1e-5));
}

static void check_distribution(runnel_sampling p, struct sampler_context context, const float *logits)
{
    struct sampler *s;
    assert_int_equal(sampler_create(N_VOCAB, &s, NULL), 0);
    assert_int_equal(sampler_check(&p, N_VOCAB, NULL), 0);
    double right[N_VOCAB], wrong[N_VOCAB];
    model_probabilities(&p, &context, logits, N_VOCAB, right);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        uint32_t counts[N_VOCAB] = {0};
        p.seed = seed * 1000;
        draw_many(s, &p, context, logits, N_DRAWS, counts);
        check_told(s, right, N_VOCAB);
        double ratio = chi_square_over_bound(counts, right, N_VOCAB, N_DRAWS);
        assert_true(ratio > 0 && ratio <= 1);

        /* Power: a temperature 5 % off is seen. */
        runnel_sampling off = p;
        off.temperature = p.temperature * 1.05f;
        model_probabilities(&off, &context, logits, N_VOCAB, wrong);
        assert_true(chi_square_over_bound(counts, wrong, N_VOCAB, N_DRAWS) > 1);
    }
    sampler_free(s);
}

static void test_distribution_of_each_option(void **state)
{
    (void)state;
    float logits[N_VOCAB];
    fill_logits(logits, N_VOCAB, 6);
    struct sampler_context nothing = {0};
    check_distribution(plain_sampling(1), nothing, logits);
    check_distribution(plain_sampling(0.7f), nothing, logits);
    check_distribution(plain_sampling(1.8f), nothing, logits);

    runnel_sampling p = plain_sampling(1);
    p.top_k = 7;
    check_distribution(p, nothing, logits);
    p = plain_sampling(0.8f);
    p.top_p = 0.9f;
    check_distribution(p, nothing, logits);
    p = plain_sampling(1.2f);
    p.min_p = 0.2f;
    check_distribution(p, nothing, logits);
    p = plain_sampling(0.8f);
    p.top_k = 20;
    p.top_p = 0.85f;
    p.min_p = 0.15f;
    check_distribution(p, nothing, logits);

    int32_t tokens[64];
    for (int i = 0; i < 64; i++)
        tokens[i] = i * i % 23;
    struct sampler_context seen = {.tokens = tokens, .n_tokens = 64};
    p = plain_sampling(1);
    p.repetition_penalty = 1.5f;
    p.presence_penalty = 0.3f;
    p.frequency_penalty = 0.1f;
    check_distribution(p, seen, logits);
    p.penalty_window = 9;
    check_distribution(p, seen, logits);

    uint32_t allowed[2] = {0x5a5a0ff1u, 0x0000a5a5u};
    struct sampler_context masked = {.allowed = allowed};
    p = plain_sampling(1);
    p.top_k = 10;
    check_distribution(p, masked, logits);

    runnel_logit_bias bias[] = {{3, 2.5f}, {4, -100}, {40, 1}, {3, 0.5f}};
    p = plain_sampling(1);
    p.logit_bias = bias;
    p.n_logit_bias = 4;
    check_distribution(p, nothing, logits);

    runnel_logit_bias more[] = {{4, 102}, {7, -1.5f}};
    struct sampler_context biased = {.bias = more, .n_bias = 2};
    check_distribution(p, biased, logits);
}

/* A window of 0 counts nothing, and penalties must leave nothing behind for the next draw. */
static void test_penalties_do_not_linger(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(4, &s, NULL), 0);
    float logits[4] = {1, 2, 3, 2.5f};
    int32_t tokens[] = {2, 2, 3, 99, -5}, token; /* out of the vocabulary: ignored */
    struct sampler_context context = {.tokens = tokens, .n_tokens = 5};
    runnel_sampling p = plain_sampling(0);
    p.presence_penalty = 1.1f;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 1); /* 1, 2, 1.9, 1.4 */
    p.penalty_window = 0;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 2);
    p.penalty_window = 3; /* token 3 alone */
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 2);
    p = plain_sampling(0);
    p.frequency_penalty = 0.4f; /* 1, 2, 2.2, 2.1: counts are not doubled by earlier draws */
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 2);
    p.frequency_penalty = 0.6f; /* 1, 2, 1.8, 1.9 */
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 1);
    float negative[4] = {-1, -2, -0.9f, -0.95f};
    p = plain_sampling(0);
    p.repetition_penalty = 2; /* multiplies what is negative: -1.8, -1.9 */
    assert_int_equal(sampler_draw(s, &p, &context, negative, &token, NULL, NULL), 0);
    assert_int_equal(token, 0);
    sampler_free(s);
}

static void test_greedy(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(40, &s, NULL), 0);
    float logits[40];
    for (int i = 0; i < 40; i++)
        logits[i] = -INFINITY;
    logits[7] = logits[33] = logits[5] = 4;
    logits[9] = 3.5f;
    int32_t token;
    struct sampler_context context = {0};
    runnel_sampling p = plain_sampling(0);
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 5); /* of equals the lowest id */
    uint32_t allowed[2] = {1u << 7 | 1u << 9, 1u << 1};
    context.allowed = allowed;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 7);
    runnel_logit_bias bias[] = {{9, 1}, {5, 10}};
    p.logit_bias = bias;
    p.n_logit_bias = 2;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 9); /* 5 is the largest, but not allowed */
    p.temperature = 1e-30f;     /* nearly 0 is like 0, here without a tie */
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 9);
    p.temperature = 5;
    p.top_k = 1;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
    assert_int_equal(token, 9);
    sampler_free(s);
}

/* Which tokens survive a filter, over many draws. */
static uint64_t drawn_set(struct sampler *s, const runnel_sampling *p, const float *logits)
{
    uint64_t set = 0;
    for (uint64_t i = 0; i < 4000; i++) {
        int32_t token;
        struct sampler_context context = {.position = i};
        assert_int_equal(sampler_draw(s, p, &context, logits, &token, NULL, NULL), 0);
        set |= 1ull << token;
    }
    return set;
}

static void test_filters_keep_the_right_tokens(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(6, &s, NULL), 0);
    float logits[6]; /* probabilities 0.1, 0.3, 0.1, 0.3, 0.15, 0.05 */
    const float probability[6] = {0.1f, 0.3f, 0.1f, 0.3f, 0.15f, 0.05f};
    for (int i = 0; i < 6; i++)
        logits[i] = logf(probability[i]);
    runnel_sampling p = plain_sampling(1);
    assert_int_equal(drawn_set(s, &p, logits), 0x3f);
    p.top_k = 1;
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1);
    p.top_k = 4; /* of the two 0.1 the lower id */
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3 | 1 << 4 | 1 << 0);
    p.top_k = 100;
    assert_int_equal(drawn_set(s, &p, logits), 0x3f);
    p.top_k = 0;
    p.top_p = 0.01f; /* always one */
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1);
    p.top_p = 0.31f;
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3);
    p.top_p = 0.8f;
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3 | 1 << 4 | 1 << 0);
    p.top_k = 3; /* probabilities 0.4, 0.4, 0.2 now */
    p.top_p = 0.79f;
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3);
    p = plain_sampling(1);
    p.min_p = 0.4f; /* at least 0.12 */
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3 | 1 << 4);
    p.min_p = 1;
    assert_int_equal(drawn_set(s, &p, logits), 1 << 1 | 1 << 3);
    p.temperature = 4; /* temperature comes before min-p: 0.1 / 0.3 becomes its fourth root, 0.76 */
    p.min_p = 0.7f;
    assert_int_equal(drawn_set(s, &p, logits), 0x1f);
    logits[1] = -INFINITY; /* impossible, and no error */
    p = plain_sampling(1);
    assert_int_equal(drawn_set(s, &p, logits), 0x3d);
    sampler_free(s);
}

static void test_logprob(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(4, &s, NULL), 0);
    const double probability[4] = {0.5, 0.25, 0.2, 0.05};
    float logits[4], logprob = 7;
    for (int i = 0; i < 4; i++)
        logits[i] = (float)log(probability[i]) + 50;
    runnel_logit_bias bias[] = {{3, 100}};
    runnel_sampling p = plain_sampling(0.3f);
    p.logit_bias = bias;
    p.n_logit_bias = 1;
    p.top_k = 2;
    int32_t token;
    struct sampler_context context = {0};
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, NULL), 0);
    assert_int_equal(token, 3); /* bias and filters do not touch what the model thought of it */
    assert_true(fabs((double)logprob - log(0.05)) < 1e-5);
    assert_true(logits[3] == (float)log(0.05) + 50);
    sampler_free(s);
}

/* The sampler has an exp of its own: with two logits, distance apart, the log probability shows its value. */
static void test_exp_is_accurate(void **state)
{
    (void)state;
    struct sampler *s;
    assert_int_equal(sampler_create(2, &s, NULL), 0);
    runnel_sampling p = plain_sampling(0);
    struct sampler_context context = {0};
    for (int i = 0; i < 60000; i++) {
        float logits[2] = {0, -(float)i * 0.001f}, logprob;
        int32_t token;
        assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, NULL), 0);
        double exact = -log1p(exp((double)logits[1]));
        assert_true(fabs((double)logprob - exact) < 2e-7);
    }
    sampler_free(s);
}

/* Where it is said so, the draw is the first of the largest logits, whatever the seed and the tokens before; and it is said where it can
 * be. */
static void test_when_the_best_is_enough(void **state)
{
    (void)state;
    struct sampler *s;
    float logits[N_VOCAB];
    static const int32_t seen[] = {7, 7, 20};
    static const runnel_logit_bias bias = {.token = 7, .bias = -30};
    assert_int_equal(sampler_create(N_VOCAB, &s, NULL), 0);
    fill_logits(logits, N_VOCAB, 8);
    logits[7] = logits[20] = logits[41] = 5;
    for (int i = 0; i < 1 << 6; i++) {
        runnel_sampling p = plain_sampling(i & 1 ? 1 : 0);
        p.top_k = i & 2 ? 1 : 0;
        p.repetition_penalty = i & 4 ? 1.5f : 1;
        p.presence_penalty = i & 8 ? 2 : 0;
        p.frequency_penalty = i & 16 ? 2 : 0;
        p.logit_bias = &bias;
        p.n_logit_bias = i & 32 ? 1 : 0;
        p.seed = (uint64_t)i;
        bool is_greedy = (i & 3) != 1, is_changed = i >> 2;
        assert_int_equal(sampler_takes_best(&p), is_greedy && !is_changed);
        const struct sampler_context context = {.tokens = seen, .n_tokens = 3, .position = 3};
        int32_t token;
        assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
        if (is_greedy) /* all that changes logits here takes it from 7 */
            assert_int_equal(token == 7, sampler_takes_best(&p));
    }
    sampler_free(s);
}

static void test_errors(void **state)
{
    (void)state;
    struct sampler *s;
    runnel_error error;
    assert_int_equal(sampler_create(0, &s, &error), RUNNEL_EINVAL);
    assert_int_equal(sampler_create(40, &s, &error), 0);
    float logits[40] = {0}, logprob = 5;
    int32_t token = 77;
    uint32_t none[2] = {0, 0xffffff00u}; /* bits past the vocabulary do not count */
    struct sampler_context context = {.allowed = none};
    runnel_sampling p = plain_sampling(1);
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, &error), RUNNEL_ENUMERIC);
    const runnel_logit_bias forbidden[] = {{7, -INFINITY}};
    uint32_t only_7[2] = {1u << 7, 0};
    context.allowed = only_7;
    p.logit_bias = forbidden;
    p.n_logit_bias = 1;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "logit_bias"));
    p.n_logit_bias = 0;
    context.allowed = NULL;
    const float bad[] = {NAN, -NAN, INFINITY};
    for (int i = 0; i < 3; i++) {
        logits[39] = bad[i];
        assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, &error), RUNNEL_ENUMERIC);
        assert_non_null(strstr(error.message, "token 39"));
    }
    for (int i = 0; i < 40; i++)
        logits[i] = -INFINITY;
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, &error), RUNNEL_ENUMERIC);
    assert_int_equal(token, 77); /* outputs untouched */
    assert_true(logprob == 5);

    /* Extreme values stay numbers. */
    for (int i = 0; i < 40; i++)
        logits[i] = i % 2 ? 3e38f : -3e38f;
    int32_t tokens[] = {1, 1, 2};
    runnel_logit_bias bias[] = {{1, 3e38f}, {2, -3e38f}, {4, -INFINITY}};
    p.logit_bias = bias;
    p.n_logit_bias = 3;
    p.repetition_penalty = 0.001f;
    p.frequency_penalty = -1000;
    p.min_p = 0.5f;
    p.top_p = 0.5f;
    context.tokens = tokens;
    context.n_tokens = 3;
    assert_int_equal(sampler_check(&p, 40, &error), 0);
    assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, &error), 0);
    assert_int_equal(token, 1);
    sampler_free(s);
}

static void test_check_names_the_field(void **state)
{
    (void)state;
    runnel_error error;
    runnel_logit_bias outside = {40, 1}, negative = {-1, 1}, not_a_number = {0, NAN};
#define REFUSED(field, value, name)                                                                          \
    do {                                                                                                     \
        runnel_sampling p = plain_sampling(1);                                                               \
        p.field = value;                                                                                     \
        p.n_logit_bias = p.logit_bias != NULL;                                                               \
        assert_int_equal(sampler_check(&p, 40, &error), RUNNEL_EINVAL);                                      \
        assert_non_null(strstr(error.message, name));                                                        \
    } while (0)
    REFUSED(temperature, -0.1f, "temperature");
    REFUSED(temperature, NAN, "temperature");
    REFUSED(temperature, INFINITY, "temperature");
    REFUSED(top_k, -1, "top_k");
    REFUSED(top_p, 0, "top_p");
    REFUSED(top_p, 1.01f, "top_p");
    REFUSED(top_p, NAN, "top_p");
    REFUSED(min_p, -0.1f, "min_p");
    REFUSED(min_p, 1.1f, "min_p");
    REFUSED(repetition_penalty, 0, "repetition_penalty");
    REFUSED(repetition_penalty, INFINITY, "repetition_penalty");
    REFUSED(presence_penalty, NAN, "presence_penalty");
    REFUSED(frequency_penalty, INFINITY, "frequency_penalty");
    REFUSED(penalty_window, -2, "penalty_window");
    REFUSED(logit_bias, &outside, "40");
    REFUSED(logit_bias, &negative, "-1");
    REFUSED(logit_bias, &not_a_number, "logit_bias");
#undef REFUSED
    runnel_sampling good = plain_sampling(0);
    assert_int_equal(sampler_check(&good, 40, &error), 0);
}

/* Pairs of draws at neighbouring positions, and at one position with neighbouring seeds, are independent: the
 * 8 x 8 table of pairs is uniform. The bits of one generator value are checked on the way. */
static void test_independence(void **state)
{
    (void)state;
    double uniform_pairs[64];
    for (int i = 0; i < 64; i++)
        uniform_pairs[i] = 1.0 / 64;
    for (int shift = 0; shift <= 61; shift += 61) {
        for (int stride = 1; stride <= 1024; stride *= 32) {
            uint32_t positions[64] = {0}, seeds[64] = {0}, copies[64] = {0};
            for (uint64_t i = 0; i < 100000; i++) {
                uint64_t here = sampler_random(5, i) >> shift & 7;
                positions[here * 8 + (sampler_random(5, i + (uint64_t)stride) >> shift & 7)]++;
                seeds[(sampler_random(i, 3) >> shift & 7) * 8 +
                      (sampler_random(i + (uint64_t)stride, 3) >> shift & 7)]++;
                copies[here * 8 + (sampler_random(5, i) >> shift & 7)]++; /* fully dependent */
            }
            assert_true(chi_square_over_bound(positions, uniform_pairs, 64, 100000) <= 1);
            assert_true(chi_square_over_bound(seeds, uniform_pairs, 64, 100000) <= 1);
            assert_true(chi_square_over_bound(copies, uniform_pairs, 64, 100000) > 1);
        }
    }
}

/* On a vocabulary of real size: what is drawn depends on seed, position and logits alone; a fresh sampler and
 * one that has drawn other things agree, and the tokens are those that the model keeps. */
static void test_real_size_and_repeatable(void **state)
{
    (void)state;
    enum { LARGE = 151936 };
    float *logits = malloc(LARGE * sizeof *logits);
    double *probability = malloc(LARGE * sizeof *probability);
    struct sampler *a, *b;
    assert_int_equal(sampler_create(LARGE, &a, NULL), 0);
    assert_int_equal(sampler_create(LARGE, &b, NULL), 0);
    runnel_sampling p[6];
    struct sampler_choice told;
    for (int i = 0; i < 6; i++)
        p[i] = plain_sampling(0.6f);
    p[1].top_k = 40;
    p[1].top_p = 0.95f;
    p[1].min_p = 0.05f;
    p[2].top_p = 0.95f;
    p[3].top_k = 100000;
    p[4].min_p = 0.02f;
    p[5].top_p = 0.5f;
    p[5].top_k = 1000;
    for (int shape = 0; shape < 4; shape++) {
        fill_logits(logits, LARGE, shape == 0 ? 30.0f : shape == 1 ? 0.5f : 3.0f);
        for (int i = 0; shape == 2 && i < LARGE; i++)
            logits[i] = (float)(i % 100) * 0.01f; /* ties everywhere */
        for (int i = 0; shape == 3 && i < LARGE; i++)
            logits[i] = (float)i * 1e-4f; /* sorted */
        for (int i = 0; i < 6; i++) {
            struct sampler_context context = {0};
            model_probabilities(&p[i], &context, logits, LARGE, probability);
            double least = 1;
            int n_different = 0;
            for (uint64_t position = 0; position < 4; position++) {
                int32_t x, y;
                context.position = position;
                p[i].seed = position / 2;
                assert_int_equal(sampler_draw(a, &p[i], &context, logits, &x, NULL, NULL), 0);
                assert_int_equal(sampler_draw(b, &p[i], &context, logits, &y, NULL, NULL), 0);
                assert_int_equal(x, y);
                assert_true(sampler_tell(a, x, 0, &told) == 1 && told.token == x);
                assert_true(fabs(exp((double)told.logprob) - probability[x]) <= 1e-3 * probability[x]);
                least = fmin(least, probability[x]);
                p[i].seed ^= 99;
                assert_int_equal(sampler_draw(b, &p[i], &context, logits, &y, NULL, NULL), 0);
                n_different += x != y;
            }
            assert_true(least > 0);
            assert_true(shape == 0 ||
                        n_different >= 2); /* the seed matters where the logits leave a choice */
        }
    }
    free(logits);
    free(probability);
    sampler_free(a);
    sampler_free(b);
}

/* The order of sums (softmax.h), written plainly ----------------------------------------------------------- */

static float weight_as_agreed(float logit, float max, float temperature)
{
    float x = (logit - max) * fminf(1 / temperature, 1e30f);
    if (!(x >= -52.0f))
        return 0;
    float n = x * 0x1.715476p0f + 0x1.8p23f - 0x1.8p23f;
    float r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;
    float e = r * (1.0f / 5040) + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    return ldexpf(e, (int)n);
}

/* The sum of n weights of a block in n_lanes lanes: 16 are agreed. */
static float block_as_agreed(const float *weights, int n, int n_lanes)
{
    float sums[LOGIT_BLOCK] = {0};
    for (int i = 0; i < n; i++)
        sums[i % n_lanes] += weights[i];
    for (int half = n_lanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

static double sum_as_agreed(const float *weights, int n, int n_lanes)
{
    double sum = 0;
    for (int begin = 0; begin < n; begin += LOGIT_BLOCK)
        sum += (double)block_as_agreed(weights + begin, n - begin < LOGIT_BLOCK ? n - begin : LOGIT_BLOCK,
                                       n_lanes);
    return sum;
}

static int32_t draw_as_agreed(const float *weights, int n, double uniform)
{
    double point = uniform * sum_as_agreed(weights, n, 16), sum = 0;
    for (int begin = 0; begin < n; begin += LOGIT_BLOCK) {
        int n_here = n - begin < LOGIT_BLOCK ? n - begin : LOGIT_BLOCK;
        double here = (double)block_as_agreed(weights + begin, n_here, 16);
        for (int i = begin; sum + here > point && i < begin + n_here; i++)
            if ((sum += (double)weights[i]) > point)
                return i;
        sum += here;
    }
    return -1;
}

/* One likely token and many that together have a hundredth of it: the log probability of the likely one then shows the
 * last bits of a sum. Checked are the sum over the vocabulary (logprob), the one over a nucleus (what is told), and draws. That
 * another number of lanes, or one sum over all, gives another result shows that the test sees an order. */
static void test_sums_have_the_agreed_order(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static const int sizes[] = {1, 15, 64, 65, 130, 200, 640, MANY};
    float logits[MANY], weights[MANY], logprob;
    int n_other_lanes = 0, n_one_by_one = 0, n_nuclei = 0;
    for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++)
        for (int repeat = 0; repeat < 5; repeat++) {
            int n = sizes[size], likely = (int)(sampler_random(3, (uint64_t)repeat) % (uint64_t)n);
            struct sampler *s;
            assert_int_equal(sampler_create((uint32_t)n, &s, NULL), 0);
            fill_logits(logits, n, 4);
            for (int i = 0; i < n; i++)
                logits[i] = logits[(i + 31 * repeat) % n] - 4 - logf((float)n);
            logits[likely] = 0;

            double one_by_one = 0;
            for (int i = 0; i < n; i++)
                one_by_one += (double)(weights[i] = weight_as_agreed(logits[i], 0, 1));
            double sum = sum_as_agreed(weights, n, 16);
            n_other_lanes += (float)-log(sum) != (float)-log(sum_as_agreed(weights, n, 8));
            n_one_by_one += (float)-log(sum) != (float)-log(one_by_one);
            runnel_sampling p = plain_sampling(1);
            for (uint64_t position = 0; position < 200; position++) {
                struct sampler_context context = {.position = position};
                struct sampler_choice told;
                int32_t token;
                double uniform = (double)(sampler_random(p.seed, position) >> 11) * 0x1p-53;
                assert_int_equal(sampler_draw(s, &p, &context, logits, &token, &logprob, NULL), 0);
                assert_int_equal(token, draw_as_agreed(weights, n, uniform));
                assert_true(logprob == (float)((double)logits[token] - log(sum)));
                assert_true(sampler_tell(s, likely, 0, &told) == 1);
                assert_true(told.logprob == (float)log(1 / sum));
            }

            /* Of a nucleus: its sum is over what it keeps, wherever that lies. */
            p.temperature = 1.5f;
            p.top_p = 0.97f;
            for (int i = 0; i < n; i++)
                weights[i] = weight_as_agreed(logits[i], 0, p.temperature);
            double all = sum_as_agreed(weights, n, 16);
            struct sampler_choice told;
            struct sampler_context context = {.position = 7};
            int32_t token;
            assert_int_equal(sampler_draw(s, &p, &context, logits, &token, NULL, NULL), 0);
            for (int i = 0; i < n; i++)
                if (sampler_tell(s, i, 0, &told) == 1 && told.logprob == -INFINITY)
                    weights[i] = 0;
            double nucleus = sum_as_agreed(weights, n, 16);
            n_nuclei += nucleus < all;
            assert_true(sampler_tell(s, likely, 0, &told) == 1 && told.logprob == (float)log(1 / nucleus));
            assert_int_equal(token,
                             draw_as_agreed(weights, n, (double)(sampler_random(0, 7) >> 11) * 0x1p-53));
            sampler_free(s);
        }
    assert_true(n_other_lanes > 5 && n_one_by_one > 10 && n_nuclei > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_when_the_best_is_enough),
        cmocka_unit_test(test_filters_keep_the_right_tokens),
        cmocka_unit_test(test_penalties_do_not_linger),
        cmocka_unit_test(test_logprob),
        cmocka_unit_test(test_exp_is_accurate),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_check_names_the_field),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_distribution_of_each_option),
        cmocka_unit_test(test_sums_have_the_agreed_order),
        cmocka_unit_test(test_real_size_and_repeatable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
