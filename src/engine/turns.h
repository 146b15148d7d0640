/* turns.h: whose turn it is, for a sequence and for the rows of a step.
 *
 * Keys share the machine's time: each row is charged to its key, and only entries of keys that are within KEY_SLACK_MS of
 * the least charged one are considered (a key that comes back starts where the others are; no key falls behind further
 * than KEY_LEAD_MS). Among these goes first who has the least score: arrival + OVERTAKEN times the predicted time of what is left of the
 * prompt. So the shortest goes first, and a long one can be overtaken (by its own key) only by those that arrive within OVERTAKEN times
 * the time that it takes; whoever arrives later waits for what is then left, which is 1 / OVERTAKEN of its age at most.
 *
 * A struct turns is part of a scheduler, and touched by its thread alone. Nothing is allocated after turns_init. */
#ifndef RUNNEL_ENGINE_TURNS_H
#define RUNNEL_ENGINE_TURNS_H

#include "base/error.h"
#include "engine/scheduler_entry.h"
#include "engine/step_cost.h"

#define KEY_SLACK_MS 250.0 /* keys this close to the least charged one are equals */
#define KEY_LEAD_MS  2000.0
#define OVERTAKEN    8.0

/* Charged: machine time that the key's rows took, on a clock of its own (only differences matter). */
struct turns_key {
    uint64_t key;
    double charged_ms;
    uint32_t n_entries; /* 0: a memory, or unused */
    uint64_t last_used; /* serial of its latest entry; 0: unused */
};

struct turns {
    const struct step_cost *cost;
    struct turns_key *keys; /* [n_keys] */
    uint32_t n_keys;
    double base_ms; /* the least charged of the keys with entries, so far: never falls */
};

/* For n_requests at once; cost stays the caller's. */
int turns_init(struct turns *turns, const struct step_cost *cost, uint32_t n_requests, runnel_error *error);
void turns_free(struct turns *turns);

/* A key has one entry more: returns its place in keys. A key that had none starts where the least charged one is,
 * unless it is charged more. serial: numbers entries, from 1. */
uint32_t turns_join(struct turns *turns, uint64_t key, uint64_t serial);
/* The key of that place has one entry less. */
void turns_leave(struct turns *turns, uint32_t slot);
void turns_charge(struct turns *turns, uint32_t slot, double ms);
/* After charging or leaving: moves the base up, and forgives what passes the lead. */
void turns_settle(struct turns *turns);
/* What a key has been charged, or where it would start. */
double turns_charged(const struct turns *turns, uint64_t key);

/* What decides: the lower, the earlier, first by what the key was charged, then, where that is nearly equal, by score. */
struct turn {
    double charged_ms, score;
};
double turns_score(const struct turns *turns, const struct scheduler_entry *entry);
struct turn turns_turn(const struct turns *turns, const struct scheduler_entry *entry);

static inline bool turns_goes_first(const struct turn *a, const struct turn *b)
{
    if (a->charged_ms + KEY_SLACK_MS < b->charged_ms || b->charged_ms + KEY_SLACK_MS < a->charged_ms)
        return a->charged_ms < b->charged_ms;
    return a->score <= b->score;
}

/* Whose turn it is: of entries that wait, or of the running ones' prompts that are not planned yet; NULL: nobody's. */
struct scheduler_entry *turns_pick(const struct turns *turns, const struct scheduler_list *list);

/* NULL, or what is wrong (static text); n_entries: how many there are. */
const char *turns_check(const struct turns *turns, uint32_t n_entries);

#endif
