/* test_shared_plans.c: the scheduler's part of computing once what prompts share (test_shared_prompts.c has the engine's):
 * on a machine that is made up, in virtual time, with prompts that end, are put back or lose their pages at any moment. */
#include "engine/kvcache.h" /* for the size of a page */
#include "engine/scheduler.h"
#include "helpers/chance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TEXTS = 4, REQUESTS_MAX = 800 };

/* A request whose prompt begins with n_common tokens of a text that others have too. */
struct simulated {
    struct scheduler_entry entry; /* first: an entry is its request */
    uint32_t text, n_common, n_answer;
    struct scheduler_forecast forecast;
    double first_ms, done_ms; /* negative: not yet */
    uint32_t n_rows;          /* of the prompt, and of what was computed again */
};

struct world {
    struct scheduler *scheduler;
    struct simulated *requests;
    uint32_t n_requests, n_arrived; /* in the order of their arrival */
    uint32_t n_cached[TEXTS];       /* positions of a text that are in the cache */
    double now_ms;
    uint64_t n_rows;
};

static double cost_ms(uint32_t n_rows)
{
    return fmax(36, 3.4 * n_rows);
}

static void open_world(struct world *world, const struct scheduler_options *options)
{
    *world = (struct world){.requests = calloc(REQUESTS_MAX, sizeof *world->requests)};
    assert_non_null(world->requests);
    assert_int_equal(scheduler_create(options, &world->scheduler, NULL), RUNNEL_OK);
    for (int i = 0; i < 4; i++) {
        scheduler_learn(world->scheduler, 1, 1, cost_ms(1));
        scheduler_learn(world->scheduler, 64, step_cost_pairs(0, 64), cost_ms(64));
    }
}

static void close_world(struct world *world)
{
    scheduler_free(world->scheduler);
    free(world->requests);
}

static struct simulated *add(struct world *world, double arrival_ms, uint32_t text, uint32_t n_common,
                             uint32_t n_prompt, uint32_t n_answer)
{
    assert_true(world->n_requests < REQUESTS_MAX);
    struct simulated *request = &world->requests[world->n_requests++];
    *request = (struct simulated){
        .entry = {.key = text, .n_prompt = n_prompt, .max_tokens = n_answer, .arrival_ms = arrival_ms},
        .text = text,
        .n_common = n_common,
        .n_answer = n_answer,
        .first_ms = -1,
        .done_ms = -1,
    };
    return request;
}

static uint32_t whole_pages(uint32_t n)
{
    return n / KV_PAGE * KV_PAGE;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What the cache has of a prompt. */
static uint32_t match(const struct world *world, const struct simulated *request)
{
    uint32_t n = least(world->n_cached[request->text], whole_pages(request->n_common));
    return least(n, whole_pages(request->entry.n_tokens - 1));
}

static void arrive(struct world *world)
{
    while (world->n_arrived < world->n_requests &&
           world->requests[world->n_arrived].entry.arrival_ms <= world->now_ms) {
        struct simulated *request = &world->requests[world->n_arrived];
        request->entry.n_tokens = request->entry.n_prompt;
        request->entry.n_cached_likely = match(world, request);
        request->entry.prefix_group = 1 + request->text;
        request->entry.n_common = request->n_common;
        assert_int_equal(scheduler_add(world->scheduler, &request->entry, world->now_ms, &request->forecast),
                         SCHEDULER_ACCEPTED);
        world->n_arrived++;
    }
}

/* As engine_share_pages. */
static void share(struct world *world)
{
    for (uint32_t i = 0; i < world->n_arrived; i++) {
        struct simulated *request = &world->requests[i];
        struct scheduler_entry *entry = &request->entry;
        entry->page_group = 0;
        if (entry->state != SCHEDULER_RUNNING || entry->n_tokens - entry->n_committed < 2)
            continue;
        uint32_t n = match(world, request);
        entry->n_committed = n > entry->n_committed ? n : entry->n_committed;
        uint32_t end = whole_pages(entry->n_committed) + KV_PAGE;
        if (end < entry->n_tokens)
            entry->page_group = end <= request->n_common ? 1 + request->text * 1000 + end / KV_PAGE
                                                         : 5000 + i; /* nobody else's */
    }
}

/* Of a page that several want, one computes rows; and a plan is never empty while somebody has something to do. */
static void check_plan(const struct world *world, const struct scheduler_plan *plan)
{
    const char *wrong = scheduler_check(world->scheduler);
    if (wrong)
        fail_msg("%s", wrong);
    for (uint32_t i = 0; i < plan->n_items; i++)
        for (uint32_t j = 0; j < i; j++)
            if (plan->items[i].entry->page_group &&
                plan->items[i].entry->page_group == plan->items[j].entry->page_group)
                fail_msg("two entries compute page %u in one step", plan->items[i].entry->page_group);
    bool idle = true;
    for (uint32_t i = 0; i < world->n_arrived; i++)
        idle &= world->requests[i].entry.state != SCHEDULER_RUNNING;
    assert_true(plan->n_rows > 0 || idle);
}

static void finish_step(struct world *world, const struct scheduler_plan *plan)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        if (plan->items[i].entry)
            ((struct simulated *)plan->items[i].entry)->n_rows += plan->items[i].n_rows;
        n_rows += plan->items[i].n_rows;
    }
    world->n_rows += n_rows;
    world->now_ms += cost_ms(n_rows);
    scheduler_done(world->scheduler, cost_ms(n_rows));
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct simulated *request = (struct simulated *)plan->items[i].entry;
        if (!request)
            continue;
        uint32_t n = whole_pages(least(request->entry.n_committed, request->n_common));
        if (n > world->n_cached[request->text])
            world->n_cached[request->text] = n;
        if (request->entry.n_committed < request->entry.n_tokens)
            continue;
        if (request->entry.n_drawn == 0)
            request->first_ms = world->now_ms;
        scheduler_drew(world->scheduler, &request->entry);
        if (request->entry.n_drawn == request->n_answer) {
            request->done_ms = world->now_ms;
            scheduler_remove(world->scheduler, &request->entry);
        }
    }
}

/* One step, or the time until the next arrival. False: nothing comes any more. */
static bool step(struct world *world)
{
    arrive(world);
    for (struct scheduler_entry *entry;
         (entry = scheduler_admit(world->scheduler, world->now_ms, UINT64_MAX));)
        entry->n_committed = match(world, (struct simulated *)entry);
    share(world);
    const struct scheduler_plan *plan = scheduler_plan(world->scheduler, world->now_ms);
    check_plan(world, plan);
    if (plan->n_items) {
        finish_step(world, plan);
        return true;
    }
    if (world->n_arrived == world->n_requests)
        return false;
    world->now_ms = world->requests[world->n_arrived].entry.arrival_ms;
    return true;
}

static void run(struct world *world)
{
    while (step(world))
        ;
    for (uint32_t i = 0; i < world->n_requests; i++)
        if (world->requests[i].done_ms < 0)
            fail_msg("request %u of %u was never answered", i, world->n_requests);
}

static void one_of_equals_computes(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 10});
    for (int i = 0; i < 8; i++)
        add(&world, i, 0, 600, 620, 4);
    struct simulated *other = add(&world, 8, 1, 0, 620, 4); /* of another key, with another prompt */
    run(&world);
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < 8; i++)
        n_rows += world.requests[i].n_rows;
    assert_int_equal(n_rows, 576 + 8 * (620 - 576 + 3));
    /* Two keys share: while one prompt of each is computed, nobody has more than half of the machine. */
    assert_true(other->first_ms < 1.25 * (2 * 620 + 7 * (620 - 576)) * 3.4);
    close_world(&world);
}

/* A short prompt comes while a long one with the same beginning is computed: it takes what is there, and goes first. */
static void a_short_prompt_leads_a_long_one(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 2});
    struct simulated *prompt = add(&world, 0, 0, 1000, 3000, 4),
                     *question = add(&world, 1000, 0, 1000, 1020, 4);
    run(&world);
    assert_true(question->first_ms < prompt->first_ms);
    assert_true(question->n_rows < 1020 - 200 &&
                prompt->n_rows < 3000 - 600); /* each computed a part of the common one */
    assert_in_range(world.n_rows, 992 + 28 + 2008 + 6, 992 + 28 + 2008 + 6 + KV_PAGE);
    /* It does not wait for more than the common part. */
    assert_true(question->first_ms - 1000 < 1.2 * 3.4 * (1020 - 224) + 240);
    close_world(&world);
}

/* Prompts with a common beginning come all the time: a long one that came before most of them has its turn. */
static void nobody_starves_beside_prompts_that_share(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 8, .n_requests = 800});
    for (int i = 0; i < 10; i++)
        add(&world, 200 * i, 0, 600, 640, 4);
    struct simulated *prompt = add(&world, 2000, 0, 0, 2000, 4);
    for (int i = 0; i < 700; i++)
        add(&world, 2001 + 200 * i, 0, 600, 640, 4);
    run(&world);
    /* 6.8 s of its own, and of others what arrives in OVERTAKEN times as long, each with 64 rows and a share of the steps. */
    if (prompt->first_ms - 2000 > 100e3) /* they come for 140 s */
        fail_msg("it waited %.0f ms", prompt->first_ms - 2000);
    close_world(&world);
}

static void forecasts_know_what_is_shared(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, &(struct scheduler_options){.n_parallel = 8});
    for (int i = 0; i < 8; i++)
        add(&world, i, 0, 1990, 2000, 20);
    struct simulated *later = add(&world, 3500, 1, 0, 2500, 20); /* when the first one is halfway */
    later->entry.key = 0;
    struct simulated *last = &world.requests[7];
    run(&world);
    double first_ms = last->first_ms - last->entry.arrival_ms;
    if (fabs(last->forecast.first_token_ms - first_ms) > 0.3 * first_ms)
        fail_msg("first token after %.0f ms, predicted %.0f", first_ms, last->forecast.first_token_ms);
    first_ms = later->first_ms - later->entry.arrival_ms;
    if (fabs(later->forecast.first_token_ms - first_ms) > 0.3 * first_ms)
        fail_msg("later one: first token after %.0f ms, predicted %.0f", first_ms,
                 later->forecast.first_token_ms);
    close_world(&world);
}

/* Anything happens to anybody: cancelled, put back, pages lost, rows of a step not computed. All others are answered. */
static void anybody_may_go_at_any_time(void **state)
{
    (void)state;
    uint32_t n_cancelled = 0;
    for (int round = 0; round < 40; round++) {
        struct world world;
        open_world(&world, &(struct scheduler_options){.n_parallel = 2 + chance_below(7),
                                                       .n_batch = 8 + chance_below(200)});
        for (uint32_t i = 0; i < 60; i++) {
            uint32_t n_common = chance_below(500),
                     n_prompt = n_common + 1 + chance_below(chance_below(4) ? 40 : 600);
            add(&world, 40.0 * i, chance_below(TEXTS), n_common, n_prompt, 1 + chance_below(30));
        }
        for (int steps = 0; step(&world); steps++) {
            assert_true(steps < 20000);
            struct simulated *any = &world.requests[chance_below(world.n_requests)];
            if (chance_below(40) == 0 && any->entry.state != SCHEDULER_OUT) {
                scheduler_remove(world.scheduler, &any->entry);
                any->done_ms = world.now_ms;
                n_cancelled++;
            }
            if (steps < 3000 && chance_below(20) == 0)
                scheduler_preempt(world.scheduler);
            if (chance_below(20) == 0) /* evicted; who runs keeps its own */
                world.n_cached[chance_below(TEXTS)] = 0;
        }
        for (uint32_t i = 0; i < world.n_requests; i++)
            assert_true(world.requests[i].done_ms >= 0);
        close_world(&world);
    }
    assert_true(n_cancelled > 40); /* more than one a round, as steps are hundreds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_equals_computes),
        cmocka_unit_test(a_short_prompt_leads_a_long_one),
        cmocka_unit_test(nobody_starves_beside_prompts_that_share),
        cmocka_unit_test(forecasts_know_what_is_shared),
        cmocka_unit_test(anybody_may_go_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
