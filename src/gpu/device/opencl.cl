/* opencl.cl: the words of the dialect in which device code is written, for an OpenCL driver. nvptx.cl has the same for CUDA.
 *
 *   KERNEL(n)            a function that is launched in groups of n work items
 *   FUNCTION             one that is called
 *   LOCAL, GLOBAL        address spaces
 *   ITEM, GROUP_X ...    this work item's number in its group, and its group's
 *   BARRIER()            all items of the group, and what they wrote to LOCAL memory
 *   FMA, DIVIDE, SQRT, RINT   rounded as the CPU's: the driver is told so by its options (opencl.c)
 *   DOT4(a, b, c)        c + four products of signed bytes
 *   LOOKUP16(w, t0, ...) of each byte 0 .. 15 of w that byte of a table, four words
 *   UNROLL               in front of a loop whose count is constant */
#pragma OPENCL FP_CONTRACT OFF

#define KERNEL(n) __kernel __attribute__((reqd_work_group_size(n, 1, 1)))
#define FUNCTION  static
#define GLOBAL    __global
#define LOCAL     __local
#define ITEM      ((uint)get_local_id(0))
#define GROUP_X   ((uint)get_group_id(0))
#define GROUP_Y   ((uint)get_group_id(1))
#define GROUP_Z   ((uint)get_group_id(2))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)

#define FMA(a, b, c) fma(a, b, c)
#define DIVIDE(a, b) ((a) / (b))
#define SQRT(a)      sqrt(a)
#define RINT(a)      rint(a)
#define UNROLL       /* drivers unroll what they like; PoCL takes many times as long to compile where it is asked to */

#ifdef RUNNEL_INTEGER_DOT
#pragma OPENCL EXTENSION cl_khr_integer_dot_product : enable
#define DOT4(a, b, c) ((c) + dot_4x8packed_ss_int(a, b))
#else
FUNCTION int dot4_plain(uint a, uint b, int c)
{
    return c + (int)(char)a * (int)(char)b + (int)(char)(a >> 8) * (int)(char)(b >> 8) +
           (int)(char)(a >> 16) * (int)(char)(b >> 16) + ((int)a >> 24) * ((int)b >> 24);
}
#define DOT4(a, b, c) dot4_plain(a, b, c)
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
