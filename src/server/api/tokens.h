/* tokens.h: llama-server's routes between text and tokens. They compute nothing that the engine would. The loop's thread
 * only. */
#ifndef RUNNEL_SERVER_API_TOKENS_H
#define RUNNEL_SERVER_API_TOKENS_H

struct server;
struct exchange;

void tokens_tokenize(struct server *server, struct exchange *exchange);       /* POST /tokenize */
void tokens_detokenize(struct server *server, struct exchange *exchange);     /* POST /detokenize */
void tokens_apply_template(struct server *server, struct exchange *exchange); /* POST /apply-template */

#endif
