/* gpu_layers.c: a step's layers as the launches that they are made of, in the order of the queue (see gpu_step.h). */
#include "backend/gpu_step.h"

#include <string.h>

/* Stops at the first failure. */
struct queue {
    struct gpu_back *back;
    struct gpu_rows rows;
    uint32_t n_rows;
    int failure;
    runnel_error *error;
};

/* Of the places for inputs, those in the kinds that matrices want. */
static struct gpu_acts acts_for(const struct gpu_acts *acts, const struct gpu_back_matrix *const *matrices,
                                size_t n)
{
    struct gpu_acts wanted = {.of = {{.offset = 0}}};
    for (size_t i = 0; i < n; i++) {
        enum gpu_act_kind kind = gpu_act_kind_of(matrices[i]->type);
        wanted.of[kind] = acts->of[kind];
    }
    return wanted;
}

/* Rows of x, normalised, become the inputs of matrices. `which`: none, the first n. */
static struct gpu_preparation preparation_of(const struct queue *queue, struct gpu_place norm,
                                             struct gpu_place which, uint32_t n,
                                             const struct gpu_back_matrix *const *matrices, size_t n_matrices)
{
    const struct gpu_back *back = queue->back;
    const struct model_config *config = &back->options.weights->config;
    return (struct gpu_preparation){
        .x = back->x,
        .which = which,
        .n_rows = n,
        .n_columns = config->n_hidden,
        .norm_weight = norm,
        .epsilon = config->norm_epsilon,
        .out = acts_for(&back->acts, matrices, n_matrices),
    };
}

/* out[i] = the inputs times matrices[i], or that added to what is there. */
static struct gpu_product product_of(const struct gpu_acts *acts, uint32_t n_rows,
                                     const struct gpu_back_matrix *const *matrices,
                                     const struct gpu_place *out, size_t n, bool add)
{
    struct gpu_product product = {
        .acts = acts_for(acts, matrices, n),
        .n_acts = n_rows,
        .n_columns = matrices[0]->n_columns,
        .n_matrices = (uint32_t)n,
        .add = add,
    };
    for (size_t i = 0; i < n; i++)
        product.matrices[i] = (struct gpu_matrix){.tiles = matrices[i]->tiles,
                                                  .type = matrices[i]->type,
                                                  .n_rows = matrices[i]->n_rows,
                                                  .bias = matrices[i]->bias,
                                                  .out = out[i]};
    return product;
}

/* x += the inputs times the matrix; or `added` becomes that where it is normalised before: there is a weight for it. */
static struct gpu_product adding_product_of(const struct queue *queue, const struct gpu_acts *acts,
                                            const struct gpu_back_matrix *matrix, struct gpu_place norm)
{
    const struct gpu_back *back = queue->back;
    bool is_normalised = norm.buffer.handle != 0;
    return product_of(acts, queue->n_rows, &matrix, is_normalised ? &back->added : &back->x, 1,
                      !is_normalised);
}

/* What adding_product_of left to be done. */
static void add_normalised(struct queue *queue, struct gpu_place norm)
{
    const struct gpu_back *back = queue->back;
    const struct model_config *config = &back->options.weights->config;
    const struct gpu_addition addition = {.x = back->x,
                                          .added = back->added,
                                          .norm_weight = norm,
                                          .n_rows = queue->n_rows,
                                          .n = config->n_hidden,
                                          .epsilon = config->norm_epsilon};
    if (norm.buffer.handle && !queue->failure)
        queue->failure = gpu_add_normalised(back->gpu, &addition, queue->error);
}

static struct gpu_queries queries_of(const struct gpu_back *back)
{
    return (struct gpu_queries){.values = back->q,
                                .whole = back->q_whole,
                                .worth = back->q_worth,
                                .n_heads = back->options.weights->config.n_heads};
}

/* q, k, v = norm(x) times their matrices. */
static void project_qkv(struct queue *queue, const struct gpu_back_layer *layer)
{
    const struct gpu_back *back = queue->back;
    const struct gpu_back_matrix *const qkv[] = {&layer->q, &layer->k, &layer->v};
    const struct gpu_place out[] = {back->q, back->k, back->v};
    const struct gpu_preparation preparation =
        preparation_of(queue, layer->attn_norm, (struct gpu_place){.offset = 0}, queue->n_rows, qkv, 3);
    const struct gpu_product product = product_of(&back->acts, queue->n_rows, qkv, out, 3, false);
    if (!queue->failure)
        queue->failure = gpu_multiply_prepared(back->gpu, &preparation, &product, queue->error);
}

/* x += what attention gives times its matrix; before, q and k are rotated, and k and v go into their pages. */
static void attend(struct queue *queue, const struct gpu_back_layer *layer)
{
    const struct gpu_back *back = queue->back;
    const struct model_config *config = &back->options.weights->config;
    const struct gpu_back_matrix *const output[] = {&layer->attn_output};
    unsigned rotation = layer->window > 0;
    const struct gpu_storing storing = {
        .rows = queue->rows,
        .q = queries_of(back),
        .k = back->k,
        .v = back->v,
        .q_norm = layer->q_norm,
        .k_norm = layer->k_norm,
        .epsilon = config->norm_epsilon,
        .cosine = back->cosine[rotation],
        .sine = back->sine[rotation],
        .n_rot = config->n_rot,
        .interleaved = config->architecture->traits & TRAIT_INTERLEAVED_ROPE,
        .cache = layer->cache,
    };
    const struct gpu_attention attention = {
        .rows = queue->rows,
        .q = queries_of(back),
        .cache = layer->cache,
        .window = layer->window,
        .n_blocks = layer->window ? back->n_window_blocks : back->n_blocks,
        .scale = config->attention_scale,
        .partials = back->partials,
        .partials_bytes = back->partials_bytes,
        .out = acts_for(&back->acts, output, 1),
    };
    const struct gpu_product product =
        adding_product_of(queue, &back->acts, &layer->attn_output, layer->attn_output_norm);
    if (!queue->failure)
        queue->failure = gpu_multiply_attended(back->gpu, &storing, &attention, &product, queue->error);
    add_normalised(queue, layer->attn_output_norm);
}

/* x += activation(gate) * up times down, with gate and up = norm(x) times their matrices. */
static void feed_forward(struct queue *queue, const struct gpu_back_layer *layer)
{
    const struct gpu_back *back = queue->back;
    const struct model_config *config = &back->options.weights->config;
    const struct gpu_back_matrix *const gate_up[] = {&layer->gate, &layer->up}, *const down[] = {
                                                                                    &layer->down};
    const struct gpu_place out[] = {back->gate, back->up};
    const struct gpu_feed_forward feed = {
        .input = preparation_of(queue, layer->ffn_norm, (struct gpu_place){.offset = 0}, queue->n_rows,
                                gate_up, 2),
        .gate_up = product_of(&back->acts, queue->n_rows, gate_up, out, 2, false),
        .activation = {.gate = back->gate,
                       .up = back->up,
                       .n_rows = queue->n_rows,
                       .n = config->n_ffn,
                       .gelu = config->architecture->traits & TRAIT_GELU,
                       .out = acts_for(&back->activated, down, 1)},
        .down = adding_product_of(queue, &back->activated, &layer->down, layer->ffn_output_norm),
    };
    if (!queue->failure)
        queue->failure = gpu_feed_forward(back->gpu, &feed, queue->error);
    add_normalised(queue, layer->ffn_output_norm);
}

static void compute_layer(struct queue *queue, const struct gpu_back_layer *layer)
{
    project_qkv(queue, layer);
    attend(queue, layer);
    feed_forward(queue, layer);
}

/* x is the tokens' embeddings, or what the layers before have made of the rows. */
static void begin_rows(struct queue *queue, const struct backend_step *step)
{
    const struct gpu_back *back = queue->back;
    const struct model_config *config = &back->options.weights->config;
    const struct gpu_embedding embedding = {.rows = queue->rows,
                                            .matrix = back->embedding.tiles,
                                            .type = back->embedding.type,
                                            .n_columns = config->n_hidden,
                                            .scale = config->embedding_scale,
                                            .out = back->x};
    if (queue->failure)
        return;
    if (back->options.first_layer == 0) {
        queue->failure = gpu_embed(back->gpu, &embedding, queue->error);
        return;
    }
    size_t n_bytes = (size_t)queue->n_rows * config->n_hidden * sizeof(float);
    memcpy(back->host_hidden, step->hidden_in, n_bytes);
    queue->failure = gpu_write(back->gpu, back->x, back->host_hidden, n_bytes, queue->error);
}

static void copy_pages(struct queue *queue, uint32_t n_copies)
{
    const struct gpu_back *back = queue->back;
    for (uint32_t i = 0; n_copies && i < back->options.end_layer - back->options.first_layer; i++) {
        const struct gpu_page_copies copies = {
            .cache = back->layers[i].cache, .pairs = back->pairs, .n_pairs = n_copies};
        if (!queue->failure)
            queue->failure = gpu_copy_pages(back->gpu, &copies, queue->error);
    }
}

/* The device launches the same functions for both, as widely. */
static bool is_like(const struct gpu_back_layer *a, const struct gpu_back_layer *b)
{
    return a->q.type == b->q.type && a->k.type == b->k.type && a->v.type == b->v.type &&
           a->attn_output.type == b->attn_output.type && a->gate.type == b->gate.type &&
           a->up.type == b->up.type && a->down.type == b->down.type && a->window == b->window &&
           a->cache.k_f32 == b->cache.k_f32;
}

static bool is_first_of_its_kind(const struct gpu_back *back, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++)
        if (is_like(&back->layers[i], &back->layers[index]))
            return false;
    return true;
}

int gpu_back_queue_rehearsal(struct gpu_back *back, uint32_t n_rows, runnel_error *error)
{
    struct queue queue = {
        .back = back,
        .rows = {.rows = back->rows, .pages = back->pages, .n = n_rows},
        .n_rows = n_rows,
        .error = error,
    };
    copy_pages(&queue, 1);
    if (back->options.first_layer == 0)
        begin_rows(&queue, NULL);
    for (uint32_t i = 0; i < back->options.end_layer - back->options.first_layer; i++)
        if (is_first_of_its_kind(back, i))
            compute_layer(&queue, &back->layers[i]);
    return queue.failure;
}

int gpu_back_queue_step(struct gpu_back *back, const struct backend_step *step, runnel_error *error)
{
    const struct model_config *config = &back->options.weights->config;
    struct queue queue = {
        .back = back,
        .rows = {.rows = back->rows, .pages = back->pages, .n = step->n_rows},
        .n_rows = step->n_rows,
        .error = error,
    };
    copy_pages(&queue, step->n_copies);
    begin_rows(&queue, step);
    for (uint32_t i = 0; i < back->options.end_layer - back->options.first_layer; i++)
        compute_layer(&queue, &back->layers[i]);
    if (back->options.end_layer < config->n_layers && !queue.failure)
        queue.failure = gpu_read(back->gpu, back->x, back->host_hidden,
                                 (size_t)step->n_rows * config->n_hidden * sizeof(float), error);
    return queue.failure;
}

int gpu_back_queue_logits(struct gpu_back *back, uint32_t n, runnel_error *error)
{
    const struct gpu_back_matrix *const output[] = {&back->output};
    const struct queue queue = {.back = back, .n_rows = n, .error = error};
    const struct gpu_preparation preparation =
        preparation_of(&queue, back->output_norm, back->wanted, n, output, 1);
    const struct gpu_product product = product_of(&back->acts, n, output, &back->logits, 1, false);
    return gpu_multiply_prepared(back->gpu, &preparation, &product, error);
}

int gpu_back_queue_best(struct gpu_back *back, uint32_t n, runnel_error *error)
{
    const struct gpu_choice choice = {
        .logits = back->logits,
        .n_rows = n,
        .n_columns = back->options.weights->config.n_vocab,
        .n = back->options.n_tokens,
        .scratch = back->best_scratch,
        .best = back->best,
    };
    int failure = gpu_find_best(back->gpu, &choice, error);
    return failure ? failure
                   : gpu_read(back->gpu, back->best, back->host_best, n * sizeof *back->host_best, error);
}

int gpu_back_queue_read(struct gpu_back *back, uint32_t first, uint32_t n, runnel_error *error)
{
    size_t n_vocab = back->options.weights->config.n_vocab, at = first * n_vocab;
    const struct gpu_place from =
        gpu_at(back->logits.buffer, back->logits.offset + at * sizeof *back->host_logits);
    return gpu_read(back->gpu, from, back->host_logits + at, n * n_vocab * sizeof *back->host_logits, error);
}
