/* health.c: whether this server can be asked. See health.h. */
#include "server/health.h"

#include "server/core/server.h"

#include <stdio.h>
#include <string.h>

/* Why it is degraded, and what follows, for people. */
static void describe_degraded(const struct server *server, char *message, size_t size)
{
    const struct monitor *monitor = &server->monitor;
    const struct breaker *breaker = &monitor->breaker;
    const char *why = breaker->by_memory && breaker->by_timeouts
                          ? "memory is nearly full, and requests ran out of time one after the other"
                      : breaker->by_memory ? "memory is nearly full"
                                           : "requests ran out of time one after the other";
    if (breaker_level(breaker) == BREAKER_REFUSING)
        snprintf(message, size, "%s: new requests are refused until the server has recovered", why);
    else
        snprintf(message, size,
                 "%s: answers get at most %d tokens and a temperature of at most %g until the server has "
                 "recovered",
                 why, monitor->options->degraded_max_tokens, (double)monitor->options->degraded_temperature);
}

/* Nothing here waits for the engine: the monitor has looked at it before. */
static int describe(struct server *server, char *body, size_t size)
{
    const struct breaker *breaker = &server->monitor.breaker;
    char message[256];
    if (loop_is_draining(server->loop)) {
        snprintf(body, size, "{\"status\":\"draining\"}\n");
        return 503;
    }
    if (!server->engine) {
        snprintf(body, size, "{\"status\":\"loading model\"}\n");
        return 503;
    }
    if (server->monitor.wedged) {
        snprintf(body, size,
                 "{\"status\":\"wedged\",\"message\":\"the engine does no steps, and requests wait\"}\n");
        return 503;
    }
    enum breaker_level level = breaker_level(breaker);
    if (!level) {
        snprintf(body, size, "{\"status\":\"ok\"}\n");
        return 200;
    }
    describe_degraded(server, message, sizeof message);
    snprintf(body, size,
             "{\"status\":\"degraded\",\"reason\":\"%s\",\"message\":\"%s\",\"refusing\":%s,\"memory_"
             "percent\":%.1f}\n",
             breaker_reason(breaker), message, level == BREAKER_REFUSING ? "true" : "false",
             server->monitor.memory.percent);
    return 200;
}

void health_get(struct server *server, struct exchange *exchange)
{
    char body[512];
    int status = describe(server, body, sizeof body);
    metrics_add_status(server->metrics, status);
    exchange_respond(exchange, status, "application/json", server->engine ? NULL : "Retry-After: 1\r\n", body,
                     strlen(body));
}
