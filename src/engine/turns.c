/* turns.c: the keys' shares, the score, and whose turn it is. */
#include "engine/turns.h"

#include <math.h>
#include <stdlib.h>

enum { KEYS_REMEMBERED = 64 /* besides those with requests */ };

int turns_init(struct turns *turns, const struct step_cost *cost, uint32_t n_requests, runnel_error *error)
{
    *turns = (struct turns){.cost = cost, .n_keys = n_requests + KEYS_REMEMBERED};
    turns->keys = calloc(turns->n_keys, sizeof *turns->keys);
    return turns->keys ? RUNNEL_OK
                       : error_set(error, RUNNEL_ENOMEM, "no memory for the keys of %u requests", n_requests);
}

void turns_free(struct turns *turns)
{
    free(turns->keys);
}

/* Keys ---------------------------------------------------------------------------------------------------- */

static struct turns_key *find_key(const struct turns *turns, uint64_t key)
{
    for (uint32_t i = 0; i < turns->n_keys; i++)
        if (turns->keys[i].last_used && turns->keys[i].key == key)
            return &turns->keys[i];
    return NULL;
}

double turns_charged(const struct turns *turns, uint64_t key)
{
    const struct turns_key *found = find_key(turns, key);
    return found ? fmax(found->charged_ms, turns->base_ms) : turns->base_ms;
}

uint32_t turns_join(struct turns *turns, uint64_t key, uint64_t serial)
{
    struct turns_key *found = find_key(turns, key);
    if (!found) { /* forget the one that was away longest; there is one, as keys outnumber requests */
        for (uint32_t i = 0; i < turns->n_keys; i++) {
            struct turns_key *other = &turns->keys[i];
            if (other->n_entries == 0 && (!found || other->last_used < found->last_used))
                found = other;
        }
        *found = (struct turns_key){.key = key};
    }
    if (found->n_entries++ == 0)
        found->charged_ms = fmax(found->charged_ms, turns->base_ms);
    found->last_used = serial;
    return (uint32_t)(found - turns->keys);
}

void turns_leave(struct turns *turns, uint32_t slot)
{
    turns->keys[slot].n_entries--;
}

void turns_charge(struct turns *turns, uint32_t slot, double ms)
{
    turns->keys[slot].charged_ms += ms;
}

void turns_settle(struct turns *turns)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < turns->n_keys; i++)
        if (turns->keys[i].n_entries)
            least = fmin(least, turns->keys[i].charged_ms);
    if (!isfinite(least))
        return;
    turns->base_ms = least;
    for (uint32_t i = 0; i < turns->n_keys; i++)
        turns->keys[i].charged_ms = fmin(turns->keys[i].charged_ms, least + KEY_LEAD_MS);
}

/* Order --------------------------------------------------------------------------------------------------- */

double turns_score(const struct turns *turns, const struct scheduler_entry *entry)
{
    uint32_t position = entry_position(entry), n_left = entry->n_tokens - position;
    return entry->arrival_ms +
           OVERTAKEN * step_cost_ms(turns->cost, n_left, step_cost_pairs(position, n_left));
}

struct turn turns_turn(const struct turns *turns, const struct scheduler_entry *entry)
{
    bool is_known = entry->state != SCHEDULER_OUT;
    return (struct turn){
        .charged_ms = is_known ? turns->keys[entry->key_slot].charged_ms : turns_charged(turns, entry->key),
        .score = turns_score(turns, entry),
    };
}

static bool is_candidate(const struct scheduler_entry *entry)
{
    return entry->state == SCHEDULER_WAITING || (entry_is_prompt(entry) && !entry->planned && !entry->held);
}

struct scheduler_entry *turns_pick(const struct turns *turns, const struct scheduler_list *list)
{
    double least = INFINITY, best_score = INFINITY;
    for (const struct scheduler_entry *entry = list->first; entry; entry = entry->next)
        if (is_candidate(entry))
            least = fmin(least, turns->keys[entry->key_slot].charged_ms);
    struct scheduler_entry *best = NULL;
    for (struct scheduler_entry *entry = list->first; entry; entry = entry->next) {
        if (!is_candidate(entry) || turns->keys[entry->key_slot].charged_ms > least + KEY_SLACK_MS)
            continue;
        double score = turns_score(turns, entry);
        if (!best || score < best_score || (score == best_score && entry->serial < best->serial)) {
            best = entry;
            best_score = score;
        }
    }
    return best;
}

/* The check ----------------------------------------------------------------------------------------------- */

const char *turns_check(const struct turns *turns, uint32_t n_entries)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < turns->n_keys; i++) {
        const struct turns_key *key = &turns->keys[i];
        n += key->n_entries;
        if (key->n_entries &&
            (key->charged_ms < turns->base_ms || key->charged_ms > turns->base_ms + KEY_LEAD_MS * 1.000001))
            return "a key is charged out of bounds";
    }
    return n == n_entries ? NULL : "the keys' requests do not add up";
}
