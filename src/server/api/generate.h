/* generate.h: the plain routes: a prompt in, its answer out. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_GENERATE_H
#define RUNNEL_SERVER_API_GENERATE_H

struct server;
struct exchange;

void generate_one(struct server *server, struct exchange *exchange);   /* POST /generate */
void generate_batch(struct server *server, struct exchange *exchange); /* POST /generate-batch */

#endif
