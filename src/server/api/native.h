/* native.h: the plain routes: a prompt in, its answer out. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_NATIVE_H
#define RUNNEL_SERVER_API_NATIVE_H

struct server;
struct exchange;

void native_generate(struct server *server, struct exchange *exchange);       /* POST /generate */
void native_generate_batch(struct server *server, struct exchange *exchange); /* POST /generate-batch */

#endif
