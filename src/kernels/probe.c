/* probe.c: measures the machine's limits (see probe.h). Owns nothing beyond a call. */
#include "kernels/probe.h"

#include "base/clock.h"
#include "base/region.h"

#include <stdatomic.h>
#include <string.h>

enum {
    READ_BYTES = 512 << 20,
    READ_AHEAD = 4096, /* bytes: what a stream asks for before it needs it */
    ROUNDS = PROBE_ROUNDS,
    INT8_MS = 30, /* of int8_peak, a member in a round */
    INT8_MS_ALONE = 5,
    WIDTH_REPEATS = 4000, /* of 64 instructions: some 70 microseconds */
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

/* How many instructions a cycle this thread gets at most. An addition that waits for the one before takes a cycle, whoever else
 * uses the core; of zeroings, which no unit executes, a core takes in as many as it is wide, and half of them while its other
 * half is busy. 0: not known for this kind of machine. */
static double measure_width(void)
{
#if defined(__x86_64__)
    double samples[ROUNDS];
    for (int sample = 0; sample < ROUNDS; sample++) {
        uint64_t x = 0;
        double start_ms = clock_ms();
        for (int i = 0; i < WIDTH_REPEATS; i++)
            __asm__ volatile(".rept 64\n\tadd $1, %0\n\t.endr" : "+r"(x));
        double middle_ms = clock_ms();
        for (int i = 0; i < WIDTH_REPEATS; i++)
            __asm__ volatile(".rept 64\n\txor %%ecx, %%ecx\n\t.endr" ::: "rcx", "cc");
        samples[sample] = (middle_ms - start_ms) / (clock_ms() - middle_ms);
    }
    return median(samples);
#else
    return 0;
#endif
}

struct int8_probe {
    const struct kernels *kernels;
    double call_ms; /* about what int8_peak takes */
    atomic_ullong n_done;
    unsigned member; /* that works alone */
    struct neighbour_round *round;
};

/* How often to call int8_peak, which takes a millisecond or, emulated, much longer: counted before, as whoever looks at the clock
 * between calls does not compute. */
static unsigned int8_calls(const struct int8_probe *probe, double ms)
{
    return probe->call_ms < ms ? (unsigned)(ms / probe->call_ms) : 1;
}

static double int8_call_ms(const struct kernels *kernels)
{
    kernels->int8_peak(); /* brings the CPU up to speed */
    double start_ms = clock_ms();
    kernels->int8_peak();
    double took_ms = clock_ms() - start_ms;
    return took_ms > 0.1 ? took_ms : 0.1;
}

static void int8_work(void *arg, unsigned member)
{
    (void)member;
    struct int8_probe *probe = arg;
    for (unsigned n = int8_calls(probe, INT8_MS); n > 0; n--)
        atomic_fetch_add(&probe->n_done, probe->kernels->int8_peak());
}

static void int8_work_alone(void *arg, unsigned member)
{
    struct int8_probe *probe = arg;
    if (member != probe->member)
        return;
    probe->round->width = measure_width();
    uint64_t n_done = 0;
    double start_ms = clock_ms();
    for (unsigned n = int8_calls(probe, INT8_MS_ALONE); n > 0; n--)
        n_done += probe->kernels->int8_peak();
    probe->round->alone = (double)n_done / (clock_ms() - start_ms) / 1e6;
}

double probe_int8_gmac_s(struct team *team, const struct kernels *kernels,
                         struct neighbour_round rounds[PROBE_ROUNDS])
{
    struct int8_probe probe = {.kernels = kernels, .call_ms = int8_call_ms(kernels)};
    double together[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        probe.round = &rounds[i];
        probe.member = i % team_size(team);
        team_run(team, int8_work_alone, &probe);
        atomic_store(&probe.n_done, 0);
        double start_ms = clock_ms();
        team_run(team, int8_work, &probe);
        together[i] = (double)atomic_load(&probe.n_done) / (clock_ms() - start_ms) / 1e6;
        rounds[i].together = together[i];
    }
    return median(together);
}
