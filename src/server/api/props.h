/* props.h: what the server is and what it computes, as llama-server tells it: never a prompt or an answer. The loop's
 * thread only. */
#ifndef RUNNEL_SERVER_API_PROPS_H
#define RUNNEL_SERVER_API_PROPS_H

struct server;
struct exchange;

void props_get(struct server *server, struct exchange *exchange);       /* GET /props */
void props_get_slots(struct server *server, struct exchange *exchange); /* GET /slots */

#endif
