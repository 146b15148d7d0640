/* json_text.h: JSON that was read, as text again: members in their order, numbers in the fewest digits. Owns nothing; any thread. */
#ifndef RUNNEL_SERVER_CORE_JSON_TEXT_H
#define RUNNEL_SERVER_CORE_JSON_TEXT_H

#include "base/text.h"

#include <jansson.h>

enum json_spacing {
    JSON_TIGHT,
    JSON_SPACED, /* ", " and ": " */
};

/* Its depth was bounded when it was read. */
void json_add_text(const json_t *json, enum json_spacing spacing, struct text *out);

/* Whether it has an integer past 64 bits, which was read as the nearest number there is, with more than 15 digits: another
 * one may have been meant. */
bool json_has_rounded(const json_t *json);

#endif
