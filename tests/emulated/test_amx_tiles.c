/* test_amx_tiles.c: the emulation of AMX's tiles: against sums written down plainly; what the CPU refuses, it refuses; and, where the
 * CPU has AMX, against the instructions, bit for bit. */
#include "emulated/amx_emulation.h"
#include "helpers/kernel_check.h"
#include "kernels/x86/amx_permission.h"
#include "kernels/x86/amx_tiles.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct tiles_config config_of(unsigned n_rows, unsigned a_bytes)
{
    struct tiles_config config = {.palette = 1};
    for (int tile = 0; tile < 3; tile++) { /* sums, a, b */
        config.row_bytes[tile] = (uint16_t)(tile == 1 ? a_bytes : 64);
        config.n_rows[tile] = (uint8_t)(tile == 2 ? a_bytes / 4 : n_rows);
    }
    return config;
}

/* sum + a * b of three tiles, once with each unit. */
enum operation { SIGNED_UNSIGNED, SIGNED_SIGNED, BF16, OPERATIONS };

struct operands {
    unsigned n_rows, a_bytes;
    uint8_t sum[16][64], a[16][80], b[16][64]; /* rows of a lie further apart */
};

static void run_emulated(const struct operands *o, enum operation operation, uint8_t result[16][64])
{
    const struct tiles_config config = config_of(o->n_rows, o->a_bytes);
    emulated_ldtilecfg(&config);
    emulated_tileloadd(0, o->sum, 64);
    emulated_tileloadd(1, o->a, 80);
    emulated_tileloadd(2, o->b, 64);
    if (operation == SIGNED_UNSIGNED)
        emulated_tdpbsud(0, 1, 2);
    else if (operation == SIGNED_SIGNED)
        emulated_tdpbssd(0, 1, 2);
    else
        emulated_tdpbf16ps(0, 1, 2);
    emulated_tilestored(0, result, 64);
    emulated_tilerelease();
}

static void run_by_instructions(const struct operands *o, enum operation operation, uint8_t result[16][64])
{
    const struct tiles_config config = config_of(o->n_rows, o->a_bytes);
    tiles_configure(&config);
    tile_load(0, o->sum, 64);
    tile_load(1, o->a, 80);
    tile_load(2, o->b, 64);
    if (operation == SIGNED_UNSIGNED)
        tile_add_signed_unsigned(0, 1, 2);
    else if (operation == SIGNED_SIGNED)
        tile_add_signed_signed(0, 1, 2);
    else
        tile_add_bf16(0, 1, 2);
    tile_store(0, result, 64);
    tiles_release();
}

/* bf16: whole numbers, or any finite numbers, denormals among them. */
static void make_operands(struct operands *o, enum operation operation, bool whole)
{
    o->n_rows = 1 + random_below(16);
    o->a_bytes = 4 * (1 + random_below(16));
    for (size_t i = 0; i < sizeof o->sum; i++)
        o->sum[i / 64][i % 64] = (uint8_t)random_u32();
    for (size_t i = 0; i < sizeof o->a; i++)
        o->a[i / 80][i % 80] = (uint8_t)random_u32();
    for (size_t i = 0; i < sizeof o->b; i++)
        o->b[i / 64][i % 64] = (uint8_t)random_u32();
    if (operation != BF16)
        return;
    for (size_t i = 0; i < 16 * 40 + 16 * 32 + 16 * 16; i++) {
        float value =
            whole ? (float)random_below(256) - 128 : random_float() * powf(2, (float)random_below(60) - 30);
        if (!whole && random_below(20) == 0)
            value = 1e-39f * random_float();
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (i < 16 * 40)
            memcpy(o->a[i / 40] + i % 40 * 2, (uint8_t *)&bits + 2, 2);
        else if (i < 16 * 72)
            memcpy(o->b[(i - 640) / 32] + (i - 640) % 32 * 2, (uint8_t *)&bits + 2, 2);
        else
            memcpy(o->sum[(i - 1152) / 16] + (i - 1152) % 16 * 4, &bits, 4);
    }
}

static float bf16_of(const uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Whole numbers, for which the order does not matter. */
static int64_t expected_sum(const struct operands *o, enum operation operation, unsigned m, unsigned n)
{
    int32_t old;
    float old_float;
    memcpy(&old, o->sum[m] + 4 * n, 4);
    memcpy(&old_float, o->sum[m] + 4 * n, 4);
    int64_t sum = operation == BF16 ? (int64_t)old_float : old;
    for (unsigned k = 0; k < o->a_bytes; k += operation == BF16 ? 2 : 1) {
        const uint8_t *a = &o->a[m][k], *b = &o->b[k / 4][4 * n + k % 4];
        if (operation == BF16)
            sum += (int64_t)(bf16_of(a) * bf16_of(b));
        else
            sum += (int64_t)(int8_t)*a * (operation == SIGNED_SIGNED ? (int8_t)*b : *b);
    }
    return sum;
}

static void the_emulation_multiplies(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        const enum operation operation = (enum operation)(i % OPERATIONS);
        struct operands o;
        uint8_t result[16][64];
        make_operands(&o, operation, true);
        memset(result, 0xa5, sizeof result);
        run_emulated(&o, operation, result);
        for (unsigned m = 0; m < 16; m++)
            for (unsigned n = 0; n < 16; n++) {
                int32_t got;
                float got_float;
                memcpy(&got, result[m] + 4 * n, 4);
                memcpy(&got_float, result[m] + 4 * n, 4);
                if (m >= o.n_rows)
                    assert_int_equal(got, (int32_t)0xa5a5a5a5);
                else if (operation == BF16)
                    assert_true(got_float == (float)expected_sum(&o, operation, m, n));
                else
                    assert_int_equal(got, (int32_t)(uint32_t)expected_sum(&o, operation, m, n));
            }
    }
}

static void bf16_has_an_order_and_no_denormals(void **state)
{
    (void)state;
    static const struct {
        float sum;
        float a[2], b[2]; /* k = 0 and 2: of one of the two sums */
        float expected;
    } cases[] = {
        {0.0f, {1.0f, 0x1.02p0f}, {-0x1.04p0f, 0x1.02p0f}, 0x1p-14f}, /* products are not rounded */
        {0.0f, {0x1p-126f, 0.0f}, {0x1p-1f, 0.0f}, 0.0f},
        {0x1p-130f, {0.0f, 0.0f}, {0.0f, 0.0f}, 0.0f},
        {1.0f, {0x1p-130f, 0.0f}, {0x1p120f, 0.0f}, 1.0f},
        {16777216.0f, {1.0f, 1.0f}, {1.0f, 1.0f}, 16777218.0f}, /* summed before they meet the old sum */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct operands o;
        uint8_t result[16][64];
        float got;
        memset(&o, 0, sizeof o);
        o.n_rows = 1;
        o.a_bytes = 8;
        memcpy(o.sum[0], &cases[i].sum, 4);
        for (int k = 0; k < 2; k++) {
            memcpy(o.a[0] + 4 * k, (const uint8_t *)&cases[i].a[k] + 2, 2);
            memcpy(o.b[k], (const uint8_t *)&cases[i].b[k] + 2, 2);
        }
        run_emulated(&o, BF16, result);
        memcpy(&got, result[0], 4);
        if (got != cases[i].expected)
            fail_msg("case %zu is %a, expected %a", i, (double)got, (double)cases[i].expected);
    }
}

static void configuring_and_zeroing_clear(void **state)
{
    (void)state;
    struct operands o;
    uint8_t result[16][64], zeros[16][64] = {{0}};
    const struct tiles_config config = config_of(16, 64);
    make_operands(&o, SIGNED_SIGNED, true);
    for (int zeroed_by = 0; zeroed_by < 2; zeroed_by++) {
        emulated_ldtilecfg(&config);
        emulated_tileloadd(0, o.sum, 64);
        emulated_tilestored(0, result, 64);
        assert_memory_equal(result, o.sum, sizeof result);
        if (zeroed_by == 0)
            emulated_tilezero(0);
        else
            emulated_ldtilecfg(&config);
        emulated_tilestored(0, result, 64);
        assert_memory_equal(result, zeros, sizeof result);
        assert_true(emulated_tiles_are_configured());
        emulated_tilerelease();
        assert_false(emulated_tiles_are_configured());
    }
}

/* Each ends the program. */
static void not_configured(void)
{
    emulated_tilezero(0);
}

static void too_many_rows(void)
{
    struct tiles_config config = config_of(16, 64);
    config.n_rows[0] = 17;
    emulated_ldtilecfg(&config);
}

static void too_wide(void)
{
    struct tiles_config config = config_of(16, 64);
    config.row_bytes[1] = 68;
    emulated_ldtilecfg(&config);
}

static void rows_without_bytes(void)
{
    struct tiles_config config = config_of(16, 64);
    config.n_rows[5] = 1;
    emulated_ldtilecfg(&config);
}

static void a_ninth_tile(void)
{
    struct tiles_config config = config_of(16, 64);
    config.n_rows[8] = 1;
    config.row_bytes[8] = 4;
    emulated_ldtilecfg(&config);
}

static void unknown_palette(void)
{
    struct tiles_config config = config_of(16, 64);
    config.palette = 2;
    emulated_ldtilecfg(&config);
}

static void tile_without_shape(void)
{
    const struct tiles_config config = config_of(16, 64);
    emulated_ldtilecfg(&config);
    emulated_tilezero(3);
}

static void sums_of_other_rows(void)
{
    struct tiles_config config = config_of(16, 64);
    config.n_rows[0] = 8;
    emulated_ldtilecfg(&config);
    emulated_tdpbsud(0, 1, 2);
}

static void b_of_other_rows(void)
{
    struct tiles_config config = config_of(16, 64);
    config.n_rows[2] = 8;
    emulated_ldtilecfg(&config);
    emulated_tdpbssd(0, 1, 2);
}

static void the_same_tile_twice(void)
{
    const struct tiles_config config = config_of(16, 64);
    emulated_ldtilecfg(&config);
    emulated_tdpbf16ps(0, 1, 1);
}

static void after_release(void)
{
    const struct tiles_config config = config_of(16, 64);
    uint8_t result[16][64];
    emulated_ldtilecfg(&config);
    emulated_tilerelease();
    emulated_tilestored(0, result, 64);
}

static void what_the_cpu_refuses_ends_the_program(void **state)
{
    (void)state;
    static void (*const wrong[])(void) = {
        not_configured,  too_many_rows,       too_wide,           rows_without_bytes,
        a_ninth_tile,    unknown_palette,     tile_without_shape, sums_of_other_rows,
        b_of_other_rows, the_same_tile_twice, after_release,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            signal(SIGABRT, SIG_DFL); /* cmocka's would go on with the tests */
            if (!freopen("/dev/null", "w", stderr))
                _exit(2);
            wrong[i]();
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("number %zu is not refused", i);
    }
}

/* A store that is spoilt on demand is what shows that other tests see a wrong bit. */
static void a_spoilt_store_differs_in_one_bit(void **state)
{
    (void)state;
    struct operands o;
    uint8_t right[16][64] = {{0}}, wrong[16][64] = {{0}};
    make_operands(&o, SIGNED_UNSIGNED, true);
    run_emulated(&o, SIGNED_UNSIGNED, right);
    uint64_t before = emulated_tiles_n_stores();
    emulated_tiles_spoil_store(1);
    run_emulated(&o, SIGNED_UNSIGNED, wrong);
    assert_memory_equal(wrong, right, sizeof right);
    run_emulated(&o, SIGNED_UNSIGNED, wrong);
    assert_int_equal(emulated_tiles_n_stores(), before + 2);
    int n_bits = 0;
    for (size_t i = 0; i < sizeof right; i++)
        n_bits += __builtin_popcount((unsigned)(right[i / 64][i % 64] ^ wrong[i / 64][i % 64]));
    assert_int_equal(n_bits, 1);
    run_emulated(&o, SIGNED_UNSIGNED, wrong);
    assert_memory_equal(wrong, right, sizeof right);
}

static void the_instructions_do_the_same(void **state)
{
    (void)state;
    if (!amx_is_possible()) {
        print_message("skipped: this machine has no AMX; %s\n",
                      amx_why_refused() ? amx_why_refused() : "its CPU lacks it");
        skip();
    }
    for (int i = 0; i < 3000; i++) {
        const enum operation operation = (enum operation)(i % OPERATIONS);
        struct operands o;
        uint8_t emulated[16][64], real[16][64];
        make_operands(&o, operation, i % 2);
        memset(emulated, 0xa5, sizeof emulated);
        memset(real, 0xa5, sizeof real);
        run_emulated(&o, operation, emulated);
        run_by_instructions(&o, operation, real);
        assert_memory_equal(real, emulated, sizeof real);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_emulation_multiplies),
        cmocka_unit_test(bf16_has_an_order_and_no_denormals),
        cmocka_unit_test(configuring_and_zeroing_clear),
        cmocka_unit_test(what_the_cpu_refuses_ends_the_program),
        cmocka_unit_test(a_spoilt_store_differs_in_one_bit),
        cmocka_unit_test(the_instructions_do_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
