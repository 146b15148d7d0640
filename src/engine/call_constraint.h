/* call_constraint.h: the constraint that keeps calls of tools within an answer's text to what the tools want.
 *
 * Nothing is limited before a call has begun, or behind its arguments. It has begun where its name comes, if a tag is before it that
 * nothing but calls have; else with the first byte of its arguments, when all that is before them was a call's, as a reader
 * (model/tool_reader.h) tells. A text that only looks like a call is none, and is not kept to anything. */
#ifndef RUNNEL_ENGINE_CALL_CONSTRAINT_H
#define RUNNEL_ENGINE_CALL_CONSTRAINT_H

#include "engine/constraint.h"
#include "engine/grammar_store.h"
#include "engine/thought_tags.h"
#include "model/tool_reader.h"

/* Takes over the grammar, which is one of parts (tool_grammar.h), also if it fails. The form and the names outlive the
 * constraint. It binds more than those that an answer had before, as that of grammar_constraint.h. */
int call_constraint_create(runnel_grammar *grammar, const struct tool_form *form,
                           const struct tool_names *names, struct constraint **constraint,
                           runnel_error *error);

/* Takes the next token's bytes as thought_tags_push_all does, but that tags within a call are of the call. Before the token is accepted. */
size_t call_constraint_push_tags(const struct constraint *constraint, struct thought_tags *tags,
                                 const char *bytes, size_t len);

#endif
