/* cpu_step.h: what the files of the CPU's back end share: its memory, and the parts that a step is made of.
 *
 * All members of the team run a step together: the same loop over the layers, divided into phases by barriers. In each phase the
 * members share rows, tiles of weights, or attention tasks; whoever computes an item, it comes out the same. So every function
 * below but cpu_quantize and cpu_multiply_tiles is called by all members, in the same order, and ends with all of its results
 * seen by all of them.
 *
 * Shapes, with R rows in the step: residual x [R, n_hidden]; q [R, n_heads * head_dim]; k, v [R, n_kv_heads * head_dim]; gate, up
 * [R, n_ffn]; all f32. Activation rows (kernels/act.h) are kept in each form that the phase's matrices want. */
#ifndef RUNNEL_BACKEND_CPU_STEP_H
#define RUNNEL_BACKEND_CPU_STEP_H

#include "backend/backend.h"
#include "backend/cpu_pages.h"
#include "backend/rotation.h"

#include <stdatomic.h>

enum {
    CPU_TILE_GRAIN = 4,     /* tiles of a product handed out at a time at the end of a phase */
    CPU_ATTENTION_ROWS = 8, /* rows that a task attends together */
    /* Up to so many rows, every member prepares all of them itself: sooner done than a barrier. */
    CPU_ALONE_ROWS = 4,
    CPU_ROTATIONS = 2,
};

/* Activation rows in each kind that the model's matrices want, NULL for the others. */
struct cpu_acts {
    void *of[ACT_KINDS];
};

/* Rows that stand together, of the step or of its order (below). A group of the order is, with a KV head, the unit of work of
 * attention. */
struct cpu_row_group {
    uint32_t begin, n;
};

/* What one member alone uses. */
struct cpu_member {
    float *norm;          /* [n_hidden]: a normalised row, before it is quantised */
    struct cpu_acts acts; /* CPU_ALONE_ROWS rows, as wide */
    float *q;             /* [CPU_ATTENTION_ROWS * heads per KV head, head_dim] */
    float *acc;           /* the same rows, head_dim rounded up to 16 */
    struct attn_state *states;
    struct attn_span *visible;
};

struct cpu {
    struct backend backend;
    const struct weights *weights;
    const struct kernels *kernels;
    struct team *team;
    unsigned n_members; /* the team's */
    uint32_t first_layer, end_layer, n_rows_max, n_logits_max;
    struct cpu_pages pages; /* their layers are counted from first_layer on */
    uint32_t acc_stride;    /* head_dim rounded up to 16 */

    float *x;                    /* the residual stream */
    float *q, *k, *v, *attended; /* attended has q's shape */
    float *gate, *up;            /* gate becomes activation(gate) * up */
    float *added;                /* [R, n_hidden]: what is normalised before x += it; NULL: nothing is */
    float *hidden;               /* [R, n_hidden]: normalised final states of the rows that want logits */
    float *cosine, *sine;        /* [n_rotations, R, n_rot / 2] */
    double *frequencies;         /* [n_rotations, n_rot / 2] */
    struct rotation rotations[CPU_ROTATIONS]; /* of layers that see all positions; of those with a window */
    uint32_t n_rotations;
    void (*activation_mul)(const float *gate, const float *up, uint32_t n, float *out); /* the kernels' */
    struct cpu_acts activated; /* R rows of n_ffn values: what `down` multiplies */
    struct cpu_acts acts;      /* R rows of n_hidden or n_heads * head_dim values */
    atomic_uint *n_activated;  /* [blocks of a row of n_ffn values]: tiles of the block that are multiplied */
    float *logits;             /* [n_logits_max, n_vocab] */
    struct cpu_row_group *groups;             /* [R] of the order */
    struct cpu_row_group *sequences, *merged; /* [R] scratch of cpu_group_rows */
    uint32_t
        *order; /* [R]: the step's rows as attention takes them, the ones that see the same side by side */
    struct cpu_member *members; /* [n_members] */
    uint8_t *region;
    size_t region_bytes;

    /* Of the step that was begun; written by member 0 before the team starts. */
    struct backend_step step; /* n_rows 0: none runs */
    uint32_t n_groups, n_wanted;
    bool groups_alone; /* each sequence has one group only */
    uint32_t *wanted;  /* [R]: which rows want logits */
    uint32_t logits_first, n_logits;
};

/* cpu_products.c */

/* One matrix of a phase and where its product goes. */
struct cpu_product {
    const struct packed_matrix *matrix;
    float *out; /* [R, n_rows of the matrix] */
    const float *bias;
};

/* Rows of floats that are to become activation rows of some products. */
struct cpu_rows {
    const float *x; /* [R, n] */
    uint32_t n;
    const float *norm_weight; /* normalise them first; or NULL */
    const struct cpu_product *products;
    size_t n_products;
};

/* Quantises n values into columns from `begin` on of a row of n_columns, in each kind that the products want. */
void cpu_quantize(const struct cpu *cpu, const float *x, uint32_t n, const struct cpu_acts *acts,
                  uint32_t n_columns, uint32_t row, uint32_t begin, const struct cpu_product *products,
                  size_t n_products);
/* Tells whoever asked for the inputs of products (backend.h), if somebody did, those of n_rows rows: member 0 does, before it takes
 * part in the products, and nobody waits for it. What the rows are made of must stay as it is until the phase's last barrier. first_row:
 * which row of the step the first one is. */
void cpu_tell_inputs(const struct cpu *cpu, unsigned member, const struct cpu_rows *source,
                     uint32_t first_row, uint32_t n_rows);
/* Prepares the rows for their products and returns where they are: each member all of them for itself when they are few, else
 * all members together. */
const struct cpu_acts *cpu_prepare_rows(const struct cpu *cpu, unsigned member, const struct cpu_rows *source,
                                        uint32_t n_rows);
/* Tiles [begin, end) of one product. */
void cpu_multiply_tiles(const struct cpu *cpu, const struct cpu_product *product, uint32_t begin,
                        uint32_t end, const struct cpu_acts *acts, uint32_t n_rows, bool add);
/* Computes the products of a phase: the tiles of all its matrices are one loop that the members share. */
void cpu_multiply(const struct cpu *cpu, unsigned member, const struct cpu_product *products,
                  size_t n_products, const struct cpu_acts *acts, uint32_t n_rows, bool add);

/* cpu_groups.c */

/* Orders the step's rows and cuts them into groups, before the team starts. How they are grouped does not matter to the
 * result. */
void cpu_group_rows(struct cpu *cpu);
/* True if both rows find the same pages in the block of ATTN_BLOCK positions that begins at start: those of one sequence, and
 * whole blocks that two sequences share. */
bool cpu_rows_see_same(const struct backend_row *a, const struct backend_row *b, uint32_t start);

/* cpu_attention.c */

/* Where cosines and sines of a row's position begin, of one of the rotations. */
static inline size_t cpu_rotation_at(const struct cpu *cpu, uint32_t rotation, uint32_t row)
{
    return ((size_t)rotation * cpu->n_rows_max + row) * cpu->rotations[0].n_pairs;
}

/* Normalises heads, rotates q and k, stores k and v in the pages, and attends: attended = softmax(q k) v. */
void cpu_attend(const struct cpu *cpu, unsigned member, uint32_t layer);

/* cpu_layers.c: what the team runs, with the struct cpu as its argument. */

/* The layers of the range over the step's rows. */
void cpu_compute_step(void *arg, unsigned member);
/* Logits of n_logits rows from logits_first on. */
void cpu_compute_logits(void *arg, unsigned member);

#endif
