/* schema_object.c: objects of a schema. See schema_rules.h.
 *
 * Members come in an order: those that "properties" name, then those that are only required, then others. So an object is a chain: at
 * each place the next member comes, or is left out where it may be; what counts is how many there are so far, as far as a
 * comma, "minProperties" or "maxProperties" depends on it. */
#include "constrain/schema_rules.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_NAMES = 5000,
    MAX_PATTERNS = 6, /* of "patternProperties": every combination of them has values of its own */
    MAX_COUNTED = 64, /* members, for "minProperties" and "maxProperties" */
};

struct named {
    const char *name;
    size_t len;
    bool is_required, is_absent;
};

struct object {
    const struct rule_list *list;
    struct named *names;
    uint32_t n_names, cap_names;
    struct {
        const struct json *member; /* of "patternProperties" */
        uint32_t expr;
    } patterns[MAX_PATTERNS];
    uint32_t n_patterns;
    uint32_t names_expr; /* of "propertyNames": what may stand between a name's quotes */
    uint32_t min, max, n_counts;
    uint32_t others;     /* a member that has no name here, with its value; 0: there is none */
    struct named nobody; /* whoever there is no room for */
};

/* --- what the list says ---------------------------------------------------------------------------------------------- */

static struct named *named(struct schema *schema, struct object *object, const char *name, size_t len)
{
    if (!schema_work(schema, object->n_names))
        return &object->nobody;
    for (uint32_t i = 0; i < object->n_names; i++)
        if (object->names[i].len == len && !memcmp(object->names[i].name, name, len))
            return &object->names[i];
    if (object->n_names == object->cap_names) {
        uint32_t cap = object->cap_names ? object->cap_names * 2 : 16;
        if (object->n_names >= MAX_NAMES) {
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "properties: more than %d of them", MAX_NAMES);
            return &object->nobody;
        }
        void *grown = realloc(object->names, cap * sizeof *object->names);
        if (!grown) {
            schema_fail(schema, RUNNEL_ENOMEM, "no memory");
            return &object->nobody;
        }
        object->names = grown;
        object->cap_names = cap;
    }
    object->names[object->n_names] = (struct named){.name = name, .len = len};
    return &object->names[object->n_names++];
}

static void add_patterns(struct schema *schema, struct object *object, const struct json *value)
{
    static const char *const keyword = "patternProperties";
    for (uint32_t i = 0; i < value->n && !schema->failed; i++) {
        const struct json *member = &value->items[i];
        if (object->n_patterns == MAX_PATTERNS) {
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "%s: more than %d of them", keyword, MAX_PATTERNS);
            return;
        }
        object->patterns[object->n_patterns].member = member;
        object->patterns[object->n_patterns].expr =
            string_pattern(schema, keyword, member->name, member->name_len);
        object->n_patterns++;
    }
}

/* "propertyNames": a schema of strings without a choice. */
static void add_names_expr(struct schema *schema, struct object *object, const struct json *value)
{
    struct rule_list list = {0};
    bool is_free;
    rules_add(schema, &list, (struct schema_rule){.json = value, .kind = RULE_SCHEMA});
    if (!schema_open(schema, &list)) {
        object->names_expr = EXPR_NONE;
    } else {
        uint32_t expr =
            rules_kinds(schema, &list) & VALUE_STRING ? string_content(schema, &list, &is_free) : EXPR_NONE;
        for (uint32_t i = 0; i < list.n; i++) {
            const struct schema_rule *rule = &list.rules[i];
            if (rule_is_choice(rule) || rule_is(rule, "const")) {
                schema_fail(schema, RUNNEL_EUNSUPPORTED, "propertyNames: '%s' within it is not supported",
                            rule_keyword(rule));
            } else if (rule_is(rule, "enum")) {
                uint32_t choice = string_choice(schema, rule_value(rule));
                choice = rule->is_not ? expr_not(schema->exprs, choice) : choice;
                expr = expr_both(schema->exprs, expr, choice);
            }
        }
        object->names_expr = expr_both(schema->exprs, object->names_expr, expr);
    }
    rules_free(&list);
}

static void require(struct schema *schema, struct object *object, const struct json *names)
{
    for (uint32_t i = 0; names->kind == JSON_ARRAY && i < names->n; i++)
        if (names->items[i].kind == JSON_STRING)
            named(schema, object, names->items[i].text, names->items[i].len)->is_required = true;
}

static void read_keyword(struct schema *schema, struct object *object, const struct schema_rule *rule)
{
    const struct json *value = rule_value(rule);
    uint32_t count;
    if (rule_is(rule, "minProperties") || rule_is(rule, "maxProperties")) {
        bool is_lower = rule_is(rule, "minProperties");
        count = schema_count(schema, rule);
        if (rule->is_not && is_lower && !count)
            object->min = 1, object->max = 0; /* fewer than none */
        else if (rule->is_not ? !is_lower : is_lower)
            object->min = count + rule->is_not > object->min ? count + rule->is_not : object->min;
        else
            object->max = count - rule->is_not < object->max ? count - rule->is_not : object->max;
        return;
    }
    bool is_known = rule_is(rule, "patternProperties") || rule_is(rule, "additionalProperties") ||
                    rule_is(rule, "propertyNames");
    if (rule->is_not && is_known)
        schema_fail_opposite(schema, rule_keyword(rule), "within it");
    else if (rule_is(rule, "patternProperties"))
        add_patterns(schema, object, value);
    else if (rule_is(rule, "propertyNames"))
        add_names_expr(schema, object, value);
    else if (rule_is(rule, "required"))
        require(schema, object, value);
    else if (rule_is(rule, "properties"))
        for (uint32_t i = 0; i < value->n; i++)
            named(schema, object, value->items[i].name, value->items[i].name_len);
}

/* The name that a rule about one member means. */
static struct named *named_by(struct schema *schema, struct object *object, const struct schema_rule *rule)
{
    const struct json *value = rule_value(rule);
    return rule->json->kind == JSON_OBJECT
               ? named(schema, object, value->name, value->name_len)
               : named(schema, object, value->kind == JSON_STRING ? value->text : "", value->len);
}

static void read_rules(struct schema *schema, struct object *object)
{
    const struct rule_list *list = object->list;
    for (uint32_t pass = 0; pass < 2; pass++) /* "properties" first: its order is the members' */
        for (uint32_t i = 0; i < list->n && !schema->failed; i++) {
            const struct schema_rule *rule = &list->rules[i];
            if (rule->kind == RULE_KEYWORD ? rule_is(rule, "properties") != !pass : !pass)
                continue;
            if (rule->kind == RULE_KEYWORD)
                read_keyword(schema, object, rule);
            else if (rule->kind == RULE_ITEMS)
                require(schema, object, rule->json);
            else if (rule->kind == RULE_ITEM)
                named_by(schema, object, rule)->is_absent = true;
            else if (rule->kind == RULE_UNLIKE)
                named_by(schema, object, rule)->is_required = true;
        }
}

/* --- values of members ---------------------------------------------------------------------------------------------- */

static void add_schema(struct schema *schema, struct rule_list *list, const struct json *json, bool is_not)
{
    rules_add(schema, list, (struct schema_rule){.json = json, .kind = RULE_SCHEMA, .is_not = is_not});
}

/* Which patterns a name matches: a bit for each. */
static uint32_t patterns_of(struct schema *schema, const struct object *object, const struct named *name)
{
    uint32_t matched = 0;
    for (uint32_t i = 0; i < object->n_patterns; i++)
        if (string_matches(schema, object->patterns[i].expr, name->name, name->len))
            matched |= 1u << i;
    return matched;
}

static bool has_pattern_of(const struct object *object, uint32_t matched, const struct json *patterns)
{
    for (uint32_t i = 0; i < object->n_patterns; i++) {
        const struct json *member = object->patterns[i].member;
        if ((matched >> i & 1) && patterns && member >= patterns->items &&
            member < patterns->items + patterns->n)
            return true;
    }
    return false;
}

/* What holds for the value of a member: of this name, or NULL: of one that no "properties" names; matched: its patterns. */
static uint32_t member_value(struct schema *schema, const struct object *object, const struct named *name,
                             uint32_t matched)
{
    struct rule_list value = {0};
    for (uint32_t i = 0; i < object->list->n; i++) {
        const struct schema_rule *rule = &object->list->rules[i];
        const struct json *properties =
            rule->kind == RULE_KEYWORD ? json_tree_member(rule->json, "properties") : NULL;
        const struct json *own = name ? json_tree_member_n(properties, name->name, name->len) : NULL;
        if (!schema_work(schema, 1 + (name && properties ? properties->n : 0)))
            break;
        if (rule_is(rule, "properties") && own)
            add_schema(schema, &value, own, false);
        if (rule_is(rule, "additionalProperties") && !own &&
            !has_pattern_of(object, matched, json_tree_member(rule->json, "patternProperties")))
            add_schema(schema, &value, rule_value(rule), false);
        if (rule->kind == RULE_UNLIKE && name && rule_value(rule)->name_len == name->len &&
            !memcmp(rule_value(rule)->name, name->name, name->len))
            add_schema(schema, &value, rule_value(rule), true);
    }
    for (uint32_t i = 0; i < object->n_patterns; i++)
        if (matched >> i & 1)
            add_schema(schema, &value, object->patterns[i].member, false);
    uint32_t symbol = schema->value(schema, &value);
    rules_free(&value);
    return symbol;
}

/* --- members that have no name here --------------------------------------------------------------------------------- */

static uint32_t quoted(struct schema *schema, uint32_t content)
{
    struct exprs *exprs = schema->exprs;
    uint32_t quote = expr_range(exprs, '"', '"');
    return expr_cat(exprs, quote, expr_cat(exprs, content, quote));
}

static uint32_t known_names(struct schema *schema, const struct object *object)
{
    uint32_t expr, *exprs = calloc(object->n_names + 1, sizeof *exprs);
    if (!exprs) {
        schema_fail(schema, RUNNEL_ENOMEM, "no memory");
        return EXPR_NONE;
    }
    for (uint32_t i = 0; i < object->n_names; i++)
        exprs[i] = string_literal(schema, object->names[i].name, object->names[i].len, true);
    expr = expr_or(schema->exprs, exprs, object->n_names);
    free(exprs);
    return expr;
}

static uint32_t other_members(struct schema *schema, const struct object *object)
{
    struct exprs *exprs = schema->exprs;
    struct grammar *grammar = schema->grammar;
    uint32_t symbol = 0, known = known_names(schema, object);
    for (uint32_t matched = 0; matched < 1u << object->n_patterns && !schema->failed; matched++) {
        uint32_t value = member_value(schema, object, NULL, matched);
        uint32_t content = expr_both(exprs, schema->name, object->names_expr);
        if (!value)
            continue;
        content = expr_both(exprs, content, expr_not(exprs, known));
        for (uint32_t i = 0; i < object->n_patterns; i++) {
            uint32_t pattern = object->patterns[i].expr;
            content = expr_both(exprs, content, matched >> i & 1 ? pattern : expr_not(exprs, pattern));
        }
        uint32_t name = grammar_kept(grammar, quoted(schema, content));
        uint32_t member = grammar_cat(
            grammar, name, grammar_cat(grammar, grammar_terminal(grammar, schema_mark(schema, ":")), value));
        symbol = symbol ? grammar_or(grammar, symbol, member) : member;
    }
    return symbol;
}

/* --- the chain ------------------------------------------------------------------------------------------------------ */

static uint32_t comma(struct schema *schema, uint32_t n_before)
{
    return n_before ? schema_mark(schema, ",") : EXPR_EMPTY;
}

/* after[c]: what may follow c members, once all that have names are past. */
static void begin_chain(struct schema *schema, const struct object *object, uint32_t *after)
{
    struct grammar *grammar = schema->grammar;
    uint32_t last = object->n_counts - 1;
    for (uint32_t count = last + 1; count-- > 0;) {
        uint32_t end = count >= object->min ? grammar_terminal(grammar, EXPR_EMPTY) : 0;
        after[count] = end;
        if (!object->others || count >= object->max)
            continue;
        uint32_t member =
            grammar_cat(grammar, grammar_terminal(grammar, comma(schema, count)), object->others);
        if (count == last) /* there are no more to be counted */
            after[count] = grammar_repeat(grammar, member, 0, EXPR_FOREVER);
        else if (after[count + 1])
            after[count] = grammar_either(grammar, grammar_cat(grammar, member, after[count + 1]), end);
        after[count] = grammar_shared(grammar, after[count]);
    }
}

/* Puts a member before what follows it. */
static void add_to_chain(struct schema *schema, const struct object *object, const struct named *name,
                         uint32_t *after)
{
    struct exprs *exprs = schema->exprs;
    struct grammar *grammar = schema->grammar;
    uint32_t value = 0, last = object->n_counts - 1;
    uint32_t key = quoted(schema, string_literal(schema, name->name, name->len, false));
    if (!name->is_absent && string_matches(schema, object->names_expr, name->name, name->len))
        value =
            grammar_shared(grammar, member_value(schema, object, name, patterns_of(schema, object, name)));
    key = expr_cat(exprs, key, schema_mark(schema, ":"));
    for (uint32_t count = 0; count <= last; count++) {
        uint32_t next = after[count < last ? count + 1 : last], with = 0;
        if (value && next && count < object->max)
            with = grammar_cat(grammar, grammar_terminal(grammar, expr_cat(exprs, comma(schema, count), key)),
                               grammar_cat(grammar, value, next));
        after[count] =
            grammar_shared(grammar, name->is_required ? with : grammar_either(grammar, with, after[count]));
    }
}

static uint32_t chain(struct schema *schema, const struct object *object)
{
    uint32_t after[MAX_COUNTED + 2];
    begin_chain(schema, object, after);
    for (uint32_t i = object->n_names; i-- > 0 && !schema->failed;)
        add_to_chain(schema, object, &object->names[i], after);
    return after[0];
}

/* Members that have no name here are counted as they come, and one of them may come twice: it would be counted as two. */
static void check_counted(struct schema *schema, const struct object *object)
{
    uint32_t n_sure = object->others ? 1 : 0;
    for (uint32_t i = 0; i < object->n_names; i++)
        n_sure += object->names[i].is_required;
    if (object->others && object->min > n_sure)
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "minProperties: expected at most one more than there are in 'required', where others "
                    "than those of 'properties' may come");
}

uint32_t object_symbol(struct schema *schema, const struct rule_list *list)
{
    struct grammar *grammar = schema->grammar;
    struct exprs *exprs = schema->exprs;
    struct object object = {.list = list, .names_expr = EXPR_ALL, .max = EXPR_FOREVER};
    uint32_t members = 0;
    read_rules(schema, &object);
    uint32_t counted = object.max == EXPR_FOREVER || object.max < object.min ? object.min : object.max;
    if (counted > MAX_COUNTED)
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "minProperties, maxProperties: expected at most %d",
                    MAX_COUNTED);
    object.n_counts = (counted > 1 ? counted : 1) + 1;
    if (!schema->failed && object.min <= object.max) {
        object.others = grammar_shared(grammar, other_members(schema, &object));
        check_counted(schema, &object);
        members = chain(schema, &object);
    }
    free(object.names);
    if (!members || schema->failed)
        return 0;
    uint32_t open = expr_cat(exprs, expr_range(exprs, '{', '{'), schema->space);
    uint32_t close = expr_cat(exprs, schema->space, expr_range(exprs, '}', '}'));
    return grammar_cat(grammar, grammar_terminal(grammar, open),
                       grammar_cat(grammar, members, grammar_terminal(grammar, close)));
}
