/* kernel_bench.c: see kernel_bench.h. Matrices are far larger than the caches, in huge pages, as a model's
 * are; each thread takes its half of the tiles, 4 tiles a call, as the forward pass does. */
#include "helpers/kernel_bench.h"

#include "kernels/pack.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct bench {
    const struct kernels *kernels;
    struct packed_matrix w;
    uint8_t *acts;
    size_t act_stride;
    uint32_t n_acts;
    float *out;
    unsigned n_threads;
    uint32_t n_tiles; /* of each pass */
};

struct part {
    struct bench *bench;
    unsigned thread;
    double took_s;
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *run_part(void *arg)
{
    struct part *part = arg;
    const struct bench *b = part->bench;
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    uint32_t begin = b->n_tiles * part->thread / b->n_threads,
             end = b->n_tiles * (part->thread + 1) / b->n_threads;
    const struct matmul_args args = {.w = &b->w,
                                     .acts = b->acts,
                                     .act_stride = b->act_stride,
                                     .n_acts = b->n_acts,
                                     .out = b->out,
                                     .out_stride = b->w.n_rows};
    for (uint32_t tile = begin; tile < end; tile += 4)
        b->kernels->matmul[b->w.kind](&args, tile, tile + 4 < end ? tile + 4 : end);
    part->took_s = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    return NULL;
}

/* The best of some runs. One thread is measured by its own time, so that a busy machine does not spoil it; two by the clock on
 * the wall: sharing one core they would each seem to have the memory to themselves. */
static double measure(struct bench *b)
{
    double best = 1e9;
    for (int run = 0; run < 7; run++) {
        struct part parts[2] = {{b, 0, 0.0}, {b, 1, 0.0}};
        pthread_t other;
        double start = seconds(CLOCK_MONOTONIC);
        bool two = b->n_threads == 2 && pthread_create(&other, NULL, run_part, &parts[1]) == 0;
        run_part(&parts[0]);
        if (two)
            pthread_join(other, NULL);
        double took = two ? seconds(CLOCK_MONOTONIC) - start : parts[0].took_s;
        best = took < best ? took : best;
    }
    return best;
}

/* Rows as a model has them: most values small beside the largest. */
static void fill_acts(struct bench *b, enum act_kind kind)
{
    uint32_t state = 1;
    float *x = malloc(b->w.n_columns * sizeof *x);
    for (uint32_t row = 0; x && row < 512; row++) {
        for (uint32_t i = 0; i < b->w.n_columns; i++) {
            x[i] = 0;
            for (int j = 0; j < 4; j++) {
                state = state * 1664525u + 1013904223u;
                x[i] += (float)(state >> 8) * 0x1p-24f - 0.5f;
            }
        }
        b->kernels->quantize[kind](x, b->w.n_columns, b->acts + row * b->act_stride);
    }
    free(x);
}

static void bench_type(const struct kernels *kernels, enum tensor_type type, uint32_t n_columns,
                       uint32_t only)
{
    static const uint32_t n_acts[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 64, 256, 512};
    struct bench b = {.kernels = kernels};
    b.w = (struct packed_matrix){.type = type, .kind = pack_kind(type), .n_columns = n_columns};
    b.w.tile_bytes = pack_tile_bytes(type, n_columns);
    b.w.n_tiles = (uint32_t)((256u << 20) / b.w.tile_bytes);
    b.w.n_rows = b.w.n_tiles * TILE_ROWS;
    size_t n_bytes = b.w.n_tiles * b.w.tile_bytes;
    b.w.data = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.w.data == MAP_FAILED)
        return;
    madvise(b.w.data, n_bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < n_bytes; i++)
        b.w.data[i] = (uint8_t)(i * 2654435761u >> 13);
    enum act_kind kind = act_kind_of(b.w.kind);
    b.act_stride = act_row_bytes(kind, n_columns);
    b.acts = aligned_alloc(64, b.act_stride * 512);
    b.out = malloc(512 * (size_t)b.w.n_rows * sizeof *b.out);
    if (b.acts && b.out) {
        fill_acts(&b, kind);
        for (size_t i = 0; i < sizeof n_acts / sizeof *n_acts; i++)
            for (b.n_threads = 1; b.n_threads <= 2 && (only == 0 || only == n_acts[i]); b.n_threads++) {
                b.n_acts = n_acts[i];
                b.n_tiles = b.n_acts <= 32 ? b.w.n_tiles : b.w.n_tiles / 8;
                double took = measure(&b);
                printf("%-6s %-6s %5u columns  M %3u  %u threads: %7.1f GMAC/s %6.1f GB/s\n", kernels->name,
                       quant_find(type)->name, n_columns, b.n_acts, b.n_threads,
                       1e-9 * b.n_tiles * TILE_ROWS * n_columns * b.n_acts / took,
                       1e-9 * b.n_tiles * b.w.tile_bytes / took);
            }
    }
    free(b.acts);
    free(b.out);
    munmap(b.w.data, n_bytes);
}

static bool wanted(const char *filter, const char *name)
{
    return !*filter || strstr(filter, name);
}

int kernel_bench(const struct kernels *tables, int n_tables, const char *filter, const char *types,
                 uint32_t only)
{
    static const struct {
        enum tensor_type type;
        uint32_t n_columns;
    } shapes[] = {{TENSOR_Q4_K, 1536},   {TENSOR_Q4_K, 8960}, {TENSOR_Q6_K, 1536}, {TENSOR_Q6_K, 8960},
                  {TENSOR_Q8_0, 896},    {TENSOR_Q5_0, 896},  {TENSOR_Q4_1, 896},  {TENSOR_F16, 1536},
                  {TENSOR_Q5_K, 1536},   {TENSOR_Q2_K, 1536}, {TENSOR_Q3_K, 1536}, {TENSOR_IQ4_NL, 1536},
                  {TENSOR_IQ4_XS, 1536}, {TENSOR_MXFP4, 1536}};
    for (int t = 1; t < n_tables; t++) {
        if (!wanted(filter, tables[t].name))
            continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            if (wanted(types, quant_find(shapes[i].type)->name))
                bench_type(&tables[t], shapes[i].type, shapes[i].n_columns, only);
    }
    return 0;
}
