/* test_gpu_backend.c: layers cut into ranges of which some are a GPU's, pages that sequences share, room that is not there, and a
 * device that is lost, under an engine. On a card, or on PoCL's device; skipped where there is neither.
 *
 * gpu_finish and gpu_is_lost are wrapped (the linker's --wrap): the device is lost when a test says so. */
#include "backend/cpu.h"
#include "backend/devices.h"
#include "backend/gpu.h"
#include "backend/gpu_step.h"
#include "engine/engine.h"
#include "gpu/programs.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SKIPPED = 77, N_LAYERS = 5, N_POSITIONS = 300, N_SHARED = 70, N_CHUNK = 37, N_PAGES = 40 };
enum { WIDE_POSITIONS = 65536, WIDE_ROWS = 512, WIDE_LOGITS = 4 };

/* A device that is lost ------------------------------------------------------------------------------------- */

bool __real_gpu_is_lost(const struct gpu *gpu);
bool __wrap_gpu_is_lost(const struct gpu *gpu);
int __real_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error);
int __wrap_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error);

static atomic_bool is_lost;
static atomic_uint n_waits;

bool __wrap_gpu_is_lost(const struct gpu *gpu)
{
    return is_lost || __real_gpu_is_lost(gpu);
}

int __wrap_gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error)
{
    int failure = __real_gpu_finish(gpu, timeout_ms, error);
    n_waits++;
    return is_lost ? error_set(error, RUNNEL_EIO, "the card has fallen out of its slot") : failure;
}

/* Nothing is given back to a driver whose device is lost: it might never return. What the tests of that leave behind is no
 * leak to the address sanitizer, which asks for this. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libpocl";
}

/* Launches -------------------------------------------------------------------------------------------------- */

int __real_gpu_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                      const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error);
int __wrap_gpu_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                      const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error);

static atomic_uint n_launches, widest[GPU_FUNCTIONS] /* in work items of a dimension */;
static atomic_bool
    only_judges; /* launches do not happen; those that are wider than all before them are told */

static uint32_t width_of(enum gpu_function function, const uint32_t n_groups[3])
{
    const uint32_t *n_local = gpu_function_find(function)->n_local;
    uint32_t width = n_groups[2];
    for (int i = 0; i < 2; i++)
        width = n_groups[i] * n_local[i] > width ? n_groups[i] * n_local[i] : width;
    return width;
}

int __wrap_gpu_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                      const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error)
{
    uint32_t width = width_of(function, n_groups);
    n_launches++;
    if (only_judges)
        return width <= widest[function]
                   ? RUNNEL_OK
                   : error_set(error, RUNNEL_EIO, "%s: %u work items, the most before were %u",
                               gpu_function_find(function)->name, width, widest[function]);
    if (width > widest[function])
        widest[function] = width;
    return __real_gpu_launch(gpu, function, n_groups, arguments, n_arguments, error);
}

/* Ranges ---------------------------------------------------------------------------------------------------- */

static struct backend_device *device;

static runnel_model *open_model(uint32_t n_layers)
{
    struct tiny_model_options options = tiny_engine_model();
    options.n_layers = n_layers;
    return tiny_engine_open(&options);
}

/* The logits of three sequences after all positions: the second one shares N_SHARED of the first and goes on otherwise; the third
 * one has its tokens and shares nothing. All of them in steps that they have together. */
static float *logits_of_parts(const runnel_model *model, const struct forward_part *parts, size_t n_parts)
{
    uint32_t n_vocab = model->weights->config.n_vocab, n_kept;
    struct team *team;
    struct kvcache *cache;
    struct forward *forward;
    runnel_error error;
    const struct kvcache_options options = {.n_pages = N_PAGES, .n_sequences = 3, .n_positions = N_POSITIONS};
    assert_int_equal(team_create(2, &team, &error), RUNNEL_OK);
    assert_int_equal(kvcache_create(&options, &cache, &error), RUNNEL_OK);
    const struct forward_options forward_options = {
        .parts = parts,
        .n_parts = n_parts,
        .weights = model->weights,
        .kernels = model->kernels,
        .device = device,
        .team = team,
        .cache = cache,
        .n_pages = N_PAGES,
        .n_positions = N_POSITIONS,
        .n_rows_max = 3 * N_CHUNK,
        .n_logits_max = 3 * N_CHUNK,
    };
    if (forward_create(&forward_options, &forward, &error))
        fail_msg("%s", error.message);
    struct backend_memory memory, foreseen;
    forward_get_memory(forward, &memory);
    forward_foresee(&forward_options, &foreseen);
    assert_int_equal(memory.kv_bytes, N_PAGES * forward_page_bytes(parts, n_parts, model->weights));
    assert_int_equal(memory.kv_bytes, foreseen.kv_bytes);
    assert_int_equal(memory.kv_bytes_on_device, foreseen.kv_bytes_on_device);
    assert_int_equal(memory.shared_bytes, foreseen.shared_bytes);

    float *all = calloc(3 * (size_t)N_POSITIONS * n_vocab, sizeof *all), *logits;
    assert_non_null(all);
    uint32_t positions[3] = {0, N_SHARED, 0};
    int sequences[3];
    int32_t tokens[3][N_CHUNK];
    struct forward_row rows[3 * N_CHUNK];
    for (int s = 0; s < 3; s++)
        sequences[s] = kvcache_open(cache, 0, 0, 0);
    while (positions[0] < N_POSITIONS || positions[1] < N_POSITIONS || positions[2] < N_POSITIONS) {
        uint32_t n_rows = 0, n_of[3];
        if (positions[0] >= N_SHARED && positions[1] == N_SHARED)
            kvcache_share(cache, sequences[0], sequences[1], N_SHARED);
        for (int s = 0; s < 3; s++) {
            uint32_t left = N_POSITIONS - positions[s], n = left < N_CHUNK ? left : N_CHUNK;
            if (s == 1 && positions[0] < N_SHARED) /* what it shares is not there yet */
                n = 0;
            n_of[s] = n;
            for (uint32_t i = 0; i < n; i++) {
                uint32_t position = positions[s] + i;
                tokens[s][i] =
                    (int32_t)((position * 37 + (s > 0 && position >= N_SHARED)) % TINY_MODEL_TOKENS);
                rows[n_rows++] = (struct forward_row){sequences[s], position, tokens[s][i], true};
            }
            if (n)
                assert_int_equal(kvcache_reserve(cache, sequences[s], n), RUNNEL_OK);
        }
        if (forward_begin(forward, rows, n_rows, &n_kept, &error))
            fail_msg("%s", error.message);
        assert_int_equal(n_kept, n_rows);
        forward_begin_logits(forward, 0, n_rows);
        if (forward_wait(forward, &logits, &error))
            fail_msg("%s", error.message);
        for (int s = 0; s < 3; s++) {
            memcpy(all + ((size_t)s * N_POSITIONS + positions[s]) * n_vocab, logits,
                   (size_t)n_of[s] * n_vocab * sizeof *logits);
            logits += (size_t)n_of[s] * n_vocab;
            if (n_of[s])
                kvcache_commit(cache, sequences[s], tokens[s], n_of[s]);
            positions[s] += n_of[s];
        }
    }
    forward_free(forward);
    kvcache_free(cache);
    team_free(team);
    return all;
}

static void wherever_layers_are_cut(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        struct forward_part parts[3];
    } cuts[] = {
        {1, {{&gpu_backend, 5}}},
        {2, {{&gpu_backend, 2}, {&cpu_backend, 5}}},
        {2, {{&cpu_backend, 3}, {&gpu_backend, 5}}},
        {2, {{&gpu_backend, 1}, {&gpu_backend, 5}}},
        {3, {{&cpu_backend, 1}, {&gpu_backend, 4}, {&cpu_backend, 5}}},
    };
    runnel_model *model = open_model(N_LAYERS);
    const struct forward_part on_cpu = {&cpu_backend, N_LAYERS};
    size_t n_vocab = model->weights->config.n_vocab, n_logits = 3 * (size_t)N_POSITIONS * n_vocab;
    float *expected = logits_of_parts(model, &on_cpu, 1);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        float *found = logits_of_parts(model, cuts[i].parts, cuts[i].n);
        for (size_t k = 0; k < n_logits; k++)
            if (memcmp(&found[k], &expected[k], sizeof *found))
                fail_msg("cut %zu, sequence %zu, position %zu, logit %zu: %a, expected %a", i,
                         k / n_vocab / N_POSITIONS, k / n_vocab % N_POSITIONS, k % n_vocab, (double)found[k],
                         (double)expected[k]);
        free(found);
    }
    struct backend_device_state now;
    backend_device_look(device, &now);
    assert_int_equal(now.used_bytes, 0); /* all was given back */
    free(expected);
    runnel_model_close(model);
}

/* Logits of some of the rows that want them, once more after the step, as of forward_begin_logits. */
static void what_a_back_end_gives_and_refuses(void **state)
{
    (void)state;
    runnel_model *model = open_model(2);
    struct backend_options options = {.weights = model->weights,
                                      .kernels = model->kernels,
                                      .device = device,
                                      .end_layer = 2,
                                      .n_pages = 8,
                                      .n_positions = 64,
                                      .n_sequences = 1,
                                      .n_rows_max = 4,
                                      .n_logits_max = 4,
                                      .n_tokens = TINY_MODEL_TOKENS / 2};
    struct backend *backend;
    runnel_error error;
    const uint32_t pages[] = {3, 5, 6};
    struct backend_row row = {.pages = pages, .position = 64, .wants_logits = true};
    struct backend_step step = {.rows = &row, .n_rows = 1};
    if (gpu_backend.open(&options, &backend, &error))
        fail_msg("%s", error.message);
    assert_int_equal(gpu_backend.begin(backend, &step, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "position 64: expected one below 64"));
    row.position = 0;
    step.on_inputs = (void (*)(void *, const struct backend_inputs *))abort;
    assert_int_equal(gpu_backend.begin(backend, &step, &error), RUNNEL_EUNSUPPORTED);
    step.on_inputs = NULL;
    float *logits = NULL, *again = NULL;
    assert_int_equal(gpu_backend.begin(backend, &step, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.wait(backend, &logits, &error), RUNNEL_OK);
    assert_null(logits);
    assert_int_equal(gpu_backend.begin_logits(backend, 0, 1, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.wait(backend, &logits, &error), RUNNEL_OK);
    assert_non_null(logits);
    float first = logits[0];
    logits[0] = 77; /* the caller may */
    assert_int_equal(gpu_backend.begin_logits(backend, 0, 1, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.wait(backend, &again, &error), RUNNEL_OK);
    assert_true(again[0] == first);
    /* Of rows of which the best is enough that comes back, of the tokens that can be drawn, of the others the logits, each at its place. */
    const struct backend_row rows[] = {row, {pages, 1, 3, true}, {pages, 2, 9, true}};
    const struct backend_step longer = {.rows = rows, .n_rows = 3};
    static const bool is_enough[] = {true, false, true};
    int32_t tokens[] = {-2, -2, -2};
    const struct backend_best best = {.n = 3, .is_enough = is_enough, .tokens = tokens};
    uint32_t n_vocab = model->weights->config.n_vocab;
    float *expected = malloc(3 * n_vocab * sizeof *expected);
    assert_non_null(expected);
    assert_int_equal(gpu_backend.begin(backend, &longer, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.begin_logits(backend, 0, 3, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.wait(backend, &logits, &error), RUNNEL_OK);
    memcpy(expected, logits, 3 * n_vocab * sizeof *expected);
    memset(logits, 0, 3 * n_vocab * sizeof *logits);
    assert_int_equal(gpu_backend.begin_best(backend, &best, &error), RUNNEL_OK);
    assert_int_equal(gpu_backend.wait(backend, &again, &error), RUNNEL_OK);
    for (uint32_t i = 0; i < 3; i++) {
        int32_t likeliest = 0;
        for (int32_t k = 1; k < TINY_MODEL_TOKENS / 2; k++)
            likeliest = expected[i * n_vocab + k] > expected[i * n_vocab + likeliest] ? k : likeliest;
        assert_int_equal(tokens[i], is_enough[i] ? likeliest : -2);
        assert_true(is_enough[i] == (again[i * n_vocab] == 0));
    }
    assert_memory_equal(again + n_vocab, expected + n_vocab, n_vocab * sizeof *again);
    free(expected);
    gpu_backend.close(backend);
    runnel_model_close(model);
}

/* Launches of a step of so many rows, at positions one after the other, without its head. */
static unsigned count_launches(uint32_t n_layers, uint32_t n_rows)
{
    enum { ROWS_MAX = 4 };
    runnel_model *model = open_model(n_layers);
    const struct backend_options options = {.weights = model->weights,
                                            .kernels = model->kernels,
                                            .device = device,
                                            .end_layer = n_layers,
                                            .n_pages = 8,
                                            .n_positions = 64,
                                            .n_sequences = 1,
                                            .n_rows_max = ROWS_MAX,
                                            .n_logits_max = ROWS_MAX,
                                            .n_tokens = TINY_MODEL_TOKENS};
    const uint32_t pages[] = {0, 1};
    struct backend_row rows[ROWS_MAX];
    const struct backend_step step = {.rows = rows, .n_rows = n_rows};
    struct backend *backend;
    runnel_error error;
    float *logits;
    for (uint32_t i = 0; i < ROWS_MAX; i++)
        rows[i] = (struct backend_row){.pages = pages, .position = i, .token = 1};
    if (gpu_backend.open(&options, &backend, &error))
        fail_msg("%s", error.message);
    unsigned before = n_launches;
    assert_int_equal(gpu_backend.begin(backend, &step, &error), RUNNEL_OK);
    unsigned n = n_launches - before;
    assert_int_equal(gpu_backend.wait(backend, &logits, &error), RUNNEL_OK);
    gpu_backend.close(backend);
    runnel_model_close(model);
    return n;
}

/* As docs/gpu.md has it: on a card each costs as much as reading some megabytes. */
static void launches_of_a_layer(void **state)
{
    (void)state;
    assert_int_equal(count_launches(3, 1) - count_launches(2, 1), 5);
    assert_int_equal(count_launches(3, 2) - count_launches(2, 2), 10);
    assert_int_equal(count_launches(2, 1), 1 + 2 * 5); /* and the embedding */
}

/* Rows of a sequence, of which the last is at `position`. */
static int judge_step(struct backend *backend, uint32_t n_rows, uint32_t position, runnel_error *error)
{
    static uint32_t pages[WIDE_POSITIONS / KV_PAGE];
    static struct backend_row rows[WIDE_ROWS];
    const struct backend_step step = {.rows = rows, .n_rows = n_rows};
    float *logits;
    for (uint32_t i = 0; i < sizeof pages / sizeof *pages; i++)
        pages[i] = i;
    for (uint32_t i = 0; i < n_rows; i++)
        rows[i] = (struct backend_row){.pages = pages, .position = position - (n_rows - 1 - i), .token = 1};
    int failure = gpu_backend.begin(backend, &step, error);
    if (!failure)
        failure = gpu_backend.begin_logits(backend, 0, n_rows < WIDE_LOGITS ? n_rows : WIDE_LOGITS, error);
    return failure ? failure : gpu_backend.wait(backend, &logits, error);
}

/* PoCL opens a file, which a server's sandbox forbids, for a launch that is wider than all before it. */
static void what_opens_has_launched_the_widest(void **state)
{
    static const uint32_t ns_rows[] = {1, 2, 3, 8, 9, 33, 450, 455, WIDE_ROWS - 1, WIDE_ROWS};
    (void)state;
    runnel_model *model = open_model(2);
    const struct backend_options options = {.weights = model->weights,
                                            .kernels = model->kernels,
                                            .device = device,
                                            .end_layer = 2,
                                            .n_pages = WIDE_POSITIONS / KV_PAGE,
                                            .n_positions = WIDE_POSITIONS,
                                            .n_sequences = 1,
                                            .n_rows_max = WIDE_ROWS,
                                            .n_logits_max = WIDE_LOGITS,
                                            .n_tokens = TINY_MODEL_TOKENS};
    struct backend *backend;
    runnel_error error;
    for (int i = 0; i < GPU_FUNCTIONS; i++)
        widest[i] = 0;
    if (gpu_backend.open(&options, &backend, &error))
        fail_msg("%s", error.message);
    only_judges = true;
    for (size_t i = 0; i < sizeof ns_rows / sizeof *ns_rows; i++)
        for (uint32_t n_blocks = 1; n_blocks <= WIDE_POSITIONS / ATTN_BLOCK; n_blocks++)
            if (n_blocks * ATTN_BLOCK >= ns_rows[i] &&
                judge_step(backend, ns_rows[i], n_blocks * ATTN_BLOCK - 1, &error)) {
                only_judges = false;
                fail_msg("%u rows, %u blocks: %s", ns_rows[i], n_blocks, error.message);
            }
    only_judges = false;
    gpu_backend.close(backend);
    runnel_model_close(model);
}

/* Room ------------------------------------------------------------------------------------------------------ */

static void room_is_looked_for(void **state)
{
    (void)state;
    runnel_model *model = open_model(N_LAYERS);
    struct backend_options options = {.weights = model->weights,
                                      .kernels = model->kernels,
                                      .device = device,
                                      .end_layer = N_LAYERS,
                                      .n_pages = 8,
                                      .n_positions = 64,
                                      .n_sequences = 1,
                                      .n_rows_max = 4,
                                      .n_logits_max = 4};
    struct backend_room room;
    gpu_backend.find_room(&options, &room);
    assert_int_equal(room.n_layers, N_LAYERS);
    uint64_t free_bytes = backend_device_free_bytes(device),
             largest_bytes = gpu_get_info(backend_device_gpu(device))->allocation_max_bytes;
    size_t layer_bytes = gpu_backend.page_bytes(model->weights, 0, 1);
    /* Keys and values for which three and a half layers have room, or four and a half, if a buffer may be so large; one layer's are one. */
    for (uint32_t n_layers = 3; n_layers <= 4; n_layers++) {
        uint64_t kv_bytes = free_bytes * 2 / (2 * n_layers + 1);
        options.n_pages = (uint32_t)(kv_bytes / layer_bytes);
        gpu_backend.find_room(&options, &room);
        bool is_allowed = options.n_pages * layer_bytes <= largest_bytes;
        assert_int_equal(room.n_layers, is_allowed ? n_layers : 0);
        assert_non_null(strstr(room.why_no_more, is_allowed ? "are free" : "its driver allows"));
    }
    options.n_pages = (uint32_t)(free_bytes * 2 / layer_bytes);
    gpu_backend.find_room(&options, &room);
    assert_int_equal(room.n_layers, 0);
    /* A card gives memory in pieces of 2 MiB: what keys and values of a layer leave of one is counted. */
    options.n_pages = (uint32_t)((3 << 19) / layer_bytes);
    const struct gpu_back_need need = gpu_back_count(&options);
    uint64_t left_bytes = (2 << 20) - options.n_pages * layer_bytes;
    assert_true(left_bytes >= 1 << 19 && need.taken_bytes - need.n_bytes >= N_LAYERS * left_bytes);
    runnel_model_close(model);
}

static int start_on(const char *name, uint32_t n_layers, uint32_t n_kv_tokens, runnel_model **model,
                    runnel_engine **engine, runnel_error *error)
{
    runnel_engine_options options;
    *model = open_model(N_LAYERS);
    free((*model)->device); /* of RUNNEL_DEVICE, if that is set */
    (*model)->device = strdup(name);
    (*model)->n_device_layers = n_layers;
    runnel_engine_options_init(&options);
    options.n_context = 256;
    options.n_parallel = 2;
    options.n_kv_tokens = n_kv_tokens;
    return runnel_engine_start(*model, &options, engine, error);
}

/* More pages than any device has room for: told at the start, in words. */
static void no_room_is_an_error_at_the_start(void **state)
{
    (void)state;
    runnel_model *model;
    runnel_engine *engine = NULL;
    runnel_error error;
    uint64_t page_bytes = 0, free_bytes = backend_device_free_bytes(device);
    model = open_model(N_LAYERS);
    page_bytes = gpu_backend.page_bytes(model->weights, 0, 1);
    runnel_model_close(model);
    uint64_t n_tokens = free_bytes * 2 / page_bytes * KV_PAGE;
    if (n_tokens > INT32_MAX)
        n_tokens = INT32_MAX; /* a card with so much memory has no other limit here */
    assert_int_equal(start_on("gpu", 0, (uint32_t)n_tokens, &model, &engine, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "has room for 0 of 5 layers, expected 1: "));
    assert_null(engine);
    runnel_model_close(model);
}

/* Loss ------------------------------------------------------------------------------------------------------ */

static runnel_request short_request(void)
{
    static const int32_t ids[] = {5, 6, 7};
    runnel_request request;
    runnel_request_init(&request);
    request.prompt_ids = ids;
    request.n_prompt_ids = 3;
    request.max_tokens = 5;
    request.ignore_eos = true;
    return request;
}

static runnel_stats_values stats_of(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    return stats;
}

static void an_engine_says_what_it_computes_on(void **state)
{
    (void)state;
    runnel_model *model;
    runnel_engine *engine;
    runnel_error error;
    if (start_on("gpu", 2, 0, &model, &engine, &error))
        fail_msg("%s", error.message);
    runnel_stats_values stats = stats_of(engine);
    assert_int_equal(stats.n_device_layers, 2);
    assert_non_null(strstr(stats.device, "gpu"));
    assert_true(stats.n_device_bytes_used > 0 && stats.n_device_bytes_used < stats.n_device_bytes);
    assert_false(stats.device_is_lost);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

/* The step fails, and what waits, in the words of the device; nothing hangs; the engine stops. */
static void a_lost_device_fails_steps(void **state)
{
    (void)state;
    for (uint32_t n_layers = 2; n_layers <= N_LAYERS; n_layers += 3) {
        runnel_model *model;
        runnel_engine *engine;
        runnel_error error;
        runnel_response response = {.size = sizeof response};
        const runnel_request request = short_request();
        if (start_on("gpu", n_layers, 0, &model, &engine, &error))
            fail_msg("%s", error.message);
        if (runnel_respond(engine, &request, &response, &error))
            fail_msg("%s", error.message);
        runnel_response_free(&response);
        is_lost = true;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(runnel_respond(engine, &request, &response, &error), RUNNEL_EIO);
            assert_string_equal(error.message, "the card has fallen out of its slot");
        }
        tiny_engine_wait_until_idle(engine);
        assert_true(stats_of(engine).device_is_lost);
        runnel_engine_stop(engine);
        is_lost = false;
        runnel_model_close(model);
    }
}

/* A device that is lost while an engine starts: the start fails. */
static void lost_at_the_start(void **state)
{
    (void)state;
    runnel_model *model;
    runnel_engine *engine = NULL;
    runnel_error error;
    is_lost = true;
    assert_int_equal(start_on("gpu", 0, 0, &model, &engine, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "the card has fallen out of its slot"));
    is_lost = false;
    assert_null(engine);
    runnel_model_close(model);
}

static void unknown_devices_are_told(void **state)
{
    (void)state;
    runnel_model *model;
    runnel_engine *engine = NULL;
    runnel_error error;
    assert_int_equal(start_on("gpu99", 0, 0, &model, &engine, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "device gpu99: expected cpu, gpu, auto or one of gpu0 ("));
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wherever_layers_are_cut),
        cmocka_unit_test(what_a_back_end_gives_and_refuses),
        cmocka_unit_test(launches_of_a_layer),
        cmocka_unit_test(what_opens_has_launched_the_widest),
        cmocka_unit_test(room_is_looked_for),
        cmocka_unit_test(no_room_is_an_error_at_the_start),
        cmocka_unit_test(an_engine_says_what_it_computes_on),
        cmocka_unit_test(a_lost_device_fails_steps),
        cmocka_unit_test(lost_at_the_start),
        cmocka_unit_test(unknown_devices_are_told),
    };
    runnel_error error;
    if (backend_device_open("gpu", false, &device, &error)) {
        printf("skipped: %s\n", error.message);
        return SKIPPED;
    }
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_device_close(device);
    return n_failed;
}
