/* schema_reference.h: where a "$ref" leads. */
#ifndef RUNNEL_CONSTRAIN_SCHEMA_REFERENCE_H
#define RUNNEL_CONSTRAIN_SCHEMA_REFERENCE_H

#include "constrain/schema_bounds.h"

/* The schema that a "$ref" of this value means. NULL: there is none here, and that is an error. */
const struct json *schema_reference(struct schema *schema, const struct json *value);

/* Whether the root's "$schema" names this draft, such as "draft-04". */
bool schema_is_of_draft(struct schema *schema, const char *draft);

#endif
