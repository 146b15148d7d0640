/* health.h: GET /health, answered at once from the loop's thread whatever the engine does. */
#ifndef RUNNEL_SERVER_HEALTH_H
#define RUNNEL_SERVER_HEALTH_H

struct server;
struct exchange;

/* 503 {"status":"loading model"} until the engine is there, 200 {"status":"ok"}, 503 {"status":"draining"}. Ends the
 * exchange. */
void health_get(struct server *server, struct exchange *exchange);

#endif
