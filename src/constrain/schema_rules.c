/* schema_rules.c: see schema_rules.h: what keywords are, and how lists of rules are opened. */
#include "constrain/schema_rules.h"

#include "constrain/schema_reference.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_RULES = 4096, /* of a list */
};

/* What a keyword does to a list. */
enum keyword_kind {
    KEYWORD_NOTE, /* nothing */
    KEYWORD_ASSERTS,
    KEYWORD_ALL,    /* allOf, $ref, not: opened */
    KEYWORD_CHOICE, /* a value is one of several lists */
    KEYWORD_REFUSED,
};

static const struct keyword {
    const char *name;
    uint8_t kind, values; /* values: of which kinds it says something */
} keywords[] = {
    {"type", KEYWORD_ASSERTS, VALUE_ANY},
    {"enum", KEYWORD_ASSERTS, VALUE_ANY},
    {"const", KEYWORD_ASSERTS, VALUE_ANY},
    {"minLength", KEYWORD_ASSERTS, VALUE_STRING},
    {"maxLength", KEYWORD_ASSERTS, VALUE_STRING},
    {"pattern", KEYWORD_ASSERTS, VALUE_STRING},
    {"format", KEYWORD_ASSERTS, VALUE_STRING},
    {"minimum", KEYWORD_ASSERTS, VALUE_NUMBER},
    {"maximum", KEYWORD_ASSERTS, VALUE_NUMBER},
    {"exclusiveMinimum", KEYWORD_ASSERTS, VALUE_NUMBER},
    {"exclusiveMaximum", KEYWORD_ASSERTS, VALUE_NUMBER},
    {"multipleOf", KEYWORD_ASSERTS, VALUE_NUMBER},
    {"items", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"prefixItems", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"additionalItems", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"minItems", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"maxItems", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"uniqueItems", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"properties", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"patternProperties", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"additionalProperties", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"propertyNames", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"required", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"minProperties", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"maxProperties", KEYWORD_ASSERTS, VALUE_OBJECT},
    {"allOf", KEYWORD_ALL, 0},
    {"$ref", KEYWORD_ALL, 0},
    {"not", KEYWORD_ALL, 0},
    {"dependencies", KEYWORD_ALL, 0},
    {"dependentRequired", KEYWORD_ALL, 0},
    {"dependentSchemas", KEYWORD_ALL, 0},
    {"anyOf", KEYWORD_CHOICE, 0},
    {"oneOf", KEYWORD_CHOICE, 0},
    {"if", KEYWORD_CHOICE, 0},
    {"contains", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"minContains", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"maxContains", KEYWORD_ASSERTS, VALUE_ARRAY},
    {"unevaluatedItems", KEYWORD_REFUSED, VALUE_ARRAY},
    {"unevaluatedProperties", KEYWORD_REFUSED, VALUE_OBJECT},
    {"$dynamicRef", KEYWORD_REFUSED, 0},
    {"$recursiveRef", KEYWORD_REFUSED, 0},
};

static const struct keyword *find_keyword(const char *name)
{
    static const struct keyword note = {"", KEYWORD_NOTE, 0};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (!strcmp(keywords[i].name, name))
            return &keywords[i];
    return &note;
}

uint32_t schema_mark(struct schema *schema, const char *bytes)
{
    struct exprs *exprs = schema->exprs;
    return expr_cat(exprs, schema->space,
                    expr_cat(exprs, expr_literal(exprs, bytes, strlen(bytes)), schema->space));
}

bool rules_add(struct schema *schema, struct rule_list *list, struct schema_rule rule)
{
    if (!schema_work(schema, list->n + 1))
        return false;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->rules[i].json == rule.json && list->rules[i].kind == rule.kind &&
            list->rules[i].index == rule.index && list->rules[i].is_not == rule.is_not)
            return true;
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 8;
        if (cap > MAX_RULES) {
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "more than %d keywords hold for one value", MAX_RULES);
            return false;
        }
        void *grown = realloc(list->rules, cap * sizeof *list->rules);
        if (!grown) {
            schema_fail(schema, RUNNEL_ENOMEM, "no memory");
            return false;
        }
        list->rules = grown;
        list->cap = cap;
    }
    list->rules[list->n++] = rule;
    return true;
}

void rules_add_all(struct schema *schema, struct rule_list *list, const struct rule_list *other)
{
    for (uint32_t i = 0; i < other->n; i++)
        rules_add(schema, list, other->rules[i]);
}

void rules_free(struct rule_list *list)
{
    free(list->rules);
    *list = (struct rule_list){0};
}

const char *rule_keyword(const struct schema_rule *rule)
{
    switch ((enum rule_kind)rule->kind) {
    case RULE_KEYWORD:
        return rule->json->items[rule->index].name;
    case RULE_SCHEMA:
        return "not";
    case RULE_MEMBER:
    case RULE_ITEM:
    case RULE_UNLIKE:
    case RULE_VALUE:
        return rule->json->name ? rule->json->name : "";
    case RULE_ITEMS:
        return "dependentRequired";
    }
    return "";
}

const struct json *rule_value(const struct schema_rule *rule)
{
    return rule->index < rule->json->n ? &rule->json->items[rule->index] : NULL;
}

bool rule_is(const struct schema_rule *rule, const char *keyword)
{
    return rule->kind == RULE_KEYWORD && !strcmp(rule->json->items[rule->index].name, keyword);
}

static void add_schema(struct schema *schema, struct rule_list *list, const struct json *json, bool is_not)
{
    rules_add(schema, list, (struct schema_rule){.json = json, .kind = RULE_SCHEMA, .is_not = is_not});
}

/* --- opening -------------------------------------------------------------------------------------------------------- */

static bool expect_kind(struct schema *schema, const struct json *json, enum json_kind kind)
{
    static const char *const names[] = {
        [JSON_TRUE] = "true or false",
        [JSON_STRING] = "a string",
        [JSON_ARRAY] = "an array",
        [JSON_OBJECT] = "an object",
    };
    bool is_it = json->kind == kind || (json->kind == JSON_FALSE && kind == JSON_TRUE);
    if (!is_it)
        schema_fail(schema, RUNNEL_EINVAL, "%s: expected %s", json->name ? json->name : "", names[kind]);
    return is_it;
}

/* What is of another type than its keyword's would say nothing without a word. Null says nothing of members, as some clients write it. */
static void check_type(struct schema *schema, const struct json *value)
{
    static const struct {
        const char *name;
        enum json_kind kind;
        bool may_be_null;
    } types[] = {{"enum", JSON_ARRAY, false},       {"required", JSON_ARRAY, true},
                 {"properties", JSON_OBJECT, true}, {"patternProperties", JSON_OBJECT, true},
                 {"uniqueItems", JSON_TRUE, true},  {"format", JSON_STRING, true}};
    bool is_required = !strcmp(value->name, "required");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(value->name, types[i].name) && !(value->kind == JSON_NULL && types[i].may_be_null))
            expect_kind(schema, value, types[i].kind);
    for (uint32_t i = 0; is_required && i < value->n && schema_work(schema, 1); i++)
        if (value->items[i].kind != JSON_STRING)
            schema_fail(schema, RUNNEL_EINVAL, "required: expected strings");
}

/* "dependentRequired" and the like: for each member a choice. */
static void open_dependencies(struct schema *schema, struct rule_list *list, const struct json *value)
{
    if (expect_kind(schema, value, JSON_OBJECT))
        for (uint32_t i = 0; i < value->n; i++)
            rules_add(schema, list, (struct schema_rule){.json = value, .index = i, .kind = RULE_MEMBER});
}

/* A keyword that is opened. */
static void open_keyword(struct schema *schema, struct rule_list *list, const struct json *json,
                         uint32_t index, bool is_not)
{
    const struct json *value = &json->items[index];
    if (!strcmp(value->name, "not")) {
        schema->opposite = "not";
        add_schema(schema, list, value, !is_not);
    } else if (!strcmp(value->name, "$ref")) {
        const struct json *target = schema_reference(schema, value);
        if (target)
            add_schema(schema, list, target, is_not);
    } else if (is_not) { /* allOf: one of them is not fulfilled */
        if (strcmp(value->name, "allOf"))
            schema_fail_opposite(schema, value->name, "within it");
        rules_add(schema, list,
                  (struct schema_rule){.json = json, .index = index, .kind = RULE_KEYWORD, .is_not = true});
    } else if (!strcmp(value->name, "allOf")) {
        if (expect_kind(schema, value, JSON_ARRAY))
            for (uint32_t i = 0; i < value->n; i++)
                add_schema(schema, list, &value->items[i], false);
    } else {
        open_dependencies(schema, list, value);
    }
}

/* What only its draft 3 knows. Elsewhere it says nothing. */
static void refuse_of_draft_3(struct schema *schema, const struct json *value)
{
    static const char *const names[] = {"divisibleBy", "disallow", "extends"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(value->name, names[i]) && schema_is_of_draft(schema, "draft-03"))
            schema_fail(schema, RUNNEL_EUNSUPPORTED, "'%s' is not supported", value->name);
}

static void open_member(struct schema *schema, struct rule_list *list, const struct json *json,
                        uint32_t index, bool is_not)
{
    const struct json *value = &json->items[index];
    const struct keyword *keyword = find_keyword(value->name);
    switch ((enum keyword_kind)keyword->kind) {
    case KEYWORD_NOTE:
        refuse_of_draft_3(schema, value);
        break;
    case KEYWORD_REFUSED:
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "'%s' is not supported", value->name);
        break;
    case KEYWORD_ALL:
        open_keyword(schema, list, json, index, is_not);
        break;
    case KEYWORD_CHOICE:
        if (is_not && !strcmp(value->name, "anyOf")) {
            if (expect_kind(schema, value, JSON_ARRAY))
                for (uint32_t i = 0; i < value->n; i++)
                    add_schema(schema, list, &value->items[i], true);
            break;
        }
        if (is_not && strcmp(value->name, "oneOf"))
            schema_fail_opposite(schema, value->name, "within it");
        rules_add(schema, list,
                  (struct schema_rule){.json = json, .index = index, .kind = RULE_KEYWORD, .is_not = is_not});
        break;
    case KEYWORD_ASSERTS:
        check_type(schema, value);
        rules_add(schema, list,
                  (struct schema_rule){.json = json, .index = index, .kind = RULE_KEYWORD, .is_not = is_not});
        break;
    }
}

/* In drafts up to 7, what stands beside a "$ref" says nothing. It is kept all the same, which makes values fewer; but not where the
 * opposite is asked for, which it would make more. */
static bool is_reference_alone(struct schema *schema, const struct json *json)
{
    static const char *const drafts[] = {"draft-03", "draft-04", "draft-05", "draft-06", "draft-07"};
    if (!schema_work(schema, json->n) || !json_tree_member(json, "$ref"))
        return false;
    for (size_t i = 0; i < sizeof drafts / sizeof *drafts; i++)
        if (schema_is_of_draft(schema, drafts[i]))
            return true;
    return false;
}

/* How many members of a schema say something, where its opposite is asked for; *last: one of them. */
static uint32_t n_said(struct schema *schema, const struct json *json, uint32_t *last)
{
    uint32_t n = 0;
    if (is_reference_alone(schema, json)) {
        *last = (uint32_t)(json_tree_member(json, "$ref") - json->items);
        return 1;
    }
    for (uint32_t i = 0; i < json->n; i++)
        if (find_keyword(json->items[i].name)->kind != KEYWORD_NOTE) {
            n++;
            *last = i;
        }
    return n;
}

/* What a schema says, in rules of their own. False: nothing fulfils it. */
static bool open_schema(struct schema *schema, struct rule_list *list, struct schema_rule rule)
{
    const struct json *json = rule.json;
    uint32_t last = 0;
    if (!schema_work(schema, json->n))
        return false;
    if (json->kind == JSON_TRUE || json->kind == JSON_FALSE)
        return (json->kind == JSON_TRUE) != rule.is_not;
    if (json->kind != JSON_OBJECT) {
        schema_fail(schema, RUNNEL_EINVAL, "expected an object, true or false as a schema%s%s",
                    json->name ? " in " : "", json->name ? json->name : "");
        return false;
    }
    if (!rule.is_not) {
        for (uint32_t i = 0; i < json->n; i++)
            open_member(schema, list, json, i, false);
        return true;
    }
    uint32_t n = n_said(schema, json, &last);
    if (n == 1)
        open_member(schema, list, json, last, true);
    else if (n) /* a choice: one of its keywords is not fulfilled */
        rules_add(
            schema, list,
            (struct schema_rule){.json = json, .index = UINT32_MAX, .kind = RULE_SCHEMA, .is_not = true});
    return n;
}

/* The rules from `end` on are put behind number i, as if they had been written there. */
static void move_behind(struct rule_list *list, uint32_t i, uint32_t end)
{
    for (struct schema_rule *to = list->rules + i + 1; end < list->n; end++, to++) {
        struct schema_rule rule = list->rules[end];
        memmove(to + 1, to, (size_t)(list->rules + end - to) * sizeof *to);
        *to = rule;
    }
}

/* What a rule is opened into stands in its place: members come in the order in which the text of a schema has them. */
bool schema_open(struct schema *schema, struct rule_list *list)
{
    for (uint32_t i = 0; i < list->n && !schema->failed; i++) {
        struct schema_rule rule = list->rules[i];
        uint32_t end = list->n;
        if (rule.kind == RULE_SCHEMA && rule.index != UINT32_MAX && !open_schema(schema, list, rule))
            return false;
        move_behind(list, i, end);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->rules[i].kind != RULE_SCHEMA || list->rules[i].index == UINT32_MAX)
            list->rules[n++] = list->rules[i];
    list->n = n;
    return !schema->failed;
}

/* --- choices -------------------------------------------------------------------------------------------------------- */

bool rule_is_choice(const struct schema_rule *rule)
{
    if (rule->kind == RULE_SCHEMA)
        return true; /* the opposite of several keywords */
    if (rule->kind == RULE_MEMBER)
        return true; /* a dependency */
    if (rule->kind != RULE_KEYWORD)
        return false;
    if (rule->is_not)
        return rule_is(rule, "allOf") || rule_is(rule, "oneOf") || rule_is(rule, "required") ||
               rule_is(rule, "properties");
    return find_keyword(rule_keyword(rule))->kind == KEYWORD_CHOICE;
}

static bool branch_of_if(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                         struct rule_list *branch)
{
    const struct json *then = json_tree_member(rule->json, which ? "else" : "then");
    if (which > 1)
        return false;
    schema->opposite = which ? "if" : schema->opposite;
    add_schema(schema, branch, rule_value(rule), which);
    if (then)
        add_schema(schema, branch, then, false);
    return true;
}

/* The kinds of values that a schema leaves by its own "type", "const" and "enum". */
static unsigned kinds_of(struct schema *schema, const struct json *json)
{
    struct rule_list list = {0};
    unsigned kinds = VALUE_ANY;
    for (uint32_t i = 0; json->kind == JSON_OBJECT && i < json->n; i++)
        if (find_keyword(json->items[i].name)->values == VALUE_ANY)
            rules_add(schema, &list, (struct schema_rule){.json = json, .index = i, .kind = RULE_KEYWORD});
    if (list.n)
        kinds = rules_kinds(schema, &list);
    rules_free(&list);
    return kinds;
}

/* Where a $ref leads, whatever stands beside it; NULL: not at once to a schema without one, or it failed. */
static const struct json *seen_through(struct schema *schema, const struct json *json)
{
    for (unsigned i = 0; i < 16 && json && json_tree_member(json, "$ref") && !schema->failed; i++)
        json = schema_reference(schema, json_tree_member(json, "$ref"));
    return json && json_tree_member(json, "$ref") ? NULL : json;
}

/* The schema of a member, with what stands beside a "$ref" only where that says something. */
static const struct json *member_schema(struct schema *schema, const struct json *member)
{
    return member && is_reference_alone(schema, member) ? seen_through(schema, member) : member;
}

static bool names_member(struct schema *schema, const struct json *required, const struct json *member)
{
    for (uint32_t i = 0;
         required && required->kind == JSON_ARRAY && i < required->n && schema_work(schema, 1); i++)
        if (required->items[i].kind == JSON_STRING && required->items[i].len == member->name_len &&
            !memcmp(required->items[i].text, member->name, member->name_len))
            return true;
    return false;
}

/* True where it takes too long, too. */
static bool allows_value(struct schema *schema, const struct json *json, const struct json *value)
{
    const struct json *constant = json_tree_member(json, "const"), *values = json_tree_member(json, "enum");
    uint64_t looks = 0;
    bool allows = constant ? json_tree_may_equal(constant, value, &looks) : !values;
    for (uint32_t i = 0; !constant && values && i < values->n && !allows; i++)
        allows = !schema_work(schema, 1) || json_tree_may_equal(&values->items[i], value, &looks);
    return !schema_work(schema, looks) || allows;
}

/* Both list their values, and have none in common. */
static bool values_differ(struct schema *schema, const struct json *one, const struct json *other)
{
    const struct json *constant = json_tree_member(one, "const"), *values = json_tree_member(one, "enum");
    if (!json_tree_member(other, "const") && !json_tree_member(other, "enum"))
        return false;
    if (constant)
        return !allows_value(schema, other, constant);
    for (uint32_t i = 0; values && i < values->n; i++)
        if (allows_value(schema, other, &values->items[i]))
            return false;
    return values;
}

/* Both require this member of one's properties, and no value of it fulfils what both want. */
static bool members_differ(struct schema *schema, const struct json *one, const struct json *other,
                           const struct json *member)
{
    const struct json *others = json_tree_member(other, "properties");
    const struct json *twin = json_tree_member_n(others, member->name, member->name_len);
    if (!schema_work(schema, 1 + (others ? others->n : 0) + (twin ? one->n + other->n : 0)) || !twin ||
        !names_member(schema, json_tree_member(one, "required"), member) ||
        !names_member(schema, json_tree_member(other, "required"), twin))
        return false;
    member = member_schema(schema, member);
    twin = member_schema(schema, twin);
    return member && twin &&
           (values_differ(schema, member, twin) || !(kinds_of(schema, member) & kinds_of(schema, twin)));
}

/* Objects with a member that the other one, which has no others than its properties, lacks. */
static bool requires_what_lacks(struct schema *schema, const struct json *one, const struct json *other)
{
    const struct json *required = json_tree_member(one, "required"),
                      *properties = json_tree_member(other, "properties"),
                      *additional = json_tree_member(other, "additionalProperties");
    if (!additional || additional->kind != JSON_FALSE || json_tree_member(other, "patternProperties") ||
        !required || required->kind != JSON_ARRAY)
        return false;
    for (uint32_t i = 0; i < required->n && schema_work(schema, 1 + (properties ? properties->n : 0)); i++)
        if (required->items[i].kind == JSON_STRING &&
            !json_tree_member_n(properties, required->items[i].text, required->items[i].len))
            return true;
    return false;
}

/* No value fulfils both, as far as one sees at once: their kinds, their values, or a member that one of them requires. */
static bool are_apart(struct schema *schema, const struct json *one, const struct json *other)
{
    one = seen_through(schema, one);
    other = seen_through(schema, other);
    if (schema->failed || !one || !other)
        return false;
    if (!(kinds_of(schema, one) & kinds_of(schema, other)) || values_differ(schema, one, other))
        return true;
    if (kinds_of(schema, one) != VALUE_OBJECT && kinds_of(schema, other) != VALUE_OBJECT)
        return false;
    if (requires_what_lacks(schema, one, other) || requires_what_lacks(schema, other, one))
        return true;
    const struct json *properties = json_tree_member(one, "properties");
    for (uint32_t i = 0; properties && properties->kind == JSON_OBJECT && i < properties->n; i++)
        if (members_differ(schema, one, other, &properties->items[i]))
            return true;
    return false;
}

static bool branch_of_list(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                           struct rule_list *branch)
{
    const struct json *value = rule_value(rule);
    if (!expect_kind(schema, value, JSON_ARRAY) || which >= value->n)
        return false;
    add_schema(schema, branch, &value->items[which], rule->is_not);
    for (uint32_t i = 0; !strcmp(value->name, "oneOf") && i < value->n; i++)
        if (i != which && !are_apart(schema, &value->items[which], &value->items[i])) {
            schema->opposite = "oneOf";
            add_schema(schema, branch, &value->items[i], true);
        }
    return true;
}

/* The opposite of "oneOf": none of them, or two of them. */
static bool branch_of_not_one(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                              struct rule_list *branch)
{
    const struct json *value = rule_value(rule);
    if (!expect_kind(schema, value, JSON_ARRAY))
        return false;
    for (uint32_t i = 0; !which && i < value->n; i++)
        add_schema(schema, branch, &value->items[i], true);
    if (!which)
        return true;
    for (uint32_t i = 0, pair = 1; i < value->n && schema_work(schema, 1); i++) {
        uint32_t n_pairs = value->n - i - 1; /* of it and one behind it */
        if (which < pair + n_pairs) {
            add_schema(schema, branch, &value->items[i], false);
            add_schema(schema, branch, &value->items[i + 1 + which - pair], false);
            return true;
        }
        pair += n_pairs;
    }
    return false;
}

/* A dependency: an object without the member, or one that fulfils what depends on it. */
static bool branch_of_dependency(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                                 struct rule_list *branch)
{
    const struct json *value = rule_value(rule);
    if (which > 1)
        return false;
    if (!which)
        rules_add(schema, branch,
                  (struct schema_rule){.json = rule->json, .index = rule->index, .kind = RULE_ITEM});
    else if (value->kind == JSON_ARRAY)
        rules_add(schema, branch, (struct schema_rule){.json = value, .kind = RULE_ITEMS});
    else
        add_schema(schema, branch, value, false);
    return true;
}

/* Of the opposite of several keywords: the opposite of one of them. */
static bool branch_of_opposite(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                               struct rule_list *branch)
{
    for (uint32_t i = 0; i < rule->json->n && schema_work(schema, 1); i++)
        if (find_keyword(rule->json->items[i].name)->kind != KEYWORD_NOTE && !which--) {
            open_member(schema, branch, rule->json, i, true);
            return true;
        }
    return false;
}

bool rule_branch(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                 struct rule_list *branch)
{
    if (rule->kind == RULE_SCHEMA)
        return branch_of_opposite(schema, rule, which, branch);
    if (rule->kind == RULE_MEMBER)
        return branch_of_dependency(schema, rule, which, branch);
    if (rule_is(rule, "if"))
        return branch_of_if(schema, rule, which, branch);
    if (rule->is_not && rule_is(rule, "oneOf"))
        return branch_of_not_one(schema, rule, which, branch);
    if (!rule_is(rule, "required") && !rule_is(rule, "properties"))
        return branch_of_list(schema, rule, which, branch);
    const struct json *value = rule_value(rule);
    if (which >= value->n)
        return false;
    rules_add(schema, branch,
              (struct schema_rule){.json = value,
                                   .index = which,
                                   .kind = rule_is(rule, "required") ? RULE_ITEM : RULE_UNLIKE,
                                   .is_not = true});
    return true;
}

/* --- kinds ---------------------------------------------------------------------------------------------------------- */

static unsigned kind_named(struct schema *schema, const struct json *name)
{
    static const struct {
        const char *name;
        unsigned kinds;
    } names[] = {{"null", VALUE_NULL},     {"boolean", VALUE_BOOL},  {"integer", VALUE_INTEGER},
                 {"number", VALUE_NUMBER}, {"string", VALUE_STRING}, {"array", VALUE_ARRAY},
                 {"object", VALUE_OBJECT}, {"any", VALUE_ANY}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_tree_is(name, names[i].name))
            return names[i].kinds;
    schema_fail(schema, RUNNEL_EINVAL, "type: '%.50s' is none", name->kind == JSON_STRING ? name->text : "");
    return 0;
}

static unsigned kind_of_value(const struct json *value)
{
    static const unsigned kinds[] = {VALUE_NULL,   VALUE_BOOL,  VALUE_BOOL,  VALUE_NUMBER,
                                     VALUE_STRING, VALUE_ARRAY, VALUE_OBJECT};
    return kinds[value->kind];
}

static unsigned kinds_listed(struct schema *schema, const struct json *value,
                             unsigned (*kind)(struct schema *, const struct json *))
{
    unsigned kinds = 0;
    for (uint32_t i = 0; i < value->n && schema_work(schema, 1); i++)
        kinds |= kind(schema, &value->items[i]);
    return kinds;
}

static unsigned kind_of_listed(struct schema *schema, const struct json *value)
{
    (void)schema;
    return kind_of_value(value);
}

unsigned rule_says_of(const struct schema_rule *rule)
{
    return rule->kind == RULE_KEYWORD ? find_keyword(rule_keyword(rule))->values
           : rule->kind == RULE_VALUE ? VALUE_ANY
                                      : VALUE_OBJECT;
}

static unsigned kinds_of_rule(struct schema *schema, const struct schema_rule *rule)
{
    if (rule->kind == RULE_ITEMS || rule->kind == RULE_SCHEMA || rule->kind == RULE_MEMBER)
        return VALUE_ANY;
    if (rule->kind == RULE_VALUE)
        return kind_of_value(rule_value(rule));
    if (rule->kind != RULE_KEYWORD) /* RULE_ITEM of a dependency says nothing of other values */
        return rule->is_not ? VALUE_OBJECT : VALUE_ANY;
    const struct json *value = rule_value(rule);
    if (rule_is(rule, "type")) {
        unsigned kinds =
            value->kind == JSON_ARRAY ? kinds_listed(schema, value, kind_named) : kind_named(schema, value);
        return rule->is_not ? VALUE_ANY & ~kinds : kinds;
    }
    if (rule_is(rule, "enum"))
        return rule->is_not ? VALUE_ANY : kinds_listed(schema, value, kind_of_listed);
    if (rule_is(rule, "const"))
        return rule->is_not ? VALUE_ANY : kind_of_value(value);
    return rule->is_not && !rule_is_choice(rule) ? rule_says_of(rule) : VALUE_ANY;
}

unsigned rules_kinds(struct schema *schema, const struct rule_list *list)
{
    unsigned kinds = VALUE_ANY;
    for (uint32_t i = 0; i < list->n && schema_work(schema, 1); i++)
        kinds &= kinds_of_rule(schema, &list->rules[i]);
    return kinds;
}
