/* dense_model.c: a transformer in double precision, for tests (see dense_model.h). */
#include "helpers/dense_model.h"

#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tensor as doubles; NULL if the file has none of the name. */
static double *load(const struct gguf *gguf, int layer, const char *name)
{
    char full[64];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, full);
    if (!tensor)
        return NULL;
    size_t n = tensor->dims[0] * tensor->dims[1];
    void *bytes = malloc(tensor->n_bytes);
    float *floats = malloc(n * sizeof *floats);
    double *values = malloc(n * sizeof *values);
    if (gguf_read(gguf, tensor->offset, bytes, tensor->n_bytes, NULL))
        abort();
    quant_decode(tensor->type, bytes, n, floats);
    for (size_t i = 0; i < n; i++)
        values[i] = floats[i];
    free(bytes);
    free(floats);
    return values;
}

/* out[r] = weights [n_out, n_in] x in[r] (+ bias), for n rows. Frees weights and bias. */
static double *multiply(double *weights, double *bias, const double *in, size_t n, size_t n_in, size_t n_out)
{
    double *out = calloc(n * n_out, sizeof *out);
    for (size_t r = 0; r < n; r++)
        for (size_t o = 0; o < n_out; o++) {
            double sum = bias ? bias[o] : 0;
            for (size_t i = 0; i < n_in; i++)
                sum += weights[o * n_in + i] * in[r * n_in + i];
            out[r * n_out + o] = sum;
        }
    free(weights);
    free(bias);
    return out;
}

/* RMS norm of n rows. Frees weight. */
static double *normalize(const double *x, double *weight, size_t n, size_t width, double epsilon)
{
    double *out = malloc(n * width * sizeof *out);
    for (size_t r = 0; r < n; r++) {
        double sum = 0;
        for (size_t i = 0; i < width; i++)
            sum += x[r * width + i] * x[r * width + i];
        for (size_t i = 0; i < width; i++)
            out[r * width + i] = x[r * width + i] / sqrt(sum / (double)width + epsilon) * weight[i];
    }
    free(weight);
    return out;
}

/* A model's file, and what distinguishes its architecture. Only sizes are read by the library's own functions. */
struct dense {
    const struct gguf *gguf;
    struct model_config config;
    bool is_llama, is_gemma3;
    double epsilon;
    size_t window; /* positions that rows of most of Gemma's layers see; 0: all */
};

/* A number of the architecture, or what it is where the file does not say. */
static double number_of(const struct dense *model, const char *name, double otherwise)
{
    char key[128];
    float number;
    uint32_t whole;
    snprintf(key, sizeof key, "%s.%s", model->config.architecture->name, name);
    if (!gguf_get_f32(model->gguf, key, &number, NULL))
        return number;
    return gguf_get_u32(model->gguf, key, &whole, NULL) ? otherwise : whole;
}

static bool scaling_is(const struct dense *model, const char *type)
{
    char key[128];
    struct gguf_string found;
    snprintf(key, sizeof key, "%s.rope.scaling.type", model->config.architecture->name);
    return !gguf_get_string(model->gguf, key, &found, NULL) && found.len == strlen(type) &&
           !memcmp(found.bytes, type, found.len);
}

/* Gemma's layers 0 to 4 of each six see a window. */
static bool has_window(const struct dense *model, int layer)
{
    return model->window && layer % 6 != 5;
}

/* How far a pair is on the way from the fast ones, which YaRN leaves alone (0), to the slow ones (1). The wavelength of pair d is
 * 2 pi base^(2d / n); it turns context / wavelength times. */
static double way_to_slow(const struct dense *model, double base, double pair)
{
    double n = model->config.n_rot, context = number_of(model, "rope.scaling.original_context_length", 0);
    double fast = number_of(model, "rope.scaling.yarn_beta_fast", 32),
           slow = number_of(model, "rope.scaling.yarn_beta_slow", 1);
    double low = floor(n / 2 * log(context / 2 / 3.14159265358979323846 / fast) / log(base));
    double high = ceil(n / 2 * log(context / 2 / 3.14159265358979323846 / slow) / log(base));
    low = low < 0 ? 0 : low;
    high = high > n - 1 ? n - 1 : high;
    double way = (pair - low) / (high == low ? 0.001 : high - low);
    return way < 0 ? 0 : way > 1 ? 1 : way;
}

/* The angle of a pair at position 1. */
static double angle_of(const struct dense *model, int layer, double pair, const double *factors)
{
    bool window = has_window(model, layer);
    double base =
        window ? number_of(model, "rope.freq_base_swa", 10000) : number_of(model, "rope.freq_base", 10000);
    double angle = 1 / pow(base, 2 * pair / model->config.n_rot);
    double factor = number_of(model, "rope.scaling.factor", 1);
    if (factors)
        angle /= factors[(size_t)pair];
    if (window || scaling_is(model, "none"))
        return angle;
    if (scaling_is(model, "yarn")) {
        double way = way_to_slow(model, base, pair);
        return angle / factor * way + angle * (1 - way);
    }
    return angle / factor;
}

static void rotate(double *x, size_t n, size_t n_heads, const struct dense *model, int layer)
{
    size_t n_pairs = model->config.n_rot / 2;
    double *factors = load(model->gguf, -1, "rope_freqs.weight");
    double size = scaling_is(model, "yarn") ? 1 + log(number_of(model, "rope.scaling.factor", 1)) / 10 : 1;
    for (size_t i = 0; i < n_pairs; i++) {
        double turn = angle_of(model, layer, (double)i, factors);
        for (size_t position = 0; position < n; position++)
            for (size_t head = 0; head < n_heads; head++) {
                double *values = x + (position * n_heads + head) * model->config.head_dim;
                double *a = model->is_llama ? values + 2 * i : values + i;
                double *b = model->is_llama ? values + 2 * i + 1 : values + i + n_pairs;
                double angle = (double)position * turn, old_a = *a, old_b = *b;
                *a = size * (old_a * cos(angle) - old_b * sin(angle));
                *b = size * (old_a * sin(angle) + old_b * cos(angle));
            }
    }
    free(factors);
}

static double *attend(const double *q, const double *k, const double *v, size_t n, const struct dense *model,
                      int layer)
{
    const struct model_config *config = &model->config;
    size_t head_dim = config->head_dim, n_q = config->n_heads * head_dim,
           n_kv = config->n_kv_heads * head_dim;
    double *out = calloc(n * n_q, sizeof *out), *scores = malloc(n * sizeof *scores);
    for (size_t row = 0; row < n; row++)
        for (size_t head = 0; head < config->n_heads; head++) {
            size_t kv_head = head / (config->n_heads / config->n_kv_heads);
            size_t first = has_window(model, layer) && row >= model->window ? row - model->window + 1 : 0;
            double max = -INFINITY, sum = 0;
            for (size_t t = first; t <= row; t++) {
                double dot = 0;
                for (size_t i = 0; i < head_dim; i++)
                    dot += q[row * n_q + head * head_dim + i] * k[t * n_kv + kv_head * head_dim + i];
                scores[t] = dot / sqrt((double)head_dim);
                max = fmax(max, scores[t]);
            }
            for (size_t t = first; t <= row; t++)
                sum += exp(scores[t] - max);
            for (size_t t = first; t <= row; t++)
                for (size_t i = 0; i < head_dim; i++)
                    out[row * n_q + head * head_dim + i] +=
                        exp(scores[t] - max) / sum * v[t * n_kv + kv_head * head_dim + i];
        }
    free(scores);
    return out;
}

/* Normalises rows in place, if there is a weight. */
static void normalize_again(double *x, double *weight, size_t n, size_t width, double epsilon)
{
    if (!weight)
        return;
    double *normalized = normalize(x, weight, n, width, epsilon);
    memcpy(x, normalized, n * width * sizeof *x);
    free(normalized);
}

static void add(double *x, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
    free(y);
}

static double activate(const struct dense *model, double x)
{
    if (model->is_gemma3) /* GELU, by its tanh form */
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    return x / (1 + exp(-x));
}

static void run_layer(const struct dense *model, int layer, double *x, size_t n)
{
    const struct gguf *gguf = model->gguf;
    const struct model_config *config = &model->config;
    size_t width = config->n_hidden, head_dim = config->head_dim, n_q = config->n_heads * head_dim,
           n_kv = config->n_kv_heads * head_dim;
    double *norm = normalize(x, load(gguf, layer, "attn_norm.weight"), n, width, model->epsilon);
    double *q =
        multiply(load(gguf, layer, "attn_q.weight"), load(gguf, layer, "attn_q.bias"), norm, n, width, n_q);
    double *k =
        multiply(load(gguf, layer, "attn_k.weight"), load(gguf, layer, "attn_k.bias"), norm, n, width, n_kv);
    double *v =
        multiply(load(gguf, layer, "attn_v.weight"), load(gguf, layer, "attn_v.bias"), norm, n, width, n_kv);
    normalize_again(q, load(gguf, layer, "attn_q_norm.weight"), n * config->n_heads, head_dim,
                    model->epsilon);
    normalize_again(k, load(gguf, layer, "attn_k_norm.weight"), n * config->n_kv_heads, head_dim,
                    model->epsilon);
    rotate(q, n, config->n_heads, model, layer);
    rotate(k, n, config->n_kv_heads, model, layer);
    double *attended = attend(q, k, v, n, model, layer);
    double *output = multiply(load(gguf, layer, "attn_output.weight"), NULL, attended, n, n_q, width);
    normalize_again(output, load(gguf, layer, "post_attention_norm.weight"), n, width, model->epsilon);
    add(x, output, n * width);
    free(norm);
    free(q);
    free(k);
    free(v);
    free(attended);

    norm = normalize(x, load(gguf, layer, "ffn_norm.weight"), n, width, model->epsilon);
    double *gate = multiply(load(gguf, layer, "ffn_gate.weight"), NULL, norm, n, width, config->n_ffn);
    double *up = multiply(load(gguf, layer, "ffn_up.weight"), NULL, norm, n, width, config->n_ffn);
    for (size_t i = 0; i < n * config->n_ffn; i++)
        gate[i] = activate(model, gate[i]) * up[i];
    output = multiply(load(gguf, layer, "ffn_down.weight"), NULL, gate, n, config->n_ffn, width);
    normalize_again(output, load(gguf, layer, "post_ffw_norm.weight"), n, width, model->epsilon);
    add(x, output, n * width);
    free(norm);
    free(gate);
    free(up);
}

static double *compute(const struct dense *model, const int32_t *ids, size_t n)
{
    const struct model_config *config = &model->config;
    size_t width = config->n_hidden;
    double *embedding = load(model->gguf, -1, "token_embd.weight"), *x = malloc(n * width * sizeof *x);
    for (size_t i = 0; i < n * width; i++)
        x[i] = embedding[(size_t)ids[i / width] * width + i % width] *
               (model->is_gemma3 ? sqrt((double)width) : 1);
    for (int layer = 0; layer < (int)config->n_layers; layer++)
        run_layer(model, layer, x, n);
    double *norm = normalize(x, load(model->gguf, -1, "output_norm.weight"), n, width, model->epsilon);
    double *head = load(model->gguf, -1, "output.weight");
    double *logits = multiply(head ? head : load(model->gguf, -1, "token_embd.weight"), NULL, norm, n, width,
                              config->n_vocab);
    free(embedding);
    free(x);
    free(norm);
    return logits;
}

double *dense_model_logits(const char *path, const int32_t *ids, size_t n, size_t *n_vocab)
{
    struct gguf *gguf;
    struct dense model;
    runnel_error error;
    if (gguf_open(path, &gguf, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return NULL;
    }
    if (model_config_read(gguf, &model.config, &error)) {
        fprintf(stderr, "%s\n", error.message);
        gguf_close(gguf);
        return NULL;
    }
    model.gguf = gguf;
    model.is_llama = !strcmp(model.config.architecture->name, "llama");
    model.is_gemma3 = !strcmp(model.config.architecture->name, "gemma3");
    model.epsilon = number_of(&model, "attention.layer_norm_rms_epsilon", 0);
    model.window = (size_t)number_of(&model, "attention.sliding_window", 0);
    double *logits = compute(&model, ids, n);
    *n_vocab = model.config.n_vocab;
    gguf_close(gguf);
    return logits;
}
