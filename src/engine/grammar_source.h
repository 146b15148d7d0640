/* grammar_source.h: what a request wants its answer kept to, before it is compiled (grammar_store.h). Any thread. */
#ifndef RUNNEL_ENGINE_GRAMMAR_SOURCE_H
#define RUNNEL_ENGINE_GRAMMAR_SOURCE_H

#include "base/error.h"
#include "base/text.h"

struct grammar;
struct tool_form;

enum grammar_source_kind {
    GRAMMAR_OF_NOTHING,
    GRAMMAR_OF_TEXT, /* the answer is a text */
    GRAMMAR_OF_CALLS, /* it is calls of tools; where the request has a constraint, too, it may be a text instead */
    GRAMMAR_OF_PARTS, /* it is any text, with calls in it, parts of which are kept (tool_grammar.h) */
};

enum grammar_source_kind grammar_source_kind(const runnel_request *request);
/* That what is given goes together. form: in which the model calls tools; NULL: none that is known. */
int grammar_source_check(const runnel_request *request, const struct tool_form *form, runnel_error *error);
/* Different for requests that want different things, and for those of different API keys: how long an answer takes tells nobody
 * what others asked for. failed: no memory. */
struct text grammar_source_key(const runnel_request *request);
/* To rules. The request was checked. */
int grammar_source_read(const runnel_request *request, const struct tool_form *form, struct grammar **grammar,
                        runnel_error *error);

#endif
