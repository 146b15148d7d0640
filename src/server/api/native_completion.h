/* native_completion.h: completions in llama-server's own form, which is what "native" means here. The loop's thread only. */
#ifndef RUNNEL_SERVER_API_NATIVE_COMPLETION_H
#define RUNNEL_SERVER_API_NATIVE_COMPLETION_H

#include "base/text.h"
#include "server/api/params.h"

struct server;
struct exchange;

void native_completion(struct server *server, struct exchange *exchange); /* POST /completion */

/* A request as it was understood, an object. */
void native_completion_write_settings(const struct server *server, const struct params *params, uint64_t seed,
                                      struct text *out);

#endif
