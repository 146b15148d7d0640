/* network.c: see network.h: from symbols to positions. Rules that begin with themselves are left to network_left.c. */
#include "constrain/network.h"

#include <stdlib.h>
#include <string.h>

#define NOT_REGULAR UINT32_MAX

enum {
    MAX_NESTING = 2000,  /* of rules and symbols that become one terminal */
    MAX_TIMES = 1 << 14, /* 16384: copies of what is repeated and is no terminal */
};

enum rule_state {
    RULE_NEW,
    RULE_OPEN, /* it is being looked at: who meets it now is part of it */
    RULE_DONE,
};

struct symbol_list {
    uint32_t *symbols;
    uint32_t n, cap;
};

/* What is known of a grammar while its network is made. */
struct building {
    struct grammar *grammar;
    struct network *network;
    uint8_t *state;        /* [n_rules] */
    uint32_t *rule_expr;   /* [n_rules] of a rule that is regular */
    uint32_t *symbol_expr; /* [n_symbols] plus one; 0: not looked at */
    uint32_t *first;       /* [n_rules] position; UINT32_MAX: none calls it so far */
    uint32_t *todo;        /* [n_rules] rules that are called, and not yet made */
    uint32_t n_todo;
    struct symbol_list parts, waiting; /* stacks of lists */
    const char *too_large;
};

uint32_t network_add_position(struct network *network, bool is_end)
{
    if (network->n_positions == network->cap_positions) {
        uint32_t cap = network->cap_positions ? network->cap_positions * 2 : 64;
        void *grown = network->n_positions >= network->max
                          ? NULL
                          : realloc(network->positions, cap * sizeof *network->positions);
        if (!grown) {
            network->failed = true;
            network->no_memory |= network->n_positions < network->max;
            return 0;
        }
        network->positions = grown;
        network->cap_positions = cap;
    }
    network->positions[network->n_positions] = (struct network_position){.is_end = is_end};
    return network->n_positions++;
}

void network_add_step(struct network *network, enum step_kind kind, uint32_t from, uint32_t a, uint32_t to)
{
    if (network->n_steps == network->cap_steps) {
        uint32_t cap = network->cap_steps ? network->cap_steps * 2 : 64;
        void *grown = network->n_steps >= network->max * 2
                          ? NULL
                          : realloc(network->steps, cap * sizeof *network->steps);
        if (!grown) {
            network->failed = true;
            network->no_memory |= network->n_steps < network->max * 2;
            return;
        }
        network->steps = grown;
        network->cap_steps = cap;
    }
    network->steps[network->n_steps++] =
        (struct network_step){.kind = (uint8_t)kind, .from = from, .a = a, .to = to};
}

int network_order(struct network *network, runnel_error *error)
{
    struct network_step *ordered = malloc((network->n_steps + 1) * sizeof *ordered);
    if (!ordered)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the steps of a grammar");
    for (uint32_t p = 0; p < network->n_positions; p++)
        network->positions[p].n = 0;
    for (uint32_t s = 0; s < network->n_steps; s++)
        network->positions[network->steps[s].from].n++;
    for (uint32_t p = 0, first = 0; p < network->n_positions; p++) {
        network->positions[p].first = first;
        first += network->positions[p].n;
        network->positions[p].n = 0;
    }
    for (uint32_t s = 0; s < network->n_steps; s++) {
        struct network_position *from = &network->positions[network->steps[s].from];
        ordered[from->first + from->n++] = network->steps[s];
    }
    free(network->steps);
    network->steps = ordered;
    network->cap_steps = network->n_steps + 1;
    return RUNNEL_OK;
}

void network_free(struct network *network)
{
    free(network->positions);
    free(network->steps);
    *network = (struct network){0};
}

/* --- what is regular ------------------------------------------------------------------------------------------------ */

static bool push(struct building *building, struct symbol_list *list, uint32_t symbol)
{
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 256;
        void *grown = realloc(list->symbols, cap * sizeof *list->symbols);
        if (!grown) {
            building->network->failed = building->network->no_memory = true;
            return false;
        }
        list->symbols = grown;
        list->cap = cap;
    }
    list->symbols[list->n++] = symbol;
    return true;
}

/* Adds to parts those of a list of this kind, however it is nested, in order. How many. */
static uint32_t flatten(struct building *building, uint32_t symbol)
{
    const struct symbol *symbols = building->grammar->symbols;
    struct symbol_list *waiting = &building->waiting;
    uint8_t kind = symbols[symbol].kind;
    uint32_t n = 0, n_waiting = waiting->n;
    bool has_room = push(building, waiting, symbol);
    while (has_room && waiting->n > n_waiting) {
        uint32_t next = waiting->symbols[--waiting->n];
        if (symbols[next].kind == kind) {
            has_room = push(building, waiting, symbols[next].b) && push(building, waiting, symbols[next].a);
            continue;
        }
        has_room = push(building, &building->parts, next);
        n += has_room;
    }
    waiting->n = n_waiting;
    return n;
}

static uint32_t regular(struct building *building, uint32_t symbol, uint32_t depth);

/* The expression of a rule; NOT_REGULAR: it has none, as it calls itself. */
static uint32_t regular_rule(struct building *building, uint32_t rule, uint32_t depth)
{
    if (building->state[rule] == RULE_OPEN)
        return NOT_REGULAR;
    if (building->state[rule] == RULE_NEW) {
        building->state[rule] = RULE_OPEN;
        building->rule_expr[rule] = regular(building, building->grammar->rules[rule].symbol, depth + 1);
        building->state[rule] = RULE_DONE;
    }
    return building->rule_expr[rule];
}

static uint32_t regular_list(struct building *building, uint32_t symbol, uint32_t depth)
{
    struct exprs *exprs = building->grammar->exprs;
    bool is_cat = building->grammar->symbols[symbol].kind == SYMBOL_CAT;
    uint32_t begin = building->parts.n, n = flatten(building, symbol), together = EXPR_EMPTY, i = n;
    struct expr_union all = {0};
    for (; i > 0; i--) {
        uint32_t part = regular(building, building->parts.symbols[begin + i - 1], depth + 1);
        if (part == NOT_REGULAR)
            break;
        if (is_cat)
            together = expr_cat(exprs, part, together);
        else
            expr_union_add(exprs, &all, part);
    }
    building->parts.n = begin;
    return i > 0 ? NOT_REGULAR : is_cat ? together : expr_union_end(exprs, &all);
}

static uint32_t find_regular(struct building *building, uint32_t number, uint32_t depth)
{
    const struct symbol symbol = building->grammar->symbols[number];
    uint32_t expr;
    switch ((enum symbol_kind)symbol.kind) {
    case SYMBOL_TERMINAL:
        return symbol.a;
    case SYMBOL_NONE:
    case SYMBOL_KEPT:
        return NOT_REGULAR;
    case SYMBOL_CALL: /* what is long is more useful as a terminal of its own, which others may call, too */
        expr = regular_rule(building, symbol.a, depth);
        return expr != NOT_REGULAR && building->grammar->exprs->exprs[expr].is_long ? NOT_REGULAR : expr;
    case SYMBOL_CAT:
    case SYMBOL_OR:
        return regular_list(building, number, depth);
    case SYMBOL_REPEAT:
        expr = regular(building, symbol.a, depth + 1);
        return expr == NOT_REGULAR ? expr
                                   : expr_repeat(building->grammar->exprs, expr, symbol.min, symbol.max);
    }
    return NOT_REGULAR;
}

/* The expression of a symbol that can be one terminal with its neighbours. */
static uint32_t regular(struct building *building, uint32_t symbol, uint32_t depth)
{
    uint32_t *known = &building->symbol_expr[symbol];
    if (depth > MAX_NESTING)
        return NOT_REGULAR;
    if (!*known)
        *known = find_regular(building, symbol, depth) +
                 1; /* NOT_REGULAR + 1 is 0: asked again, which rules answer at once */
    return *known - 1;
}

/* --- positions and steps -------------------------------------------------------------------------------------------- */

static void add_terminal(struct building *building, uint32_t from, uint32_t expr, uint32_t to)
{
    if (expr != EXPR_NONE && expr != EXPR_EMPTY)
        network_add_step(building->network, STEP_TERMINAL, from, expr, to);
    if (expr_is_nullable(building->grammar->exprs, expr))
        network_add_step(building->network, STEP_EMPTY, from, 0, to);
}

static void add_symbol(struct building *building, uint32_t number, uint32_t from, uint32_t to);

static void add_call(struct building *building, uint32_t rule, uint32_t from, uint32_t to)
{
    uint32_t expr = regular_rule(building, rule, 0);
    if (expr != NOT_REGULAR) {
        add_terminal(building, from, expr, to);
        return;
    }
    if (building->first[rule] == UINT32_MAX) {
        building->first[rule] = network_add_position(building->network, false);
        building->todo[building->n_todo++] = rule;
    }
    network_add_step(building->network, STEP_CALL, from, building->first[rule], to);
}

static void add_cat(struct building *building, uint32_t symbol, uint32_t from, uint32_t to)
{
    struct exprs *exprs = building->grammar->exprs;
    uint32_t begin = building->parts.n, n = flatten(building, symbol);
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i, expr = EXPR_EMPTY; /* [i, end): what is one terminal */
        while (end < n && regular(building, building->parts.symbols[begin + end], 0) != NOT_REGULAR)
            end++;
        for (uint32_t k = end; k-- > i;)
            expr = expr_cat(exprs, regular(building, building->parts.symbols[begin + k], 0), expr);
        uint32_t last = end > i ? end : i + 1;
        uint32_t next = last == n ? to : network_add_position(building->network, false);
        if (end > i)
            add_terminal(building, from, expr, next);
        else
            add_symbol(building, building->parts.symbols[begin + i], from, next);
        from = next;
        i = last;
    }
    building->parts.n = begin;
}

static void add_or(struct building *building, uint32_t symbol, uint32_t from, uint32_t to)
{
    struct exprs *exprs = building->grammar->exprs;
    uint32_t begin = building->parts.n, n = flatten(building, symbol);
    struct expr_union together = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t expr = regular(building, building->parts.symbols[begin + i], 0);
        if (expr == NOT_REGULAR)
            add_symbol(building, building->parts.symbols[begin + i], from, to);
        else
            expr_union_add(exprs, &together, expr);
    }
    add_terminal(building, from, expr_union_end(exprs, &together), to);
    building->parts.n = begin;
}

static void add_repeat(struct building *building, struct symbol symbol, uint32_t from, uint32_t to)
{
    struct network *network = building->network;
    bool is_open = symbol.max == EXPR_FOREVER;
    if (symbol.max < symbol.min)
        return;
    if (symbol.min > MAX_TIMES || (!is_open && symbol.max > MAX_TIMES)) {
        building->too_large =
            "more than 16384 repetitions, by maxItems, minItems or {n,m}, of what has several parts";
        return;
    }
    for (uint32_t i = 0; i < symbol.min && !network->failed; i++) {
        uint32_t next = network_add_position(network, false);
        add_symbol(building, symbol.a, from, next);
        from = next;
    }
    if (is_open) {
        uint32_t loop = network_add_position(network, false);
        network_add_step(network, STEP_EMPTY, from, 0, loop);
        add_symbol(building, symbol.a, loop, loop);
        from = loop;
    }
    for (uint32_t i = symbol.min; !is_open && i < symbol.max && !network->failed; i++) {
        uint32_t next = network_add_position(network, false);
        network_add_step(network, STEP_EMPTY, from, 0, to);
        add_symbol(building, symbol.a, from, next);
        from = next;
    }
    network_add_step(network, STEP_EMPTY, from, 0, to);
}

static void add_symbol(struct building *building, uint32_t number, uint32_t from, uint32_t to)
{
    const struct symbol symbol = building->grammar->symbols[number];
    uint32_t expr = building->network->failed ? EXPR_NONE : regular(building, number, 0);
    if (expr != NOT_REGULAR) {
        add_terminal(building, from, expr, to);
        return;
    }
    switch ((enum symbol_kind)symbol.kind) {
    case SYMBOL_KEPT:
        add_terminal(building, from, symbol.a, to);
        break;
    case SYMBOL_CALL:
        add_call(building, symbol.a, from, to);
        break;
    case SYMBOL_CAT:
        add_cat(building, number, from, to);
        break;
    case SYMBOL_OR:
        add_or(building, number, from, to);
        break;
    case SYMBOL_REPEAT:
        add_repeat(building, symbol, from, to);
        break;
    case SYMBOL_NONE:
    case SYMBOL_TERMINAL: /* regular */
        break;
    }
}

static int build(struct building *building, runnel_error *error)
{
    struct grammar *grammar = building->grammar;
    struct network *network = building->network;
    network->start = network_add_position(network, false);
    building->first[grammar->start] = network->start;
    building->todo[building->n_todo++] = grammar->start;
    while (building->n_todo && !network->failed && !building->too_large) {
        uint32_t rule = building->todo[--building->n_todo];
        uint32_t end = network_add_position(network, true);
        add_symbol(building, grammar->rules[rule].symbol, building->first[rule], end);
    }
    if (network->no_memory)
        return error_set(error, RUNNEL_ENOMEM, "no memory to build a grammar");
    if (building->too_large)
        return error_set(error, RUNNEL_EUNSUPPORTED, "too large: %s", building->too_large);
    if (network->failed)
        return error_set(error, RUNNEL_EUNSUPPORTED, "it is too large written out: at most %u positions",
                         network->max);
    int code = grammar_check(grammar, error);
    return code ? code : network_order(network, error);
}

int network_create(struct grammar *grammar, struct network *network, runnel_error *error)
{
    struct building building = {
        .grammar = grammar,
        .network = network,
        .state = calloc(grammar->n_rules, 1),
        .rule_expr = calloc(grammar->n_rules, sizeof *building.rule_expr),
        .symbol_expr = calloc(grammar->n_symbols, sizeof *building.symbol_expr),
        .first = malloc(grammar->n_rules * sizeof *building.first),
        .todo = calloc(grammar->n_rules, sizeof *building.todo),
    };
    int code;
    *network = (struct network){.max = grammar->limits.n_nodes};
    if (!building.state || !building.rule_expr || !building.symbol_expr || !building.first ||
        !building.todo) {
        code = error_set(error, RUNNEL_ENOMEM, "no memory to build a grammar");
    } else {
        memset(building.first, 0xff, grammar->n_rules * sizeof *building.first);
        code = build(&building, error);
    }
    free(building.state);
    free(building.rule_expr);
    free(building.symbol_expr);
    free(building.first);
    free(building.todo);
    free(building.parts.symbols);
    free(building.waiting.symbols);
    if (code)
        network_free(network);
    return code;
}

/* --- what leads to an end ------------------------------------------------------------------------------------------- */

static bool leads_on(const struct network_step *step, const bool *good, struct scanner *scanner)
{
    if (!good[step->to])
        return false;
    return step->kind == STEP_EMPTY ||
           (step->kind == STEP_CALL ? good[step->a] : scanner_has_words(scanner, step->a));
}

int network_prune(struct network *network, struct scanner *scanner, uint64_t max_work, runnel_error *error)
{
    bool *good = calloc(network->n_positions, sizeof *good), changes = true;
    uint64_t work = 0;
    if (!good)
        return error_set(error, RUNNEL_ENOMEM, "no memory to build a grammar");
    for (uint32_t p = 0; p < network->n_positions; p++)
        good[p] = network->positions[p].is_end;
    while (changes && work <= max_work) {
        changes = false;
        work += network->n_steps;
        for (uint32_t s = network->n_steps; s-- > 0;) {
            const struct network_step *step = &network->steps[s];
            if (!good[step->from] && leads_on(step, good, scanner))
                good[step->from] = changes = true;
        }
    }
    uint32_t n = 0;
    for (uint32_t s = 0; s < network->n_steps; s++)
        if (leads_on(&network->steps[s], good, scanner))
            network->steps[n++] = network->steps[s];
    network->n_steps = n;
    bool has_text = good[network->start];
    free(good);
    if (work > max_work || scanner->exprs->failed)
        return error_set(error, RUNNEL_EUNSUPPORTED, "it takes too long to find what leads to an end");
    if (!has_text)
        return error_set(error, RUNNEL_EINVAL, "no text can fulfil it");
    return network_order(network, error);
}
