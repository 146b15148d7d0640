/* nvptx.cl: the words of opencl.cl for CUDA's devices: clang compiles device code with them to PTX, without a toolkit and without
 * a library. Every operation is named by the builtin that rounds as the CPU does. */
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef float float4 __attribute__((ext_vector_type(4)));
typedef int int4 __attribute__((ext_vector_type(4)));
typedef uint uint4 __attribute__((ext_vector_type(4)));

#pragma OPENCL FP_CONTRACT OFF

#define KERNEL(x, y) __kernel /* of groups of at most 256: the build writes .maxntid into the PTX */
#define FUNCTION  static __attribute__((always_inline))
#define GLOBAL    __global
#define LOCAL     __local
#define ITEM      ((uint)__nvvm_read_ptx_sreg_tid_x())
#define ITEM_Y    ((uint)__nvvm_read_ptx_sreg_tid_y())
#define GROUP_X   ((uint)__nvvm_read_ptx_sreg_ctaid_x())
#define GROUP_Y   ((uint)__nvvm_read_ptx_sreg_ctaid_y())
#define GROUP_Z   ((uint)__nvvm_read_ptx_sreg_ctaid_z())
#define BARRIER() __syncthreads()
#define GLOBAL_BARRIER() __syncthreads()

#define FMA(a, b, c) __nvvm_fma_rn_f(a, b, c)
#define DIVIDE(a, b) __nvvm_div_rn_f(a, b)
#define SQRT(a)      __nvvm_sqrt_rn_f(a)
#define RINT(a)      __builtin_rintf(a)
#define UNROLL       _Pragma("unroll")

#define as_uint(x)  __builtin_astype(x, uint)
#define as_float(x) __builtin_astype(x, float)

FUNCTION void prefetch_line(GLOBAL const uchar *p)
{
    __asm__ volatile("prefetch.global.L2 [%0];" : : "l"((ulong)p));
}
#define PREFETCH(p) prefetch_line(p)

FUNCTION int dot4_signed(uint a, uint b, int c)
{
    int result;
    __asm__("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
#define DOT4(a, b, c) dot4_signed(a, b, c)
#define DOTS          int
#define SUM_OF(dots)  (dots)
#define DOT16(u, v)   DOT4((u).w, (v).w, DOT4((u).z, (v).z, DOT4((u).y, (v).y, DOT4((u).x, (v).x, 0))))

/* The bytes' lower three bits choose among eight bytes, twice; their fourth bit chooses between the two. */
FUNCTION uint lookup16_permuted(uint w, uint t0, uint t1, uint t2, uint t3)
{
    uint pairs = (w & 0x07070707) | (w & 0x07070707) >> 4; /* a selector is four half-bytes */
    uint selector = (pairs & 0xff) | (pairs >> 8 & 0xff00), low, high, mask;
    __asm__("prmt.b32 %0, %1, %2, %3;" : "=r"(low) : "r"(t0), "r"(t1), "r"(selector));
    __asm__("prmt.b32 %0, %1, %2, %3;" : "=r"(high) : "r"(t2), "r"(t3), "r"(selector));
    __asm__("prmt.b32 %0, %1, 0, 0xba98;" : "=r"(mask) : "r"(w << 4)); /* a byte's highest bit, eight times */
    return (low & ~mask) | (high & mask);
}
#define LOOKUP16(w, t0, t1, t2, t3) lookup16_permuted(w, t0, t1, t2, t3)

/* mma.sync, from compute capability 8.0 on: 16 rows by 8 columns, 32 or 16 inputs. product_matrix.cl says which item has what. */
#define MATRIX_SCRATCH(n)
FUNCTION int4 matrix_32(uint upper, uint lower, uint upper_16, uint lower_16, uint q, uint q_16)
{
    int x, y, z, w;
    __asm__ volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%10, %10, %10, %10};"
                     : "=r"(x), "=r"(y), "=r"(z), "=r"(w)
                     : "r"(upper), "r"(lower), "r"(upper_16), "r"(lower_16), "r"(q), "r"(q_16), "r"(0));
    int4 result = {x, y, z, w};
    return result;
}
FUNCTION int4 matrix_16(uint upper, uint lower, uint q)
{
    int x, y, z, w;
    __asm__ volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
                     : "=r"(x), "=r"(y), "=r"(z), "=r"(w)
                     : "r"(upper), "r"(lower), "r"(q), "r"(0));
    int4 result = {x, y, z, w};
    return result;
}
#define MATRIX_32(upper, lower, upper_16, lower_16, q, q_16) matrix_32(upper, lower, upper_16, lower_16, q, q_16)
#define MATRIX_16(upper, lower, q)                           matrix_16(upper, lower, q)
