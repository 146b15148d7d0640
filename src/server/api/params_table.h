/* params_table.h: what fields a request may have: their types, bounds and meaning in one table, from which they are read
 * (params_read_...) and described (/openapi.json). Any thread. */
#ifndef RUNNEL_SERVER_API_PARAMS_TABLE_H
#define RUNNEL_SERVER_API_PARAMS_TABLE_H

#include "server/core/json_read.h"

/* Whose field it is; a set. */
enum {
    PARAMS_CHAT = 1,       /* /v1/chat/completions */
    PARAMS_COMPLETION = 2, /* /v1/completions */
    PARAMS_NATIVE = 4,     /* /completion */
    PARAMS_GENERATE = 8,   /* /generate, and each entry of /generate-batch */
    PARAMS_OPENAI = PARAMS_CHAT | PARAMS_COMPLETION,
    PARAMS_STREAMS = PARAMS_OPENAI | PARAMS_NATIVE,
    PARAMS_ALL = PARAMS_STREAMS | PARAMS_GENERATE,
};

enum params_kind {
    PARAMS_BOOL,
    PARAMS_NUMBER,
    PARAMS_WHOLE,
    PARAMS_WHOLE_CLAMPED, /* what is past `most` counts as `most` */
    PARAMS_OTHER,         /* read by its own function; schema says what it is */
    PARAMS_REFUSED, /* but for what asks for nothing: absent, false, empty, or a number from `least` to `most` */
    PARAMS_ONLY_TRUE, /* false is refused */
    PARAMS_HARMLESS,  /* known, and ignored: it changes no answer */
};

struct params_field {
    const char *name;
    unsigned routes; /* PARAMS_... */
    enum params_kind kind;
    bool required;
    double least, most; /* numbers; `most` INFINITY: the server decides */
    const char *schema; /* PARAMS_OTHER: a JSON schema, with ' for every " */
    const char *meaning;
};

const struct params_field *params_fields(size_t *n);

/* Read by the table's type and bounds: the field must be there with this kind. -1 and the refusal if the request's is
 * wrong; *out is untouched then, and if it is absent. */
int params_read_bool(const json_t *root, const char *name, bool *out, struct refusal *refusal);
int params_read_number(const json_t *root, const char *name, float *out, struct refusal *refusal);
int params_read_whole(const json_t *root, const char *name, int64_t *out, struct refusal *refusal);

#endif
