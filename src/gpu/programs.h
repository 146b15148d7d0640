/* programs.h: the functions that device code consists of, by number, and what they are compiled from. Constant; any thread. */
#ifndef RUNNEL_GPU_PROGRAMS_H
#define RUNNEL_GPU_PROGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file of device/: its functions are compiled together. */
enum gpu_program {
    GPU_PROGRAM_EMBED,          /* embed.cl: a row of any type to floats */
    GPU_PROGRAM_LAYER,          /* layer.cl: norms, activations, rotation, pages, the best logit */
    GPU_PROGRAM_ATTENTION,      /* attention.cl */
    GPU_PROGRAM_PRODUCT_K,      /* product_k.cl, product_own.cl: types of blocks of 256 */
    GPU_PROGRAM_PRODUCT_32,     /* product_32.cl: types of blocks of 32 */
    GPU_PROGRAM_PRODUCT_FLOAT,  /* product_float.cl */
    GPU_PROGRAM_PRODUCT_MATRIX, /* product_matrix.cl: for devices with matrix units */
    GPU_PROGRAMS
};

/* The functions of a product are in pairs: for one row of activations, and for up to GPU_ROWS_TOGETHER at a time. */
enum gpu_function {
    GPU_FUNCTION_EMBED,
    GPU_FUNCTION_PREPARE,
    GPU_FUNCTION_ACTIVATE,
    GPU_FUNCTION_ADD_NORMALISED,
    GPU_FUNCTION_ROTATE_STORE,
    GPU_FUNCTION_COPY_PAGES,
    GPU_FUNCTION_FIND_BEST,
    GPU_FUNCTION_CHOOSE_BEST,
    GPU_FUNCTION_ATTEND,
    GPU_FUNCTION_ATTEND_ALONE,
    GPU_FUNCTION_ATTEND_STORING,
    GPU_FUNCTION_MERGE,
    GPU_FUNCTION_PRODUCT_Q4_K_1,
    GPU_FUNCTION_PRODUCT_Q4_K_N,
    GPU_FUNCTION_PRODUCT_Q6_K_1,
    GPU_FUNCTION_PRODUCT_Q6_K_N,
    GPU_FUNCTION_PRODUCT_K_1, /* any type of blocks of 256, and matrices of several such types */
    GPU_FUNCTION_PRODUCT_K_N,
    GPU_FUNCTION_PRODUCT_Q4_K_FEW, /* one row of few blocks */
    GPU_FUNCTION_PRODUCT_Q6_K_FEW,
    GPU_FUNCTION_PRODUCT_OWN_Q4_K, /* one row, whose inputs they make */
    GPU_FUNCTION_PRODUCT_OWN_Q6_K,
    GPU_FUNCTION_PRODUCT_OWN_K,
    GPU_FUNCTION_PRODUCT_ACTIVATED_Q4_K, /* likewise, gate and up */
    GPU_FUNCTION_PRODUCT_ACTIVATED_Q6_K,
    GPU_FUNCTION_PRODUCT_ACTIVATED_K,
    GPU_FUNCTION_PRODUCT_Q8_0_1,
    GPU_FUNCTION_PRODUCT_Q8_0_N,
    GPU_FUNCTION_PRODUCT_32_1, /* any type of blocks of 32, likewise */
    GPU_FUNCTION_PRODUCT_32_N,
    GPU_FUNCTION_PRODUCT_FLOAT_1,
    GPU_FUNCTION_PRODUCT_FLOAT_N,
    GPU_FUNCTION_PRODUCT_FLOAT_SPLIT_1, /* in another order of sums */
    GPU_FUNCTION_PRODUCT_FLOAT_SPLIT_N,
    GPU_FUNCTION_PRODUCT_Q4_K_MATRIX, /* for GPU_ROWS_MATRIX rows of activations at a time */
    GPU_FUNCTION_PRODUCT_Q6_K_MATRIX,
    GPU_FUNCTIONS
};

enum { GPU_ROWS_TOGETHER = 8, GPU_ROWS_MATRIX = 32, GPU_TILES_MATRIX = 4 };

struct gpu_function_info {
    const char *name;
    enum gpu_program program;
    uint32_t n_local[2]; /* work items of a group in x and y */
};
const struct gpu_function_info *gpu_function_find(enum gpu_function function);

const char *gpu_program_name(enum gpu_program program);

/* The source of a program for OpenCL, in pieces that follow each other. */
enum { GPU_SOURCE_PIECES = 8 };
struct gpu_source {
    const char *text[GPU_SOURCE_PIECES];
    size_t len[GPU_SOURCE_PIECES];
    uint32_t n_pieces;
};
void gpu_source_find(enum gpu_program program, struct gpu_source *source);

/* A program as PTX, for devices of compute capability major.minor; with a zero behind it. NULL: there is none for it. */
const char *gpu_ptx_find(enum gpu_program program, int major, int minor);

/* False: this build was made without clang, and CUDA's driver cannot be used. */
bool gpu_has_ptx(void);

#endif
