/* schema_bounds.h: a schema while it is read, and how that fails: an error, or too much work. What its rules are: schema_rules.h.
 *
 * Belongs to schema.c's call; one thread. */
#ifndef RUNNEL_CONSTRAIN_SCHEMA_BOUNDS_H
#define RUNNEL_CONSTRAIN_SCHEMA_BOUNDS_H

#include "constrain/grammar.h"
#include "constrain/json_tree.h"

enum rule_kind {
    RULE_SCHEMA,  /* json is a schema: all that it says, or with is_not the opposite */
    RULE_KEYWORD, /* member `index` of the schema json */
    RULE_MEMBER, /* an object that has a member named like member `index` of json; is_not: it has none, if it is an object */
    RULE_ITEMS, /* an object that has the members that the strings of json name */
    RULE_ITEM,  /* is_not: it has no member of the name that string `index` of json is, but is an object */
    RULE_VALUE, /* item `index` of the array json */
    RULE_UNLIKE, /* an object with the member `index` of json (properties), which does not fulfil that schema */
};

struct schema_rule {
    const struct json *json;
    uint32_t index;
    uint8_t kind;
    bool is_not;
};

struct rule_list {
    struct schema_rule *rules;
    uint32_t n, cap;
};

struct schema_known {
    struct rule_list list;
    uint32_t rule;
};

enum own_roots { OWN_ROOTS_UNKNOWN, OWN_ROOTS_NONE, OWN_ROOTS_SOME };

struct schema {
    const struct json *root;
    struct grammar *grammar;
    struct exprs *exprs;
    uint32_t space;        /* expression */
    uint32_t string, name; /* expressions: any string with its quotes, and what may stand between them */
    struct schema_known *known;
    uint32_t n_known, cap_known;
    uint32_t depth;
    uint8_t own_roots;    /* schema_reference.c's: whether schemas within it have an "$id" */
    const char *opposite; /* the keyword that last asked for one, for messages; NULL: "not" */
    uint64_t work;        /* looks at rules, members and values, so far */
    bool failed;
    runnel_error *error;
    /* A symbol for the values that fulfil a list, which is used up; 0: there is none. schema.c's, which uses the files for
     * arrays and objects, and they it. */
    uint32_t (*value)(struct schema *schema, struct rule_list *list);
};

/* The first error counts. */
void schema_fail(struct schema *schema, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* There is no opposite of this keyword here; what: of which values, or "within it". */
void schema_fail_opposite(struct schema *schema, const char *keyword, const char *what);

/* That there were n more looks at something, each of which takes a moment: what is combined may be exponential. False:
 * there were too many, or something failed before. */
bool schema_work(struct schema *schema, uint64_t n);

#endif
