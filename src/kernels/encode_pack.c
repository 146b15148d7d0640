/* encode_pack.c: see encode_pack.h. The layouts are those that quants.c decodes. */
#include "kernels/encode_pack.h"

#include <string.h>

#include "kernels/quants.h"

static void put_f16(uint8_t *to, float value)
{
    uint16_t half = f32_to_f16(value);
    memcpy(to, &half, sizeof half);
}

/* Blocks of 32: value j and value j + 16 share byte j ----------------------------------------------------- */

static void put_nibbles(uint8_t *to, const uint8_t *codes)
{
    for (int j = 0; j < 16; j++)
        to[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/* Bit i belongs to value i. */
static void put_fifth_bits(uint8_t *to, const uint8_t *codes)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(codes[i] >> 4) << i;
    memcpy(to, &bits, sizeof bits);
}

void encode_pack_q8_0(uint8_t *block, float d, const uint8_t *codes)
{
    put_f16(block, d);
    for (int i = 0; i < 32; i++)
        block[2 + i] = (uint8_t)(codes[i] - 127);
}

void encode_pack_q4_0(uint8_t *block, float d, const uint8_t *codes)
{
    put_f16(block, d);
    put_nibbles(block + 2, codes);
}

void encode_pack_iq4_nl(uint8_t *block, float d, const uint8_t *codes)
{
    encode_pack_q4_0(block, d, codes);
}

void encode_pack_q5_0(uint8_t *block, float d, const uint8_t *codes)
{
    put_f16(block, d);
    put_fifth_bits(block + 2, codes);
    put_nibbles(block + 6, codes);
}

void encode_pack_q4_1(uint8_t *block, float d, float m, const uint8_t *codes)
{
    put_f16(block, d);
    put_f16(block + 2, m);
    put_nibbles(block + 4, codes);
}

void encode_pack_q5_1(uint8_t *block, float d, float m, const uint8_t *codes)
{
    put_f16(block, d);
    put_f16(block + 2, m);
    put_fifth_bits(block + 4, codes);
    put_nibbles(block + 8, codes);
}

/* Blocks of 256 ------------------------------------------------------------------------------------------- */

/* The bit pairs of 256 codes: byte l of a half of 32 holds those of values l, l + 32, l + 64, l + 96. */
static void put_pairs(uint8_t *to, const uint8_t *codes, int shift)
{
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            int byte = 0;
            for (int pair = 0; pair < 4; pair++)
                byte |= (codes[128 * half + 32 * pair + l] >> shift & 3) << (2 * pair);
            to[32 * half + l] = (uint8_t)byte;
        }
}

void encode_pack_q2_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes)
{
    for (int s = 0; s < 16; s++)
        block[s] = (uint8_t)((int)scales[s] | (int)minimums[s] << 4);
    put_pairs(block + 16, codes, 0);
    put_f16(block + 80, d);
    put_f16(block + 82, dmin);
}

void encode_pack_q3_k(uint8_t *block, float d, const float *scales, const uint8_t *codes)
{
    memset(block, 0, 32);
    for (int i = 0; i < 256; i++) /* the third bit of a code: whether it is not negative */
        block[i % 32] |= (uint8_t)((codes[i] >> 2) << (i / 32));
    put_pairs(block + 32, codes, 0);
    memset(block + 96, 0, 12);
    for (int s = 0; s < 16; s++) {
        int scale = (int)scales[s] + 32;
        block[96 + s % 8] |= (uint8_t)((scale & 15) << (s / 8 * 4));
        block[104 + s % 4] |= (uint8_t)(scale >> 4 << (2 * (s / 4)));
    }
    put_f16(block + 108, d);
}

/* The eight 6-bit scales and minimums of Q4_K and Q5_K in 12 bytes. */
static void put_scales_and_minimums(uint8_t *to, const float *scales, const float *minimums)
{
    for (int s = 0; s < 4; s++) {
        int upper_scale = (int)scales[s + 4], upper_minimum = (int)minimums[s + 4];
        to[s] = (uint8_t)((int)scales[s] | upper_scale >> 4 << 6);
        to[s + 4] = (uint8_t)((int)minimums[s] | upper_minimum >> 4 << 6);
        to[s + 8] = (uint8_t)((upper_scale & 15) | (upper_minimum & 15) << 4);
    }
}

/* Each run of 32 bytes holds sub-block 2p in its low and 2p + 1 in its high nibbles. */
static void put_nibbles_of_subs(uint8_t *to, const uint8_t *codes)
{
    for (int pair = 0; pair < 4; pair++)
        for (int j = 0; j < 32; j++)
            to[32 * pair + j] =
                (uint8_t)((codes[64 * pair + j] & 15) | (codes[64 * pair + 32 + j] & 15) << 4);
}

void encode_pack_q4_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes)
{
    put_f16(block, d);
    put_f16(block + 2, dmin);
    put_scales_and_minimums(block + 4, scales, minimums);
    put_nibbles_of_subs(block + 16, codes);
}

void encode_pack_q5_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes)
{
    put_f16(block, d);
    put_f16(block + 2, dmin);
    put_scales_and_minimums(block + 4, scales, minimums);
    for (int j = 0; j < 32; j++) {
        int fifth = 0;
        for (int sub = 0; sub < 8; sub++)
            fifth |= (codes[32 * sub + j] >> 4) << sub;
        block[16 + j] = (uint8_t)fifth;
    }
    put_nibbles_of_subs(block + 48, codes);
}

void encode_pack_q6_k(uint8_t *block, float d, const float *scales, const uint8_t *codes)
{
    for (int half = 0; half < 2; half++) /* byte l of a half: values l and l + 64 of its 128 */
        for (int l = 0; l < 64; l++)
            block[64 * half + l] =
                (uint8_t)((codes[128 * half + l] & 15) | (codes[128 * half + 64 + l] & 15) << 4);
    put_pairs(block + 128, codes, 4);
    for (int s = 0; s < 16; s++)
        block[192 + s] = (uint8_t)(int8_t)scales[s];
    put_f16(block + 208, d);
}

void encode_pack_iq4_xs(uint8_t *block, float d, const float *scales, const uint8_t *codes)
{
    int upper = 0;
    put_f16(block, d);
    memset(block + 4, 0, 4);
    for (int s = 0; s < 8; s++) {
        int scale = (int)scales[s] + 32;
        block[4 + s / 2] |= (uint8_t)((scale & 15) << (s % 2 * 4));
        upper |= scale >> 4 << (2 * s);
        put_nibbles(block + 8 + 16 * s, codes + 32 * s);
    }
    block[2] = (uint8_t)upper;
    block[3] = (uint8_t)(upper >> 8);
}
