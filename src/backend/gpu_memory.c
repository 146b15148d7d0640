/* gpu_memory.c: what the GPU's back end has on the device: weights as they are packed, keys and values, rotations, and the arrays of a
 * step (see gpu_step.h). The same walk over all of it counts bytes where there is no device yet, and makes it. */
#include "backend/gpu_step.h"

#include "kernels/act.h"
#include "kernels/pack.h"

#include <stdlib.h>
#include <string.h>

/* The device reads what the CPU packed, and its pages are as large. */
_Static_assert(GPU_TILE_ROWS == (int)TILE_ROWS && GPU_ACT_BLOCK == (int)ACT_BLOCK &&
                   GPU_NORM_LANES == (int)NORM_LANES,
               "tiles, blocks of activations and norms are the CPU's");
_Static_assert(GPU_KV_PAGE == (int)KV_PAGE && GPU_ATTENTION_BLOCK == (int)ATTN_BLOCK &&
                   GPU_HEAD_DIM_MAX == (int)KV_HEAD_DIM_MAX && GPU_NO_PAGE == NO_PAGE,
               "so are pages");
_Static_assert(GPU_Q4_K_BLOCK == (int)Q4K_BLOCK_BYTES && GPU_Q4_K_NIBBLES == (int)Q4K_NIBBLES &&
                   GPU_K_DMIN == (int)Q4K_DMIN && GPU_K_SCALES == (int)Q4K_SCALES,
               "blocks of Q4_K");
_Static_assert(GPU_Q5_K_BLOCK == (int)Q5K_BLOCK_BYTES && GPU_Q5_K_BITS == (int)Q5K_BITS, "blocks of Q5_K");
_Static_assert(GPU_Q6_K_BLOCK == (int)Q6K_BLOCK_BYTES && GPU_Q6_K_CHUNKS == (int)Q6K_CHUNKS &&
                   GPU_Q6_K_CHUNK == (int)Q6K_CHUNK_BYTES,
               "blocks of Q6_K");
_Static_assert(GPU_Q2_K_BLOCK == (int)Q2K_BLOCK_BYTES && GPU_Q2_K_VALUES == (int)Q2K_VALUES,
               "blocks of Q2_K");
_Static_assert(GPU_Q3_K_BLOCK == (int)Q3K_BLOCK_BYTES && GPU_Q3_K_VALUES == (int)Q3K_VALUES &&
                   GPU_Q3_K_PAIR == (int)Q3K_PAIR_BYTES,
               "blocks of Q3_K");
_Static_assert(GPU_IQ4_XS_BLOCK == (int)IQ4XS_BLOCK_BYTES && GPU_IQ4_XS_NIBBLES == (int)IQ4XS_NIBBLES,
               "blocks of IQ4_XS");
_Static_assert(GPU_PAIR_COLUMNS == (int)PAIR_VALUES && GPU_PAIR_M == (int)PAIR_M &&
                   GPU_PAIR_BITS == (int)PAIR_BITS_VECTOR,
               "pairs of blocks of 32");
_Static_assert(GPU_F32 == (int)TENSOR_F32 && GPU_F16 == (int)TENSOR_F16 && GPU_BF16 == (int)TENSOR_BF16 &&
                   GPU_Q4_0 == (int)TENSOR_Q4_0 && GPU_Q4_1 == (int)TENSOR_Q4_1 &&
                   GPU_Q5_0 == (int)TENSOR_Q5_0 && GPU_Q5_1 == (int)TENSOR_Q5_1 &&
                   GPU_Q8_0 == (int)TENSOR_Q8_0 && GPU_IQ4_NL == (int)TENSOR_IQ4_NL &&
                   GPU_MXFP4 == (int)TENSOR_MXFP4 && GPU_Q2_K == (int)TENSOR_Q2_K &&
                   GPU_Q3_K == (int)TENSOR_Q3_K && GPU_Q4_K == (int)TENSOR_Q4_K &&
                   GPU_Q5_K == (int)TENSOR_Q5_K && GPU_Q6_K == (int)TENSOR_Q6_K &&
                   GPU_IQ4_XS == (int)TENSOR_IQ4_XS,
               "types have one number");
_Static_assert(sizeof(struct act_q8_256) == GPU_Q8_256_BYTES &&
                   offsetof(struct act_q8_256, sum16) == GPU_Q8_256_SUMS_16 &&
                   offsetof(struct act_q8_256, sum32) == GPU_Q8_256_SUMS_32 &&
                   offsetof(struct act_q8_256, d) == GPU_Q8_256_D &&
                   offsetof(struct act_q8_256, largest_sum16) == GPU_Q8_256_LARGEST,
               "activations of blocks of 256");
_Static_assert(sizeof(struct act_q8_32) == GPU_Q8_32_BYTES && offsetof(struct act_q8_32, d) == GPU_Q8_32_D &&
                   offsetof(struct act_q8_32, d_sum) == GPU_Q8_32_D_SUM &&
                   offsetof(struct act_q8_32, offset) == GPU_Q8_32_OFFSET,
               "... of 32");
_Static_assert((int)GPU_ACT_Q8_256 == (int)ACT_Q8_256 && (int)GPU_ACT_Q8_32 == (int)ACT_Q8_32 &&
                   (int)GPU_ACT_F32 == (int)ACT_F32,
               "kinds of activations");

/* Partial results of attention: room for fewer rows means more launches. */
#define PARTIALS_BYTES ((size_t)32 << 20)
/* For a buffer to be filled, however slow the bus. */
static const double fill_ms = 60e3;

/* The walk over all that lies on the device; gpu NULL: it only counts. After a failure it does nothing more. */
struct maker {
    struct gpu_back *back;
    struct gpu *gpu;
    struct gpu_back_need need;
    uint32_t n_buffers;
    /* Small arrays share a buffer, whose size the first walk tells. */
    struct gpu_buffer small;
    size_t small_bytes, small_used;
    int failure;
    runnel_error *error;
};

/* Of a card: its memory is given in pieces of 2 MiB, which small buffers share. */
static uint64_t bytes_of_pieces(size_t n_bytes)
{
    const size_t piece = (size_t)2 << 20;
    return n_bytes < piece / 2 ? n_bytes : (n_bytes + piece - 1) / piece * piece;
}

static struct gpu_buffer take_buffer(struct maker *maker, size_t n_bytes)
{
    struct gpu_buffer buffer = {.handle = 0};
    maker->need.n_bytes += n_bytes;
    maker->need.taken_bytes += bytes_of_pieces(n_bytes);
    if (n_bytes > maker->need.largest_bytes)
        maker->need.largest_bytes = n_bytes;
    if (maker->gpu && !maker->failure)
        maker->failure = gpu_alloc(maker->gpu, n_bytes, &buffer, maker->error);
    if (maker->gpu && !maker->failure)
        maker->back->buffers[maker->back->n_buffers++] = buffer;
    maker->n_buffers++;
    return buffer;
}

static struct gpu_place take(struct maker *maker, size_t n_bytes)
{
    return gpu_at(take_buffer(maker, n_bytes), 0);
}

/* data stays as it is until the queue is empty. */
static void fill(struct maker *maker, struct gpu_place place, const void *data, size_t n_bytes)
{
    if (maker->gpu && !maker->failure)
        maker->failure = gpu_write(maker->gpu, place, data, n_bytes, maker->error);
}

/* A small array of floats; NULL: none. */
static struct gpu_place put_vector(struct maker *maker, const float *values, size_t n)
{
    struct gpu_place place = gpu_at(maker->small, maker->small_used);
    if (!values)
        return (struct gpu_place){.offset = 0};
    maker->small_used += (n * sizeof *values + 15) / 16 * 16;
    fill(maker, place, values, n * sizeof *values);
    return place;
}

static struct gpu_back_matrix put_matrix(struct maker *maker, const struct packed_matrix *matrix,
                                         const float *bias)
{
    size_t n_bytes = matrix->n_tiles * matrix->tile_bytes;
    struct gpu_back_matrix put = {
        .tiles = take(maker, n_bytes),
        .bias = put_vector(maker, bias, matrix->n_rows),
        .type = (uint32_t)matrix->type,
        .n_rows = matrix->n_rows,
        .n_columns = matrix->n_columns,
    };
    fill(maker, put.tiles, matrix->data, n_bytes);
    return put;
}

/* Waits for what is on its way, so that the host's memory and the driver's need not hold all weights at once. */
static void settle(struct maker *maker)
{
    if (maker->gpu && !maker->failure)
        maker->failure = gpu_finish(maker->gpu, fill_ms, maker->error);
}

static struct gpu_cache put_cache(struct maker *maker, uint32_t layer)
{
    const struct backend_options *options = &maker->back->options;
    const struct model_config *config = &options->weights->config;
    const struct kv_shape *shape = &options->weights->kv_shapes[layer];
    size_t n_bytes = (size_t)config->n_kv_heads * options->n_pages * kv_block_bytes(shape);
    struct gpu_cache cache = {
        .blocks = take(maker, n_bytes),
        .n_pages = options->n_pages,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .k_f32 = shape->k_f32,
    };
    maker->need.kv_bytes += n_bytes;
    if (maker->gpu && !maker->failure)
        maker->failure = gpu_zero(maker->gpu, cache.blocks, n_bytes, maker->error);
    return cache;
}

static struct gpu_back_layer put_layer(struct maker *maker, uint32_t index)
{
    const struct weights *weights = maker->back->options.weights;
    const struct model_config *config = &weights->config;
    const struct layer_weights *layer = &weights->layers[index];
    struct gpu_back_layer put = {
        .attn_norm = put_vector(maker, layer->attn_norm, config->n_hidden),
        .ffn_norm = put_vector(maker, layer->ffn_norm, config->n_hidden),
        .q_norm = put_vector(maker, layer->q_norm, config->head_dim),
        .k_norm = put_vector(maker, layer->k_norm, config->head_dim),
        .attn_output_norm = put_vector(maker, layer->attn_output_norm, config->n_hidden),
        .ffn_output_norm = put_vector(maker, layer->ffn_output_norm, config->n_hidden),
        .window = model_config_window(config, index),
    };
    put.q = put_matrix(maker, &layer->q, layer->q_bias);
    put.k = put_matrix(maker, &layer->k, layer->k_bias);
    put.v = put_matrix(maker, &layer->v, layer->v_bias);
    put.attn_output = put_matrix(maker, &layer->attn_output, NULL);
    put.gate = put_matrix(maker, &layer->gate, NULL);
    put.up = put_matrix(maker, &layer->up, NULL);
    put.down = put_matrix(maker, &layer->down, NULL);
    put.cache = put_cache(maker, index);
    settle(maker);
    return put;
}

/* What is no layer's: embedding, head and the last norm, as far as they are the range's. */
static void put_ends(struct maker *maker)
{
    struct gpu_back *back = maker->back;
    const struct weights *weights = back->options.weights;
    bool is_first = back->options.first_layer == 0,
         is_last = back->options.end_layer == weights->config.n_layers;
    if (is_first)
        back->embedding = put_matrix(maker, &weights->embedding, NULL);
    if (is_last && is_first && weights->config.tied)
        back->output = back->embedding;
    else if (is_last)
        back->output = put_matrix(maker, &weights->output, NULL);
    if (is_last)
        back->output_norm = put_vector(maker, weights->output_norm, weights->config.n_hidden);
    settle(maker);
}

static uint32_t count_rotations(const struct model_config *config)
{
    return config->n_window ? 2 : 1;
}

/* Cosines and sines of all positions, [n_positions, n_rot / 2] each; false: no memory for them here. */
static bool compute_rotations(const struct backend_options *options, const struct rope_config *rope,
                              float *cosine, float *sine)
{
    uint32_t n_pairs = options->weights->config.n_rot / 2;
    double *frequencies = malloc(n_pairs * sizeof *frequencies + 1);
    if (!frequencies)
        return false;
    const struct rotation rotation = rotation_create(options->weights, rope, frequencies);
    for (uint32_t i = 0; i < options->n_positions; i++)
        rotation_compute(&rotation, i, cosine + (size_t)i * n_pairs, sine + (size_t)i * n_pairs);
    free(frequencies);
    return true;
}

static void put_rotation(struct maker *maker, uint32_t index)
{
    struct gpu_back *back = maker->back;
    const struct model_config *config = &back->options.weights->config;
    size_t n = (size_t)back->options.n_positions * (config->n_rot / 2), n_bytes = n * sizeof(float);
    back->cosine[index] = take(maker, n_bytes);
    back->sine[index] = take(maker, n_bytes);
    if (!maker->gpu || maker->failure)
        return;
    float *values = gpu_alloc_host(maker->gpu, 2 * n_bytes);
    if (!values ||
        !compute_rotations(&back->options, index ? &config->window_rope : &config->rope, values, values + n))
        maker->failure = error_set(maker->error, RUNNEL_ENOMEM, "no memory for the rotations of %u positions",
                                   back->options.n_positions);
    else {
        fill(maker, back->cosine[index], values, n_bytes);
        fill(maker, back->sine[index], values + n, n_bytes);
    }
    int waited = gpu_finish(maker->gpu, fill_ms, maker->failure ? NULL : maker->error);
    maker->failure = maker->failure ? maker->failure : waited;
    gpu_free_host(maker->gpu, values);
}

static struct gpu_acts take_acts(struct maker *maker, uint32_t n_columns)
{
    const struct backend_options *options = &maker->back->options;
    struct gpu_acts acts = {.of = {{.offset = 0}}};
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (options->weights->acts[kind])
            acts.of[kind] = take(maker, act_bytes((enum act_kind)kind, options->n_rows_max, n_columns));
    return acts;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The arrays of a step. */
static void take_arrays(struct maker *maker)
{
    struct gpu_back *back = maker->back;
    const struct backend_options *options = &back->options;
    const struct model_config *config = &options->weights->config;
    size_t n_rows = options->n_rows_max, n_q = (size_t)config->n_heads * config->head_dim,
           n_kv = (size_t)config->n_kv_heads * config->head_dim;
    uint32_t n_blocks = (options->n_positions + ATTN_BLOCK - 1) / ATTN_BLOCK,
             n_pages = (options->n_positions + KV_PAGE - 1) / KV_PAGE;
    bool has_head = options->end_layer == config->n_layers;
    back->x = take(maker, n_rows * config->n_hidden * sizeof(float));
    back->q = take(maker, n_rows * n_q * sizeof(float));
    back->k = take(maker, n_rows * n_kv * sizeof(float));
    back->v = take(maker, n_rows * n_kv * sizeof(float));
    back->q_whole = take(maker, n_rows * n_q * sizeof(int16_t));
    back->q_worth = take(maker, n_rows * config->n_heads * sizeof(float));
    back->gate = take(maker, n_rows * config->n_ffn * sizeof(float));
    back->up = take(maker, n_rows * config->n_ffn * sizeof(float));
    if (config->architecture->traits & TRAIT_OUTPUT_NORMS)
        back->added = take(maker, n_rows * config->n_hidden * sizeof(float));
    back->acts = take_acts(maker, (uint32_t)larger(config->n_hidden, n_q));
    back->activated = take_acts(maker, config->n_ffn);
    /* As many rows as there is room for with few positions before them, one with the most. */
    size_t of_one = gpu_partials_bytes(1, n_blocks, config->n_heads, config->head_dim),
           of_all = gpu_partials_bytes((uint32_t)n_rows, n_blocks, config->n_heads, config->head_dim);
    back->partials_bytes = of_all < PARTIALS_BYTES ? of_all : larger(of_one, PARTIALS_BYTES);
    back->partials = take(maker, back->partials_bytes);
    back->rows = take(maker, n_rows * sizeof(struct gpu_row));
    back->pages = take(maker, (size_t)options->n_sequences * n_pages * sizeof(uint32_t));
    back->wanted = take(maker, n_rows * sizeof(uint32_t));
    back->pairs = take(maker, (size_t)options->n_pages * 2 * sizeof(uint32_t));
    if (!has_head)
        return;
    back->logits = take(maker, (size_t)options->n_logits_max * config->n_vocab * sizeof(float));
    back->best = take(maker, options->n_logits_max * sizeof(struct gpu_best));
    back->best_scratch = take(maker, gpu_choice_bytes(options->n_logits_max, options->n_tokens));
}

static void make_all(struct maker *maker)
{
    struct gpu_back *back = maker->back;
    const struct backend_options *options = &back->options;
    if (maker->small_bytes)
        maker->small = take_buffer(maker, maker->small_bytes);
    put_ends(maker);
    for (uint32_t i = options->first_layer; i < options->end_layer && !maker->failure; i++) {
        const struct gpu_back_layer layer = put_layer(maker, i);
        if (back->layers)
            back->layers[i - options->first_layer] = layer;
    }
    for (uint32_t i = 0; i < count_rotations(&options->weights->config); i++)
        put_rotation(maker, i);
    take_arrays(maker);
    settle(maker);
}

/* Counts; *n_buffers and *small_bytes are what making needs to know before. */
static struct gpu_back_need count(const struct backend_options *options, uint32_t *n_buffers,
                                  size_t *small_bytes)
{
    struct gpu_back counted = {.options = *options};
    struct maker maker = {.back = &counted};
    make_all(&maker);
    maker.need.n_bytes += maker.small_used;
    maker.need.taken_bytes += bytes_of_pieces(maker.small_used);
    *n_buffers = maker.n_buffers + 1;
    *small_bytes = maker.small_used;
    return maker.need;
}

struct gpu_back_need gpu_back_count(const struct backend_options *options)
{
    uint32_t n_buffers;
    size_t small_bytes;
    return count(options, &n_buffers, &small_bytes);
}

/* Making -------------------------------------------------------------------------------------------------- */

/* Memory that the device reads and writes. */
static void *take_host(struct maker *maker, size_t n_bytes)
{
    void *memory = maker->failure ? NULL : gpu_alloc_host(maker->gpu, n_bytes);
    if (!memory && !maker->failure)
        maker->failure = error_set(maker->error, RUNNEL_ENOMEM, "no memory for steps of %u rows",
                                   maker->back->options.n_rows_max);
    return memory;
}

static void take_host_arrays(struct maker *maker)
{
    struct gpu_back *back = maker->back;
    const struct backend_options *options = &back->options;
    const struct model_config *config = &options->weights->config;
    size_t n_pages = (options->n_positions + KV_PAGE - 1) / KV_PAGE, n_rows = options->n_rows_max;
    back->host_rows = take_host(maker, n_rows * sizeof *back->host_rows);
    back->host_pages = take_host(maker, options->n_sequences * n_pages * sizeof *back->host_pages);
    back->host_asked = take_host(maker, n_rows * sizeof *back->host_asked);
    back->host_pairs = take_host(maker, (size_t)options->n_pages * 2 * sizeof *back->host_pairs);
    if (options->first_layer > 0 || options->end_layer < config->n_layers)
        back->host_hidden = take_host(maker, n_rows * config->n_hidden * sizeof *back->host_hidden);
    if (back->logits.buffer.handle) {
        back->host_logits = take_host(maker, back->logits.buffer.n_bytes);
        back->host_best = take_host(maker, back->best.buffer.n_bytes);
    }
    back->wanted_rows = malloc(n_rows * sizeof *back->wanted_rows);
    if (!back->wanted_rows && !maker->failure)
        maker->failure = error_set(maker->error, RUNNEL_ENOMEM, "no memory for steps of %zu rows", n_rows);
}

static void add_type(const struct gpu_back_matrix *matrix, uint32_t types[GPU_BACK_TYPES_MAX], uint32_t *n)
{
    for (uint32_t i = 0; i < *n; i++)
        if (types[i] == matrix->type)
            return;
    if (matrix->n_rows && *n < GPU_BACK_TYPES_MAX)
        types[(*n)++] = matrix->type;
}

/* All that steps launch is compiled, and was launched once: later no file can be opened. */
static int prepare(struct gpu_back *back, runnel_error *error)
{
    uint32_t types[GPU_BACK_TYPES_MAX] = {0}, n = 0;
    add_type(&back->embedding, types, &n);
    add_type(&back->output, types, &n);
    for (uint32_t i = 0; i < back->options.end_layer - back->options.first_layer; i++) {
        const struct gpu_back_layer *layer = &back->layers[i];
        const struct gpu_back_matrix *matrices[] = {
            &layer->q, &layer->k, &layer->v, &layer->attn_output, &layer->gate, &layer->up, &layer->down};
        for (size_t k = 0; k < sizeof matrices / sizeof *matrices; k++)
            add_type(matrices[k], types, &n);
    }
    for (uint32_t i = 0; i < n; i++)
        if (!gpu_knows_type(types[i]))
            return error_set(error, RUNNEL_EUNSUPPORTED,
                             "weights of type %s: a GPU cannot compute with them yet",
                             quant_find(types[i])->name);
    return gpu_prepare_all(back->gpu, types, n, error);
}

int gpu_back_make(struct gpu_back *back, runnel_error *error)
{
    struct maker maker = {.back = back, .gpu = back->gpu, .error = error};
    uint32_t n_buffers;
    count(&back->options, &n_buffers, &maker.small_bytes);
    back->buffers = calloc(n_buffers, sizeof *back->buffers);
    back->layers = calloc(back->options.end_layer - back->options.first_layer, sizeof *back->layers);
    if (!back->buffers || !back->layers)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the layers of a GPU");
    make_all(&maker);
    back->device_bytes = maker.need.n_bytes;
    back->kv_bytes = maker.need.kv_bytes;
    backend_device_count(back->options.device, (int64_t)back->device_bytes);
    if (!maker.failure)
        take_host_arrays(&maker);
    return maker.failure ? maker.failure : prepare(back, error);
}

void gpu_back_free(struct gpu_back *back)
{
    /* Where it was not all made, something may be on its way. */
    (void)gpu_finish(back->gpu, back->step_ms, NULL);
    for (uint32_t i = 0; i < back->n_buffers; i++)
        gpu_free(back->gpu, &back->buffers[i]);
    void *const of_host[] = {back->host_rows,   back->host_pages,  back->host_asked, back->host_pairs,
                             back->host_hidden, back->host_logits, back->host_best};
    for (size_t i = 0; i < sizeof of_host / sizeof *of_host; i++)
        gpu_free_host(back->gpu, of_host[i]);
    backend_device_count(back->options.device, -(int64_t)back->device_bytes);
    free(back->wanted_rows);
    free(back->buffers);
    free(back->layers);
}
