/* layout.h: how tiles, activation rows and pages of keys and values lie in a device's memory. Numbers alone, as macros: this is
 * read by compilers of C and of device code. They are the CPU's (kernels/pack.h, kernels/ops.h): whoever sees both floors
 * compares them. */
#ifndef RUNNEL_GPU_LAYOUT_H
#define RUNNEL_GPU_LAYOUT_H

/* Types of weights, by their numbers in GGUF files. */
#define GPU_F32     0
#define GPU_F16     1
#define GPU_Q4_0    2
#define GPU_Q4_1    3
#define GPU_Q5_0    6
#define GPU_Q5_1    7
#define GPU_Q8_0    8
#define GPU_Q2_K    10
#define GPU_Q3_K    11
#define GPU_Q4_K    12
#define GPU_Q5_K    13
#define GPU_Q6_K    14
#define GPU_IQ4_NL  20
#define GPU_IQ4_XS  23
#define GPU_BF16    30
#define GPU_MXFP4   39
#define GPU_NO_TYPE 0xffffffffu

/* A tile: 16 rows of weights. Vectors are 64 bytes: 4 inputs of 16 rows. */
#define GPU_TILE_ROWS 16

/* The types of blocks of 256 columns: bytes a block of a tile, and where its parts lie. Those with a header have d f16[16] for each
 * block in front of all blocks, padded to 64 bytes. */
#define GPU_Q4_K_BLOCK     2304
#define GPU_Q5_K_BLOCK     2816
#define GPU_Q6_K_BLOCK     3328
#define GPU_Q2_K_BLOCK     1344
#define GPU_Q3_K_BLOCK     1728
#define GPU_IQ4_XS_BLOCK   2176
#define GPU_K_DMIN         32 /* of Q4_K, Q5_K, Q2_K: behind d f16[16] */
#define GPU_K_SCALES       64
#define GPU_Q4_K_NIBBLES   256
#define GPU_Q5_K_BITS      2304
#define GPU_Q6_K_CHUNKS    256
#define GPU_Q6_K_CHUNK     768
#define GPU_Q2_K_VALUES    320
#define GPU_Q3_K_VALUES    192
#define GPU_Q3_K_PAIR      192
#define GPU_IQ4_XS_NIBBLES 128

/* The types of blocks of 32 columns, two at a time. */
#define GPU_PAIR_COLUMNS 64
#define GPU_PAIR_M       64  /* Q4_1, Q5_1: where m lies in a pair */
#define GPU_PAIR_BITS    512 /* Q5_0, Q5_1: from the nibbles to the fifth bits */
#define GPU_Q8_0_PAIR    1088
#define GPU_Q4_0_PAIR    576 /* also IQ4_NL, MXFP4 */
#define GPU_Q4_1_PAIR    640
#define GPU_Q5_0_PAIR    704
#define GPU_Q5_1_PAIR    768

/* Activation rows: blocks of 256 inputs. Q8_256: q int8[256], sums of 16 int16[16], of 32 int16[8], d f32, and the largest sum of 16
 * magnitudes uint16. Q8_32: q int8[256], d f32[8], d * sum of 32 f32[8], -128 * that sum int32[8]. F32: floats. */
#define GPU_ACT_BLOCK       256
#define GPU_Q8_256_BYTES    320
#define GPU_Q8_256_SUMS_16  256
#define GPU_Q8_256_SUMS_32  288
#define GPU_Q8_256_D        304
#define GPU_Q8_256_LARGEST  308
#define GPU_Q8_32_BYTES     384
#define GPU_Q8_32_D         256
#define GPU_Q8_32_D_SUM     288
#define GPU_Q8_32_OFFSET    320
#define GPU_F32_BLOCK_BYTES 1024

/* A page of keys and values of one KV head of one layer: as kernels/ops.h says at KV_PAGE. */
#define GPU_KV_PAGE         32
#define GPU_ATTENTION_BLOCK 256
#define GPU_HEAD_DIM_MAX    1024
#define GPU_QUERY_STEPS     4095
#define GPU_KEY_STEPS       4095
#define GPU_VALUE_STEPS     4095
#define GPU_WEIGHT_STEPS    16383
#define GPU_SCORE_CHUNK     128
#define GPU_NORM_LANES      64
#define GPU_NO_PAGE         0xffffffffu

#endif
