/* test_gpu_approximate.c: what a device computes that need not give the CPU's bits (gpu_approximate). Products of floats are as near to the
 * sums as those of the CPU, types that are multiplied in whole numbers are bit for bit the CPU's all the same, and models pass the gate: from
 * the model in doubles they are no further away than what the CPU computes. On a card, or on PoCL's device; skipped without either. */
#include "device_check.h"
#include "helpers/dense_model.h"
#include "helpers/random_matrix.h"
#include "helpers/tiny_engine.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>
#include <unistd.h>

/* Products -------------------------------------------------------------------------------------------------- */

enum { ACTS_MAX = 11 };

/* A matrix, its inputs, and what comes of them. */
struct tried {
    struct matrix m;
    uint8_t *acts; /* [n_acts] */
    size_t act_bytes;
    float *bias, *old, *found, *of_cpu;
    uint32_t n_acts;
    bool adds;
};

static void compute_on_both(struct tried *t, enum tensor_type type)
{
    const struct packed_matrix *packed = &t->m.packed;
    enum act_kind kind = act_kind_of(packed->kind);
    size_t n_out = (size_t)t->n_acts * packed->n_rows;
    struct gpu_product product = {
        .n_acts = t->n_acts, .n_columns = packed->n_columns, .n_matrices = 1, .add = t->adds};
    struct matmul_args args = {.w = packed,
                               .acts = t->acts,
                               .act_stride = t->act_bytes,
                               .n_acts = t->n_acts,
                               .out = t->of_cpu,
                               .out_stride = packed->n_rows,
                               .bias = t->bias,
                               .add = t->adds};
    product.acts.of[kind] = upload(t->acts, t->n_acts * t->act_bytes);
    product.matrices[0] = (struct gpu_matrix){
        upload(packed->data, packed->n_tiles * packed->tile_bytes), type, packed->n_rows,
        upload(t->bias, packed->n_rows * sizeof(float)), upload(t->old, n_out * sizeof(float))};
    MUST(gpu_multiply(test_gpu, &product, &test_error));
    download(product.matrices[0].out, t->found, n_out * sizeof(float));
    memcpy(t->of_cpu, t->old, n_out * sizeof(float));
    tables[0].matmul[packed->kind](&args, 0, packed->n_tiles);
    release(&product.acts.of[kind]);
    release(&product.matrices[0].tiles);
    release(&product.matrices[0].bias);
    release(&product.matrices[0].out);
}

static struct tried make_tried(enum tensor_type type, uint32_t n_rows, uint32_t n_columns, uint32_t n_acts)
{
    struct tried t = {
        .m = make_matrix(type, n_rows, n_columns, FILL_RANDOM), .n_acts = n_acts, .adds = random_below(2)};
    enum act_kind kind = act_kind_of(t.m.packed.kind);
    size_t n_out = (size_t)n_acts * n_rows;
    float *x = malloc(n_columns * sizeof *x);
    t.act_bytes = act_row_bytes(kind, n_columns);
    t.acts = allocate(n_acts * t.act_bytes);
    t.bias = malloc(n_rows * sizeof *t.bias);
    t.old = malloc(n_out * sizeof *t.old);
    t.found = malloc(n_out * sizeof *t.found);
    t.of_cpu = malloc(n_out * sizeof *t.of_cpu);
    assert_true(x && t.bias && t.old && t.found && t.of_cpu);
    for (uint32_t i = 0; i < n_acts; i++) {
        random_floats(x, n_columns);
        tables[0].quantize[kind](x, n_columns, t.acts + i * t.act_bytes);
    }
    random_floats(t.bias, n_rows);
    random_floats(t.old, n_out);
    free(x);
    return t;
}

static void free_tried(struct tried *t)
{
    free_matrix(&t->m);
    free(t->acts);
    free(t->bias);
    free(t->old);
    free(t->found);
    free(t->of_cpu);
}

/* Output (act, row) in doubles; *magnitude: the sum of the magnitudes of what is added. */
static double sum_exactly(const struct tried *t, uint32_t act, uint32_t row, double *magnitude)
{
    uint32_t n = t->m.packed.n_columns;
    const float *x = (const float *)(const void *)(t->acts + act * t->act_bytes);
    float *w = malloc(n * sizeof *w);
    double sum = (double)t->bias[row];
    assert_non_null(w);
    if (t->adds)
        sum += (double)t->old[(size_t)act * t->m.packed.n_rows + row];
    *magnitude = fabs(sum);
    pack_row_f32(&t->m.packed, row, w);
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)w[i] * (double)x[i];
        *magnitude += fabs((double)w[i] * (double)x[i]);
    }
    free(w);
    return sum;
}

/* Floats: within 1e-5 of what is added, and in another order than the CPU's. */
static void floats_are_near(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16};
    uint32_t n_others = 0;
    for (int k = 0; k < 3; k++)
        for (uint32_t n_acts = 1; n_acts <= ACTS_MAX; n_acts += n_acts == 1 ? 6 : 4) {
            struct tried t =
                make_tried(types[k], 1 + random_below(70), 1 + random_below(900), n_acts); /* odd widths */
            compute_on_both(&t, types[k]);
            for (uint32_t i = 0; i < n_acts * t.m.packed.n_rows; i++) {
                double magnitude,
                    exact = sum_exactly(&t, i / t.m.packed.n_rows, i % t.m.packed.n_rows, &magnitude);
                if (!(fabs((double)t.found[i] - exact) <= 1e-5 * magnitude))
                    fail_msg("%s [%u, %u] x %u: value %u is %.9g, expected %.9g", quant_find(types[k])->name,
                             t.m.packed.n_rows, t.m.packed.n_columns, n_acts, i, (double)t.found[i], exact);
                n_others += t.found[i] != t.of_cpu[i];
            }
            free_tried(&t);
        }
    assert_true(n_others > 0);
}

/* Whole numbers are whole numbers: these types cost nothing to be exact. */
static void other_types_have_the_cpus_bits(void **state)
{
    (void)state;
    if (!gpu_is_exact(gpu_get_info(test_gpu)))
        skip();
    for (int k = 0; k < N_TYPES; k++) {
        if (act_kind_of(pack_kind(all_types[k])) == ACT_F32)
            continue;
        struct tried t = make_tried(all_types[k], 50, 512, 1 + random_below(9));
        compute_on_both(&t, all_types[k]);
        CHECK_SAME(t.found, t.of_cpu, (size_t)t.n_acts * t.m.packed.n_rows, "%s",
                   quant_find(all_types[k])->name);
        free_tried(&t);
    }
}

static int prepare(void **state)
{
    (void)state;
    uint32_t types[N_TYPES];
    for (int t = 0; t < N_TYPES; t++)
        types[t] = all_types[t];
    MUST(gpu_prepare_all(test_gpu, types, N_TYPES, &test_error));
    return 0;
}

static void other_types_are_near(void)
{
    for (int k = 0; k < N_TYPES; k++) {
        struct tried t = make_tried(all_types[k], 50, 512, 1 + random_below(9));
        float largest = 0;
        compute_on_both(&t, all_types[k]);
        for (uint32_t i = 0; i < t.n_acts * t.m.packed.n_rows; i++)
            largest = fmaxf(largest, fabsf(t.of_cpu[i]));
        for (uint32_t i = 0; i < t.n_acts * t.m.packed.n_rows; i++)
            if (!(fabsf(t.found[i] - t.of_cpu[i]) <= 1e-5f * largest))
                fail_msg("%s: value %u is %.9g, expected %.9g", quant_find(all_types[k])->name, i,
                         (double)t.found[i], (double)t.of_cpu[i]);
        free_tried(&t);
    }
}

/* silu(gate) * up: an exponential and a division. */
static void activations_are_near(void)
{
    enum { N = 512 };
    float gate[N], up[N], expected[N], found[N];
    random_floats(gate, N);
    random_floats(up, N);
    tables[0].silu_mul(gate, up, N, expected);
    struct gpu_activation activation = {
        .gate = upload(gate, sizeof gate), .up = upload(up, sizeof up), .n_rows = 1, .n = N};
    activation.out.of[GPU_ACT_F32] = make_place(sizeof found);
    MUST(gpu_activate(test_gpu, &activation, &test_error));
    download(activation.out.of[GPU_ACT_F32], found, sizeof found);
    for (int i = 0; i < N; i++)
        if (!(fabsf(found[i] - expected[i]) <= 1e-5f * fabsf(expected[i])))
            fail_msg("activation %d is %.9g, expected %.9g", i, (double)found[i], (double)expected[i]);
    release(&activation.gate);
    release(&activation.up);
    release(&activation.out.of[GPU_ACT_F32]);
}

/* The same device, told that it can do none of what the CPU's bits take: it multiplies, then adds, and divides as its driver likes. */
static void a_device_that_lacks_all(void **state)
{
    struct gpu *whole = test_gpu;
    struct gpu_info lesser = *gpu_get_info(whole);
    lesser.has_fma = lesser.has_denormals = lesser.has_exact_division = false;
    MUST(gpu_open(&lesser, &test_gpu, &test_error));
    assert_false(gpu_is_exact(gpu_get_info(test_gpu)));
    prepare(state);
    floats_are_near(state);
    other_types_are_near();
    activations_are_near();
    gpu_close(test_gpu);
    test_gpu = whole;
}

/* Models ---------------------------------------------------------------------------------------------------- */

enum { N_IDS = 300 };

static bool keep(void *user, size_t index, const float *logits)
{
    memcpy((float *)user + index * TINY_MODEL_TOKENS, logits, TINY_MODEL_TOKENS * sizeof *logits);
    return true;
}

/* float [N_IDS, TINY_MODEL_TOKENS], to be freed. */
static float *compute(const char *path, const int32_t *ids, const char *device)
{
    runnel_model_options opening;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_error error;
    float *logits = malloc((size_t)N_IDS * TINY_MODEL_TOKENS * sizeof *logits);
    assert_non_null(logits);
    runnel_model_options_init(&opening);
    opening.device = device;
    opening.gpu_approximate = device != NULL;
    if (runnel_model_open(path, &opening, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error) ||
        runnel_logits_each(engine, ids, N_IDS, 37, keep, logits, &error))
        fail_msg("%s", error.message);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return logits;
}

/* How far logits are from those in doubles: the mean KL divergence, and how often the likeliest token is another. */
struct distance {
    double kl;
    unsigned n_others;
};

static struct distance distance_from(const double *expected, const float *logits)
{
    struct distance distance = {0, 0};
    for (size_t at = 0; at < N_IDS; at++, expected += TINY_MODEL_TOKENS, logits += TINY_MODEL_TOKENS) {
        double total = 0, other_total = 0;
        size_t likeliest = 0, other = 0;
        for (size_t i = 0; i < TINY_MODEL_TOKENS; i++) {
            likeliest = expected[i] > expected[likeliest] ? i : likeliest;
            other = logits[i] > logits[other] ? i : other;
        }
        for (size_t i = 0; i < TINY_MODEL_TOKENS; i++) {
            total += exp(expected[i] - expected[likeliest]);
            other_total += exp((double)logits[i] - (double)logits[other]);
        }
        for (size_t i = 0; i < TINY_MODEL_TOKENS; i++) {
            double p = expected[i] - expected[likeliest] - log(total),
                   q = (double)logits[i] - (double)logits[other] - log(other_total);
            distance.kl += exp(p) * (p - q) / N_IDS;
        }
        distance.n_others += likeliest != other;
    }
    return distance;
}

/* The gate, with the CPU in the place of those that others compute. */
static void models_pass_the_gate(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0};
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + i * i % 91 + 11) % TINY_MODEL_TOKENS;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        char path[] = "/tmp/runnel-approximate-XXXXXX";
        struct tiny_model_options options = tiny_engine_model();
        runnel_error error;
        size_t n_vocab;
        int file = mkstemp(path);
        assert_true(file >= 0);
        close(file);
        tiny_model_set_types(&options, types[k]);
        if (tiny_model_write(&options, path, &error))
            fail_msg("%s", error.message);
        double *exact = dense_model_logits(path, ids, N_IDS, &n_vocab);
        assert_true(exact && n_vocab == TINY_MODEL_TOKENS);
        float *of_cpu = compute(path, ids, NULL), *found = compute(path, ids, "gpu");
        struct distance of_cpus = distance_from(exact, of_cpu), of_gpus = distance_from(exact, found);
        printf("%s: KL %.3g on the CPU, %.3g on the GPU; other tokens %u, %u\n", quant_find(types[k])->name,
               of_cpus.kl, of_gpus.kl, of_cpus.n_others, of_gpus.n_others);
        if (!(of_gpus.kl <= 1.15 * of_cpus.kl) || of_gpus.n_others > of_cpus.n_others + N_IDS / 100)
            fail_msg("%s: KL %g, expected at most 1.15 x %g; other tokens %u, expected %u and 1 %%",
                     quant_find(types[k])->name, of_gpus.kl, of_cpus.kl, of_gpus.n_others, of_cpus.n_others);
        bool is_same = !memcmp(of_cpu, found, (size_t)N_IDS * TINY_MODEL_TOKENS * sizeof *found);
        if (gpu_is_exact(gpu_get_info(test_gpu))) /* it is the floats alone that change */
            assert_int_equal(is_same, types[k] == TENSOR_Q8_0);
        free(exact);
        free(of_cpu);
        free(found);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_are_near),
        cmocka_unit_test(other_types_have_the_cpus_bits),
        cmocka_unit_test(a_device_that_lacks_all),
        cmocka_unit_test(models_pass_the_gate),
    };
    fill_tables();
    open_test_gpu_for(true);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    gpu_close(test_gpu);
    return failed;
}
