/* test_vnni.c: the emulation of AVX-VNNI, with which all that is written for it is tested where the CPU lacks it, does what
 * the instructions do: as plain C says, as the CPU's own do where it has them, and as those of AVX-512 do, which are the same
 * in another encoding. */
#include "emulated/vnni_functions.h"
#include "helpers/kernel_check.h"
#include "kernels/x86/cpu.h"

#include <immintrin.h>

enum { LANES = 8, ROUNDS = 20000 };

/* Plain C. Unsigned, as sums wrap. */

static void plain_bytes(int32_t sums[8], const uint8_t w[32], const int8_t a[32])
{
    for (int i = 0; i < 4 * LANES; i++)
        sums[i / 4] = (int32_t)((uint32_t)sums[i / 4] + (uint32_t)(w[i] * a[i]));
}

static void plain_both(int32_t sums0[8], int32_t sums1[8], const uint8_t w[64], const int8_t a[4])
{
    for (int i = 0; i < 8 * LANES; i++) {
        int32_t *sum = (i < 32 ? sums0 : sums1) + i % 32 / 4;
        *sum = (int32_t)((uint32_t)*sum + (uint32_t)(w[i] * a[i % 4]));
    }
}

static void plain_pairs(int32_t sums[8], const int16_t a[16], const int16_t b[16])
{
    for (int i = 0; i < 2 * LANES; i++)
        sums[i / 2] = (int32_t)((uint32_t)sums[i / 2] + (uint32_t)(a[i] * b[i]));
}

static const struct vnni_functions plain = {plain_bytes, plain_both, plain_pairs};

/* AVX-512. */

#define AVX512 __attribute__((target("avx2,avx512f,avx512vl,avx512vnni")))

AVX512 static void avx512_bytes(int32_t sums[8], const uint8_t w[32], const int8_t a[32])
{
    _mm256_storeu_si256((void *)sums, _mm256_dpbusd_epi32(_mm256_loadu_si256((const void *)sums),
                                                          _mm256_loadu_si256((const void *)w),
                                                          _mm256_loadu_si256((const void *)a)));
}

static void avx512_both(int32_t sums0[8], int32_t sums1[8], const uint8_t w[64], const int8_t a[4])
{
    int8_t repeated[32];
    for (int i = 0; i < 32; i++)
        repeated[i] = a[i % 4];
    avx512_bytes(sums0, w, repeated);
    avx512_bytes(sums1, w + 32, repeated);
}

AVX512 static void avx512_pairs(int32_t sums[8], const int16_t a[16], const int16_t b[16])
{
    _mm256_storeu_si256((void *)sums, _mm256_dpwssd_epi32(_mm256_loadu_si256((const void *)sums),
                                                          _mm256_loadu_si256((const void *)a),
                                                          _mm256_loadu_si256((const void *)b)));
}

static const struct vnni_functions avx512 = {avx512_bytes, avx512_both, avx512_pairs};

struct inputs {
    int32_t sums[2][LANES];
    uint8_t w[64];
    int8_t a[32];
    int16_t pairs[2][16];
};

/* Now and then all at an end of their range, where products and sums are largest. */
static struct inputs random_inputs(void)
{
    static const int16_t ends[] = {INT16_MIN, INT16_MAX, -1, 0};
    struct inputs in;
    uint8_t *bytes = (uint8_t *)&in;
    for (size_t i = 0; i < sizeof in; i++)
        bytes[i] = (uint8_t)random_u32();
    if (random_below(4) == 0) {
        memset(in.w, random_below(2) ? 255 : 0, sizeof in.w);
        memset(in.a, random_below(2) ? -128 : 127, sizeof in.a);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 2; j++)
                in.pairs[j][i] = ends[random_below(4)];
        for (int i = 0; i < LANES; i++)
            in.sums[0][i] = random_below(2) ? INT32_MAX : INT32_MIN;
    }
    return in;
}

static void check_same(const struct vnni_functions *functions, const struct vnni_functions *expected,
                       const char *name)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct inputs found = random_inputs(), want = found;
        functions->dot_bytes(found.sums[0], found.w, found.a);
        expected->dot_bytes(want.sums[0], want.w, want.a);
        if (memcmp(&found, &want, sizeof found))
            fail_msg("vnni_dot_bytes: emulated or plain C, and %s, differ", name);
        functions->dot_pairs(found.sums[0], found.pairs[0], found.pairs[1]);
        expected->dot_pairs(want.sums[0], want.pairs[0], want.pairs[1]);
        if (memcmp(&found, &want, sizeof found))
            fail_msg("vnni_dot_pairs: emulated or plain C, and %s, differ", name);
        functions->dot_both(found.sums[0], found.sums[1], found.w, found.a);
        expected->dot_both(want.sums[0], want.sums[1], want.w, want.a);
        if (memcmp(&found, &want, sizeof found))
            fail_msg("vnni_dot_both: emulated or plain C, and %s, differ", name);
    }
}

static void as_plain_c(void **state)
{
    (void)state;
    if (!cpu_has_avx2())
        skip();
    check_same(&vnni_emulated, &plain, "plain C");
}

static void as_the_cpu(void **state)
{
    (void)state;
    if (!cpu_has_avxvnni())
        skip();
    check_same(&vnni_emulated, &vnni_of_cpu, "the CPU");
    check_same(&vnni_of_cpu, &plain, "plain C");
}

static void as_avx512(void **state)
{
    (void)state;
    if (!cpu_has_avx512())
        skip();
    check_same(&vnni_emulated, &avx512, "AVX-512");
}

/* Programs linked with levels.c have the level wherever AVX2 is there, between AVX2 and AVX-512. */
static void the_level_is_emulated(void **state)
{
    (void)state;
    if (!cpu_has_avx2())
        skip();
    fill_tables();
    assert_true(n_tables >= 3);
    assert_string_equal(tables[1].name, "avx2");
    assert_string_equal(tables[2].name, "avxvnni");
    static const bool is_replaced[TILE_KINDS] = {
        [TILE_Q4_K] = true, [TILE_Q5_K] = true, [TILE_Q6_K] = true, [TILE_32] = true};
    for (enum tile_kind kind = 0; kind < TILE_KINDS; kind++)
        assert_int_equal(tables[2].matmul[kind] != tables[1].matmul[kind], is_replaced[kind]);
    assert_ptr_not_equal(tables[2].attention, tables[1].attention);
    assert_string_equal(tables[2].int8_unit, "AVX-VNNI");
    assert_true(tables[2].int8_peak != tables[1].int8_peak && tables[2].int8_peak() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_plain_c),
        cmocka_unit_test(as_the_cpu),
        cmocka_unit_test(as_avx512),
        cmocka_unit_test(the_level_is_emulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
