/* scheduler_world.c: see scheduler_world.h. */
#include "helpers/scheduler_world.h"
#include "helpers/chance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

const struct machine usual_machine = {36, 3.4, 0.5, 0.05};

void world_open(struct world *world, const struct scheduler_options *options)
{
    *world = (struct world){.machine = usual_machine};
    world->requests = calloc(REQUESTS_MAX, sizeof *world->requests);
    assert_non_null(world->requests);
    assert_int_equal(scheduler_create(options, &world->scheduler, NULL), RUNNEL_OK);
    for (int i = 0; i < 4; i++) { /* the warm-up of an engine */
        scheduler_learn(world->scheduler, 1, 1, 36);
        scheduler_learn(world->scheduler, 64, step_cost_pairs(0, 64), 64 * 3.4);
    }
}

void world_close(struct world *world)
{
    scheduler_free(world->scheduler);
    free(world->requests);
}

void world_check(const struct world *world)
{
    const char *wrong = scheduler_check(world->scheduler);
    if (wrong)
        fail_msg("%s", wrong);
}

struct request *world_add(struct world *world, double arrival_ms, uint64_t key, uint32_t n_prompt,
                          uint32_t n_answer)
{
    assert_true(world->n_requests < REQUESTS_MAX);
    uint32_t at = world->n_requests++;
    for (; at > world->n_arrived && world->requests[at - 1].entry.arrival_ms > arrival_ms; at--)
        world->requests[at] = world->requests[at - 1];
    world->requests[at] = (struct request){
        .entry = {.key = key, .n_prompt = n_prompt, .max_tokens = n_answer, .arrival_ms = arrival_ms},
        .n_answer = n_answer,
        .client = -1,
        .first_ms = -1,
        .done_ms = -1,
    };
    return &world->requests[at];
}

void world_arrive(struct world *world)
{
    while (world->n_arrived < world->n_requests &&
           world->requests[world->n_arrived].entry.arrival_ms <= world->now_ms) {
        struct request *request = &world->requests[world->n_arrived++];
        request->answer = scheduler_add(world->scheduler, &request->entry, world->now_ms, &request->forecast);
    }
}

void world_draw(struct world *world, struct request *request)
{
    scheduler_drew(world->scheduler, &request->entry);
    world->n_tokens++;
    if (request->entry.n_drawn == 1)
        request->first_ms = world->now_ms;
    else
        request->gap_ms = fmax(request->gap_ms, world->now_ms - request->last_ms);
    request->last_ms = world->now_ms;
    if (request->entry.n_drawn < request->n_answer)
        return;
    request->done_ms = world->now_ms;
    scheduler_remove(world->scheduler, &request->entry);
    if (request->client >= 0 && world->now_ms < world->until_ms) {
        int client = request->client;
        world_add(world, world->now_ms, request->entry.key, request->entry.n_prompt, request->n_answer)
            ->client = client;
    }
}

bool world_step(struct world *world)
{
    world_arrive(world);
    for (struct scheduler_entry *entry; (entry = scheduler_expired(world->scheduler, world->now_ms));)
        scheduler_remove(world->scheduler, entry);
    for (struct scheduler_entry *entry;
         (entry = scheduler_admit(world->scheduler, world->now_ms, UINT64_MAX));)
        entry->n_committed = entry->n_cached_likely;
    const struct scheduler_plan *plan = scheduler_plan(world->scheduler, world->now_ms);
    world_check(world);
    if (plan->n_items == 0) {
        double next = scheduler_wakeup_ms(world->scheduler, world->now_ms);
        if (world->n_arrived < world->n_requests)
            next = fmin(next, world->requests[world->n_arrived].entry.arrival_ms);
        if (isfinite(next) && next <= world->now_ms)
            fail_msg("no plan, and yet something to do at once");
        world->now_ms = next;
        return isfinite(next);
    }
    double n_pairs = 0;
    for (uint32_t i = 0; i < plan->n_items; i++)
        n_pairs += step_cost_pairs(plan->items[i].entry->n_committed, plan->items[i].n_rows);
    const struct machine *machine = &world->machine;
    double ms = fmax(machine->floor_ms, machine->row_ms * plan->n_rows) + machine->pair_us * n_pairs / 1000;
    ms *= 1 + machine->noise * (2 * chance_uniform() - 1);
    world->now_ms += ms;
    world->busy_ms += ms;
    scheduler_done(world->scheduler, ms);
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct scheduler_entry *entry = plan->items[i].entry;
        if (entry->n_committed == entry->n_tokens)
            world_draw(world, (struct request *)entry);
    }
    world_check(world);
    return true;
}

void world_run(struct world *world)
{
    while (world_step(world))
        ;
}

void world_add_clients(struct world *world, uint32_t n, uint64_t key, uint32_t n_prompt, uint32_t n_answer)
{
    for (uint32_t i = 0; i < n; i++)
        world_add(world, world->now_ms, key, n_prompt, n_answer)->client = (int)i;
}

void world_add_arrivals(struct world *world, double from_ms, double until_ms, double per_second,
                        uint32_t n_prompt, uint32_t n_answer)
{
    for (double t = from_ms; (t -= 1000 / per_second * log(chance_uniform())) < until_ms;)
        world_add(world, t, 0, n_prompt, n_answer);
}

void world_check_done(const struct world *world)
{
    for (uint32_t i = 0; i < world->n_requests; i++)
        if (world->requests[i].done_ms < 0)
            fail_msg("request %u of %u was never answered", i, world->n_requests);
}
