/* params_check.h: what the tests of request bodies share: a body that must be refused, naming a field, and one that must
 * be taken, with the limits of a small made-up server. */
#ifndef RUNNEL_TESTS_PARAMS_CHECK_H
#define RUNNEL_TESTS_PARAMS_CHECK_H

#include "server/api/params.h"

#define CHAT_START   "\"messages\":[{\"role\":\"user\",\"content\":\"SECRET\"}]"
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef int (*reader)(json_t *, const struct params_limits *, struct params *, struct refusal *);

struct bad_field {
    const char *fields, *param;
};

struct params_limits make_limits(void);

/* The body must be refused with 400, for this field ("": none), without touching the params or repeating the body. */
void check_refused(reader read_params, const char *text, size_t len, const char *param);

/* Bodies that begin with start and have these fields, one a body: each must be refused for its param. */
void check_bad_fields(reader read_params, const char *start, const struct bad_field *fields, size_t n);

/* The body must be taken. *params points into itself: it cannot be a value that is returned. */
void check_accepted(reader read_params, const char *text, struct params *params);

#endif
