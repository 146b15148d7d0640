/* kernels.h: what a device computes, as its caller launches it. The arithmetic is that of the CPU's kernels, operation by operation
 * (kernels/ops.h), so that a device for which gpu_is_exact holds gives the same bits; but for products of floats, where it was opened with
 * `approximates`.
 *
 * Every function queues one launch, or as many as it says, and returns; see device.h for errors. A function fails at launch if it was
 * not prepared: gpu_prepare_all before the first step.
 *
 * Rows of a step: N of them, in a table that lies on the device, as the page numbers that it points to do. Arrays are dense, rows one
 * after the other; f32 unless said otherwise. A place with the buffer "none" is an array that is not there. */
#ifndef RUNNEL_GPU_KERNELS_H
#define RUNNEL_GPU_KERNELS_H

#include "gpu/device.h"
#include "gpu/layout.h"

/* How the inputs of a product are given. */
enum gpu_act_kind {
    GPU_ACT_Q8_256, /* of the types of blocks of 256 */
    GPU_ACT_Q8_32,  /* of those of blocks of 32 */
    GPU_ACT_F32,    /* of F32, F16, BF16 */
    GPU_ACT_KINDS
};

enum gpu_act_kind gpu_act_kind_of(uint32_t type);
size_t gpu_act_row_bytes(enum gpu_act_kind kind, uint32_t n_columns);
size_t gpu_tile_bytes(uint32_t type, uint32_t n_columns);
bool gpu_knows_type(uint32_t type);

/* Activation rows in each kind that somebody wants; the other places are none. */
struct gpu_acts {
    struct gpu_place of[GPU_ACT_KINDS];
};

/* Prepares (device.h) all that steps need with matrices of these types, and runs each of these functions once on made-up
 * arguments, so that no later launch compiles or opens a file. */
int gpu_prepare_all(struct gpu *gpu, const uint32_t *types, uint32_t n_types, runnel_error *error);

/* What a row of a step is: a line of the table on the device. */
struct gpu_row {
    uint32_t position;
    uint32_t first_page; /* where in the array of page numbers that of position 0 stands */
    uint32_t rotation;   /* which row of cosines and sines is its own */
    int32_t token;
};

struct gpu_rows {
    struct gpu_place rows;  /* struct gpu_row [N] */
    struct gpu_place pages; /* uint32 [...]; GPU_NO_PAGE where a window dropped one */
    uint32_t n;
};

/* out [N, n_columns] = the tokens' rows of a packed matrix, times scale. */
struct gpu_embedding {
    struct gpu_rows rows;
    struct gpu_place matrix;
    uint32_t type, n_columns;
    float scale;
    struct gpu_place out;
};
int gpu_embed(struct gpu *gpu, const struct gpu_embedding *embedding, runnel_error *error);

/* Activation rows of x [.., n_columns], normalised before where there is a weight. */
struct gpu_preparation {
    struct gpu_place x;
    struct gpu_place which; /* uint32 [n_rows]: rows of x; none: the first n_rows */
    uint32_t n_rows, n_columns;
    struct gpu_place norm_weight; /* [n_columns], or none */
    float epsilon;
    struct gpu_acts out;
};
int gpu_prepare_rows(struct gpu *gpu, const struct gpu_preparation *preparation, runnel_error *error);

/* Products of one input with up to three matrices: out[row, i] = sum over inputs (+ bias[i]) (+ the old value). One launch if all
 * matrices have one act kind (and one more for each further kind). Many rows are multiplied on matrix units where there are such for the
 * types: a launch for each type. */
enum { GPU_PRODUCTS_MAX = 3 };
struct gpu_matrix {
    struct gpu_place tiles;
    uint32_t type, n_rows;
    struct gpu_place bias; /* [n_rows], or none */
    struct gpu_place out;  /* [n_acts, n_rows] */
};
struct gpu_product {
    struct gpu_acts acts; /* n_acts rows each */
    uint32_t n_acts, n_columns;
    struct gpu_matrix matrices[GPU_PRODUCTS_MAX];
    uint32_t n_matrices;
    bool add;
};
int gpu_multiply(struct gpu *gpu, const struct gpu_product *product, runnel_error *error);

/* The same with inputs that are made of rows before; product's acts are preparation's out, of which nothing is known afterwards. One launch for
 * one row of matrices of types of blocks of 256, which makes its inputs itself; else two or more. */
int gpu_multiply_prepared(struct gpu *gpu, const struct gpu_preparation *preparation,
                          const struct gpu_product *product, runnel_error *error);

/* On matrix units the matrices of one type among them, which gpu_multiply chooses when it is worth it. For tests: where a device has
 * none, OpenCL's drivers compute the same the long way. */
bool gpu_has_matrix_function(uint32_t type);
int gpu_multiply_matrix(struct gpu *gpu, const struct gpu_product *product, uint32_t type,
                        runnel_error *error);

/* x [n_rows, n] += norm(added [n_rows, n]). */
struct gpu_addition {
    struct gpu_place x, added, norm_weight;
    uint32_t n_rows, n;
    float epsilon;
};
int gpu_add_normalised(struct gpu *gpu, const struct gpu_addition *addition, runnel_error *error);

/* Keys and values of one layer: blocks [n_kv_heads][n_pages], each gpu_kv_block_bytes long. */
struct gpu_cache {
    struct gpu_place blocks;
    uint32_t n_pages, n_kv_heads, head_dim; /* head_dim: even, at most GPU_HEAD_DIM_MAX */
    bool k_f32;
};
size_t gpu_kv_k_bytes(uint32_t head_dim, bool k_f32);
size_t gpu_kv_block_bytes(uint32_t head_dim, bool k_f32);

/* Queries as attention wants them; written by gpu_rotate_store. */
struct gpu_queries {
    struct gpu_place values; /* [N, n_heads, head_dim]: rotated in place */
    struct gpu_place whole;  /* int16 [N, n_heads, head_dim]: the same in whole numbers */
    struct gpu_place worth;  /* [N, n_heads]: what a one of them is */
    uint32_t n_heads;
};

/* Normalises heads where there is a weight, rotates q and k, stores k and v in the pages of their rows. */
struct gpu_storing {
    struct gpu_rows rows;
    struct gpu_queries q;
    struct gpu_place k, v;           /* [N, n_kv_heads, head_dim]; k changes */
    struct gpu_place q_norm, k_norm; /* [head_dim], or none */
    float epsilon;
    struct gpu_place cosine, sine; /* [.., n_rot / 2] */
    uint32_t n_rot;                /* even */
    bool interleaved;
    struct gpu_cache cache;
};
int gpu_rotate_store(struct gpu *gpu, const struct gpu_storing *storing, runnel_error *error);

/* Attention of all rows, and activation rows of what it gives [N, n_heads * head_dim]. Two launches for as many rows as
 * there is room for partial results. */
struct gpu_attention {
    struct gpu_rows rows;
    struct gpu_queries q;
    struct gpu_cache cache;
    uint32_t window; /* positions up to its own that a row sees; 0: all */
    uint32_t
        n_blocks; /* the most blocks of GPU_ATTENTION_BLOCK positions that a row sees any of, or more: at least 1 */
    float scale; /* scores are multiplied with it */
    struct gpu_place partials;
    size_t partials_bytes;     /* room for one row at least: gpu_partials_bytes(1, ...) */
    struct gpu_place attended; /* [N, n_heads * head_dim] as floats, or none */
    struct gpu_acts out;
};
enum {
    GPU_ATTEND_ALONE =
        16, /* up to so many rows times blocks each head is attended for itself: two rows have half of the blocks */
    GPU_MERGED_BLOCKS =
        GPU_ATTEND_ALONE / 2, /* of one row, up to so many are merged by the product's groups */
};
size_t gpu_partials_bytes(uint32_t n_rows, uint32_t n_blocks, uint32_t n_heads, uint32_t head_dim);
int gpu_attend(struct gpu *gpu, const struct gpu_attention *attention, runnel_error *error);

/* Rotates and stores, attends, and multiplies what that gives; product's acts are attention's out. Nothing is known afterwards of what lies between
 * q, k, v on the one side and the pages and the product on the other. For one row of matrices of types of blocks of 256, with few blocks of positions,
 * two launches; else up to four, or more. */
int gpu_multiply_attended(struct gpu *gpu, const struct gpu_storing *storing,
                          const struct gpu_attention *attention, const struct gpu_product *product,
                          runnel_error *error);

/* Activation rows of silu(gate) * up, or gelu(gate) * up; both [n_rows, n]. */
struct gpu_activation {
    struct gpu_place gate, up;
    uint32_t n_rows, n;
    bool gelu;
    struct gpu_acts out;
};
int gpu_activate(struct gpu *gpu, const struct gpu_activation *activation, runnel_error *error);

/* Rows become the inputs of gate and up, these, activated, those of down. The acts of gate_up are input's out, those of down the activation's
 * out; of all places but down's nothing is known afterwards. Two launches for one row of matrices of types of blocks of 256; else five or
 * more. */
struct gpu_feed_forward {
    struct gpu_preparation input;
    struct gpu_product gate_up; /* two matrices, as large; out: the activation's gate and up */
    struct gpu_activation activation;
    struct gpu_product down;
};
int gpu_feed_forward(struct gpu *gpu, const struct gpu_feed_forward *feed, runnel_error *error);

/* The bytes of pages are to be those of others, one pair after the other. */
struct gpu_page_copies {
    struct gpu_cache cache;
    struct gpu_place pairs; /* uint32 [n_pairs][2]: from, to */
    uint32_t n_pairs;
};
int gpu_copy_pages(struct gpu *gpu, const struct gpu_page_copies *copies, runnel_error *error);

/* Of each row of logits [n_rows, n_columns] the largest of the first n, of equals that of the lowest id. Two launches. */
struct gpu_best {
    uint32_t id;      /* 0 if all are NaN */
    uint32_t has_nan; /* 1: at least one is */
    float logit;
    uint32_t unused;
};
struct gpu_choice {
    struct gpu_place logits;
    uint32_t n_rows, n_columns, n;
    struct gpu_place scratch; /* gpu_choice_bytes */
    struct gpu_place best;    /* struct gpu_best [n_rows] */
};
size_t gpu_choice_bytes(uint32_t n_rows, uint32_t n);
int gpu_find_best(struct gpu *gpu, const struct gpu_choice *choice, runnel_error *error);

#endif
