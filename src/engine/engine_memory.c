/* engine_memory.c: what an engine takes of the memory (see engine_memory.h). Owns nothing. */
#include "engine/engine_memory.h"

#include "backend/devices.h"
#include "backend/gpu.h"
#include "base/limits.h"
#include "engine/arguments.h"
#include "engine/engine_options.h"

enum { LOGITS_MIN = 8 /* rows of logits: one pass of the head's weights serves as many */ };

/* Rows of logits: of everybody who decodes, and of what is guessed. */
static uint32_t count_logits(const runnel_engine_options *options)
{
    uint32_t n = options->n_parallel + (options->no_drafts ? 0 : DRAFT_MAX);
    return n > LOGITS_MIN ? n : LOGITS_MIN;
}

/* That can be drawn; of the head's rows those without a token cannot. */
static uint32_t count_tokens(const struct runnel_model *model)
{
    size_t n_tokens = tokenizer_n_tokens(model->tokenizer);
    return n_tokens < model->weights->config.n_vocab ? (uint32_t)n_tokens : model->weights->config.n_vocab;
}

static void add_part(struct engine_memory *plan, const struct backend_kind *kind, uint32_t end_layer)
{
    plan->parts[plan->forward.n_parts++] = (struct forward_part){kind, end_layer};
}

/* Layers that the device must have room for, if nobody said how many it is to compute. */
static uint32_t least_layers(const struct runnel_model *model)
{
    return backend_device_is_optional(model->device) ? 0 : 1;
}

/* How many layers, from the first one on, go to the device: as many as are wanted and have room. */
static int count_device_layers(const struct runnel_model *model, const struct engine_memory *plan,
                               uint32_t *n, runnel_error *error)
{
    uint32_t n_layers = model->weights->config.n_layers, n_told = model->n_device_layers;
    const struct backend_options options = forward_backend_options(&plan->forward, 0, n_layers);
    struct backend_room room;
    gpu_backend.find_room(&options, &room);
    uint32_t n_wanted = n_told && n_told < n_layers ? n_told : n_layers;
    uint32_t n_least = n_told ? n_wanted : least_layers(model);
    if (room.n_layers < n_least)
        return error_set(error, RUNNEL_ENOMEM, "%s has room for %u of %u layers, expected %u: %s",
                         backend_device_name(options.device), room.n_layers, n_layers, n_least,
                         room.why_no_more);
    *n = room.n_layers < n_wanted ? room.n_layers : n_wanted;
    return RUNNEL_OK;
}

/* The first n layers are the device's, the rest the CPU's. A device with none has no part in it. */
static void divide_layers(const struct runnel_model *model, struct engine_memory *plan, uint32_t n)
{
    uint32_t n_layers = model->weights->config.n_layers;
    plan->n_device_layers = n;
    plan->forward.n_parts = 0;
    if (n)
        add_part(plan, &gpu_backend, n);
    else
        plan->forward.device = NULL;
    if (n < n_layers)
        add_part(plan, model->backend, n_layers);
}

bool engine_memory_take_fewer(const struct runnel_model *model, struct engine_memory *plan)
{
    uint32_t n = plan->n_device_layers, n_fewer = n - (n + 7) / 8;
    if (!n || model->n_device_layers || n_fewer < least_layers(model))
        return false;
    divide_layers(model, plan, n_fewer);
    return true;
}

int engine_memory_plan(const struct runnel_model *model, const runnel_engine_options *options,
                       struct backend_device *device, struct engine_memory *plan, runnel_error *error)
{
    const struct model_config *config = &model->weights->config;
    const struct forward_part on_cpu = {model->backend, config->n_layers}; /* a page is as large anywhere */
    *plan = (struct engine_memory){
        .cache =
            {
                .n_sequences = options->n_parallel + 1, /* one for calls */
                .n_positions = options->keep_last ? config->n_context_train : options->n_context,
            },
    };
    int failure = engine_options_pages(options, forward_page_bytes(&on_cpu, 1, model->weights),
                                       &plan->cache.n_pages, error);
    if (!failure)
        failure = engine_options_check_window(options, plan->cache.n_positions, plan->cache.n_pages, error);
    if (failure)
        return failure;
    plan->forward = (struct forward_options){
        .parts = plan->parts,
        .weights = model->weights,
        .kernels = model->kernels,
        .device = device,
        .n_threads = options->n_threads,
        .n_pages = plan->cache.n_pages,
        .n_positions = plan->cache.n_positions,
        .n_sequences = plan->cache.n_sequences,
        .n_rows_max = options->n_batch,
        .n_logits_max = count_logits(options),
        .n_tokens = count_tokens(model),
        .touches_later = options->quick_start,
    };
    plan->drafts = (struct drafts_options){plan->cache.n_sequences, plan->cache.n_positions};
    plan->draft_bytes = options->no_drafts ? 0 : drafts_bytes(&plan->drafts);
    uint32_t n_device_layers = 0;
    if (device)
        failure = count_device_layers(model, plan, &n_device_layers, error);
    if (!failure)
        divide_layers(model, plan, n_device_layers);
    return failure;
}

/* All of it; *kv_bytes: of these the KV cache's; *shared_bytes: what a device has of it besides. */
static uint64_t count_bytes(const struct engine_memory *plan, uint64_t *kv_bytes, uint64_t *shared_bytes)
{
    struct backend_memory wanted;
    forward_foresee(&plan->forward, &wanted);
    *kv_bytes = wanted.kv_bytes - wanted.kv_bytes_on_device;
    *shared_bytes = wanted.shared_bytes;
    return *kv_bytes + wanted.shared_bytes + wanted.scratch_bytes + plan->draft_bytes;
}

int engine_memory_check_room(const struct runnel_model *model, struct engine_memory *plan,
                             runnel_error *error)
{
    uint64_t n_free, kv_bytes, shared_bytes, n_bytes = count_bytes(plan, &kv_bytes, &shared_bytes);
    if (!limits_memory_room(&n_free))
        return RUNNEL_OK;
    while (n_bytes > n_free && shared_bytes && engine_memory_take_fewer(model, plan))
        n_bytes = count_bytes(plan, &kv_bytes, &shared_bytes);
    if (n_bytes <= n_free)
        return RUNNEL_OK;
    return error_set(
        error, RUNNEL_ENOMEM,
        "the engine takes %llu MiB, its KV cache %llu MiB of them: expected at most the %llu MiB "
        "that are left of the memory",
        error_mib(n_bytes), error_mib(kv_bytes), error_mib(n_free));
}

int runnel_engine_bytes(const runnel_model *model, const runnel_engine_options *given, uint64_t *n_bytes,
                        runnel_error *error)
{
    runnel_engine_options options;
    struct engine_memory plan;
    uint64_t kv_bytes, shared_bytes;
    int failure =
        arguments_check(__func__, ARGUMENTS(POINTER(model, model), POINTER(n_bytes, n_bytes)), error);
    if (!failure)
        failure = engine_options_read(model, given, &options, error);
    if (!failure)
        failure = engine_memory_plan(model, &options, NULL, &plan, error);
    if (failure)
        return failure;
    *n_bytes = count_bytes(&plan, &kv_bytes, &shared_bytes);
    return RUNNEL_OK;
}
