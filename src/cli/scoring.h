/* scoring.h: how well a model foretells the tokens of sequences, and how far it is from reference logits of another one.
 *
 * With l the natural logarithm of a probability, over all scored positions: perplexity = exp(mean of -l(the token that follows)); KL = mean
 * of the sum over the vocabulary of q (ln q - l), q the reference's probabilities; top-1 = how often both have the same
 * likeliest token. Sums are in double. The main thread; rows are scored on the engine's, while it waits. */
#ifndef RUNNEL_CLI_SCORING_H
#define RUNNEL_CLI_SCORING_H

#include "cli/logits_file.h"

struct scoring {
    runnel_engine *engine;
    uint32_t n_vocab;
    const struct scored_sequences *sequences; /* those of the reference, if there is one */
    struct reference *reference;              /* NULL: none */
    struct logits_output *output;             /* where a reference's rows go; NULL: nowhere */
    uint16_t *codes;                          /* [n_vocab] scratch, with output */
};

struct score {
    uint64_t n_tokens; /* scored positions */
    double perplexity;
    double kl_mean, top1; /* with a reference; top1 0 to 1 */
};

/* Computes all sequences, with a progress bar. RUNNEL_ECANCELLED after Ctrl-C (interrupt.h). */
int scoring_run(const struct scoring *scoring, struct score *score, runnel_error *error);

#endif
