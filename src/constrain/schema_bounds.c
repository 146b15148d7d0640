/* schema_bounds.c: how reading a schema fails: an error, or too much work. See schema_bounds.h. */
#include "constrain/schema_bounds.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WORK = 100000000 };

void schema_fail(struct schema *schema, int code, const char *format, ...)
{
    char message[256];
    va_list arguments;
    if (schema->failed)
        return;
    schema->failed = true;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    error_set(schema->error, code, "schema: %s", message);
}

void schema_fail_opposite(struct schema *schema, const char *keyword, const char *what)
{
    const char *by = schema->opposite ? schema->opposite : "not";
    bool is_one_of = !strcmp(by, "oneOf");
    schema_fail(schema, RUNNEL_EUNSUPPORTED, "%s: '%s' %s is not supported%s", by, keyword, what,
                is_one_of ? " where a value may fulfil several of its schemas" : "");
}

bool schema_work(struct schema *schema, uint64_t n)
{
    runnel_error error = {0};
    schema->work += n;
    if (schema->work > MAX_WORK)
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "it takes too long to combine its parts");
    else if (schema->exprs->failed || schema->grammar->failed)
        schema_fail(schema, grammar_check(schema->grammar, &error), "%s", error.message);
    return !schema->failed;
}
