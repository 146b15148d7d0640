/* render.h: vLLM's routes that give the token ids of a request's prompt, by which routers find the server that has most of it
 * in its cache. They compute nothing that the engine would. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_RENDER_H
#define RUNNEL_SERVER_API_RENDER_H

struct server;
struct exchange;

void render_chat(struct server *server, struct exchange *exchange); /* POST /v1/chat/completions/render */
void render_completion(struct server *server, struct exchange *exchange); /* POST /v1/completions/render */

#endif
