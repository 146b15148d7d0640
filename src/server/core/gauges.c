/* gauges.c: what a worker is doing now, and what all of them do together. See gauges.h. */
#include "server/core/gauges.h"

#include "base/clock.h"
#include "base/pool.h"
#include "server/core/server.h"

#include <event2/event.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { SECOND_MS = 1000, HURRY_MS = 100 };

/* This worker ------------------------------------------------------------------------------------------- */

void gauges_refresh(struct server *server)
{
    monitor_read_memory(&server->monitor);
    server->gauges.n_descriptors = descriptors_count(&server->monitor.descriptors);
}

static void look_at_engine(const struct server *server, struct shared_gauges *now)
{
    runnel_stats_values stats = {.size = sizeof stats};
    if (!server->engine)
        return;
    runnel_stats(server->engine, &stats);
    now->has_engine = 1;
    now->n_steps = stats.n_steps;
    now->n_engine_running = stats.n_running;
    now->n_engine_waiting = stats.n_waiting;
    now->n_kv_pages = stats.n_kv_pages;
    now->n_kv_used = stats.n_kv_used;
    now->n_kv_cached = stats.n_kv_cached;
    now->n_kv_bytes = stats.n_kv_bytes;
    now->n_slots = server->options->n_parallel;
    now->has_gpu = stats.n_device_bytes > 0;
    now->gpu_memory_percent = server->monitor.gpu_percent;
}

static void look_at_pool(struct pool *pool, struct shared_gauges *now)
{
    struct pool_stats stats;
    pool_get_stats(pool, &stats);
    now->pool_held_bytes = stats.held_bytes;
    now->pool_peak_held_bytes = stats.peak_held_bytes;
    now->pool_limit_bytes = stats.limit_bytes;
    now->pool_in_use_bytes = stats.in_use_bytes;
    now->n_pool_blocks = stats.n_in_use;
}

static void look_at_monitor(const struct monitor *monitor, struct shared_gauges *now)
{
    now->n_running = monitor->n_running;
    now->is_wedged = monitor->wedged;
    now->step_ms = monitor->n_running ? monitor->step_ms : now->beat_ms;
    now->breaker_by_memory = monitor->breaker.by_memory;
    now->breaker_by_timeouts = monitor->breaker.by_timeouts;
    now->memory_percent = monitor->memory.percent;
    now->memory_used_bytes = monitor->memory.used_bytes;
    now->memory_limit_bytes = monitor->memory.limit_bytes;
    now->virtual_bytes = monitor->memory.virtual_bytes;
    now->resident_bytes = monitor->memory.resident_bytes;
    now->ready_bytes = monitor->ready_bytes;
}

static struct shared_gauges look(const struct server *server)
{
    struct loop_stats loop = loop_stats(server->loop);
    struct shared_gauges now = {
        .beat_ms = clock_ms(),
        .n_taken = server->admit.n_taken,
        .n_preparing = server->n_preparing,
        .n_connections = loop.n_connections,
        .n_exchanges = loop.n_exchanges,
        .n_descriptors = server->gauges.n_descriptors,
    };
    look_at_engine(server, &now);
    look_at_pool(server->pool, &now);
    look_at_monitor(&server->monitor, &now);
    return now;
}

/* This worker's slots as they are now. Returns how many. */
static size_t look_at_slots(const struct server *server, struct shared_slot now[SHARED_SLOTS_MAX])
{
    runnel_slot slots[SHARED_SLOTS_MAX] = {{.size = sizeof *slots}};
    size_t n =
        server->options->n_parallel < SHARED_SLOTS_MAX ? server->options->n_parallel : SHARED_SLOTS_MAX;
    if (!server->engine)
        return 0;
    runnel_slots(server->engine, slots, n);
    for (size_t i = 0; i < n; i++)
        now[i] = (struct shared_slot){
            .is_processing = slots[i].is_processing,
            .n_prompt_tokens = slots[i].n_prompt_tokens,
            .n_cached_tokens = slots[i].n_cached_tokens,
            .n_computed = slots[i].n_computed,
            .n_tokens = slots[i].n_tokens,
            .max_tokens = slots[i].max_tokens,
        };
    return n;
}

/* Telling ------------------------------------------------------------------------------------------------- */

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

static void tell_totals(struct server *server)
{
    uint64_t totals[SHARED_TOTALS] = {0};
    runnel_stats_values engine = {.size = sizeof engine};
    struct loop_stats loop = loop_stats(server->loop);
    struct pool_stats pool;
    struct rusage usage = {0};
    if (server->engine)
        runnel_stats(server->engine, &engine);
    pool_get_stats(server->pool, &pool);
    getrusage(RUSAGE_SELF, &usage);
    totals[SHARED_PREFIX_QUERIES] = engine.n_prefix_queries;
    totals[SHARED_PREFIX_HITS] = engine.n_prefix_hits;
    totals[SHARED_PROMPT_TOKENS] = engine.n_prompt_tokens;
    totals[SHARED_GENERATED_TOKENS] = engine.n_generated_tokens;
    totals[SHARED_STEPS] = engine.n_steps;
    totals[SHARED_PREEMPTIONS] = engine.n_preemptions;
    totals[SHARED_DRAFTS] = engine.n_drafts;
    totals[SHARED_DRAFT_TOKENS] = engine.n_draft_tokens;
    totals[SHARED_DRAFT_ACCEPTED] = engine.n_draft_accepted;
    totals[SHARED_CONNECTIONS_ACCEPTED] = loop.n_accepted;
    totals[SHARED_CLIENTS_LEFT] = loop.n_left;
    totals[SHARED_SLOW_READERS] = loop.n_slow_readers;
    totals[SHARED_POOL_ALLOCATIONS] = pool.n_allocations;
    totals[SHARED_POOL_REUSES] = pool.n_reuses;
    totals[SHARED_POOL_REFUSALS] = pool.n_refusals;
    totals[SHARED_LOG_LINES_LOST] = server->log->n_lost;
    totals[SHARED_USER_US] = microseconds(usage.ru_utime);
    totals[SHARED_SYSTEM_US] = microseconds(usage.ru_stime);
    shared_tell_totals(&server->worker, totals);
}

static void tell_slots(struct server *server)
{
    struct shared_slot slots[SHARED_SLOTS_MAX];
    size_t n = look_at_slots(server, slots);
    shared_tell_slots(&server->worker, slots, n);
}

void gauges_tell(struct server *server)
{
    struct shared_gauges now = look(server);
    tell_slots(server); /* before the gauges: who reads there that one runs finds it in a slot */
    shared_tell_gauges(&server->worker, &now);
    tell_totals(server);
}

static bool has_company(const struct server *server)
{
    return shared_n_workers(server->worker.shared) > 1;
}

static void arm(struct server *server, bool hurries)
{
    long ms = hurries ? HURRY_MS : SECOND_MS;
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    server->gauges.hurries = hurries;
    event_add(server->gauges.timer, &time);
}

void gauges_changed(struct server *server)
{
    if (!server->gauges.timer || !has_company(server))
        return;
    gauges_tell(server);
    if (!server->gauges.hurries)
        arm(server, true);
}

static void on_timer(evutil_socket_t descriptor, short what, void *user)
{
    struct server *server = user;
    bool in_company = has_company(server);
    (void)descriptor;
    (void)what;
    if (in_company && !server->gauges.hurries)
        server->gauges.n_descriptors = descriptors_count(&server->monitor.descriptors);
    inbox_look(server);
    gauges_tell(server);
    arm(server, in_company && server->monitor.n_running > 0);
}

int gauges_start(struct server *server, runnel_error *error)
{
    server->gauges.timer = event_new(loop_base(server->loop), -1, 0, on_timer, server);
    if (!server->gauges.timer)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a timer");
    gauges_tell(server);
    arm(server, false);
    return RUNNEL_OK;
}

void gauges_stop(struct server *server)
{
    if (!server->gauges.timer)
        return;
    gauges_tell(server);
    event_free(server->gauges.timer);
    server->gauges.timer = NULL;
}

/* All workers --------------------------------------------------------------------------------------------- */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static uint64_t larger_number(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_up(struct shared_gauges *sum, const struct shared_gauges *one)
{
    sum->n_steps += one->n_steps;
    sum->n_running += one->n_running;
    sum->is_wedged += one->is_wedged;
    sum->n_taken += one->n_taken;
    sum->n_slots += one->n_slots;
    sum->n_preparing += one->n_preparing;
    sum->n_engine_running += one->n_engine_running;
    sum->n_engine_waiting += one->n_engine_waiting;
    sum->n_kv_pages += one->n_kv_pages;
    sum->n_kv_used += one->n_kv_used;
    sum->n_kv_cached += one->n_kv_cached;
    sum->has_engine += one->has_engine;
    sum->n_kv_bytes += one->n_kv_bytes;
    sum->n_connections += one->n_connections;
    sum->n_exchanges += one->n_exchanges;
    sum->pool_held_bytes += one->pool_held_bytes;
    sum->pool_peak_held_bytes += one->pool_peak_held_bytes;
    sum->pool_limit_bytes += one->pool_limit_bytes;
    sum->pool_in_use_bytes += one->pool_in_use_bytes;
    sum->n_pool_blocks += one->n_pool_blocks;
    sum->virtual_bytes += one->virtual_bytes;
    sum->resident_bytes += one->resident_bytes;
    sum->ready_bytes += one->ready_bytes ? one->ready_bytes : one->resident_bytes; /* it has not grown yet */
    sum->n_descriptors += one->n_descriptors;
    sum->breaker_by_memory = (uint32_t)larger_number(sum->breaker_by_memory, one->breaker_by_memory);
    sum->breaker_by_timeouts = (uint32_t)larger_number(sum->breaker_by_timeouts, one->breaker_by_timeouts);
    sum->memory_percent = larger(sum->memory_percent, one->memory_percent);
    sum->has_gpu += one->has_gpu;
    sum->gpu_memory_percent = larger(sum->gpu_memory_percent, one->gpu_memory_percent);
    sum->memory_used_bytes = larger_number(sum->memory_used_bytes, one->memory_used_bytes);
    sum->memory_limit_bytes = larger_number(sum->memory_limit_bytes, one->memory_limit_bytes);
}

static bool is_another(const struct server *server, unsigned number)
{
    return number != server->worker.number && shared_state(server->worker.shared, number) != SHARED_NOBODY;
}

void gauges_sum(struct server *server, struct shared_gauges *sum)
{
    struct shared_gauges one = look(server);
    *sum = (struct shared_gauges){0};
    add_up(sum, &one);
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++)
        if (is_another(server, i)) {
            shared_read_gauges(server->worker.shared, i, &one);
            add_up(sum, &one);
        }
}

size_t gauges_slots(struct server *server, struct shared_slot **out)
{
    struct shared_slot *slots = NULL;
    size_t n = 0;
    *out = NULL;
    tell_slots(server);
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++) {
        if (i != server->worker.number && !is_another(server, i))
            continue;
        struct shared_slot *longer = realloc(slots, (n + SHARED_SLOTS_MAX) * sizeof *slots);
        if (!longer) {
            free(slots);
            return 0;
        }
        slots = longer;
        n += shared_read_slots(server->worker.shared, i, slots + n);
    }
    *out = slots;
    return n;
}

size_t gauges_first_slot(const struct server *server)
{
    size_t n = 0;
    for (unsigned i = 0; i < server->worker.number; i++) {
        struct shared_gauges gauges = {0};
        if (is_another(server, i))
            shared_read_gauges(server->worker.shared, i, &gauges);
        n += gauges.n_slots;
    }
    return n;
}
