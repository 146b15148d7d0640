/* json_members.h: the members of a JSON object as pieces of its text: for what is handed on as it was written, because a
 * number would lose digits on its way through a reader. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_JSON_MEMBERS_H
#define RUNNEL_CLI_JSON_MEMBERS_H

#include "base/error.h"
#include "base/text.h"

/* The values of the members of these names; an empty span: there is none. Refuses other members, one that comes twice, and a text
 * that is no object; what is within a value is not looked at but for its brackets and strings: whoever reads it does that. name is
 * what the text is called in errors. */
int json_members_find(const char *name, const char *text, size_t len, const char *const *names,
                      size_t n_names, struct text_span *values, runnel_error *error);

#endif
