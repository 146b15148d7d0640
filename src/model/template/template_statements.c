/* template_statements.c: statements of chat templates. See template_run.h. */
#include "model/template/template_run.h"

#include <string.h>

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAILED };

static enum flow walk(struct run *run, const struct node *list);

static struct binding *find_here(const struct scope *scope, struct string name)
{
    for (struct binding *binding = scope->bindings; binding; binding = binding->next)
        if (string_same(binding->name, name))
            return binding;
    return NULL;
}

const struct value *scope_find(const struct scope *scope, struct string name)
{
    for (; scope; scope = scope->parent) {
        struct binding *found = find_here(scope, name);
        if (found)
            return &found->value;
    }
    return NULL;
}

bool scope_set(struct run *run, struct string name, struct value value)
{
    struct binding *binding = find_here(run->scope, name);
    if (!binding) {
        binding = template_arena_alloc(run->arena, sizeof *binding);
        if (!binding)
            return run_step(run, 0);
        *binding = (struct binding){.next = run->scope->bindings, .name = name};
        run->scope->bindings = binding;
    }
    binding->value = value;
    return true;
}

/* Makes a scope within `parent` the current one. */
static bool open_scope(struct run *run, struct scope *parent)
{
    struct scope *scope = template_arena_zeroed(run->arena, sizeof *scope);
    if (!scope)
        return run_step(run, 0);
    scope->parent = parent;
    run->scope = scope;
    return true;
}

static bool set_attribute(struct run *run, const struct node *target, struct value value)
{
    struct value object;
    if (!run_evaluate(run, target->a, &object))
        return false;
    if (object.kind != VALUE_NAMESPACE)
        return run_fail(run, "an attribute of %s is set, expected a namespace", value_type(object));
    return dict_set(run->arena, object.dict, value_string(target->text), value) || run_step(run, 0);
}

static bool assign(struct run *run, const struct node *target, struct value value)
{
    if (target->kind == NODE_NAME)
        return scope_set(run, target->text, value);
    if (target->kind == NODE_ATTRIBUTE)
        return set_attribute(run, target, value);
    struct list items;
    size_t n = 0;
    for (const struct node *one = target->a; one; one = one->next)
        n++;
    if (!run_items(run, value, &items))
        return false;
    if (items.n != n)
        return run_fail(run, "%zu values for %zu names", items.n, n);
    n = 0;
    for (const struct node *one = target->a; one; one = one->next)
        if (!assign(run, one, items.items[n++]))
            return false;
    return true;
}

/* Runs statements and gives what they print, as a value. */
static bool capture(struct run *run, const struct node *body, struct value *out)
{
    struct string_builder builder = {.arena = run->arena}, *before = run->out;
    run->out = &builder;
    enum flow flow = walk(run, body);
    run->out = before;
    *out = value_string(builder_string(&builder));
    return flow != FLOW_FAILED;
}

/* The same in a scope of its own. */
static bool capture_inside(struct run *run, struct scope *parent, const struct node *body, struct value *out)
{
    struct scope *before = run->scope;
    if (!open_scope(run, parent) || !capture(run, body, out))
        return false;
    run->scope = before;
    return true;
}

static bool print(struct run *run, struct string text)
{
    builder_add(run->out, text);
    if (run->out->len > run->limits->output_bytes)
        return run_fail_bound(run, run->limits->output_bytes, "bytes of output");
    return run_step(run, 1 + text.len / 32);
}

/* The items of a loop that its "if" lets through. */
static bool select_items(struct run *run, const struct node *node, struct list *items)
{
    struct list all = *items;
    struct scope *before = run->scope;
    if (!node->b)
        return true;
    *items = (struct list){0};
    for (size_t i = 0; i < all.n; i++) {
        struct value condition;
        if (!open_scope(run, before) || !assign(run, node->target, all.items[i]) ||
            !run_evaluate(run, node->b, &condition))
            return false;
        if (value_is_true(condition) && !list_add(run->arena, items, all.items[i]))
            return run_step(run, 0);
    }
    run->scope = before;
    return true;
}

static enum flow walk_loop(struct run *run, const struct node *node, struct value over, size_t depth)
{
    struct list items;
    struct scope *before = run->scope;
    struct loop *loop = template_arena_zeroed(run->arena, sizeof *loop);
    struct value as_value = {.kind = VALUE_LOOP, .loop = loop};
    if (!loop) {
        run_step(run, 0);
        return FLOW_FAILED;
    }
    if (!run_items(run, over, &items) || !select_items(run, node, &items))
        return FLOW_FAILED;
    *loop = (struct loop){.node = node, .scope = before, .items = &items, .depth = depth};
    for (; loop->index < items.n; loop->index++) {
        if (!open_scope(run, before) || !scope_set(run, string_of("loop", 4, true), as_value) ||
            !assign(run, node->target, items.items[loop->index]))
            return FLOW_FAILED;
        enum flow flow = walk(run, node->c);
        if (flow == FLOW_FAILED)
            return flow;
        if (flow == FLOW_BREAK)
            break;
    }
    run->scope = before;
    loop->items = template_arena_zeroed(run->arena, sizeof *loop->items); /* a macro may have kept the loop */
    if (!loop->items) {
        run_step(run, 0);
        return FLOW_FAILED;
    }
    if (items.n || !node->d)
        return FLOW_ON;
    if (!open_scope(run, before))
        return FLOW_FAILED;
    enum flow flow = walk(run, node->d);
    run->scope = before;
    return flow;
}

bool run_loop_again(struct run *run, const struct loop *loop, struct value items, struct value *out)
{
    struct string_builder builder = {.arena = run->arena}, *before = run->out;
    struct scope *scope = run->scope;
    if (!loop->node->flag)
        return run_fail(run, "loop is called, which is not declared recursive");
    run->out = &builder; // cppcheck-suppress autoVariables ; it is put back, unless the run has failed
    run->scope = loop->scope;
    if (!run_enter(run) || walk_loop(run, loop->node, items, loop->depth + 1) == FLOW_FAILED)
        return false;
    run_leave(run);
    run->out = before;
    run->scope = scope;
    *out = value_string(builder_string(&builder));
    return true;
}

static const struct named_value *find_named(const struct arguments *arguments, struct string name)
{
    for (size_t i = 0; i < arguments->n_named; i++)
        if (string_same(arguments->named[i].name, name))
            return &arguments->named[i];
    return NULL;
}

/* Sets a macro's parameters in the current scope, which is its own. */
static bool bind_parameters(struct run *run, const struct macro *macro, const struct arguments *arguments)
{
    size_t i = 0, n_named = 0;
    for (const struct node *parameter = macro->node->a; parameter; parameter = parameter->next, i++) {
        const struct named_value *named = find_named(arguments, parameter->text);
        struct value value = value_undefined(parameter->text);
        n_named += named != NULL;
        if (i < arguments->n && named)
            return run_fail(run, "argument %.*s is given twice", (int)parameter->text.len,
                            parameter->text.bytes);
        if (i < arguments->n)
            value = arguments->items[i];
        else if (named)
            value = named->value;
        else if (parameter->a && !run_evaluate(run, parameter->a, &value))
            return false;
        if (!scope_set(run, parameter->text, value))
            return false;
    }
    struct string caller = string_of("caller", 6, true);
    const struct named_value *given = find_named(arguments, caller);
    if (given && !scope_set(run, caller, given->value))
        return false;
    n_named += given != NULL;
    if (arguments->n > i || n_named < arguments->n_named)
        return run_fail(run, "macro %.*s has %zu parameters, and gets others", (int)macro->node->text.len,
                        macro->node->text.bytes, i);
    return true;
}

bool run_macro(struct run *run, const struct macro *macro, const struct arguments *arguments,
               struct value *out)
{
    struct scope *before = run->scope;
    unsigned line = run->line;
    if (!run_enter(run) || !open_scope(run, macro->scope) || !bind_parameters(run, macro, arguments) ||
        !capture(run, macro->node->b, out))
        return false;
    run_leave(run);
    run->scope = before;
    run->line = line;
    return true;
}

static bool make_macro(struct run *run, const struct node *node, struct value *out)
{
    struct macro *macro = template_arena_alloc(run->arena, sizeof *macro);
    if (!macro)
        return run_step(run, 0);
    *macro = (struct macro){node, run->scope};
    *out = (struct value){.kind = VALUE_MACRO, .macro = macro};
    return true;
}

/* A call whose body the macro prints as caller(). */
static bool walk_call_block(struct run *run, const struct node *node)
{
    struct value caller, called, before = run->hole;
    struct node call = *node->a, named = {.kind = NODE_PARAMETER, .line = node->line, .text = node->b->text};
    struct node hole = {.kind = NODE_HOLE, .line = node->line};
    struct string text;
    if (!make_macro(run, node->b, &caller))
        return false;
    run->hole = caller;
    named.a = &hole;
    named.next = call.c;
    call.c = &named;
    bool called_well = run_evaluate(run, &call, &called) && run_text(run, called, &text) && print(run, text);
    run->hole = before;
    return called_well;
}

/* body's text, through the filters, which stand around a hole. */
static bool filter_text(struct run *run, const struct node *filters, const struct node *body,
                        struct value *out)
{
    struct value before = run->hole, text;
    if (!capture_inside(run, run->scope, body, &text))
        return false;
    *out = text;
    if (!filters)
        return true;
    run->hole = text;
    bool filtered = run_evaluate(run, filters, out);
    run->hole = before;
    return filtered;
}

static bool walk_filter_block(struct run *run, const struct node *node)
{
    struct value value;
    struct string text;
    return filter_text(run, node->a, node->b, &value) && run_text(run, value, &text) && print(run, text);
}

static enum flow walk_with(struct run *run, const struct node *node)
{
    struct scope *before = run->scope, *inside;
    if (!open_scope(run, before))
        return FLOW_FAILED;
    inside = run->scope;
    for (const struct node *setting = node->a; setting; setting = setting->next) {
        struct value value;
        run->scope = before; /* none of the values sees the other names */
        if (!run_evaluate(run, setting->b, &value))
            return FLOW_FAILED;
        run->scope = inside;
        if (!assign(run, setting->a, value))
            return FLOW_FAILED;
    }
    enum flow flow = walk(run, node->b);
    run->scope = before;
    return flow;
}

static enum flow walk_if(struct run *run, const struct node *node)
{
    struct value condition;
    for (;; node = node->c) {
        run->line = node->line;
        if (!run_evaluate(run, node->a, &condition))
            return FLOW_FAILED;
        if (value_is_true(condition))
            return walk(run, node->b);
        if (!node->flag)
            return walk(run, node->c);
    }
}

static enum flow walk_one(struct run *run, const struct node *node)
{
    struct value value;
    struct string text;
    bool done;
    switch (node->kind) {
    case NODE_TEXT:
        done = print(run, node->text);
        break;
    case NODE_PRINT:
        done = run_evaluate(run, node->a, &value) && run_text(run, value, &text) && print(run, text);
        break;
    case NODE_SET:
        done = run_evaluate(run, node->b, &value) && assign(run, node->a, value);
        break;
    case NODE_SET_BLOCK:
        done = filter_text(run, node->c, node->b, &value) && assign(run, node->a, value);
        break;
    case NODE_MACRO:
        done = make_macro(run, node, &value) && scope_set(run, node->text, value);
        break;
    case NODE_CALL_BLOCK:
        done = walk_call_block(run, node);
        break;
    case NODE_FILTER_BLOCK:
        done = walk_filter_block(run, node);
        break;
    case NODE_SCOPE: /* what it prints is printed at its end, as by a call */
        done = capture_inside(run, run->scope, node->b, &value) && print(run, value.string);
        break;
    case NODE_IF:
        return walk_if(run, node);
    case NODE_FOR:
        if (!run_evaluate(run, node->a, &value))
            return FLOW_FAILED;
        return walk_loop(run, node, value, 0);
    case NODE_WITH:
        return walk_with(run, node);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        done = run_fail(run, "an expression stands for a statement");
    }
    return done ? FLOW_ON : FLOW_FAILED;
}

static enum flow walk(struct run *run, const struct node *list)
{
    if (!run_enter(run))
        return FLOW_FAILED;
    for (const struct node *node = list; node; node = node->next) {
        run->line = node->line;
        if (!run_step(run, 1))
            return FLOW_FAILED;
        enum flow flow = walk_one(run, node);
        if (flow != FLOW_ON) {
            run->depth -= flow != FLOW_FAILED;
            return flow;
        }
    }
    run_leave(run);
    return FLOW_ON;
}

bool run_statements(struct run *run, const struct node *list)
{
    return walk(run, list) != FLOW_FAILED;
}
