/* health.c: whether this server can be asked. See health.h. */
#include "server/health.h"

#include "server/core/server.h"

#include <stdio.h>
#include <string.h>

/* Nothing here waits for the engine: the monitor has looked at it before. */
static int describe(struct server *server, char *body, size_t size)
{
    const struct breaker *breaker = &server->monitor.breaker;
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
    if (level)
        snprintf(body, size,
                 "{\"status\":\"degraded\",\"reason\":\"%s\",\"refusing\":%s,\"memory_percent\":%.1f}\n",
                 breaker_reason(breaker), level == BREAKER_REFUSING ? "true" : "false",
                 server->monitor.memory.percent);
    else
        snprintf(body, size, "{\"status\":\"ok\"}\n");
    return 200;
}

void health_get(struct server *server, struct exchange *exchange)
{
    char body[256];
    int status = describe(server, body, sizeof body);
    metrics_add_status(server->metrics, status);
    exchange_respond(exchange, status, "application/json", server->engine ? NULL : "Retry-After: 1\r\n", body,
                     strlen(body));
}
