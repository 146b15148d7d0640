/* health.c: whether this server can be asked, whichever of its workers is. See health.h. */
#include "server/health.h"

#include "server/core/server.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What the workers that answer say of themselves: this one as it is now, others as they told last. */
struct look {
    unsigned n_ready, n_wedged;
    enum breaker_level by_memory, by_timeouts; /* of the worst */
    double memory_percent;                     /* likewise */
};

static enum breaker_level worse(enum breaker_level level, uint32_t other)
{
    return other > level ? (enum breaker_level)other : level;
}

static void look_at_others(const struct server *server, struct look *look)
{
    struct shared_gauges gauges;
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++) {
        if (i == server->worker.number || shared_state(server->worker.shared, i) != SHARED_READY)
            continue;
        shared_read_gauges(server->worker.shared, i, &gauges);
        look->n_ready++;
        look->n_wedged += gauges.is_wedged;
        look->by_memory = worse(look->by_memory, gauges.breaker_by_memory);
        look->by_timeouts = worse(look->by_timeouts, gauges.breaker_by_timeouts);
        look->memory_percent = fmax(look->memory_percent, gauges.memory_percent);
    }
}

static struct look look_at_all(const struct server *server)
{
    const struct monitor *monitor = &server->monitor;
    bool is_ready = server->engine && !loop_is_draining(server->loop);
    struct look look = {
        .n_ready = is_ready,
        .n_wedged = is_ready && monitor->wedged,
        .by_memory = monitor->breaker.by_memory,
        .by_timeouts = monitor->breaker.by_timeouts,
        .memory_percent = monitor->memory.percent,
    };
    look_at_others(server, &look);
    return look;
}

/* Why it is degraded, and what follows, for people. */
static void describe_degraded(const struct server *server, const struct look *look, bool refuses,
                              char *message, size_t size)
{
    const struct monitor_options *options = server->monitor.options;
    const char *why = look->by_memory && look->by_timeouts
                          ? "memory is nearly full, and requests ran out of time one after the other"
                      : look->by_memory ? "memory is nearly full"
                                        : "requests ran out of time one after the other";
    if (refuses)
        snprintf(message, size, "%s: new requests are refused until the server has recovered", why);
    else
        snprintf(message, size,
                 "%s: answers get at most %d tokens and a temperature of at most %g until the server has "
                 "recovered",
                 why, options->degraded_max_tokens, (double)options->degraded_temperature);
}

/* Nothing here waits for the engine: the monitor has looked at it before. */
static int describe(const struct server *server, const struct look *look, char *body, size_t size)
{
    const struct breaker worst = {.by_memory = look->by_memory, .by_timeouts = look->by_timeouts};
    enum breaker_level level = breaker_level(&worst);
    const char *reason = breaker_reason(&worst);
    char message[256];
    if (!look->n_ready) {
        bool is_draining = loop_is_draining(server->loop);
        snprintf(body, size, "{\"status\":\"%s\"}\n", is_draining ? "draining" : "loading model");
        return 503;
    }
    if (look->n_wedged == look->n_ready) {
        snprintf(body, size,
                 "{\"status\":\"wedged\",\"message\":\"the engine does no steps, and requests wait\"}\n");
        return 503;
    }
    if (!level && !look->n_wedged) {
        snprintf(body, size, "{\"status\":\"ok\"}\n");
        return 200;
    }
    if (level) {
        describe_degraded(server, look, level == BREAKER_REFUSING, message, sizeof message);
    } else {
        reason = "workers";
        snprintf(message, sizeof message, "%u of %u workers do no steps, and requests wait there",
                 look->n_wedged, look->n_ready);
    }
    snprintf(body, size,
             "{\"status\":\"degraded\",\"reason\":\"%s\",\"message\":\"%s\",\"refusing\":%s,\"memory_"
             "percent\":%.1f}\n",
             reason, message, level == BREAKER_REFUSING ? "true" : "false", look->memory_percent);
    return 200;
}

void health_get(struct server *server, struct exchange *exchange)
{
    char body[512];
    const struct look look = look_at_all(server);
    int status = describe(server, &look, body, sizeof body);
    bool is_loading = !server->engine && !look.n_ready;
    metrics_add_answer(server->metrics, METRICS_HEALTH, status);
    exchange_respond(exchange, status, "application/json", is_loading ? "Retry-After: 1\r\n" : NULL, body,
                     strlen(body));
}
