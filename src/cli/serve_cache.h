/* serve_cache.h: how much memory the KV cache of one worker of `runnel serve` has. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_SERVE_CACHE_H
#define RUNNEL_CLI_SERVE_CACHE_H

#include "cli/serve_options.h"
#include "runnel.h"

/* Sets n_kv_bytes of options, all other fields of which are set: the part of the rank-th of n_workers of --kv-cache-mib. Where nobody
 * gave that, one context has room at least, however many workers there are; where somebody did and one has not, an error says what
 * would do. So does one for a cache that this machine cannot hold. */
int serve_cache_set(const struct serve_settings *settings, const runnel_model *model, uint32_t rank,
                    uint32_t n_workers, runnel_engine_options *options, runnel_error *error);

#endif
