/* sampler.c: from logits to a token.
 *
 * The order is: bias, penalties, mask, temperature, top-k, top-p, min-p, draw. Each filter keeps a beginning
 * of the vocabulary sorted by (logit descending, id ascending), so a filter is described by the last token
 * that it keeps, a struct candidate called `last`. Nothing is sorted: the last token of a filter is found by
 * quickselect, and the tokens that are drawn from stay in order of their ids (so that a small change of the
 * logits rarely changes the token that a seed draws).
 *
 *   top-k   keeps the k likeliest
 *   top-p   keeps the fewest likeliest whose probabilities, among those that top-k left, add up to at least p
 *   min-p   keeps those whose probability is at least min_p times that of the likeliest
 *
 * Few of the vocabulary's many tokens matter to a draw: the largest logit of each block of tokens is found first, and
 * blocks whose largest is out of the question are passed over.
 *
 * Weights are added block by block in the order of softmax.h: those that a nucleus is a share of, those that a draw chooses
 * from and those that it tells of. A draw finds its block by the sums of blocks, then its token within. (find_last adds in
 * the order of its search, but all that it needs are the candidates that are left.)
 *
 * A struct sampler owns its scratch; one thread at a time. After every draw `counts` is all zero again. */
#include "engine/sampler.h"

#include "engine/softmax.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    float weight; /* what find_last adds up: a probability not yet normalised, or 1 */
    int32_t id;
};

/* The candidates of one block of tokens, which follow each other. */
struct run {
    uint32_t end; /* of them in kept */
    float sum;    /* of their weights */
};

struct sampler {
    uint32_t n_vocab;
    float *logits;             /* [n_vocab] after bias and penalties; -infinity where masked */
    float *largest;            /* [blocks of BLOCK tokens] the largest logit of each */
    uint32_t *counts;          /* [n_vocab] how often a token was seen; zero between draws */
    struct candidate *kept;    /* [n_vocab] what is left to draw from, in order of ids; stays after a draw */
    struct candidate *scratch; /* [n_vocab] for find_last, which changes the order */
    struct run *runs;          /* [blocks] of kept, once it is weighed */
    uint32_t n_kept, n_runs;
};

enum {
    LANES = 4, /* of vectors */
    BLOCK = LOGIT_BLOCK,
    PENALTY_MAX = 1000,
    SELECT_SLACK = 512, /* candidates collected beyond k before the worst are thrown out */
};

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t int_lanes __attribute__((vector_size(LANES * sizeof(int32_t))));

static const struct candidate KEEP_ALL = {.logit = -FLT_MAX, .weight = 0, .id = INT32_MAX};

int sampler_create(uint32_t n_vocab, struct sampler **sampler, runnel_error *error)
{
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return error_set(error, RUNNEL_EINVAL,
                         "sampler: expected a vocabulary of 1 to 2^31 - 1 tokens, found %u", n_vocab);
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        goto fail;
    s->n_vocab = n_vocab;
    s->logits = malloc(n_vocab * sizeof *s->logits);
    s->largest = malloc(((size_t)n_vocab + BLOCK - 1) / BLOCK * sizeof *s->largest);
    s->runs = malloc(((size_t)n_vocab + BLOCK - 1) / BLOCK * sizeof *s->runs);
    s->counts = calloc(n_vocab, sizeof *s->counts);
    s->kept = malloc(n_vocab * sizeof *s->kept);
    s->scratch = malloc(n_vocab * sizeof *s->scratch);
    if (!s->logits || !s->largest || !s->runs || !s->counts || !s->kept || !s->scratch)
        goto fail;
    *sampler = s;
    return RUNNEL_OK;

fail:
    sampler_free(s);
    return error_set(error, RUNNEL_ENOMEM, "sampler: no memory for the scratch of %u tokens", n_vocab);
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->logits);
    free(sampler->largest);
    free(sampler->runs);
    free(sampler->counts);
    free(sampler->kept);
    free(sampler->scratch);
    free(sampler);
}

/* Checking ------------------------------------------------------------------------------------------------ */

static int check_float(const char *name, float value, bool good, const char *expected, runnel_error *error)
{
    if (good) /* every comparison with NaN is false, so NaN is never good */
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "%s: expected %s, found %g", name, expected, (double)value);
}

int sampler_check(const runnel_sampling *p, uint32_t n_vocab, runnel_error *error)
{
    int status;
    if ((status = check_float("temperature", p->temperature, p->temperature >= 0 && p->temperature <= FLT_MAX,
                              "a number from 0", error)))
        return status;
    if (p->top_k < 0)
        return error_set(error, RUNNEL_EINVAL, "top_k: expected 0 (all) or more, found %d", p->top_k);
    if ((status = check_float("top_p", p->top_p, p->top_p > 0 && p->top_p <= 1, "a number above 0, up to 1",
                              error)) ||
        (status =
             check_float("min_p", p->min_p, p->min_p >= 0 && p->min_p <= 1, "a number from 0 to 1", error)) ||
        (status = check_float("repetition_penalty", p->repetition_penalty,
                              p->repetition_penalty > 0 && p->repetition_penalty <= PENALTY_MAX,
                              "a number above 0, up to 1000", error)) ||
        (status =
             check_float("presence_penalty", p->presence_penalty, fabsf(p->presence_penalty) <= PENALTY_MAX,
                         "a number from -1000 to 1000", error)) ||
        (status =
             check_float("frequency_penalty", p->frequency_penalty,
                         fabsf(p->frequency_penalty) <= PENALTY_MAX, "a number from -1000 to 1000", error)))
        return status;
    if (p->penalty_window < -1)
        return error_set(error, RUNNEL_EINVAL,
                         "penalty_window: expected -1 (all), 0 (none) or more, found %d", p->penalty_window);
    if (p->n_logit_bias && !p->logit_bias)
        return error_set(error, RUNNEL_EINVAL, "logit_bias: expected %zu entries, found none",
                         p->n_logit_bias);
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        const runnel_logit_bias *entry = &p->logit_bias[i];
        if (entry->token < 0 || (uint32_t)entry->token >= n_vocab)
            return error_set(error, RUNNEL_EINVAL, "logit_bias: expected a token from 0 to %u, found %d",
                             n_vocab - 1, entry->token);
        if (!(entry->bias <= FLT_MAX))
            return error_set(error, RUNNEL_EINVAL, "logit_bias: expected a number for token %d, found %g",
                             entry->token, (double)entry->bias);
    }
    return RUNNEL_OK;
}

/* Random numbers ------------------------------------------------------------------------------------------ */

/* The finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t sampler_random(uint64_t seed, uint64_t counter)
{
    /* The seed is mixed before the counter joins it, so that neighbouring seeds are no shifted copies of each
     * other. */
    uint64_t stream = mix(seed + 0x9e3779b97f4a7c15u);
    return mix(mix(stream ^ (counter * 0xd1342543de82ef95u + 0x632be59bd9b4e019u)) + stream);
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static double uniform(uint64_t seed, uint64_t counter)
{
    return (double)(sampler_random(seed, counter) >> 11) * 0x1p-53;
}

/* Bias and penalties -------------------------------------------------------------------------------------- */

/* Copies the logits, which must be finite; -infinity says impossible. */
static int take_logits(struct sampler *s, const float *logits, runnel_error *error)
{
    int_lanes bad = {0};
    uint32_t i = 0;
    memcpy(s->logits, logits, s->n_vocab * sizeof *logits);
    for (; s->n_vocab - i >= LANES; i += LANES) {
        lanes x;
        memcpy(&x, logits + i, sizeof x);
        bad |= ~(x <= FLT_MAX); /* NaN or +infinity */
    }
    bool any = bad[0] | bad[1] | bad[2] | bad[3];
    for (i = any ? 0 : i; i < s->n_vocab; i++)
        if (!(logits[i] <= FLT_MAX))
            return error_set(error, RUNNEL_ENUMERIC, "logits: expected finite numbers, found %g for token %u",
                             (double)logits[i], i);
    return RUNNEL_OK;
}

static bool has_penalties(const runnel_sampling *p)
{
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

/* The tokens that penalties count: the last penalty_window of the context. */
static const int32_t *seen_tokens(const runnel_sampling *p, const struct sampler_context *context, size_t *n)
{
    *n = context->n_tokens;
    if (p->penalty_window >= 0 && (size_t)p->penalty_window < *n)
        *n = (size_t)p->penalty_window;
    if (!has_penalties(p))
        *n = 0;
    return *n ? context->tokens + (context->n_tokens - *n) : NULL;
}

static void apply_penalties(struct sampler *s, const runnel_sampling *p,
                            const struct sampler_context *context)
{
    size_t n;
    const int32_t *seen = seen_tokens(p, context, &n);
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)seen[i] < s->n_vocab)
            s->counts[seen[i]]++;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)seen[i] >= s->n_vocab || s->counts[seen[i]] == 0)
            continue; /* a repetition: done at its first appearance */
        float *logit = &s->logits[seen[i]];
        float count = (float)s->counts[seen[i]];
        s->counts[seen[i]] = 0;
        float scaled = *logit > 0 ? *logit / p->repetition_penalty : *logit * p->repetition_penalty;
        /* Extreme values must not turn into +infinity. */
        *logit = fminf(scaled - (p->presence_penalty + count * p->frequency_penalty), FLT_MAX);
    }
}

static void apply_bias(struct sampler *s, const runnel_logit_bias *bias, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float *logit = &s->logits[bias[i].token];
        *logit = fminf(*logit + bias[i].bias, FLT_MAX);
    }
}

static void apply_mask(struct sampler *s, const uint32_t *allowed)
{
    for (uint32_t word = 0; word * 32 < s->n_vocab; word++) {
        if (allowed[word] == UINT32_MAX)
            continue;
        uint32_t end = s->n_vocab - word * 32 < 32 ? s->n_vocab - word * 32 : 32;
        for (uint32_t bit = 0; bit < end; bit++)
            if (!(allowed[word] >> bit & 1))
                s->logits[word * 32 + bit] = -INFINITY;
    }
}

/* Filters ------------------------------------------------------------------------------------------------- */

static uint32_t n_blocks(const struct sampler *s)
{
    return (s->n_vocab + BLOCK - 1) / BLOCK;
}

static uint32_t block_end(const struct sampler *s, uint32_t block)
{
    return s->n_vocab - block * BLOCK < BLOCK ? s->n_vocab : (block + 1) * BLOCK;
}

/* Fills in the largest logit of each block. */
static void find_largest(struct sampler *s)
{
    for (uint32_t block = 0; block < n_blocks(s); block++) {
        const float *logits = s->logits + (size_t)block * BLOCK;
        uint32_t n = block_end(s, block) - block * BLOCK, i = 0;
        lanes most = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        for (; i + LANES <= n; i += LANES) {
            lanes x;
            memcpy(&x, logits + i, sizeof x);
            int_lanes more = x > most;
            most = (lanes)(((int_lanes)x & more) | ((int_lanes)most & ~more));
        }
        float largest = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
        for (; i < n; i++)
            largest = fmaxf(largest, logits[i]);
        s->largest[block] = largest;
    }
}

static bool comes_before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void swap_candidates(struct candidate *a, struct candidate *b)
{
    struct candidate old = *a;
    *a = *b;
    *b = old;
}

/* The index at which the candidates, were they sorted, reach a sum of weights of at least target (the last
 * index if they never do). Afterwards that candidate stands there with all earlier ones before it. Expected
 * time linear in n. */
static uint32_t find_last(struct candidate *c, uint32_t n, double target)
{
    uint32_t begin = 0, end = n; /* the index is in [begin, end), or begin - 1 if rounding lost a little */
    double before = 0;           /* weights of [0, begin) */
    while (begin < end) {
        uint32_t pivot = begin + (uint32_t)(sampler_random(begin, end) % (end - begin));
        swap_candidates(&c[pivot], &c[end - 1]);
        uint32_t middle = begin;
        double sum = 0;
        for (uint32_t i = begin; i + 1 < end; i++) {
            if (comes_before(&c[i], &c[end - 1])) {
                sum += c[i].weight;
                swap_candidates(&c[i], &c[middle++]);
            }
        }
        swap_candidates(&c[middle], &c[end - 1]);
        if (before + sum >= target && middle > begin) {
            end = middle;
        } else if (before + sum + c[middle].weight >= target) {
            return middle;
        } else {
            before += sum + c[middle].weight;
            begin = middle + 1;
        }
    }
    return end - 1; /* the pivot before it stands at its sorted place */
}

/* Sets kept to the tokens up to `last`. */
static void gather(struct sampler *s, struct candidate last)
{
    uint32_t n = 0;
    for (uint32_t block = 0; block < n_blocks(s); block++) {
        if (s->largest[block] < last.logit)
            continue;
        for (uint32_t i = block * BLOCK; i < block_end(s, block); i++) {
            float logit = s->logits[i];
            if (logit > last.logit || (logit == last.logit && (int32_t)i <= last.id))
                s->kept[n++] = (struct candidate){.logit = logit, .id = (int32_t)i};
        }
    }
    s->n_kept = n;
}

/* Drops from kept what comes after `last`. */
static void narrow(struct sampler *s, struct candidate last)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_kept; i++)
        if (!comes_before(&last, &s->kept[i]))
            s->kept[n++] = s->kept[i];
    s->n_kept = n;
}

/* The last of the k likeliest tokens of the vocabulary. */
static struct candidate last_of_top_k(struct sampler *s, uint32_t k)
{
    uint64_t wanted = (uint64_t)k * 2 + SELECT_SLACK;
    uint32_t capacity = wanted < s->n_vocab ? (uint32_t)wanted : s->n_vocab;
    struct candidate *c = s->scratch, last = KEEP_ALL;
    uint32_t n = 0;
    for (uint32_t block = 0; block < n_blocks(s); block++) {
        if (s->largest[block] < last.logit)
            continue;
        for (uint32_t i = block * BLOCK; i < block_end(s, block); i++) {
            if (!(s->logits[i] > last.logit || (s->logits[i] == last.logit && (int32_t)i <= last.id)))
                continue;
            c[n++] = (struct candidate){.logit = s->logits[i], .weight = 1, .id = (int32_t)i};
            if (n == capacity && capacity > k) { /* only what comes before the k-th so far can still matter */
                n = find_last(c, n, k) + 1;
                last = c[n - 1];
            }
        }
    }
    return n > k ? c[find_last(c, n, k)] : last;
}

/* Fills in the weights of the candidates [begin, end), which are of one block; returns their sum. */
static float weigh_run(struct candidate *kept, uint32_t begin, uint32_t end, struct softmax_scale scale)
{
    float weights[BLOCK] = {0}, of_block[BLOCK] = {0};
    struct candidate *c = kept + begin;
    uint32_t n = end - begin;
    for (uint32_t i = 0; i < n; i++)
        weights[i] = c[i].logit;
    softmax_weigh(weights, n, scale, weights);
    for (uint32_t i = 0; i < n; i++)
        c[i].weight = weights[i];
    if (n == BLOCK) /* in their places as they are */
        return softmax_sum_block(weights);
    for (uint32_t i = 0; i < n; i++)
        of_block[c[i].id % BLOCK] = weights[i];
    return softmax_sum_block(of_block);
}

/* Finds the runs of kept and fills in its weights; returns their sum. */
static double weigh(struct sampler *s, struct softmax_scale scale)
{
    double sum = 0;
    s->n_runs = 0;
    for (uint32_t begin = 0, end; begin < s->n_kept; begin = end) {
        int32_t block = s->kept[begin].id / BLOCK;
        for (end = begin + 1; end < s->n_kept && s->kept[end].id / BLOCK == block; end++) {
        }
        struct run run = {end, weigh_run(s->kept, begin, end, scale)};
        s->runs[s->n_runs++] = run;
        sum += (double)run.sum;
    }
    return sum;
}

/* Narrows kept to its likeliest whose weights reach target. */
static void keep_weight(struct sampler *s, double target)
{
    memcpy(s->scratch, s->kept, s->n_kept * sizeof *s->kept);
    narrow(s, s->scratch[find_last(s->scratch, s->n_kept, target)]);
}

/* Sets kept to the nucleus of the whole vocabulary. It nearly always is close to the likeliest token: first
 * the tokens within 10 scaled units of it are looked at, then all. */
static void gather_top_p(struct sampler *s, double p, struct softmax_scale scale)
{
    double target = p * softmax_sum(s->logits, s->n_vocab, scale);
    float floor = fmaxf(scale.max - 10 / scale.inverse_temperature, KEEP_ALL.logit);
    gather(s, (struct candidate){.logit = floor, .id = INT32_MAX});
    if (weigh(s, scale) < target) {
        gather(s, KEEP_ALL);
        weigh(s, scale);
    }
    keep_weight(s, target);
}

/* Drawing ------------------------------------------------------------------------------------------------- */

/* The first of the likeliest tokens; -1 if none is possible. */
static int32_t likeliest(const struct sampler *s)
{
    uint32_t best = 0;
    for (uint32_t block = 1; block < n_blocks(s); block++)
        if (s->largest[block] > s->largest[best])
            best = block;
    if (s->largest[best] == -INFINITY)
        return -1;
    uint32_t id = best * BLOCK;
    while (s->logits[id] != s->largest[best])
        id++;
    return (int32_t)id;
}

/* Of the candidates [begin, end) the first at which weights, added one by one to `before`, come past point; the last that
 * has a weight should rounding keep them from it. */
static int32_t draw_within(const struct sampler *s, uint32_t begin, uint32_t end, double before, double point)
{
    int32_t id = -1;
    for (uint32_t i = begin; i < end && before <= point; i++) {
        if (s->kept[i].weight == 0)
            continue;
        id = s->kept[i].id;
        before += (double)s->kept[i].weight;
    }
    return id;
}

/* Where a point from 0 to the sum of kept lies: in the first block whose sum, added to those before it, comes past it (or
 * the last that has a weight), and there in a candidate. */
static int32_t draw_kept(const struct sampler *s, double point)
{
    uint32_t first = 0, last = 0; /* of the block */
    double before = 0, sum = 0;   /* without and with it */
    for (uint32_t i = 0, begin = 0; i < s->n_runs && sum <= point; begin = s->runs[i++].end) {
        if (s->runs[i].sum == 0)
            continue;
        first = begin;
        last = s->runs[i].end;
        before = sum;
        sum += (double)s->runs[i].sum;
    }
    return draw_within(s, first, last, before, point);
}

static int32_t draw_filtered(struct sampler *s, const runnel_sampling *p, uint64_t position, float max)
{
    struct softmax_scale scale = softmax_scale_of(max, p->temperature);
    double floor = p->min_p > 0 ? (double)max + (double)p->temperature * log((double)p->min_p) : -INFINITY;
    struct candidate last_of_min_p = {.logit = (float)fmax(floor, (double)KEEP_ALL.logit), .id = INT32_MAX};

    if (p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab) {
        gather(s, last_of_top_k(s, (uint32_t)p->top_k));
        if (p->top_p < 1)
            keep_weight(s, (double)p->top_p * weigh(s, scale));
        narrow(s, last_of_min_p);
    } else if (p->top_p < 1) {
        gather_top_p(s, (double)p->top_p, scale);
        narrow(s, last_of_min_p);
    } else {
        gather(s, last_of_min_p);
    }

    return draw_kept(s, uniform(p->seed, position) * weigh(s, scale));
}

/* Where nothing is left to chance. */
static void keep_only(struct sampler *s, int32_t id)
{
    s->kept[0] = (struct candidate){.logit = s->logits[id], .weight = 1, .id = id};
    s->n_kept = 1;
    s->runs[0] = (struct run){.end = 1, .sum = 1};
    s->n_runs = 1;
}

/* Of the unchanged logits: x - log(sum of exp). */
static float log_probability(const float *logits, uint32_t n, int32_t token)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    if (max == -INFINITY)
        return -INFINITY;
    double sum = softmax_sum(logits, n, softmax_scale_of(max, 1));
    return (float)((double)logits[token] - (double)max - log(sum));
}

/* Nothing may be drawn: by the fault of a request that forbids what the rest of it would allow, or of the model. */
static int refuse_to_draw(const struct sampler *s, const runnel_sampling *p, runnel_error *error)
{
    for (size_t i = 0; i < p->n_logit_bias; i++)
        if (p->logit_bias[i].bias == -INFINITY)
            return error_set(
                error, RUNNEL_EINVAL,
                "logit_bias: expected to leave a token that may be drawn, it forbids all of them");
    return error_set(error, RUNNEL_ENUMERIC,
                     "logits: expected a token that is possible and allowed, found none among %u",
                     s->n_vocab);
}

/* Nothing is left to chance: the likeliest token is taken. */
static bool is_greedy(const runnel_sampling *p)
{
    return p->temperature == 0 || p->top_k == 1;
}

bool sampler_takes_best(const runnel_sampling *p)
{
    return is_greedy(p) && !has_penalties(p) && p->n_logit_bias == 0;
}

int sampler_draw(struct sampler *s, const runnel_sampling *p, const struct sampler_context *context,
                 const float *logits, int32_t *token, float *logprob, runnel_error *error)
{
    int status = take_logits(s, logits, error);
    if (status)
        return status;

    apply_bias(s, p->logit_bias, p->n_logit_bias);
    apply_bias(s, context->bias, context->n_bias);
    apply_penalties(s, p, context);
    if (context->allowed)
        apply_mask(s, context->allowed);
    find_largest(s);

    int32_t id = likeliest(s);
    if (id < 0)
        return refuse_to_draw(s, p, error);
    if (is_greedy(p))
        keep_only(s, id);
    else
        id = draw_filtered(s, p, context->position, s->logits[id]);
    *token = id;
    if (logprob)
        *logprob = log_probability(logits, s->n_vocab, id);
    return RUNNEL_OK;
}

/* Telling ------------------------------------------------------------------------------------------------- */

/* Puts a candidate into the list of the n heaviest, the heaviest first; of equals those that came first. Returns how many
 * there are now. */
static size_t insert_heaviest(const struct candidate **heaviest, size_t n_found, size_t n,
                              const struct candidate *candidate)
{
    if (n_found == n && (n == 0 || candidate->weight <= heaviest[n - 1]->weight))
        return n_found;
    size_t place = n_found < n ? n_found++ : n - 1;
    for (; place > 0 && candidate->weight > heaviest[place - 1]->weight; place--)
        heaviest[place] = heaviest[place - 1];
    heaviest[place] = candidate;
    return n_found;
}

size_t sampler_tell(const struct sampler *s, int32_t token, size_t n, struct sampler_choice *choices)
{
    const struct candidate *heaviest[RUNNEL_LOGPROBS_MAX];
    size_t n_found = 0;
    double sum = 0, weight = 0;
    n = n < RUNNEL_LOGPROBS_MAX ? n : RUNNEL_LOGPROBS_MAX;
    for (uint32_t i = 0; i < s->n_runs; i++)
        sum += (double)s->runs[i].sum;
    for (uint32_t i = 0; i < s->n_kept; i++) {
        const struct candidate *candidate = &s->kept[i];
        if (candidate->weight == 0) /* never drawn */
            continue;
        if (candidate->id == token)
            weight = (double)candidate->weight;
        n_found = insert_heaviest(heaviest, n_found, n, candidate);
    }
    choices[0] = (struct sampler_choice){token, (float)log(weight / sum)};
    for (size_t i = 0; i < n_found; i++)
        choices[i + 1] =
            (struct sampler_choice){heaviest[i]->id, (float)log((double)heaviest[i]->weight / sum)};
    return n_found + 1;
}
