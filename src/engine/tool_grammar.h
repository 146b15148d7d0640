/* tool_grammar.h: the grammars that keep calls of tools to what the tools want. */
#ifndef RUNNEL_ENGINE_TOOL_GRAMMAR_H
#define RUNNEL_ENGINE_TOOL_GRAMMAR_H

#include "base/error.h"
#include "constrain/constrain.h"
#include "model/tool_forms.h"

struct grammar;

/* Where an answer is text with calls in it, the grammar is of the calls' arguments alone: each has before it a mark, its tool's name
 * and a mark, so that whoever has found a call says whose arguments come. What stands behind arguments is anything else. */
enum { TOOL_GRAMMAR_MARK = 1 /* a byte that no name, and no JSON, has */ };

struct tool_grammar_options {
    const struct tool_form
        *form;         /* in which the answer's calls are written; NULL: of arguments alone, as above */
    const char *tools; /* a JSON list, as runnel_request has it */
    size_t tools_len;
    const char *name; /* of the only one that may be called; NULL: any */
    uint32_t max;     /* calls; 0: any number; there is one at least */
    /* Instead of calls the answer may be a value of this JSON Schema; NULL: it may not. */
    const char *or_schema;
    size_t or_schema_len;
};

/* Arguments are objects that keep to the tool's parameters. */
int tool_grammar_create(const struct constrain_limits *limits, const struct tool_grammar_options *options,
                        struct grammar **grammar, runnel_error *error);

#endif
