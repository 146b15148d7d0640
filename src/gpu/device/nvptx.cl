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

#define FMA(a, b, c) __nvvm_fma_rn_f(a, b, c)
#define DIVIDE(a, b) __nvvm_div_rn_f(a, b)
#define SQRT(a)      __nvvm_sqrt_rn_f(a)
#define RINT(a)      __builtin_rintf(a)
#define UNROLL       _Pragma("unroll")

#define as_uint(x)  __builtin_astype(x, uint)
#define as_float(x) __builtin_astype(x, float)

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
