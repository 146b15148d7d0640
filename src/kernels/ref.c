/* ref.c: the kernels in plain C. They run anywhere and say what the other instruction sets must compute;
 * clear first, fast second. Owns nothing; any thread. */
#include "kernels/levels.h"
#include "kernels/pack.h"
#include "kernels/shared.h"

enum {
    ROWS_AT_ONCE = 32, /* rows of activations for which a tile's block is unpacked once */
};

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* Activations. */

static uint32_t largest_bits(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Quantises n of up to `whole` values; the rest are zero. Returns d. */
static float quantize_values(const float *x, uint32_t n, uint32_t whole, int8_t *q)
{
    struct act_scale scale = act_scale_of(largest_bits(x, n));
    memset(q, 0, whole);
    if (scale.inverse != 0.0f)
        for (uint32_t i = 0; i < n; i++)
            q[i] = (int8_t)rintf(x[i] * scale.inverse);
    return scale.d;
}

static int16_t sum_values(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i];
    return (int16_t)sum;
}

static uint16_t sum_magnitudes(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i] < 0 ? -q[i] : q[i];
    return (uint16_t)sum;
}

static void quantize_q8_256(const float *x, uint32_t n, void *row)
{
    struct act_q8_256 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        uint32_t n_here = n - begin < ACT_BLOCK ? n - begin : ACT_BLOCK;
        memset(block, 0, sizeof *block);
        block->d = quantize_values(x + begin, n_here, ACT_BLOCK, block->q);
        for (int i = 0; i < 16; i++) {
            block->sum16[i] = sum_values(block->q + 16 * i, 16);
            uint16_t magnitudes = sum_magnitudes(block->q + 16 * i, 16);
            block->largest_sum16 = magnitudes > block->largest_sum16 ? magnitudes : block->largest_sum16;
        }
        for (int i = 0; i < 8; i++)
            block->sum32[i] = sum_values(block->q + 32 * i, 32);
    }
}

static void quantize_q8_32(const float *x, uint32_t n, void *row)
{
    struct act_q8_32 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        memset(block, 0, sizeof *block);
        for (uint32_t i = 0; i < 8 && begin + 32 * i < n; i++) {
            uint32_t n_left = n - begin - 32 * i;
            block->d[i] =
                quantize_values(x + begin + 32 * i, n_left < 32 ? n_left : 32, 32, block->q + 32 * i);
            int sum = sum_values(block->q + 32 * i, 32);
            block->d_sum[i] = block->d[i] * (float)sum;
            block->offset[i] = -128 * sum;
        }
    }
}

/* Products. A block of a tile is unpacked to what the formulas speak of; then each row of activations meets
 * it. */

struct unpacked {
    float w[256][TILE_ROWS];      /* by input and row; unsigned whole numbers */
    int32_t scale[16][TILE_ROWS]; /* by sub-block and row */
    int32_t min[8][TILE_ROWS];
    float d[TILE_ROWS], dmin[TILE_ROWS];
    float d_32[2][TILE_ROWS], m_32[2][TILE_ROWS]; /* of a pair of 32-blocks */
};

/* The byte of sub-block s (of 4 in a word) in pack.h's order 0 2 1 3. */
static uint8_t sub_block_byte(const uint8_t *vector, int row, int s)
{
    static const int place[4] = {0, 2, 1, 3};
    return vector[4 * row + place[s]];
}

static void unpack_k_scales(const uint8_t *block, struct unpacked *u)
{
    const uint8_t *words = block + Q4K_SCALES;
    for (int row = 0; row < TILE_ROWS; row++) {
        u->d[row] = f16_to_f32(load_u16(block + 2 * row));
        u->dmin[row] = f16_to_f32(load_u16(block + Q4K_DMIN + 2 * row));
        for (int s = 0; s < 4; s++) {
            uint8_t word0 = sub_block_byte(words, row, s), word1 = sub_block_byte(words + 64, row, s);
            uint8_t word2 = sub_block_byte(words + 128, row, s);
            u->scale[s][row] = word0 & 63;
            u->min[s][row] = word1 & 63;
            u->scale[4 + s][row] = (word2 & 15) | word0 >> 6 << 4;
            u->min[4 + s][row] = word2 >> 4 | word1 >> 6 << 4;
        }
    }
}

static void unpack_q4_k(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + (size_t)b * Q4K_BLOCK_BYTES;
    (void)w;
    unpack_k_scales(block, u);
    for (int vector = 0; vector < 32; vector++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 64 * vector;
        int input = vector / 8 * 64 + vector % 8 * 4;
        for (int i = 0; i < 64; i++) {
            u->w[input + i % 4][i / 4] = (float)(nibbles[i] & 15);
            u->w[input + 32 + i % 4][i / 4] = (float)(nibbles[i] >> 4);
        }
    }
}

static void unpack_q5_k(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + (size_t)b * Q5K_BLOCK_BYTES;
    (void)w;
    unpack_k_scales(block, u);
    for (int vector = 0; vector < 32; vector++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 64 * vector;
        const uint8_t *bits = block + Q5K_BITS + 128 * (vector / 8);
        int group = vector % 8, input = vector / 8 * 64 + group * 4;
        for (int i = 0; i < 64; i++) {
            u->w[input + i % 4][i / 4] = (float)((nibbles[i] & 15) | (bits[i] >> group & 1) << 4);
            u->w[input + 32 + i % 4][i / 4] = (float)(nibbles[i] >> 4 << 1 | (bits[64 + i] >> group & 1));
        }
    }
}

static void unpack_q6_k(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + pack_header_bytes(w->type, w->n_columns) + (size_t)b * Q6K_BLOCK_BYTES;
    for (int row = 0; row < TILE_ROWS; row++) {
        u->d[row] = f16_to_f32(load_u16(tile + 32 * (size_t)b + 2 * row));
        for (int s = 0; s < 16; s++)
            u->scale[s][row] = (int8_t)sub_block_byte(block + 64 * (s / 4), row, s % 4);
    }
    for (int j = 0; j < 16; j++) {
        const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * (j / 4);
        const uint8_t *first = chunk + 64 * (j % 4), *second = first + 256, *pairs = first + 512;
        int input = j / 4 * 64 + j % 4 * 4;
        for (int i = 0; i < 64; i++) {
            u->w[input + i % 4][i / 4] = (float)((first[i] & 0x0f) | (pairs[i] & 0x30));
            u->w[input + 16 + i % 4][i / 4] = (float)(first[i] >> 4 << 2 | (pairs[i] >> 2 & 3));
            u->w[input + 32 + i % 4][i / 4] = (float)((second[i] & 0x0f) | (pairs[i] >> 2 & 0x30));
            u->w[input + 48 + i % 4][i / 4] = (float)(second[i] >> 4 << 2 | (pairs[i] & 3));
        }
    }
}

/* A pair of 32-blocks. */
static void unpack_32(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    enum tensor_type type = w->type;
    const uint8_t *pair = tile + b * pack_32_pair_bytes(type), *values = pair + pack_32_values_at(type);
    const uint8_t *fifth = values + PAIR_BITS_VECTOR;
    int bits = pack_32_bits(type);
    for (int second = 0; second < 2; second++)
        for (int row = 0; row < TILE_ROWS; row++) {
            const uint8_t *d = pair + 32 * second + 2 * row;
            u->d_32[second][row] = f16_to_f32(load_u16(d));
            u->m_32[second][row] = pack_32_has_m(type) ? f16_to_f32(load_u16(d + PAIR_M)) : 0.0f;
        }
    for (int i = 0; i < 512; i++) {
        float *first = &u->w[i / 64 * 4 + i % 4][i % 64 / 4], *second = first + 32 * TILE_ROWS;
        int low = values[i] & 15, high = values[i] >> 4;
        if (bits == 8) {
            *first = (float)values[i];
            *second = (float)values[512 + i];
        } else if (bits == 5) {
            *first = (float)(low | (fifth[i % 64] >> i / 64 & 1) << 4);
            *second = (float)(high << 1 | (fifth[64 + i % 64] >> i / 64 & 1));
        } else {
            *first = (float)low;
            *second = (float)high;
        }
    }
}

/* Whole numbers below 2^24 are exact in floats (at most 32 * 255 * 128 here), and compilers multiply floats well. */
typedef float lanes16 __attribute__((vector_size(64)));

static void dot_values(const float (*w)[TILE_ROWS], const int8_t *q, int n, int32_t dot[TILE_ROWS])
{
    lanes16 sum = {0};
    for (int i = 0; i < n; i++) {
        lanes16 weights;
        memcpy(&weights, w[i], sizeof weights);
        sum += weights * (float)q[i];
    }
    for (int row = 0; row < TILE_ROWS; row++)
        dot[row] = (int32_t)sum[row];
}

static void flush_q4_k(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                       float acc[TILE_ROWS])
{
    const struct act_q8_256 *a = (const struct act_q8_256 *)act + b;
    int32_t isum[TILE_ROWS] = {0}, msum[TILE_ROWS] = {0}, dot[TILE_ROWS];
    (void)w;
    for (int s = 0; s < 8; s++) {
        dot_values(u->w + 32 * s, a->q + 32 * s, 32, dot);
        for (int row = 0; row < TILE_ROWS; row++) {
            isum[row] += u->scale[s][row] * dot[row];
            msum[row] += u->min[s][row] * a->sum32[s];
        }
    }
    for (int row = 0; row < TILE_ROWS; row++) {
        acc[row] = fmaf(u->d[row] * a->d, (float)isum[row], acc[row]);
        acc[row] = fmaf(-(u->dmin[row] * a->d), (float)msum[row], acc[row]);
    }
}

static void flush_q6_k(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                       float acc[TILE_ROWS])
{
    const struct act_q8_256 *a = (const struct act_q8_256 *)act + b;
    int32_t isum[TILE_ROWS] = {0}, dot[TILE_ROWS];
    (void)w;
    for (int s = 0; s < 16; s++) {
        dot_values(u->w + 16 * s, a->q + 16 * s, 16, dot);
        for (int row = 0; row < TILE_ROWS; row++)
            isum[row] += u->scale[s][row] * (dot[row] - 32 * a->sum16[s]);
    }
    for (int row = 0; row < TILE_ROWS; row++)
        acc[row] = fmaf(u->d[row] * a->d, (float)isum[row], acc[row]);
}

static void flush_32(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                     float acc[TILE_ROWS])
{
    const struct act_q8_32 *a = (const struct act_q8_32 *)act + b / 4;
    int zero = pack_32_zero(w->type);
    int32_t dot[TILE_ROWS];
    for (uint32_t second = 0; second < 2; second++) {
        uint32_t i = b % 4 * 2 + second;
        dot_values(u->w + 32 * second, a->q + 32 * i, 32, dot);
        for (int row = 0; row < TILE_ROWS; row++) {
            int32_t isum = dot[row] + zero * (a->offset[i] / 128);
            acc[row] = fmaf(u->d_32[second][row] * a->d[i], (float)isum, acc[row]);
            if (pack_32_has_m(w->type))
                acc[row] = fmaf(u->m_32[second][row], a->d_sum[i], acc[row]);
        }
    }
}

typedef void unpack_function(const struct packed_matrix *w, const uint8_t *tile, uint32_t b,
                             struct unpacked *u);
typedef void flush_function(const struct packed_matrix *w, const struct unpacked *u, const void *act,
                            uint32_t b, float acc[TILE_ROWS]);

static void store_tile(const struct packed_matrix *w, uint32_t tile, const float acc[TILE_ROWS], float *out,
                       const float *bias, bool add)
{
    uint32_t begin = tile * TILE_ROWS;
    for (uint32_t row = 0; row < TILE_ROWS && begin + row < w->n_rows; row++)
        store_output(out + begin + row, acc[row], bias ? bias + begin + row : NULL, add);
}

static const uint8_t *act_row(const struct matmul_args *args, uint32_t row)
{
    return (const uint8_t *)args->acts + row * args->act_stride;
}

static void matmul_blocks(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end,
                          uint32_t block_values, unpack_function *unpack, flush_function *flush)
{
    const struct packed_matrix *w = args->w;
    struct unpacked unpacked;
    float acc[ROWS_AT_ONCE][TILE_ROWS];
    for (uint32_t tile = tile_begin; tile < tile_end; tile++) {
        const uint8_t *data = w->data + tile * w->tile_bytes;
        for (uint32_t first = 0; first < args->n_acts; first += ROWS_AT_ONCE) {
            uint32_t n = args->n_acts - first < ROWS_AT_ONCE ? args->n_acts - first : ROWS_AT_ONCE;
            memset(acc, 0, sizeof acc);
            for (uint32_t b = 0; b < (w->n_columns + block_values - 1) / block_values; b++) {
                unpack(w, data, b, &unpacked);
                for (uint32_t i = 0; i < n; i++)
                    flush(w, &unpacked, act_row(args, first + i), b, acc[i]);
            }
            for (uint32_t i = 0; i < n; i++)
                store_tile(w, tile, acc[i], args->out + (first + i) * args->out_stride, args->bias,
                           args->add);
        }
    }
}

static void matmul_q4_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_q4_k, flush_q4_k);
}

static void matmul_q5_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_q5_k, flush_q4_k);
}

static void matmul_q6_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_q6_k, flush_q6_k);
}

static void matmul_32(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, PAIR_VALUES, unpack_32, flush_32);
}

/* TILE_FLOAT and TILE_FILE: a piece of each row is decoded to f32, one chain of fused multiply-adds over ascending inputs. */
static void matmul_float(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct packed_matrix *w = args->w;
    const struct quant_info *info = quant_find(w->type);
    size_t row_bytes = (size_t)(w->n_columns / info->block_values) * info->block_bytes;
    float acc[ROWS_AT_ONCE], piece[ACT_BLOCK];
    for (uint32_t column = tile_begin * TILE_ROWS; column < tile_end * TILE_ROWS && column < w->n_rows;
         column++) {
        const uint8_t *tile = w->data + column / TILE_ROWS * w->tile_bytes;
        for (uint32_t first = 0; first < args->n_acts; first += ROWS_AT_ONCE) {
            uint32_t n = args->n_acts - first < ROWS_AT_ONCE ? args->n_acts - first : ROWS_AT_ONCE;
            memset(acc, 0, sizeof acc);
            for (uint32_t begin = 0; begin < w->n_columns; begin += ACT_BLOCK) {
                uint32_t n_values = w->n_columns - begin < ACT_BLOCK ? w->n_columns - begin : ACT_BLOCK;
                if (w->kind == TILE_FILE)
                    quant_decode(w->type,
                                 tile + column % TILE_ROWS * row_bytes +
                                     (size_t)(begin / info->block_values) * info->block_bytes,
                                 n_values, piece);
                for (uint32_t k = 0; w->kind == TILE_FLOAT && k < n_values; k++)
                    quant_decode(w->type,
                                 tile + ((size_t)(begin + k) * TILE_ROWS + column % TILE_ROWS) *
                                            info->block_bytes,
                                 1, &piece[k]);
                for (uint32_t i = 0; i < n; i++) {
                    const float *x = (const float *)act_row(args, first + i) + begin;
                    for (uint32_t k = 0; k < n_values; k++)
                        acc[i] = fmaf(piece[k], x[k], acc[i]);
                }
            }
            for (uint32_t i = 0; i < n; i++)
                store_output(args->out + (first + i) * args->out_stride + column, acc[i],
                             args->bias ? args->bias + column : NULL, args->add);
        }
    }
}

/* The rest of a layer. */

static void rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    float lanes[16] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    float scale = 1.0f / sqrtf(sum_lanes(lanes) / (float)n + epsilon);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cosine,
                 const float *sine, bool interleaved)
{
    rope_plain(x, n_heads, head_dim, n_rot, cosine, sine, interleaved);
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + exp_f32(-gate[i])) * up[i];
}

/* To whole numbers of up to `steps`. Returns d. */
static float round_to_steps(const float *x, uint32_t n, int steps, int16_t *whole)
{
    struct act_scale scale = whole_scale_of(largest_bits(x, n), steps);
    for (uint32_t i = 0; i < n; i++)
        whole[i] = scale.inverse != 0.0f ? (int16_t)rintf(x[i] * scale.inverse) : 0;
    return scale.d;
}

static void kv_store(const struct kv_shape *shape, void *block, uint32_t slot, const float *k, const float *v)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    uint8_t *bytes = block;
    int16_t whole[KV_HEAD_DIM_MAX] = {0};
    float v_scale = round_to_steps(v, shape->head_dim, VALUE_STEPS, whole);
    kv_scatter_v((int16_t *)(bytes + kv_k_bytes(shape)), slot, whole, padded);
    ((float *)(bytes + v_scales_at(shape)))[slot] = v_scale;
    if (shape->k_f32) {
        for (uint32_t i = 0; i < shape->head_dim; i++)
            ((float *)block)[i * KV_PAGE + slot] = k[i];
        return;
    }
    ((float *)(bytes + k_scales_at(shape)))[slot] = round_to_steps(k, shape->head_dim, KEY_STEPS, whole);
    kv_scatter_k(block, slot, whole, shape->head_dim);
}

/* q * k at one position, times scale. */
static float score_f32(const struct kv_shape *shape, const void *page, uint32_t slot, const float *q,
                       float scale)
{
    float dot = 0.0f;
    for (uint32_t i = 0; i < shape->head_dim; i++)
        dot = fmaf(q[i], ((const float *)page)[(size_t)i * KV_PAGE + slot], dot);
    return dot * scale;
}

/* The same in whole numbers: q_scale is what a one of q is worth, times scale. */
static float score_whole(const struct kv_shape *shape, const void *page, uint32_t slot, const int16_t *q,
                         float q_scale)
{
    float dot = 0.0f;
    for (uint32_t begin = 0; begin < shape->head_dim; begin += SCORE_CHUNK) {
        int32_t sum = 0;
        for (uint32_t i = begin; i < shape->head_dim && i < begin + SCORE_CHUNK; i++)
            sum += q[i] * ((const int16_t *)page)[k_at(i, slot)];
        dot += (float)sum;
    }
    float k_scale = ((const float *)((const uint8_t *)page + k_scales_at(shape)))[slot];
    return dot * (q_scale * k_scale);
}

/* weights * V at 16 dimensions from `begin` on. */
static void add_values(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                       const int16_t *weights, uint32_t n_visible, uint32_t begin, float values[16])
{
    for (uint32_t page = 0; page * KV_PAGE < n_visible; page++) {
        int32_t sums[16] = {0};
        if (!pages[page])
            continue;
        const int16_t *v = (const int16_t *)((const uint8_t *)pages[page] + kv_k_bytes(shape));
        for (uint32_t slot = 0; slot < KV_PAGE && page * KV_PAGE + slot < n_visible; slot++)
            for (uint32_t j = 0; j < 16; j++)
                sums[j] += weights[page * KV_PAGE + slot] * v[v_at(begin + j, slot)];
        for (uint32_t j = 0; j < 16; j++)
            values[j] += (float)sums[j];
    }
}

/* One query row: the block's partial from scratch, then the merge. Lanes of sums are positions modulo 16. */
static void attend(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES], const float *q,
                   uint32_t n_visible, float scale, struct attn_state *state, float *acc)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    float p[ATTN_BLOCK] = {0}, lanes[16] = {0};
    int16_t q_whole[KV_HEAD_DIM_MAX], weights[ATTN_BLOCK];
    struct attn_state partial = {-INFINITY, 0.0f};
    float q_scale = round_to_steps(q, shape->head_dim, QUERY_STEPS, q_whole) * scale;
    for (uint32_t i = 0; i < n_visible; i++) {
        const void *page = pages[i / KV_PAGE];
        if (!page)
            continue;
        p[i] = shape->k_f32 ? score_f32(shape, page, i % KV_PAGE, q, scale)
                            : score_whole(shape, page, i % KV_PAGE, q_whole, q_scale);
        partial.m = p[i] > partial.m ? p[i] : partial.m;
    }
    for (uint32_t i = 0; i < n_visible; i++) {
        if (!pages[i / KV_PAGE])
            continue;
        const uint8_t *scales = (const uint8_t *)pages[i / KV_PAGE] + v_scales_at(shape);
        p[i] = exp_f32(p[i] - partial.m);
        lanes[i % 16] += p[i];
        p[i] *= ((const float *)scales)[i % KV_PAGE]; /* a value's scale joins its weight */
    }
    partial.l = sum_lanes(lanes);
    float weight_scale = round_to_steps(p, n_visible, WEIGHT_STEPS, weights);

    float keep, take;
    enum merge_case merge_case = merge_states(state, &partial, &keep, &take);
    for (uint32_t begin = 0; begin < padded; begin += 16) {
        float values[16] = {0};
        add_values(shape, pages, weights, n_visible, begin, values);
        for (uint32_t j = 0; j < 16; j++)
            values[j] *= weight_scale;
        merge_values(merge_case, acc + begin, values, 16, keep, take);
    }
}

static void attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                      const void *const *next_pages, const float *q, size_t q_stride,
                      const uint32_t *n_visible, uint32_t n_q, float scale, struct attn_state *states,
                      float *acc, size_t acc_stride)
{
    (void)next_pages;
    for (uint32_t i = 0; i < n_q; i++)
        if (n_visible[i] > 0)
            attend(shape, pages, q + i * q_stride, n_visible[i], scale, &states[i], acc + i * acc_stride);
}

static void attention_merge(struct attn_state *state, float *acc, const struct attn_state *later,
                            const float *later_acc, uint32_t n)
{
    attention_merge_plain(state, acc, later, later_acc, n);
}

void kernels_fill_ref(struct kernels *kernels)
{
    *kernels = (struct kernels){
        .name = "ref",
        .n_rows_together = 8,
        .n_rows_prompt = 32, /* Zen 4: a row takes the same from 12 rows on, and slightly more past 96 */
        .quantize =
            {[ACT_Q8_256] = quantize_q8_256, [ACT_Q8_32] = quantize_q8_32, [ACT_F32] = quantize_f32_plain},
        .matmul = {[TILE_Q4_K] = matmul_q4_k,
                   [TILE_Q6_K] = matmul_q6_k,
                   [TILE_32] = matmul_32,
                   [TILE_Q5_K] = matmul_q5_k,
                   [TILE_FLOAT] = matmul_float,
                   [TILE_FILE] = matmul_float},
        .rms_norm = rms_norm,
        .rope = rope,
        .silu_mul = silu_mul,
        .kv_store = kv_store,
        .attention = attention,
        .attention_merge = attention_merge,
    };
}
