/* schema_rules.h: what the files that read schemas have in common: a value as a list of rules that it must fulfil, all of them.
 *
 * A list begins as one schema. It is opened (schema_open) until each rule is one keyword that says something of one kind of
 * values. Where a rule is a choice (anyOf, if, the opposite of several keywords), the value is one of several lists. So
 * allOf, $ref beside other keywords, and "not" need no cases of their own. A list that was met before has its grammar's rule
 * already, which is how schemas that contain themselves come to an end. */
#ifndef RUNNEL_CONSTRAIN_SCHEMA_RULES_H
#define RUNNEL_CONSTRAIN_SCHEMA_RULES_H

#include "constrain/schema_bounds.h"

enum value_kinds {
    VALUE_NULL = 1,
    VALUE_BOOL = 2,
    VALUE_INTEGER = 4,
    VALUE_FRACTION = 8, /* a number that is no integer */
    VALUE_STRING = 16,
    VALUE_ARRAY = 32,
    VALUE_OBJECT = 64,
    VALUE_ANY = 127,
    VALUE_NUMBER = VALUE_INTEGER | VALUE_FRACTION,
};

/* schema_rules.c. What separates: white space, these bytes, white space. */
uint32_t schema_mark(struct schema *schema, const char *bytes);
bool rules_add(struct schema *schema, struct rule_list *list, struct schema_rule rule);
void rules_add_all(struct schema *schema, struct rule_list *list, const struct rule_list *other);
void rules_free(struct rule_list *list);
/* The keyword that a rule comes from, for messages: "not" for the opposite of several ones. */
const char *rule_keyword(const struct schema_rule *rule);
/* What a rule says of values, as the schema has it; NULL: its list is empty. */
const struct json *rule_value(const struct schema_rule *rule);
bool rule_is(const struct schema_rule *rule, const char *keyword);
/* Opens list until it consists of keywords and members. False: no value fulfils it. */
bool schema_open(struct schema *schema, struct rule_list *list);
/* Whether a rule of an opened list is a choice; adds to branch the rules of its alternative number `which`. False: it has none. */
bool rule_is_choice(const struct schema_rule *rule);
bool rule_branch(struct schema *schema, const struct schema_rule *rule, uint32_t which,
                 struct rule_list *branch);
/* The kinds of values that a rule, which is no choice, says something of. */
unsigned rule_says_of(const struct schema_rule *rule);
/* The kinds of values that a list leaves. */
unsigned rules_kinds(struct schema *schema, const struct rule_list *list);

/* schema_string.c: the expression of a text as a JSON string without its quotes; in_all_ways: with whatever could be escaped. */
uint32_t string_literal(struct schema *schema, const char *text, size_t len, bool in_all_ways);
/* What may stand between the quotes of a string that fulfils the list; *is_free: anything. */
uint32_t string_content(struct schema *schema, const struct rule_list *list, bool *is_free);
/* What may stand between the quotes of a string that a pattern of this keyword occurs in. */
uint32_t string_pattern(struct schema *schema, const char *keyword, const char *pattern, size_t len);
/* Whether a text, written as JSON, is one of an expression's. */
bool string_matches(struct schema *schema, uint32_t expr, const char *text, size_t len);
/* One of the strings of an array, without its quotes, in all ways. */
uint32_t string_choice(struct schema *schema, const struct json *values);
/* schema_number.c: integers, or numbers, that fulfil the list. */
uint32_t number_expr(struct schema *schema, const struct rule_list *list, unsigned kinds);
/* A non-negative integer of a keyword. */
uint32_t schema_count(struct schema *schema, const struct schema_rule *rule);

/* schema.c. Reads a schema of the grammar; *error gets what fails. To be ended. */
struct schema schema_begin(struct grammar *grammar, const struct json *root, runnel_error *error);
void schema_end(struct schema *schema);
/* A symbol for the values of the schema, and of `also` if that is not NULL; 0: failed. */
uint32_t schema_root_value(struct schema *schema, const struct json *also);

/* schema_object.c, schema_array.c */
uint32_t object_symbol(struct schema *schema, const struct rule_list *list);
uint32_t array_symbol(struct schema *schema, const struct rule_list *list);

#endif
