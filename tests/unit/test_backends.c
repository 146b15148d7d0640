/* test_backends.c: the engine over a back end that is none of ours, and layers cut into ranges.
 *
 * The fake below has no weights: a page's "keys and values" are the tokens that were computed there, and the next token
 * follows from all tokens that the page table leads to. It notes every call that is not as backend.h has it, and fails when
 * asked to. So answers are right only if tables, copies and commits are. */
#include "backend/cpu.h"
#include "engine/engine.h"
#include "engine/sampler.h" /* for its random numbers */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* The fake ------------------------------------------------------------------------------------------------ */

enum call { NO_CALL, OPEN, BEGIN, BEGIN_LOGITS, WAIT, N_CALLS };

/* What the fake was asked; written by whoever calls it, read by the test while no request runs. */
static struct {
    unsigned n[N_CALLS], n_closed;
    unsigned n_several;       /* steps with rows of several sequences */
    uint32_t n_first, n_most; /* rows of the first step, and of the largest one */
    struct backend_preference likes;
    unsigned ms_per_row;  /* what a step shall take */
    enum call failing;    /* fails, */
    unsigned fails_after; /* ... once so many of it have succeeded; then it works again */
    const char *wrong;    /* the first call that was not as agreed */
} journal;

static void start_journal(enum call failing, unsigned fails_after)
{
    memset(&journal, 0, sizeof journal);
    journal.failing = failing;
    journal.fails_after = fails_after;
    journal.likes = (struct backend_preference){.n_rows_together = 8, .n_rows_prompt = 64};
}

static void agreed(bool is_so, const char *what)
{
    if (!is_so && !journal.wrong)
        journal.wrong = what;
}

/* RUNNEL_OK, or a failure if this is the call that shall fail. */
static int note(enum call call, runnel_error *error)
{
    if (journal.failing == call && journal.n[call] == journal.fails_after) {
        journal.failing = NO_CALL;
        return error_set(error, RUNNEL_EIO, "the card has fallen out of its slot");
    }
    journal.n[call]++;
    return RUNNEL_OK;
}

struct fake {
    struct backend backend;
    struct backend_options options;
    int32_t (*pages)[KV_PAGE]; /* [n_pages]: tokens */
    struct backend_step step;  /* n_rows 0: none runs */
    uint64_t *kept;            /* [n_rows_max]: what follows from the rows that want logits */
    uint32_t n_kept, first, n_logits;
    float *logits; /* [n_logits_max, n_vocab] */
};

static const struct backend_kind fake_backend;

static size_t fake_page_bytes(const struct weights *weights, uint32_t first_layer, uint32_t end_layer)
{
    agreed(first_layer == 0 && end_layer == weights->config.n_layers, "page_bytes of some layers");
    return KV_PAGE * sizeof(int32_t);
}

static void fake_close(struct backend *backend)
{
    struct fake *fake = (struct fake *)backend;
    if (!fake)
        return;
    agreed(fake->step.n_rows == 0, "closed while a step runs");
    journal.n_closed++;
    free(fake->pages);
    free(fake->kept);
    free(fake->logits);
    free(fake);
}

static void fake_foresee(const struct backend_options *options, struct backend_memory *memory)
{
    *memory = (struct backend_memory){.kv_bytes = options->n_pages * sizeof(int32_t[KV_PAGE])};
}

static int fake_open(const struct backend_options *options, struct backend **backend, runnel_error *error)
{
    int failure = note(OPEN, error);
    if (failure)
        return failure;
    agreed(options->first_layer == 0 && options->end_layer == options->weights->config.n_layers,
           "opened for some layers");
    struct fake *fake = calloc(1, sizeof *fake);
    if (!fake)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a fake");
    fake->backend.kind = &fake_backend;
    fake->options = *options;
    fake->pages = calloc(options->n_pages, sizeof *fake->pages);
    fake->kept = calloc(options->n_rows_max, sizeof *fake->kept);
    fake->logits =
        calloc((size_t)options->n_logits_max * options->weights->config.n_vocab, sizeof *fake->logits);
    *backend = &fake->backend;
    return RUNNEL_OK;
}

static void check_row(const struct fake *fake, uint32_t i)
{
    const struct backend_row *row = &fake->step.rows[i];
    agreed(row->token >= 0 && (uint32_t)row->token < fake->options.weights->config.n_vocab,
           "a token without an embedding");
    agreed(row->pages[row->position / KV_PAGE] < fake->options.n_pages, "a row without a page of its own");
    if (i > 0 && row[-1].pages == row->pages)
        agreed(row->position == row[-1].position + 1, "rows of a sequence that do not ascend");
    for (uint32_t j = 0; i > 0 && row[-1].pages != row->pages && j < i; j++)
        agreed(fake->step.rows[j].pages != row->pages, "rows of a sequence that stand apart");
}

static int fake_begin(struct backend *backend, const struct backend_step *step, runnel_error *error)
{
    struct fake *fake = (struct fake *)backend;
    int failure = note(BEGIN, error);
    if (failure)
        return failure;
    agreed(fake->step.n_rows == 0, "a step begun while another one runs");
    agreed(step->n_rows > 0 && step->n_rows <= fake->options.n_rows_max, "a step of too few or many rows");
    fake->step = *step;
    for (uint32_t i = 0; i < step->n_copies; i++)
        memcpy(fake->pages[step->copies[i].to], fake->pages[step->copies[i].from], sizeof *fake->pages);
    bool several = false;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        check_row(fake, i);
        several = several || step->rows[i].pages != step->rows[0].pages;
    }
    journal.n_several += several;
    journal.n_first = journal.n_first ? journal.n_first : step->n_rows;
    journal.n_most = step->n_rows > journal.n_most ? step->n_rows : journal.n_most;
    return RUNNEL_OK;
}

static int fake_begin_logits(struct backend *backend, uint32_t first, uint32_t n, runnel_error *error)
{
    struct fake *fake = (struct fake *)backend;
    int failure = note(BEGIN_LOGITS, error);
    if (failure)
        return failure;
    agreed(n > 0 && n <= fake->options.n_logits_max, "too few or many logits");
    fake->first = first;
    fake->n_logits = n;
    return RUNNEL_OK;
}

static uint64_t follow(uint64_t state, int32_t token)
{
    return sampler_random(state, (uint64_t)token + 1);
}

/* What follows from all tokens up to the row's own. */
static uint64_t follow_table(const struct fake *fake, const struct backend_row *row)
{
    uint64_t state = 0;
    for (uint32_t position = 0; position <= row->position; position++)
        state = follow(state, fake->pages[row->pages[position / KV_PAGE]][position % KV_PAGE]);
    return state;
}

static void compute(struct fake *fake)
{
    uint64_t ms = (uint64_t)fake->step.n_rows * journal.ms_per_row;
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * 1000000)},
              NULL);
    fake->n_kept = 0;
    for (uint32_t i = 0; i < fake->step.n_rows; i++) {
        const struct backend_row *row = &fake->step.rows[i];
        fake->pages[row->pages[row->position / KV_PAGE]][row->position % KV_PAGE] = row->token;
        if (row->wants_logits)
            fake->kept[fake->n_kept++] = follow_table(fake, row);
    }
}

static int fake_wait(struct backend *backend, float **logits, runnel_error *error)
{
    struct fake *fake = (struct fake *)backend;
    int failure = note(WAIT, error);
    uint32_t n_vocab = fake->options.weights->config.n_vocab, n_logits = failure ? 0 : fake->n_logits;
    if (!failure && fake->step.n_rows)
        compute(fake);
    fake->step.n_rows = fake->n_logits = 0;
    agreed(fake->first + n_logits <= fake->n_kept || !n_logits, "logits of rows that were not kept");
    for (uint32_t i = 0; i < n_logits; i++) {
        float *row = fake->logits + (size_t)i * n_vocab;
        for (uint32_t j = 0; j < n_vocab; j++)
            row[j] = 0;
        row[fake->kept[fake->first + i] % TINY_MODEL_TOKENS] = 1;
    }
    if (n_logits)
        *logits = fake->logits;
    return failure;
}

static void fake_get_memory(const struct backend *backend, struct backend_memory *memory)
{
    const struct fake *fake = (const struct fake *)backend;
    *memory = (struct backend_memory){.kv_bytes = fake->options.n_pages * sizeof *fake->pages};
}

static void fake_get_preference(const struct backend *backend, struct backend_preference *preference)
{
    (void)backend;
    *preference = journal.likes;
}

static const struct backend_kind fake_backend = {
    .page_bytes = fake_page_bytes,
    .foresee = fake_foresee,
    .open = fake_open,
    .close = fake_close,
    .begin = fake_begin,
    .begin_logits = fake_begin_logits,
    .wait = fake_wait,
    .get_memory = fake_get_memory,
    .get_preference = fake_get_preference,
};

/* The engine over it -------------------------------------------------------------------------------------- */

enum { N_REQUESTS = 4, N_PROMPT = 70, N_TOKENS = 200, N_CONTEXT = 300 };

static runnel_model *open_fake_model(void)
{
    struct tiny_model_options options = tiny_engine_model();
    runnel_model *model = tiny_engine_open(&options);
    model->backend = &fake_backend;
    return model;
}

/* A request and the tokens that it was told. */
struct asked {
    int32_t prompt[N_PROMPT], told[N_TOKENS];
    size_t n_told;
};

static bool on_event(void *user, const runnel_event *event)
{
    struct asked *asked = user;
    if (event->kind == RUNNEL_EVENT_TOKEN && asked->n_told < N_TOKENS)
        asked->told[asked->n_told++] = event->logprobs[0].token;
    return true;
}

/* The first n_alike tokens of all prompts are the same. */
static runnel_request ask(const runnel_model *model, struct asked *asked, int32_t index, int32_t n_alike)
{
    runnel_request request;
    runnel_request_init(&request);
    asked->n_told = 0;
    for (int32_t i = 0; i < N_PROMPT; i++)
        asked->prompt[i] = (i * 7 + (i < n_alike ? 0 : index + 1)) % TINY_MODEL_TOKENS;
    request.prompt_ids = asked->prompt;
    request.n_prompt_ids = N_PROMPT;
    request.max_tokens = N_TOKENS;
    request.ignore_eos = true;
    request.wants_tokens = true;
    own_sampling(model, &request)->temperature = 0;
    own_sampling(model, &request)->repetition_penalty = 1;
    request.on_event = on_event;
    request.user = asked;
    return request;
}

static void check_told(const struct asked *asked)
{
    uint64_t state = 0;
    for (int i = 0; i < N_PROMPT; i++)
        state = follow(state, asked->prompt[i]);
    assert_int_equal(asked->n_told, N_TOKENS);
    for (int i = 0; i < N_TOKENS; i++) {
        assert_int_equal(asked->told[i], state % TINY_MODEL_TOKENS);
        state = follow(state, asked->told[i]);
    }
}

static void check_journal(void)
{
    if (journal.wrong)
        fail_msg("%s", journal.wrong);
}

static void answer_together(uint32_t n_kv_tokens, int32_t n_alike, uint32_t *n_preempted)
{
    runnel_model *model = open_fake_model();
    start_journal(NO_CALL, 0);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = N_CONTEXT,
                                                                             .n_batch = 48,
                                                                             .n_parallel = N_REQUESTS,
                                                                             .n_kv_tokens = n_kv_tokens});
    struct asked asked[N_REQUESTS];
    runnel_request requests[N_REQUESTS];
    runnel_response responses[N_REQUESTS] = {{.size = sizeof *responses}};
    runnel_error error;
    *n_preempted = 0;
    for (int round = 0; round < 2; round++) { /* the second time with what the cache has */
        for (int i = 0; i < N_REQUESTS; i++)
            requests[i] = ask(model, &asked[i], i, n_alike);
        if (runnel_respond_many(engine, requests, N_REQUESTS, responses, &error))
            fail_msg("%s", error.message);
        for (int i = 0; i < N_REQUESTS; i++) {
            check_told(&asked[i]);
            *n_preempted += responses[i].n_preempted;
            runnel_response_free(&responses[i]);
        }
    }
    runnel_engine_stop(engine);
    runnel_model_close(model);
    assert_int_equal(journal.n[OPEN], 1);
    assert_int_equal(journal.n_closed, 1);
    assert_int_equal(journal.n[BEGIN], journal.n[WAIT]);
    assert_true(journal.n[BEGIN] > N_TOKENS && journal.n[BEGIN_LOGITS] <= journal.n[BEGIN]);
    assert_true(journal.n_several > N_TOKENS / 2);
    check_journal();
}

static void the_engine_cannot_tell(void **state)
{
    (void)state;
    uint32_t n_preempted;
    answer_together(0, 0, &n_preempted);
    assert_int_equal(n_preempted, 0);
    answer_together(0, 50, &n_preempted);
    answer_together(400, 0, &n_preempted); /* pages run out */
    assert_true(n_preempted > 0);
}

/* Rows of the largest step of a prompt, where each row takes 10 ms and the budget is 200 ms: 20 rows or, up to 320 ms, as many
 * as are liked. */
static uint32_t most_rows(uint32_t n_rows_liked)
{
    runnel_model *model = open_fake_model();
    start_journal(NO_CALL, 0);
    journal.likes = (struct backend_preference){.n_rows_together = 4, .n_rows_prompt = n_rows_liked};
    journal.ms_per_row = 10;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = N_CONTEXT, .step_budget_ms = 50});
    journal.n_most = 0;
    struct asked asked;
    runnel_request request = ask(model, &asked, 0, 0);
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    request.max_tokens = 1;
    if (runnel_respond(engine, &request, &response, &error))
        fail_msg("%s", error.message);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    check_journal();
    return journal.n_most;
}

/* The warm-up is a step as the back end likes it, where that is a long one. */
static void the_first_step_is_as_long_as_is_liked(void **state)
{
    (void)state;
    runnel_model *model = open_fake_model();
    for (uint32_t liked = 128; liked <= 256; liked += 128) {
        start_journal(NO_CALL, 0);
        journal.likes.n_rows_prompt = liked;
        runnel_engine_stop(tiny_engine_start(model, (runnel_engine_options){.n_context = N_CONTEXT}));
        assert_int_equal(journal.n_first, liked);
        check_journal();
    }
    runnel_model_close(model);
}

/* The engine knows of it from the back end. On a machine that is too busy for a sleep of 240 ms to take less than 320, a step
 * has fewer rows: then it is tried again. */
static void steps_have_the_rows_that_are_liked(void **state)
{
    (void)state;
    static const uint32_t liked[] = {12, 24, 28};
    static const uint32_t expected[] = {20, 24, 28};
    for (size_t i = 0; i < sizeof liked / sizeof *liked; i++) {
        uint32_t n_most = 0;
        for (int turn = 0; turn < 10 && n_most != expected[i]; turn++) {
            n_most = most_rows(liked[i]);
            assert_in_range(n_most, 1, expected[i]);
        }
        assert_int_equal(n_most, expected[i]);
    }
}

/* A back end that does not open, or does not compute, is told at the start. */
static void failures_at_the_start_are_told(void **state)
{
    (void)state;
    static const struct {
        enum call call;
        unsigned after;
    } cases[] = {{OPEN, 0},         {BEGIN, 0}, {BEGIN, 1}, {BEGIN_LOGITS, 0},
                 {BEGIN_LOGITS, 1}, {WAIT, 0},  {WAIT, 1}};
    runnel_model *model = open_fake_model();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start_journal(cases[i].call, cases[i].after);
        runnel_engine *engine = NULL;
        runnel_error error;
        assert_int_equal(runnel_engine_start(model, NULL, &engine, &error), RUNNEL_EIO);
        assert_string_equal(error.message, "the card has fallen out of its slot");
        assert_null(engine);
        assert_int_equal(journal.n_closed, journal.n[OPEN]);
        check_journal();
    }
    runnel_model_close(model);
}

/* A step that fails ends the requests that had rows in it, with its message; those that come later are answered. */
static void failed_steps_are_answers(void **state)
{
    (void)state;
    static const enum call calls[] = {BEGIN, BEGIN_LOGITS, WAIT};
    runnel_model *model = open_fake_model();
    for (size_t c = 0; c < 3; c++)
        for (unsigned after = 0; after < 60; after += 13) {
            start_journal(NO_CALL, 0);
            runnel_engine *engine = tiny_engine_start(
                model, (runnel_engine_options){.n_context = N_CONTEXT, .n_batch = 48, .n_parallel = 2});
            struct asked asked[2];
            runnel_request requests[2] = {ask(model, &asked[0], 0, 50), ask(model, &asked[1], 1, 50)};
            runnel_response response = {.size = sizeof response};
            runnel_future *futures[2];
            runnel_error error;
            start_journal(calls[c], after);
            assert_int_equal(runnel_submit(engine, requests, 2, futures, &error), RUNNEL_OK);
            unsigned n_failed = 0;
            for (int i = 0; i < 2; i++) {
                int failure = runnel_wait(futures[i], &response, &error);
                n_failed += failure != RUNNEL_OK;
                if (failure) {
                    assert_int_equal(failure, RUNNEL_EIO);
                    assert_non_null(strstr(error.message, "the card has fallen out of its slot"));
                } else {
                    check_told(&asked[i]);
                    runnel_response_free(&response);
                }
                runnel_free(futures[i]);
            }
            assert_true(n_failed > 0);
            assert_int_equal(journal.failing, NO_CALL);

            requests[0] = ask(model, &asked[0], 0, 50);
            if (runnel_respond(engine, &requests[0], &response, &error))
                fail_msg("%s", error.message);
            check_told(&asked[0]);
            runnel_response_free(&response);
            tiny_engine_wait_until_idle(engine);
            runnel_engine_stop(engine);
            check_journal();
        }
    runnel_model_close(model);
}

static bool ignore_logits(void *user, size_t index, const float *logits)
{
    (void)user;
    (void)index;
    (void)logits;
    return true;
}

static void failed_logits_are_told(void **state)
{
    (void)state;
    static const enum call calls[] = {BEGIN, BEGIN_LOGITS, WAIT};
    runnel_model *model = open_fake_model();
    start_journal(NO_CALL, 0);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = N_CONTEXT});
    const int32_t ids[40] = {1, 2, 3};
    runnel_error error;
    for (size_t c = 0; c < 3; c++)
        for (unsigned after = 0; after < 3; after++) {
            start_journal(calls[c], after);
            assert_int_equal(runnel_logits_each(engine, ids, 40, 10, ignore_logits, NULL, &error),
                             RUNNEL_EIO);
            assert_string_equal(error.message, "the card has fallen out of its slot");
            assert_int_equal(runnel_logits_each(engine, ids, 40, 10, ignore_logits, NULL, &error), RUNNEL_OK);
            check_journal();
        }
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

/* Ranges of layers ---------------------------------------------------------------------------------------- */

enum { N_LAYERS = 5, N_POSITIONS = 300, N_SHARED = 70, N_CHUNK = 37 };

/* What was told of the inputs of products: FNV-1a over the rows' numbers and values, in their order. */
struct heard {
    size_t n;
    uint64_t hash;
};

static void hear_inputs(void *user, const struct backend_inputs *inputs)
{
    struct heard *heard = user;
    const unsigned char *bytes = (const unsigned char *)inputs->values;
    heard->n++;
    heard->hash = (heard->hash ^ inputs->row) * 0x100000001b3u;
    for (size_t i = 0; i < inputs->matrices[0]->n_columns * sizeof(float); i++)
        heard->hash = (heard->hash ^ bytes[i]) * 0x100000001b3u;
}

/* The logits of three sequences after all positions: the second one shares N_SHARED of the first and goes on otherwise; the third
 * one has the same tokens and shares nothing. */
static float *logits_of_parts(const runnel_model *model, const struct forward_part *parts, size_t n_parts,
                              size_t *n_bytes, struct heard *heard)
{
    enum { N_PAGES = 40 };
    uint32_t n_vocab = model->weights->config.n_vocab, n_kept;
    struct team *team;
    struct kvcache *cache;
    struct forward *forward;
    runnel_error error;
    const struct kvcache_options options = {.n_pages = N_PAGES, .n_sequences = 3, .n_positions = N_POSITIONS};
    assert_int_equal(team_create(2, &team, &error), RUNNEL_OK);
    assert_int_equal(kvcache_create(&options, &cache, &error), RUNNEL_OK);
    const struct forward_options forward_options = {
        .parts = parts,
        .n_parts = n_parts,
        .weights = model->weights,
        .kernels = model->kernels,
        .team = team,
        .cache = cache,
        .n_pages = N_PAGES,
        .n_rows_max = N_CHUNK,
        .n_logits_max = N_CHUNK,
    };
    assert_int_equal(forward_create(&forward_options, &forward, &error), RUNNEL_OK);
    *heard = (struct heard){.hash = 0xcbf29ce484222325u};
    forward_tell_inputs(forward, hear_inputs, heard);
    struct backend_memory memory;
    forward_get_memory(forward, &memory);
    assert_int_equal(memory.kv_bytes, N_PAGES * forward_page_bytes(parts, n_parts, model->weights));

    *n_bytes = 3 * (size_t)N_POSITIONS * n_vocab * sizeof(float);
    float *all = calloc(1, *n_bytes), *logits;
    assert_non_null(all);
    for (uint32_t s = 0; s < 3; s++) {
        int sequence = kvcache_open(cache, 0, 0, 0);
        uint32_t position = s == 1 ? N_SHARED : 0;
        if (s == 1)
            kvcache_share(cache, 0, sequence, N_SHARED);
        while (position < N_POSITIONS) {
            struct forward_row rows[N_CHUNK];
            int32_t tokens[N_CHUNK];
            uint32_t n = N_POSITIONS - position < N_CHUNK ? N_POSITIONS - position : N_CHUNK;
            for (uint32_t i = 0; i < n; i++) {
                bool differs = s > 0 && position + i >= N_SHARED;
                tokens[i] = (int32_t)(((position + i) * 37 + differs) % TINY_MODEL_TOKENS);
                rows[i] = (struct forward_row){sequence, position + i, tokens[i], true};
            }
            assert_int_equal(kvcache_reserve(cache, sequence, n), RUNNEL_OK);
            assert_int_equal(forward_begin(forward, rows, n, &n_kept, &error), RUNNEL_OK);
            forward_begin_logits(forward, 0, n);
            assert_int_equal(forward_wait(forward, &logits, &error), RUNNEL_OK);
            assert_int_equal(n_kept, n);
            kvcache_commit(cache, sequence, tokens, n);
            memcpy(all + ((size_t)s * N_POSITIONS + position) * n_vocab, logits,
                   (size_t)n * n_vocab * sizeof *logits);
            position += n;
        }
    }
    forward_free(forward);
    kvcache_free(cache);
    team_free(team);
    return all;
}

/* A shared page is copied once, before it is written: neither of its sequences sees the other one. */
static void check_copies(const runnel_model *model, const float *logits)
{
    size_t n_vocab = model->weights->config.n_vocab, n_of_one = N_POSITIONS * n_vocab;
    assert_memory_equal(logits + n_of_one + N_SHARED * n_vocab, logits + 2 * n_of_one + N_SHARED * n_vocab,
                        (N_POSITIONS - N_SHARED) * n_vocab * sizeof *logits);
}

/* Wherever the layers are cut, the logits are the same bits, and so are the inputs that are told. */
static void check_ranges(const runnel_model *model)
{
    static const struct {
        size_t n;
        struct forward_part parts[N_LAYERS];
    } cuts[] = {
        {1, {{&cpu_backend, 5}}},
        {2, {{&cpu_backend, 1}, {&cpu_backend, 5}}},
        {3, {{&cpu_backend, 2}, {&cpu_backend, 4}, {&cpu_backend, 5}}},
        {5, {{&cpu_backend, 1}, {&cpu_backend, 2}, {&cpu_backend, 3}, {&cpu_backend, 4}, {&cpu_backend, 5}}},
    };
    size_t n_bytes;
    struct heard heard, expected_inputs;
    float *expected = logits_of_parts(model, cuts[0].parts, cuts[0].n, &n_bytes, &expected_inputs);
    assert_int_equal(expected_inputs.n, (3 * N_POSITIONS - N_SHARED) * (4 * N_LAYERS + 1));
    check_copies(model, expected);
    for (size_t i = 1; i < sizeof cuts / sizeof *cuts; i++) {
        float *logits = logits_of_parts(model, cuts[i].parts, cuts[i].n, &n_bytes, &heard);
        assert_memory_equal(logits, expected, n_bytes);
        assert_true(heard.n == expected_inputs.n && heard.hash == expected_inputs.hash);
        free(logits);
    }
    free(expected);
}

static void ranges_change_no_bit(void **state)
{
    (void)state;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_layers = N_LAYERS;
    options.k_bias = 64.5f; /* about where keys in 16 bits become too coarse: layers differ */
    runnel_model *model = tiny_engine_open(&options);
    unsigned n_k_f32 = 0;
    for (int i = 0; i < N_LAYERS; i++)
        n_k_f32 += model->weights->kv_shapes[i].k_f32;
    assert_in_range(n_k_f32, 1, N_LAYERS - 1);
    check_ranges(model);
    runnel_model_close(model);
}

static void add_period(struct gguf_writer *writer, void *user)
{
    (void)user;
    gguf_writer_add_u32(writer, "gemma3.attention.sliding_window_pattern", 3);
}

/* Which layers have a window is counted from the model's first one; embeddings are scaled once. */
static void ranges_of_layers_with_windows_change_no_bit(void **state)
{
    (void)state;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.architecture = "gemma3";
    options.biases = false;
    options.n_layers = N_LAYERS;
    options.window = 60;
    options.add_keys = add_period;
    runnel_model *model = tiny_engine_open(&options);
    check_ranges(model);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_engine_cannot_tell),
        cmocka_unit_test(failures_at_the_start_are_told),
        cmocka_unit_test(failed_steps_are_answers),
        cmocka_unit_test(failed_logits_are_told),
        cmocka_unit_test(ranges_change_no_bit),
        cmocka_unit_test(ranges_of_layers_with_windows_change_no_bit),
        cmocka_unit_test(the_first_step_is_as_long_as_is_liked),
        cmocka_unit_test(steps_have_the_rows_that_are_liked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
