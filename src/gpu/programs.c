/* programs.c: see programs.h. The texts are embedded by cmake/gpu.cmake. */
#include "gpu/programs.h"

static const struct gpu_function_info functions[GPU_FUNCTIONS] = {
    [GPU_FUNCTION_EMBED] = {"embed", GPU_PROGRAM_EMBED, {256, 1}},
    [GPU_FUNCTION_PREPARE] = {"prepare", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_ACTIVATE] = {"activate", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_ADD_NORMALISED] = {"add_normalised", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_ROTATE_STORE] = {"rotate_store", GPU_PROGRAM_LAYER, {64, 1}},
    [GPU_FUNCTION_COPY_PAGES] = {"copy_pages", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_FIND_BEST] = {"find_best", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_CHOOSE_BEST] = {"choose_best", GPU_PROGRAM_LAYER, {256, 1}},
    [GPU_FUNCTION_ATTEND] = {"attend", GPU_PROGRAM_ATTENTION, {256, 1}},
    [GPU_FUNCTION_ATTEND_ALONE] = {"attend_alone", GPU_PROGRAM_ATTENTION, {256, 1}},
    [GPU_FUNCTION_ATTEND_STORING] = {"attend_storing", GPU_PROGRAM_ATTENTION, {256, 1}},
    [GPU_FUNCTION_MERGE] = {"merge", GPU_PROGRAM_ATTENTION, {256, 1}},
    [GPU_FUNCTION_PRODUCT_Q4_K_1] = {"product_q4_k_1", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_Q4_K_N] = {"product_q4_k_n", GPU_PROGRAM_PRODUCT_K, {16, 8}},
    [GPU_FUNCTION_PRODUCT_Q6_K_1] = {"product_q6_k_1", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_Q6_K_N] = {"product_q6_k_n", GPU_PROGRAM_PRODUCT_K, {16, 8}},
    [GPU_FUNCTION_PRODUCT_K_1] = {"product_k_1", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_K_N] = {"product_k_n", GPU_PROGRAM_PRODUCT_K, {16, 8}},
    [GPU_FUNCTION_PRODUCT_Q4_K_FEW] = {"product_q4_k_few", GPU_PROGRAM_PRODUCT_K, {16, 8}},
    [GPU_FUNCTION_PRODUCT_Q6_K_FEW] = {"product_q6_k_few", GPU_PROGRAM_PRODUCT_K, {16, 8}},
    [GPU_FUNCTION_PRODUCT_OWN_Q4_K] = {"product_own_q4_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_OWN_Q6_K] = {"product_own_q6_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_OWN_K] = {"product_own_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_ACTIVATED_Q4_K] = {"product_activated_q4_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_ACTIVATED_Q6_K] = {"product_activated_q6_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_ACTIVATED_K] = {"product_activated_k", GPU_PROGRAM_PRODUCT_K, {16, 16}},
    [GPU_FUNCTION_PRODUCT_Q8_0_1] = {"product_q8_0_1", GPU_PROGRAM_PRODUCT_32, {16, 16}},
    [GPU_FUNCTION_PRODUCT_Q8_0_N] = {"product_q8_0_n", GPU_PROGRAM_PRODUCT_32, {16, 8}},
    [GPU_FUNCTION_PRODUCT_32_1] = {"product_32_1", GPU_PROGRAM_PRODUCT_32, {16, 16}},
    [GPU_FUNCTION_PRODUCT_32_N] = {"product_32_n", GPU_PROGRAM_PRODUCT_32, {16, 8}},
    [GPU_FUNCTION_PRODUCT_FLOAT_1] = {"product_float_1", GPU_PROGRAM_PRODUCT_FLOAT, {16, 1}},
    [GPU_FUNCTION_PRODUCT_FLOAT_N] = {"product_float_n", GPU_PROGRAM_PRODUCT_FLOAT, {16, 8}},
    [GPU_FUNCTION_PRODUCT_FLOAT_SPLIT_1] = {"product_float_split_1", GPU_PROGRAM_PRODUCT_FLOAT, {16, 16}},
    [GPU_FUNCTION_PRODUCT_FLOAT_SPLIT_N] = {"product_float_split_n", GPU_PROGRAM_PRODUCT_FLOAT, {16, 16}},
    [GPU_FUNCTION_PRODUCT_Q4_K_MATRIX] = {"product_q4_k_matrix",
                                          GPU_PROGRAM_PRODUCT_MATRIX,
                                          {32, GPU_TILES_MATRIX}},
    [GPU_FUNCTION_PRODUCT_Q6_K_MATRIX] = {"product_q6_k_matrix",
                                          GPU_PROGRAM_PRODUCT_MATRIX,
                                          {32, GPU_TILES_MATRIX}},
};

const struct gpu_function_info *gpu_function_find(enum gpu_function function)
{
    return &functions[function];
}

/* Files of device/, and layout.h. */
#define TEXT(name)                                                                                           \
    extern const char gpu_text_##name[];                                                                     \
    extern const size_t gpu_text_##name##_len;
TEXT(layout)
TEXT(opencl)
TEXT(common)
TEXT(rows)
TEXT(tiles)
TEXT(acts)
TEXT(heads)
TEXT(matrices)
TEXT(embed)
TEXT(layer)
TEXT(attention)
TEXT(product_k)
TEXT(product_own)
TEXT(product_32)
TEXT(product_float)
TEXT(product_matrix)

static void add_piece(struct gpu_source *source, const char *text, size_t len)
{
    source->text[source->n_pieces] = text;
    source->len[source->n_pieces++] = len;
}
#define ADD(name) add_piece(source, gpu_text_##name, gpu_text_##name##_len)

/* cmake/gpu.cmake puts the same pieces together for PTX. */
void gpu_source_find(enum gpu_program program, struct gpu_source *source)
{
    source->n_pieces = 0;
    ADD(layout);
    ADD(opencl);
    ADD(common);
    switch (program) {
    case GPU_PROGRAM_EMBED:
        ADD(tiles);
        ADD(embed);
        break;
    case GPU_PROGRAM_LAYER:
        ADD(rows);
        ADD(acts);
        ADD(heads);
        ADD(layer);
        break;
    case GPU_PROGRAM_ATTENTION:
        ADD(rows);
        ADD(acts);
        ADD(heads);
        ADD(attention);
        break;
    case GPU_PROGRAM_PRODUCT_K:
        ADD(tiles);
        ADD(matrices);
        ADD(rows);
        ADD(product_k);
        ADD(product_own);
        break;
    case GPU_PROGRAM_PRODUCT_32:
        ADD(tiles);
        ADD(matrices);
        ADD(product_32);
        break;
    case GPU_PROGRAM_PRODUCT_FLOAT:
        ADD(matrices);
        ADD(product_float);
        break;
    case GPU_PROGRAM_PRODUCT_MATRIX:
        ADD(tiles);
        ADD(matrices);
        ADD(product_matrix);
        break;
    case GPU_PROGRAMS:
        break;
    }
}

const char *gpu_program_name(enum gpu_program program)
{
    static const char *const names[GPU_PROGRAMS] = {
        "embed", "layer", "attention", "product_k", "product_32", "product_float", "product_matrix"};
    return names[program];
}

#ifdef RUNNEL_PTX
#define PTX(name) extern const char gpu_ptx_##name##_61[], gpu_ptx_##name##_80[];
PTX(embed)
PTX(layer)
PTX(attention)
PTX(product_k)
PTX(product_32)
PTX(product_float)
extern const char gpu_ptx_product_matrix_80[];

const char *gpu_ptx_find(enum gpu_program program, int major, int minor)
{
    static const char *const of_61[GPU_PROGRAMS] = {gpu_ptx_embed_61,
                                                    gpu_ptx_layer_61,
                                                    gpu_ptx_attention_61,
                                                    gpu_ptx_product_k_61,
                                                    gpu_ptx_product_32_61,
                                                    gpu_ptx_product_float_61,
                                                    NULL};
    static const char *const of_80[GPU_PROGRAMS] = {
        gpu_ptx_embed_80,      gpu_ptx_layer_80,         gpu_ptx_attention_80,     gpu_ptx_product_k_80,
        gpu_ptx_product_32_80, gpu_ptx_product_float_80, gpu_ptx_product_matrix_80};
    if (major >= 8)
        return of_80[program];
    return 10 * major + minor >= 61 ? of_61[program] : NULL;
}

bool gpu_has_ptx(void)
{
    return true;
}
#else
const char *gpu_ptx_find(enum gpu_program program, int major, int minor)
{
    (void)program, (void)major, (void)minor;
    return NULL;
}

bool gpu_has_ptx(void)
{
    return false;
}
#endif
