/* engine_memory.h: what an engine takes of the memory, planned before anything is made. Any thread. */
#ifndef RUNNEL_ENGINE_ENGINE_MEMORY_H
#define RUNNEL_ENGINE_ENGINE_MEMORY_H

#include "engine/draft.h"
#include "engine/forward.h"
#include "engine/model.h"

enum { ENGINE_PARTS_MAX = 2 }; /* the layers on a device, and the rest on the CPU */

/* The cache, the forward pass and the drafts of an engine. `forward` points into the plan, which stays where it is. */
struct engine_memory {
    struct kvcache_options cache;
    struct forward_part parts[ENGINE_PARTS_MAX];
    struct forward_options forward; /* without a team and a cache */
    struct drafts_options drafts;
    uint64_t draft_bytes;     /* that these take; 0: there are no drafts */
    uint32_t n_device_layers; /* from the first one on; the rest is the CPU's */
};

/* options: with their defaults (engine_options.h). device: where as many layers go as the model is to have there and as have room;
 * NULL: none. RUNNEL_ENOMEM if these are fewer than it was told to put there, or none. */
int engine_memory_plan(const struct runnel_model *model, const runnel_engine_options *options,
                       struct backend_device *device, struct engine_memory *plan, runnel_error *error);

/* An eighth fewer layers on the device, in the end none, for one that turns out to have less memory than it was believed to. False: it was
 * told how many, or there must be one. */
bool engine_memory_take_fewer(const struct runnel_model *model, struct engine_memory *plan);

/* RUNNEL_ENOMEM if that is more than is left of the memory limit, or than this machine has. Of a device that shares this machine's memory
 * fewer layers may do. */
int engine_memory_check_room(const struct runnel_model *model, struct engine_memory *plan,
                             runnel_error *error);

#endif
