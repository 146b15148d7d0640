/* tool_grammar.h: the grammars that keep calls of tools to what the tools want. */
#ifndef RUNNEL_ENGINE_TOOL_GRAMMAR_H
#define RUNNEL_ENGINE_TOOL_GRAMMAR_H

#include "base/error.h"
#include "constrain/constrain.h"
#include "model/tool_forms.h"

struct grammar;

/* Where an answer is text with calls in it, the grammar is of parts of calls, and whoever has found one says where it begins, by a byte
 * that no name, and no JSON, has: */
enum {
    /* The arguments come next; before them are the tool's name and this byte once more. */
    TOOL_GRAMMAR_ARGUMENTS = 1,
    /* The name comes next, then what the form has between it and the arguments, then these. */
    TOOL_GRAMMAR_NAME = 2,
}; /* What stands behind arguments is anything else. */

struct tool_grammar_options {
    const struct tool_form *form; /* in which calls are written */
    bool within_text;             /* the grammar is one of parts, as above */
    const char *tools;            /* a JSON list, as runnel_request has it */
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
