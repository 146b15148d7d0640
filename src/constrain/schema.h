/* schema.h: JSON Schema to a grammar of the JSON texts that fulfil it.
 *
 * What a schema says is enforced, or it is refused by the keyword's name. Members come in the order of "properties", then those
 * that are only required, then others. White space is what JSON allows, up to SCHEMA_SPACES characters in a place.
 * Keywords that say nothing of values (title, default, ...) and those that nobody defined mean nothing. */
#ifndef RUNNEL_CONSTRAIN_SCHEMA_H
#define RUNNEL_CONSTRAIN_SCHEMA_H

#include "constrain/grammar.h"

enum { SCHEMA_SPACES = 20 };

int schema_grammar(const struct constrain_limits *limits, const char *text, size_t len,
                   struct grammar **grammar, runnel_error *error);

#endif
