/* schema_calls.c: see schema_calls.h. */
#include "constrain/schema_calls.h"
#include "constrain/schema_rules.h"

#include <string.h>

/* One behind the other; without what is empty. */
static uint32_t text_before(struct grammar *grammar, const char *text, uint32_t symbol)
{
    return *text ? grammar_cat(grammar, grammar_literal(grammar, text, strlen(text)), symbol) : symbol;
}

static uint32_t text_behind(struct grammar *grammar, uint32_t symbol, const char *text)
{
    return *text ? grammar_cat(grammar, symbol, grammar_literal(grammar, text, strlen(text))) : symbol;
}

/* One of two texts, the other of which may be NULL. */
static uint32_t either_text(struct grammar *grammar, const char *text, const char *other)
{
    uint32_t symbol = grammar_literal(grammar, text, strlen(text));
    return other ? grammar_or(grammar, symbol, grammar_literal(grammar, other, strlen(other))) : symbol;
}

static uint32_t any_text(struct grammar *grammar)
{
    struct byte_set set = {0};
    byte_set_add(&set, ' ', UINT8_MAX);
    byte_set_add(&set, '\t', '\r');
    return grammar_terminal(grammar,
                            expr_repeat(grammar->exprs, expr_bytes(grammar->exprs, &set), 0, EXPR_FOREVER));
}

/* A symbol for the values of a schema, white space before them; 0: failed. also: as schema_root_value. */
static uint32_t value_symbol(struct grammar *grammar, const struct json *json, const struct json *also,
                             bool has_space, runnel_error *error)
{
    struct schema schema = schema_begin(grammar, json, error);
    uint32_t value = schema_root_value(&schema, also);
    if (value && has_space)
        value = grammar_cat(grammar, grammar_terminal(grammar, schema.space), value);
    schema_end(&schema);
    return value;
}

/* A symbol for a call; 0: failed. any_object: {"type": "object"}. */
static uint32_t call_symbol(struct grammar *grammar, const struct schema_calls *calls,
                            const struct schema_call *call, const struct json *any_object,
                            runnel_error *error)
{
    uint32_t value =
        value_symbol(grammar, call->schema ? call->schema : any_object, any_object, false, error);
    if (!value) {
        error_prefix(error, "%.64s", call->name);
        return 0;
    }
    value = text_behind(grammar, value, call->after);
    if (calls->any_text)
        value = grammar_cat(grammar, value, any_text(grammar));
    return grammar_cat(grammar, either_text(grammar, call->before, call->or_before), value);
}

/* ... for all that an answer may have. */
static uint32_t calls_symbol(struct grammar *grammar, const struct schema_calls *calls,
                             const struct json *any_object, runnel_error *error)
{
    uint32_t one = grammar_rule(grammar, NULL, 0), symbol = 0;
    for (size_t i = 0; i < calls->n; i++) {
        uint32_t call = call_symbol(grammar, calls, &calls->calls[i], any_object, error);
        if (!call)
            return 0;
        symbol = symbol ? grammar_or(grammar, symbol, call) : call;
    }
    grammar_define(grammar, one, symbol);
    uint32_t all = grammar_call(grammar, one);
    if (calls->max != 1) {
        uint32_t more = text_before(grammar, calls->between, grammar_call(grammar, one));
        all = grammar_cat(grammar, all,
                          grammar_repeat(grammar, more, 0, calls->max ? calls->max - 1 : EXPR_FOREVER));
    }
    return text_before(grammar, calls->begin, text_behind(grammar, all, calls->end));
}

static int compile(struct grammar *grammar, const struct schema_calls *calls, const struct json *any_object,
                   runnel_error *error)
{
    uint32_t symbol = calls_symbol(grammar, calls, any_object, error);
    if (symbol && calls->or_value) {
        uint32_t value = value_symbol(grammar, calls->or_value, NULL, true, error);
        symbol = value ? grammar_or(grammar, symbol, value) : 0;
    }
    if (!symbol && error->code)
        return error->code;
    grammar->start = grammar_rule(grammar, NULL, 0);
    grammar_define(grammar, grammar->start, symbol);
    return grammar_check(grammar, error);
}

int schema_calls_grammar(const struct constrain_limits *limits, const struct schema_calls *calls,
                         struct grammar **out, runnel_error *error)
{
    static const char object[] = "{\"type\":\"object\"}";
    struct json_text any_object;
    struct grammar *grammar;
    runnel_error found = {0};
    int code = json_tree_read(object, sizeof object - 1, &any_object, error);
    if (code)
        return code;
    code = grammar_create(limits, &grammar, error);
    if (!code) {
        code = compile(grammar, calls, &any_object.root, &found);
        if (code) {
            grammar_free(grammar);
            error_set(error, code, "%s", found.message);
        } else {
            *out = grammar;
        }
    }
    json_tree_free(&any_object);
    return code;
}
