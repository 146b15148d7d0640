/* ops.h: the agreement between the kernels and everything above them.
 *
 * Weights are packed at load into tiles of 16 rows (pack.h); activations are quantised row by row into
 * blocks; one table of functions for each instruction set does the arithmetic. Only functions of this table
 * and pack.c look inside tiles, activation rows and KV blocks.
 *
 * One arithmetic: what a function computes for a row does not depend on how many rows it is given, on which
 * rows are beside it, or on which tiles a call covers. And it is the same bit for bit in every instruction set,
 * and can be on every device, by these rules:
 *   - Sums of whole numbers are exact, and a maximum is one of its values: their order is free.
 *   - Floats are added in the one order that stands at each function. Every operation is rounded to nearest by
 *     itself; a multiply-add is fused where `fma` is written, and nowhere else; division and square root are
 *     correctly rounded; exp is exp_f32 of shared.h, operation by operation. Whole numbers become floats rounded to
 *     nearest; floats become whole numbers by rint: nearest, halves to even. Denormals are kept.
 *   - NaN stays NaN; which NaN is left open.
 * ref.c says the same in code.
 *
 * Functions never fail and never allocate. Any thread; the caller sees to it that outputs do not overlap. */
#ifndef RUNNEL_KERNELS_OPS_H
#define RUNNEL_KERNELS_OPS_H

#include "kernels/quants.h"

#include <stdbool.h>

enum {
    TILE_ROWS = 16,   /* weight rows a tile */
    ACT_BLOCK = 256,  /* inputs an activation block */
    NORM_LANES = 64,  /* partial sums of a norm */
    KV_PAGE = 32,     /* positions a page of the KV cache */
    ATTN_BLOCK = 256, /* positions an attention partial: always aligned to multiples of 256 */
    ATTN_BLOCK_PAGES = ATTN_BLOCK / KV_PAGE,
    LOGIT_BLOCK = 64, /* tokens of the vocabulary whose weights are added first (engine/softmax.h) */
};

/* How a matrix lies in memory. Layouts are described in pack.h. */
enum tile_kind {
    TILE_Q4_K,   /* Q4_K, bit for bit, 0.5625 bytes a weight */
    TILE_Q6_K,   /* Q6_K, bit for bit, 0.8203 bytes a weight */
    TILE_32,     /* Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, bit for bit: 1.0625, 0.5625, 0.625, 0.6875, 0.75 bytes;
                  IQ4_NL, MXFP4: 0.5625 bytes */
    TILE_Q5_K,   /* Q5_K, bit for bit, 0.6875 bytes a weight */
    TILE_Q2_K,   /* Q2_K, bit for bit, 0.3281 bytes a weight */
    TILE_Q3_K,   /* Q3_K, bit for bit, 0.4297 bytes a weight */
    TILE_IQ4_XS, /* IQ4_XS, bit for bit, 0.5391 bytes a weight */
    TILE_FLOAT,  /* F32, F16, BF16 */
    TILE_KINDS
};

struct packed_matrix {     /* [n_rows, n_columns], a product gives n_rows outputs */
    enum tensor_type type; /* as in the file */
    enum tile_kind kind;
    uint32_t n_rows, n_columns;
    uint32_t n_tiles;  /* of TILE_ROWS rows; the rows past n_rows in the last one are zero */
    size_t tile_bytes; /* a multiple of 64 for all kinds */
    uint8_t *data;     /* [n_tiles * tile_bytes], 64-byte aligned; owned by whoever packed */
};

/* How the inputs of a product are given. */
enum act_kind {
    ACT_Q8_256, /* struct act_q8_256 blocks: for TILE_Q2_K to TILE_Q6_K and TILE_IQ4_XS */
    ACT_Q8_32,  /* struct act_q8_32 blocks: for TILE_32 */
    ACT_F32,    /* plain floats, padded with zeros to whole blocks: for TILE_FLOAT */
    ACT_KINDS
};

/* 256 inputs with one scale: x = d * q, d = max |x| / 127, q = rint(x * (127 / max |x|)): -127 .. 127; all 0 where
 * max |x| is below 1e-27. */
struct act_q8_256 {
    int8_t q[256];
    int16_t sum16[16]; /* of q[16i .. 16i+15] */
    int16_t sum32[8];  /* of q[32i .. 32i+31] */
    float d;
    uint16_t largest_sum16; /* the largest sum of |q[16i .. 16i+15]|: tells how wide products can get */
    uint8_t padding[10];
};

/* 256 inputs with a scale for each 32; the last block of a row may be partly or wholly padding (zeros). */
struct act_q8_32 {
    int8_t q[256];
    float d[8];
    float d_sum[8];    /* d * sum of the 32 q */
    int32_t offset[8]; /* -128 * that sum: what weights that are 128 too high add too much */
    uint8_t padding[32];
};
_Static_assert(sizeof(struct act_q8_256) == 320 && sizeof(struct act_q8_32) == 384,
               "rows are 64-byte aligned");

/* Bytes of one activation row of n inputs: a multiple of 64. */
size_t act_row_bytes(enum act_kind kind, uint32_t n);
enum act_kind act_kind_of(enum tile_kind kind);

/* Keys and values of one KV head of one layer for KV_PAGE positions: a block of
 *     K [head_dim / 2][KV_PAGE][2]              int16, transposed so that a vector holds positions, and a lane
 *                                               of it two dimensions
 *       [KV_PAGE]                               f32: what a one of each position's keys is worth
 *     V [head_dim up to 16s][KV_PAGE / 2][16][2] int16: a vector holds 16 dimensions, a lane two positions
 *       [KV_PAGE]                               f32: their worth
 * or, if k_f32, K [head_dim][KV_PAGE] f32 without scales. All parts 64-byte aligned. */
enum { KV_HEAD_DIM_MAX = 1024 };
struct kv_shape {
    uint32_t head_dim; /* even, at most KV_HEAD_DIM_MAX */
    bool k_f32; /* layers whose K bias is too large for 16 bits (docs/accuracy.md, "The K-bias trap") */
};
size_t kv_k_bytes(const struct kv_shape *shape);     /* a multiple of 64: V starts here */
size_t kv_block_bytes(const struct kv_shape *shape); /* a multiple of 64 */

/* The running result of one query row's attention, merged block by block in ascending position. Start: m =
 * -INFINITY, l = 0, acc all 0. attention_finish makes the result of it. */
struct attn_state {
    float m; /* largest score so far */
    float l; /* sum of exp(score - m) */
};

/* The positions [begin, end) of a block; none if both are equal. */
struct attn_span {
    uint32_t begin, end;
};

/* A product: out[r][16 * tile + i] (r < n_acts; columns of the tiles of a call, clipped to w's n_rows) =
 *     sum over inputs of w * act (+ bias[column] if bias) (+ the old value if add).
 * The order: from acc = 0, blocks of inputs in ascending order, with d of the activations and d, dmin, scales and mins of
 * the weights (quants.c):
 *   TILE_Q4_K, TILE_Q5_K, TILE_Q2_K
 *                          acc = fma(w.d * d, sum of scale * w * q, acc), acc = fma(-(w.dmin * d), sum of min * q, acc)
 *   TILE_Q6_K, TILE_Q3_K, TILE_IQ4_XS
 *                          acc = fma(w.d * d, sum of scale * w * q, acc), w signed
 *   TILE_32                each 32 inputs: acc = fma(w.d * d, sum of w * q, acc), w signed where the type has no minimum;
 *                          with a minimum m then acc = fma(m, d * sum of q, acc)
 *   TILE_FLOAT             each input: acc = fma(w, x, acc)
 * where each sum is a whole number. Then acc + bias, and that + the old value. */
struct matmul_args {
    const struct packed_matrix *w;
    const void *acts; /* n_acts rows of act_kind_of(w->kind), act_stride bytes apart */
    size_t act_stride;
    uint32_t n_acts; /* 1 or more */
    float *out;
    size_t out_stride; /* floats */
    const float *bias; /* [w's n_rows]; NULL: none */
    bool add;
};

struct kernels {
    const char *name; /* "ref", "avx2", "avxvnni", "avx512", "amx" */

    /* What its products like: rows of activations in multiples of the first; with more of them than the second, a row takes
     * hardly less. */
    uint32_t n_rows_together, n_rows_prompt;

    /* For probe.c: multiplies bytes in registers for about a millisecond, as fast as the unit that products use can, and returns
     * how many multiply-adds that was. int8_unit names this unit for people: "AVX-512 VNNI". A level sets both or, where it
     * multiplies with the same unit as the one below it, neither. */
    const char *int8_unit;
    uint64_t (*int8_peak)(void);

    /* x f32[n] to one activation row. Not-finite inputs give d = NaN in their block, so that they reach the
     * output. */
    void (*quantize[ACT_KINDS])(const float *x, uint32_t n, void *row);

    /* n values of weights to blocks of a type with scales: what quantize_encode (quantize.h) does for these. Nothing is
     * fused. */
    void (*encode)(enum tensor_type type, const float *values, size_t n, const float *importance, void *out);

    /* The product on tiles [tile_begin, tile_end); see struct matmul_args. */
    void (*matmul[TILE_KINDS])(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);

    /* out = x / sqrt(mean(x^2) + epsilon) * weight; all f32[n]; out may be x. The order: lane i % NORM_LANES =
     * fma(x[i], x[i], lane) in ascending i from lanes of 0; halves onto halves (lane l += lane l + 32, then + 16,
     * 8, 4, 2, 1); scale = 1 / sqrt(lane 0 / n + epsilon); out = (x * scale) * weight. */
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float epsilon, float *out);

    /* Rotates the first n_rot (even) values of each of n_heads heads of head_dim values. cosine, sine:
     * f32[n_rot / 2]. Pair i is (x[i], x[i + n_rot/2]), or (x[2i], x[2i+1]) if interleaved. In place. A pair (x, y)
     * becomes fma(x, cosine, -(y * sine)), fma(x, sine, y * cosine). */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cosine,
                 const float *sine, bool interleaved);

    /* out = gate / (1 + exp(-gate)) * up, from left to right; f32[n]; out may be gate. */
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *out);

    /* The same with GELU in its tanh form, which is gate / (1 + exp(-(gate * t))), t = 2 sqrt(2 / pi) (1 + 0.044715 gate^2) =
     * fma(gate * gate, GELU_SQUARE, GELU_ONE) of shared.h. */
    void (*gelu_mul)(const float *gate, const float *up, uint32_t n, float *out);

    /* Writes position slot (0 .. KV_PAGE-1) of a KV block. k, v: f32[head_dim]. */
    void (*kv_store)(const struct kv_shape *shape, void *block, uint32_t slot, const float *k,
                     const float *v);

    /* Attends n_q query rows to one aligned block of ATTN_BLOCK positions and merges the partial into the
     * states. pages: ATTN_BLOCK_PAGES KV blocks of one KV head; NULL where a page is not visible (dropped by
     * a window, or outside of what all rows see). At least one page that a row can see is not NULL. q: f32, row i at q + i *
     * q_stride (floats), head_dim values, not yet scaled; score = scale * q . k. visible[i]: the positions
     * of the block that row i sees; none: the row is skipped. states[i], acc + i * acc_stride
     * (floats): head_dim values rounded up to 16, padding stays 0. next_pages: like pages, the blocks that
     * will be wanted next, to be fetched meanwhile; NULL: unknown.
     *
     * The order, with the numbers of steps and dimensions that shared.h names:
     *   queries  rint(q * (QUERY_STEPS / max |q|)), worth q_d = max |q| / QUERY_STEPS each; keys and values in kv_store
     *            likewise
     *   score    dot + sum of q * k for each SCORE_CHUNK dimensions in ascending order, from 0; dot * ((q_d * scale) *
     *            k_d). With f32 keys dot = fma(q, k, dot), ascending, and dot * scale
     *   m        the largest score of what is visible; e = exp(score - m)
     *   l        lane position % 16 += e, ascending, from lanes of 0; then lane i += lane i + 8, then + 4, 2, 1
     *   weight   e * v_d; rint(weight * (WEIGHT_STEPS / largest)), worth w_d = largest / WEIGHT_STEPS each
     *   value    sum of weight * v for each page, added in ascending order, from 0; then * w_d
     *   merge    into an empty state: a copy. Else m' = the larger m, keep = exp(m - m'), take = exp(later m - m'),
     *            l = fma(l, keep, later l * take), acc = fma(acc, keep, later acc * take) */
    void (*attention)(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                      const void *const *next_pages, const float *q, size_t q_stride,
                      const struct attn_span *visible, uint32_t n_q, float scale, struct attn_state *states,
                      float *acc, size_t acc_stride);

    /* Merges the partial of a later block into an earlier state, as attention() does; n values of acc. */
    void (*attention_merge)(struct attn_state *state, float *acc, const struct attn_state *later,
                            const float *later_acc, uint32_t n);

    /* out = acc * (1 / l): one division, rounded, then a product for each of n values. The row has seen a position. */
    void (*attention_finish)(const struct attn_state *state, const float *acc, uint32_t n, float *out);
};

/* The table for this machine, chosen once by what the CPU has and the registers that the system saves; RUNNEL_CPU (ref, avx2,
 * avxvnni, avx512, amx) asks for another (an unknown or impossible one: NULL and a message of at most size bytes that names what is
 * possible, and what kernels_refused says). The first call of any of these functions asks the system for what an instruction
 * set needs, on behalf of all threads of the process: before there are other threads, if possible. */
const struct kernels *kernels_get(char *message, size_t size);

/* All tables that this machine can run, the plainest (ref) first; returns how many. They live as long as the program. */
size_t kernels_possible(const struct kernels **all);

/* An instruction set that the CPU has and the system did not let us use, and why: "amx: the system refused ..."; NULL: none. Lives
 * as long as the program. */
const char *kernels_refused(void);

#endif
