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
    READ_AHEAD = 4096, /* bytes: what a stream asks for before it needs it */
    ROUNDS = 7,
    N_CHAINS = 12, /* independent accumulators: enough to hide any latency */
};

/* The median: the fastest round would be what the machine can do for a moment, not what it sustains. */
static double median(double *values)
{
    for (int i = 1; i < ROUNDS; i++)
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            double smaller = values[j];
            values[j] = values[j - 1];
            values[j - 1] = smaller;
        }
    return values[ROUNDS / 2];
}

/* Reading ------------------------------------------------------------------------------------------------- */

typedef uint64_t wide __attribute__((vector_size(64)));

/* Two streams a thread, fetched ahead: one alone does not keep enough reads under way everywhere. */
static inline __attribute__((always_inline)) uint64_t sum_streams(const uint8_t *bytes, size_t n_bytes)
{
    const wide *first = (const wide *)bytes, *second = (const wide *)(bytes + n_bytes / 2);
    wide sums[2] = {{0}, {0}};
    for (size_t i = 0; i < n_bytes / 2 / sizeof *first; i++) {
        __builtin_prefetch((const uint8_t *)(first + i) + READ_AHEAD, 0, 2);
        __builtin_prefetch((const uint8_t *)(second + i) + READ_AHEAD, 0, 2);
        sums[0] += first[i];
        sums[1] += second[i];
    }
    wide sum = sums[0] + sums[1];
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof sum / sizeof total; i++)
        total += sum[i];
    return total;
}

static uint64_t sum_plain(const uint8_t *bytes, size_t n_bytes)
{
    return sum_streams(bytes, n_bytes);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t sum_avx512(const uint8_t *bytes, size_t n_bytes)
{
    return sum_streams(bytes, n_bytes);
}

__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *bytes, size_t n_bytes)
{
    return sum_streams(bytes, n_bytes);
}
#endif

struct read_probe {
    struct team *team;
    uint8_t *region;
    uint64_t (*sum)(const uint8_t *bytes, size_t n_bytes); /* NULL: write, which brings the pages in */
    atomic_ullong total;
};

static void read_work(void *arg, unsigned member)
{
    struct read_probe *probe = arg;
    size_t share = READ_BYTES / team_size(probe->team) / 128 * 128;
    uint8_t *bytes = probe->region + share * member;
    if (probe->sum)
        atomic_fetch_add(&probe->total, probe->sum(bytes, share)); /* so that reading cannot be left out */
    else
        memset(bytes, 1, share);
}

int probe_read_gb_s(struct team *team, double *gb_s, runnel_error *error)
{
    struct read_probe probe = {.team = team, .region = region_map(READ_BYTES)};
    if (!probe.region)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %d bytes to read", READ_BYTES);
    team_run(team, read_work, &probe);
    probe.sum = sum_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        probe.sum = sum_avx512;
    else if (__builtin_cpu_supports("avx2"))
        probe.sum = sum_avx2;
#endif
    double rounds[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        double start_ms = clock_ms();
        team_run(team, read_work, &probe);
        rounds[i] = READ_BYTES / (clock_ms() - start_ms) / 1e6;
    }
    region_unmap(probe.region, READ_BYTES);
    *gb_s = median(rounds);
    return RUNNEL_OK;
}

/* Multiplying --------------------------------------------------------------------------------------------- */

enum { INT8_REPEATS = 1000000 };

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

__attribute__((target("avx2"), noinline)) static uint64_t multiply_avxvnni(void)
{
    __m256i sums[N_CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
#define START(j) sums[j] = _mm256_setzero_si256();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < INT8_REPEATS; i++) {
#define STEP(j) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums[j]) : "x"(a), "x"(b));
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
    else if (!strcmp(kernels->name, "avxvnni"))
        probe.multiply = multiply_avxvnni;
    else if (!strcmp(kernels->name, "avx2"))
        probe.multiply = multiply_avx2;
#else
    (void)kernels;
#endif
    double rounds[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        atomic_store(&probe.n_done, 0);
        double start_ms = clock_ms();
        team_run(team, int8_work, &probe);
        rounds[i] = (double)atomic_load(&probe.n_done) / (clock_ms() - start_ms) / 1e6;
    }
    return median(rounds);
}
