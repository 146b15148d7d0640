/* serve_cache.c: see serve_cache.h. */
#include "cli/serve_cache.h"

#include "base/error.h"
#include "cli/cli.h"
#include "cli/context_room.h"
#include "service/divide.h"

#include <stdio.h>

static const uint64_t CACHE_MIB_MAX = 1 << 20; /* of --kv-cache-mib */

static bool is_enough(const runnel_model *model, runnel_engine_options options, uint64_t cache_mib)
{
    uint64_t n_bytes;
    options.n_kv_bytes = cache_mib << 20;
    return !runnel_engine_bytes(model, &options, &n_bytes, NULL);
}

/* The fewest MiB with which an engine of these options starts: room for one context, and for the window if there is one. 0: they
 * are refused for something else. */
static uint64_t find_least_mib(const runnel_model *model, const runnel_engine_options *options)
{
    uint64_t enough = 1;
    while (!is_enough(model, *options, enough)) {
        if (enough >= CACHE_MIB_MAX)
            return 0;
        enough *= 2;
    }
    for (uint64_t too_few = enough / 2; enough - too_few > 1;) {
        uint64_t middle = (too_few + enough) / 2;
        if (is_enough(model, *options, middle))
            enough = middle;
        else
            too_few = middle;
    }
    return enough;
}

/* Short, as what came of an order is told with more around it. */
static int refuse_part(const runnel_engine_options *options, uint64_t n_mib, uint32_t n_workers,
                       uint64_t least_mib, runnel_error *error)
{
    char fewer[48] = "";
    if (n_mib >= least_mib)
        snprintf(fewer, sizeof fewer, "; or at most %llu worker%s", (unsigned long long)(n_mib / least_mib),
                 n_mib / least_mib == 1 ? "" : "s");
    return error_set(
        error, RUNNEL_EINVAL,
        "--kv-cache-mib: %llu MiB for %u workers, expected %llu: each needs %llu for --ctx %u%s%s",
        (unsigned long long)n_mib, n_workers, (unsigned long long)(least_mib * n_workers),
        (unsigned long long)least_mib, options->n_context, options->keep_last ? " and --keep-last" : "",
        fewer);
}

/* Can this machine have such a cache at all? */
static int check_machine(const struct serve_settings *settings, const runnel_engine_options *options,
                         runnel_error *error)
{
    uint64_t n_mib = (uint64_t)settings->kv_cache_mib;
    if (cli_wants_device(&settings->device)) /* it is not this machine's memory, or not all of it */
        return RUNNEL_OK;
    if (settings->has_kv_cache || options->n_kv_bytes <= n_mib << 20)
        return context_room_check("--kv-cache-mib", n_mib, options->n_kv_bytes, error);
    return context_room_check("--ctx", options->n_context, options->n_kv_bytes, error);
}

int serve_cache_set(const struct serve_settings *settings, const runnel_model *model, uint32_t rank,
                    uint32_t n_workers, runnel_engine_options *options, runnel_error *error)
{
    uint64_t n_mib = (uint64_t)settings->kv_cache_mib, least_mib = find_least_mib(model, options), n_bytes;
    const struct divide_amounts whole = {.n_kv_bytes = n_mib << 20,
                                         .n_kv_bytes_least = settings->has_kv_cache ? 0 : least_mib << 20};
    options->n_kv_bytes = divide_among(&whole, rank, n_workers).n_kv_bytes;
    /* What is wrong with a cache that is not divided, or with other options, the engine says. */
    if (n_workers > 1 && least_mib && runnel_engine_bytes(model, options, &n_bytes, NULL))
        return refuse_part(options, n_mib, n_workers, least_mib, error);
    return check_machine(settings, options, error);
}
