/* test_mixes_models.c: real files, which llama.cpp wrote, hold the types that the mixes of their names say. */
#include "model/mixes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static int n_compared;

static void compare(const char *file, const char *mix_name)
{
    const char *folder = getenv("RUNNEL_MODELS_DIR");
    char path[512];
    struct gguf *gguf;
    struct mix_model model;
    snprintf(path, sizeof path, "%s/%s", folder ? folder : TEST_DATA "/../../models", file);
    if (access(path, R_OK) != 0)
        return;
    n_compared++;
    assert_int_equal(gguf_open(path, &gguf, NULL), RUNNEL_OK);
    assert_int_equal(mix_model_read(gguf, false, &model, NULL), RUNNEL_OK);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        enum tensor_type expected =
            mix_covers(tensor) ? mix_type_of(mix_find(mix_name), &model, tensor) : TENSOR_F32;
        if (tensor->type != expected)
            fail_msg("%s, %s: expected %s, found %s", file, tensor->name,
                     quant_find((uint32_t)expected)->name, quant_find((uint32_t)tensor->type)->name);
    }
    gguf_close(gguf);
}

static void real_files_hold_these_types(void **state)
{
    (void)state;
    compare("smollm2-135m.gguf", "Q4_1");
    compare("coder-0.5b.gguf", "Q4_K_M");
    compare("coder-1.5b.gguf", "Q4_K_M");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_files_hold_these_types)};
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    return n_failed ? n_failed : n_compared ? 0 : SKIPPED;
}
