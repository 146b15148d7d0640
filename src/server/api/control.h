/* control.h: messages to an answer that is being written. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_CONTROL_H
#define RUNNEL_SERVER_API_CONTROL_H

struct server;
struct exchange;

void control_chat(struct server *server, struct exchange *exchange); /* POST /v1/chat/completions/control */

#endif
