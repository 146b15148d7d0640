/* reply.h: what every route does with a body and with failure. The loop's thread only, unless it says so. */
#ifndef RUNNEL_SERVER_API_REPLY_H
#define RUNNEL_SERVER_API_REPLY_H

#include "base/text.h"
#include "server/api/params.h"
#include "server/core/json_read.h"
#include "server/core/server.h"

/* Adds {"message":..,"type":..,"param":..,"code":..} without the closing brace. param may be "". */
void reply_add_error(struct text *out, int status, const char *message, const char *param);

/* Ends the exchange with the error object; with Retry-After if the status is 429 or 503. Returns the status: 499 if the
 * client is gone. */
int reply_refusal(struct exchange *exchange, const struct refusal *refusal);

/* The status that stands for an error of the engine. */
int reply_status(const runnel_error *error);

/* Ends the exchange with an error that the engine gave for n requests, whose prompts are in tokens. Returns the status. */
int reply_engine_error(struct server *server, struct exchange *exchange, const runnel_request *requests,
                       size_t n, const runnel_error *error);

/* Ends the exchange with JSON, or with 503 if memory ran out while it was written. Returns the status. */
int reply_json(struct exchange *exchange, const struct text *json);

/* The defaults of this server's requests. Any thread. */
struct params_limits reply_limits(const struct server *server);

/* The seed of a request: its own, the server's, or if neither has one a random one. */
uint64_t reply_seed(const struct server *server, const struct params *params);

/* Fills the refusal with an error of the engine. Returns -1. Any thread. */
int reply_refuse_error(const runnel_error *error, struct refusal *refusal);
/* The same with an error that runnel_prompt_tokens or runnel_prompt_text gave. */
int reply_refuse_prompt(const runnel_request *request, const runnel_error *error, struct refusal *refusal);

/* Whether the request has a constraint, or tools, that reply_compile would compile. If it is there already, params have it from
 * now on. Takes no time; any thread. */
bool reply_must_compile(const struct server *server, struct params *params);
/* Compiles the request's constraint, if it has one that is not compiled yet: 0, or -1 and the refusal. Any thread. */
int reply_compile(const struct server *server, struct params *params, struct refusal *refusal);
/* Makes the tokens of a request's prompt, which the engine then takes as they are: 0, or -1 and the refusal. Any
 * thread. */
int reply_encode(const struct server *server, struct params *params, struct refusal *refusal);

#endif
