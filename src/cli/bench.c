/* bench.c: the command `runnel bench`: prefill, decode and batched decode, beside the limits of this machine.
 *
 * Every figure includes the output head and sampling. Prefill starts from an empty cache (each repetition has
 * a prompt of its own), decode from a depth of one token or as many as --depth says, and a batch of N decodes
 * N sequences with different prompts of 32 tokens, behind as many that all of them share as --shared says. Repetitions of all figures and of the machine's limits are
 * interleaved, and medians are shown: a limit measured in another minute than the figure says nothing where
 * the machine is shared. One thread, besides the engine's. */
#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/options.h"
#include "cli/cli.h"
#include "kernels/probe.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPETITIONS_MAX = 100,
    BATCH_PROMPT = 32, /* tokens of each sequence of a batch */
    SHARED_MARGIN = 3 * KV_PAGE,
    BATCH_STEP_MS = 60000,
};

struct bench_settings {
    const char *model;
    struct option_ints prefill, batch;
    int n_tokens, depth, n_shared, n_threads, n_repetitions, target_ms;
    float temperature;
    bool has_temperature, json;
    struct cli_device device;
    char *config_text;
};

static const struct option_spec bench_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct bench_settings, model), .required = true, .bare = true},
    {"prefill", 'p', OPTION_INTS, "N,N", "lengths of prompts", OPTION_FIELD(struct bench_settings, prefill),
     .minimum = 1, .maximum = 1 << 20, .default_text = "16,128,512"},
    {"n-tokens", 'n', OPTION_INT, "N", "tokens to decode", OPTION_FIELD(struct bench_settings, n_tokens),
     .minimum = 1, .maximum = 1 << 20, .default_text = "64"},
    {"depth", 'd', OPTION_INT, "N", "tokens before those that are decoded one by one",
     OPTION_FIELD(struct bench_settings, depth), .minimum = 0, .maximum = 1 << 20, .default_text = "0"},
    {"batch", 'b', OPTION_INTS, "N,N", "sequences decoded together",
     OPTION_FIELD(struct bench_settings, batch), .minimum = 1, .maximum = 256,
     .default_text = "1,2,4,8,12,16"},
    {"shared", 0, OPTION_INT, "N",
     "tokens that all sequences of a batch begin with, as with one system prompt",
     OPTION_FIELD(struct bench_settings, n_shared), .minimum = 0, .maximum = 1 << 20, .default_text = "0"},
    {"temp", 0, OPTION_FLOAT, "T", "temperature; 0: always the likeliest token (default: the model's own)",
     OPTION_FIELD(struct bench_settings, temperature), OPTION_HAS(struct bench_settings, has_temperature),
     .minimum = 0, .maximum = 100},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct bench_settings, n_threads), .minimum = 0, .maximum = 256},
    CLI_DEVICE_OPTIONS(struct bench_settings, device),
    {"repeat", 'r', OPTION_INT, "N", "repetitions; medians are shown",
     OPTION_FIELD(struct bench_settings, n_repetitions), .minimum = 1, .maximum = REPETITIONS_MAX,
     .default_text = "3"},
    {"target-ms", 0, OPTION_INT, "MS",
     "recommend --parallel for at most so long between the tokens of a stream",
     OPTION_FIELD(struct bench_settings, target_ms), .minimum = 1, .maximum = 60000, .default_text = "100",
     .excludes = "json"},
    {"json", 0, OPTION_FLAG, NULL, "print one object", OPTION_FIELD(struct bench_settings, json)},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct bench_settings, config_text)},
};

const struct options_table bench_table = {
    "runnel bench", "Measures prefill, decode and batched decode, beside the limits of this machine.",
    bench_options, OPTION_COUNT(bench_options)};

enum figure_kind { FIGURE_PREFILL, FIGURE_DECODE, FIGURE_BATCH };

/* One number of each repetition. */
struct samples {
    double values[REPETITIONS_MAX];
};

struct figure {
    enum figure_kind kind;
    uint32_t n;             /* tokens of the prompt; tokens decoded; sequences */
    struct samples samples; /* tokens a second, of all sequences together */
    double tok_s;           /* their median */
};

struct bench {
    const struct bench_settings *settings;
    runnel_model *model;
    runnel_engine *engine, *batch_engine; /* of prompts and one stream; of batches */
    runnel_model_info info;
    struct figure *figures;
    size_t n_figures;
    struct samples read_samples, int8_samples;
    double read_gb_s, int8_gmac_s; /* their medians */
    double device_gb_s;            /* how fast the GPU reads its memory; 0: the CPU computes */
    char device[320];              /* what the GPU computes, for people */
    bool is_divided;               /* ... which is not all layers */
    struct neighbour_round rounds[REPETITIONS_MAX * PROBE_ROUNDS]; /* of all repetitions */
    struct neighbour neighbour;
    uint32_t next_prompt; /* so that no two prompts begin alike */
};

/* Running ------------------------------------------------------------------------------------------------- */

/* Ordinary tokens, others for each number from the first one on. */
static void make_tokens(const struct bench *bench, uint32_t number, int32_t *ids, uint32_t n)
{
    uint32_t n_ordinary = bench->info.n_vocab / 2, state = number * 2654435761u;
    for (uint32_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % n_ordinary);
    }
    if (n)
        ids[0] = (int32_t)(number % n_ordinary);
}

/* A prompt of n tokens, the first n_shared of which are the same in all prompts; after these no earlier prompt goes on alike. */
static void make_prompt(struct bench *bench, int32_t *ids, uint32_t n_shared, uint32_t n)
{
    make_tokens(bench, 0, ids, n_shared);
    make_tokens(bench, ++bench->next_prompt, ids + n_shared, n - n_shared);
}

/* A batch as it goes: the streams start one after the other, and the last one to start tells the time. Changed on the
 * engine's thread, read when the requests have ended. */
struct batch_watch {
    uint32_t n, n_started;
    uint32_t n_tokens; /* steps that are to count */
    uint32_t n_steps;  /* that did, between begin_ms and end_ms */
    double begin_ms, end_ms;
    bool over;
};

struct watched_stream {
    struct batch_watch *watch;
    bool has_started, tells_time;
};

static bool watch_batch(void *user, const runnel_event *event)
{
    struct watched_stream *stream = user;
    struct batch_watch *watch = stream->watch;
    if (event->kind == RUNNEL_EVENT_FINISH)
        watch->over = true;
    if (event->kind != RUNNEL_EVENT_TOKEN || watch->over)
        return !watch->over;
    if (!stream->has_started) {
        stream->has_started = true;
        stream->tells_time = ++watch->n_started == watch->n;
        if (stream->tells_time)
            watch->begin_ms = watch->end_ms = clock_ms();
    } else if (stream->tells_time) {
        watch->end_ms = clock_ms();
        watch->over = ++watch->n_steps == watch->n_tokens;
    }
    return !watch->over;
}

/* Tokens that a stream may have drawn before the last of n has started. */
static uint32_t head_start(uint32_t n)
{
    return 2 * n + KV_PAGE;
}

/* Tokens of the prompts of n requests, n_shared of which are the same in all of them. */
struct prompts {
    uint32_t n, n_tokens, n_shared;
};

/* Runs requests together, each for n_tokens tokens, and gives the first one's times; with a watch, until it is over. */
static int run_requests(struct bench *bench, struct prompts prompts, uint32_t n_tokens,
                        struct batch_watch *watch, double *prefill_ms, double *decode_ms, runnel_error *error)
{
    int failure = RUNNEL_ENOMEM;
    uint32_t n = prompts.n, n_prompt = prompts.n_tokens;
    runnel_request *requests = calloc(n, sizeof *requests);
    runnel_sampling *samplings = calloc(n, sizeof *samplings);
    runnel_response *responses = calloc(n, sizeof *responses);
    struct watched_stream *streams = calloc(n, sizeof *streams);
    int32_t *ids = calloc((size_t)n * n_prompt, sizeof *ids);
    if (!requests || !samplings || !responses || !streams || !ids) {
        snprintf(error->message, sizeof error->message, "no memory for %u requests", n);
        goto end;
    }
    for (uint32_t i = 0; i < n; i++) {
        make_prompt(bench, ids + (size_t)i * n_prompt, prompts.n_shared, n_prompt);
        runnel_request_init(&requests[i]);
        runnel_sampling_init(bench->model, &samplings[i]);
        samplings[i].seed = i;
        if (bench->settings->has_temperature)
            samplings[i].temperature = bench->settings->temperature;
        requests[i].sampling = &samplings[i];
        requests[i].prompt_ids = ids + (size_t)i * n_prompt;
        requests[i].n_prompt_ids = n_prompt;
        requests[i].max_tokens = (int)n_tokens;
        requests[i].ignore_eos = true;
        if (watch) {
            streams[i].watch = watch;
            requests[i].wants_tokens = true;
            requests[i].on_event = watch_batch;
            requests[i].user = &streams[i];
        }
    }
    responses->size = sizeof *responses;
    failure = runnel_respond_many(watch ? bench->batch_engine : bench->engine, requests, n, responses, error);
    if (failure)
        goto end;
    *prefill_ms = responses[0].prefill_ms;
    *decode_ms = responses[0].decode_ms;
    for (uint32_t i = 0; i < n; i++)
        runnel_response_free(&responses[i]);

end:
    free(ids);
    free(streams);
    free(requests);
    free(samplings);
    free(responses);
    return failure;
}

static int measure_batch(struct bench *bench, uint32_t n, double *tok_s, runnel_error *error)
{
    struct batch_watch watch = {.n = n, .n_tokens = (uint32_t)bench->settings->n_tokens};
    uint32_t n_shared = (uint32_t)bench->settings->n_shared;
    double prefill_ms, decode_ms;
    int failure = run_requests(bench, (struct prompts){n, n_shared + BATCH_PROMPT, n_shared},
                               watch.n_tokens + 1 + head_start(n), &watch, &prefill_ms, &decode_ms, error);
    if (failure)
        return failure;
    if (watch.n_steps == 0) {
        snprintf(error->message, sizeof error->message, "%u sequences were never decoded all together", n);
        return RUNNEL_EINVAL;
    }
    *tok_s = (double)n * watch.n_steps / (watch.end_ms - watch.begin_ms) * 1e3;
    return RUNNEL_OK;
}

/* The prompt of the figure of one stream: a cache cannot be empty when a token is to be decoded. */
static uint32_t decode_prompt(const struct bench *bench)
{
    return bench->settings->depth > 0 ? (uint32_t)bench->settings->depth : 1;
}

static int measure(struct bench *bench, const struct figure *figure, double *tok_s, runnel_error *error)
{
    double prefill_ms, decode_ms;
    int failure;
    switch (figure->kind) {
    case FIGURE_PREFILL:
        failure =
            run_requests(bench, (struct prompts){1, figure->n, 0}, 1, NULL, &prefill_ms, &decode_ms, error);
        if (!failure)
            *tok_s = figure->n / prefill_ms * 1e3;
        return failure;
    case FIGURE_DECODE:
        failure = run_requests(bench, (struct prompts){1, decode_prompt(bench), 0}, figure->n + 1, NULL,
                               &prefill_ms, &decode_ms, error);
        if (!failure)
            *tok_s = figure->n / decode_ms * 1e3;
        return failure;
    case FIGURE_BATCH:
        return measure_batch(bench, figure->n, tok_s, error);
    }
    return RUNNEL_EINVAL;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const struct kernels *kernels_in_use(void)
{
    char message[256];
    return kernels_get(message, sizeof message);
}

/* What the machine can do at this moment. */
static int probe(struct bench *bench, int repetition, runnel_error *error)
{
    const struct kernels *kernels = kernels_in_use();
    struct team *team;
    int failure = team_create((unsigned)bench->info.n_threads, &team, error);
    if (failure)
        return failure;
    failure = probe_read_gb_s(team, &bench->read_samples.values[repetition], error);
    if (!failure)
        bench->int8_samples.values[repetition] =
            probe_int8_gmac_s(team, kernels, &bench->rounds[repetition * PROBE_ROUNDS]);
    team_free(team);
    return failure;
}

static double median(struct samples *samples, int n)
{
    qsort(samples->values, (size_t)n, sizeof samples->values[0], compare_doubles);
    return (samples->values[(n - 1) / 2] + samples->values[n / 2]) / 2;
}

/* On how many cores this process may run at a time. */
static double cores_at_once(void)
{
    double quota = limits_quota_cpus(), cores = limits_cores();
    return quota > 0 && quota < cores ? quota : cores;
}

static int measure_all(struct bench *bench, runnel_error *error)
{
    int n = bench->settings->n_repetitions,
        failure = runnel_measure_device(bench->engine, &bench->device_gb_s, error);
    runnel_stats_values stats = {.size = sizeof stats};
    if (failure)
        return failure;
    runnel_stats(bench->engine, &stats);
    bench->is_divided = stats.n_device_layers > 0 && stats.n_device_layers < bench->info.n_layers;
    cli_describe_device(&bench->settings->device, bench->model, bench->engine, bench->device,
                        sizeof bench->device);
    for (int repetition = 0; repetition < n; repetition++) {
        failure = probe(bench, repetition, error);
        for (size_t i = 0; i < bench->n_figures && !failure; i++) {
            struct figure *figure = &bench->figures[i];
            failure = measure(bench, figure, &figure->samples.values[repetition], error);
        }
        if (failure)
            return failure;
    }
    bench->read_gb_s = median(&bench->read_samples, n);
    bench->int8_gmac_s = median(&bench->int8_samples, n);
    bench->neighbour = neighbour_judge(bench->rounds, (size_t)n * PROBE_ROUNDS,
                                       (unsigned)bench->info.n_threads, cores_at_once());
    for (size_t i = 0; i < bench->n_figures; i++)
        bench->figures[i].tok_s = median(&bench->figures[i].samples, n);
    return RUNNEL_OK;
}

/* Of a GPU one limit is known, how fast it reads its memory: it is no prompt's, and not that of layers which it shares with the CPU. */
static bool has_limit(const struct bench *bench, const struct figure *figure)
{
    return bench->device_gb_s == 0 || (figure->kind != FIGURE_PREFILL && !bench->is_divided);
}

/* What the machine allows: a step must read all weights and the cache of its sequences, and do all
 * multiplications of each row. */
static double limit_tok_s(const struct bench *bench, const struct figure *figure)
{
    const runnel_model_info *info = &bench->info;
    double n_rows = figure->kind == FIGURE_DECODE ? 1 : figure->n;
    double n_heads = figure->kind == FIGURE_BATCH ? figure->n : 1;
    double depth = figure->n / 2.0; /* positions that a row attends to, on average */
    if (figure->kind == FIGURE_DECODE)
        depth += bench->settings->depth;
    if (figure->kind == FIGURE_BATCH)
        depth = BATCH_PROMPT + bench->settings->n_tokens / 2.0;
    double n_sequences = figure->kind == FIGURE_BATCH ? figure->n : 1;
    double n_shared = figure->kind == FIGURE_BATCH ? bench->settings->n_shared : 0; /* read once for all */
    double read_s = ((double)info->bytes_per_token +
                     (n_sequences * depth + n_shared) * (double)info->kv_bytes_per_token) /
                    (bench->device_gb_s > 0 ? bench->device_gb_s : bench->read_gb_s) / 1e9;
    if (bench->device_gb_s > 0) /* how fast it multiplies is not measured */
        return n_rows / read_s;
    depth += n_shared;
    double multiply_s =
        (n_rows * ((double)info->n_layer_weights + depth * (double)info->n_attention_products) +
         n_heads * (double)info->n_head_weights) /
        bench->int8_gmac_s / 1e9;
    return n_rows / (read_s > multiply_s ? read_s : multiply_s);
}

static double ms_between_tokens(const struct figure *figure)
{
    return (figure->kind == FIGURE_BATCH ? figure->n : 1) / figure->tok_s * 1e3;
}

static double decode_gb_s(const struct bench *bench, const struct figure *figure)
{
    double n_streams = figure->kind == FIGURE_BATCH ? figure->n : 1;
    return figure->tok_s / n_streams * (double)bench->info.bytes_per_token / 1e9;
}

/* Reporting ----------------------------------------------------------------------------------------------- */

/* The most streams whose tokens come no further apart than the target. */
static const struct figure *recommend(const struct bench *bench)
{
    const struct figure *best = NULL;
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct figure *figure = &bench->figures[i];
        if (figure->kind == FIGURE_BATCH && ms_between_tokens(figure) <= bench->settings->target_ms &&
            (!best || figure->n > best->n))
            best = figure;
    }
    return best;
}

static void print_text(const struct bench *bench)
{
    static const char *const names[] = {"prefill", "decode", "batch"};
    const runnel_model_info *info = &bench->info;
    cli_print_text(info->name, strlen(info->name));
    printf(", %s kernels, %d threads\n", info->cpu, info->n_threads);
    if (*info->threads_why)
        printf("threads: %s\n", info->threads_why);
    if (kernels_refused())
        printf("%s\n", kernels_refused());
    if (bench->device_gb_s > 0)
        printf("%s; it reads %.1f GB/s of its memory%s\n", bench->device, bench->device_gb_s,
               bench->is_divided ? "" : ", and the limits below are that");
    printf("this machine reads %.1f GB/s and multiplies %.0f GMAC/s (8 bits, %s)\n", bench->read_gb_s,
           bench->int8_gmac_s, kernels_in_use()->int8_unit);
    char line[200];
    neighbour_describe(&bench->neighbour, line, sizeof line);
    if (*line)
        puts(line);
    printf("a token reads %.0f MB of weights and takes %.2f GMAC\n\n", (double)info->bytes_per_token / 1e6,
           (double)(info->n_layer_weights + info->n_head_weights) / 1e9);
    printf("%-8s %6s %10s %10s %8s %10s %8s\n", "work", "n", "tok/s", "limit", "reached", "ms", "GB/s");
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct figure *figure = &bench->figures[i];
        double limit = limit_tok_s(bench, figure);
        printf("%-8s %6u %10.1f", names[figure->kind], figure->n, figure->tok_s);
        if (has_limit(bench, figure))
            printf(" %10.1f %6.0f %%", limit, figure->tok_s / limit * 100);
        else
            printf(" %10s %8s", "-", "-");
        if (figure->kind == FIGURE_PREFILL)
            printf(" %10.1f\n", figure->n / figure->tok_s * 1e3);
        else
            printf(" %10.1f %8.1f\n", ms_between_tokens(figure), decode_gb_s(bench, figure));
    }
    printf("\nms: to the first token of a prompt; between the tokens of a stream\n");
    if (bench->settings->depth > 0)
        printf("decode starts behind %d tokens\n", bench->settings->depth);
    if (bench->settings->n_shared > 0)
        printf("the sequences of a batch begin with the same %d tokens\n", bench->settings->n_shared);
    if (bench->settings->has_temperature)
        printf("tokens are drawn at temperature %g\n", (double)bench->settings->temperature);
    const struct figure *best = recommend(bench);
    if (best)
        printf("\nFor at most %d ms between the tokens of a stream: --parallel %u --threads %d (%.0f ms, "
               "%.0f tok/s)\n",
               bench->settings->target_ms, best->n, info->n_threads, ms_between_tokens(best), best->tok_s);
    else
        printf("\nNo measured batch has its tokens at most %d ms apart.\n", bench->settings->target_ms);
}

/* What the machine can do; NULL without memory. */
static json_t *pack_machine(const struct bench *bench)
{
    static const char *const signs[] = {
        [NEIGHBOUR_SIBLING] = "sibling", [NEIGHBOUR_AT_TIMES] = "at times", [NEIGHBOUR_SHARES] = "shares"};
    const struct neighbour *neighbour = &bench->neighbour;
    json_t *of_neighbour = neighbour->sign == NEIGHBOUR_NONE
                               ? json_null()
                               : json_pack("{s:s, s:f, s:f}", "sign", signs[neighbour->sign], "found",
                                           neighbour->found, "possible", neighbour->possible);
    return json_pack("{s:f, s:f, s:s, s:o}", "read_gb_s", bench->read_gb_s, "int8_gmac_s", bench->int8_gmac_s,
                     "int8_unit", kernels_in_use()->int8_unit, "neighbour", of_neighbour);
}

static int print_json(const struct bench *bench)
{
    json_t *prefill = json_array(), *batch = json_array(), *decode = NULL;
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct figure *figure = &bench->figures[i];
        if (figure->kind == FIGURE_DECODE)
            decode = json_pack("{s:i, s:f, s:f}", "n", (int)figure->n, "tok_s", figure->tok_s, "gb_s",
                               decode_gb_s(bench, figure));
        else
            json_array_append_new(figure->kind == FIGURE_PREFILL ? prefill : batch,
                                  json_pack("{s:i, s:f}", "n", (int)figure->n, "tok_s", figure->tok_s));
    }
    json_t *object = json_pack("{s:s, s:i, s:o, s:o, s:o, s:o}", "model", bench->info.name, "threads",
                               bench->info.n_threads, "machine", pack_machine(bench), "prefill", prefill,
                               "decode", decode, "batch", batch);
    if (object && bench->device_gb_s > 0)
        json_object_set_new(
            object, "device",
            json_pack("{s:s, s:f}", "computes", bench->device, "read_gb_s", bench->device_gb_s));
    if (object && *bench->info.threads_why)
        json_object_set_new(object, "threads_why", json_string(bench->info.threads_why));
    if (!object) {
        fprintf(stderr, "runnel: no memory for the report\n");
        return EXIT_FAILED;
    }
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
    return EXIT_DONE;
}

/* The command --------------------------------------------------------------------------------------------- */

static int list_figures(struct bench *bench, runnel_error *error)
{
    const struct bench_settings *settings = bench->settings;
    bench->figures = calloc(settings->prefill.n + settings->batch.n + 1, sizeof *bench->figures);
    if (!bench->figures) {
        snprintf(error->message, sizeof error->message, "no memory for the figures");
        return RUNNEL_ENOMEM;
    }
    for (size_t i = 0; i < settings->prefill.n; i++)
        bench->figures[bench->n_figures++] =
            (struct figure){.kind = FIGURE_PREFILL, .n = (uint32_t)settings->prefill.values[i]};
    bench->figures[bench->n_figures++] =
        (struct figure){.kind = FIGURE_DECODE, .n = (uint32_t)settings->n_tokens};
    for (size_t i = 0; i < settings->batch.n; i++)
        bench->figures[bench->n_figures++] =
            (struct figure){.kind = FIGURE_BATCH, .n = (uint32_t)settings->batch.values[i]};
    return RUNNEL_OK;
}

/* What the longest prompt, and the stream, want. */
static uint32_t longest_context(const struct bench *bench)
{
    uint32_t n_context = 0;
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct figure *figure = &bench->figures[i];
        uint32_t n = figure->n + 1;
        if (figure->kind == FIGURE_DECODE)
            n += decode_prompt(bench);
        if (figure->kind != FIGURE_BATCH && n > n_context)
            n_context = n;
    }
    return n_context;
}

/* An engine with room for the longest prompt, and no more. */
static int start_engine(struct bench *bench, runnel_error *error)
{
    static const struct field_name names[] = {{"n_context", "the context that -p, -n and --depth want"},
                                              {NULL, NULL}};
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.no_drafts = true; /* what a token takes, whatever the text */
    options.n_context = longest_context(bench);
    int failure = cli_start_engine(bench->model, &options, &bench->engine, error);
    if (failure)
        error_name_options(names, error);
    return failure;
}

/* An engine with room for the largest batch, and no more. Its steps have time for many prompts beside those that decode
 * already, so that all soon decode together, however slow the machine is. On a device, which has no room for the model twice, it is the engine
 * of all figures. */
static int start_batch_engine(struct bench *bench, runnel_error *error)
{
    bool serves_all = cli_wants_device(&bench->settings->device);
    const struct field_name names[] = {
        {"n_context", serves_all ? "the context that -p, -n, --depth and --shared want"
                                 : "the context that -n and --shared want"},
        {"n_parallel", "--batch"},
        {NULL, NULL}};
    uint32_t n_tokens = (uint32_t)bench->settings->n_tokens, n_shared = (uint32_t)bench->settings->n_shared;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.step_budget_ms = BATCH_STEP_MS;
    options.no_drafts = true;
    for (size_t i = 0; i < bench->n_figures; i++)
        if (bench->figures[i].kind == FIGURE_BATCH && bench->figures[i].n > options.n_parallel)
            options.n_parallel = bench->figures[i].n;
    /* What a sequence of a batch has of its own, rounded up to pages. */
    uint32_t n_sequence = BATCH_PROMPT + n_tokens + 1 + head_start(options.n_parallel) + KV_PAGE;
    options.n_context = n_shared + n_sequence;
    options.n_kv_tokens = options.n_parallel * n_sequence;
    if (n_shared) /* twice and a margin: a sequence is let in where its whole prompt has room */
        options.n_kv_tokens += 2 * n_shared + options.n_parallel * SHARED_MARGIN;
    if (serves_all && options.n_context < longest_context(bench))
        options.n_context = longest_context(bench);
    if (options.n_kv_tokens < options.n_context)
        options.n_kv_tokens = options.n_context;
    int failure = cli_start_engine(bench->model, &options, &bench->batch_engine, error);
    if (failure)
        error_name_options(names, error);
    else if (serves_all)
        bench->engine = bench->batch_engine;
    return failure;
}

static int run(const struct bench_settings *settings)
{
    runnel_error error;
    struct bench bench = {.settings = settings, .info.size = sizeof bench.info};
    int failure = cli_open_model_on(&settings->device, settings->model, settings->n_threads, NULL, NULL,
                                    &bench.model, &error);
    if (failure)
        return cli_fail(&error);
    if (!settings->json) /* --json is for programs */
        cli_tell_threads(settings->n_threads);
    runnel_model_get_info(bench.model, &bench.info);
    failure = list_figures(&bench, &error);
    if (!failure && !cli_wants_device(&settings->device))
        failure = start_engine(&bench, &error);
    if (!failure)
        failure = start_batch_engine(&bench, &error);
    if (!failure)
        failure = measure_all(&bench, &error);
    int status = EXIT_DONE;
    if (failure)
        status = cli_fail(&error);
    else if (settings->json)
        status = print_json(&bench);
    else
        print_text(&bench);
    free(bench.figures);
    if (bench.engine != bench.batch_engine)
        cli_stop_engine(bench.engine);
    cli_stop_engine(bench.batch_engine);
    runnel_model_close(bench.model);
    return status;
}

int command_bench(int argc, char **argv)
{
    struct bench_settings settings;
    int status = cli_read_options(&bench_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(&settings);
    free(settings.config_text);
    return status;
}
