/* test_stalls.c: what counts as waiting for others' prompts (stall_ms of a response). On a tiny model. */
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

/* Two answers on their way, looked at and put back on the engine's thread. */
struct pair {
    runnel_future *stream, *other;
    uint32_t n_drawn; /* of the other one, when it was put back */
    bool put_back, again;
    double stall_ms; /* of the stream, since then */
};

/* Puts the other one back once it has some tokens, and not so many that it lacks one row alone afterwards: whole pages
 * stay in the cache. */
static void put_back(struct runnel_engine *engine, void *arg)
{
    struct pair *pair = arg;
    struct scheduler_entry *entry = &pair->other->entry;
    uint32_t n_over = entry->n_tokens % KV_PAGE;
    if (entry->n_drawn < 3 || !pair->stream->entry.n_drawn || n_over < 8 || n_over > 24)
        return;
    assert_ptr_equal(scheduler_preempt(engine->scheduler), entry);
    kvcache_close(engine->cache, pair->other->sequence);
    pair->other->sequence = -1;
    pair->n_drawn = entry->n_drawn;
    pair->stream->stall_ms = 0;
    pair->put_back = true;
}

static void look_again(struct runnel_engine *engine, void *arg)
{
    (void)engine;
    struct pair *pair = arg;
    pair->again = pair->other->entry.n_drawn > pair->n_drawn;
    pair->stall_ms = pair->stream->stall_ms;
}

/* Calls until it is so, 30 s at most. */
static void call_until(runnel_engine *engine, void (*run)(struct runnel_engine *engine, void *arg),
                       struct pair *pair, const bool *flag)
{
    for (int i = 0; !*flag; i++) {
        if (i == 30000)
            fail_msg("it did not happen within 30 s");
        assert_int_equal(engine_call(engine, run, pair, NULL), RUNNEL_OK);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void rows_that_are_computed_again_stall_others(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    runnel_model *model = tiny_engine_open(&options);
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 4096, .n_parallel = 2});
    static int32_t ids[2][40];
    runnel_request requests[2];
    runnel_future *futures[2];
    for (int i = 0; i < 2; i++) {
        runnel_request_init(&requests[i]);
        for (int j = 0; j < 40; j++)
            ids[i][j] = (j * 31 + i * 101) % TINY_MODEL_TOKENS;
        requests[i].prompt_ids = ids[i];
        requests[i].n_prompt_ids = 40;
        requests[i].ignore_eos = true;
    }
    assert_int_equal(runnel_submit(engine, requests, 2, futures, NULL), RUNNEL_OK);
    struct pair pair = {.stream = futures[0], .other = futures[1]};
    call_until(engine, put_back, &pair, &pair.put_back);
    call_until(engine, look_again, &pair, &pair.again);
    assert_true(pair.stall_ms > 0);
    for (int i = 0; i < 2; i++) {
        runnel_cancel(futures[i]);
        runnel_wait(futures[i], NULL, NULL);
        runnel_free(futures[i]);
    }
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_are_computed_again_stall_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
