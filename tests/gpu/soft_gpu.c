/* soft_gpu.c: see soft_gpu.h. Each function of kernels.h is a loop over rows around a kernel of the CPU's table. */
#include "gpu/soft_gpu.h"

#include "gpu/kernels.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH_MAX = 4096 /* values of a row */ };

struct soft_gpu soft_gpu = {.memory_bytes = (uint64_t)1 << 32, .allocation_max_bytes = (uint64_t)1 << 30};

/* Something that is done at once, or becomes part of a recording: a copy of its arguments. */
struct work {
    void (*run)(const void *arguments);
    void *arguments;
    struct work *next;
};

struct gpu_recording {
    struct work *first, **end;
    bool was_replayed;
};

/* Memory of gpu_alloc_host: n_bytes behind this. */
struct host_block {
    struct host_block *next;
    size_t n_bytes;
};

struct gpu {
    struct gpu_info info;
    struct host_block *host;
    struct gpu_recording *recording; /* that is being made; NULL: none */
};

static void give_up(const char *what)
{
    fprintf(stderr, "soft_gpu: %s\n", what);
    abort();
}

static const struct kernels *kernels(void)
{
    char message[256];
    const struct kernels *found = kernels_get(message, sizeof message);
    if (!found)
        give_up(message);
    return found;
}

/* The memory of a place in which n_bytes are to be; NULL: there is none. */
static void *at(struct gpu_place place, size_t n_bytes)
{
    if (place.buffer.handle && place.offset + n_bytes > place.buffer.n_bytes)
        give_up("a place that is not in its buffer");
    return place.buffer.handle ? (char *)(uintptr_t)place.buffer.handle + place.offset : NULL;
}

static int do_work(struct gpu *gpu, void (*run)(const void *arguments), const void *arguments, size_t n_bytes)
{
    if (!gpu->recording) {
        soft_gpu.n_launches++;
        run(arguments);
        return RUNNEL_OK;
    }
    struct work *work = calloc(1, sizeof *work);
    if (!work || !(work->arguments = malloc(n_bytes)))
        give_up("no memory");
    memcpy(work->arguments, arguments, n_bytes);
    work->run = run;
    *gpu->recording->end = work;
    gpu->recording->end = &work->next;
    return RUNNEL_OK;
}

/* device.h ------------------------------------------------------------------------------------------------ */

void gpu_list(struct gpu_info *infos, uint32_t capacity, uint32_t *n, runnel_error *problem)
{
    if (problem)
        problem->code = RUNNEL_OK;
    *n = capacity > 0;
    infos[0] = (struct gpu_info){
        .name = "soft device",
        .driver = "1",
        .interface = "soft",
        .memory_bytes = soft_gpu.memory_bytes,
        .allocation_max_bytes = soft_gpu.allocation_max_bytes,
        .n_units = 1,
        .is_integrated = soft_gpu.is_integrated,
        .has_fma = !soft_gpu.lacks_fma,
        .has_denormals = true,
        .has_exact_division = true,
        .has_recordings = soft_gpu.records,
    };
}

int gpu_open(const struct gpu_info *info, struct gpu **gpu, runnel_error *error)
{
    *gpu = calloc(1, sizeof **gpu);
    if (!*gpu)
        return error_set(error, RUNNEL_ENOMEM, "no memory");
    (*gpu)->info = *info;
    return RUNNEL_OK;
}

void gpu_close(struct gpu *gpu)
{
    if (soft_gpu.used_bytes || gpu->host)
        give_up("memory of the device was not given back");
    free(gpu);
}

const struct gpu_info *gpu_get_info(const struct gpu *gpu)
{
    return &gpu->info;
}

bool gpu_is_lost(const struct gpu *gpu)
{
    (void)gpu;
    return false;
}

int gpu_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes, runnel_error *error)
{
    (void)error;
    *total_bytes = gpu->info.memory_bytes;
    *free_bytes = *total_bytes - soft_gpu.used_bytes;
    return RUNNEL_OK;
}

int gpu_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error)
{
    void *memory = NULL;
    uint64_t taken_bytes = soft_gpu.untold_bytes + soft_gpu.used_bytes;
    if (n_bytes > gpu->info.allocation_max_bytes || taken_bytes > gpu->info.memory_bytes ||
        n_bytes > gpu->info.memory_bytes - taken_bytes || posix_memalign(&memory, 256, n_bytes))
        return error_set(error, RUNNEL_ENOMEM, "the soft device has not %zu bytes", n_bytes);
    memset(memory, 0xff, n_bytes);
    *buffer = (struct gpu_buffer){(uint64_t)(uintptr_t)memory, n_bytes};
    soft_gpu.used_bytes += n_bytes;
    return RUNNEL_OK;
}

void gpu_free(struct gpu *gpu, struct gpu_buffer *buffer)
{
    (void)gpu;
    soft_gpu.used_bytes -= buffer->n_bytes;
    free((void *)(uintptr_t)buffer->handle);
    *buffer = (struct gpu_buffer){.handle = 0};
}

void *gpu_alloc_host(struct gpu *gpu, size_t n_bytes)
{
    struct host_block *block = malloc(sizeof *block + n_bytes);
    if (!block)
        return NULL;
    *block = (struct host_block){gpu->host, n_bytes};
    gpu->host = block;
    return block + 1;
}

void gpu_free_host(struct gpu *gpu, void *memory)
{
    struct host_block **link = &gpu->host;
    if (!memory)
        return;
    while (*link && *link + 1 != memory)
        link = &(*link)->next;
    if (!*link)
        give_up("memory that is not gpu_alloc_host's");
    struct host_block *block = *link;
    *link = block->next;
    free(block);
}

static bool is_host_memory(const struct gpu *gpu, const void *data, size_t n_bytes)
{
    uintptr_t begin = (uintptr_t)data;
    for (const struct host_block *block = gpu->host; block; block = block->next) {
        uintptr_t first = (uintptr_t)(block + 1);
        if (begin >= first && begin + n_bytes <= first + block->n_bytes)
            return true;
    }
    return false;
}

struct copying {
    const void *from;
    void *to;
    size_t n_bytes;
};

static void run_copying(const void *arguments)
{
    const struct copying *copying = arguments;
    memcpy(copying->to, copying->from, copying->n_bytes);
}

static int copy(struct gpu *gpu, void *to, const void *from, size_t n_bytes)
{
    const struct copying copying = {from, to, n_bytes};
    return do_work(gpu, run_copying, &copying, sizeof copying);
}

int gpu_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes, runnel_error *error)
{
    (void)error;
    soft_gpu.n_foreign_writes += !is_host_memory(gpu, data, n_bytes);
    return copy(gpu, at(to, n_bytes), data, n_bytes);
}

int gpu_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes, runnel_error *error)
{
    (void)error;
    if (!is_host_memory(gpu, data, n_bytes))
        give_up("a read into memory that may be gone before it is written");
    return copy(gpu, data, at(from, n_bytes), n_bytes);
}

int gpu_copy(struct gpu *gpu, struct gpu_place to, struct gpu_place from, size_t n_bytes, runnel_error *error)
{
    (void)error;
    return copy(gpu, at(to, n_bytes), at(from, n_bytes), n_bytes);
}

int gpu_zero(struct gpu *gpu, struct gpu_place to, size_t n_bytes, runnel_error *error)
{
    (void)error;
    if (gpu->recording)
        give_up("zeros in a recording");
    memset(at(to, n_bytes), 0, n_bytes);
    return RUNNEL_OK;
}

int gpu_finish(struct gpu *gpu, double timeout_ms, runnel_error *error)
{
    (void)timeout_ms;
    (void)error;
    if (gpu->recording)
        give_up("waited for while it records");
    return RUNNEL_OK;
}

int gpu_record_begin(struct gpu *gpu, runnel_error *error)
{
    gpu->recording = calloc(1, sizeof *gpu->recording);
    if (!gpu->recording)
        return error_set(error, RUNNEL_ENOMEM, "no memory");
    gpu->recording->end = &gpu->recording->first;
    return RUNNEL_OK;
}

int gpu_record_end(struct gpu *gpu, struct gpu_recording **recording, runnel_error *error)
{
    *recording = gpu->recording;
    gpu->recording = NULL;
    soft_gpu.n_unplayed++;
    if (!soft_gpu.lacks_record_memory || soft_gpu.n_unplayed < 3)
        return RUNNEL_OK;
    gpu_recording_free(gpu, *recording);
    *recording = NULL;
    return error_set(error, RUNNEL_ENOMEM, "no memory for a recording");
}

int gpu_replay(struct gpu *gpu, struct gpu_recording *recording, runnel_error *error)
{
    (void)gpu;
    (void)error;
    soft_gpu.n_replays++;
    soft_gpu.n_unplayed -= !recording->was_replayed;
    recording->was_replayed = true;
    for (const struct work *work = recording->first; work; work = work->next)
        work->run(work->arguments);
    return RUNNEL_OK;
}

void gpu_recording_free(struct gpu *gpu, struct gpu_recording *recording)
{
    (void)gpu;
    soft_gpu.n_unplayed -= !recording->was_replayed;
    for (struct work *work = recording->first, *next; work; work = next) {
        next = work->next;
        free(work->arguments);
        free(work);
    }
    free(recording);
}

/* kernels.h ----------------------------------------------------------------------------------------------- */

enum gpu_act_kind gpu_act_kind_of(uint32_t type)
{
    return (enum gpu_act_kind)act_kind_of(pack_kind((enum tensor_type)type));
}

bool gpu_knows_type(uint32_t type)
{
    return quant_find(type) != NULL;
}

int gpu_prepare_all(struct gpu *gpu, const uint32_t *types, uint32_t n_types, runnel_error *error)
{
    (void)types;
    (void)n_types;
    return gpu_finish(gpu, 0, error);
}

static struct packed_matrix matrix_at(struct gpu_place tiles, uint32_t type, uint32_t n_rows,
                                      uint32_t n_columns)
{
    struct packed_matrix matrix = {
        .type = (enum tensor_type)type,
        .kind = pack_kind((enum tensor_type)type),
        .n_rows = n_rows,
        .n_columns = n_columns,
        .n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS,
        .tile_bytes = pack_tile_bytes((enum tensor_type)type, n_columns),
    };
    matrix.data = at(tiles, matrix.n_tiles * matrix.tile_bytes);
    return matrix;
}

static float *floats_at(struct gpu_place place, size_t n)
{
    return at(place, n * sizeof(float));
}

/* The number of values of a row, for which there is room on the stack. */
static uint32_t width(uint32_t n)
{
    if (n > WIDTH_MAX)
        give_up("wider rows than tests have");
    return n;
}

/* A row of floats to activation rows in all kinds that are there. */
static void put_acts(const struct gpu_acts *acts, uint32_t row, const float *x, uint32_t n)
{
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        void *rows = at(acts->of[kind], act_bytes((enum act_kind)kind, row + 1, n));
        if (rows)
            act_quantize(kernels(), (enum act_kind)kind, rows, n, row, 0, x, n);
    }
}

static void flip_bit(float *value)
{
    *(unsigned char *)value ^= 1;
}

static void run_embedding(const void *arguments)
{
    const struct gpu_embedding *embedding = arguments;
    const struct gpu_row *rows = at(embedding->rows.rows, embedding->rows.n * sizeof *rows);
    uint32_t n = embedding->n_columns;
    float *out = floats_at(embedding->out, (size_t)embedding->rows.n * n);
    for (uint32_t i = 0; i < embedding->rows.n; i++, out += n) {
        uint32_t token = (uint32_t)rows[i].token;
        const struct packed_matrix matrix = matrix_at(embedding->matrix, embedding->type, token + 1, n);
        pack_row_f32(&matrix, token, out);
        for (uint32_t j = 0; j < n && embedding->scale != 1; j++)
            out[j] *= embedding->scale;
        if (soft_gpu.wrong == SOFT_WRONG_EMBEDDING)
            flip_bit(&out[n - 1]);
    }
}

int gpu_embed(struct gpu *gpu, const struct gpu_embedding *embedding, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_embedding, embedding, sizeof *embedding);
}

static float *largest(float *values, uint32_t n)
{
    float *found = values;
    for (uint32_t i = 1; i < n; i++)
        found = fabsf(values[i]) > fabsf(*found) ? &values[i] : found;
    return found;
}

static void run_preparation(const void *arguments)
{
    const struct gpu_preparation *preparation = arguments;
    uint32_t n = width(preparation->n_columns);
    const uint32_t *which = at(preparation->which, preparation->n_rows * sizeof *which);
    const float *weight = floats_at(preparation->norm_weight, n);
    float row[WIDTH_MAX];
    for (uint32_t i = 0; i < preparation->n_rows; i++) {
        size_t from = which ? which[i] : i;
        const float *x = floats_at(preparation->x, (from + 1) * n) + from * n;
        if (weight)
            kernels()->rms_norm(x, weight, n, preparation->epsilon, row);
        if (weight && soft_gpu.wrong == SOFT_WRONG_NORM)
            flip_bit(largest(row, n)); /* which its scale is made of */
        put_acts(&preparation->out, i, weight ? row : x, n);
    }
}

int gpu_prepare_rows(struct gpu *gpu, const struct gpu_preparation *preparation, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_preparation, preparation, sizeof *preparation);
}

static void run_product(const void *arguments)
{
    const struct gpu_product *product = arguments;
    for (uint32_t i = 0; i < product->n_matrices; i++) {
        const struct gpu_matrix *matrix = &product->matrices[i];
        const struct packed_matrix packed =
            matrix_at(matrix->tiles, matrix->type, matrix->n_rows, product->n_columns);
        enum act_kind kind = act_kind_of(packed.kind);
        const void *acts = at(product->acts.of[kind], act_bytes(kind, product->n_acts, product->n_columns));
        float *out = floats_at(matrix->out, (size_t)product->n_acts * matrix->n_rows);
        struct matmul_args args = act_product(&packed, acts, product->n_acts, out);
        args.bias = floats_at(matrix->bias, matrix->n_rows);
        args.add = product->add;
        kernels()->matmul[packed.kind](&args, 0, packed.n_tiles);
        if (soft_gpu.wrong == SOFT_WRONG_PRODUCT)
            flip_bit(out);
    }
}

int gpu_multiply(struct gpu *gpu, const struct gpu_product *product, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_product, product, sizeof *product);
}

static void run_addition(const void *arguments)
{
    const struct gpu_addition *addition = arguments;
    size_t n_values = (size_t)addition->n_rows * addition->n;
    float *x = floats_at(addition->x, n_values), *added = floats_at(addition->added, n_values);
    const float *weight = floats_at(addition->norm_weight, addition->n);
    for (uint32_t i = 0; i < addition->n_rows; i++)
        kernels()->rms_norm(added + (size_t)i * addition->n, weight, addition->n, addition->epsilon,
                            added + (size_t)i * addition->n);
    for (size_t i = 0; i < n_values; i++)
        x[i] += added[i];
}

int gpu_add_normalised(struct gpu *gpu, const struct gpu_addition *addition, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_addition, addition, sizeof *addition);
}

/* The KV block of a page; NULL: a window dropped it. */
static void *block_at(const struct gpu_cache *cache, uint32_t page, uint32_t kv_head)
{
    const struct kv_shape shape = {cache->head_dim, cache->k_f32};
    size_t n_bytes = kv_block_bytes(&shape), index = (size_t)kv_head * cache->n_pages + page;
    if (page == GPU_NO_PAGE)
        return NULL;
    if (page >= cache->n_pages || kv_head >= cache->n_kv_heads)
        give_up("a page that is not there");
    return (char *)at(cache->blocks, (index + 1) * n_bytes) + index * n_bytes;
}

/* The number of a row's page at an index. */
static uint32_t page_of(const struct gpu_rows *rows, const struct gpu_row *row, uint32_t index)
{
    size_t n = (size_t)row->first_page + index + 1;
    const uint32_t *pages = at(rows->pages, n * sizeof *pages);
    return pages[n - 1];
}

static void rotate_heads(const struct gpu_storing *storing, float *heads, uint32_t n_heads,
                         struct gpu_place norm, uint32_t rotation)
{
    uint32_t head_dim = storing->cache.head_dim, n_pairs = storing->n_rot / 2;
    size_t end = ((size_t)rotation + 1) * n_pairs;
    const float *weight = floats_at(norm, head_dim);
    for (uint32_t head = 0; head < n_heads && weight; head++)
        kernels()->rms_norm(heads + head * head_dim, weight, head_dim, storing->epsilon,
                            heads + head * head_dim);
    kernels()->rope(heads, n_heads, head_dim, storing->n_rot, floats_at(storing->cosine, end) + end - n_pairs,
                    floats_at(storing->sine, end) + end - n_pairs, storing->interleaved);
}

static void run_storing(const void *arguments)
{
    const struct gpu_storing *storing = arguments;
    const struct gpu_cache *cache = &storing->cache;
    const struct kv_shape shape = {cache->head_dim, cache->k_f32};
    const struct gpu_row *rows = at(storing->rows.rows, storing->rows.n * sizeof *rows);
    size_t n_q = (size_t)storing->q.n_heads * cache->head_dim,
           n_kv = (size_t)cache->n_kv_heads * cache->head_dim;
    for (uint32_t i = 0; i < storing->rows.n; i++) {
        float *q = floats_at(storing->q.values, (i + 1) * n_q) + i * n_q,
              *k = floats_at(storing->k, (i + 1) * n_kv) + i * n_kv,
              *v = floats_at(storing->v, (i + 1) * n_kv) + i * n_kv;
        uint32_t page = page_of(&storing->rows, &rows[i], rows[i].position / KV_PAGE);
        rotate_heads(storing, q, storing->q.n_heads, storing->q_norm, rows[i].rotation);
        rotate_heads(storing, k, cache->n_kv_heads, storing->k_norm, rows[i].rotation);
        for (uint32_t head = 0; head < cache->n_kv_heads; head++)
            kernels()->kv_store(&shape, block_at(cache, page, head), rows[i].position % KV_PAGE,
                                k + head * cache->head_dim, v + head * cache->head_dim);
    }
}

int gpu_rotate_store(struct gpu *gpu, const struct gpu_storing *storing, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_storing, storing, sizeof *storing);
}

size_t gpu_partials_bytes(uint32_t n_rows, uint32_t n_blocks, uint32_t n_heads, uint32_t head_dim)
{
    return (size_t)n_rows * n_blocks * n_heads * (head_dim + 4) * sizeof(float);
}

/* One query head of a row, block of positions after block. */
static void attend_head(const struct gpu_attention *attention, const struct gpu_row *row, uint32_t head,
                        const float *q, float *out)
{
    const struct gpu_cache *cache = &attention->cache;
    const struct kv_shape shape = {cache->head_dim, cache->k_f32};
    uint32_t kv_head = head / (attention->q.n_heads / cache->n_kv_heads), position = row->position;
    uint32_t first =
        attention->window && position >= attention->window ? position - attention->window + 1 : 0;
    size_t padded = (cache->head_dim + 15) / 16 * 16;
    struct attn_state state = {.m = -INFINITY};
    _Alignas(64) float acc[KV_HEAD_DIM_MAX] = {0};
    if (position / ATTN_BLOCK - first / ATTN_BLOCK >= attention->n_blocks)
        give_up("fewer blocks of positions than a row sees");
    for (uint32_t block = first / ATTN_BLOCK; block <= position / ATTN_BLOCK; block++) {
        uint32_t start = block * ATTN_BLOCK, end = position + 1 - start;
        const void *pages[ATTN_BLOCK_PAGES];
        const struct attn_span visible = {first > start ? first - start : 0,
                                          end < ATTN_BLOCK ? end : ATTN_BLOCK};
        for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
            uint32_t page = start / KV_PAGE + i;
            pages[i] = page >= first / KV_PAGE && page <= position / KV_PAGE
                           ? block_at(cache, page_of(&attention->rows, row, page), kv_head)
                           : NULL;
        }
        kernels()->attention(&shape, pages, NULL, q, cache->head_dim, &visible, 1, attention->scale, &state,
                             acc, padded);
    }
    kernels()->attention_finish(&state, acc, cache->head_dim, out);
}

static void run_attention(const void *arguments)
{
    const struct gpu_attention *attention = arguments;
    const struct gpu_row *rows = at(attention->rows.rows, attention->rows.n * sizeof *rows);
    uint32_t n_heads = attention->q.n_heads, head_dim = attention->cache.head_dim,
             n_q = width(n_heads * head_dim);
    float out[WIDTH_MAX];
    at(attention->partials, attention->partials_bytes);
    if (attention->partials_bytes < gpu_partials_bytes(1, attention->n_blocks, n_heads, head_dim))
        give_up("no room for the partial results of a row");
    for (uint32_t i = 0; i < attention->rows.n; i++) {
        const float *q = floats_at(attention->q.values, (i + (size_t)1) * n_q) + (size_t)i * n_q;
        for (uint32_t head = 0; head < n_heads; head++)
            attend_head(attention, &rows[i], head, q + head * head_dim, out + head * head_dim);
        if (soft_gpu.wrong == SOFT_WRONG_ATTENTION && attention->rows.n == 1)
            out[0] = -1 - out[0];
        put_acts(&attention->out, i, out, n_q);
    }
}

int gpu_attend(struct gpu *gpu, const struct gpu_attention *attention, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_attention, attention, sizeof *attention);
}

static void run_activation(const void *arguments)
{
    const struct gpu_activation *activation = arguments;
    uint32_t n = width(activation->n);
    size_t n_values = (size_t)activation->n_rows * n;
    const float *gate = floats_at(activation->gate, n_values), *up = floats_at(activation->up, n_values);
    float row[WIDTH_MAX];
    for (uint32_t i = 0; i < activation->n_rows; i++, gate += n, up += n) {
        if (activation->gelu)
            kernels()->gelu_mul(gate, up, n, row);
        else
            kernels()->silu_mul(gate, up, n, row);
        put_acts(&activation->out, i, row, n);
    }
}

int gpu_activate(struct gpu *gpu, const struct gpu_activation *activation, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_activation, activation, sizeof *activation);
}

static void run_page_copies(const void *arguments)
{
    const struct gpu_page_copies *copies = arguments;
    const struct kv_shape shape = {copies->cache.head_dim, copies->cache.k_f32};
    const uint32_t *pairs = at(copies->pairs, copies->n_pairs * 2 * sizeof *pairs);
    for (uint32_t i = 0; i < copies->n_pairs; i++, pairs += 2)
        for (uint32_t head = 0; head < copies->cache.n_kv_heads; head++)
            memcpy(block_at(&copies->cache, pairs[1], head), block_at(&copies->cache, pairs[0], head),
                   kv_block_bytes(&shape));
}

int gpu_copy_pages(struct gpu *gpu, const struct gpu_page_copies *copies, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_page_copies, copies, sizeof *copies);
}

size_t gpu_choice_bytes(uint32_t n_rows, uint32_t n)
{
    return (size_t)n_rows * n; /* something that grows */
}

static void run_choice(const void *arguments)
{
    const struct gpu_choice *choice = arguments;
    size_t n_columns = choice->n_columns;
    const float *logits = floats_at(choice->logits, choice->n_rows * n_columns);
    struct gpu_best *best = at(choice->best, choice->n_rows * sizeof *best);
    at(choice->scratch, gpu_choice_bytes(choice->n_rows, choice->n));
    for (uint32_t row = 0; row < choice->n_rows; row++, logits += n_columns) {
        best[row] = (struct gpu_best){.logit = -INFINITY};
        for (uint32_t i = choice->n; i-- > 0;) { /* the lowest one comes last */
            best[row].has_nan |= isnan(logits[i]) != 0;
            if (logits[i] >= best[row].logit) {
                best[row].logit = logits[i];
                best[row].id = i;
            }
        }
    }
}

int gpu_find_best(struct gpu *gpu, const struct gpu_choice *choice, runnel_error *error)
{
    (void)error;
    return do_work(gpu, run_choice, choice, sizeof *choice);
}

/* What may be one launch is done in its parts. ------------------------------------------------------------ */

int gpu_multiply_prepared(struct gpu *gpu, const struct gpu_preparation *preparation,
                          const struct gpu_product *product, runnel_error *error)
{
    int code = gpu_prepare_rows(gpu, preparation, error);
    return code ? code : gpu_multiply(gpu, product, error);
}

int gpu_multiply_attended(struct gpu *gpu, const struct gpu_storing *storing,
                          const struct gpu_attention *attention, const struct gpu_product *product,
                          runnel_error *error)
{
    int code = gpu_rotate_store(gpu, storing, error);
    code = code ? code : gpu_attend(gpu, attention, error);
    return code ? code : gpu_multiply(gpu, product, error);
}

int gpu_feed_forward(struct gpu *gpu, const struct gpu_feed_forward *feed, runnel_error *error)
{
    int code = gpu_multiply_prepared(gpu, &feed->input, &feed->gate_up, error);
    code = code ? code : gpu_activate(gpu, &feed->activation, error);
    return code ? code : gpu_multiply(gpu, &feed->down, error);
}
