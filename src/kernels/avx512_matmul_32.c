/* avx512_matmul_32.c: products of the types with blocks of 32 values, for AVX-512 VNNI; built like
 * avx512_matmul.c. Owns nothing; any thread. */
#include "kernels/avx512_vectors.h"

INLINE void u8_rows(const struct product *p, uint32_t tile, uint32_t row, const int m, const bool has_m)
{
    const uint8_t *d_of_blocks = product_tile(p, tile);
    const uint8_t *block = d_of_blocks + p->header_bytes;
    const uint8_t *acts = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride, d_bytes = has_m ? 64 : 32;
    /* A pair of sums is broadcast; one of the two is wanted. */
    const __m512i zero_first = _mm512_set1_epi32(-pack_u8_zero(p->w->type) & 0xffff);
    const __m512i zero_second = _mm512_slli_epi32(zero_first, 16);
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += U8_BLOCK_BYTES) {
        const uint8_t *act = acts + b / 8 * sizeof(struct act_q8_32), *q = act + 32 * (b % 8);
        const __m512i zero = b % 2 ? zero_second : zero_first;
        __m512i dot[ROWS_AT_ONCE];
        UNROLL
        for (int g = 0; g < 8; g++)
            fetch_ahead(block + 64 * g);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
            dot[i] = _mm512_setzero_si512();
            if (!has_m)
                dot[i] = _mm512_dpwssd_epi32(dot[i], zero, broadcast(&a->sum32[b % 8 & ~1u]));
        }
        UNROLL
        for (int g = 0; g < 8; g++) {
            __m512i w = load(block + 64 * g);
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = _mm512_dpbusd_epi32(dot[i], w, broadcast(q + (size_t)i * stride + 4 * g));
        }
        __m512 d = load_f16(d_of_blocks + d_bytes * b);
        __m512 offset = has_m ? load_f16(d_of_blocks + d_bytes * b + 32) : d;
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
            float d_act = a->d[b % 8];
            sums[i] =
                _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(d_act)), _mm512_cvtepi32_ps(dot[i]), sums[i]);
            if (has_m)
                sums[i] = _mm512_fmadd_ps(offset, _mm512_set1_ps(d_act * (float)a->sum32[b % 8]), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(u8_zero, u8_rows, false)
ROWS_FUNCTIONS(u8_m, u8_rows, true)

static rows_function *const *u8_functions(enum tensor_type type)
{
    return pack_u8_has_m(type) ? u8_m : u8_zero;
}

#include "kernels/matmul_body.h"

static void matmul_u8(const struct packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const void *acts,
                      size_t act_stride, uint32_t n_acts, float *out, size_t out_stride, const float *bias,
                      bool add)
{
    const struct product p = product_of(w, U8_BLOCK_VALUES, acts, act_stride, out, out_stride, bias, add);
    matmul_tiles(&p, tile_begin, tile_end, n_acts, u8_functions(w->type));
}

void avx512_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_U8] = matmul_u8;
}
