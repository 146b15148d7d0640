/* test_inputs.c: who asks for the inputs of products gets those of every matrix, token by token, the same bits on any number of
 * threads and in steps of any size. What they are is compared in tests/cli/test_imatrix.py. On tiny models. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_IDS = 70, N_MATRICES_MAX = 32, N_LAYERS = 2 };

/* What was told of one matrix. */
struct told {
    char name[48];
    size_t n_tokens, n_values;
    uint64_t hash; /* FNV-1a of the values */
};

struct journal {
    struct told told[N_MATRICES_MAX];
    size_t n;
    size_t n_calls, ends_at; /* ends_at 0: never */
    bool out_of_order;
};

static struct told *told_of(struct journal *journal, const char *name)
{
    for (size_t i = 0; i < journal->n; i++)
        if (!strcmp(journal->told[i].name, name))
            return &journal->told[i];
    assert_true(journal->n < N_MATRICES_MAX);
    struct told *told = &journal->told[journal->n++];
    snprintf(told->name, sizeof told->name, "%s", name);
    told->hash = 0xcbf29ce484222325u;
    return told;
}

static bool note(void *user, const runnel_inputs *inputs)
{
    struct journal *journal = user;
    assert_int_equal(inputs->size, sizeof *inputs);
    for (size_t i = 0; i < inputs->n_matrices; i++) {
        struct told *told = told_of(journal, inputs->matrices[i]);
        journal->out_of_order = journal->out_of_order || inputs->index != told->n_tokens;
        told->n_tokens++;
        told->n_values = inputs->n_values;
        const unsigned char *bytes = (const unsigned char *)inputs->values;
        for (size_t j = 0; j < inputs->n_values * sizeof(float); j++)
            told->hash = (told->hash ^ bytes[j]) * 0x100000001b3u;
    }
    return ++journal->n_calls != journal->ends_at;
}

static void fill_ids(int32_t ids[N_IDS])
{
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
}

static runnel_model *open_model(int n_threads, bool tied)
{
    char path[] = "/tmp/runnel-inputs-XXXXXX";
    struct tiny_model_options options = tiny_engine_model();
    runnel_model_options model_options;
    runnel_error error;
    runnel_model *model = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    options.tied = tied;
    runnel_model_options_init(&model_options);
    model_options.n_threads = n_threads;
    if (tiny_model_write(&options, path, &error) || runnel_model_open(path, &model_options, &model, &error))
        fail_msg("%s", error.message);
    unlink(path);
    return model;
}

static struct journal tell(int n_threads, size_t n_chunk, bool tied)
{
    struct journal journal = {.n = 0};
    int32_t ids[N_IDS];
    runnel_error error;
    runnel_model *model = open_model(n_threads, tied);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    fill_ids(ids);
    if (runnel_inputs_each(engine, ids, N_IDS, n_chunk, note, &journal, &error))
        fail_msg("%s", error.message);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return journal;
}

static void every_matrix_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n_values;
    } expected[] = {{"attn_q", 256},   {"attn_k", 256}, {"attn_v", 256},  {"attn_output", 256},
                    {"ffn_gate", 256}, {"ffn_up", 256}, {"ffn_down", 512}};
    for (int tied = 0; tied < 2; tied++) {
        struct journal journal = tell(2, 0, tied);
        assert_int_equal(journal.n, N_LAYERS * 7 + 1);
        assert_false(journal.out_of_order);
        for (size_t i = 0; i < journal.n; i++) {
            char name[48];
            if (i < N_LAYERS * 7)
                snprintf(name, sizeof name, "blk.%zu.%s.weight", i / 7, expected[i % 7].name);
            else
                snprintf(name, sizeof name, "%s", tied ? "token_embd.weight" : "output.weight");
            assert_string_equal(journal.told[i].name, name);
            assert_int_equal(journal.told[i].n_tokens, N_IDS);
            assert_int_equal(journal.told[i].n_values, i < N_LAYERS * 7 ? expected[i % 7].n_values : 256);
        }
        /* What shares its inputs has the same, all others differ. */
        assert_true(journal.told[0].hash == journal.told[2].hash);
        assert_true(journal.told[4].hash == journal.told[5].hash);
        assert_true(journal.told[0].hash != journal.told[3].hash &&
                    journal.told[3].hash != journal.told[4].hash);
        assert_true(journal.told[0].hash != journal.told[7].hash);
    }
}

static void threads_and_steps_change_no_bit(void **state)
{
    (void)state;
    const struct journal expected = tell(1, 64, false);
    static const size_t chunks[] = {1, 3, 4, 5, 37, 0};
    for (int n_threads = 1; n_threads <= 4; n_threads += n_threads)
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            struct journal journal = tell(n_threads, chunks[i], false);
            assert_false(journal.out_of_order);
            assert_int_equal(journal.n, expected.n);
            for (size_t j = 0; j < expected.n; j++)
                if (journal.told[j].hash != expected.told[j].hash)
                    fail_msg("%s: other bits on %d threads in steps of %zu", expected.told[j].name, n_threads,
                             chunks[i]);
        }
}

struct copy {
    float *logits; /* [N_IDS, n_vocab] */
    size_t n_vocab;
};

static bool copy_logits(void *user, size_t index, const float *logits)
{
    struct copy *copy = user;
    memcpy(copy->logits + index * copy->n_vocab, logits, copy->n_vocab * sizeof *logits);
    return true;
}

/* Whoever listens changes nothing, and is not told once it is over, however that came. */
static void listening_changes_nothing(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    runnel_error error;
    runnel_model *model = open_model(2, false);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    struct copy before = {malloc(N_IDS * info.n_vocab * sizeof(float)), info.n_vocab},
                after = {malloc(N_IDS * info.n_vocab * sizeof(float)), info.n_vocab};
    fill_ids(ids);
    assert_int_equal(runnel_logits_each(engine, ids, N_IDS, 0, copy_logits, &before, &error), RUNNEL_OK);
    struct journal journal = {.ends_at = 5};
    assert_int_equal(runnel_inputs_each(engine, ids, N_IDS, 16, note, &journal, &error), RUNNEL_ECANCELLED);
    assert_string_equal(error.message, "ended by the caller");
    assert_int_equal(journal.n_calls, 5);
    assert_int_equal(runnel_logits_each(engine, ids, N_IDS, 0, copy_logits, &after, &error), RUNNEL_OK);
    assert_int_equal(journal.n_calls, 5);
    assert_memory_equal(before.logits, after.logits, N_IDS * info.n_vocab * sizeof(float));
    free(before.logits);
    free(after.logits);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

static bool call_again(void *user, const runnel_inputs *inputs)
{
    (void)inputs;
    runnel_error error;
    const int32_t id = 1;
    struct journal journal = {.n = 0};
    int result = runnel_inputs_each(user, &id, 1, 0, note, &journal, &error);
    assert_int_equal(result, RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "on_inputs"));
    return false;
}

static void calls_that_would_hang_are_refused(void **state)
{
    (void)state;
    const int32_t id = 1;
    runnel_model *model = open_model(1, false);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256});
    assert_int_equal(runnel_inputs_each(engine, &id, 1, 0, call_again, engine, NULL), RUNNEL_ECANCELLED);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_matrix_is_told),
        cmocka_unit_test(threads_and_steps_change_no_bit),
        cmocka_unit_test(listening_changes_nothing),
        cmocka_unit_test(calls_that_would_hang_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
