/* draft.h: guesses of the tokens that come next, so that a step computes several of one answer at once.
 *
 * A guess is what followed the latest tokens where they stood before, in the prompt and the answer so far or in recent answers to
 * the same API key, wherever such guesses came true most often; or it is what a constraint forces, which the caller says. Nothing
 * depends on a guess but the speed: it is a row of the step, and what is drawn before it says whether it stands.
 *
 *     drafts_begin(drafts, slot, key)                   for each sequence that begins
 *     each step:
 *         drafts_begin_step(drafts)
 *         drafts_guess(drafts, &(struct draft_ask){...})   for each answer that decodes
 *         drafts_choose(drafts, cost)                   how many guesses of each are worth their rows
 *         drafts_get(drafts, slot)                      ... which are computed
 *         drafts_learn(drafts, slot, drawn, n)          what was drawn, also where nothing was computed
 *     drafts_remember(drafts, slot, ids, n_prompt, n)   at an answer's end
 *
 * How long a draft is follows from how often guesses of its kind come true (draft_rates.h: by length of match, for each key and each
 * request) and from what rows cost (step_cost.h): rows are added where an answer gains most, as long as the step's answers come
 * faster with them in the geometric mean of their speeds. So what one gains is worth more than what its rows cost the others. What is
 * not computed is compared all the same, so the rates are always known; what rows cost is tried again now and then.
 *
 * What outlives a request is kept apart by API key, as are the rates: neither a text nor how well it was guessed can be told from
 * the speed of another key's answers. A key that was not used for long gives way to a new one.
 *
 * The engine's thread alone calls these functions. Nothing is allocated after drafts_create. */
#ifndef RUNNEL_ENGINE_DRAFT_H
#define RUNNEL_ENGINE_DRAFT_H

#include "base/error.h"
#include "engine/step_cost.h"

#include <stddef.h>
#include <stdint.h>

struct drafts;

enum { DRAFT_MAX = 15 /* guesses of a step, of all its answers together */ };

struct drafts_options {
    uint32_t n_slots;     /* sequences at once */
    uint32_t n_positions; /* of one sequence, at most */
};

/* What drafts_create will take. */
uint64_t drafts_bytes(const struct drafts_options *options);
int drafts_create(const struct drafts_options *options, struct drafts **drafts, runnel_error *error);
void drafts_free(struct drafts *drafts); /* NULL is fine */

void drafts_begin(struct drafts *drafts, uint32_t slot, uint64_t key);

/* Goes on with what is there of a sequence's text: before a step guesses, and while its prompt is computed. A long prompt takes several
 * calls; until it is done nothing is found in it. */
void drafts_follow(struct drafts *drafts, uint32_t slot, const int32_t *ids, uint32_t n);

/* What is to be guessed. */
struct draft_ask {
    uint32_t slot;
    const int32_t *ids; /* [n] prompt and answer */
    uint32_t n;
    uint32_t n_max;        /* guesses at most; 0: the answer decodes, but none is wanted */
    const int32_t *forced; /* [n_forced] what comes, by its constraints */
    uint32_t n_forced;
    uint32_t n_certain;  /* of these, the first ones: whatever would be drawn */
    const int32_t *ends; /* [n_ends] tokens that would end the answer: nothing is guessed from one on */
    size_t n_ends;
};

void drafts_begin_step(struct drafts *drafts);
void drafts_guess(struct drafts *drafts, const struct draft_ask *ask);
void drafts_choose(struct drafts *drafts, const struct step_cost *cost);

/* Of this step; it stays until the next. */
struct draft {
    int32_t tokens[DRAFT_MAX];
    uint32_t n; /* that were chosen */
};
const struct draft *drafts_get(const struct drafts *drafts, uint32_t slot);

/* n tokens were drawn for the slot; each but the last one was guessed. */
void drafts_learn(struct drafts *drafts, uint32_t slot, const int32_t *drawn, uint32_t n);

/* The answer has ended: its tokens are ids [n_prompt] to [n - 1]. */
void drafts_remember(struct drafts *drafts, uint32_t slot, const int32_t *ids, uint32_t n_prompt, uint32_t n);

#endif
