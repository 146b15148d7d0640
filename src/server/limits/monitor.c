/* monitor.c: see monitor.h. */
#include "server/limits/monitor.h"

#include "base/clock.h"
#include "server/limits/shared.h"

#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

/* The log ------------------------------------------------------------------------------------------------- */

static const char *level_text(enum breaker_level level)
{
    switch (level) {
    case BREAKER_DEGRADED:
        return "The server is degraded";
    case BREAKER_REFUSING:
        return "The server refuses new requests";
    default:
        return "The server is no longer degraded";
    }
}

static void tell_level(struct monitor *monitor)
{
    enum breaker_level level = breaker_level(&monitor->breaker);
    if (level == monitor->told)
        return;
    monitor->told = level;
    if (level == BREAKER_DEGRADED)
        log_say(monitor->log, "breaker",
                "%s: answers get at most %d tokens and a temperature of at most %g until it has recovered "
                "(%s; memory at %.0f %%)",
                level_text(level), monitor->options->degraded_max_tokens,
                (double)monitor->options->degraded_temperature, breaker_reason(&monitor->breaker),
                monitor->memory.percent);
    else if (level)
        log_say(monitor->log, "breaker", "%s (%s; memory at %.0f %%)", level_text(level),
                breaker_reason(&monitor->breaker), monitor->memory.percent);
    else
        log_say(monitor->log, "breaker", "%s", level_text(level));
}

/* Watching ------------------------------------------------------------------------------------------------ */

void monitor_read_memory(struct monitor *monitor)
{
    monitor->memory = memory_read(&monitor->memory_files, monitor->options->memory_limit_bytes);
}

static void watch_memory(struct monitor *monitor, double now_ms)
{
    monitor_read_memory(monitor);
    if (!monitor->ready_bytes)
        return;
    breaker_see_memory(&monitor->breaker, BREAKER_MAIN_MEMORY, monitor->memory.percent, now_ms);
    if (monitor->breaker.memories[BREAKER_MAIN_MEMORY].level) { /* what is idle goes back to the system */
        runnel_grammars_forget(monitor->model);
        malloc_trim(0);
    }
}

/* The engine counts its steps; a request that runs or waits means that there is one to do. What counts is since when this
 * thread has seen none, not how long ago the last one was: that may have been before the request came. */
static void watch_engine(struct monitor *monitor, double now_ms)
{
    runnel_stats_values stats = {.size = sizeof stats};
    if (monitor->engine)
        runnel_stats(monitor->engine, &stats);
    if (!monitor->n_running || stats.n_steps != monitor->n_steps) {
        monitor->n_steps = stats.n_steps;
        monitor->step_ms = now_ms;
    }
    bool wedged = now_ms - monitor->step_ms > monitor->options->wedged_ms;
    if (wedged != monitor->wedged)
        log_say(monitor->log, "engine",
                wedged ? "The engine has done no step for %.0f s, and requests wait"
                       : "The engine does steps again",
                (now_ms - monitor->step_ms) / 1e3);
    monitor->wedged = wedged;
}

/* Of the engine's GPU; 0: there is none, or its memory is not known. */
static double gpu_percent(const runnel_stats_values *stats)
{
    return stats->n_device_bytes ? 100 * (double)stats->n_device_bytes_used / (double)stats->n_device_bytes
                                 : 0;
}

/* A GPU that is lost stays lost for this process. */
static void watch_device(struct monitor *monitor, double now_ms)
{
    runnel_stats_values stats = {.size = sizeof stats};
    if (!monitor->engine || monitor->lost)
        return;
    runnel_stats(monitor->engine, &stats);
    monitor->gpu_percent = gpu_percent(&stats);
    breaker_see_memory(&monitor->breaker, BREAKER_GPU_MEMORY, monitor->gpu_percent, now_ms);
    if (!stats.device_is_lost)
        return;
    monitor->lost = true;
    log_say(monitor->log, "device", "%s answers no more: this process ends", stats.device);
    if (monitor->on_lost)
        monitor->on_lost(monitor->user);
}

static void on_second(evutil_socket_t descriptor, short what, void *user)
{
    struct monitor *monitor = user;
    double now_ms = clock_ms();
    (void)descriptor;
    (void)what;
    watch_memory(monitor, now_ms);
    watch_engine(monitor, now_ms);
    watch_device(monitor, now_ms);
    tell_level(monitor);
}

int monitor_start(struct monitor *monitor, const struct monitor_options *options,
                  struct shared_counters *counters, struct event_base *base, struct log *log,
                  runnel_error *error)
{
    static const struct timeval second = {.tv_sec = 1};
    *monitor = (struct monitor){.options = options, .log = log, .step_ms = clock_ms()};
    breaker_init(&monitor->breaker, &options->breaker, counters);
    memory_open(&monitor->memory_files);
    descriptors_open(&monitor->descriptors);
    monitor->is_open = true;
    monitor_read_memory(monitor);
    monitor->timer = event_new(base, -1, EV_PERSIST, on_second, monitor);
    if (!monitor->timer || event_add(monitor->timer, &second))
        return error_set(error, RUNNEL_ENOMEM, "no memory for a timer");
    return RUNNEL_OK;
}

void monitor_on_lost(struct monitor *monitor, void (*on_lost)(void *user), void *user)
{
    monitor->on_lost = on_lost;
    monitor->user = user;
}

void monitor_set_options(struct monitor *monitor)
{
    breaker_set_limits(&monitor->breaker, &monitor->options->breaker);
}

void monitor_stop(struct monitor *monitor)
{
    if (monitor->timer)
        event_free(monitor->timer);
    monitor->timer = NULL;
    if (monitor->is_open) {
        descriptors_close(&monitor->descriptors);
        memory_close(&monitor->memory_files);
    }
    monitor->is_open = false;
}

/* The mark was raised, as so much is used before the first request: says past what answers become shorter. */
static void tell_raised_mark(const struct monitor *monitor)
{
    const struct memory_reading *memory = &monitor->memory;
    unsigned long long used_mib = memory->used_bytes >> 20, limit_mib = memory->limit_bytes >> 20;
    const char *whose =
        monitor->options->memory_limit_bytes ? "this process (--memory-limit-mib)" : "the system";
    if (memory->used_bytes >= memory->limit_bytes)
        log_say(monitor->log, "memory",
                "%llu MiB are used already, before the first request, and the limit of %s is %llu MiB: such "
                "a limit "
                "changes nothing, memory neither shortens answers nor refuses requests",
                used_mib, whose, limit_mib);
    else
        log_say(
            monitor->log, "memory",
            "%.0f %% of the memory is used already, before the first request (%llu MiB; the limit of %s is "
            "%llu MiB): answers become shorter (the server is degraded) only past %.1f %%, not past %.0f %%",
            memory->percent, used_mib, whose, limit_mib, monitor->breaker.memories[BREAKER_MAIN_MEMORY].mark,
            monitor->options->breaker.memory_percent);
}

void monitor_ready(struct monitor *monitor, const runnel_model *model, runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    monitor->model = model;
    monitor->engine = engine;
    monitor_read_memory(monitor);
    memory_expect(&monitor->memory, stats.n_kv_bytes_to_touch); /* it will not be growth */
    monitor->ready_bytes = monitor->memory.resident_bytes;
    monitor->step_ms = clock_ms();
    monitor->gpu_percent = gpu_percent(&stats);
    breaker_ready(&monitor->breaker, BREAKER_MAIN_MEMORY, monitor->memory.percent);
    breaker_ready(&monitor->breaker, BREAKER_GPU_MEMORY, monitor->gpu_percent);
    if (monitor->breaker.memories[BREAKER_MAIN_MEMORY].mark != monitor->options->breaker.memory_percent)
        tell_raised_mark(monitor);
}

/* Requests ------------------------------------------------------------------------------------------------ */

struct breaker_verdict monitor_admit(struct monitor *monitor)
{
    struct breaker_verdict verdict = breaker_admit(&monitor->breaker, clock_ms());
    monitor->n_running += verdict.level != BREAKER_REFUSING;
    return verdict;
}

void monitor_end(struct monitor *monitor, const struct breaker_verdict *verdict, enum breaker_outcome outcome)
{
    monitor->n_running--;
    breaker_end(&monitor->breaker, verdict, outcome, clock_ms());
    tell_level(monitor);
}

const char *monitor_refusal(const struct monitor *monitor)
{
    const struct breaker *breaker = &monitor->breaker;
    if (breaker->by_memory == BREAKER_REFUSING)
        return "the server is nearly out of memory and takes no new requests for the moment: try again soon";
    return "too many requests in a row ran out of time: the server takes no new ones for the moment: try "
           "again soon";
}

void monitor_add_headers(const struct monitor *monitor, struct exchange *exchange)
{
    const struct breaker *breaker = &monitor->breaker;
    char line[64];
    snprintf(line, sizeof line, "X-Runnel-Degraded: %s\r\n", breaker_reason(breaker));
    exchange_add_header(exchange, line);
    exchange_set_retry(exchange, breaker_retry_after_s(breaker, clock_ms()));
}

bool monitor_refuses(struct monitor *monitor)
{
    bool refuses = breaker_would_refuse(&monitor->breaker, clock_ms());
    shared_add(&monitor->breaker.counters->n_refused, refuses);
    return refuses;
}
