/* schema.c: see schema.h: from lists of rules to symbols, and what all kinds of values have in common. */
#include "constrain/schema.h"
#include "constrain/charset.h"
#include "constrain/schema_rules.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_KNOWN = 20000, /* lists */
    MAX_DEPTH = 400,   /* values within values that are not known yet */
};

/* --- values that are listed ----------------------------------------------------------------------------------------- */

static uint32_t literal_value(struct schema *schema, const struct json *json, bool in_all_ways);

static uint32_t literal_items(struct schema *schema, const struct json *json, bool in_all_ways)
{
    struct exprs *exprs = schema->exprs;
    bool is_object = json->kind == JSON_OBJECT;
    uint32_t expr = expr_literal(exprs, is_object ? "}" : "]", 1);
    for (uint32_t i = json->n; i-- > 0;) {
        uint32_t item = literal_value(schema, &json->items[i], in_all_ways);
        if (is_object) {
            uint32_t quote = expr_range(exprs, '"', '"');
            uint32_t name = string_literal(schema, json->items[i].name, json->items[i].name_len, in_all_ways);
            item = expr_cat(exprs, schema_mark(schema, ":"), item);
            item = expr_cat(exprs, quote, expr_cat(exprs, name, expr_cat(exprs, quote, item)));
        }
        expr = expr_cat(exprs, item, i + 1 < json->n ? expr : expr_cat(exprs, schema->space, expr));
        if (i)
            expr = expr_cat(exprs, schema_mark(schema, ","), expr);
    }
    return expr_cat(exprs, expr_literal(exprs, is_object ? "{" : "[", 1),
                    expr_cat(exprs, schema->space, expr));
}

/* A JSON value as a schema writes it; in_all_ways: with whatever could be escaped. */
static uint32_t literal_value(struct schema *schema, const struct json *json, bool in_all_ways)
{
    struct exprs *exprs = schema->exprs;
    uint32_t quote = expr_range(exprs, '"', '"');
    switch ((enum json_kind)json->kind) {
    case JSON_NULL:
        return expr_literal(exprs, "null", 4);
    case JSON_FALSE:
        return expr_literal(exprs, "false", 5);
    case JSON_TRUE:
        return expr_literal(exprs, "true", 4);
    case JSON_NUMBER:
        return expr_literal(exprs, json->text, json->len);
    case JSON_STRING:
        return expr_cat(exprs, quote,
                        expr_cat(exprs, string_literal(schema, json->text, json->len, in_all_ways), quote));
    case JSON_ARRAY:
    case JSON_OBJECT:
        return literal_items(schema, json, in_all_ways);
    }
    return EXPR_NONE;
}

static bool is_of(const struct json *value, unsigned kinds)
{
    switch ((enum json_kind)value->kind) {
    case JSON_NULL:
        return kinds & VALUE_NULL;
    case JSON_FALSE:
    case JSON_TRUE:
        return kinds & VALUE_BOOL;
    case JSON_NUMBER:
        return kinds & VALUE_NUMBER;
    case JSON_STRING:
        return kinds & VALUE_STRING;
    case JSON_ARRAY:
        return kinds & VALUE_ARRAY;
    case JSON_OBJECT:
        return kinds & VALUE_OBJECT;
    }
    return false;
}

static bool is_list(const struct schema_rule *rule)
{
    return rule->kind == RULE_VALUE || rule_is(rule, "enum") || rule_is(rule, "const");
}

/* Some value of what is a list is of these kinds. */
static bool lists_any(const struct schema_rule *rule, unsigned kinds)
{
    const struct json *value = rule_value(rule);
    if (!rule_is(rule, "enum"))
        return is_of(value, kinds);
    for (uint32_t i = 0; i < value->n; i++)
        if (is_of(&value->items[i], kinds))
            return true;
    return false;
}

/* The values of what is a list that are of these kinds. */
static uint32_t listed(struct schema *schema, const struct schema_rule *rule, unsigned kinds,
                       bool in_all_ways)
{
    const struct json *value = rule_value(rule);
    uint32_t n = rule_is(rule, "enum") ? value->n : 1, n_exprs = 0;
    const struct json *values = rule_is(rule, "enum") ? value->items : value;
    uint32_t *exprs = calloc(n + 1, sizeof *exprs);
    if (!exprs) {
        schema_fail(schema, RUNNEL_ENOMEM, "no memory");
        return EXPR_NONE;
    }
    for (uint32_t i = 0; i < n && schema_work(schema, 1); i++)
        if (is_of(&values[i], kinds))
            exprs[n_exprs++] = literal_value(schema, &values[i], in_all_ways);
    uint32_t expr = expr_or(schema->exprs, exprs, n_exprs);
    free(exprs);
    return expr;
}

/* What "enum" and "const" leave of values of these kinds. *is_listed: some list says which there are. */
static uint32_t left_by_lists(struct schema *schema, const struct rule_list *list, unsigned kinds,
                              bool *is_listed)
{
    struct exprs *exprs = schema->exprs;
    uint32_t expr = EXPR_ALL;
    *is_listed = false;
    for (uint32_t i = 0; i < list->n; i++) {
        const struct schema_rule *rule = &list->rules[i];
        if (!is_list(rule) || !schema_work(schema, rule_value(rule)->n))
            continue;
        uint32_t values = listed(schema, rule, kinds, rule->is_not);
        expr = expr_both(exprs, expr, rule->is_not ? expr_not(exprs, values) : values);
        *is_listed |= !rule->is_not;
        if (rule->is_not && lists_any(rule, kinds & VALUE_NUMBER))
            schema_fail_opposite(schema, rule_keyword(rule), "of numbers");
        if (rule->is_not && lists_any(rule, kinds & (VALUE_ARRAY | VALUE_OBJECT)))
            schema_fail_opposite(schema, rule_keyword(rule), "of arrays or objects");
    }
    return expr;
}

/* --- kinds of values ------------------------------------------------------------------------------------------------ */

static uint32_t scalar_terminal(struct schema *schema, const struct rule_list *list, unsigned kinds)
{
    struct exprs *exprs = schema->exprs;
    uint32_t parts[8], n = 0;
    bool is_listed, is_free = false;
    uint32_t lists = left_by_lists(schema, list, kinds & ~(unsigned)(VALUE_ARRAY | VALUE_OBJECT), &is_listed);
    if (kinds & VALUE_NULL)
        parts[n++] = expr_literal(exprs, "null", 4);
    if (kinds & VALUE_BOOL) {
        parts[n++] = expr_literal(exprs, "true", 4);
        parts[n++] = expr_literal(exprs, "false", 5);
    }
    if (kinds & VALUE_NUMBER)
        parts[n++] = number_expr(schema, list, kinds & VALUE_NUMBER);
    if (kinds & VALUE_STRING) {
        uint32_t quote = expr_range(exprs, '"', '"'), content = string_content(schema, list, &is_free);
        parts[n++] = expr_cat(exprs, quote, expr_cat(exprs, content, quote));
    }
    uint32_t expr = expr_both(exprs, expr_or(exprs, parts, n), lists);
    bool is_kept = (kinds & VALUE_STRING) && !is_listed && exprs->exprs[expr].is_long;
    return is_kept ? grammar_kept(schema->grammar, expr) : grammar_terminal(schema->grammar, expr);
}

/* Arrays or objects. Of those that are listed nothing else may be said, as nothing else is looked at. */
static uint32_t container(struct schema *schema, const struct rule_list *list, unsigned kind)
{
    bool is_listed;
    uint32_t expr = left_by_lists(schema, list, kind, &is_listed);
    if (!is_listed)
        return kind == VALUE_ARRAY ? array_symbol(schema, list) : object_symbol(schema, list);
    for (uint32_t i = 0; i < list->n; i++) {
        const struct schema_rule *rule = &list->rules[i];
        if (!is_list(rule) && !rule_is(rule, "type") && (rule_says_of(rule) & kind) && expr != EXPR_NONE)
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "enum: arrays or objects beside '%s' are not supported",
                        rule_keyword(rule));
    }
    return grammar_terminal(schema->grammar, expr);
}

/* The values of a list without a choice. */
static uint32_t value_of_kinds(struct schema *schema, const struct rule_list *list)
{
    unsigned kinds = rules_kinds(schema, list), scalars = kinds & ~(unsigned)(VALUE_ARRAY | VALUE_OBJECT);
    uint32_t symbol = 0;
    if (scalars & ~(unsigned)VALUE_STRING)
        symbol = scalar_terminal(schema, list, scalars & ~(unsigned)VALUE_STRING);
    if (scalars & VALUE_STRING)
        symbol = grammar_either(schema->grammar, symbol, scalar_terminal(schema, list, VALUE_STRING));
    if (kinds & VALUE_OBJECT)
        symbol = grammar_either(schema->grammar, symbol, container(schema, list, VALUE_OBJECT));
    if (kinds & VALUE_ARRAY)
        symbol = grammar_either(schema->grammar, symbol, container(schema, list, VALUE_ARRAY));
    return symbol;
}

/* One of the alternatives of the choice that is rule number `at` of the list. */
static uint32_t value_of_choice(struct schema *schema, const struct rule_list *list, uint32_t at)
{
    const struct schema_rule choice = list->rules[at];
    struct grammar_union all = {0};
    bool has_more = true;
    for (uint32_t which = 0; has_more && !schema->failed; which++) {
        struct rule_list branch = {0};
        for (uint32_t i = 0; i < list->n; i++)
            if (i != at)
                rules_add(schema, &branch, list->rules[i]);
        has_more = rule_branch(schema, &choice, which, &branch);
        if (has_more)
            grammar_union_add(schema->grammar, &all, schema->value(schema, &branch));
        rules_free(&branch);
    }
    return grammar_union_end(schema->grammar, &all);
}

static int by_place(const void *one, const void *other)
{
    const struct schema_rule *a = one, *b = other;
    if (a->json != b->json)
        return a->json < b->json ? -1 : 1;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return (a->kind * 2 + a->is_not) - (b->kind * 2 + b->is_not);
}

/* The same rules in whatever order. Both have been sorted. */
static bool same_rules(const struct rule_list *one, const struct rule_list *other)
{
    for (uint32_t i = 0; one->n == other->n && i < one->n; i++)
        if (by_place(&one->rules[i], &other->rules[i]))
            return false;
    return one->n == other->n;
}

/* The rule of a sorted list; UINT32_MAX: it was not met before. */
static uint32_t find_known(struct schema *schema, const struct rule_list *sorted)
{
    if (!schema_work(schema, schema->n_known))
        return UINT32_MAX;
    for (uint32_t i = 0; i < schema->n_known; i++)
        if (same_rules(&schema->known[i].list, sorted))
            return schema->known[i].rule;
    return UINT32_MAX;
}

/* Keeps the list, which is the schema's from then on. */
static uint32_t add_known(struct schema *schema, struct rule_list *sorted)
{
    if (schema->n_known == schema->cap_known) {
        uint32_t cap = schema->cap_known ? schema->cap_known * 2 : 64;
        if (schema->n_known >= MAX_KNOWN) {
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "more than %d combinations of its parts", MAX_KNOWN);
            return UINT32_MAX;
        }
        void *grown = realloc(schema->known, cap * sizeof *schema->known);
        if (!grown) {
            schema_fail(schema, RUNNEL_ENOMEM, "no memory");
            return UINT32_MAX;
        }
        schema->known = grown;
        schema->cap_known = cap;
    }
    uint32_t rule = grammar_rule(schema->grammar, NULL, 0);
    schema->known[schema->n_known++] = (struct schema_known){*sorted, rule};
    *sorted = (struct rule_list){0};
    return rule;
}

static uint32_t value_of(struct schema *schema, struct rule_list *list)
{
    struct rule_list sorted = {0};
    if (!schema_open(schema, list) || !rules_kinds(schema, list))
        return 0;
    rules_add_all(schema, &sorted, list);
    if (sorted.n)
        qsort(sorted.rules, sorted.n, sizeof *sorted.rules, by_place);
    uint32_t rule = schema->failed ? UINT32_MAX : find_known(schema, &sorted), at = 0;
    if (rule == UINT32_MAX && !schema->failed && ++schema->depth <= MAX_DEPTH) {
        rule = add_known(schema, &sorted);
        while (at < list->n && !rule_is_choice(&list->rules[at]))
            at++;
        uint32_t symbol = schema->failed ? 0
                          : at < list->n ? value_of_choice(schema, list, at)
                                         : value_of_kinds(schema, list);
        grammar_define(schema->grammar, rule, symbol ? symbol : grammar_terminal(schema->grammar, EXPR_NONE));
        schema->depth--;
    } else if (rule == UINT32_MAX) {
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "it is nested too deep");
    }
    rules_free(&sorted);
    return schema->failed ? 0 : grammar_call(schema->grammar, rule);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

/* What all schemas of a grammar share. */
struct schema schema_begin(struct grammar *grammar, const struct json *root, runnel_error *error)
{
    struct exprs *exprs = grammar->exprs;
    struct schema schema = {
        .root = root, .grammar = grammar, .exprs = exprs, .error = error, .value = value_of};
    struct byte_set space = {0};
    uint32_t quote = expr_range(exprs, '"', '"');
    byte_set_add(&space, ' ', ' ');
    byte_set_add(&space, '\t', '\n');
    byte_set_add(&space, '\r', '\r');
    schema.space = expr_repeat(exprs, expr_bytes(exprs, &space), 0, SCHEMA_SPACES);
    schema.name = expr_repeat(exprs, char_range_expr(exprs, 0, CHARSET_LAST, CHAR_JSON), 0, EXPR_FOREVER);
    grammar->any_char = char_range_expr(exprs, 0, CHARSET_LAST, CHAR_JSON);
    schema.string = expr_cat(exprs, quote, expr_cat(exprs, schema.name, quote));
    return schema;
}

void schema_end(struct schema *schema)
{
    for (uint32_t i = 0; i < schema->n_known; i++)
        rules_free(&schema->known[i].list);
    free(schema->known);
}

uint32_t schema_root_value(struct schema *schema, const struct json *also)
{
    struct rule_list list = {0};
    rules_add(schema, &list, (struct schema_rule){.json = schema->root, .kind = RULE_SCHEMA});
    if (also)
        rules_add(schema, &list, (struct schema_rule){.json = also, .kind = RULE_SCHEMA});
    uint32_t value = schema->value(schema, &list);
    rules_free(&list);
    if (!value && !schema->failed && !schema->grammar->failed && !schema->exprs->failed)
        schema_fail(schema, RUNNEL_EINVAL, "no value can fulfil it");
    return schema->failed ? 0 : value;
}

static int compile(struct schema *schema)
{
    struct grammar *grammar = schema->grammar;
    uint32_t value = schema_root_value(schema, NULL);
    if (schema->failed)
        return schema->error->code;
    grammar->start = grammar_rule(grammar, NULL, 0);
    grammar_define(grammar, grammar->start,
                   grammar_cat(grammar, grammar_terminal(grammar, schema->space), value));
    int code = grammar_check(grammar, schema->error);
    if (code)
        error_prefix(schema->error, "schema");
    return code;
}

int schema_grammar(const struct constrain_limits *limits, const char *text, size_t len, struct grammar **out,
                   runnel_error *error)
{
    struct json_text json;
    struct grammar *grammar;
    runnel_error found = {0};
    int code = json_tree_read(text, len, &json, error);
    if (code)
        return code;
    code = grammar_create(limits, &grammar, error);
    if (!code) {
        struct schema schema = schema_begin(grammar, &json.root, &found);
        code = compile(&schema);
        schema_end(&schema);
        if (code) {
            grammar_free(grammar);
            error_set(error, code, "%s", found.message);
        } else {
            *out = grammar;
        }
    }
    json_tree_free(&json);
    return code;
}
