/* sharing.h: prompts that begin alike are computed once. The engine's thread alone calls these. */
#ifndef RUNNEL_ENGINE_SHARING_H
#define RUNNEL_ENGINE_SHARING_H

#include "engine/engine_state.h"

/* Of a prompt that has just come: tells the scheduler what the cache has, and with whose it begins alike. */
void engine_compare_prompt(struct runnel_engine *engine, struct runnel_future *future);
/* Before a step is planned: prompts take what others have computed of them, and the scheduler is told which ones
 * go on alike. */
void engine_share_pages(struct runnel_engine *engine);

#endif
