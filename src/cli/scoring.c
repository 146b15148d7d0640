/* scoring.c: see scoring.h. */
#include "cli/scoring.h"

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

#include <math.h>

/* While sequences are computed. */
struct run {
    const struct scoring *scoring;
    const struct scored_sequence *sequence;
    uint64_t n_before, n_total; /* tokens of the sequences before, and of all */
    struct progress progress;
    uint64_t n_tokens, n_same;
    double loss, kl; /* sums */
    runnel_error error;
    int failure; /* 0: none */
};

static uint32_t find_top(const float *logits, uint32_t n)
{
    uint32_t top = 0;
    for (uint32_t i = 1; i < n; i++)
        top = logits[i] > logits[top] ? i : top;
    return top;
}

/* ln of the sum of exp(logits). */
static double find_log_sum(const float *logits, uint32_t n, float largest)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)expf(logits[i] - largest);
    return (double)largest + log(sum); // cppcheck-suppress invalidFunctionArg ; the largest one adds 1
}

/* KL of one position from the row that the reference has read. What it lost by its steps is made up for, so that its
 * probabilities sum to 1. */
static double find_kl(const struct reference *reference, const float *logits, double log_sum)
{
    double largest = (double)reference->row.largest, step = (double)reference->row.step, sum = 0, kl = 0;
    for (uint32_t i = 0; i < reference->header.n_vocab; i++) {
        double log_q = largest - step * reference->codes[i], q = (double)expf((float)log_q);
        sum += q;
        kl += q * (log_q - ((double)logits[i] - log_sum));
    }
    return kl / sum - log(sum); // cppcheck-suppress invalidFunctionArg ; so does the largest one here
}

static int score_row(struct run *run, size_t index, const float *logits)
{
    const struct scoring *scoring = run->scoring;
    uint32_t n = scoring->n_vocab, top = find_top(logits, n);
    int32_t next = run->sequence->ids[index + 1];
    double log_sum = find_log_sum(logits, n, logits[top]);
    if (!isfinite(log_sum) || !isfinite(logits[next]))
        return error_set(&run->error, RUNNEL_ENUMERIC,
                         "the model's logits after token %zu are not finite numbers", index);
    run->loss += log_sum - (double)logits[next];
    run->n_tokens++;
    if (scoring->output && !reference_write_row(scoring->output, logits, n, log_sum, scoring->codes))
        return error_set(&run->error, RUNNEL_EIO, "%s: could not be written", scoring->output->path);
    if (!scoring->reference)
        return RUNNEL_OK;
    int failure = reference_read_row(scoring->reference, &run->error);
    if (failure)
        return failure;
    run->n_same += top == scoring->reference->row.top;
    run->kl += find_kl(scoring->reference, logits, log_sum);
    return RUNNEL_OK;
}

static bool on_logits(void *user, size_t index, const float *logits)
{
    struct run *run = user;
    progress_update(&run->progress, run->n_before + index + 1, run->n_total);
    if (index >= run->sequence->first)
        run->failure = score_row(run, index, logits);
    return !run->failure && !interrupt_came();
}

/* The logits after its last token foretell nothing that is known: they are not computed. */
static int run_sequence(struct run *run, const struct scored_sequence *sequence, runnel_error *error)
{
    size_t n = sequence->n_ids - 1;
    run->sequence = sequence;
    int failure = runnel_logits_each(run->scoring->engine, sequence->ids, n, 0, on_logits, run, error);
    run->n_before += n;
    if (run->failure) {
        *error = run->error;
        return run->failure;
    }
    return failure;
}

int scoring_run(const struct scoring *scoring, struct score *score, runnel_error *error)
{
    const struct scored_sequences *sequences = scoring->sequences;
    struct run run = {.scoring = scoring};
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < sequences->n; i++)
        run.n_total += sequences->sequences[i].n_ids - 1;
    progress_start_counting(&run.progress, "eval", "tokens", 0);
    for (size_t i = 0; i < sequences->n && !failure; i++)
        failure = run_sequence(&run, &sequences->sequences[i], error);
    progress_end(&run.progress);
    if (failure)
        return failure;
    double n = (double)run.n_tokens;
    if (!isfinite(exp(run.loss / n)) || !isfinite(run.kl))
        return error_set(
            error, RUNNEL_ENUMERIC,
            "the model's probabilities are too small for a perplexity or a KL: mean loss %g, KL %g",
            run.loss / n, run.kl / n);
    *score = (struct score){.n_tokens = run.n_tokens, .perplexity = exp(run.loss / n)};
    if (scoring->reference) {
        score->kl_mean = fmax(run.kl / n, 0); /* of itself it may come out at -1e-9 */
        score->top1 = (double)run.n_same / n;
    }
    return RUNNEL_OK;
}
