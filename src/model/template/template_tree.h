/* template_tree.h: a chat template as a tree, which the parser makes and the evaluator walks. Lives in the template's
 * arena and never changes once it is made. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_TREE_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_TREE_H

#include "model/template/template_lexer.h"

enum node_kind {
    /* statements */
    NODE_TEXT,         /* text */
    NODE_PRINT,        /* a */
    NODE_IF,           /* a: condition; b: body; c: else body, or, with flag, the NODE_IF of an elif */
    NODE_FOR,          /* target in a, if b (or NULL): c; else d; flag: recursive */
    NODE_SET,          /* a: target; b: value */
    NODE_SET_BLOCK,    /* a: target; b: body; c: filters around a NODE_HOLE, or NULL */
    NODE_MACRO,        /* text: name; a: parameters (NODE_PARAMETER); b: body; flag: uses caller */
    NODE_CALL_BLOCK,   /* a: the call; b: a NODE_MACRO named caller */
    NODE_FILTER_BLOCK, /* a: filters around a NODE_HOLE; b: body */
    NODE_WITH,         /* a: list of NODE_SET; b: body */
    NODE_SCOPE,        /* b: body (generation) */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_PARAMETER, /* text: name; a: default or NULL */
    /* expressions */
    NODE_CONST,     /* value */
    NODE_NAME,      /* text */
    NODE_LIST,      /* a: items */
    NODE_TUPLE,     /* a: items */
    NODE_DICT,      /* a: items, key and value in turn */
    NODE_ATTRIBUTE, /* a.text */
    NODE_ITEM,      /* a[b] */
    NODE_SLICE,     /* a[b:c:d], each may be NULL */
    NODE_CALL,      /* a(b: arguments; c: NODE_PARAMETER for those by name) */
    NODE_FILTER,    /* a | text(b, c) */
    NODE_TEST,      /* a is text(b, c) */
    NODE_NOT,
    NODE_NEGATIVE,
    NODE_POSITIVE,
    NODE_AND,
    NODE_OR,
    NODE_BINARY,  /* a text b */
    NODE_CONCAT,  /* a: items */
    NODE_COMPARE, /* a, then b: list of NODE_OPERAND */
    NODE_OPERAND, /* text a */
    NODE_CHOICE,  /* b if a else c (or NULL) */
    NODE_HOLE,    /* what a block of filters filters */
};

struct run;
struct filter;
struct test;

struct node {
    enum node_kind kind;
    unsigned line;
    bool flag;
    struct node *next; /* in a list */
    struct node *a, *b, *c, *d;
    struct node *target; /* of a for */
    struct string text;
    struct value value;
    const struct filter *filter; /* NULL: none of that name, which is an error once it is reached */
    const struct test *test;
};

/* The tree of a template: a list of statements. RUNNEL_EUNSUPPORTED: not in the language that is known here. */
int parser_read(struct template_arena *arena, const char *text, size_t len, struct node **tree,
                runnel_error *error);

#endif
