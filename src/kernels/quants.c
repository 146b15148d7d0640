/* quants.c: names, block shapes and exact decoding of the tensor types.
 *
 * Every formula is written as the format defines it, value by value, in float, without fused operations: this
 * is the reference for packing and for the kernels, not a fast path. Blocks may lie at any address, so scales
 * are fetched by memcpy. Owns nothing; any thread.
 *
 * Legend, as used below: d and m are a block's scale and minimum (f16); q is the integer of one value; a
 * block of 256 values has 8 sub-blocks of 32 or 16 of 16, each with an integer scale. */
#include "kernels/quants.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF data is read as it lies in the file: a little-endian machine is needed"
#endif

static const struct quant_info types[] = {
    {TENSOR_F32, "F32", 1, 4},       {TENSOR_F16, "F16", 1, 2},         {TENSOR_BF16, "BF16", 1, 2},
    {TENSOR_Q8_0, "Q8_0", 32, 34},   {TENSOR_Q4_0, "Q4_0", 32, 18},     {TENSOR_Q4_1, "Q4_1", 32, 20},
    {TENSOR_Q5_0, "Q5_0", 32, 22},   {TENSOR_Q5_1, "Q5_1", 32, 24},     {TENSOR_Q4_K, "Q4_K", 256, 144},
    {TENSOR_Q5_K, "Q5_K", 256, 176}, {TENSOR_Q6_K, "Q6_K", 256, 210},   {TENSOR_Q2_K, "Q2_K", 256, 84},
    {TENSOR_Q3_K, "Q3_K", 256, 110}, {TENSOR_IQ4_NL, "IQ4_NL", 32, 18}, {TENSOR_IQ4_XS, "IQ4_XS", 256, 136},
    {TENSOR_MXFP4, "MXFP4", 32, 17},
};

const struct quant_info *quant_find(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint32_t)types[i].type == type)
            return &types[i];
    return NULL;
}

const char *quant_known_names(void)
{
    return "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_K, Q3_K, IQ4_NL, IQ4_XS, "
           "MXFP4";
}

/* Finer where weights are frequent, and not quite even on both sides. */
static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

/* Twice the value of a float of 4 bits: a sign, two bits of exponent, one of mantissa. */
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

const int8_t *quant_codebook(enum tensor_type type)
{
    if (type == TENSOR_IQ4_NL || type == TENSOR_IQ4_XS)
        return iq4_values;
    return type == TENSOR_MXFP4 ? mxfp4_values : NULL;
}

/* Half floats --------------------------------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 0x1f;
    uint32_t mantissa = half & 0x3ff;
    if (exponent ==
        0x1f) /* infinity, or a NaN, which becomes a quiet one as the processor's conversion makes it */
        return float_of_bits(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact in f32 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value)
{
    uint32_t bits = bits_of_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: quiet, with the payload's upper bits */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520, half way from the largest f16 to the next step, and all above */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) { /* below 2^-14: a subnormal, a whole number of 2^-24 */
        /* Adding 0.5 leaves exactly 24 bits after the binary point, so the addition itself rounds to nearest
         * even. */
        float shifted = float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - bits_of_float(0.5f)));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfff + odd) >> 13));
}

float bf16_to_f32(uint16_t value)
{
    return float_of_bits((uint32_t)value << 16);
}

float e8m0_half_to_f32(uint8_t exponent)
{
    /* 2^-128 and 2^-127 are subnormal: one bit of the mantissa */
    return float_of_bits(exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23);
}

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint32_t load_u32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static float load_f16(const uint8_t *p)
{
    return f16_to_f32(load_u16(p));
}

/* Blocks of 32: value j and value j + 16 share byte j ----------------------------------------------------- */

/* d f16, 16 bytes of nibbles: (q - 8) d */
static void decode_q4_0(const uint8_t *block, float *out)
{
    float d = load_f16(block);
    for (int j = 0; j < 16; j++) {
        out[j] = (float)((block[2 + j] & 15) - 8) * d;
        out[j + 16] = (float)((block[2 + j] >> 4) - 8) * d;
    }
}

/* d f16, m f16, 16 bytes of nibbles: q d + m */
static void decode_q4_1(const uint8_t *block, float *out)
{
    float d = load_f16(block), m = load_f16(block + 2);
    for (int j = 0; j < 16; j++) {
        out[j] = (float)(block[4 + j] & 15) * d + m;
        out[j + 16] = (float)(block[4 + j] >> 4) * d + m;
    }
}

/* d f16, 32 fifth bits (bit i belongs to value i), 16 bytes of nibbles: (q - 16) d */
static void decode_q5_0(const uint8_t *block, float *out)
{
    float d = load_f16(block);
    uint32_t high = load_u32(block + 2);
    for (int j = 0; j < 16; j++) {
        int low = (block[6 + j] & 15) | (int)(high >> j & 1) << 4;
        int up = (block[6 + j] >> 4) | (int)(high >> (j + 16) & 1) << 4;
        out[j] = (float)(low - 16) * d;
        out[j + 16] = (float)(up - 16) * d;
    }
}

/* d f16, m f16, 32 fifth bits, 16 bytes of nibbles: q d + m */
static void decode_q5_1(const uint8_t *block, float *out)
{
    float d = load_f16(block), m = load_f16(block + 2);
    uint32_t high = load_u32(block + 4);
    for (int j = 0; j < 16; j++) {
        int low = (block[8 + j] & 15) | (int)(high >> j & 1) << 4;
        int up = (block[8 + j] >> 4) | (int)(high >> (j + 16) & 1) << 4;
        out[j] = (float)low * d + m;
        out[j + 16] = (float)up * d + m;
    }
}

/* d f16, 32 int8: q d */
static void decode_q8_0(const uint8_t *block, float *out)
{
    float d = load_f16(block);
    for (int j = 0; j < 32; j++)
        out[j] = (float)(int8_t)block[2 + j] * d;
}

/* 32 values from 16 bytes of nibbles and what these stand for: value d. Value j and value j + 16 share byte j. */
static void decode_codebook(const int8_t values[16], const uint8_t *nibbles, float d, float *out)
{
    for (int j = 0; j < 16; j++) {
        out[j] = (float)values[nibbles[j] & 15] * d;
        out[j + 16] = (float)values[nibbles[j] >> 4] * d;
    }
}

/* d f16, 16 bytes of nibbles */
static void decode_iq4_nl(const uint8_t *block, float *out)
{
    decode_codebook(iq4_values, block + 2, load_f16(block), out);
}

/* d an exponent, 16 bytes of nibbles */
static void decode_mxfp4(const uint8_t *block, float *out)
{
    decode_codebook(mxfp4_values, block + 1, e8m0_half_to_f32(block[0]), out);
}

/* Blocks of 256 ------------------------------------------------------------------------------------------- */

/* 16 bytes (scale: low nibble, minimum: high nibble), 64 bytes of 2-bit values, d f16, dmin f16:
 * (d scale) q - dmin minimum. Byte l of a half of 32 holds in its bit pairs values l, l + 32, l + 64, l + 96.
 */
static void decode_q2_k(const uint8_t *block, float *out)
{
    const uint8_t *quants = block + 16;
    float d = load_f16(block + 80), dmin = load_f16(block + 82);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, pair = i / 32 % 4;
        uint8_t scale = block[i / 16];
        int q = quants[half * 32 + i % 32] >> (2 * pair) & 3;
        out[i] = d * (float)(scale & 15) * (float)q - dmin * (float)(scale >> 4);
    }
}

/* 32 bytes of third bits, 64 bytes of low bit pairs, 12 bytes of sixteen 6-bit scales, d f16: d (scale - 32)
 * q, where q is the bit pair, less 4 if the third bit is clear. Third bit of value i: bit i / 32 of byte i
 * % 32. */
static void decode_q3_k(const uint8_t *block, float *out)
{
    const uint8_t *third = block, *pairs = block + 32, *packed = block + 96;
    float d = load_f16(block + 108);
    for (int i = 0; i < 256; i++) {
        int s = i / 16; /* scales: four bits from bytes 0 .. 7 (low nibbles first), two from bytes 8 .. 11 */
        int scale = (s < 8 ? packed[s] & 15 : packed[s - 8] >> 4) | (packed[8 + s % 4] >> (2 * (s / 4)) & 3)
                                                                        << 4;
        int q = pairs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
        if (!(third[i % 32] >> (i / 32) & 1))
            q -= 4;
        out[i] = d * (float)(scale - 32) * (float)q;
    }
}

/* The eight 6-bit scales and minimums that Q4_K and Q5_K keep in 12 bytes: those of sub-blocks 0 .. 3 in the
 * low six bits of bytes 0 .. 3 and 4 .. 7; those of 4 .. 7 as nibbles of bytes 8 .. 11 and the upper two bits
 * of the others. */
static void unpack_scale_and_minimum(const uint8_t *packed, int sub, int *scale, int *minimum)
{
    if (sub < 4) {
        *scale = packed[sub] & 63;
        *minimum = packed[sub + 4] & 63;
    } else {
        *scale = (packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4;
        *minimum = (packed[sub + 4] >> 4) | (packed[sub] >> 6) << 4;
    }
}

/* d f16, dmin f16, 12 bytes of scales and minimums, 128 bytes of nibbles: (d scale) q - dmin minimum. Each
 * run of 32 bytes holds sub-block 2p in its low and 2p + 1 in its high nibbles. */
static void decode_q4_k(const uint8_t *block, float *out)
{
    float d = load_f16(block), dmin = load_f16(block + 2);
    for (int sub = 0; sub < 8; sub++) {
        int scale, minimum;
        unpack_scale_and_minimum(block + 4, sub, &scale, &minimum);
        const uint8_t *quants = block + 16 + sub / 2 * 32;
        float sub_d = d * (float)scale, sub_m = dmin * (float)minimum;
        for (int j = 0; j < 32; j++)
            out[sub * 32 + j] = sub_d * (float)(quants[j] >> (sub % 2 * 4) & 15) - sub_m;
    }
}

/* As Q4_K, with 32 bytes of fifth bits (bit sub of byte j) between the scales and the nibbles. */
static void decode_q5_k(const uint8_t *block, float *out)
{
    float d = load_f16(block), dmin = load_f16(block + 2);
    const uint8_t *fifth = block + 16;
    for (int sub = 0; sub < 8; sub++) {
        int scale, minimum;
        unpack_scale_and_minimum(block + 4, sub, &scale, &minimum);
        const uint8_t *quants = block + 48 + sub / 2 * 32;
        float sub_d = d * (float)scale, sub_m = dmin * (float)minimum;
        for (int j = 0; j < 32; j++) {
            int q = (quants[j] >> (sub % 2 * 4) & 15) | (fifth[j] >> sub & 1) << 4;
            out[sub * 32 + j] = sub_d * (float)q - sub_m;
        }
    }
}

/* 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 int8 scales, d f16: (d scale) (q - 32). In each
 * half of 128 values, byte l of the nibbles holds values l and l + 64, byte l of the pairs values l, l + 32,
 * l + 64, l + 96. */
static void decode_q6_k(const uint8_t *block, float *out)
{
    float d = load_f16(block + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i / 32 % 4, within = i % 128;
        int low = block[half * 64 + within % 64] >> (within / 64 * 4) & 15;
        int high = block[128 + half * 32 + i % 32] >> (2 * quarter) & 3;
        int8_t scale = (int8_t)block[192 + i / 16];
        out[i] = d * (float)scale * (float)((low | high << 4) - 32);
    }
}

/* d f16, the upper two bits of eight 6-bit scales (u16), their lower four (4 bytes, low nibbles first), 128 bytes of
 * nibbles: d (scale - 32) times what the nibble stands for. Sub-block s is 16 bytes of nibbles. */
static void decode_iq4_xs(const uint8_t *block, float *out)
{
    float d = load_f16(block);
    for (int s = 0; s < 8; s++) {
        int scale = (block[4 + s / 2] >> (s % 2 * 4) & 15) | (load_u16(block + 2) >> (2 * s) & 3) << 4;
        decode_codebook(iq4_values, block + 8 + 16 * s, d * (float)(scale - 32), out + 32 * s);
    }
}

/* All types ----------------------------------------------------------------------------------------------- */

static void decode_blocks(void (*decode)(const uint8_t *, float *), const struct quant_info *info,
                          const uint8_t *data, size_t n, float *out)
{
    for (size_t i = 0; i + info->block_values <= n; i += info->block_values, data += info->block_bytes)
        decode(data, out + i);
}

void quant_decode(enum tensor_type type, const void *data, size_t n, float *out)
{
    const uint8_t *bytes = data;
    const struct quant_info *info = quant_find((uint32_t)type);
    switch (type) {
    case TENSOR_F32:
        memcpy(out, data, n * sizeof *out);
        break;
    case TENSOR_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = load_f16(bytes + 2 * i);
        break;
    case TENSOR_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(load_u16(bytes + 2 * i));
        break;
    case TENSOR_Q4_0:
        decode_blocks(decode_q4_0, info, bytes, n, out);
        break;
    case TENSOR_Q4_1:
        decode_blocks(decode_q4_1, info, bytes, n, out);
        break;
    case TENSOR_Q5_0:
        decode_blocks(decode_q5_0, info, bytes, n, out);
        break;
    case TENSOR_Q5_1:
        decode_blocks(decode_q5_1, info, bytes, n, out);
        break;
    case TENSOR_Q8_0:
        decode_blocks(decode_q8_0, info, bytes, n, out);
        break;
    case TENSOR_Q2_K:
        decode_blocks(decode_q2_k, info, bytes, n, out);
        break;
    case TENSOR_Q3_K:
        decode_blocks(decode_q3_k, info, bytes, n, out);
        break;
    case TENSOR_Q4_K:
        decode_blocks(decode_q4_k, info, bytes, n, out);
        break;
    case TENSOR_Q5_K:
        decode_blocks(decode_q5_k, info, bytes, n, out);
        break;
    case TENSOR_Q6_K:
        decode_blocks(decode_q6_k, info, bytes, n, out);
        break;
    case TENSOR_IQ4_NL:
        decode_blocks(decode_iq4_nl, info, bytes, n, out);
        break;
    case TENSOR_IQ4_XS:
        decode_blocks(decode_iq4_xs, info, bytes, n, out);
        break;
    case TENSOR_MXFP4:
        decode_blocks(decode_mxfp4, info, bytes, n, out);
        break;
    }
}
