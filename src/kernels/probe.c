/* probe.c: measures the machine's limits (see probe.h). Owns nothing beyond a call. */
#include "kernels/probe.h"

#include "base/clock.h"
#include "base/region.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    READ_BYTES = 512 << 20,
    ROUNDS = 5,    /* the fastest one counts: it was disturbed least */
    N_CHAINS = 12, /* independent accumulators: enough to hide any latency */
};

/* Reading ------------------------------------------------------------------------------------------------- */

struct read_probe {
    struct team *team;
    uint8_t *region;
    bool touches; /* writes instead: brings the pages in */
    atomic_ullong sum;
};

static void read_work(void *arg, unsigned member)
{
    struct read_probe *probe = arg;
    size_t share = READ_BYTES / team_size(probe->team) / 64 * 64;
    uint64_t *values = (uint64_t *)(probe->region + share * member);
    if (probe->touches) {
        memset(values, 1, share);
        return;
    }
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < share / sizeof *values; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += values[i + j];
    uint64_t sum = 0;
    for (size_t j = 0; j < 8; j++)
        sum += sums[j];
    atomic_fetch_add(&probe->sum, sum); /* so that the reading cannot be left out */
}

int probe_read_gb_s(struct team *team, double *gb_s, runnel_error *error)
{
    struct read_probe probe = {.team = team, .region = region_map(READ_BYTES), .touches = true};
    if (!probe.region)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %d bytes to read", READ_BYTES);
    team_run(team, read_work, &probe);
    probe.touches = false;
    double fastest_ms = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double start_ms = clock_ms();
        team_run(team, read_work, &probe);
        double ms = clock_ms() - start_ms;
        fastest_ms = i == 0 || ms < fastest_ms ? ms : fastest_ms;
    }
    region_unmap(probe.region, READ_BYTES);
    *gb_s = READ_BYTES / fastest_ms / 1e6;
    return RUNNEL_OK;
}

/* Multiplying --------------------------------------------------------------------------------------------- */

enum { INT8_REPEATS = 2000000 };

/* Written out, because accumulators in an indexed array would live in memory. */
#define FOR_EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

#if defined(__x86_64__)

/* Each returns the multiply-adds it did. The empty assembly keeps the compiler from leaving a step out. */
__attribute__((target("avx512f,avx512vnni"), noinline)) static uint64_t multiply_avx512(void)
{
    __m512i sums[N_CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
#define START(j) sums[j] = _mm512_setzero_si512();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < INT8_REPEATS; i++) {
#define STEP(j)                                                                                              \
    sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);                                                            \
    __asm__ volatile("" : "+v"(sums[j]));
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)INT8_REPEATS * N_CHAINS * 64;
}

__attribute__((target("avx2"), noinline)) static uint64_t multiply_avx2(void)
{
    __m256i sums[N_CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
#define START(j) sums[j] = _mm256_setzero_si256();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < INT8_REPEATS; i++) {
#define STEP(j)                                                                                              \
    {                                                                                                        \
        __m256i pairs = _mm256_maddubs_epi16(a, b);                                                          \
        __asm__ volatile("" : "+x"(pairs));                                                                  \
        sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(pairs, ones));                                 \
        __asm__ volatile("" : "+x"(sums[j]));                                                                \
    }
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)INT8_REPEATS * N_CHAINS * 32;
}

#endif

static uint64_t multiply_plain(void)
{
    enum { N = 64 };
    uint8_t a[N];
    int8_t b[N];
    memset(a, 1, sizeof a);
    memset(b, 1, sizeof b);
    int32_t sum = 0;
    for (int i = 0; i < INT8_REPEATS; i++) {
        for (int j = 0; j < N; j++)
            sum += a[j] * b[j];
        __asm__ volatile("" : "+r"(sum) : "r"(a), "r"(b) : "memory");
    }
    return (uint64_t)INT8_REPEATS * N;
}

struct int8_probe {
    uint64_t (*multiply)(void);
    atomic_ullong n_done;
};

static void int8_work(void *arg, unsigned member)
{
    (void)member;
    struct int8_probe *probe = arg;
    atomic_fetch_add(&probe->n_done, probe->multiply());
}

double probe_int8_gmac_s(struct team *team, const struct kernels *kernels)
{
    struct int8_probe probe = {.multiply = multiply_plain};
#if defined(__x86_64__)
    if (!strcmp(kernels->name, "avx512"))
        probe.multiply = multiply_avx512;
    else if (!strcmp(kernels->name, "avx2"))
        probe.multiply = multiply_avx2;
#else
    (void)kernels;
#endif
    double fastest = 0;
    for (int i = 0; i < ROUNDS; i++) {
        atomic_store(&probe.n_done, 0);
        double start_ms = clock_ms();
        team_run(team, int8_work, &probe);
        double gmac_s = (double)atomic_load(&probe.n_done) / (clock_ms() - start_ms) / 1e6;
        fastest = gmac_s > fastest ? gmac_s : fastest;
    }
    return fastest;
}
