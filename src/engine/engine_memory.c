/* engine_memory.c: what an engine takes of the memory (see engine_memory.h). Owns nothing. */
#include "engine/engine_memory.h"

#include "base/limits.h"
#include "engine/arguments.h"
#include "engine/engine_options.h"

enum { LOGITS_MIN = 8 /* rows of logits: one pass of the head's weights serves as many */ };

int engine_memory_plan(const struct runnel_model *model, const runnel_engine_options *options,
                       struct engine_memory *plan, runnel_error *error)
{
    const struct model_config *config = &model->weights->config;
    *plan = (struct engine_memory){
        .cache =
            {
                .n_sequences = options->n_parallel + 1, /* one for calls */
                .n_positions = options->keep_last ? config->n_context_train : options->n_context,
            },
        .all_layers = {model->backend, config->n_layers},
    };
    int failure = engine_options_pages(options, forward_page_bytes(&plan->all_layers, 1, model->weights),
                                       &plan->cache.n_pages, error);
    if (!failure)
        failure = engine_options_check_window(options, plan->cache.n_positions, plan->cache.n_pages, error);
    if (failure)
        return failure;
    plan->forward = (struct forward_options){
        .parts = &plan->all_layers,
        .n_parts = 1,
        .weights = model->weights,
        .kernels = model->kernels,
        .n_threads = options->n_threads,
        .n_pages = plan->cache.n_pages,
        .n_rows_max = options->n_batch,
        .n_logits_max = options->n_parallel > LOGITS_MIN ? options->n_parallel : LOGITS_MIN,
        .touches_later = options->quick_start,
    };
    return RUNNEL_OK;
}

static unsigned long long mib(uint64_t n_bytes)
{
    return (n_bytes + (1 << 20) - 1) >> 20;
}

int engine_memory_check_room(const struct engine_memory *plan, runnel_error *error)
{
    struct backend_memory wanted;
    uint64_t n_free;
    forward_foresee(&plan->forward, &wanted);
    if (!limits_memory_room(&n_free) || wanted.kv_bytes + wanted.scratch_bytes <= n_free)
        return RUNNEL_OK;
    return error_set(
        error, RUNNEL_ENOMEM,
        "the engine takes %llu MiB, its KV cache %llu MiB of them: expected at most the %llu MiB "
        "that are left of the memory",
        mib(wanted.kv_bytes + wanted.scratch_bytes), mib(wanted.kv_bytes), mib(n_free));
}

int runnel_engine_bytes(const runnel_model *model, const runnel_engine_options *given, uint64_t *n_bytes,
                        runnel_error *error)
{
    runnel_engine_options options;
    struct engine_memory plan;
    struct backend_memory memory;
    int failure =
        arguments_check(__func__, ARGUMENTS(POINTER(model, model), POINTER(n_bytes, n_bytes)), error);
    if (!failure)
        failure = engine_options_read(model, given, &options, error);
    if (!failure)
        failure = engine_memory_plan(model, &options, &plan, error);
    if (failure)
        return failure;
    forward_foresee(&plan.forward, &memory);
    *n_bytes = memory.kv_bytes + memory.scratch_bytes;
    return RUNNEL_OK;
}
