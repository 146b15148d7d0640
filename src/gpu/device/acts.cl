/* acts.cl: activation rows, a block of 256 inputs by a group of 256 work items.
 *
 * A function that writes some takes ACTS_OUT: a place for each kind of rows; those that are not wanted are 0. It declares
 * ACTS_SCRATCH in LOCAL memory. */
#define ACTS_OUT OUT(uchar, q8_256), OUT(uchar, q8_32), OUT(uchar, f32)
#define ACTS_SCRATCH(name)                                                                                             \
    LOCAL uint name##_bits[256];                                                                                       \
    LOCAL int name##_q[256], name##_few[16], name##_sums[16]
#define ACTS_SCRATCH_IN                                                                                                \
    LOCAL uint *bits, LOCAL int *q, LOCAL int *few, LOCAL int *sums
#define ACTS_SCRATCH_OF(name) name##_bits, name##_q, name##_few, name##_sums

/* One scale; sums of 16 and of 32, and the largest sum of 16 magnitudes. bits holds those of |value| of all items. */
FUNCTION void write_q8_256(float value, GLOBAL uchar *block, ACTS_SCRATCH_IN)
{
    uint item = ITEM;
    if (item < 16)
        few[item] = (int)largest_of_16(bits + 16 * item);
    BARRIER();
    struct scale scale = scale_of(largest_of_16((LOCAL const uint *)few), 127.0f, 1e-27f);
    q[item] = round_with(scale, value);
    block[item] = (uchar)q[item];
    BARRIER();
    if (item < 16) {
        int sum = 0, magnitudes = 0;
        UNROLL for (uint i = 0; i < 16; i++)
        {
            int one = q[16 * item + i];
            sum += one;
            magnitudes += one < 0 ? -one : one;
        }
        sums[item] = sum;
        few[item] = magnitudes;
        ((GLOBAL short *)(block + GPU_Q8_256_SUMS_16))[item] = (short)sum;
    }
    BARRIER();
    if (item < 8)
        ((GLOBAL short *)(block + GPU_Q8_256_SUMS_32))[item] = (short)(sums[2 * item] + sums[2 * item + 1]);
    if (item == 0) { /* and zeros to the end of the block */
        GLOBAL uint *end = (GLOBAL uint *)(block + GPU_Q8_256_D);
        end[0] = as_uint(scale.d);
        end[1] = largest_of_16((LOCAL const uint *)few);
        end[2] = end[3] = 0;
    }
    BARRIER();
}

/* A scale for each 32. */
FUNCTION void write_q8_32(float value, GLOBAL uchar *block, ACTS_SCRATCH_IN)
{
    uint item = ITEM;
    if (item < 8)
        few[item] = (int)largest_of_32(bits + 32 * item);
    BARRIER();
    struct scale scale = scale_of((uint)few[item / 32], 127.0f, 1e-27f);
    q[item] = round_with(scale, value);
    block[item] = (uchar)q[item];
    BARRIER();
    if (item % 32 == 0) {
        int sum = 0;
        UNROLL for (uint i = 0; i < 32; i++) sum += q[item + i];
        GLOBAL uint *end = (GLOBAL uint *)(block + GPU_Q8_32_D) + item / 32;
        end[0] = as_uint(scale.d);
        end[8] = as_uint(scale.d * (float)sum);
        end[16] = (uint)(-128 * sum);
        end[24] = 0;
    }
    BARRIER();
}

/* Block b of n_blocks of a row; value: this item's input, 0 past the row's end. */
FUNCTION void write_acts(float value, uint row, uint b, uint n_blocks, GLOBAL uchar *q8_256, GLOBAL uchar *q8_32,
                         GLOBAL uchar *f32, ACTS_SCRATCH_IN)
{
    ulong block = (ulong)row * n_blocks + b;
    bits[ITEM] = magnitude_bits(value);
    BARRIER();
    if (q8_256)
        write_q8_256(value, q8_256 + block * GPU_Q8_256_BYTES, bits, q, few, sums);
    if (q8_32)
        write_q8_32(value, q8_32 + block * GPU_Q8_32_BYTES, bits, q, few, sums);
    if (f32)
        ((GLOBAL float *)f32)[block * 256 + ITEM] = value;
}

#define WRITE_ACTS(value, row, b, n_blocks, scratch)                                                                   \
    write_acts(value, row, b, n_blocks, HAS(q8_256) ? OUT_AT(uchar, q8_256) : 0,                                       \
               HAS(q8_32) ? OUT_AT(uchar, q8_32) : 0, HAS(f32) ? OUT_AT(uchar, f32) : 0, ACTS_SCRATCH_OF(scratch))
