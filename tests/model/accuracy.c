/* accuracy.c: is it still the same model? The gate of docs/accuracy.md, for one real model.
 *
 *     accuracy MODEL.gguf REFERENCE.json
 *
 * The reference holds, after each token of its passages, the 32 likeliest next tokens and their log probabilities from
 * an exact f32 forward pass of the dequantised weights, and llama.cpp's distance from that. Fails if the mean KL
 * divergence (over those 32 and one bucket for the rest) is above 1.15 x llama.cpp's, or if the likeliest token agrees
 * more than one point less often. Position 0 is left out, as in the reference. Exit status 77: no such model here. */
#include "helpers/cpu_levels.h"
#include "runnel.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double KL_FACTOR_MAX = 1.15;
static const double TOP1_POINTS_MAX = 0.01;

struct passage {
    json_t *top_ids, *top_logprobs; /* [position][32] */
    uint32_t n_vocab;
    double kl_sum, kl_max;
    size_t n, n_agreeing;
};

/* log(sum(exp(logits))) */
static double log_sum_exp(const float *logits, uint32_t n)
{
    float max = logits[0];
    for (uint32_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

static double kl_divergence(const struct passage *passage, size_t position, const float *logits)
{
    const json_t *ids = json_array_get(passage->top_ids, position);
    const json_t *logprobs = json_array_get(passage->top_logprobs, position);
    double normalizer = log_sum_exp(logits, passage->n_vocab), kl = 0, p_rest = 1, q_rest = 1;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        double log_p = json_number_value(json_array_get(logprobs, i));
        double log_q = (double)logits[json_integer_value(json_array_get(ids, i))] - normalizer;
        kl += exp(log_p) * (log_p - log_q);
        p_rest -= exp(log_p);
        q_rest -= exp(log_q);
    }
    p_rest = fmax(p_rest, 1e-9);
    q_rest = fmax(q_rest, 1e-9);
    return kl + p_rest * log(p_rest / q_rest);
}

static bool on_logits(void *user, size_t position, const float *logits)
{
    struct passage *passage = user;
    if (position == 0)
        return true;
    uint32_t likeliest = 0;
    for (uint32_t i = 1; i < passage->n_vocab; i++)
        likeliest = logits[i] > logits[likeliest] ? i : likeliest;
    double kl = kl_divergence(passage, position, logits);
    passage->kl_sum += kl;
    passage->kl_max = fmax(passage->kl_max, kl);
    passage->n++;
    passage->n_agreeing +=
        likeliest == json_integer_value(json_array_get(json_array_get(passage->top_ids, position), 0));
    return true;
}

static int32_t *read_ids(json_t *list)
{
    int32_t *ids = malloc(json_array_size(list) * sizeof *ids);
    for (size_t i = 0; ids && i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

/* Adds the passages' figures up; returns false with a message if a passage could not be computed. */
static bool measure(runnel_engine *engine, uint32_t n_vocab, json_t *passages, struct passage *total)
{
    const char *name;
    json_t *value;
    json_object_foreach(passages, name, value)
    {
        struct passage passage = {.top_ids = json_object_get(value, "top_ids"),
                                  .top_logprobs = json_object_get(value, "top_logprobs"),
                                  .n_vocab = n_vocab};
        json_t *list = json_object_get(value, "ids");
        int32_t *ids = read_ids(list);
        runnel_error error;
        int failure = runnel_logits_each(engine, ids, json_array_size(list), 0, on_logits, &passage, &error);
        free(ids);
        if (failure) {
            fprintf(stderr, "%s: %s\n", name, error.message);
            return false;
        }
        printf("  %-10s KL %.6f  top-1 %.4f\n", name, passage.kl_sum / (double)passage.n,
               (double)passage.n_agreeing / (double)passage.n);
        total->kl_sum += passage.kl_sum;
        total->kl_max = fmax(total->kl_max, passage.kl_max);
        total->n += passage.n;
        total->n_agreeing += passage.n_agreeing;
    }
    return total->n > 0;
}

/* RUNNEL_CPU asks for kernels that this machine cannot run. */
static bool cpu_is_missing(void)
{
    const char *cpu = getenv("RUNNEL_CPU");
    return cpu && cpu_lacks_level(cpu);
}

/* Compares with llama.cpp's distance from the same reference. */
static bool judge(const struct passage *total, const json_t *llama_cpp, const char *cpu)
{
    double kl = total->kl_sum / (double)total->n, top1 = (double)total->n_agreeing / (double)total->n;
    double their_kl = json_number_value(json_object_get(llama_cpp, "kl32_mean"));
    double their_top1 = json_number_value(json_object_get(llama_cpp, "top1_agreement"));
    printf(
        "  %-10s KL %.6f (llama.cpp %.6f: x %.3f, at most %.2f; largest %.4f)  top-1 %.4f (llama.cpp %.4f)\n",
        cpu, kl, their_kl, kl / their_kl, KL_FACTOR_MAX, total->kl_max, top1, their_top1);
    return their_kl > 0 && kl <= KL_FACTOR_MAX * their_kl && top1 >= their_top1 - TOP1_POINTS_MAX;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: accuracy MODEL.gguf REFERENCE.json\n");
        return 2;
    }
    if (access(argv[1], R_OK) || cpu_is_missing()) {
        fprintf(stderr, "%s, or a CPU for it, is not here: skipped\n", argv[1]);
        return 77;
    }
    json_t *reference = json_load_file(argv[2], 0, NULL);
    runnel_error error;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = 1024; /* the longest passage has 645 tokens */
    if (!reference || runnel_model_open(argv[1], NULL, &model, &error) ||
        runnel_engine_start(model, &options, &engine, &error)) {
        fprintf(stderr, "%s\n", reference ? error.message : "the reference could not be read");
        return 1;
    }
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    struct passage total = {0};
    bool passed = measure(engine, info.n_vocab, json_object_get(reference, "passages"), &total) &&
                  judge(&total, json_object_get(reference, "llama_cpp"), info.cpu);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    json_decref(reference);
    return passed ? 0 : 1;
}
