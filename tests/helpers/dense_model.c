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

static void rotate(double *x, size_t n, size_t n_heads, const struct model_config *config)
{
    size_t n_pairs = config->n_rot / 2;
    bool interleaved = config->architecture->traits & TRAIT_INTERLEAVED_ROPE;
    for (size_t position = 0; position < n; position++)
        for (size_t head = 0; head < n_heads; head++)
            for (size_t i = 0; i < n_pairs; i++) {
                double *values = x + (position * n_heads + head) * config->head_dim;
                double *a = interleaved ? values + 2 * i : values + i;
                double *b = interleaved ? values + 2 * i + 1 : values + i + n_pairs;
                double angle = (double)position / pow(config->rope_base, 2.0 * (double)i / config->n_rot);
                double rotated = *a * cos(angle) - *b * sin(angle);
                *b = *a * sin(angle) + *b * cos(angle);
                *a = rotated;
            }
}

static double *attend(const double *q, const double *k, const double *v, size_t n,
                      const struct model_config *config)
{
    size_t head_dim = config->head_dim, n_q = config->n_heads * head_dim,
           n_kv = config->n_kv_heads * head_dim;
    double *out = calloc(n * n_q, sizeof *out), *scores = malloc(n * sizeof *scores);
    for (size_t row = 0; row < n; row++)
        for (size_t head = 0; head < config->n_heads; head++) {
            size_t kv_head = head / (config->n_heads / config->n_kv_heads);
            double max = -INFINITY, sum = 0;
            for (size_t t = 0; t <= row; t++) {
                double dot = 0;
                for (size_t i = 0; i < head_dim; i++)
                    dot += q[row * n_q + head * head_dim + i] * k[t * n_kv + kv_head * head_dim + i];
                scores[t] = dot / sqrt((double)head_dim);
                max = fmax(max, scores[t]);
            }
            for (size_t t = 0; t <= row; t++)
                sum += exp(scores[t] - max);
            for (size_t t = 0; t <= row; t++)
                for (size_t i = 0; i < head_dim; i++)
                    out[row * n_q + head * head_dim + i] +=
                        exp(scores[t] - max) / sum * v[t * n_kv + kv_head * head_dim + i];
        }
    free(scores);
    return out;
}

static void add(double *x, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
    free(y);
}

static void run_layer(const struct gguf *gguf, const struct model_config *config, int layer, double *x,
                      size_t n)
{
    size_t width = config->n_hidden, n_q = config->n_heads * config->head_dim,
           n_kv = config->n_kv_heads * config->head_dim;
    double *norm = normalize(x, load(gguf, layer, "attn_norm.weight"), n, width, config->norm_epsilon);
    double *q =
        multiply(load(gguf, layer, "attn_q.weight"), load(gguf, layer, "attn_q.bias"), norm, n, width, n_q);
    double *k =
        multiply(load(gguf, layer, "attn_k.weight"), load(gguf, layer, "attn_k.bias"), norm, n, width, n_kv);
    double *v =
        multiply(load(gguf, layer, "attn_v.weight"), load(gguf, layer, "attn_v.bias"), norm, n, width, n_kv);
    rotate(q, n, config->n_heads, config);
    rotate(k, n, config->n_kv_heads, config);
    double *attended = attend(q, k, v, n, config);
    add(x, multiply(load(gguf, layer, "attn_output.weight"), NULL, attended, n, n_q, width), n * width);
    free(norm);
    free(q);
    free(k);
    free(v);
    free(attended);

    norm = normalize(x, load(gguf, layer, "ffn_norm.weight"), n, width, config->norm_epsilon);
    double *gate = multiply(load(gguf, layer, "ffn_gate.weight"), NULL, norm, n, width, config->n_ffn);
    double *up = multiply(load(gguf, layer, "ffn_up.weight"), NULL, norm, n, width, config->n_ffn);
    for (size_t i = 0; i < n * config->n_ffn; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    add(x, multiply(load(gguf, layer, "ffn_down.weight"), NULL, gate, n, config->n_ffn, width), n * width);
    free(norm);
    free(gate);
    free(up);
}

double *dense_model_logits(const char *path, const int32_t *ids, size_t n, size_t *n_vocab)
{
    struct gguf *gguf;
    struct model_config config;
    runnel_error error;
    if (gguf_open(path, &gguf, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return NULL;
    }
    if (model_config_read(gguf, &config, &error)) {
        fprintf(stderr, "%s\n", error.message);
        gguf_close(gguf);
        return NULL;
    }
    size_t width = config.n_hidden;
    double *embedding = load(gguf, -1, "token_embd.weight"), *x = malloc(n * width * sizeof *x);
    for (size_t i = 0; i < n; i++)
        memcpy(x + i * width, embedding + (size_t)ids[i] * width, width * sizeof *x);
    for (int layer = 0; layer < (int)config.n_layers; layer++)
        run_layer(gguf, &config, layer, x, n);
    double *norm = normalize(x, load(gguf, -1, "output_norm.weight"), n, width, config.norm_epsilon);
    double *head = config.tied ? load(gguf, -1, "token_embd.weight") : load(gguf, -1, "output.weight");
    double *logits = multiply(head, NULL, norm, n, width, config.n_vocab);
    *n_vocab = config.n_vocab;
    free(embedding);
    free(x);
    free(norm);
    gguf_close(gguf);
    return logits;
}
