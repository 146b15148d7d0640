/* routes.c: requests to the functions of route_table.c, and what is refused before a body is read. The loop's thread only. */
#include "server/routes.h"
#include "server/admin.h"
#include "server/page.h"

#include <stdio.h>
#include <string.h>

/* "/" and the files that the page at "/" asks for. */
static const struct route page_route = {.path = "", .body = BODY_NONE, .answer = page_get};

/* What is answered without a key, but not to one that is wrong: a client that lists models to try its key must learn it. */
static const char *const open_paths[] = {"/v1/models", "/models", "/v1/models/{model}", "/models/{model}"};

/* A path of the table, or one that begins like it and has something where it has {name} at its end. */
static bool is_path(struct exchange_text path, const char *pattern)
{
    size_t len = strcspn(pattern, "{");
    if (!pattern[len])
        return exchange_text_is(path, pattern);
    return path.len > len && !memcmp(path.bytes, pattern, len);
}

/* What is answered whatever key is shown: whether the server lives, and the page that asks for the key. */
static bool ignores_keys(const struct exchange *exchange)
{
    struct exchange_text path = exchange_path(exchange);
    return exchange_text_is(path, "/health") || exchange_text_is(path, "/v1/health") || page_find(path);
}

/* Why the request is refused for its key; NULL: it is not. */
static const char *judge_key(const struct server *server, struct exchange *exchange)
{
    if (admin_find(server, exchange_path(exchange)))
        return admin_has_key(server, exchange) ? NULL : "expected the admin's key: Authorization: Bearer KEY";
    if (guard_has_key(&server->rules.keys, exchange) || ignores_keys(exchange))
        return NULL;
    if (guard_shows_key(exchange))
        return "the API key is not one of this server's: expected Authorization: Bearer KEY, or X-Api-Key: "
               "KEY";
    for (size_t i = 0; i < sizeof open_paths / sizeof *open_paths; i++)
        if (is_path(exchange_path(exchange), open_paths[i]))
            return NULL;
    return "expected an API key: Authorization: Bearer KEY, or X-Api-Key: KEY";
}

static const struct route *find_route(const struct server *server, const struct exchange *exchange)
{
    size_t n;
    const struct route *order = admin_find(server, exchange_path(exchange));
    if (order)
        return order;
    const struct route *routes = route_table(&n);
    for (size_t i = 0; i < n; i++)
        if (is_path(exchange_path(exchange), routes[i].path))
            return &routes[i];
    return page_find(exchange_path(exchange)) ? &page_route : NULL;
}

static void refuse_head(struct server *server, struct exchange *exchange, int status, const char *headers,
                        const char *message)
{
    metrics_add_status(server->metrics, status);
    exchange_respond_error(exchange, status, headers, message);
}

/* OPTIONS, or a method that the route does not have. */
static void tell_methods(struct server *server, struct exchange *exchange, const struct route *route)
{
    const char *allow =
        route->body == BODY_NONE ? "Allow: GET, HEAD, OPTIONS\r\n" : "Allow: POST, OPTIONS\r\n";
    if (exchange_text_is(exchange_method(exchange), "OPTIONS")) {
        metrics_add_status(server->metrics, 200);
        exchange_respond(exchange, 200, NULL, allow, "", 0);
    } else {
        refuse_head(server, exchange, 405, allow,
                    "this route does not have this method: the header Allow lists those it has");
    }
}

static bool has_method(const struct exchange *exchange, const struct route *route)
{
    struct exchange_text method = exchange_method(exchange);
    if (route->body == BODY_NONE)
        return exchange_text_is(method, "GET") || exchange_text_is(method, "HEAD");
    return exchange_text_is(method, "POST");
}

static bool has_body(const struct http_head *head)
{
    return head->framing == HTTP_BODY_CHUNKED || (head->framing == HTTP_BODY_LENGTH && head->content_length);
}

void routes_on_head(struct exchange *exchange, void *user)
{
    const struct server *server = user;
    const struct route *route = find_route(server, exchange);
    const struct http_head *head = exchange_head(exchange);
    const char *message;
    const char *no_entry = judge_key(server, exchange);
    if (no_entry) { /* runnel ctl goes by the realm */
        bool is_order = admin_find(server, exchange_path(exchange));
        refuse_head(user, exchange, 401,
                    is_order ? "WWW-Authenticate: Bearer realm=\"admin\"\r\n"
                             : "WWW-Authenticate: Bearer\r\n",
                    no_entry);
        return;
    }
    if (!route) {
        refuse_head(user, exchange, 404, NULL, "no such route");
        return;
    }
    if (!has_method(exchange, route)) {
        tell_methods(user, exchange, route);
        return;
    }
    if (route->body == BODY_NONE || (route->body == BODY_OPTIONAL && head->has_query && !has_body(head)))
        return;
    int status = http_check_json_body(head, exchange_head_bytes(exchange), &message);
    if (status == 411) /* what follows may be the body all the same: it must not be read as a request */
        exchange_close_after(exchange);
    if (status)
        refuse_head(user, exchange, status, NULL, message);
}

void routes_on_request(struct exchange *exchange, void *user)
{
    const struct route *route = find_route(user, exchange);
    if (route)
        route->answer(user, exchange);
    else /* the last of the admin's keys went while the body of an order came */
        refuse_head(user, exchange, 404, NULL, "no such route");
}
