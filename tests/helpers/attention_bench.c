/* attention_bench.c: see attention_bench.h. One thread. The KV blocks of many sequences or layers lie one after
 * the other, 128 MiB of them, so that each is read from memory, as in a model. Times are of the thread. */
#include "helpers/attention_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { N_Q_MAX = 192, BYTES = 128 << 20 };

struct bench {
    const struct kernels *kernels;
    struct kv_shape shape;
    uint8_t *blocks;
    uint32_t n_blocks;
    float *q, *acc;
    struct attn_state states[N_Q_MAX];
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All blocks once, as contexts of n positions, as the forward pass goes through them. */
static double run(struct bench *b, uint32_t n_q, uint32_t n)
{
    uint32_t head_dim = b->shape.head_dim, padded = (head_dim + 15) / 16 * 16;
    struct attn_span visible[N_Q_MAX];
    uint32_t n_pages = (n + KV_PAGE - 1) / KV_PAGE;
    size_t block_bytes = kv_block_bytes(&b->shape);
    double start = seconds();
    for (uint32_t at = 0; at + n_pages <= b->n_blocks; at += n_pages) {
        for (uint32_t i = 0; i < n_q; i++)
            b->states[i] = (struct attn_state){-INFINITY, 0.0f};
        for (uint32_t begin = 0; begin < n; begin += ATTN_BLOCK) {
            const void *pages[2 * ATTN_BLOCK_PAGES];
            for (uint32_t i = 0; i < 2 * ATTN_BLOCK_PAGES; i++) {
                uint32_t page = begin / KV_PAGE + i;
                pages[i] = page < n_pages ? b->blocks + (at + page) * block_bytes : NULL;
            }
            for (uint32_t i = 0; i < n_q; i++)
                visible[i] = (struct attn_span){0, n - begin < ATTN_BLOCK ? n - begin : ATTN_BLOCK};
            b->kernels->attention(&b->shape, pages, pages + ATTN_BLOCK_PAGES, b->q, head_dim, visible, n_q,
                                  0.088f, b->states, b->acc, padded);
        }
    }
    return seconds() - start;
}

static void bench_shape(struct bench *b, int only)
{
    static const uint32_t sizes[][2] = {{1, 2048},  {6, 40},    {6, 512},   {6, 2048},  {7, 2048},
                                        {12, 2048}, {24, 2048}, {48, 2048}, {96, 2048}, {192, 2048}};
    size_t block_bytes = kv_block_bytes(&b->shape);
    b->n_blocks = (uint32_t)(BYTES / block_bytes);
    for (uint32_t i = 0; i < N_Q_MAX * b->shape.head_dim; i++)
        b->q[i] = (float)(i * 2654435761u >> 16) / 32768.0f - 1.0f;
    for (uint32_t i = 0; i < b->n_blocks; i++)
        for (uint32_t slot = 0; slot < KV_PAGE; slot++) {
            const float *x = b->q + (i + slot) % N_Q_MAX * b->shape.head_dim;
            b->kernels->kv_store(&b->shape, b->blocks + i * block_bytes, slot, x, x);
        }
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t n_q = sizes[s][0], n = sizes[s][1], n_pages = (n + KV_PAGE - 1) / KV_PAGE;
        if (only && n_q != (uint32_t)only)
            continue;
        double best = 1e9;
        double start = seconds();
        for (int i = 0; i < 5 && (i < 1 || seconds() - start < 1.0); i++) {
            double took = run(b, n_q, n);
            best = took < best ? took : best;
        }
        double n_contexts = b->n_blocks / n_pages;
        printf("%-6s head_dim %3u K %s  q rows %3u  positions %4u: %6.1f GMAC/s %5.1f GB/s %7.2f us\n",
               b->kernels->name, b->shape.head_dim, b->shape.k_f32 ? "f32" : "16b", n_q, n,
               2e-9 * n_contexts * n * n_q * b->shape.head_dim / best,
               1e-9 * n_contexts * n_pages * (double)block_bytes / best, 1e6 * best / n_contexts);
    }
}

int attention_bench(const struct kernels *tables, int n_tables, const char *filter, int only)
{
    static const struct kv_shape shapes[] = {{128, false}, {128, true}, {64, false}};
    struct bench b = {.q = aligned_alloc(64, N_Q_MAX * 128 * sizeof(float)),
                      .acc = aligned_alloc(64, N_Q_MAX * 128 * sizeof(float))};
    b.blocks = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!b.q || !b.acc || b.blocks == MAP_FAILED)
        return 1;
    madvise(b.blocks, BYTES, MADV_HUGEPAGE);
    memset(b.acc, 0, N_Q_MAX * 128 * sizeof(float));
    for (int t = 1; t < n_tables; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes && strstr(tables[t].name, filter); i++) {
            b.kernels = &tables[t];
            b.shape = shapes[i];
            bench_shape(&b, only);
        }
    munmap(b.blocks, BYTES);
    free(b.q);
    free(b.acc);
    return 0;
}
