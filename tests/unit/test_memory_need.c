/* test_memory_need.c: what `runnel list` says that a model needs, beside what the back end for CPUs takes for such a model. */
#include "backend/cpu.h"
#include "cli/memory_need.h"
#include "helpers/tiny_model.h"
#include "kernels/team.h"
#include "model/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TOKENS = 1024 };

static char path[] = "/tmp/runnel-need-XXXXXX";

static void write_model(const struct tiny_model_options *options)
{
    runnel_error error;
    if (tiny_model_write(options, path, &error))
        fail_msg("%s", error.message);
}

/* Loads the model and opens the back end as `serve` does with this context. */
static void measure(struct memory_shape *shape, struct backend_memory *memory)
{
    struct gguf *gguf;
    struct team *team = NULL;
    struct weights *weights = NULL;
    struct backend *backend = NULL;
    runnel_error error;
    char message[256];
    if (gguf_open(path, &gguf, &error) || team_create(2, &team, &error) ||
        weights_load(gguf, team, NULL, NULL, &weights, &error))
        fail_msg("%s", error.message);
    const struct model_config *config = &weights->config;
    *shape = (struct memory_shape){config->n_layers,   config->n_hidden, config->n_ffn,  config->n_heads,
                                   config->n_kv_heads, config->head_dim, config->n_vocab};
    const struct backend_options options = {
        .weights = weights,
        .kernels = kernels_get(message, sizeof message),
        .team = team,
        .end_layer = config->n_layers,
        .n_pages = N_TOKENS / KV_PAGE,
        .n_rows_max = MEMORY_NEED_BATCH,
        .n_logits_max = MEMORY_NEED_PARALLEL,
    };
    if (cpu_backend.open(&options, &backend, &error))
        fail_msg("%s", error.message);
    cpu_backend.get_memory(backend, memory);
    cpu_backend.close(backend);
    weights_free(weights);
    team_free(team);
    gguf_close(gguf);
}

/* Between what is taken and a quarter more. */
static void assert_covers(uint64_t said, uint64_t taken, const char *what)
{
    if (said < taken || said > taken + taken / 4)
        fail_msg("%s: %llu bytes are taken, %llu are said", what, (unsigned long long)taken,
                 (unsigned long long)said);
}

static void formulas_cover_what_is_taken(void **state)
{
    (void)state;
    struct tiny_model_options options;
    for (int i = 0; i < 3; i++) {
        struct memory_shape shape;
        struct backend_memory memory;
        tiny_model_defaults(&options);
        if (i == 1) { /* many heads, a wide feed-forward layer, many tokens */
            options.n_hidden = 512;
            options.n_heads = 16;
            options.n_kv_heads = 4;
            options.n_ffn = 2048;
            options.n_vocab = 20000;
        } else if (i == 2) { /* heads wider than the hidden state, one type of blocks */
            options.head_dim = 128;
            options.n_layers = 5;
            tiny_model_set_types(&options, TENSOR_Q8_0);
        }
        write_model(&options);
        measure(&shape, &memory);
        assert_covers(memory_need_cache(&shape, N_TOKENS), memory.kv_bytes, "cache");
        assert_covers(memory_need_scratch(&shape, MEMORY_NEED_BATCH, MEMORY_NEED_PARALLEL),
                      memory.scratch_bytes, "scratch");
    }
}

static void it_is_the_sum(void **state)
{
    (void)state;
    const struct memory_shape shape = {28, 1536, 8960, 12, 2, 128, 151936};
    uint64_t all = memory_need(&shape, 1000000000), cache = memory_need_cache(&shape, MEMORY_NEED_CONTEXT),
             scratch = memory_need_scratch(&shape, MEMORY_NEED_BATCH, MEMORY_NEED_PARALLEL);
    assert_int_equal(cache, (uint64_t)8192 * 28 * 2 * (4 * 128 + 8));
    assert_true(all > 1000000000 + cache + scratch);
    assert_int_equal(all - memory_need(&shape, 0), 1000000000);
}

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas_cover_what_is_taken),
        cmocka_unit_test(it_is_the_sum),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
