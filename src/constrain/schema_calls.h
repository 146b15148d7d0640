/* schema_calls.h: a grammar of calls of tools: JSON objects, each kept to a schema of its own, within the texts that make them
 * calls. */
#ifndef RUNNEL_CONSTRAIN_SCHEMA_CALLS_H
#define RUNNEL_CONSTRAIN_SCHEMA_CALLS_H

#include "constrain/grammar.h"
#include "constrain/json_tree.h"

/* An object, the arguments, between two texts. */
struct schema_call {
    const char *name; /* for messages */
    const char *before, *after;
    const char *or_before;     /* may stand instead of before; NULL: nothing */
    const struct json *schema; /* of the object; NULL: any */
};

struct schema_calls {
    const struct schema_call *calls; /* [n] one of these */
    size_t n;
    const char *begin, *between, *end; /* of all */
    uint32_t max;                      /* 0: any number; one at least */
    bool any_text;                     /* behind each one there may be any text without the bytes 0 to 8 */
    const struct json *or_value;       /* or, instead of calls, a value of this schema; NULL: no */
};

int schema_calls_grammar(const struct constrain_limits *limits, const struct schema_calls *calls,
                         struct grammar **grammar, runnel_error *error);

#endif
