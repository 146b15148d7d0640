/* thread_trial.c: see thread_trial.h. Runs on the thread that opens a model, and on a team's; owns nothing beyond a call.
 *
 * The work that is timed is a model's own: the products of its layers, one after the other, with a barrier after each, for one row as
 * when one stream decodes and for some as in a batch. */
#include "engine/thread_trial.h"

#include "base/clock.h"
#include "kernels/act.h"

#include <stdlib.h>

enum {
    WORTH_BYTES = 32 << 20, /* that a token reads */
    LOOK_MS = 20,           /* some turns of the system's scheduler */
    BUSY_MS = 60,           /* of each number of threads, BUSY_ROUNDS times in turn */
    BUSY_ROUNDS = 2,
    BUSY_PAUSE_MS = 250,   /* before it is measured again whether fewer are faster */
    QUOTA_PERIOD_MS = 100, /* the usual one: after it the quota is whole again */
    QUOTA_MS = 3 * QUOTA_PERIOD_MS,
    ROWS = 8, /* of a batch */
    TILE_GRAIN = 4,
};

/* Does every thread get its CPU? ------------------------------------------------------------------------------ */

struct look {
    const struct kernels *kernels;
    struct thread_share *shares; /* of the members */
};

static double thread_cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void look_work(void *arg, unsigned member)
{
    struct look *look = arg;
    struct thread_share share = {0};
    double start_ms = clock_ms(), start_cpu_ms = thread_cpu_ms();
    do {
        share.work += (double)look->kernels->int8_peak();
        share.wall_ms = clock_ms() - start_ms;
    } while (share.wall_ms < LOOK_MS);
    share.cpu_ms = thread_cpu_ms() - start_cpu_ms;
    look->shares[member] = share;
}

/* The trial --------------------------------------------------------------------------------------------------- */

struct trial {
    const struct kernels *kernels;
    const struct weights *weights;
    struct team *team;
    void *acts[ACT_KINDS]; /* ROWS rows of the widest matrix; NULL where no matrix wants such */
    float *out;
    uint32_t layer; /* whose turn it is */
};

struct sizes {
    uint32_t n_columns, n_rows; /* the most of a layer's matrices */
};

static struct sizes widest(const struct model_config *config)
{
    uint32_t n_q = config->n_heads * config->head_dim;
    uint32_t n = config->n_hidden > config->n_ffn ? config->n_hidden : config->n_ffn;
    n = n > n_q ? n : n_q;
    return (struct sizes){(n + ACT_BLOCK - 1) / ACT_BLOCK * ACT_BLOCK, n};
}

static void trial_free(struct trial *trial)
{
    for (int kind = 0; kind < ACT_KINDS; kind++)
        free(trial->acts[kind]);
    free(trial->out);
}

/* Rows of made-up values: what they are does not change how long a product takes. Rows of narrower matrices begin at other blocks of the
 * same memory. */
static int trial_create(struct trial *trial, runnel_error *error)
{
    const struct sizes sizes = widest(&trial->weights->config);
    uint32_t n = ROWS * sizes.n_columns, state = 1;
    float *x = malloc(n * sizeof *x);
    trial->out = malloc((size_t)ROWS * sizes.n_rows * sizeof *trial->out);
    bool done = x && trial->out;
    for (uint32_t i = 0; done && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / (float)(1 << 23) - 1;
    }
    for (int kind = 0; kind < ACT_KINDS && done; kind++) {
        if (!trial->weights->acts[kind])
            continue;
        trial->acts[kind] = aligned_alloc(64, act_bytes((enum act_kind)kind, 1, n));
        done = trial->acts[kind] != NULL;
        if (done)
            act_quantize(trial->kernels, (enum act_kind)kind, trial->acts[kind], n, 0, 0, x, n);
    }
    free(x);
    return done ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory to measure threads");
}

static void multiply(const struct trial *trial, unsigned member, const struct packed_matrix *matrix,
                     uint32_t n_rows)
{
    const struct matmul_args args =
        act_product(matrix, trial->acts[act_kind_of(matrix->kind)], n_rows, trial->out);
    struct team_loop loop = {.n = matrix->n_tiles, .grain = TILE_GRAIN};
    while (team_next(trial->team, member, &loop))
        trial->kernels->matmul[matrix->kind](&args, loop.begin, loop.end);
    team_barrier(trial->team);
}

static void layer_work(void *arg, unsigned member)
{
    const struct trial *trial = arg;
    const struct layer_weights *layer = &trial->weights->layers[trial->layer];
    const struct packed_matrix *const matrices[] = {
        &layer->q, &layer->k, &layer->v, &layer->attn_output, &layer->gate, &layer->up, &layer->down};
    for (uint32_t n_rows = 1; n_rows <= ROWS; n_rows += ROWS - 1)
        for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
            multiply(trial, member, matrices[i], n_rows);
}

/* Layers a millisecond. */
static double run_layers(struct trial *trial, struct team *team, double ms)
{
    trial->team = team;
    double n_layers = 0, passed_ms, start_ms = clock_ms();
    do {
        team_run(team, layer_work, trial);
        trial->layer = (trial->layer + 1) % trial->weights->config.n_layers;
        n_layers++;
        passed_ms = clock_ms() - start_ms;
    } while (passed_ms < ms);
    return n_layers / passed_ms;
}

static void pause_ms(int ms)
{
    const struct timespec time = {.tv_nsec = ms * 1000000L};
    nanosleep(&time, NULL);
}

int thread_trial_measure(const struct kernels *kernels, const struct weights *weights, struct team *team,
                         enum thread_cause cause, double quota, struct thread_choice *choice,
                         runnel_error *error)
{
    struct trial trial = {.kernels = kernels, .weights = weights};
    struct team *fewer = NULL;
    unsigned n_all = team_size(team);
    int failure = trial_create(&trial, error);
    if (!failure)
        failure = team_create(n_all - 1, &fewer, error);
    if (!failure) {
        double of_fewer = 0, of_all = 0;
        if (cause == THREADS_QUOTA) { /* fewer first: they leave the quota as it was */
            pause_ms(QUOTA_PERIOD_MS);
            of_fewer = run_layers(&trial, fewer, QUOTA_MS);
            of_all = run_layers(&trial, team, QUOTA_MS);
        } else {
            for (int round = 0; round < BUSY_ROUNDS; round++) {
                of_fewer += run_layers(&trial, fewer, BUSY_MS);
                of_all += run_layers(&trial, team, BUSY_MS);
            }
        }
        *choice = thread_choice_take(cause, quota, n_all, of_all, of_fewer);
    }
    team_free(fewer);
    trial_free(&trial);
    return failure;
}

int thread_trial_choose(const struct kernels *kernels, const struct weights *weights, struct team *team,
                        double quota, struct thread_choice *choice, runnel_error *error)
{
    unsigned n = team_size(team);
    *choice = (struct thread_choice){.cause = THREADS_PLAIN, .n_threads = n};
    if (n < 2 || weights->bytes_per_token < WORTH_BYTES)
        return RUNNEL_OK;
    enum thread_cause cause = thread_choice_cause(n, quota, NULL);
    if (cause == THREADS_PLAIN) {
        struct look look = {.kernels = kernels, .shares = calloc(n, sizeof *look.shares)};
        if (!look.shares)
            return error_set(error, RUNNEL_ENOMEM, "no memory to measure %u threads", n);
        team_run(team, look_work, &look);
        cause = thread_choice_cause(n, quota, look.shares);
        free(look.shares);
    }
    if (cause == THREADS_PLAIN)
        return RUNNEL_OK;
    int failure = thread_trial_measure(kernels, weights, team, cause, quota, choice, error);
    if (!failure && cause == THREADS_BUSY_CPU && choice->n_threads < n) {
        /* The choice stays as long as the model is open: it must not be a moment's, so what is found again stands. */
        pause_ms(BUSY_PAUSE_MS);
        failure = thread_trial_measure(kernels, weights, team, cause, quota, choice, error);
    }
    return failure;
}
