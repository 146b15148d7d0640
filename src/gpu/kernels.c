/* kernels.c: the arguments and groups of every function of device code, in the order in which these have them. See kernels.h. */
#include "gpu/kernels.h"
#include "gpu/driver.h"

#include <string.h>

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

/* Types and sizes --------------------------------------------------------------------------------------------------------------- */

/* A quantised type: bytes of a tile for so many columns, and is there a header of d in front. */
struct type_info {
    uint32_t type, n_columns, n_bytes;
    bool has_header;
};
static const struct type_info types[] = {
    {GPU_Q4_K, 256, GPU_Q4_K_BLOCK, false}, {GPU_Q5_K, 256, GPU_Q5_K_BLOCK, false},
    {GPU_Q6_K, 256, GPU_Q6_K_BLOCK, true},  {GPU_Q2_K, 256, GPU_Q2_K_BLOCK, false},
    {GPU_Q3_K, 256, GPU_Q3_K_BLOCK, true},  {GPU_IQ4_XS, 256, GPU_IQ4_XS_BLOCK, true},
    {GPU_Q8_0, 64, GPU_Q8_0_PAIR, false},   {GPU_Q4_0, 64, GPU_Q4_0_PAIR, false},
    {GPU_Q4_1, 64, GPU_Q4_1_PAIR, false},   {GPU_Q5_0, 64, GPU_Q5_0_PAIR, false},
    {GPU_Q5_1, 64, GPU_Q5_1_PAIR, false},   {GPU_IQ4_NL, 64, GPU_Q4_0_PAIR, false},
    {GPU_MXFP4, 64, GPU_Q4_0_PAIR, false},  {GPU_F32, 1, 4 * GPU_TILE_ROWS, false},
    {GPU_F16, 1, 2 * GPU_TILE_ROWS, false}, {GPU_BF16, 1, 2 * GPU_TILE_ROWS, false},
};

static const struct type_info *find_type(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

bool gpu_knows_type(uint32_t type)
{
    return find_type(type) != NULL;
}

enum gpu_act_kind gpu_act_kind_of(uint32_t type)
{
    const struct type_info *info = find_type(type);
    return !info || info->n_columns == 1 ? GPU_ACT_F32
           : info->n_columns == 64       ? GPU_ACT_Q8_32
                                         : GPU_ACT_Q8_256;
}

size_t gpu_act_row_bytes(enum gpu_act_kind kind, uint32_t n_columns)
{
    static const size_t block_bytes[GPU_ACT_KINDS] = {GPU_Q8_256_BYTES, GPU_Q8_32_BYTES, GPU_F32_BLOCK_BYTES};
    return divide_up(n_columns, GPU_ACT_BLOCK) * block_bytes[kind];
}

size_t gpu_tile_bytes(uint32_t type, uint32_t n_columns)
{
    const struct type_info *info = find_type(type);
    if (!info)
        return 0;
    size_t n = divide_up(n_columns, info->n_columns), header = info->has_header ? round_up(n * 32, 64) : 0;
    return round_up(header + n * info->n_bytes, 64);
}

size_t gpu_kv_k_bytes(uint32_t head_dim, bool k_f32)
{
    size_t n = (size_t)head_dim * GPU_KV_PAGE;
    return k_f32 ? n * sizeof(float) : n * sizeof(int16_t) + GPU_KV_PAGE * sizeof(float);
}

size_t gpu_kv_block_bytes(uint32_t head_dim, bool k_f32)
{
    return gpu_kv_k_bytes(head_dim, k_f32) + round_up(head_dim, 16) * GPU_KV_PAGE * sizeof(int16_t) +
           GPU_KV_PAGE * sizeof(float);
}

/* Launches ---------------------------------------------------------------------------------------------------------------------- */

struct arguments {
    struct gpu_argument list[GPU_ARGUMENTS_MAX];
    uint32_t n;
};

static void add_place(struct arguments *arguments, struct gpu_place place)
{
    arguments->list[arguments->n++] = (struct gpu_argument){.kind = GPU_ARGUMENT_PLACE, .place = place};
}

static void add_uint(struct arguments *arguments, uint32_t value)
{
    arguments->list[arguments->n++] = (struct gpu_argument){.kind = GPU_ARGUMENT_UINT, .u = value};
}

static void add_float(struct arguments *arguments, float value)
{
    arguments->list[arguments->n++] = (struct gpu_argument){.kind = GPU_ARGUMENT_FLOAT, .f = value};
}

static void add_acts(struct arguments *arguments, const struct gpu_acts *acts)
{
    add_place(arguments, acts->of[GPU_ACT_Q8_256]);
    add_place(arguments, acts->of[GPU_ACT_Q8_32]);
    add_place(arguments, acts->of[GPU_ACT_F32]);
}

static int launch(struct gpu *gpu, enum gpu_function function, uint32_t x, uint32_t y, uint32_t z,
                  const struct arguments *arguments, runnel_error *error)
{
    const uint32_t n_groups[3] = {x, y, z};
    return gpu_launch(gpu, function, n_groups, arguments->list, arguments->n, error);
}

int gpu_embed(struct gpu *gpu, const struct gpu_embedding *embedding, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    add_place(&arguments, embedding->rows.rows);
    add_place(&arguments, embedding->matrix);
    add_place(&arguments, embedding->out);
    add_uint(&arguments, embedding->type);
    add_uint(&arguments, embedding->n_columns);
    add_float(&arguments, embedding->scale);
    return launch(gpu, GPU_FUNCTION_EMBED, divide_up(embedding->n_columns, 256), embedding->rows.n, 1,
                  &arguments, error);
}

int gpu_prepare_rows(struct gpu *gpu, const struct gpu_preparation *preparation, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    add_place(&arguments, preparation->x);
    add_place(&arguments, preparation->which);
    add_place(&arguments, preparation->norm_weight);
    add_acts(&arguments, &preparation->out);
    add_uint(&arguments, preparation->n_columns);
    add_float(&arguments, preparation->epsilon);
    return launch(gpu, GPU_FUNCTION_PREPARE, divide_up(preparation->n_columns, 256), preparation->n_rows, 1,
                  &arguments, error);
}

int gpu_activate(struct gpu *gpu, const struct gpu_activation *activation, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    add_place(&arguments, activation->gate);
    add_place(&arguments, activation->up);
    add_acts(&arguments, &activation->out);
    add_uint(&arguments, activation->n);
    add_uint(&arguments, activation->gelu);
    return launch(gpu, GPU_FUNCTION_ACTIVATE, divide_up(activation->n, 256), activation->n_rows, 1,
                  &arguments, error);
}

int gpu_add_normalised(struct gpu *gpu, const struct gpu_addition *addition, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    add_place(&arguments, addition->x);
    add_place(&arguments, addition->added);
    add_place(&arguments, addition->norm_weight);
    add_uint(&arguments, addition->n);
    add_float(&arguments, addition->epsilon);
    return launch(gpu, GPU_FUNCTION_ADD_NORMALISED, divide_up(addition->n, 256), addition->n_rows, 1,
                  &arguments, error);
}

/* Products ---------------------------------------------------------------------------------------------------------------------- */

/* A row of few blocks of 256 has a function with fewer items, of which more groups fit. */
static enum gpu_function for_row(enum gpu_function function, uint32_t n_columns)
{
    enum { FEW_BLOCKS = 8 };
    if (n_columns > FEW_BLOCKS * GPU_ACT_BLOCK)
        return function;
    return function == GPU_FUNCTION_PRODUCT_Q4_K_1   ? GPU_FUNCTION_PRODUCT_Q4_K_FEW
           : function == GPU_FUNCTION_PRODUCT_Q6_K_1 ? GPU_FUNCTION_PRODUCT_Q6_K_FEW
                                                     : function;
}

/* The function for the matrices of a launch, all of one act kind: that of their type where it has its own. The one for several rows of
 * activations stands behind it. */
static enum gpu_function find_product(const struct gpu *gpu, const struct gpu_matrix *const *matrices,
                                      uint32_t n)
{
    uint32_t type = matrices[0]->type;
    for (uint32_t i = 1; i < n; i++)
        type = matrices[i]->type == type ? type : GPU_NO_TYPE;
    switch (type) {
    case GPU_Q4_K:
        return GPU_FUNCTION_PRODUCT_Q4_K_1;
    case GPU_Q6_K:
        return GPU_FUNCTION_PRODUCT_Q6_K_1;
    case GPU_Q8_0:
        return GPU_FUNCTION_PRODUCT_Q8_0_1;
    default:
        break;
    }
    switch (gpu_act_kind_of(matrices[0]->type)) {
    case GPU_ACT_Q8_256:
        return GPU_FUNCTION_PRODUCT_K_1;
    case GPU_ACT_Q8_32:
        return GPU_FUNCTION_PRODUCT_32_1;
    default:
        return gpu_get_info(gpu)->approximates ? GPU_FUNCTION_PRODUCT_FLOAT_SPLIT_1
                                               : GPU_FUNCTION_PRODUCT_FLOAT_1;
    }
}

static void add_matrix(struct arguments *arguments, const struct gpu_matrix *matrix)
{
    add_place(arguments, matrix->tiles);
    add_place(arguments, matrix->bias);
    add_place(arguments, matrix->out);
    add_uint(arguments, matrix->type);
    add_uint(arguments, matrix->n_rows);
}

/* How a function of products takes the rows of activations and the tiles: so many in a group. */
struct grouping {
    uint32_t n_acts, n_tiles;
};

static struct grouping grouping_of(enum gpu_function function, uint32_t n_acts)
{
    if (function == GPU_FUNCTION_PRODUCT_Q4_K_MATRIX || function == GPU_FUNCTION_PRODUCT_Q6_K_MATRIX)
        return (struct grouping){GPU_ROWS_MATRIX, GPU_TILES_MATRIX};
    return (struct grouping){n_acts > 1 ? GPU_ROWS_TOGETHER : 1, 1};
}

/* One launch for matrices of one act kind. */
static int multiply_by(struct gpu *gpu, enum gpu_function function, const struct gpu_product *product,
                       const struct gpu_matrix *const *matrices, uint32_t n, runnel_error *error)
{
    static const struct gpu_matrix none = {.n_rows = 0};
    struct arguments arguments = {.n = 0};
    struct grouping grouping = grouping_of(function, product->n_acts);
    uint32_t n_tiles = 0;
    for (uint32_t i = 0; i < GPU_PRODUCTS_MAX; i++) {
        add_matrix(&arguments, i < n ? matrices[i] : &none);
        n_tiles += i < n ? divide_up(matrices[i]->n_rows, GPU_TILE_ROWS) : 0;
    }
    add_place(&arguments, product->acts.of[gpu_act_kind_of(matrices[0]->type)]);
    add_uint(&arguments, product->n_acts);
    add_uint(&arguments, product->n_columns);
    add_uint(&arguments, product->add);
    return launch(gpu, function, divide_up(n_tiles, grouping.n_tiles),
                  divide_up(product->n_acts, grouping.n_acts), 1, &arguments, error);
}

/* The matrices of an act kind, or with a type those of that one alone. */
static uint32_t select_matrices(const struct gpu_product *product, enum gpu_act_kind kind, uint32_t type,
                                const struct gpu_matrix *selected[GPU_PRODUCTS_MAX])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < product->n_matrices; i++) {
        const struct gpu_matrix *matrix = &product->matrices[i];
        bool is_wanted = type == GPU_NO_TYPE ? gpu_act_kind_of(matrix->type) == kind : matrix->type == type;
        if (is_wanted)
            selected[n++] = matrix;
    }
    return n;
}

/* With fewer rows of activations the others are about as fast: they read what matrix units would multiply in vain. */
enum { MATRIX_UNITS_FROM = 17 };

bool gpu_has_matrix_function(uint32_t type)
{
    return type == GPU_Q4_K || type == GPU_Q6_K;
}

int gpu_multiply_matrix(struct gpu *gpu, const struct gpu_product *product, uint32_t type,
                        runnel_error *error)
{
    const struct gpu_matrix *matrices[GPU_PRODUCTS_MAX];
    uint32_t n = select_matrices(product, GPU_ACT_Q8_256, type, matrices);
    enum gpu_function function =
        type == GPU_Q4_K ? GPU_FUNCTION_PRODUCT_Q4_K_MATRIX : GPU_FUNCTION_PRODUCT_Q6_K_MATRIX;
    return n ? multiply_by(gpu, function, product, matrices, n, error) : RUNNEL_OK;
}

/* All matrices of an act kind in one launch. */
static int multiply_kind(struct gpu *gpu, const struct gpu_product *product, enum gpu_act_kind kind,
                         runnel_error *error)
{
    const struct gpu_matrix *matrices[GPU_PRODUCTS_MAX];
    uint32_t n = select_matrices(product, kind, GPU_NO_TYPE, matrices);
    if (!n)
        return RUNNEL_OK;
    enum gpu_function function = find_product(gpu, matrices, n);
    function = product->n_acts > 1 ? function + 1 : for_row(function, product->n_columns);
    return multiply_by(gpu, function, product, matrices, n, error);
}

/* Matrix units have functions for all of them. */
static bool all_on_matrix_units(const struct gpu_product *product)
{
    for (uint32_t i = 0; i < product->n_matrices; i++)
        if (!gpu_has_matrix_function(product->matrices[i].type))
            return false;
    return true;
}

int gpu_multiply(struct gpu *gpu, const struct gpu_product *product, runnel_error *error)
{
    int code = RUNNEL_OK;
    if (gpu_get_info(gpu)->has_matrix_units && product->n_acts >= MATRIX_UNITS_FROM &&
        all_on_matrix_units(product)) {
        code = gpu_multiply_matrix(gpu, product, GPU_Q4_K, error);
        return code ? code : gpu_multiply_matrix(gpu, product, GPU_Q6_K, error);
    }
    for (enum gpu_act_kind kind = 0; kind < GPU_ACT_KINDS && !code; kind++)
        code = multiply_kind(gpu, product, kind, error);
    return code;
}

/* Products that make their inputs themselves ------------------------------------------------------------------------------------- */

/* What inputs are made of. */
struct source {
    struct gpu_place x, norm_weight;
    float epsilon;
    bool merges; /* x: partial results of attention */
    struct gpu_place rows;
    uint32_t head_dim, window, n_blocks;
};

static bool makes_inputs(const struct gpu_product *product)
{
    bool makes = product->n_acts == 1;
    for (uint32_t i = 0; i < product->n_matrices; i++)
        makes = makes && gpu_act_kind_of(product->matrices[i].type) == GPU_ACT_Q8_256;
    return makes;
}

/* Of three functions the one for Q4_K, for Q6_K, or for any type and several. */
static enum gpu_function choose_function(enum gpu_function of_q4_k, const struct gpu_product *product)
{
    uint32_t type = product->matrices[0].type;
    for (uint32_t i = 1; i < product->n_matrices; i++)
        type = product->matrices[i].type == type ? type : GPU_NO_TYPE;
    return of_q4_k + (type == GPU_Q4_K ? 0 : type == GPU_Q6_K ? 1 : 2);
}

/* flag: add, or gelu. */
static int multiply_source(struct gpu *gpu, enum gpu_function of_q4_k, const struct gpu_product *product,
                           const struct source *source, uint32_t flag, uint32_t n_tiles, runnel_error *error)
{
    static const struct gpu_matrix none = {.n_rows = 0};
    struct arguments arguments = {.n = 0};
    for (uint32_t i = 0; i < GPU_PRODUCTS_MAX; i++)
        add_matrix(&arguments, i < product->n_matrices ? &product->matrices[i] : &none);
    add_place(&arguments, source->x);
    add_place(&arguments, source->norm_weight);
    add_place(&arguments, source->rows);
    add_uint(&arguments, source->merges);
    add_uint(&arguments, source->head_dim);
    add_uint(&arguments, source->window);
    add_uint(&arguments, source->n_blocks);
    add_float(&arguments, source->epsilon);
    add_uint(&arguments, product->n_columns);
    add_uint(&arguments, flag);
    return launch(gpu, choose_function(of_q4_k, product), n_tiles, 1, 1, &arguments, error);
}

static int multiply_own(struct gpu *gpu, const struct gpu_product *product, const struct source *source,
                        runnel_error *error)
{
    uint32_t n_tiles = 0;
    for (uint32_t i = 0; i < product->n_matrices; i++)
        n_tiles += divide_up(product->matrices[i].n_rows, GPU_TILE_ROWS);
    return multiply_source(gpu, GPU_FUNCTION_PRODUCT_OWN_Q4_K, product, source, product->add, n_tiles, error);
}

int gpu_multiply_prepared(struct gpu *gpu, const struct gpu_preparation *preparation,
                          const struct gpu_product *product, runnel_error *error)
{
    const struct source source = {
        .x = preparation->x, .norm_weight = preparation->norm_weight, .epsilon = preparation->epsilon};
    if (makes_inputs(product) && !preparation->which.buffer.handle)
        return multiply_own(gpu, product, &source, error);
    int code = gpu_prepare_rows(gpu, preparation, error);
    return code ? code : gpu_multiply(gpu, product, error);
}

/* Gate and up, activated, become the activation's gate. */
static int multiply_activated(struct gpu *gpu, const struct gpu_feed_forward *feed, runnel_error *error)
{
    const struct source source = {
        .x = feed->input.x, .norm_weight = feed->input.norm_weight, .epsilon = feed->input.epsilon};
    return multiply_source(gpu, GPU_FUNCTION_PRODUCT_ACTIVATED_Q4_K, &feed->gate_up, &source,
                           feed->activation.gelu, divide_up(feed->activation.n, GPU_TILE_ROWS), error);
}

int gpu_feed_forward(struct gpu *gpu, const struct gpu_feed_forward *feed, runnel_error *error)
{
    const struct gpu_preparation activated = {.x = feed->activation.gate,
                                              .n_rows = feed->activation.n_rows,
                                              .n_columns = feed->activation.n,
                                              .out = feed->activation.out};
    if (makes_inputs(&feed->gate_up) && !feed->input.which.buffer.handle) {
        int code = multiply_activated(gpu, feed, error);
        return code ? code : gpu_multiply_prepared(gpu, &activated, &feed->down, error);
    }
    int code = gpu_multiply_prepared(gpu, &feed->input, &feed->gate_up, error);
    code = code ? code : gpu_activate(gpu, &feed->activation, error);
    return code ? code : gpu_multiply(gpu, &feed->down, error);
}

/* Keys, values, attention ------------------------------------------------------------------------------------------------------- */

static void add_queries(struct arguments *arguments, const struct gpu_rows *rows, const struct gpu_queries *q)
{
    add_place(arguments, rows->rows);
    add_place(arguments, rows->pages);
    add_place(arguments, q->values);
    add_place(arguments, q->whole);
    add_place(arguments, q->worth);
}

/* What goes into pages, and how it is rotated. */
static void add_stored(struct arguments *arguments, const struct gpu_storing *storing)
{
    add_place(arguments, storing->k);
    add_place(arguments, storing->v);
    add_place(arguments, storing->q_norm);
    add_place(arguments, storing->k_norm);
    add_place(arguments, storing->cosine);
    add_place(arguments, storing->sine);
}

int gpu_rotate_store(struct gpu *gpu, const struct gpu_storing *storing, runnel_error *error)
{
    const struct gpu_cache *cache = &storing->cache;
    struct arguments arguments = {.n = 0};
    add_queries(&arguments, &storing->rows, &storing->q);
    add_stored(&arguments, storing);
    add_place(&arguments, cache->blocks);
    add_uint(&arguments, storing->q.n_heads);
    add_uint(&arguments, cache->n_kv_heads);
    add_uint(&arguments, cache->head_dim);
    add_uint(&arguments, storing->n_rot);
    add_uint(&arguments, storing->interleaved);
    add_uint(&arguments, cache->n_pages);
    add_uint(&arguments, cache->k_f32);
    add_float(&arguments, storing->epsilon);
    return launch(gpu, GPU_FUNCTION_ROTATE_STORE, storing->q.n_heads + 2 * cache->n_kv_heads, storing->rows.n,
                  1, &arguments, error);
}

size_t gpu_partials_bytes(uint32_t n_rows, uint32_t n_blocks, uint32_t n_heads, uint32_t head_dim)
{
    return (size_t)n_rows * n_blocks * n_heads * (round_up(head_dim, 16) + 4) * sizeof(float);
}

static void add_attention(struct arguments *arguments, const struct gpu_attention *attention, uint32_t first)
{
    add_queries(arguments, &attention->rows, &attention->q);
    add_place(arguments, attention->cache.blocks);
    add_place(arguments, attention->partials);
    add_uint(arguments, first);
    add_uint(arguments, attention->q.n_heads);
    add_uint(arguments, attention->cache.n_kv_heads);
    add_uint(arguments, attention->cache.head_dim);
    add_uint(arguments, attention->cache.n_pages);
    add_uint(arguments, attention->cache.k_f32);
    add_uint(arguments, attention->window);
    add_uint(arguments, attention->n_blocks);
    add_float(arguments, attention->scale);
}

/* Partials of rows from `first` on. A group attends one head, or, where that would make more groups than keep a card busy, several that
 * share their keys and values. */
static int attend_rows(struct gpu *gpu, const struct gpu_attention *attention, uint32_t first, uint32_t n,
                       runnel_error *error)
{
    enum { HEADS_TOGETHER = 8 }; /* as attention.cl has it */
    const struct gpu_cache *cache = &attention->cache;
    struct arguments arguments = {.n = 0};
    bool is_alone = (uint64_t)n * attention->n_blocks <= GPU_ATTEND_ALONE;
    uint32_t n_batches = divide_up(attention->q.n_heads / cache->n_kv_heads, is_alone ? 1 : HEADS_TOGETHER);
    add_attention(&arguments, attention, first);
    return launch(gpu, is_alone ? GPU_FUNCTION_ATTEND_ALONE : GPU_FUNCTION_ATTEND, attention->n_blocks,
                  cache->n_kv_heads * n_batches, n, &arguments, error);
}

static int merge_rows(struct gpu *gpu, const struct gpu_attention *attention, uint32_t first, uint32_t n,
                      runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    uint32_t n_columns = attention->q.n_heads * attention->cache.head_dim;
    add_place(&arguments, attention->rows.rows);
    add_place(&arguments, attention->partials);
    add_place(&arguments, attention->attended);
    add_acts(&arguments, &attention->out);
    add_uint(&arguments, first);
    add_uint(&arguments, attention->q.n_heads);
    add_uint(&arguments, attention->cache.head_dim);
    add_uint(&arguments, attention->window);
    add_uint(&arguments, attention->n_blocks);
    return launch(gpu, GPU_FUNCTION_MERGE, divide_up(n_columns, 256), n, 1, &arguments, error);
}

int gpu_attend(struct gpu *gpu, const struct gpu_attention *attention, runnel_error *error)
{
    size_t row_bytes =
        gpu_partials_bytes(1, attention->n_blocks, attention->q.n_heads, attention->cache.head_dim);
    size_t n_together = attention->partials_bytes / row_bytes;
    if (!n_together)
        return error_set(error, RUNNEL_EINVAL, "attention: %zu bytes of partial results, and a row needs %zu",
                         attention->partials_bytes, row_bytes);
    enum { GROUPS_MAX = 65535 }; /* of some devices, in y and z */
    n_together = n_together < GROUPS_MAX ? n_together : GROUPS_MAX;
    for (uint32_t first = 0; first < attention->rows.n; first += (uint32_t)n_together) {
        uint32_t n =
            attention->rows.n - first < n_together ? attention->rows.n - first : (uint32_t)n_together;
        int code = attend_rows(gpu, attention, first, n, error);
        code = code ? code : merge_rows(gpu, attention, first, n, error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

static bool stores_itself(const struct gpu_attention *attention)
{
    enum { STORED_DIM_MAX = 256 }; /* as attention.cl has it */
    return attention->rows.n == 1 && attention->n_blocks <= GPU_ATTEND_ALONE && !attention->cache.k_f32 &&
           attention->cache.head_dim <= STORED_DIM_MAX;
}

/* One row. */
static int store_and_attend(struct gpu *gpu, const struct gpu_storing *storing,
                            const struct gpu_attention *attention, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    add_attention(&arguments, attention, 0);
    add_stored(&arguments, storing);
    add_uint(&arguments, storing->n_rot);
    add_uint(&arguments, storing->interleaved);
    add_float(&arguments, storing->epsilon);
    return launch(gpu, GPU_FUNCTION_ATTEND_STORING, attention->n_blocks, attention->q.n_heads, 1, &arguments,
                  error);
}

/* A product that merges the partials of its row. */
static bool merges_itself(const struct gpu_attention *attention, const struct gpu_product *product)
{
    return makes_inputs(product) && attention->n_blocks <= GPU_MERGED_BLOCKS &&
           attention->cache.head_dim % 16 == 0;
}

int gpu_multiply_attended(struct gpu *gpu, const struct gpu_storing *storing,
                          const struct gpu_attention *attention, const struct gpu_product *product,
                          runnel_error *error)
{
    bool has_room = gpu_partials_bytes(1, attention->n_blocks, attention->q.n_heads,
                                       attention->cache.head_dim) <= attention->partials_bytes;
    const struct source source = {.x = attention->partials,
                                  .merges = true,
                                  .rows = attention->rows.rows,
                                  .head_dim = attention->cache.head_dim,
                                  .window = attention->window,
                                  .n_blocks = attention->n_blocks};
    bool stores = has_room && stores_itself(attention),
         merges = has_room && merges_itself(attention, product);
    int code =
        stores ? store_and_attend(gpu, storing, attention, error) : gpu_rotate_store(gpu, storing, error);
    if (!code && !stores && merges)
        code = attend_rows(gpu, attention, 0, 1, error);
    if (!code && merges)
        return multiply_own(gpu, product, &source, error);
    if (!code)
        code = stores ? merge_rows(gpu, attention, 0, 1, error) : gpu_attend(gpu, attention, error);
    return code ? code : gpu_multiply(gpu, product, error);
}

int gpu_copy_pages(struct gpu *gpu, const struct gpu_page_copies *copies, runnel_error *error)
{
    struct arguments arguments = {.n = 0};
    uint32_t block_bytes = (uint32_t)gpu_kv_block_bytes(copies->cache.head_dim, copies->cache.k_f32);
    if (!copies->n_pairs)
        return RUNNEL_OK;
    add_place(&arguments, copies->cache.blocks);
    add_place(&arguments, copies->pairs);
    add_uint(&arguments, copies->n_pairs);
    add_uint(&arguments, copies->cache.n_pages);
    add_uint(&arguments, block_bytes);
    return launch(gpu, GPU_FUNCTION_COPY_PAGES, divide_up(block_bytes, 4096), copies->cache.n_kv_heads, 1,
                  &arguments, error);
}

/* The best logit ---------------------------------------------------------------------------------------------------------------- */

enum { BEST_CHUNK = 2048 }; /* as layer.cl has it */

size_t gpu_choice_bytes(uint32_t n_rows, uint32_t n)
{
    return (size_t)n_rows * divide_up(n, BEST_CHUNK) * sizeof(struct gpu_best);
}

int gpu_find_best(struct gpu *gpu, const struct gpu_choice *choice, runnel_error *error)
{
    struct arguments finding = {.n = 0}, choosing = {.n = 0};
    uint32_t n_chunks = divide_up(choice->n, BEST_CHUNK);
    add_place(&finding, choice->logits);
    add_place(&finding, choice->scratch);
    add_uint(&finding, choice->n_columns);
    add_uint(&finding, choice->n);
    add_uint(&finding, n_chunks);
    add_place(&choosing, choice->scratch);
    add_place(&choosing, choice->best);
    add_uint(&choosing, n_chunks);
    int code = launch(gpu, GPU_FUNCTION_FIND_BEST, n_chunks, choice->n_rows, 1, &finding, error);
    return code ? code : launch(gpu, GPU_FUNCTION_CHOOSE_BEST, 1, choice->n_rows, 1, &choosing, error);
}

/* Before the first step --------------------------------------------------------------------------------------------------------- */

/* Made-up arguments: zeros, 64 KiB for each of the arrays that a function reads or writes. */
enum { DUMMY_ARRAYS = 16, DUMMY_BYTES = 65536 };

static struct gpu_place dummy_at(struct gpu_buffer dummy, int i)
{
    return gpu_at(dummy, (uint64_t)i * DUMMY_BYTES);
}

/* Matrices of two types. */
static struct gpu_product dummy_product(struct gpu_buffer dummy, const uint32_t *product_types,
                                        uint32_t n_acts, uint32_t n_columns)
{
    struct gpu_product product = {.n_acts = n_acts, .n_columns = n_columns, .n_matrices = 2};
    for (int kind = 0; kind < GPU_ACT_KINDS; kind++)
        product.acts.of[kind] = dummy_at(dummy, kind);
    for (int i = 0; i < 2; i++)
        product.matrices[i] = (struct gpu_matrix){
            .tiles = dummy_at(dummy, 3 + 2 * i),
            .type = product_types[i],
            .n_rows = GPU_TILE_ROWS,
            .out = dummy_at(dummy, 4 + 2 * i),
        };
    return product;
}

static int try_product(struct gpu *gpu, struct gpu_buffer dummy, const uint32_t *product_types,
                       uint32_t n_acts, runnel_error *error)
{
    enum { MANY_COLUMNS = 9 * GPU_ACT_BLOCK }; /* for which a row has another function */
    const struct gpu_product product = dummy_product(dummy, product_types, n_acts, GPU_ACT_BLOCK),
                             wider = dummy_product(dummy, product_types, n_acts, MANY_COLUMNS);
    int code = gpu_multiply(gpu, &product, error);
    if (code || gpu_act_kind_of(product_types[0]) != GPU_ACT_Q8_256)
        return code;
    return gpu_multiply(gpu, &wider, error);
}

/* The functions that make their inputs. */
static int try_own_products(struct gpu *gpu, struct gpu_buffer dummy, const uint32_t *product_types,
                            runnel_error *error)
{
    const struct gpu_product product = dummy_product(dummy, product_types, 1, GPU_ACT_BLOCK);
    const struct source source = {.x = dummy_at(dummy, 8), .norm_weight = dummy_at(dummy, 9), .epsilon = 1};
    if (!makes_inputs(&product))
        return RUNNEL_OK;
    int code = gpu_prepare(gpu, choose_function(GPU_FUNCTION_PRODUCT_OWN_Q4_K, &product), error);
    code =
        code ? code : gpu_prepare(gpu, choose_function(GPU_FUNCTION_PRODUCT_ACTIVATED_Q4_K, &product), error);
    code = code ? code : multiply_own(gpu, &product, &source, error);
    return code ? code
                : multiply_source(gpu, GPU_FUNCTION_PRODUCT_ACTIVATED_Q4_K, &product, &source, 0, 1, error);
}

/* The functions of products for a type: alone, beside itself, and beside another of its act kind. */
static int prepare_products(struct gpu *gpu, struct gpu_buffer dummy, uint32_t type, runnel_error *error)
{
    const struct gpu_matrix matrix = {.type = type}, other = {.type = type == GPU_Q4_K ? GPU_Q6_K : GPU_Q4_K},
                            other_32 = {.type = type == GPU_Q4_0 ? GPU_Q8_0 : GPU_Q4_0};
    bool is_256 = gpu_act_kind_of(type) == GPU_ACT_Q8_256, is_32 = gpu_act_kind_of(type) == GPU_ACT_Q8_32;
    const struct gpu_matrix *beside[2] = {&matrix, is_256 ? &other : is_32 ? &other_32 : &matrix};
    int code = RUNNEL_OK;
    for (uint32_t n = 1; n <= 2; n++) {
        enum gpu_function function = find_product(gpu, beside, n);
        const uint32_t product_types[2] = {type, beside[n - 1]->type};
        code = code ? code : gpu_prepare(gpu, function, error);
        code = code ? code : gpu_prepare(gpu, for_row(function, 256), error);
        code = code ? code : gpu_prepare(gpu, function + 1, error);
        for (uint32_t n_acts = 1; n_acts <= 2; n_acts++)
            code = code ? code : try_product(gpu, dummy, product_types, n_acts, error);
        code = code ? code : try_own_products(gpu, dummy, product_types, error);
    }
    if (!gpu_get_info(gpu)->has_matrix_units || !gpu_has_matrix_function(type))
        return code;
    code = code ? code : gpu_prepare(gpu, GPU_FUNCTION_PRODUCT_Q4_K_MATRIX, error);
    code = code ? code : gpu_prepare(gpu, GPU_FUNCTION_PRODUCT_Q6_K_MATRIX, error);
    const uint32_t both[2] = {GPU_Q4_K, GPU_Q6_K};
    return code ? code : try_product(gpu, dummy, both, MATRIX_UNITS_FROM, error);
}

static int try_layer(struct gpu *gpu, struct gpu_buffer dummy, runnel_error *error)
{
    const struct gpu_rows rows = {dummy_at(dummy, 0), dummy_at(dummy, 1), 1};
    const struct gpu_cache cache = {dummy_at(dummy, 2), 1, 1, 32, false};
    const struct gpu_queries q = {dummy_at(dummy, 3), dummy_at(dummy, 4), dummy_at(dummy, 5), 1};
    const struct gpu_place a = dummy_at(dummy, 6), b = dummy_at(dummy, 7), c = dummy_at(dummy, 8);
    const struct gpu_acts acts = {{dummy_at(dummy, 9), dummy_at(dummy, 10), dummy_at(dummy, 11)}};
    const struct gpu_place none = {{0, 0}, 0};
    const struct gpu_embedding embedding = {rows, a, GPU_F32, 16, 1, b};
    const struct gpu_preparation preparation = {a, none, 1, 16, b, 1, acts};
    const struct gpu_activation activation = {a, b, 1, 16, false, acts};
    const struct gpu_addition addition = {a, b, c, 1, 16, 1};
    const struct gpu_storing storing = {rows, q, a, b, none, none, 1, c, c, 32, false, cache};
    const struct gpu_attention attention = {rows, q, cache, 0, 1, 1, a, DUMMY_BYTES, b, acts};
    struct gpu_attention together = attention;
    together.n_blocks = GPU_ATTEND_ALONE + 1;
    const struct gpu_page_copies copies = {cache, a, 1};
    const struct gpu_choice choice = {a, 1, 16, 16, b, c};
    int code = gpu_embed(gpu, &embedding, error);
    code = code ? code : gpu_prepare_rows(gpu, &preparation, error);
    code = code ? code : gpu_activate(gpu, &activation, error);
    code = code ? code : gpu_add_normalised(gpu, &addition, error);
    code = code ? code : gpu_rotate_store(gpu, &storing, error);
    code = code ? code : gpu_attend(gpu, &attention, error);
    code = code ? code : gpu_attend(gpu, &together, error);
    code = code ? code : store_and_attend(gpu, &storing, &attention, error);
    code = code ? code : gpu_find_best(gpu, &choice, error);
    code =
        code ? code
             : gpu_zero(gpu, gpu_at(dummy, 0), DUMMY_ARRAYS * DUMMY_BYTES, error); /* a is page numbers now */
    return code ? code : gpu_copy_pages(gpu, &copies, error);
}

int gpu_prepare_all(struct gpu *gpu, const uint32_t *product_types, uint32_t n_types, runnel_error *error)
{
    enum { TIMEOUT_MS = 300000 }; /* drivers compile */
    struct gpu_buffer dummy;
    int code = gpu_alloc(gpu, DUMMY_ARRAYS * DUMMY_BYTES, &dummy, error);
    if (code)
        return code;
    code = gpu_zero(gpu, gpu_at(dummy, 0), DUMMY_ARRAYS * DUMMY_BYTES, error);
    for (int function = 0; function <= GPU_FUNCTION_MERGE; function++)
        code = code ? code : gpu_prepare(gpu, (enum gpu_function)function, error);
    code = code ? code : try_layer(gpu, dummy, error);
    for (uint32_t i = 0; i < n_types; i++)
        code = code ? code : prepare_products(gpu, dummy, product_types[i], error);
    code = code ? code : gpu_finish(gpu, TIMEOUT_MS, error);
    gpu_free(gpu, &dummy);
    return code;
}
