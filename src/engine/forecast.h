/* forecast.h: how long a new request would wait, and whether refusals were right.
 *
 * A struct forecast is part of a scheduler, whose lists it reads, and touched by its thread alone. Nothing is allocated
 * after forecast_create. */
#ifndef RUNNEL_ENGINE_FORECAST_H
#define RUNNEL_ENGINE_FORECAST_H

#include "base/error.h"
#include "engine/scheduler_entry.h"
#include "engine/step_budget.h"
#include "engine/turns.h"

struct forecast;

/* What a forecast looks at; all of it stays the caller's. */
struct forecast_options {
    const struct scheduler_list *running, *waiting;
    const struct turns *turns;
    const struct step_budget *budget;
    uint32_t n_parallel, n_requests;
    double max_wait_ms; /* 0: nobody is refused */
};

int forecast_create(const struct forecast_options *options, struct forecast **forecast, runnel_error *error);
void forecast_free(struct forecast *forecast);

/* Predicts for an entry that has just come and is in no list, and notes it in the entry. */
void forecast_predict(struct forecast *forecast, struct scheduler_entry *entry,
                      struct scheduler_forecast *predicted);

/* An answer has ended: its length teaches. */
void forecast_learn(struct forecast *forecast, const struct scheduler_entry *entry);
/* In a step without prompts tokens came so many times as fast as without guesses. */
void forecast_guessed(struct forecast *forecast, double gain);
/* An entry that was taken has waited, until its first row or its expiry. */
void forecast_waited(struct forecast *forecast, const struct scheduler_entry *entry, double waited_ms);

/* An entry was refused for its predicted wait, and is followed up: when would its turn have come? */
void forecast_refused(struct forecast *forecast, const struct scheduler_entry *entry);
/* Before a step is planned: closes the record of refused requests whose turn would have come. */
void forecast_follow_up(struct forecast *forecast, double now_ms);

struct forecast_record {
    uint64_t n_right, n_wrong; /* refusals: the turn would have come later than max_wait_ms, or sooner */
    uint64_t n_visits;         /* of predictions to entries: what they cost */
    double answer_tokens;      /* the mean of answers that ended, old ones fading */
};
struct forecast_record forecast_get_record(const struct forecast *forecast);

#endif
