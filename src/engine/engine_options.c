/* engine_options.c: the options of an engine, checked and with their defaults. See engine_options.h. */
#include "engine/engine_options.h"

#include "base/versioned.h"
#include "kernels/ops.h"

#include <math.h>
#include <stdio.h>

enum {
    CONTEXT_DEFAULT = 8192,
    BATCH_DEFAULT = 512,
    BATCH_MAX = 8192,
    PARALLEL_MAX = 1024,
    REQUESTS_DEFAULT = 100,
    REQUESTS_MAX = 1 << 16,
};

void runnel_engine_options_init_sized(void *options, size_t size)
{
    const runnel_engine_options defaults = {.size = sizeof defaults, .answer_reserve = -1};
    if (options)
        versioned_init(&defaults, sizeof defaults, options, size);
}

static int check_range(const char *name, uint32_t value, uint32_t min, uint32_t max, runnel_error *error)
{
    if (value >= min && value <= max)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "%s: %u, expected %u to %u", name, value, min, max);
}

static int check_ms(const char *name, double value, runnel_error *error)
{
    if (value >= 0 && isfinite(value))
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "%s: %g, expected 0 or more", name, value);
}

int engine_options_read(const struct runnel_model *model, const runnel_engine_options *given,
                        runnel_engine_options *options, runnel_error *error)
{
    runnel_engine_options_init(options);
    int failure =
        given ? versioned_read("runnel_engine_options", given, options, sizeof *options, error) : RUNNEL_OK;
    if (failure)
        return failure;
    uint32_t n_train = model->weights->config.n_context_train;
    if (!options->n_context)
        options->n_context = n_train < CONTEXT_DEFAULT ? n_train : CONTEXT_DEFAULT;
    if (!options->n_batch)
        options->n_batch = BATCH_DEFAULT;
    if (!options->n_parallel)
        options->n_parallel = 1;
    if (!options->n_requests)
        options->n_requests = REQUESTS_DEFAULT;
    if (!options->n_threads)
        options->n_threads = model->n_threads;
    if (options->keep_first && !options->keep_last)
        failure = error_set(error, RUNNEL_EINVAL,
                            "keep_first: %u without keep_last, expected both: they make a window",
                            options->keep_first);
    if (!failure && options->answer_reserve < -1)
        failure = error_set(error, RUNNEL_EINVAL, "answer_reserve: %d, expected -1 or more",
                            options->answer_reserve);
    if (!failure)
        failure = check_range("n_context", options->n_context, 2, n_train, error);
    if (!failure)
        failure = check_range("n_batch", options->n_batch, 1, BATCH_MAX, error);
    if (!failure)
        failure = check_range("n_parallel", options->n_parallel, 1, PARALLEL_MAX, error);
    if (!failure)
        failure = check_range("n_requests", options->n_requests, 1, REQUESTS_MAX, error);
    if (!failure)
        failure = check_range("n_threads", options->n_threads, 1, MODEL_THREADS_MAX, error);
    if (!failure)
        failure = check_ms("step_budget_ms", (double)options->step_budget_ms, error);
    if (!failure)
        failure = check_ms("batch_window_ms", (double)options->batch_window_ms, error);
    if (!failure)
        failure = check_ms("max_wait_ms", (double)options->max_wait_ms, error);
    if (!failure)
        failure = check_ms("warm_up_prompt_ms", options->warm_up_prompt_ms, error);
    if (!failure)
        failure = check_ms("warm_up_token_ms", options->warm_up_token_ms, error);
    if (options->n_batch < options->n_parallel)
        options->n_batch = options->n_parallel;
    if (options->n_requests < options->n_parallel)
        options->n_requests = options->n_parallel;
    return failure;
}

static uint64_t pages_of(uint64_t n_positions)
{
    return (n_positions + KV_PAGE - 1) / KV_PAGE;
}

/* n_kv_tokens are too few; n_kv_bytes, where they were given, hold n_held tokens. */
static int refuse_kv_tokens(const runnel_engine_options *options, uint64_t n_held, runnel_error *error)
{
    char beside[64] = "", otherwise[64] = "";
    if (options->n_kv_bytes)
        snprintf(beside, sizeof beside, " beside n_kv_bytes, %llu", (unsigned long long)options->n_kv_bytes);
    if (options->n_kv_bytes && n_held >= options->n_context)
        snprintf(otherwise, sizeof otherwise, ", or 0 for the %llu that n_kv_bytes hold",
                 (unsigned long long)n_held);
    return error_set(error, RUNNEL_EINVAL, "n_kv_tokens: %u%s, expected room for n_context, %u%s",
                     options->n_kv_tokens, beside, options->n_context, otherwise);
}

int engine_options_pages(const runnel_engine_options *options, size_t page_bytes, uint32_t *n_pages,
                         runnel_error *error)
{
    uint64_t a_context = pages_of(options->n_context), n = a_context * options->n_parallel;
    if (options->n_kv_tokens)
        n = pages_of(options->n_kv_tokens);
    else if (options->n_kv_bytes)
        n = options->n_kv_bytes / page_bytes;
    if (n < a_context && options->n_kv_tokens)
        return refuse_kv_tokens(options, options->n_kv_bytes / page_bytes * KV_PAGE, error);
    if (n < a_context)
        return error_set(error, RUNNEL_EINVAL,
                         "n_kv_bytes: %llu MiB hold %llu tokens, expected room for n_context, %u (%llu MiB)",
                         (unsigned long long)(options->n_kv_bytes >> 20), (unsigned long long)n * KV_PAGE,
                         options->n_context,
                         (unsigned long long)((a_context * page_bytes + (1 << 20) - 1) >> 20));
    if (n > INT32_MAX)
        return error_set(error, RUNNEL_EINVAL, "KV cache: %llu pages, expected at most %d",
                         (unsigned long long)n, INT32_MAX);
    *n_pages = (uint32_t)n;
    return RUNNEL_OK;
}

/* What would do instead of a window that takes n_wanted pages. */
static int refuse_window(const runnel_engine_options *options, uint64_t n_wanted, uint32_t n_pages,
                         runnel_error *error)
{
    char expected[96] = "room for three pages at least";
    uint64_t n_first = pages_of(options->keep_first);
    if (n_first + 2 <= n_pages)
        snprintf(expected, sizeof expected, "%u and at most %llu", options->keep_first,
                 (unsigned long long)(n_pages - 1 - n_first) * KV_PAGE);
    else if (n_pages > 2)
        snprintf(expected, sizeof expected, "at most %llu and %d",
                 (unsigned long long)(n_pages - 2) * KV_PAGE, KV_PAGE);
    return error_set(
        error, RUNNEL_EINVAL,
        "keep_first and keep_last: %u and %u take %llu pages of %d tokens, each in whole pages and "
        "one more, the KV cache has %u: expected %s",
        options->keep_first, options->keep_last, (unsigned long long)n_wanted, KV_PAGE, n_pages, expected);
}

int engine_options_check_window(const runnel_engine_options *options, uint32_t n_positions, uint32_t n_pages,
                                runnel_error *error)
{
    uint64_t n_wanted = pages_of(options->keep_first) + 1 + pages_of(options->keep_last);
    if (!options->keep_last || n_wanted <= n_pages || pages_of(n_positions) <= n_pages)
        return RUNNEL_OK;
    return refuse_window(options, n_wanted, n_pages, error);
}
