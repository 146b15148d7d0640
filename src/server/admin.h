/* admin.h: orders to the whole server, for whoever has the admin's key, which no client's key is:
 *
 *     GET  /admin/status              how many workers there are, and what came of the last order
 *     GET  /admin/status?order=3      likewise, and what came of that order: nothing yet while "answered" is not its number
 *     POST /admin/workers {"workers": 3}
 *     POST /admin/reload {}           options, keys and the model once more
 *
 * An order is handed on to the supervisor and begun later: status tells. Without an admin's key there are no such routes: they
 * may come and go when keys are read again. The loop's thread only. */
#ifndef RUNNEL_SERVER_ADMIN_H
#define RUNNEL_SERVER_ADMIN_H

#include "server/routes.h"

/* The route of a path, or NULL. */
const struct route *admin_find(const struct server *server, struct exchange_text path);

/* Does the client show the admin's key? */
bool admin_has_key(const struct server *server, const struct exchange *exchange);

#endif
