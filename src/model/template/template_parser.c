/* template_parser.c: the statements of chat templates. See template_parser.h and template_tree.h. */
#include "model/template/template_parser.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 200 };

static struct node *read_body(struct parser *parser, const char *const *ends);

static const char *describe(const struct lexeme *lexeme, char *out, size_t cap)
{
    switch (lexeme->kind) {
    case LEXEME_NAME:
    case LEXEME_OPERATOR:
        snprintf(out, cap, "\"%.*s\"", (int)(lexeme->text.len < 40 ? lexeme->text.len : 40),
                 lexeme->text.bytes);
        return out;
    case LEXEME_STRING:
        return "a string";
    case LEXEME_INT:
    case LEXEME_FLOAT:
        return "a number";
    case LEXEME_PRINT_END:
    case LEXEME_BLOCK_END:
        return "the end of the tag";
    case LEXEME_END:
        return "the end of the template";
    default:
        return "text";
    }
}

bool parser_expected(struct parser *parser, const char *what)
{
    char found[64];
    if (!parser->code)
        parser->code =
            error_set(parser->error, RUNNEL_EUNSUPPORTED, "chat template, line %u: expected %s, found %s",
                      parser->at->line, what, describe(parser->at, found, sizeof found));
    return false;
}

struct node *parser_node(struct parser *parser, enum node_kind kind)
{
    struct node *node = template_arena_zeroed(parser->arena, sizeof *node);
    if (!node)
        return NULL;
    node->kind = kind;
    node->line = parser->at->line;
    return node;
}

bool parser_enter(struct parser *parser)
{
    if (parser->depth++ < DEPTH_MAX)
        return true;
    if (!parser->code)
        parser->code = error_set(parser->error, RUNNEL_EUNSUPPORTED,
                                 "chat template, line %u: more than %d levels within each other",
                                 parser->at->line, DEPTH_MAX);
    return false;
}

void parser_leave(struct parser *parser)
{
    parser->depth--;
}

bool parser_sees(const struct parser *parser, enum lexeme_kind kind, const char *text)
{
    return parser->at->kind == kind && (!text || string_equals(parser->at->text, text));
}

bool parser_takes(struct parser *parser, enum lexeme_kind kind, const char *text)
{
    if (!parser_sees(parser, kind, text))
        return false;
    parser->at++;
    return true;
}

bool parser_needs(struct parser *parser, enum lexeme_kind kind, const char *text)
{
    if (parser_takes(parser, kind, text))
        return true;
    return parser_expected(parser, text                       ? text
                                   : kind == LEXEME_NAME      ? "a name"
                                   : kind == LEXEME_BLOCK_END ? "the end of the tag"
                                                              : "another word");
}

/* {% word %}, whose "{%" has been taken. */
static bool end_block(struct parser *parser, const char *word)
{
    return parser_needs(parser, LEXEME_NAME, word) && parser_needs(parser, LEXEME_BLOCK_END, NULL);
}

/* The body of a statement up to {% end %}, which is taken. *body may be NULL: empty. */
static bool read_block(struct parser *parser, const char *end, struct node **body)
{
    const char *const ends[] = {end, NULL};
    if (!parser_needs(parser, LEXEME_BLOCK_END, NULL))
        return false;
    *body = read_body(parser, ends);
    return !parser->code && !parser->arena->failed && !parser->arena->over_the_limit &&
           end_block(parser, end);
}

/* The same in a scope of its own, in which unknown filters are errors at once. */
static bool read_inner_block(struct parser *parser, const char *end, struct node **body)
{
    bool soft = parser->soft;
    parser->soft = false;
    bool read = read_block(parser, end, body);
    parser->soft = soft;
    return read;
}

static struct node *read_if(struct parser *parser)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *first = NULL, **link = &first;
    bool soft = parser->soft;
    parser->soft = true;
    for (;;) {
        struct node *node = parser_node(parser, NODE_IF);
        if (!node || !(node->a = parser_tuple(parser, false, NULL)) ||
            !parser_needs(parser, LEXEME_BLOCK_END, NULL))
            return NULL;
        *link = node;
        node->b = read_body(parser, ends);
        if (parser->code)
            return NULL;
        if (parser_takes(parser, LEXEME_NAME, "elif")) {
            node->flag = true;
            link = &node->c;
            continue;
        }
        if (parser_takes(parser, LEXEME_NAME, "else")) {
            if (!read_block(parser, "endif", &node->c))
                return NULL;
        } else if (!end_block(parser, "endif")) {
            return NULL;
        }
        parser->soft = soft;
        return first;
    }
}

static bool is_reserved(struct string name)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (string_equals(name, words[i]))
            return true;
    return false;
}

/* A name, or a.b if attributes may be set. */
static struct node *read_one_target(struct parser *parser, bool attributes)
{
    struct node *node = parser_node(parser, NODE_NAME);
    if (!node)
        return NULL;
    node->text = parser->at->text;
    if (parser->at->kind == LEXEME_NAME && is_reserved(node->text)) {
        parser_expected(parser, "a name that can be set");
        return NULL;
    }
    if (!parser_needs(parser, LEXEME_NAME, NULL))
        return NULL;
    if (!attributes || !parser_takes(parser, LEXEME_OPERATOR, "."))
        return node;
    struct node *attribute = parser_node(parser, NODE_ATTRIBUTE);
    if (!attribute)
        return NULL;
    attribute->a = node;
    attribute->text = parser->at->text;
    return parser_needs(parser, LEXEME_NAME, NULL) ? attribute : NULL;
}

/* Names with commas between them, also in parentheses. */
static struct node *read_target(struct parser *parser, bool attributes)
{
    bool in_parentheses = parser_takes(parser, LEXEME_OPERATOR, "(");
    struct node *first = read_one_target(parser, attributes);
    if (first && parser_sees(parser, LEXEME_OPERATOR, ",")) {
        struct node *tuple = parser_node(parser, NODE_TUPLE), *last = first;
        while (tuple && parser_takes(parser, LEXEME_OPERATOR, ",")) {
            if (parser->at->kind != LEXEME_NAME)
                break;
            if (!(last->next = read_one_target(parser, attributes)))
                return NULL;
            last = last->next;
        }
        if (tuple)
            tuple->a = first;
        first = tuple;
    }
    return !in_parentheses || parser_needs(parser, LEXEME_OPERATOR, ")") ? first : NULL;
}

static struct node *read_for(struct parser *parser)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    struct node *node = parser_node(parser, NODE_FOR);
    if (!node || !(node->target = read_target(parser, false)) || !parser_needs(parser, LEXEME_NAME, "in") ||
        !(node->a = parser_tuple(parser, false, "recursive")))
        return NULL;
    if (parser_takes(parser, LEXEME_NAME, "if") && !(node->b = parser_expression(parser, true)))
        return NULL;
    node->flag = parser_takes(parser, LEXEME_NAME, "recursive");
    if (!parser_needs(parser, LEXEME_BLOCK_END, NULL))
        return NULL;
    bool soft = parser->soft;
    parser->soft = false;
    parser->n_loops++;
    node->c = read_body(parser, ends);
    parser->n_loops--;
    parser->soft = soft;
    if (parser->code)
        return NULL;
    if (parser_takes(parser, LEXEME_NAME, "else"))
        return read_inner_block(parser, "endfor", &node->d) ? node : NULL;
    return end_block(parser, "endfor") ? node : NULL;
}

static struct node *read_set(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_SET);
    if (!node || !(node->a = read_target(parser, true)))
        return NULL;
    if (parser_takes(parser, LEXEME_OPERATOR, "="))
        return (node->b = parser_tuple(parser, true, NULL)) && parser_needs(parser, LEXEME_BLOCK_END, NULL)
                   ? node
                   : NULL;
    node->kind = NODE_SET_BLOCK;
    if (parser_takes(parser, LEXEME_OPERATOR, "|")) {
        struct node *hole = parser_node(parser, NODE_HOLE);
        if (!(node->c = parser_filters(parser, hole, true)))
            return NULL;
    }
    return read_inner_block(parser, "endset", &node->b) ? node : NULL;
}

/* "(a, b=1)" */
static bool read_parameters(struct parser *parser, struct node **parameters)
{
    bool has_defaults = false;
    if (!parser_needs(parser, LEXEME_OPERATOR, "("))
        return false;
    while (!parser_takes(parser, LEXEME_OPERATOR, ")")) {
        struct node *parameter = parser_node(parser, NODE_PARAMETER);
        if (!parameter)
            return false;
        parameter->text = parser->at->text;
        if (!parser_needs(parser, LEXEME_NAME, NULL))
            return false;
        if (parser_takes(parser, LEXEME_OPERATOR, "=")) {
            has_defaults = true;
            if (!(parameter->a = parser_expression(parser, true)))
                return false;
        } else if (has_defaults) {
            return parser_expected(parser, "a default, as the parameter before has one");
        }
        *parameters = parameter;
        parameters = &parameter->next;
        if (!parser_takes(parser, LEXEME_OPERATOR, ",") && !parser_sees(parser, LEXEME_OPERATOR, ")"))
            return parser_expected(parser, ")");
    }
    return true;
}

static bool read_macro_body(struct parser *parser, const char *end, struct node *macro)
{
    unsigned n_loops = parser->n_loops;
    parser->n_loops = 0;
    bool read = read_inner_block(parser, end, &macro->b);
    parser->n_loops = n_loops;
    return read;
}

static struct node *read_macro(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_MACRO);
    if (!node)
        return NULL;
    node->text = parser->at->text;
    return parser_needs(parser, LEXEME_NAME, NULL) && read_parameters(parser, &node->a) &&
                   read_macro_body(parser, "endmacro", node)
               ? node
               : NULL;
}

static struct node *read_call_block(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_CALL_BLOCK), *caller = parser_node(parser, NODE_MACRO);
    if (!node || !caller)
        return NULL;
    caller->text = string_of("caller", 6, true);
    if (parser_sees(parser, LEXEME_OPERATOR, "(") && !read_parameters(parser, &caller->a))
        return NULL;
    node->b = caller;
    if (!(node->a = parser_expression(parser, true)))
        return NULL;
    if (node->a->kind != NODE_CALL) {
        parser_expected(parser, "a call");
        return NULL;
    }
    return read_macro_body(parser, "endcall", caller) ? node : NULL;
}

static struct node *read_filter_block(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_FILTER_BLOCK), *hole = parser_node(parser, NODE_HOLE);
    if (!node || !hole || !(node->a = parser_filters(parser, hole, true)))
        return NULL;
    return read_inner_block(parser, "endfilter", &node->b) ? node : NULL;
}

static struct node *read_with(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_WITH), **settings = node ? &node->a : NULL;
    while (node && !parser_sees(parser, LEXEME_BLOCK_END, NULL)) {
        if (node->a && !parser_needs(parser, LEXEME_OPERATOR, ","))
            return NULL;
        struct node *setting = parser_node(parser, NODE_SET);
        if (!setting || !(setting->a = read_target(parser, false)) ||
            !parser_needs(parser, LEXEME_OPERATOR, "=") || !(setting->b = parser_expression(parser, true)))
            return NULL;
        *settings = setting;
        settings = &setting->next;
    }
    return node && read_inner_block(parser, "endwith", &node->b) ? node : NULL;
}

static struct node *read_generation(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_SCOPE);
    return node && read_inner_block(parser, "endgeneration", &node->b) ? node : NULL;
}

static struct node *read_jump(struct parser *parser, enum node_kind kind)
{
    if (!parser->n_loops) {
        parser->at--;
        parser_expected(parser, "a loop around it");
        return NULL;
    }
    struct node *node = parser_node(parser, kind);
    return parser_needs(parser, LEXEME_BLOCK_END, NULL) ? node : NULL;
}

static struct node *read_statement(struct parser *parser)
{
    if (parser_takes(parser, LEXEME_NAME, "if"))
        return read_if(parser);
    if (parser_takes(parser, LEXEME_NAME, "for"))
        return read_for(parser);
    if (parser_takes(parser, LEXEME_NAME, "set"))
        return read_set(parser);
    if (parser_takes(parser, LEXEME_NAME, "macro"))
        return read_macro(parser);
    if (parser_takes(parser, LEXEME_NAME, "call"))
        return read_call_block(parser);
    if (parser_takes(parser, LEXEME_NAME, "filter"))
        return read_filter_block(parser);
    if (parser_takes(parser, LEXEME_NAME, "with"))
        return read_with(parser);
    if (parser_takes(parser, LEXEME_NAME, "generation"))
        return read_generation(parser);
    if (parser_takes(parser, LEXEME_NAME, "break"))
        return read_jump(parser, NODE_BREAK);
    if (parser_takes(parser, LEXEME_NAME, "continue"))
        return read_jump(parser, NODE_CONTINUE);
    parser_expected(
        parser,
        "a statement that is known (if, for, set, macro, call, filter, with, generation, break, continue)");
    return NULL;
}

static struct node *read_print(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_PRINT);
    if (!node || !(node->a = parser_tuple(parser, true, NULL)))
        return NULL;
    if (!parser_takes(parser, LEXEME_PRINT_END, NULL)) {
        parser_expected(parser, "the end of the tag");
        return NULL;
    }
    return node;
}

/* One piece of text, print or statement. */
static struct node *read_piece(struct parser *parser)
{
    if (parser->at->kind == LEXEME_TEXT) {
        struct node *node = parser_node(parser, NODE_TEXT);
        if (node)
            node->text = parser->at->text;
        parser->at++;
        return node;
    }
    if (parser_takes(parser, LEXEME_PRINT_BEGIN, NULL))
        return read_print(parser);
    parser->at++; /* {% */
    return read_statement(parser);
}

static bool sees_end(const struct parser *parser, const char *const *ends)
{
    if (parser->at->kind != LEXEME_BLOCK_BEGIN)
        return false;
    for (; *ends; ends++)
        if (parser->at[1].kind == LEXEME_NAME && string_equals(parser->at[1].text, *ends))
            return true;
    return false;
}

/* Pieces up to one of the words of `ends`, whose "{%" is taken. NULL: empty, or a failure (parser->code, or the arena's
 * flags). Without ends: up to the end of the template. */
static struct node *read_body(struct parser *parser, const char *const *ends)
{
    struct node *first = NULL, **link = &first;
    if (!parser_enter(parser))
        return NULL;
    while (parser->at->kind != LEXEME_END && !sees_end(parser, ends)) {
        if (!(*link = read_piece(parser)))
            return NULL;
        link = &(*link)->next;
    }
    parser_leave(parser);
    if (parser->at->kind != LEXEME_END)
        parser->at++;
    else if (*ends)
        parser_expected(parser, *ends);
    return first;
}

int parser_read(struct template_arena *arena, const char *text, size_t len, struct node **tree,
                runnel_error *error)
{
    static const char *const no_ends[] = {NULL};
    struct lexeme *lexemes;
    int code = lexer_read(arena, text, len, &lexemes, error);
    if (code)
        return code;
    struct parser parser = {.arena = arena, .at = lexemes, .error = error};
    struct node *read = read_body(&parser, no_ends);
    if (arena->failed)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    if (arena->over_the_limit)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "chat template of %zu bytes: more memory than a template may take", len);
    if (!parser.code)
        *tree = read;
    return parser.code;
}
