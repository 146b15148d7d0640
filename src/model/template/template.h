/* template.h: chat templates, which are programs in the language of Jinja2, run within bounds.
 *
 * A template knows nothing but the values it is given: no files, no variables of the process, no clock. Its environment is
 * the one that Hugging Face's transformers set up: trim_blocks, lstrip_blocks, break and continue, tojson without
 * escapes, raise_exception, strftime_now, generation blocks, no method that changes a value.
 *
 * What it renders is text, and which bytes of it come from the template's own literals: only these may be read as
 * control tokens. See docs/templates.md. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_H

#include "base/error.h"
#include "base/text.h"
#include "model/template/template_value.h"

#include <time.h>

struct template;

/* Of template_render: steps, memory or output passed their bound. Beside the RUNNEL_E... */
enum { TEMPLATE_EBOUND = -200 };

struct template_limits {
    size_t n_steps;
    size_t memory_bytes;
    size_t output_bytes;
    unsigned depth; /* of expressions, statements and macros within each other */
};

extern const struct template_limits template_default_limits;

/* Immutable once compiled; any number of threads may render it. RUNNEL_EUNSUPPORTED, with the line, for what is not in
 * the language. */
int template_compile(const char *text, size_t len, struct template **out, runnel_error *error);
void template_free(struct template *template); /* may be NULL */

/* Text, and which parts of it are the template's own. */
struct template_output {
    char *text; /* zero-terminated */
    size_t len;
    struct text_span *own; /* ascending, apart from each other */
    size_t n_own;
};
void template_output_free(struct template_output *output);

/* Renders with the names of `inputs`, which lives in `arena`, as all that is made on the way. now: for strftime_now; NULL:
 * it fails. RUNNEL_EINVAL: the template refuses, or nests too deep; TEMPLATE_EBOUND: another bound was passed. The message names
 * the line. */
int template_render(const struct template *template, struct template_arena *arena,
                    const struct template_limits *limits, const struct dict *inputs, const struct tm *now,
                    struct template_output *output, runnel_error *error);

/* Reads JSON strictly into values of the arena: UTF-8, nothing after the value, numbers of 64 bits. */
int template_read_json(struct template_arena *arena, const char *text, size_t len, struct value *value,
                       runnel_error *error);

#endif
