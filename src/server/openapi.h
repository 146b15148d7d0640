/* openapi.h: the description of the routes, written from the tables that lead requests (routes.h) and read their fields
 * (params_table.h), so that it cannot say anything else. The loop's thread only. */
#ifndef RUNNEL_SERVER_OPENAPI_H
#define RUNNEL_SERVER_OPENAPI_H

#include "base/text.h"

#include <stdint.h>

struct server;
struct exchange;

void openapi_get(struct server *server, struct exchange *exchange); /* GET /openapi.json */

/* The whole document. n_choices: the most that "n" may be. */
void openapi_write(uint32_t n_choices, struct text *out);

/* Between the halves: schemas that stand in no table, "name":{..} by ",", JSON with ' for every ". */
extern const char openapi_schemas[];

/* Adds text with " for every '. */
void openapi_add(struct text *out, const char *text);

#endif
