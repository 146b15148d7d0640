/* admin.c: see admin.h. */
#include "server/admin.h"

#include "server/api/reply.h"
#include "server/core/json_write.h"
#include "server/limits/shared.h"

#include <string.h>

/* order: whose outcome is told, as soon as there is one; 0: the latest of all. */
static void tell(struct server *server, struct exchange *exchange, uint64_t order)
{
    const struct shared *shared = server->worker.shared;
    struct shared_service service;
    struct shared_outcome outcome = {0};
    struct text json = {0};
    unsigned n[SHARED_DRAINING + 1] = {0};
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++)
        n[shared_state(shared, i)]++;
    shared_read_service(shared, &service);
    uint64_t answered = service.answered;
    if (order)
        answered = shared_find_outcome(&service, order, &outcome) ? order : 0;
    else
        outcome = shared_latest_outcome(&service);
    json_add_format(&json,
                    "{\"workers\":{\"wanted\":%u,\"ready\":%u,\"starting\":%u,\"draining\":%u},"
                    "\"models_opened\":%llu,\"order\":%llu,\"answered\":%llu,\"failed\":%s,\"message\":",
                    service.n_workers_wanted, n[SHARED_READY], n[SHARED_STARTING], n[SHARED_DRAINING],
                    (unsigned long long)service.model_generation, (unsigned long long)order,
                    (unsigned long long)answered, outcome.code ? "true" : "false");
    json_add_string(&json, outcome.message, strlen(outcome.message));
    text_add_string(&json, "}\n");
    metrics_add_status(server->metrics, reply_json(exchange, &json));
    text_free(&json);
}

static void refuse_order(struct server *server, struct exchange *exchange, const struct refusal *refusal)
{
    metrics_add_status(server->metrics, reply_refusal(exchange, refusal));
}

/* A number of an order; 0: it is none. */
static uint64_t read_order(const char *text, size_t len)
{
    uint64_t order = 0;
    if (len > 18) /* so that it fits */
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        order = 10 * order + (uint64_t)(text[i] - '0');
    }
    return order;
}

/* ?order=N: what came of that one. Other names mean nothing. */
static void get_status(struct server *server, struct exchange *exchange)
{
    static const struct refusal wrong = {
        .status = 400, .message = "order: expected the number of an order, as it was told when it was given"};
    struct exchange_text query = exchange_query(exchange);
    struct http_span name, value;
    size_t at = 0;
    uint64_t order = 0;
    while (http_query_next(query.bytes, query.len, &at, &name, &value)) {
        if (name.len != 5 || memcmp(query.bytes + name.at, "order", 5) != 0)
            continue;
        order = read_order(query.bytes + value.at, value.len);
        if (!order) {
            refuse_order(server, exchange, &wrong);
            return;
        }
    }
    tell(server, exchange, order);
}

/* Into the block, and a byte into the supervisor's pipe. */
static void send_order(struct server *server, struct exchange *exchange, enum shared_kind kind,
                       uint32_t value)
{
    static const struct refusal late = {.status = 503,
                                        .message = "the supervisor does not listen: try again soon"};
    const struct admin_options *admin = &server->options->admin;
    struct shared_worker *worker = &server->worker;
    const struct shared_message order = {
        .id = shared_next_order(worker->shared), .kind = (uint32_t)kind, .value = value};
    if (shared_send(worker->shared, worker->number, SHARED_SUPERVISOR, &order) && admin->wake(admin->user))
        tell(server, exchange, order.id);
    else
        refuse_order(server, exchange, &late);
}

/* The whole body: {"workers": N}. */
static int read_workers(struct exchange_text body, uint32_t n_most, int64_t *n, struct refusal *refusal)
{
    json_t *root;
    if (json_read(body.bytes, body.len, &root, refusal))
        return -1;
    int failure = 0;
    if (!json_is_object(root) || !json_find(root, "workers") || json_object_size(root) != 1)
        failure = refuse(refusal, NULL, "the body: expected {\"workers\": N} and nothing else");
    else
        failure = json_read_int(root, "workers", 1, n_most, false, n, refusal);
    json_decref(root);
    return failure;
}

static void order_workers(struct server *server, struct exchange *exchange)
{
    struct refusal refusal = {0};
    int64_t n;
    if (read_workers(exchange_body(exchange), server->options->admin.n_workers_max, &n, &refusal))
        refuse_order(server, exchange, &refusal);
    else
        send_order(server, exchange, SHARED_ORDER_WORKERS, (uint32_t)n);
}

static void order_reload(struct server *server, struct exchange *exchange)
{
    send_order(server, exchange, SHARED_ORDER_RELOAD, 0);
}

static const struct route routes[] = {
    {.path = "/admin/status", .body = BODY_NONE, .answer = get_status},
    {.path = "/admin/workers", .body = BODY_JSON, .answer = order_workers},
    {.path = "/admin/reload", .body = BODY_JSON, .answer = order_reload},
};

const struct route *admin_find(const struct server *server, struct exchange_text path)
{
    if (!keys_count(&server->rules.admin_keys) || !server->engine)
        return NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (exchange_text_is(path, routes[i].path))
            return &routes[i];
    return NULL;
}

bool admin_has_key(const struct server *server, const struct exchange *exchange)
{
    return guard_shows_one_of(&server->rules.admin_keys, exchange);
}
