/* opencl.cl: the words of the dialect in which device code is written, for an OpenCL driver. nvptx.cl has the same for CUDA.
 *
 *   KERNEL(x, y)         a function that is launched in groups of x times y work items
 *   FUNCTION             one that is called
 *   LOCAL, GLOBAL        address spaces
 *   ITEM, ITEM_Y         this work item's place in its group in x and y
 *   GROUP_X ...          its group's
 *   BARRIER()            all items of the group, and what they wrote to LOCAL memory
 *   GLOBAL_BARRIER()     likewise, and what they wrote to GLOBAL memory
 *   FMA, DIVIDE, SQRT, RINT   rounded as the CPU's: the driver is told so by its options (opencl.c)
 *   DOT16(w, a)          the products of 16 signed bytes each, added to a DOTS: one sum, or several. DOTS are added, and multiplied with
 *                        whole numbers; SUM_OF one is the sum
 *   LOOKUP16(w, t0, ...) of each byte 0 .. 15 of w that byte of a table, four words
 *   MATRIX_32, MATRIX_16 products of matrices by a sub-group, MATRIX_SCRATCH what they need: product_matrix.cl
 *   PREFETCH(p)          what lies at p (64 bytes of GLOBAL memory) will be wanted soon: the device may begin to bring it near
 *   UNROLL               in front of a loop whose count is constant */
#pragma OPENCL FP_CONTRACT OFF

#define KERNEL(x, y) __kernel __attribute__((reqd_work_group_size(x, y, 1)))
#define FUNCTION  static __attribute__((always_inline))
#define GLOBAL    __global
#define LOCAL     __local
#define ITEM      ((uint)get_local_id(0))
#define ITEM_Y    ((uint)get_local_id(1))
#define GROUP_X   ((uint)get_group_id(0))
#define GROUP_Y   ((uint)get_group_id(1))
#define GROUP_Z   ((uint)get_group_id(2))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define GLOBAL_BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)

#ifdef RUNNEL_NO_FMA /* the device has none, and is allowed to round twice */
#define FMA(a, b, c) ((a) * (b) + (c))
#else
#define FMA(a, b, c) fma(a, b, c)
#endif
#define DIVIDE(a, b) ((a) / (b))
#define SQRT(a)      sqrt(a)
#define RINT(a)      rint(a)
#define PREFETCH(p)  /* not all drivers have it */
#define UNROLL       /* drivers unroll what they like; PoCL takes many times as long to compile where it is asked to */

FUNCTION int dot4_plain(uint a, uint b, int c)
{
    return c + (int)(char)a * (int)(char)b + (int)(char)(a >> 8) * (int)(char)(b >> 8) +
           (int)(char)(a >> 16) * (int)(char)(b >> 16) + ((int)a >> 24) * ((int)b >> 24);
}

#ifdef RUNNEL_CPU /* the vectors that its compiler has an instruction for: pairs of 16-bit products */
#define DOTS int8
#define SUM_OF(dots)                                                                                                   \
    ((dots).s0 + (dots).s1 + (dots).s2 + (dots).s3 + (dots).s4 + (dots).s5 + (dots).s6 + (dots).s7)
FUNCTION int8 dot16_vectors(uint4 w, int4 a)
{
    short16 x = convert_short16(as_char16(w)), y = convert_short16(as_char16(a));
    return convert_int8(x.even) * convert_int8(y.even) + convert_int8(x.odd) * convert_int8(y.odd);
}
#define DOT16(w, a) dot16_vectors(w, a)
#else
#ifdef RUNNEL_INTEGER_DOT
#pragma OPENCL EXTENSION cl_khr_integer_dot_product : enable
#define DOT4(a, b, c) ((c) + dot_4x8packed_ss_int(a, b))
#else
#define DOT4(a, b, c) dot4_plain(a, b, c)
#endif
#define DOTS        int
#define SUM_OF(dots) (dots)
#define DOT16(u, v) DOT4((u).w, (v).w, DOT4((u).z, (v).z, DOT4((u).y, (v).y, DOT4((u).x, (v).x, 0))))
#endif

FUNCTION uint lookup16_plain(uint w, uint t0, uint t1, uint t2, uint t3)
{
    uint result = 0;
    for (uint i = 0; i < 32; i += 8) {
        uint index = w >> i & 15, t = index < 8 ? (index < 4 ? t0 : t1) : index < 12 ? t2 : t3;
        result |= (t >> index % 4 * 8 & 0xff) << i;
    }
    return result;
}
#define LOOKUP16(w, t0, t1, t2, t3) lookup16_plain(w, t0, t1, t2, t3)

/* A product of matrices as matrix units make it, by the items of a sub-group of 32: product_matrix.cl says who has what. No driver of
 * OpenCL has them for all devices: here it only shows that the device code is right. */
#define MATRIX_SCRATCH(n) LOCAL uint matrix_words[n][6][32];
FUNCTION int4 multiply_plainly(LOCAL uint words[6][32], uint upper, uint lower, uint upper_16, uint lower_16, uint q, uint q_16)
{
    int dots[4];
    words[0][ITEM] = upper;
    words[1][ITEM] = lower;
    words[2][ITEM] = upper_16;
    words[3][ITEM] = lower_16;
    words[4][ITEM] = q;
    words[5][ITEM] = q_16;
    BARRIER();
    for (uint i = 0; i < 4; i++) {
        uint row = ITEM / 4 * 4, column = (ITEM % 4 * 2 + i % 2) * 4;
        dots[i] = 0;
        for (uint step = 0; step < 4; step++) {
            dots[i] = dot4_plain(words[i / 2][row + step], words[4][column + step], dots[i]);
            dots[i] = dot4_plain(words[2 + i / 2][row + step], words[5][column + step], dots[i]);
        }
    }
    BARRIER();
    int4 result = {dots[0], dots[1], dots[2], dots[3]};
    return result;
}
#define MATRIX_32(upper, lower, upper_16, lower_16, q, q_16)                                                           \
    multiply_plainly(matrix_words[ITEM_Y], upper, lower, upper_16, lower_16, q, q_16)
#define MATRIX_16(upper, lower, q) multiply_plainly(matrix_words[ITEM_Y], upper, lower, 0, 0, q, 0)
