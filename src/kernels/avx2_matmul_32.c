/* avx2_matmul_32.c: products of the types with blocks of 32 values, for AVX2; built like avx2_matmul.c. Owns
 * nothing; any thread. */
#include "kernels/avx2_vectors.h"

/* The kinds of 32-blocks: values to 31 with a zero or an m; values to 255 (Q8_0). */
enum u8_kind { U8_ZERO, U8_M, U8_WIDE };

/* 32 inputs of 8 rows and one row of activations. */
INLINE __m256i u8_dot(const uint8_t *block, const uint8_t *q, const enum u8_kind kind)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i dot = _mm256_setzero_si256(), pairs = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w = load(block + 64 * g), a = broadcast(q + 4 * g);
        if (kind == U8_WIDE) { /* |w| * (a with w's sign): 2 * 128 * 127 fits 16 bits, one group at a time */
            w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
            pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
        } else { /* 4 groups fit: 4 * 2 * 31 * 128 = 31744 */
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, a));
            if (g % 4 == 3) {
                dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
                pairs = _mm256_setzero_si256();
            }
        }
    }
    return dot;
}

INLINE void u8_block(const uint8_t *d_of_rows, const uint8_t *block, uint32_t b, int half, const uint8_t *act,
                     size_t stride, int zero, const int m, const enum u8_kind kind, __m256 *sums)
{
    __m256 d = load_8_f16(d_of_rows + 16 * half);
    __m256 offset = kind == U8_M ? load_8_f16(d_of_rows + 32 + 16 * half) : d;
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
        __m256i dot = u8_dot(block + 32 * half, (const uint8_t *)a->q + 32 * b, kind);
        if (kind == U8_ZERO)
            dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(zero * a->sum32[b]));
        sums[i] =
            _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(a->d[b])), _mm256_cvtepi32_ps(dot), sums[i]);
        if (kind == U8_M)
            sums[i] = _mm256_fmadd_ps(offset, _mm256_set1_ps(a->d[b] * (float)a->sum32[b]), sums[i]);
    }
}

INLINE void u8_rows(const struct product *p, uint32_t tile, uint32_t row, const int m,
                    const enum u8_kind kind)
{
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *acts = p->acts + row * p->act_stride;
    const int zero = pack_u8_zero(p->w->type);
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += U8_BLOCK_BYTES) {
        const uint8_t *act = acts + b / 8 * sizeof(struct act_q8_32);
        for (int i = 0; i < U8_BLOCK_BYTES; i += 64)
            fetch_ahead(block + i);
        for (int half = 0; half < 2; half++)
            u8_block(d_of_blocks + (kind == U8_M ? 64 : 32) * (size_t)b, block, b % 8, half, act,
                     p->act_stride, zero, m, kind, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(u8_zero, u8_rows, U8_ZERO)
ROWS_FUNCTIONS(u8_m, u8_rows, U8_M)
ROWS_FUNCTIONS(u8_wide, u8_rows, U8_WIDE)

static rows_function *const *u8_functions(enum tensor_type type)
{
    return type == TENSOR_Q8_0 ? u8_wide : pack_u8_has_m(type) ? u8_m : u8_zero;
}

#include "kernels/matmul_body.h"

static void matmul_u8(const struct packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const void *acts,
                      size_t act_stride, uint32_t n_acts, float *out, size_t out_stride, const float *bias,
                      bool add)
{
    const struct product p = product_of(w, U8_BLOCK_VALUES, acts, act_stride, out, out_stride, bias, add);
    matmul_tiles(&p, tile_begin, tile_end, n_acts, u8_functions(w->type));
}

void avx2_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_U8] = matmul_u8;
}
