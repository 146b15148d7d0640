/* template_run.h: one rendering of a chat template: its state, its bounds, and what the parts of the evaluator call of
 * each other. Functions return false after a failure, which stands in run->code and run->error. One thread. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_RUN_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_RUN_H

#include "model/template/template.h"
#include "model/template/template_text.h"
#include "model/template/template_tree.h"

struct binding {
    struct binding *next;
    struct string name;
    struct value value;
};

/* Names that a loop, a macro or a block sets are its own; others are looked up further out. */
struct scope {
    struct scope *parent;
    struct binding *bindings;
};

struct macro {
    const struct node *node; /* NODE_MACRO */
    struct scope *scope;     /* where it stands */
};

struct loop {
    const struct node *node; /* NODE_FOR */
    struct scope *scope;     /* around it */
    const struct list *items;
    size_t index, depth;
    struct value changed; /* what loop.changed was asked last; undefined: nothing yet */
};

struct run {
    struct template_arena *arena;
    const struct template_limits *limits;
    const struct dict *inputs;
    const struct tm *now;
    struct scope *scope;
    struct string_builder *out;
    struct value hole; /* what a block's filters are applied to */
    size_t n_steps;    /* taken */
    unsigned depth, line;
    runnel_error *error;
    int code;
};

struct named_value {
    struct string name;
    struct value value;
};

struct arguments {
    struct value *items;
    size_t n;
    struct named_value *named;
    size_t n_named;
};

enum { PARAMETERS_MAX = 5 };

/* A call of a filter, test, method or function. */
struct call {
    struct value input; /* what stands before "|", "is" or "." */
    struct string name;
    const struct arguments *arguments;
    const struct value *p[PARAMETERS_MAX]; /* the arguments by parameter; NULL: not given */
};

typedef bool library_function(struct run *run, const struct call *call, struct value *out);

/* parameters: names with spaces between them, those with ! must be given; NULL: any arguments. */
struct filter {
    const char *name, *parameters;
    library_function *apply;
};
struct test {
    const char *name, *parameters;
    library_function *apply; /* gives a bool */
};
struct template_function {
    const char *name, *parameters;
    library_function *apply;
};

/* Failure: "chat template, line N: ...". The message must not hold what came from outside. Returns false. */
bool run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with TEMPLATE_EBOUND: "... more than BOUND WHAT". */
bool run_fail_bound(struct run *run, size_t bound, const char *what);
/* Takes n steps; false when there are no more, or memory ran out. */
bool run_step(struct run *run, size_t n);
bool run_enter(struct run *run);
void run_leave(struct run *run);
/* New values; false when memory ran out. */
bool run_new_list(struct run *run, enum value_kind kind, struct value *out);
bool run_new_dict(struct run *run, struct value *out);
bool run_add(struct run *run, struct value list, struct value item);
bool run_equals(struct run *run, struct value a, struct value b, bool *equal);
/* *order: below 0, 0, above 0. Fails for values that have no order. */
bool run_compare(struct run *run, struct value a, struct value b, int *order);
/* The items that a loop over value goes through. */
bool run_items(struct run *run, struct value value, struct list *items);
bool run_contains(struct run *run, struct value in, struct value value, bool *contains);

/* template_evaluate.c */
bool run_evaluate(struct run *run, const struct node *node, struct value *out);
bool run_attribute(struct run *run, struct value object, struct string name, struct value *out);
bool run_item(struct run *run, struct value object, struct value key, struct value *out);
bool run_call(struct run *run, struct value callee, const struct arguments *arguments, struct value *out);
/* Distributes arguments over parameters and calls. */
bool run_apply(struct run *run, const char *parameters, library_function *apply, struct call *call,
               struct value *out);

/* template_operators.c */
bool run_binary(struct run *run, const char *operator, struct value a, struct value b, struct value *out);
bool run_slice(struct run *run, struct value object, const struct value *begin, const struct value *end,
               const struct value *step, struct value *out);

/* template_statements.c */
bool run_statements(struct run *run, const struct node *list);
bool run_macro(struct run *run, const struct macro *macro, const struct arguments *arguments,
               struct value *out);
bool run_loop_again(struct run *run, const struct loop *loop, struct value items, struct value *out);
const struct value *scope_find(const struct scope *scope, struct string name);
bool scope_set(struct run *run, struct string name, struct value value);

/* template_print.c */
bool run_text(struct run *run, struct value value, struct string *text); /* str(value) */
bool run_repr(struct run *run, struct value value, struct string_builder *out);
void print_float(double real, char out[40]); /* as Python's repr */

/* template_json.c: the filter tojson */
bool json_write(struct run *run, const struct call *call, struct value *out);

/* template_format.c */
bool format_braces(struct run *run, struct string format, const struct arguments *arguments,
                   struct value *out);
bool format_percent(struct run *run, struct string format, struct value arguments, struct value *out);

/* template_methods.c, template_functions.c */
bool library_has_method(struct value object, struct string name);
bool run_method(struct run *run, const struct method *method, const struct arguments *arguments,
                struct value *out);
const struct template_function *library_function_named(struct string name);

#endif
