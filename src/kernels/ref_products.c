/* ref_products.c: products in plain C, as ref.c has all else. Owns nothing; any thread. */
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

/* A block of a tile is unpacked to what the formulas speak of; then each row of activations meets
 * it. */

struct unpacked {
    float w[256][TILE_ROWS];      /* by input and row; whole numbers */
    int32_t scale[16][TILE_ROWS]; /* by sub-block and row */
    int32_t min[16][TILE_ROWS];
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

static void unpack_q2_k(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + (size_t)b * Q2K_BLOCK_BYTES;
    (void)w;
    for (int row = 0; row < TILE_ROWS; row++) {
        u->d[row] = f16_to_f32(load_u16(block + 2 * row));
        u->dmin[row] = f16_to_f32(load_u16(block + Q4K_DMIN + 2 * row));
        for (int s = 0; s < 16; s++) {
            uint8_t byte = sub_block_byte(block + Q2K_SCALES + 64 * (s / 4), row, s % 4);
            u->scale[s][row] = byte & 15;
            u->min[s][row] = byte >> 4;
        }
    }
    for (int vector = 0; vector < 16; vector++) {
        const uint8_t *pairs = block + Q2K_VALUES + 64 * vector;
        int input = vector / 4 * 64 + vector % 4 * 4;
        for (int i = 0; i < 64; i++) {
            u->w[input + i % 4][i / 4] = (float)(pairs[i] & 3);
            u->w[input + 16 + i % 4][i / 4] = (float)(pairs[i] >> 6);
            u->w[input + 32 + i % 4][i / 4] = (float)(pairs[i] >> 2 & 3);
            u->w[input + 48 + i % 4][i / 4] = (float)(pairs[i] >> 4 & 3);
        }
    }
}

static void unpack_q3_k(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + pack_header_bytes(w->type, w->n_columns) + (size_t)b * Q3K_BLOCK_BYTES;
    for (int row = 0; row < TILE_ROWS; row++) {
        u->d[row] = f16_to_f32(load_u16(tile + 32 * (size_t)b + 2 * row));
        for (int s = 0; s < 4; s++) {
            uint8_t word0 = sub_block_byte(block, row, s), word1 = sub_block_byte(block + 64, row, s);
            uint8_t high = sub_block_byte(block + 128, row, s);
            u->scale[s][row] = ((word0 & 15) | (high & 3) << 4) - 32;
            u->scale[4 + s][row] = ((word1 & 15) | (high >> 2 & 3) << 4) - 32;
            u->scale[8 + s][row] = (word0 >> 4 | (high >> 4 & 3) << 4) - 32;
            u->scale[12 + s][row] = (word1 >> 4 | high >> 6 << 4) - 32;
        }
    }
    for (int pair = 0; pair < 8; pair++)
        for (int i = 0; i < 64; i++) {
            const uint8_t *place = block + Q3K_VALUES + Q3K_PAIR_BYTES * pair + i;
            int a = place[0], b4 = place[64], c = place[128];
            const int even[4] = {a & 7, b4 & 7, c & 7, (c >> 3 & 3) | (b4 >> 2 & 4)};
            const int odd[4] = {a >> 5, b4 >> 5, c >> 5, (a >> 2 & 6) | (b4 >> 3 & 1)};
            for (int j = 0; j < 4; j++) {
                u->w[32 * pair + 4 * j + i % 4][i / 4] = (float)even[j];
                u->w[32 * pair + 16 + 4 * j + i % 4][i / 4] = (float)odd[j];
            }
        }
}

static void unpack_iq4_xs(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    const uint8_t *block = tile + pack_header_bytes(w->type, w->n_columns) + (size_t)b * IQ4XS_BLOCK_BYTES;
    const int8_t *codebook = quant_codebook(w->type);
    for (int row = 0; row < TILE_ROWS; row++) {
        u->d[row] = f16_to_f32(load_u16(tile + 32 * (size_t)b + 2 * row));
        for (int s = 0; s < 8; s++)
            u->scale[s][row] = (int8_t)sub_block_byte(block + 64 * (s / 4), row, s % 4);
    }
    for (int vector = 0; vector < 32; vector++) {
        const uint8_t *nibbles = block + IQ4XS_NIBBLES + 64 * vector;
        int input = vector / 8 * 64 + vector % 8 * 4;
        for (int i = 0; i < 64; i++) {
            u->w[input + i % 4][i / 4] = (float)codebook[nibbles[i] & 15];
            u->w[input + 32 + i % 4][i / 4] = (float)codebook[nibbles[i] >> 4];
        }
    }
}

/* A pair of 32-blocks. */
static void unpack_32(const struct packed_matrix *w, const uint8_t *tile, uint32_t b, struct unpacked *u)
{
    enum tensor_type type = w->type;
    const uint8_t *pair = tile + b * pack_32_pair_bytes(type), *values = pair + pack_32_values_at(type);
    const uint8_t *fifth = values + PAIR_BITS_VECTOR;
    const int8_t *codebook = quant_codebook(type);
    int bits = pack_32_bits(type);
    for (int second = 0; second < 2; second++)
        for (int row = 0; row < TILE_ROWS; row++) {
            const uint8_t *d = pair + 32 * second + 2 * row;
            u->d_32[second][row] = pack_32_d(type, d);
            u->m_32[second][row] = pack_32_has_m(type) ? f16_to_f32(load_u16(d + PAIR_M)) : 0.0f;
        }
    for (int i = 0; i < 512; i++) {
        float *first = &u->w[i / 64 * 4 + i % 4][i % 64 / 4], *second = first + 32 * TILE_ROWS;
        int low = values[i] & 15, high = values[i] >> 4;
        if (bits == 8) {
            *first = (float)values[i];
            *second = (float)values[512 + i];
        } else if (codebook) {
            *first = (float)(codebook[low] + 128);
            *second = (float)(codebook[high] + 128);
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

static void flush_q2_k(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                       float acc[TILE_ROWS])
{
    const struct act_q8_256 *a = (const struct act_q8_256 *)act + b;
    int32_t isum[TILE_ROWS] = {0}, msum[TILE_ROWS] = {0}, dot[TILE_ROWS];
    (void)w;
    for (int s = 0; s < 16; s++) {
        dot_values(u->w + 16 * s, a->q + 16 * s, 16, dot);
        for (int row = 0; row < TILE_ROWS; row++) {
            isum[row] += u->scale[s][row] * dot[row];
            msum[row] += u->min[s][row] * a->sum16[s];
        }
    }
    for (int row = 0; row < TILE_ROWS; row++) {
        acc[row] = fmaf(u->d[row] * a->d, (float)isum[row], acc[row]);
        acc[row] = fmaf(-(u->dmin[row] * a->d), (float)msum[row], acc[row]);
    }
}

/* Q6_K and Q3_K, whose values are 32 and 4 too high. */
static void flush_q6_k(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                       float acc[TILE_ROWS])
{
    const struct act_q8_256 *a = (const struct act_q8_256 *)act + b;
    int32_t isum[TILE_ROWS] = {0}, dot[TILE_ROWS];
    const int zero = w->kind == TILE_Q3_K ? 4 : 32;
    for (int s = 0; s < 16; s++) {
        dot_values(u->w + 16 * s, a->q + 16 * s, 16, dot);
        for (int row = 0; row < TILE_ROWS; row++)
            isum[row] += u->scale[s][row] * (dot[row] - zero * a->sum16[s]);
    }
    for (int row = 0; row < TILE_ROWS; row++)
        acc[row] = fmaf(u->d[row] * a->d, (float)isum[row], acc[row]);
}

static void flush_iq4_xs(const struct packed_matrix *w, const struct unpacked *u, const void *act, uint32_t b,
                         float acc[TILE_ROWS])
{
    const struct act_q8_256 *a = (const struct act_q8_256 *)act + b;
    int32_t isum[TILE_ROWS] = {0}, dot[TILE_ROWS];
    (void)w;
    for (int s = 0; s < 8; s++) {
        dot_values(u->w + 32 * s, a->q + 32 * s, 32, dot);
        for (int row = 0; row < TILE_ROWS; row++)
            isum[row] += u->scale[s][row] * dot[row];
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

static void matmul_q2_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_q2_k, flush_q2_k);
}

static void matmul_q3_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_q3_k, flush_q6_k);
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

static void matmul_iq4_xs(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, ACT_BLOCK, unpack_iq4_xs, flush_iq4_xs);
}

static void matmul_32(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_blocks(args, tile_begin, tile_end, PAIR_VALUES, unpack_32, flush_32);
}

/* TILE_FLOAT: a piece of each row is decoded to f32, one chain of fused multiply-adds over ascending inputs. */
static void matmul_float(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct packed_matrix *w = args->w;
    const struct quant_info *info = quant_find(w->type);
    float acc[ROWS_AT_ONCE], piece[ACT_BLOCK];
    for (uint32_t column = tile_begin * TILE_ROWS; column < tile_end * TILE_ROWS && column < w->n_rows;
         column++) {
        const uint8_t *tile = w->data + column / TILE_ROWS * w->tile_bytes;
        for (uint32_t first = 0; first < args->n_acts; first += ROWS_AT_ONCE) {
            uint32_t n = args->n_acts - first < ROWS_AT_ONCE ? args->n_acts - first : ROWS_AT_ONCE;
            memset(acc, 0, sizeof acc);
            for (uint32_t begin = 0; begin < w->n_columns; begin += ACT_BLOCK) {
                uint32_t n_values = w->n_columns - begin < ACT_BLOCK ? w->n_columns - begin : ACT_BLOCK;
                for (uint32_t k = 0; k < n_values; k++)
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

void kernels_fill_ref_products(struct kernels *kernels)
{
    kernels->matmul[TILE_Q2_K] = matmul_q2_k;
    kernels->matmul[TILE_Q3_K] = matmul_q3_k;
    kernels->matmul[TILE_Q4_K] = matmul_q4_k;
    kernels->matmul[TILE_Q6_K] = matmul_q6_k;
    kernels->matmul[TILE_IQ4_XS] = matmul_iq4_xs;
    kernels->matmul[TILE_32] = matmul_32;
    kernels->matmul[TILE_Q5_K] = matmul_q5_k;
    kernels->matmul[TILE_FLOAT] = matmul_float;
}
