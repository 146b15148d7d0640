/* jinja.h: reduces a chat template to a skeleton that can be compared. It never runs one. */
#ifndef RUNNEL_MODEL_JINJA_H
#define RUNNEL_MODEL_JINJA_H

#include "base/error.h"
#include "base/text.h"

/* Appends the skeleton of a template to *skeleton: one line for each statement that a conversation of plain messages
 * (role and content, no tools) can reach, each in one way of writing. Two templates with the same skeleton render such a
 * conversation alike. RUNNEL_EUNSUPPORTED where the template cannot be read; *skeleton is then to be freed all the same.
 *
 *     if C / elif C / else / endif, for X / endfor, set X      conditions, loops, assignments
 *     out X                                                    {{ X }}
 *     text 'T'                                                 text outside of tags
 *
 * In expressions there are no spaces but between words, a.b is a['b'], strings are in single quotes with \n, \' and \\
 * escaped, and strings added to strings are one string. */
int jinja_skeleton(const char *jinja, size_t len, struct text *skeleton, runnel_error *error);

#endif
