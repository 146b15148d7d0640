/* rules.h: a worker takes over keys and limits that the supervisor has written anew (shared.h). The loop's thread only. */
#ifndef RUNNEL_SERVER_CORE_RULES_H
#define RUNNEL_SERVER_CORE_RULES_H

struct server;

/* The rules as they are now, before anything is made of them. */
void rules_read(struct server *server);

/* Those of the latest generation, if that is another one: asked before each request, and before the worker drains. What is on
 * its way goes on as it began; its key keeps the places that it holds. */
void rules_take_over(struct server *server);

#endif
