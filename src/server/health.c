/* health.c: whether this server can be asked. See health.h. */
#include "server/health.h"

#include "server/server.h"

#include <string.h>

void health_get(struct server *server, struct exchange *exchange)
{
    const char *body = "{\"status\":\"ok\"}\n", *headers = NULL;
    int status = 200;
    if (loop_is_draining(server->loop)) {
        body = "{\"status\":\"draining\"}\n";
        status = 503;
    } else if (!server->engine) {
        body = "{\"status\":\"loading model\"}\n";
        headers = "Retry-After: 1\r\n";
        status = 503;
    }
    metrics_add_status(server->metrics, status);
    exchange_respond(exchange, status, "application/json", headers, body, strlen(body));
}
