/* engine_memory.h: what an engine takes of the memory, planned before anything is made. Any thread. */
#ifndef RUNNEL_ENGINE_ENGINE_MEMORY_H
#define RUNNEL_ENGINE_ENGINE_MEMORY_H

#include "engine/draft.h"
#include "engine/forward.h"
#include "engine/model.h"

/* The cache, the forward pass and the drafts of an engine. `forward` points into the plan, which stays where it is. */
struct engine_memory {
    struct kvcache_options cache;
    struct forward_part all_layers;
    struct forward_options forward; /* without a team and a cache */
    struct drafts_options drafts;
    uint64_t draft_bytes; /* that these take; 0: there are no drafts */
};

/* options: with their defaults (engine_options.h). */
int engine_memory_plan(const struct runnel_model *model, const runnel_engine_options *options,
                       struct engine_memory *plan, runnel_error *error);

/* RUNNEL_ENOMEM if that is more than is left of the memory limit, or than this machine has. */
int engine_memory_check_room(const struct engine_memory *plan, runnel_error *error);

#endif
