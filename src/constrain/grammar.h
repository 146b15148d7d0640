/* grammar.h: rules over terminals, as the front ends build them.
 *
 * A grammar owns its rules, their symbols and the expressions (exprs.h) of its terminals. Symbols are made from the inside to the outside and
 * are numbers; 0 is none and is what a call gives that had no room: `failed`, asked at the end. One thread. */
#ifndef RUNNEL_CONSTRAIN_GRAMMAR_H
#define RUNNEL_CONSTRAIN_GRAMMAR_H

#include "base/error.h"
#include "constrain/constrain.h"
#include "constrain/exprs.h"

enum symbol_kind {
    SYMBOL_NONE,
    SYMBOL_TERMINAL, /* expression a */
    SYMBOL_KEPT,   /* the same; it stays a terminal of its own, as others have the same one (a JSON string) */
    SYMBOL_CALL,   /* rule a */
    SYMBOL_CAT,    /* a, then b */
    SYMBOL_OR,     /* a or b */
    SYMBOL_REPEAT, /* a, min to max times (EXPR_FOREVER) */
};

struct symbol {
    uint8_t kind;
    uint32_t a, b, min, max, depth;
};

struct rule {
    char *name;      /* NULL: it has none */
    uint32_t symbol; /* 0: not defined yet */
};

struct grammar {
    struct constrain_limits limits;
    struct exprs *exprs;
    struct symbol *symbols;
    uint32_t n_symbols, cap_symbols;
    struct rule *rules;
    uint32_t n_rules, cap_rules;
    uint32_t *rule_index; /* open addressing by name; 0: none */
    uint32_t index_size;
    uint32_t start;         /* rule */
    uint32_t any_char;      /* expression of any character within a JSON string; 0: the grammar has none */
    bool failed, no_memory; /* something had no room; as there was no memory */
};

int grammar_create(const struct constrain_limits *limits, struct grammar **grammar, runnel_error *error);
void grammar_free(struct grammar *grammar);

uint32_t grammar_terminal(struct grammar *grammar, uint32_t expr);
uint32_t grammar_kept(struct grammar *grammar, uint32_t expr);
uint32_t grammar_literal(struct grammar *grammar, const char *bytes, size_t len);
uint32_t grammar_call(struct grammar *grammar, uint32_t rule);
uint32_t grammar_cat(struct grammar *grammar, uint32_t a, uint32_t b);
uint32_t grammar_or(struct grammar *grammar, uint32_t a, uint32_t b);
uint32_t grammar_repeat(struct grammar *grammar, uint32_t a, uint32_t min, uint32_t max);

/* a or b, where 0 is what no text fulfils. */
uint32_t grammar_either(struct grammar *grammar, uint32_t a, uint32_t b);
/* The same of many, as expr_union (exprs.h) is. */
struct grammar_union {
    uint32_t n, parts[32];
};
void grammar_union_add(struct grammar *grammar, struct grammar_union *all, uint32_t symbol);
uint32_t grammar_union_end(struct grammar *grammar, const struct grammar_union *all);
/* The symbol as a rule of its own, as it is used more than once; 0 stays 0. */
uint32_t grammar_shared(struct grammar *grammar, uint32_t a);

/* The rule of this name, made if there is none; name NULL: a new one. UINT32_MAX: no room. */
uint32_t grammar_rule(struct grammar *grammar, const char *name, size_t len);
void grammar_define(struct grammar *grammar, uint32_t rule, uint32_t symbol);

/* That all rules are defined, and everything had room; else an error that names what is wrong. */
int grammar_check(const struct grammar *grammar, runnel_error *error);

/* One of these texts. */
int choice_grammar(const struct constrain_limits *limits, const char *const *choices, size_t n,
                   struct grammar **grammar, runnel_error *error);

#endif
