/* template_parser.h: what the two halves of the parser share: statements (template_parser.c) and expressions
 * (template_expression.c). Functions return NULL or false after a failure, which stands in parser->code. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_PARSER_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_PARSER_H

#include "model/template/template_tree.h"

struct parser {
    struct template_arena *arena;
    const struct lexeme *at; /* the next one */
    unsigned depth;
    bool soft;        /* within an if: an unknown filter is an error only when it is reached */
    unsigned n_loops; /* around this place, within the same macro */
    int code;
    runnel_error *error;
};

/* "expected WHAT, found ..." */
bool parser_expected(struct parser *parser, const char *what);
struct node *parser_node(struct parser *parser, enum node_kind kind);
bool parser_enter(struct parser *parser);
void parser_leave(struct parser *parser);

bool parser_sees(const struct parser *parser, enum lexeme_kind kind, const char *text);
bool parser_takes(struct parser *parser, enum lexeme_kind kind, const char *text);
bool parser_needs(struct parser *parser, enum lexeme_kind kind, const char *text);

/* An expression; with choice, also "a if b else c". */
struct node *parser_expression(struct parser *parser, bool choice);
/* The same, or several with commas between them as a tuple, up to what ends a tag or the word `end` (may be NULL). */
struct node *parser_tuple(struct parser *parser, bool choice, const char *end);
/* A value with its calls, attributes and filters. */
struct node *parser_unary(struct parser *parser, bool with_filters);
/* "| name(...) | ..." after `node`; the first "|" has been taken if begun. */
struct node *parser_filters(struct parser *parser, struct node *node, bool begun);

#endif
