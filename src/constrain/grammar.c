/* grammar.c: see grammar.h. */
#include "constrain/grammar.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 1000 /* of symbols within symbols */
};

void grammar_free(struct grammar *grammar)
{
    if (!grammar)
        return;
    for (uint32_t i = 0; i < grammar->n_rules; i++)
        free(grammar->rules[i].name);
    exprs_free(grammar->exprs);
    free(grammar->symbols);
    free(grammar->rules);
    free(grammar->rule_index);
    free(grammar);
}

int grammar_create(const struct constrain_limits *limits, struct grammar **out, runnel_error *error)
{
    struct grammar *grammar = calloc(1, sizeof *grammar);
    if (!grammar)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a grammar");
    grammar->limits = *limits;
    grammar->index_size = 64;
    while (grammar->index_size < limits->n_rules * 2)
        grammar->index_size *= 2;
    grammar->rule_index = calloc(grammar->index_size, sizeof *grammar->rule_index);
    grammar->exprs = exprs_create(limits->n_exprs, limits->work);
    if (!grammar->exprs || !grammar->rule_index) {
        grammar_free(grammar);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the expressions of a grammar");
    }
    grammar->n_symbols = 1;
    *out = grammar;
    return RUNNEL_OK;
}

/* Room for one more of items of this size; false: there is none, and the grammar failed. */
static bool grow(struct grammar *grammar, void **items, uint32_t n, uint32_t *cap, uint32_t max, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t wanted = *cap ? *cap * 2 : 64;
    void *grown = n >= max ? NULL : realloc(*items, wanted * size);
    if (!grown) {
        grammar->failed = true;
        grammar->no_memory |= n < max;
        return false;
    }
    *items = grown;
    *cap = wanted;
    return true;
}

static uint32_t add(struct grammar *grammar, struct symbol symbol)
{
    if (symbol.depth > MAX_DEPTH ||
        !grow(grammar, (void **)&grammar->symbols, grammar->n_symbols, &grammar->cap_symbols,
              grammar->limits.n_nodes, sizeof *grammar->symbols)) {
        grammar->failed = true;
        return 0;
    }
    grammar->symbols[grammar->n_symbols] = symbol;
    return grammar->n_symbols++;
}

uint32_t grammar_terminal(struct grammar *grammar, uint32_t expr)
{
    return add(grammar, (struct symbol){.kind = SYMBOL_TERMINAL, .a = expr});
}

uint32_t grammar_kept(struct grammar *grammar, uint32_t expr)
{
    return add(grammar, (struct symbol){.kind = SYMBOL_KEPT, .a = expr});
}

uint32_t grammar_literal(struct grammar *grammar, const char *bytes, size_t len)
{
    return grammar_terminal(grammar, expr_literal(grammar->exprs, bytes, len));
}

uint32_t grammar_call(struct grammar *grammar, uint32_t rule)
{
    return add(grammar, (struct symbol){.kind = SYMBOL_CALL, .a = rule});
}

static bool is_terminal(const struct grammar *grammar, uint32_t symbol)
{
    return grammar->symbols[symbol].kind == SYMBOL_TERMINAL;
}

/* a and b in one; two terminals are one terminal. */
static uint32_t join(struct grammar *grammar, enum symbol_kind kind, uint32_t a, uint32_t b)
{
    if (!a || !b)
        return 0;
    const struct symbol *one = &grammar->symbols[a], *other = &grammar->symbols[b];
    if (is_terminal(grammar, a) && is_terminal(grammar, b))
        return grammar_terminal(
            grammar, (kind == SYMBOL_CAT ? expr_cat : expr_either)(grammar->exprs, one->a, other->a));
    uint32_t inner =
        other->kind == kind ? other->depth : other->depth + 1; /* lists are flattened where they are used */
    uint32_t outer = one->kind == kind ? one->depth : one->depth + 1;
    return add(grammar, (struct symbol){
                            .kind = (uint8_t)kind, .a = a, .b = b, .depth = inner > outer ? inner : outer});
}

uint32_t grammar_cat(struct grammar *grammar, uint32_t a, uint32_t b)
{
    return join(grammar, SYMBOL_CAT, a, b);
}

uint32_t grammar_or(struct grammar *grammar, uint32_t a, uint32_t b)
{
    return join(grammar, SYMBOL_OR, a, b);
}

uint32_t grammar_repeat(struct grammar *grammar, uint32_t a, uint32_t min, uint32_t max)
{
    if (!a)
        return 0;
    if (is_terminal(grammar, a))
        return grammar_terminal(grammar, expr_repeat(grammar->exprs, grammar->symbols[a].a, min, max));
    return add(
        grammar,
        (struct symbol){
            .kind = SYMBOL_REPEAT, .a = a, .min = min, .max = max, .depth = grammar->symbols[a].depth + 1});
}

uint32_t grammar_rule(struct grammar *grammar, const char *name, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; name && i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    uint32_t at = hash & (grammar->index_size - 1);
    for (; name && grammar->rule_index[at]; at = (at + 1) & (grammar->index_size - 1)) {
        const char *other = grammar->rules[grammar->rule_index[at] - 1].name;
        if (strlen(other) == len && !memcmp(other, name, len))
            return grammar->rule_index[at] - 1;
    }
    if (!grow(grammar, (void **)&grammar->rules, grammar->n_rules, &grammar->cap_rules,
              grammar->limits.n_rules, sizeof *grammar->rules))
        return UINT32_MAX;
    struct rule rule = {.name = name ? strndup(name, len) : NULL};
    if (name && !rule.name) {
        grammar->failed = grammar->no_memory = true;
        return UINT32_MAX;
    }
    grammar->rules[grammar->n_rules++] = rule;
    if (name)
        grammar->rule_index[at] = grammar->n_rules;
    return grammar->n_rules - 1;
}

void grammar_define(struct grammar *grammar, uint32_t rule, uint32_t symbol)
{
    if (rule < grammar->n_rules)
        grammar->rules[rule].symbol = symbol;
}

uint32_t grammar_either(struct grammar *grammar, uint32_t a, uint32_t b)
{
    return a && b ? grammar_or(grammar, a, b) : a ? a : b;
}

void grammar_union_add(struct grammar *grammar, struct grammar_union *all, uint32_t symbol)
{
    unsigned i = 0;
    for (; all->n >> i & 1; i++)
        symbol = grammar_either(grammar, all->parts[i], symbol);
    all->parts[i] = symbol;
    all->n++;
}

uint32_t grammar_union_end(struct grammar *grammar, const struct grammar_union *all)
{
    uint32_t symbol = 0;
    for (unsigned i = 0; i < 32; i++)
        if (all->n >> i & 1)
            symbol = grammar_either(grammar, all->parts[i], symbol);
    return symbol;
}

uint32_t grammar_shared(struct grammar *grammar, uint32_t a)
{
    if (!a || grammar->symbols[a].kind == SYMBOL_CALL)
        return a;
    uint32_t rule = grammar_rule(grammar, NULL, 0);
    grammar_define(grammar, rule, a);
    return grammar_call(grammar, rule);
}

int grammar_check(const struct grammar *grammar, runnel_error *error)
{
    const struct constrain_limits *limits = &grammar->limits;
    if (grammar->exprs->no_memory || grammar->no_memory)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a grammar");
    if (grammar->exprs->failed)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "the terminals are too large: at most %u expressions, %llu steps of work",
                         limits->n_exprs, (unsigned long long)limits->work);
    if (grammar->failed)
        return error_set(error, RUNNEL_EUNSUPPORTED, "it is too large: at most %u rules, %u symbols, %d deep",
                         limits->n_rules, limits->n_nodes, MAX_DEPTH);
    for (uint32_t i = 0; i < grammar->n_rules; i++)
        if (!grammar->rules[i].symbol)
            return error_set(error, RUNNEL_EINVAL, "rule '%s' is used, but not defined",
                             grammar->rules[i].name ? grammar->rules[i].name : "");
    if (grammar->start >= grammar->n_rules)
        return error_set(error, RUNNEL_EINVAL, "there is no rule to begin with");
    return RUNNEL_OK;
}

int choice_grammar(const struct constrain_limits *limits, const char *const *choices, size_t n,
                   struct grammar **out, runnel_error *error)
{
    struct grammar *grammar;
    if (!n)
        return error_set(error, RUNNEL_EINVAL, "choice: expected at least one text");
    int code = grammar_create(limits, &grammar, error);
    if (code)
        return code;
    uint32_t *exprs = n > limits->n_nodes ? NULL : calloc(n, sizeof *exprs);
    if (!exprs) {
        grammar_free(grammar);
        return error_set(error, n > limits->n_nodes ? RUNNEL_EUNSUPPORTED : RUNNEL_ENOMEM,
                         "choice: no room for %zu texts, at most %u", n, limits->n_nodes);
    }
    for (size_t i = 0; i < n; i++)
        exprs[i] = expr_literal(grammar->exprs, choices[i], strlen(choices[i]));
    grammar->start = grammar_rule(grammar, NULL, 0);
    grammar_define(grammar, grammar->start, grammar_terminal(grammar, expr_or(grammar->exprs, exprs, n)));
    free(exprs);
    code = grammar_check(grammar, error);
    if (code) {
        grammar_free(grammar);
        error_prefix(error, "choice");
        return code;
    }
    *out = grammar;
    return RUNNEL_OK;
}
