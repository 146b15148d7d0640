/* engine.h: requests become steps, steps become answers.
 *
 * A runnel_engine owns the compute team, the KV cache, the scratch of steps and the logits. Its lock makes
 * calls from several threads wait for each other; whoever holds it is the engine thread. */
#ifndef RUNNEL_ENGINE_ENGINE_H
#define RUNNEL_ENGINE_ENGINE_H

#include "base/text.h"
#include "engine/forward.h"
#include "engine/model.h"
#include "engine/output.h"
#include "engine/sampler.h"

#include <pthread.h>

struct runnel_engine {
    const struct runnel_model *model;
    pthread_mutex_t lock; /* guards all that follows */
    struct team *team;
    struct kvcache *cache;
    struct forward *forward;
    struct sampler *sampler;
    uint32_t n_context, n_batch, n_parallel;
    struct forward_row *rows; /* [n_batch] */
    uint32_t n_logits;        /* rows of logits: n_parallel or more */
    float *logits;            /* [n_logits, n_vocab] */
};

/* One request while it runs. */
struct answer {
    const runnel_request *request;
    runnel_sampling sampling;
    struct token_list tokens; /* prompt and answer; room for all that may come */
    uint32_t n_prompt, n_cached, n_drawn, n_thought, max_tokens;
    int sequence; /* -1: none */
    struct output *output;
    struct text text, reasoning;
    bool finished;
    enum runnel_finish_reason finish_reason;
    uint64_t logits_hash;
    double start_ms, first_ms, last_ms;
};

/* Checks the request, renders and encodes its prompt, makes room for its answer. The answer is to be freed
 * with answer_free, also after a failure. */
int answer_prepare(const struct runnel_engine *engine, const runnel_request *request, struct answer *answer,
                   runnel_error *error);
void answer_free(struct runnel_engine *engine, struct answer *answer);

/* Takes the next token: ends the answer, or emits its text. */
int answer_take(const struct runnel_engine *engine, struct answer *answer, int32_t token,
                runnel_error *error);
/* Ends the answer: emits what was held back and the finish event. */
void answer_finish(struct answer *answer, enum runnel_finish_reason reason);

/* Runs prepared answers to their ends, together. The engine's lock is held. */
int engine_run(struct runnel_engine *engine, struct answer *answers, size_t n, runnel_error *error);

#endif
