/* routes.c: which function answers which path. The loop's thread only. */
#include "server/health.h"
#include "server/server.h"

#include <stdio.h>

struct route {
    const char *path, *method;
    void (*answer)(struct server *server, struct exchange *exchange);
};

static const struct route routes[] = {
    {"/health", "GET", health_get},
    {"/metrics", "GET", metrics_get},
};

static const struct route *find_route(const struct exchange *exchange)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (exchange_text_is(exchange_path(exchange), routes[i].path))
            return &routes[i];
    return NULL;
}

static void refuse(struct server *server, struct exchange *exchange, int status, const char *headers,
                   const char *message)
{
    metrics_add_status(server->metrics, status);
    exchange_respond_error(exchange, status, headers, message);
}

void routes_on_head(struct exchange *exchange, void *user)
{
    const struct route *route = find_route(exchange);
    struct exchange_text method = exchange_method(exchange);
    if (!route) {
        refuse(user, exchange, 404, NULL, "no such route");
    } else if (!exchange_text_is(method, route->method)) {
        char allow[32];
        snprintf(allow, sizeof allow, "Allow: %s\r\n", route->method);
        refuse(user, exchange, 405, allow, "this route has another method");
    }
}

void routes_on_request(struct exchange *exchange, void *user)
{
    find_route(exchange)->answer(user, exchange);
}
