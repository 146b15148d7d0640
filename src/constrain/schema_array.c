/* schema_array.c: arrays of a schema. See schema_rules.h. */
#include "constrain/schema_rules.h"

#include <string.h>

enum { MAX_UNIQUE = 8 }; /* values that can be told apart: each set of them is a place of its own */

struct array {
    uint32_t min, max;
    bool is_unique;
    uint32_t n_prefix;      /* items that have a schema of their own */
    struct schema_rule one; /* what one of the items fulfils; json NULL: nothing is said */
};

/* "items" is one schema for all, or, before 2020, a list of those of the first ones. */
static const struct json *prefix_of(const struct json *json)
{
    const struct json *prefix = json_tree_member(json, "prefixItems"),
                      *items = json_tree_member(json, "items");
    if (prefix)
        return prefix->kind == JSON_ARRAY ? prefix : NULL;
    return items && items->kind == JSON_ARRAY ? items : NULL;
}

static void require_one(struct schema *schema, struct array *array, const struct json *json, bool is_not)
{
    if (array->one.json)
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "contains: more than one for a value, or with the opposite of 'items', is not supported");
    array->one = (struct schema_rule){.json = json, .kind = RULE_SCHEMA, .is_not = is_not};
}

static void read_contains(struct schema *schema, const struct schema_rule *rule, struct array *array)
{
    bool is_counted =
        json_tree_member(rule->json, "minContains") || json_tree_member(rule->json, "maxContains");
    if (!rule_is(rule, "contains")) {
        if (rule->is_not)
            schema_fail_opposite(schema, rule_keyword(rule), "within it");
    } else if (is_counted) {
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "'minContains' and 'maxContains' are not supported");
    } else if (!rule->is_not) {
        require_one(schema, array, rule_value(rule), false);
    }
}

static void read_keyword(struct schema *schema, const struct schema_rule *rule, struct array *array)
{
    const struct json *value = rule_value(rule);
    uint32_t count;
    if (rule_is(rule, "contains") || rule_is(rule, "minContains") || rule_is(rule, "maxContains")) {
        read_contains(schema, rule, array);
    } else if (rule_is(rule, "minItems")) {
        count = schema_count(schema, rule);
        if (rule->is_not && !count)
            array->max = 0, array->min = 1; /* shorter than 0: none is */
        else if (rule->is_not)
            array->max = count - 1 < array->max ? count - 1 : array->max;
        else
            array->min = count > array->min ? count : array->min;
    } else if (rule_is(rule, "maxItems")) {
        count = schema_count(schema, rule);
        if (rule->is_not)
            array->min = count + 1 > array->min ? count + 1 : array->min;
        else if (count < EXPR_FOREVER - 1) /* no answer has as many */
            array->max = count < array->max ? count : array->max;
    } else if (rule_is(rule, "uniqueItems")) {
        if (rule->is_not)
            schema_fail_opposite(schema, rule_keyword(rule), "within it");
        array->is_unique |= value->kind == JSON_TRUE;
    } else if (rule_is(rule, "items") || rule_is(rule, "prefixItems") || rule_is(rule, "additionalItems")) {
        const struct json *prefix = prefix_of(rule->json);
        if (rule->is_not && rule_is(rule, "items") && !prefix && !json_tree_member(rule->json, "prefixItems"))
            require_one(schema, array, value, true);
        else if (rule->is_not)
            schema_fail_opposite(schema, rule_keyword(rule), "within it");
        if (prefix && prefix->n > array->n_prefix)
            array->n_prefix = prefix->n;
    }
}

/* What holds for the item of this number; from n_prefix on all are alike. */
static void add_item_rules(struct schema *schema, const struct rule_list *list, uint32_t index,
                           struct rule_list *item)
{
    for (uint32_t i = 0; i < list->n && schema_work(schema, list->rules[i].json->n); i++) {
        const struct schema_rule *rule = &list->rules[i];
        if (rule_is(rule, "contains") && rule->is_not) /* no item fulfils it */
            rules_add(schema, item,
                      (struct schema_rule){.json = rule_value(rule), .kind = RULE_SCHEMA, .is_not = true});
        if (rule->is_not ||
            (!rule_is(rule, "items") && !rule_is(rule, "prefixItems") && !rule_is(rule, "additionalItems")))
            continue;
        const struct json *prefix = prefix_of(rule->json), *value = rule_value(rule);
        if (value == prefix && index < prefix->n)
            rules_add(schema, item, (struct schema_rule){.json = &prefix->items[index], .kind = RULE_SCHEMA});
        if (value == prefix || (prefix && index < prefix->n))
            continue;
        if (rule_is(rule, "additionalItems") && !(prefix && prefix == json_tree_member(rule->json, "items")))
            continue; /* it says something beside a list of "items" only */
        rules_add(schema, item, (struct schema_rule){.json = value, .kind = RULE_SCHEMA});
    }
}

/* The item of this number. also: what it fulfils, too, or NULL. */
static uint32_t item_symbol(struct schema *schema, const struct rule_list *list, uint32_t index,
                            const struct schema_rule *also)
{
    struct rule_list item = {0};
    if (also)
        rules_add(schema, &item, *also);
    add_item_rules(schema, list, index, &item);
    uint32_t symbol = schema->value(schema, &item);
    rules_free(&item);
    return symbol;
}

static uint32_t mark(struct schema *schema, const char *bytes)
{
    return grammar_terminal(schema->grammar, schema_mark(schema, bytes));
}

/* Items from this one on, each with what separates it from the one before; 0: there are none. */
static uint32_t items_from(struct schema *schema, const struct rule_list *list, const struct array *array,
                           uint32_t index)
{
    struct grammar *grammar = schema->grammar;
    uint32_t empty = grammar_terminal(grammar, EXPR_EMPTY), tail = empty;
    bool tail_is_possible = array->min <= array->n_prefix;
    if (array->max > array->n_prefix) {
        uint32_t item = item_symbol(schema, list, array->n_prefix, NULL);
        uint32_t min = array->min > array->n_prefix ? array->min - array->n_prefix : 0;
        uint32_t max = array->max == EXPR_FOREVER ? EXPR_FOREVER : array->max - array->n_prefix;
        uint32_t first = grammar_cat(grammar, mark(schema, ","), item);
        if (item && array->n_prefix) {
            tail = grammar_repeat(grammar, first, min, max);
            tail_is_possible = true;
        } else if (item) {
            tail = grammar_cat(
                grammar, item,
                grammar_repeat(grammar, first, min ? min - 1 : 0, max == EXPR_FOREVER ? max : max - 1));
            tail = min ? tail : grammar_or(grammar, tail, empty);
            tail_is_possible = true;
        }
    }
    for (uint32_t i = array->n_prefix; i-- > index;) {
        uint32_t item = i < array->max ? item_symbol(schema, list, i, NULL) : 0;
        bool may_end = array->min <= i;
        if (item && tail_is_possible) {
            item = i ? grammar_cat(grammar, mark(schema, ","), item) : item;
            tail = grammar_cat(grammar, item, tail);
            tail = may_end ? grammar_or(grammar, empty, tail) : tail;
        } else {
            tail = empty;
            tail_is_possible = may_end;
        }
    }
    return tail_is_possible ? tail : 0;
}

/* Items, one of which fulfils what one has to, with any others before and behind it. */
static uint32_t items_with(struct schema *schema, const struct rule_list *list, const struct array *array)
{
    struct grammar *grammar = schema->grammar;
    if (array->n_prefix || array->min > 1 || array->max != EXPR_FOREVER) {
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "contains: beside 'prefixItems', 'minItems' or 'maxItems' it, or the opposite of "
                    "'items', is not supported");
        return 0;
    }
    uint32_t one = item_symbol(schema, list, 0, &array->one), any = item_symbol(schema, list, 0, NULL);
    if (!one || !any)
        return 0;
    uint32_t before = grammar_cat(grammar, any, mark(schema, ",")),
             behind = grammar_cat(grammar, mark(schema, ","), any);
    return grammar_cat(grammar, grammar_repeat(grammar, before, 0, EXPR_FOREVER),
                       grammar_cat(grammar, one, grammar_repeat(grammar, behind, 0, EXPR_FOREVER)));
}

/* The values of which an item is one, in an array; NULL: they are not listed, too many, or not surely different. */
static const struct json *few_values(struct schema *schema, const struct rule_list *item)
{
    static const struct json words[] = {{.kind = JSON_NULL}, {.kind = JSON_FALSE}, {.kind = JSON_TRUE}};
    static const struct json all_words = {
        .kind = JSON_ARRAY, .items = (struct json *)(uintptr_t)words, .n = 3};
    bool are_words = !(rules_kinds(schema, item) & ~(unsigned)(VALUE_NULL | VALUE_BOOL));
    const struct json *values = are_words ? &all_words : NULL;
    uint64_t looks = 0;
    for (uint32_t i = 0; i < item->n && !values; i++)
        if (rule_is(&item->rules[i], "enum") && !item->rules[i].is_not)
            values = rule_value(&item->rules[i]);
    if (!values || values->n > MAX_UNIQUE)
        return NULL;
    for (uint32_t i = 0; i < values->n; i++)
        for (uint32_t k = 0; k < i; k++)
            if (!schema_work(schema, looks) ||
                json_tree_may_equal(&values->items[i], &values->items[k], &looks))
                return NULL;
    return values;
}

/* Items of a few values, each at most once: after[set] is what may follow these of them. */
static uint32_t items_once(struct schema *schema, const struct rule_list *item, const struct json *values,
                           const struct array *array)
{
    struct grammar *grammar = schema->grammar;
    uint32_t symbols[MAX_UNIQUE], after[1 << MAX_UNIQUE] = {0}, empty = grammar_terminal(grammar, EXPR_EMPTY);
    for (uint32_t i = 0; i < values->n; i++) {
        struct rule_list one = {0};
        rules_add_all(schema, &one, item);
        rules_add(schema, &one, (struct schema_rule){.json = values, .index = i, .kind = RULE_VALUE});
        symbols[i] = schema->value(schema, &one);
        rules_free(&one);
    }
    for (uint32_t set = 1u << values->n; set-- > 0;) {
        uint32_t count = (uint32_t)__builtin_popcount(set);
        uint32_t symbol = count >= array->min ? empty : 0;
        for (uint32_t i = 0; i < values->n && count < array->max; i++) {
            uint32_t next = set >> i & 1 || !symbols[i] ? 0 : after[set | 1u << i];
            next = next ? grammar_cat(grammar, symbols[i], next) : 0;
            next = next && count ? grammar_cat(grammar, mark(schema, ","), next) : next;
            symbol = grammar_either(grammar, symbol, next);
        }
        after[set] = grammar_shared(grammar, symbol);
    }
    return after[0];
}

static uint32_t unique_items(struct schema *schema, const struct rule_list *list, const struct array *array)
{
    struct rule_list item = {0};
    const struct json *values = NULL;
    uint32_t symbol = 0;
    add_item_rules(schema, list, 0, &item);
    if (!array->n_prefix && !array->one.json && schema_open(schema, &item))
        values = few_values(schema, &item);
    if (values)
        symbol = items_once(schema, &item, values, array);
    else
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "'uniqueItems' is not supported but for items of at most %d listed values", MAX_UNIQUE);
    rules_free(&item);
    return symbol;
}

uint32_t array_symbol(struct schema *schema, const struct rule_list *list)
{
    struct grammar *grammar = schema->grammar;
    struct exprs *exprs = schema->exprs;
    struct array array = {.max = EXPR_FOREVER};
    for (uint32_t i = 0; i < list->n; i++)
        if (list->rules[i].kind == RULE_KEYWORD)
            read_keyword(schema, &list->rules[i], &array);
    if (array.max < array.min)
        return 0;
    uint32_t items = array.is_unique && array.max > 1 ? unique_items(schema, list, &array)
                     : array.one.json                 ? items_with(schema, list, &array)
                                                      : items_from(schema, list, &array, 0);
    if (!items)
        return 0;
    uint32_t open = expr_cat(exprs, expr_range(exprs, '[', '['), schema->space);
    uint32_t close = expr_cat(exprs, schema->space, expr_range(exprs, ']', ']'));
    return grammar_cat(grammar, grammar_terminal(grammar, open),
                       grammar_cat(grammar, items, grammar_terminal(grammar, close)));
}
