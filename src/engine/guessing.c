/* guessing.c: between the requests, what their constraints force (answer.c), what is found in texts (draft.c) and the scheduler
 * (see guessing.h). */
#include "engine/guessing.h"

enum { GUESSES = 4 * DRAFT_MAX /* looked for in a step */ };

void engine_guess_begin(struct runnel_engine *engine, const struct runnel_future *future)
{
    if (engine->drafts)
        drafts_begin(engine->drafts, (uint32_t)future->sequence, future->entry.key);
}

void engine_guess_end(struct runnel_engine *engine, const struct runnel_future *future)
{
    const struct answer *answer = &future->answer;
    if (engine->drafts && future->sequence >= 0)
        drafts_remember(engine->drafts, (uint32_t)future->sequence, answer->tokens.ids, answer->n_prompt,
                        (uint32_t)answer->tokens.n);
}

/* How many guesses of each answer are looked for. A step has DRAFT_MAX of all answers together: where there are many answers, their
 * first guesses are the likeliest of all. */
static uint32_t guesses_each(const struct runnel_engine *engine)
{
    struct scheduler_stats stats;
    scheduler_get_stats(engine->scheduler, &stats);
    uint32_t n = GUESSES / (stats.n_running ? stats.n_running : 1);
    return n > DRAFT_MAX ? DRAFT_MAX : n > 0 ? n : 1;
}

/* Of an answer that decodes. */
static void guess(struct runnel_engine *engine, struct runnel_future *future, uint32_t n_max)
{
    struct answer *answer = &future->answer;
    uint32_t n_room = (uint32_t)(answer->tokens.cap - answer->tokens.n) - 1;
    int32_t forced[DRAFT_MAX];
    struct draft_ask ask = {
        .slot = (uint32_t)future->sequence,
        .ids = answer->tokens.ids,
        .n = (uint32_t)answer->tokens.n,
        .n_max = n_room < n_max ? n_room : n_max,
        .forced = forced,
    };
    if (!answer->ignore_eos)
        ask.ends = tokenizer_ends(answer->tokenizer, &ask.n_ends);
    ask.n_forced = answer_foresee(answer, engine->scratches[0], forced, ask.n_max, &ask.n_certain);
    drafts_guess(engine->drafts, &ask);
}

/* What runs guesses, or goes on with its prompt: true then. */
static bool look_at(struct runnel_engine *engine, struct runnel_future *future, uint32_t n_max)
{
    struct scheduler_entry *entry = &future->entry;
    entry->n_draft = 0;
    if (future->sequence < 0 || entry->state != SCHEDULER_RUNNING)
        return false;
    bool is_prompt = entry_is_prompt(entry);
    if (is_prompt)
        drafts_follow(engine->drafts, (uint32_t)future->sequence, future->answer.tokens.ids,
                      (uint32_t)future->answer.tokens.n);
    else
        guess(engine, future, n_max);
    return is_prompt;
}

/* The rows of a step that has prompts in it are theirs. */
void engine_guess(struct runnel_engine *engine)
{
    bool has_prompt = false;
    if (!engine->drafts)
        return;
    const uint32_t n_max = guesses_each(engine);
    drafts_begin_step(engine->drafts);
    for (struct runnel_future *future = engine->live; future; future = future->next)
        has_prompt |= look_at(engine, future, n_max);
    if (has_prompt)
        return;
    drafts_choose(engine->drafts, scheduler_cost(engine->scheduler));
    for (struct runnel_future *future = engine->live; future; future = future->next)
        if (future->sequence >= 0)
            future->entry.n_draft = drafts_get(engine->drafts, (uint32_t)future->sequence)->n;
}

void engine_guess_learn(struct runnel_engine *engine, const struct drawing *drawing)
{
    int32_t drawn[DRAFT_MAX + 1];
    uint32_t n = 0;
    if (!engine->drafts)
        return;
    for (uint32_t i = 0; i < drawing->n_draws && !drawing->draws[i].failure; i++)
        drawn[n++] = drawing->draws[i].token;
    drafts_learn(engine->drafts, (uint32_t)drawing->future->sequence, drawn, n);
}

int32_t engine_guessed_token(const struct runnel_engine *engine, const struct runnel_future *future,
                             uint32_t i)
{
    return drafts_get(engine->drafts, (uint32_t)future->sequence)->tokens[i];
}
