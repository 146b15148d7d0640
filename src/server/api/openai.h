/* openai.h: the routes of the OpenAI API. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_OPENAI_H
#define RUNNEL_SERVER_API_OPENAI_H

struct server;
struct exchange;

void openai_chat(struct server *server, struct exchange *exchange);         /* POST /v1/chat/completions */
void openai_count_tokens(struct server *server, struct exchange *exchange); /* POST .../input_tokens */
void openai_completion(struct server *server, struct exchange *exchange);   /* POST /v1/completions */
void openai_models(struct server *server, struct exchange *exchange);       /* GET /v1/models */
void openai_model(struct server *server, struct exchange *exchange);        /* GET /v1/models/{model} */

#endif
