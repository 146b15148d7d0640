/* rules.c: a worker takes over new API keys and limits. See rules.h. */
#include "server/core/rules.h"

#include "server/core/server.h"

void rules_read(struct server *server)
{
    server->generation = shared_read_rules(server->worker.shared, &server->rules);
}

void rules_take_over(struct server *server)
{
    const struct shared_limits *limits = &server->rules.limits;
    if (shared_generation(server->worker.shared) == server->generation)
        return;
    rules_read(server);
    admit_set_limits(&server->admit, limits->n_requests, keys_count(&server->rules.keys));
    monitor_set_options(&server->monitor);
    loop_set_limits(server->loop, &limits->loop);
    log_say(server->log, "rules", "API keys and limits were read again: %u keys, %u requests at most",
            keys_count(&server->rules.keys), limits->n_requests);
}
