/* common.cl: what several programs of device code use. Formulas and their order are those of the CPU's kernels; see layout.h for where
 * things lie.
 *
 * An array comes to a function as two arguments, a buffer and an offset in bytes; the buffer is 0 where the array is not
 * there. */
#define IN(type, name)     GLOBAL const type *restrict name##_buffer, ulong name##_offset
#define OUT(type, name)    GLOBAL type *name##_buffer, ulong name##_offset
#define AT(type, name)     ((GLOBAL const type *)((GLOBAL const uchar *)name##_buffer + name##_offset))
#define OUT_AT(type, name) ((GLOBAL type *)((GLOBAL uchar *)name##_buffer + name##_offset))
#define HAS(name)          (name##_buffer != 0)

#define LOAD_UINT(p)   (*(GLOBAL const uint *)(p))
#define LOAD_USHORT(p) (*(GLOBAL const ushort *)(p))
#define LOAD_FLOAT(p)  (*(GLOBAL const float *)(p))

#define GPU_ROWS 8 /* of activations that a product takes at a time: programs.h, GPU_ROWS_TOGETHER */

#define NEGATIVE_INFINITY as_float(0xff800000u)
#define NOT_A_NUMBER      as_float(0x7fc00000u)

/* A line of the table of rows: kernels.h, struct gpu_row. */
#define ROW_POSITION(rows, row)   (rows)[4 * (row)]
#define ROW_FIRST_PAGE(rows, row) (rows)[4 * (row) + 1]
#define ROW_ROTATION(rows, row)   (rows)[4 * (row) + 2]
#define ROW_TOKEN(rows, row)      (rows)[4 * (row) + 3]

/* A KV block: K int16 [head_dim / 2][32][2] and f32[32], or K f32 [head_dim][32]; V int16 [head_dim up to 16s / 16][16][16][2] and
 * f32[32]. How many bytes K has. */
FUNCTION uint k_bytes(uint head_dim, uint k_f32)
{
    return k_f32 ? head_dim * 32 * 4 : head_dim * 32 * 2 + 32 * 4;
}

FUNCTION float f16_to_f32(uint half_bits)
{
    uint sign = (half_bits & 0x8000) << 16, exponent = half_bits >> 10 & 31, mantissa = half_bits & 0x3ff;
    if (exponent == 0) /* a whole number of 2^-24 */
        return as_float(as_uint((float)mantissa * 5.9604644775390625e-8f) | sign);
    return as_float(sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13);
}

FUNCTION float bf16_to_f32(uint bits)
{
    return as_float(bits << 16);
}

/* Byte i of a word. */
FUNCTION uint byte_of(uint word, uint i)
{
    return word >> 8 * i & 0xff;
}

FUNCTION int signed_byte_of(uint word, uint i)
{
    return (int)(word << (24 - 8 * i)) >> 24;
}

FUNCTION float exp_f32(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float t = FMA(x, 1.44269504f, 12582912.0f);
    float n = t - 12582912.0f;
    float r = FMA(n, -0.693359375f, x);
    r = FMA(n, 2.12194440e-4f, r);
    float p = FMA(1.9875691500e-4f, r, 1.3981999507e-3f);
    p = FMA(p, r, 8.3334519073e-3f);
    p = FMA(p, r, 4.1665795894e-2f);
    p = FMA(p, r, 1.6666665459e-1f);
    p = FMA(p, r, 5.0000001201e-1f);
    p = FMA(p, r * r, r) + 1.0f;
    return p * as_float((as_uint(t) << 23) + 0x3f800000u);
}

FUNCTION uint magnitude_bits(float x)
{
    return as_uint(x) & 0x7fffffff;
}

/* x = d * q, q = x * inverse rounded, up to `steps`; inverse 0: all q are zero. Largest inputs below `least` count as zero. */
struct scale {
    float d, inverse;
};

FUNCTION struct scale scale_of(uint largest_bits, float steps, float least)
{
    struct scale scale;
    float largest = as_float(largest_bits);
    scale.d = scale.inverse = 0.0f;
    if (largest_bits >= 0x7f800000)
        scale.d = NOT_A_NUMBER;
    else if (!(largest < least)) {
        scale.d = DIVIDE(largest, steps);
        scale.inverse = DIVIDE(steps, largest);
    }
    return scale;
}

FUNCTION struct scale whole_scale_of(uint largest_bits, float steps)
{
    return scale_of(largest_bits, steps, 1e-30f);
}

FUNCTION int round_with(struct scale scale, float x)
{
    return scale.inverse != 0.0f ? (int)RINT(x * scale.inverse) : 0;
}
