/* template_evaluate.c: expressions of chat templates. See template_run.h. */
#include "model/template/template_library.h"
#include "model/template/template_run.h"

#include <string.h>

static bool find_name(struct run *run, struct string name, struct value *out)
{
    const struct value *found = scope_find(run->scope, name);
    if (!found)
        found = dict_get(run->inputs, value_string(name));
    if (found) {
        *out = *found;
        return true;
    }
    const struct template_function *function = library_function_named(name);
    *out = function ? (struct value){.kind = VALUE_FUNCTION, .function = function} : value_undefined(name);
    return true;
}

static bool loop_attribute(const struct loop *loop, struct string name, struct value *out)
{
    int64_t n = (int64_t)loop->items->n, index = (int64_t)loop->index;
    const struct value *items = loop->items->items;
    struct value nothing = value_undefined(name);
    *out = string_equals(name, "index")       ? value_int(index + 1)
           : string_equals(name, "index0")    ? value_int(index)
           : string_equals(name, "revindex")  ? value_int(n - index)
           : string_equals(name, "revindex0") ? value_int(n - index - 1)
           : string_equals(name, "first")     ? value_bool(index == 0)
           : string_equals(name, "last")      ? value_bool(index + 1 == n)
           : string_equals(name, "length")    ? value_int(n)
           : string_equals(name, "depth")     ? value_int((int64_t)loop->depth + 1)
           : string_equals(name, "depth0")    ? value_int((int64_t)loop->depth)
           : string_equals(name, "previtem")  ? index > 0 ? items[index - 1] : nothing
           : string_equals(name, "nextitem")  ? index + 1 < n ? items[index + 1] : nothing
                                              : nothing;
    return true;
}

static bool bind_method(struct run *run, struct value object, struct string name, struct value *out)
{
    struct method *method = template_arena_alloc(run->arena, sizeof *method);
    if (!method)
        return run_step(run, 0);
    *method = (struct method){object, name};
    *out = (struct value){.kind = VALUE_METHOD, .method = method};
    return true;
}

static bool fail_undefined(struct run *run, struct value value)
{
    /* A name in the template may be told, one from outside may not. */
    bool told = value.string.own && !value.string.origins && value.string.len < 64;
    return run_fail(run, "%.*s is undefined", told ? (int)value.string.len : 7,
                    told ? value.string.bytes : "a value");
}

/* A key of a dict, where there is one. */
static bool dict_item(struct value object, struct value key, struct value *out)
{
    const struct value *found = dict_get(object.dict, key);
    if (found)
        *out = *found;
    return found;
}

bool run_attribute(struct run *run, struct value object, struct string name, struct value *out)
{
    *out = value_undefined(name);
    if (object.kind == VALUE_UNDEFINED)
        return fail_undefined(run, object);
    if (object.kind == VALUE_LOOP && !library_has_method(object, name))
        return loop_attribute(object.loop, name, out);
    if (object.kind == VALUE_NAMESPACE) {
        dict_item(object, value_string(name), out);
        return true;
    }
    if (library_has_method(object, name))
        return bind_method(run, object, name, out);
    if (object.kind == VALUE_DICT && dict_item(object, value_string(name), out))
        return true;
    return true;
}

static bool list_item(struct value object, int64_t index, struct value *out)
{
    int64_t n = (int64_t)object.list->n;
    if (index < 0)
        index += n;
    if (index >= 0 && index < n)
        *out = object.list->items[index];
    return true;
}

static bool character_item(struct run *run, struct string string, int64_t index, struct value *out)
{
    if (!run_step(run, string.len / 32))
        return false;
    if (index < 0)
        index += (int64_t)text_count(string);
    if (index < 0 || index >= (int64_t)string.len)
        return true;
    size_t begin = text_offset(string, (size_t)index);
    if (begin == string.len)
        return true;
    uint32_t code;
    size_t n = text_character(string.bytes + begin, string.len - begin, &code);
    *out = value_string(string_part(string, begin, begin + n));
    return true;
}

bool run_item(struct run *run, struct value object, struct value key, struct value *out)
{
    *out = value_undefined(key.kind == VALUE_STRING ? key.string : string_of("an item", 7, true));
    bool is_index = key.kind == VALUE_INT || key.kind == VALUE_BOOL;
    int64_t index = key.kind == VALUE_BOOL ? key.boolean : is_index ? key.integer : 0;
    if (object.kind == VALUE_UNDEFINED)
        return fail_undefined(run, object);
    if (object.kind == VALUE_DICT && dict_item(object, key, out))
        return true;
    if (is_index && (object.kind == VALUE_LIST || object.kind == VALUE_TUPLE))
        return list_item(object, index, out);
    if (is_index && object.kind == VALUE_STRING)
        return character_item(run, object.string, index, out);
    return key.kind != VALUE_STRING || run_attribute(run, object, key.string, out);
}

/* The values of a list of nodes. */
static bool evaluate_list(struct run *run, const struct node *nodes, struct value **values, size_t *n)
{
    *n = 0;
    for (const struct node *node = nodes; node; node = node->next)
        ++*n;
    *values = template_arena_alloc(run->arena, *n * sizeof **values);
    if (!*values)
        return run_step(run, 0);
    size_t i = 0;
    for (const struct node *node = nodes; node; node = node->next)
        if (!run_evaluate(run, node, &(*values)[i++]))
            return false;
    return true;
}

static bool evaluate_arguments(struct run *run, const struct node *node, struct arguments *arguments)
{
    *arguments = (struct arguments){0};
    if (!evaluate_list(run, node->b, &arguments->items, &arguments->n))
        return false;
    size_t n = 0;
    for (const struct node *named = node->c; named; named = named->next)
        n++;
    arguments->named = template_arena_alloc(run->arena, n * sizeof *arguments->named);
    if (!arguments->named)
        return run_step(run, 0);
    for (const struct node *named = node->c; named; named = named->next) {
        for (size_t i = 0; i < arguments->n_named; i++)
            if (string_same(arguments->named[i].name, named->text))
                return run_fail(run, "argument %.*s is given twice", (int)named->text.len, named->text.bytes);
        struct named_value *value = &arguments->named[arguments->n_named++];
        value->name = named->text;
        if (!run_evaluate(run, named->a, &value->value))
            return false;
    }
    return true;
}

static int name_length(struct string name)
{
    return name.own && !name.origins && name.len < 64 ? (int)name.len : 0;
}

/* The place of a parameter among those that the words of `parameters` name; -1: none. */
static int find_parameter(const char *parameters, struct string name)
{
    int i = 0;
    for (const char *word = parameters; *word; i++) {
        size_t len = strcspn(word, " "), plain = len - (len && word[len - 1] == '!');
        if (plain == name.len && memcmp(word, name.bytes, plain) == 0)
            return i;
        word += len + (word[len] == ' ');
    }
    return -1;
}

bool run_apply(struct run *run, const char *parameters, library_function *apply, struct call *call,
               struct value *out)
{
    if (!parameters)
        return apply(run, call, out);
    const struct arguments *arguments = call->arguments;
    size_t n = 0;
    for (const char *word = parameters; *word; n++)
        word += strcspn(word, " ") + (word[strcspn(word, " ")] == ' ');
    if (arguments->n > n)
        return run_fail(run, "%.*s takes at most %zu arguments, not %zu", name_length(call->name),
                        call->name.bytes, n, arguments->n);
    for (size_t i = 0; i < arguments->n; i++)
        call->p[i] = &arguments->items[i];
    for (size_t i = 0; i < arguments->n_named; i++) {
        int place = find_parameter(parameters, arguments->named[i].name);
        if (place < 0 || call->p[place])
            return run_fail(run, "%.*s: argument %.*s is unknown or given twice", name_length(call->name),
                            call->name.bytes, name_length(arguments->named[i].name),
                            arguments->named[i].name.bytes);
        call->p[place] = &arguments->named[i].value;
    }
    const char *word = parameters;
    for (size_t i = 0; i < n; i++) {
        size_t len = strcspn(word, " ");
        if (!call->p[i] && word[len - 1] == '!')
            return run_fail(run, "%.*s: argument %.*s is missing", name_length(call->name), call->name.bytes,
                            (int)len - 1, word);
        word += len + (word[len] == ' ');
    }
    return apply(run, call, out);
}

bool run_call(struct run *run, struct value callee, const struct arguments *arguments, struct value *out)
{
    struct call call = {.arguments = arguments};
    switch (callee.kind) {
    case VALUE_METHOD:
        return run_method(run, callee.method, arguments, out);
    case VALUE_MACRO:
        return run_macro(run, callee.macro, arguments, out);
    case VALUE_FUNCTION:
        call.name = string_of(callee.function->name, strlen(callee.function->name), true);
        return run_apply(run, callee.function->parameters, callee.function->apply, &call, out);
    case VALUE_LOOP:
        if (arguments->n != 1 || arguments->n_named)
            return run_fail(run, "loop takes 1 argument");
        return run_loop_again(run, callee.loop, arguments->items[0], out);
    case VALUE_UNDEFINED:
        return fail_undefined(run, callee);
    default:
        return run_fail(run, "%s is called, which cannot be called", value_type(callee));
    }
}

static bool evaluate_call(struct run *run, const struct node *node, struct value *out)
{
    struct value callee;
    struct arguments arguments;
    return run_evaluate(run, node->a, &callee) && evaluate_arguments(run, node, &arguments) &&
           run_call(run, callee, &arguments, out);
}

/* names: writes those that are known. */
static bool fail_unknown(struct run *run, const struct node *node, const char *what,
                         void (*names)(char text[LIBRARY_NAMES_BYTES]))
{
    char known[LIBRARY_NAMES_BYTES];
    names(known);
    return run_fail(run, "the %s %.*s is not known, expected one of %s", what, name_length(node->text),
                    node->text.bytes, known);
}

static bool evaluate_filter(struct run *run, const struct node *node, struct value *out)
{
    struct arguments arguments;
    struct call call = {.name = node->text, .arguments = &arguments};
    if (!node->filter)
        return fail_unknown(run, node, "filter", library_filter_names);
    return run_evaluate(run, node->a, &call.input) && evaluate_arguments(run, node, &arguments) &&
           run_apply(run, node->filter->parameters, node->filter->apply, &call, out);
}

static bool evaluate_test(struct run *run, const struct node *node, struct value *out)
{
    struct arguments arguments;
    struct call call = {.name = node->text, .arguments = &arguments};
    if (!node->test)
        return fail_unknown(run, node, "test", library_test_names);
    return run_evaluate(run, node->a, &call.input) && evaluate_arguments(run, node, &arguments) &&
           run_apply(run, node->test->parameters, node->test->apply, &call, out);
}

static bool evaluate_collection(struct run *run, const struct node *node, struct value *out)
{
    struct value *values;
    size_t n;
    if (!evaluate_list(run, node->a, &values, &n) ||
        !run_new_list(run, node->kind == NODE_LIST ? VALUE_LIST : VALUE_TUPLE, out))
        return false;
    *out->list = (struct list){.items = values, .n = n, .cap = n};
    return true;
}

static bool evaluate_dict(struct run *run, const struct node *node, struct value *out)
{
    struct value *values;
    size_t n;
    if (!evaluate_list(run, node->a, &values, &n) || !run_new_dict(run, out))
        return false;
    for (size_t i = 0; i < n; i += 2) {
        if (!value_is_key(values[i]))
            return run_fail(run, "%s cannot be the key of a dict", value_type(values[i]));
        if (!dict_set(run->arena, out->dict, values[i], values[i + 1]))
            return run_step(run, 0);
    }
    return true;
}

static bool evaluate_concat(struct run *run, const struct node *node, struct value *out)
{
    struct string_builder builder = {.arena = run->arena};
    for (const struct node *item = node->a; item; item = item->next) {
        struct value value;
        struct string text;
        if (!run_evaluate(run, item, &value) || !run_text(run, value, &text) || !run_step(run, text.len / 32))
            return false;
        builder_add(&builder, text);
    }
    *out = value_string(builder_string(&builder));
    return true;
}

static bool holds(struct run *run, struct string comparison, struct value a, struct value b, bool *result)
{
    int order;
    if (string_equals(comparison, "in") || string_equals(comparison, "not in")) {
        if (!run_contains(run, b, a, result))
            return false;
        *result ^= comparison.len > 2;
        return true;
    }
    if (comparison.len == 2 && comparison.bytes[0] != '<' && comparison.bytes[0] != '>') {
        if (!run_equals(run, a, b, result))
            return false;
        *result ^= comparison.bytes[0] == '!';
        return true;
    }
    if (!run_compare(run, a, b, &order))
        return false;
    bool or_equal = comparison.len == 2;
    *result = comparison.bytes[0] == '<' ? order < 0 + or_equal : order > 0 - or_equal;
    return true;
}

static bool evaluate_compare(struct run *run, const struct node *node, struct value *out)
{
    struct value left;
    bool result = true;
    if (!run_evaluate(run, node->a, &left))
        return false;
    for (const struct node *operand = node->b; operand && result; operand = operand->next) {
        struct value right;
        if (!run_evaluate(run, operand->a, &right) || !holds(run, operand->text, left, right, &result))
            return false;
        left = right;
    }
    *out = value_bool(result);
    return true;
}

static bool evaluate_slice(struct run *run, const struct node *node, struct value *out)
{
    struct value object, parts[3];
    const struct node *nodes[] = {node->b, node->c, node->d};
    const struct value *given[3] = {NULL, NULL, NULL};
    if (!run_evaluate(run, node->a, &object))
        return false;
    for (int i = 0; i < 3; i++) {
        if (nodes[i] && !run_evaluate(run, nodes[i], &parts[i]))
            return false;
        if (nodes[i] && parts[i].kind != VALUE_NONE)
            given[i] = &parts[i];
    }
    return run_slice(run, object, given[0], given[1], given[2], out);
}

static bool evaluate_sign(struct run *run, const struct node *node, struct value *out)
{
    struct value value;
    if (!run_evaluate(run, node->a, &value))
        return false;
    if (!value_is_number(value))
        return run_fail(run, "%s has no sign", value_type(value));
    if (node->kind == NODE_NEGATIVE)
        return run_binary(run, "-", value_int(0), value, out);
    return run_binary(run, "+", value_int(0), value, out);
}

static bool evaluate_operation(struct run *run, const struct node *node, struct value *out)
{
    char operator[3] = "";
    struct value a, b;
    memcpy(operator, node->text.bytes, node->text.len);
    return run_evaluate(run, node->a, &a) && run_evaluate(run, node->b, &b) &&
           run_binary(run, operator, a, b, out);
}

static bool evaluate_choice(struct run *run, const struct node *node, struct value *out)
{
    struct value condition;
    if (!run_evaluate(run, node->a, &condition))
        return false;
    if (value_is_true(condition))
        return run_evaluate(run, node->b, out);
    *out = value_undefined(string_of("the missing else of an if", 25, true));
    return !node->c || run_evaluate(run, node->c, out);
}

static bool evaluate_inner(struct run *run, const struct node *node, struct value *out)
{
    struct value value;
    switch (node->kind) {
    case NODE_CONST:
        *out = node->value;
        return true;
    case NODE_NAME:
        return find_name(run, node->text, out);
    case NODE_LIST:
    case NODE_TUPLE:
        return evaluate_collection(run, node, out);
    case NODE_DICT:
        return evaluate_dict(run, node, out);
    case NODE_ATTRIBUTE:
        return run_evaluate(run, node->a, &value) && run_attribute(run, value, node->text, out);
    case NODE_ITEM: {
        struct value key;
        return run_evaluate(run, node->a, &value) && run_evaluate(run, node->b, &key) &&
               run_item(run, value, key, out);
    }
    case NODE_SLICE:
        return evaluate_slice(run, node, out);
    case NODE_CALL:
        return evaluate_call(run, node, out);
    case NODE_FILTER:
        return evaluate_filter(run, node, out);
    case NODE_TEST:
        return evaluate_test(run, node, out);
    case NODE_NOT:
        if (!run_evaluate(run, node->a, &value))
            return false;
        *out = value_bool(!value_is_true(value));
        return true;
    case NODE_NEGATIVE:
    case NODE_POSITIVE:
        return evaluate_sign(run, node, out);
    case NODE_AND:
    case NODE_OR:
        if (!run_evaluate(run, node->a, out))
            return false;
        return value_is_true(*out) == (node->kind == NODE_OR) || run_evaluate(run, node->b, out);
    case NODE_BINARY:
        return evaluate_operation(run, node, out);
    case NODE_CONCAT:
        return evaluate_concat(run, node, out);
    case NODE_COMPARE:
        return evaluate_compare(run, node, out);
    case NODE_CHOICE:
        return evaluate_choice(run, node, out);
    case NODE_HOLE:
        *out = run->hole;
        return true;
    default:
        return run_fail(run, "a statement stands for an expression");
    }
}

bool run_evaluate(struct run *run, const struct node *node, struct value *out)
{
    unsigned line = run->line;
    run->line = node->line;
    if (!run_enter(run) || !evaluate_inner(run, node, out) || !run_step(run, 1))
        return false;
    run_leave(run);
    run->line = line;
    return true;
}
