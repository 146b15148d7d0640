/* test_soft_gpu.c: the GPU's back end over a device that is made of the CPU's kernels (soft_gpu.h), so that it runs anywhere: the CPU's
 * logits bit for bit, with recorded steps and without, with as many layers as a small memory has room for; and answers of several
 * requests at once. */
#include "engine/engine.h"
#include "gpu/soft_gpu.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_IDS = 600 /* three attention blocks */, N_LAYERS = 5, N_REQUESTS = 4, N_TOKENS = 60 };

static struct tiny_model_options shape_of(const char *architecture)
{
    struct tiny_model_options options = tiny_engine_model();
    options.architecture = architecture;
    options.n_layers = N_LAYERS;
    options.biases = !strcmp(architecture, "qwen2");
    if (!strcmp(architecture, "gemma3")) {
        options.window = 300;
        options.tied = true;
    }
    return options;
}

static runnel_model *open_on(const char *device, const struct tiny_model_options *options)
{
    runnel_model *model = tiny_engine_open(options);
    free(model->device);
    model->device = strcmp(device, "cpu") ? strdup(device) : NULL;
    return model;
}

struct destination {
    float *logits;
    uint32_t n_vocab;
};

static bool keep(void *user, size_t index, const float *logits)
{
    struct destination *to = user;
    memcpy(to->logits + index * to->n_vocab, logits, to->n_vocab * sizeof *logits);
    return true;
}

/* float [N_IDS, n_vocab], to be freed; *n_device_layers: that the device computed. */
static float *logits_on(const char *device, const struct tiny_model_options *options, size_t n_chunk,
                        uint32_t *n_device_layers, size_t *n_bytes)
{
    runnel_model *model = open_on(device, options);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 1024});
    runnel_model_info info = {.size = sizeof info};
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_error error;
    int32_t ids[N_IDS];
    assert_int_equal(soft_gpu.n_unplayed, 0); /* a sandbox may close now */
    soft_gpu.n_replays = 0;
    runnel_model_get_info(model, &info);
    runnel_stats(engine, &stats);
    *n_device_layers = stats.n_device_layers;
    *n_bytes = (size_t)N_IDS * info.n_vocab * sizeof(float);
    struct destination to = {malloc(*n_bytes), info.n_vocab};
    assert_non_null(to.logits);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
    unsigned n_foreign_writes = soft_gpu.n_foreign_writes;
    if (runnel_logits_each(engine, ids, N_IDS, n_chunk, keep, &to, &error))
        fail_msg("%s", error.message);
    assert_int_equal(soft_gpu.n_foreign_writes, n_foreign_writes); /* those of the start */
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return to.logits;
}

static void expect_same(const struct tiny_model_options *options, size_t n_chunk, const float *expected,
                        uint32_t n_layers)
{
    uint32_t n_device_layers;
    size_t n_bytes;
    float *found = logits_on("gpu", options, n_chunk, &n_device_layers, &n_bytes);
    assert_int_equal(n_device_layers, n_layers);
    assert_memory_equal(found, expected, n_bytes);
    free(found);
}

static void steps_are_the_cpus(void **state)
{
    (void)state;
    static const char *const architectures[] = {"qwen2", "llama", "qwen3", "gemma3"};
    static const size_t chunks[] = {1, 7, 64};
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++) {
        const struct tiny_model_options options = shape_of(architectures[i]);
        uint32_t none;
        size_t n_bytes;
        float *expected = logits_on("cpu", &options, 64, &none, &n_bytes);
        assert_int_equal(none, 0);
        for (int records = 0; records < 2; records++)
            for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
                soft_gpu.records = records;
                expect_same(&options, chunks[k], expected, N_LAYERS);
                if (!records)
                    assert_int_equal(soft_gpu.n_replays, 0);
                else if (chunks[k] <= 8)
                    assert_true(soft_gpu.n_replays >= N_IDS / chunks[k]);
            }
        soft_gpu.records = false;
        free(expected);
    }
}

/* Less and less memory: fewer layers there, the CPU computes the others, and the answer is the same; at last there is room for none. */
static void as_many_layers_as_fit(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    const struct soft_gpu before = soft_gpu;
    uint32_t n_layers, n_least = N_LAYERS;
    size_t n_bytes;
    float *expected = logits_on("cpu", &options, 64, &n_layers, &n_bytes);
    for (uint64_t mib = 64; mib > 0 && n_least > 0; mib -= 1) {
        soft_gpu.memory_bytes = mib << 20;
        runnel_model *model = open_on("gpu", &options);
        runnel_engine_options starting;
        runnel_engine *engine = NULL;
        runnel_error error;
        runnel_engine_options_init(&starting);
        starting.n_context = 1024;
        int failure = runnel_engine_start(model, &starting, &engine, &error);
        runnel_stats_values stats = {.size = sizeof stats};
        if (!failure)
            runnel_stats(engine, &stats);
        runnel_engine_stop(engine);
        runnel_model_close(model);
        if (failure) {
            assert_int_equal(failure, RUNNEL_ENOMEM);
            assert_non_null(
                strstr(error.message, "gpu0 (soft device) has room for 0 of 5 layers, expected 1: 1 take "));
            n_least = 0;
        } else if (stats.n_device_layers < n_least) {
            n_least = stats.n_device_layers;
            expect_same(&options, 64, expected, n_least);
        }
    }
    assert_int_equal(n_least, 0);
    soft_gpu = before;
    free(expected);
}

/* As if there were no device. */
static void expect_no_device(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_error error;
    double gb_s = -1;
    runnel_stats(engine, &stats);
    assert_int_equal(stats.n_device_layers, 0);
    assert_string_equal(stats.device, "");
    assert_int_equal(stats.n_device_bytes, 0);
    assert_int_equal(stats.n_device_bytes_used, 0);
    assert_false(stats.device_is_lost);
    assert_int_equal(runnel_measure_device(engine, &gb_s, &error), RUNNEL_OK);
    assert_true(gb_s == 0);
}

static void what_is_told_must_fit(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    const struct soft_gpu before = soft_gpu;
    runnel_engine *engine = NULL;
    runnel_engine_options starting;
    runnel_error error;
    runnel_model *model = open_on("gpu", &options);
    runnel_engine_options_init(&starting);
    starting.n_context = 1024;
    model->n_device_layers = 4;
    soft_gpu.allocation_max_bytes = 1 << 16;
    assert_int_equal(runnel_engine_start(model, &starting, &engine, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "has room for 0 of 5 layers, expected 4: "));
    assert_non_null(strstr(error.message, "its driver allows 1 MiB"));
    free(model->device);
    model->device = strdup("auto"); /* goes on without */
    model->n_device_layers = 0;
    if (runnel_engine_start(model, &starting, &engine, &error))
        fail_msg("%s", error.message);
    expect_no_device(engine);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    soft_gpu = before;
}

/* Bytes on the device of an engine that computes so many layers there; 0: all. */
static uint64_t bytes_of_layers(runnel_model *model, uint32_t n_layers)
{
    model->n_device_layers = n_layers;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 1024});
    uint64_t n_bytes = soft_gpu.used_bytes;
    runnel_engine_stop(engine);
    model->n_device_layers = 0;
    return n_bytes;
}

/* Others have memory of which the driver does not tell, as OpenCL's do not: an engine finds that out when it takes its own, and goes on with
 * an eighth fewer layers, and again, and in the end, if it may, without; but not with fewer than it was told. */
static void memory_of_which_nobody_told(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    const struct soft_gpu before = soft_gpu;
    uint32_t n_layers;
    size_t n_bytes;
    runnel_engine *engine = NULL;
    runnel_error error;
    const runnel_engine_options starting = {.size = sizeof starting, .n_context = 1024};
    float *expected = logits_on("cpu", &options, 64, &n_layers, &n_bytes);
    runnel_model *model = open_on("gpu", &options);
    uint64_t of_three = bytes_of_layers(model, 3), of_four = bytes_of_layers(model, 4);
    assert_true(of_three < of_four && of_four < bytes_of_layers(model, 0) && soft_gpu.n_foreign_writes > 0);
    soft_gpu.untold_bytes = soft_gpu.memory_bytes - of_four;
    expect_same(&options, 64, expected, 4);
    soft_gpu.untold_bytes = soft_gpu.memory_bytes - (of_three + of_four) / 2;
    expect_same(&options, 64, expected, 3);
    model->n_device_layers = N_LAYERS;
    assert_int_equal(runnel_engine_start(model, &starting, &engine, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "the soft device has not"));
    model->n_device_layers = 0;
    soft_gpu.untold_bytes = soft_gpu.memory_bytes;
    assert_int_equal(runnel_engine_start(model, &starting, &engine, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "the soft device has not"));
    free(model->device);
    model->device = strdup("auto");
    if (runnel_engine_start(model, &starting, &engine, &error))
        fail_msg("%s", error.message);
    expect_no_device(engine);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    soft_gpu = before;
    free(expected);
}

/* What is on a device that has no memory of its own counts as this machine's. */
static void memory_of_an_integrated_device(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    for (int is_integrated = 0; is_integrated < 2; is_integrated++) {
        soft_gpu.is_integrated = is_integrated;
        runnel_model *model = open_on("gpu", &options);
        runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 1024});
        struct backend_memory memory;
        forward_get_memory(engine->forward, &memory);
        assert_int_equal(memory.kv_bytes + memory.shared_bytes,
                         is_integrated ? soft_gpu.used_bytes : memory.kv_bytes);
        assert_int_equal(memory.kv_bytes_on_device, is_integrated ? 0 : memory.kv_bytes);
        assert_true(memory.kv_bytes > 0 && memory.kv_bytes < soft_gpu.used_bytes);
        runnel_engine_stop(engine);
        runnel_model_close(model);
    }
    soft_gpu.is_integrated = false;
}

/* Answers of requests that share steps and the beginnings of their prompts. */
static void answer_all(const char *device, char *texts[N_REQUESTS])
{
    const struct tiny_model_options options = shape_of("qwen2");
    static const char *const prompts[N_REQUESTS] = {
        "a beginning that all of them have, long enough for some pages of it, and the first end",
        "a beginning that all of them have, long enough for some pages of it, and the second",
        "a beginning that all of them have, long enough for some pages of it", "another one"};
    runnel_model *model = open_on(device, &options);
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 512, .n_parallel = N_REQUESTS, .n_kv_tokens = 640});
    runnel_request requests[N_REQUESTS];
    runnel_response responses[N_REQUESTS] = {{.size = sizeof *responses}};
    runnel_error error;
    for (int i = 0; i < N_REQUESTS; i++) {
        runnel_request_init(&requests[i]);
        requests[i].prompt = prompts[i];
        requests[i].max_tokens = N_TOKENS;
        requests[i].ignore_eos = true;
        own_sampling(model, &requests[i])->temperature = 1;
        own_sampling(model, &requests[i])->seed = (uint64_t)i;
    }
    if (runnel_respond_many(engine, requests, N_REQUESTS, responses, &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < N_REQUESTS; i++) {
        texts[i] = strdup(responses[i].text);
        runnel_response_free(&responses[i]);
    }
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

static void answers_are_the_cpus(void **state)
{
    (void)state;
    char *expected[N_REQUESTS], *found[N_REQUESTS];
    answer_all("cpu", expected);
    for (int records = 0; records < 2; records++) {
        soft_gpu.records = records;
        answer_all("gpu", found);
        for (int i = 0; i < N_REQUESTS; i++) {
            assert_string_equal(found[i], expected[i]);
            free(found[i]);
        }
    }
    soft_gpu.records = false;
    assert_string_not_equal(expected[0], expected[1]);
    for (int i = 0; i < N_REQUESTS; i++)
        free(expected[i]);
}

/* Refused, unless whoever opens the model allows it; then it computes. */
static void a_device_that_rounds_otherwise(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    runnel_model *model = open_on("gpu", &options);
    runnel_engine *engine = NULL;
    runnel_engine_options starting;
    runnel_device_list *list;
    runnel_device device = {.size = sizeof device};
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_error error;
    size_t n;
    runnel_engine_options_init(&starting);
    soft_gpu.lacks_fma = true;
    assert_int_equal(runnel_engine_start(model, &starting, &engine, &error), RUNNEL_EUNSUPPORTED);
    assert_non_null(strstr(error.message, "no fused multiply-add; it can be used with gpu_approximate"));
    assert_int_equal(runnel_devices(&list, &n, &error), RUNNEL_OK);
    runnel_devices_get(list, 1, &device);
    assert_non_null(strstr(device.problem, "it can be used with gpu_approximate"));
    assert_null(strstr(device.can, "the CPU's bits"));
    runnel_devices_free(list);
    model->device_approximates = true;
    if (runnel_engine_start(model, &starting, &engine, &error))
        fail_msg("%s", error.message);
    runnel_stats(engine, &stats);
    assert_int_equal(stats.n_device_layers, N_LAYERS);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    soft_gpu.lacks_fma = false;
}

/* One bit is enough, whatever its driver promised. */
static void a_device_whose_bits_are_others(void **state)
{
    (void)state;
    static const char *const operations[] = {
        [SOFT_WRONG_EMBEDDING] = "the embedding has other bits",
        [SOFT_WRONG_NORM] = "a norm has other bits",
        [SOFT_WRONG_PRODUCT] = "a product with weights of type ",
        [SOFT_WRONG_ATTENTION] = "a step of 1 rows has other bits",
    };
    const struct tiny_model_options options = shape_of("qwen2");
    const runnel_engine_options starting = {.size = sizeof starting, .n_context = 256};
    runnel_model *model = open_on("gpu", &options);
    for (int wrong = SOFT_WRONG_EMBEDDING; wrong <= SOFT_WRONG_ATTENTION; wrong++) {
        runnel_engine *engine = NULL;
        runnel_error error;
        soft_gpu.wrong = wrong;
        assert_int_equal(runnel_engine_start(model, &starting, &engine, &error), RUNNEL_EUNSUPPORTED);
        assert_non_null(strstr(error.message, "gpu0 (soft device): its answers would not be the CPU's: "));
        assert_non_null(strstr(error.message, operations[wrong]));
        assert_non_null(strstr(error.message, "it can be used with gpu_approximate"));
        model->device_approximates = true;
        if (runnel_engine_start(model, &starting, &engine, &error))
            fail_msg("%s", error.message);
        runnel_engine_stop(engine);
        model->device_approximates = false;
    }
    soft_gpu.wrong = SOFT_RIGHT;
    runnel_model_close(model);
}

/* "auto" goes on without it, and says why. */
static void a_device_that_does_not_work_is_optional(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    runnel_model *model = open_on("auto", &options);
    runnel_stats_values stats = {.size = sizeof stats};
    soft_gpu.wrong = SOFT_WRONG_NORM;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    runnel_stats(engine, &stats);
    assert_int_equal(stats.n_device_layers, 0);
    assert_string_equal(stats.device, "");
    assert_non_null(strstr(stats.device_problem, "gpu0 (soft device): its answers would not be the CPU's"));
    runnel_engine_stop(engine);
    soft_gpu.wrong = SOFT_RIGHT;
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    runnel_stats(engine, &stats);
    assert_int_equal(stats.n_device_layers, N_LAYERS);
    assert_string_equal(stats.device_problem, "");
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

/* Recordings are there for speed: without room for them all layers are the device's still. */
static void a_device_without_memory_for_recordings(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    uint32_t none;
    size_t n_bytes;
    float *expected = logits_on("cpu", &options, 64, &none, &n_bytes);
    soft_gpu.records = soft_gpu.lacks_record_memory = true;
    expect_same(&options, 1, expected, N_LAYERS);
    assert_int_equal(soft_gpu.n_replays, 0);
    soft_gpu.records = soft_gpu.lacks_record_memory = false;
    free(expected);
}

static void its_memory_is_measured(void **state)
{
    (void)state;
    const struct tiny_model_options options = shape_of("qwen2");
    runnel_model *model = open_on("gpu", &options);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    runnel_error error;
    double gb_s = -1;
    if (runnel_measure_device(engine, &gb_s, &error))
        fail_msg("%s", error.message);
    assert_true(gb_s > 0);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    model = open_on("cpu", &options);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    assert_int_equal(runnel_measure_device(engine, &gb_s, &error), RUNNEL_OK);
    assert_true(gb_s == 0);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_the_cpus),
        cmocka_unit_test(as_many_layers_as_fit),
        cmocka_unit_test(what_is_told_must_fit),
        cmocka_unit_test(answers_are_the_cpus),
        cmocka_unit_test(memory_of_which_nobody_told),
        cmocka_unit_test(memory_of_an_integrated_device),
        cmocka_unit_test(its_memory_is_measured),
        cmocka_unit_test(a_device_that_rounds_otherwise),
        cmocka_unit_test(a_device_whose_bits_are_others),
        cmocka_unit_test(a_device_that_does_not_work_is_optional),
        cmocka_unit_test(a_device_without_memory_for_recordings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
