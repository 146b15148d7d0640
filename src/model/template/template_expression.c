/* template_expression.c: the expressions of chat templates, in Jinja's order of precedence. See template_parser.h. */
#include "model/template/template_parser.h"

#include "model/template/template_library.h"
#include "model/template/template_text.h"

#include <string.h>

static bool sees_operator(const struct parser *parser, const char *text)
{
    return parser_sees(parser, LEXEME_OPERATOR, text);
}

static bool takes_operator(struct parser *parser, const char *text)
{
    return parser_takes(parser, LEXEME_OPERATOR, text);
}

static bool sees_name(const struct parser *parser, const char *text)
{
    return parser_sees(parser, LEXEME_NAME, text);
}

/* Adds to a list whose last link is *end. */
static bool append(struct node ***end, struct node *node)
{
    if (!node)
        return false;
    **end = node;
    *end = &node->next;
    return true;
}

/* Items up to `closing`, with commas between them. */
static bool read_items(struct parser *parser, struct node **items, const char *closing)
{
    while (!takes_operator(parser, closing)) {
        if (!append(&items, parser_expression(parser, true)))
            return false;
        if (!takes_operator(parser, ",") && !sees_operator(parser, closing))
            return parser_expected(parser, closing);
    }
    return true;
}

static struct node *read_dict(struct parser *parser)
{
    struct node *dict = parser_node(parser, NODE_DICT);
    struct node **items = dict ? &dict->a : NULL;
    while (dict && !takes_operator(parser, "}")) {
        if (!append(&items, parser_expression(parser, true)) || !parser_needs(parser, LEXEME_OPERATOR, ":") ||
            !append(&items, parser_expression(parser, true)))
            return NULL;
        if (!takes_operator(parser, ",") && !sees_operator(parser, "}")) {
            parser_expected(parser, "}");
            return NULL;
        }
    }
    return dict;
}

static struct node *read_brackets(struct parser *parser, enum node_kind kind, const char *closing)
{
    struct node *list = parser_node(parser, kind);
    return list && read_items(parser, &list->a, closing) ? list : NULL;
}

/* After "(": an expression, or a tuple. */
static struct node *read_parentheses(struct parser *parser)
{
    if (takes_operator(parser, ")"))
        return parser_node(parser, NODE_TUPLE);
    struct node *first = parser_expression(parser, true);
    if (!first || takes_operator(parser, ")"))
        return first;
    struct node *tuple = parser_node(parser, NODE_TUPLE);
    if (!tuple || !parser_needs(parser, LEXEME_OPERATOR, ","))
        return NULL;
    tuple->a = first;
    return read_items(parser, &first->next, ")") ? tuple : NULL;
}

static struct node *constant(struct parser *parser, struct value value)
{
    struct node *node = parser_node(parser, NODE_CONST);
    if (node)
        node->value = value;
    return node;
}

static struct node *read_name(struct parser *parser)
{
    struct string name = parser->at->text;
    if (string_equals(name, "true") || string_equals(name, "True") || string_equals(name, "false") ||
        string_equals(name, "False")) {
        struct node *node = constant(parser, value_bool((name.bytes[0] | 32) == 't'));
        parser->at++;
        return node;
    }
    struct node *node = string_equals(name, "none") || string_equals(name, "None")
                            ? constant(parser, value_none())
                            : parser_node(parser, NODE_NAME);
    if (node)
        node->text = name;
    parser->at++;
    return node;
}

/* Strings that follow each other are one. */
static struct node *read_strings(struct parser *parser)
{
    struct string text = parser->at->text;
    struct node *node = parser_node(parser, NODE_CONST);
    parser->at++;
    if (parser->at->kind == LEXEME_STRING) {
        struct string_builder builder = {.arena = parser->arena};
        builder_add(&builder, text);
        for (; parser->at->kind == LEXEME_STRING; parser->at++)
            builder_add(&builder, parser->at->text);
        text = builder_string(&builder);
        text.own = true;
    }
    if (node)
        node->value = value_string(text);
    return node;
}

static struct node *read_primary(struct parser *parser)
{
    const struct lexeme *lexeme = parser->at;
    switch (lexeme->kind) {
    case LEXEME_NAME:
        return read_name(parser);
    case LEXEME_STRING:
        return read_strings(parser);
    case LEXEME_INT:
    case LEXEME_FLOAT: {
        struct node *node = constant(parser, lexeme->kind == LEXEME_INT ? value_int(lexeme->integer)
                                                                        : value_float(lexeme->real));
        parser->at++;
        return node;
    }
    default:
        if (takes_operator(parser, "("))
            return read_parentheses(parser);
        if (takes_operator(parser, "["))
            return read_brackets(parser, NODE_LIST, "]");
        if (takes_operator(parser, "{"))
            return read_dict(parser);
        parser_expected(parser, "a value");
        return NULL;
    }
}

/* After "(": the arguments of a call into node->b, those by name into node->c. */
static bool read_arguments(struct parser *parser, struct node *node)
{
    struct node **arguments = &node->b, **named = &node->c;
    while (!takes_operator(parser, ")")) {
        if (parser->at->kind == LEXEME_NAME && parser->at[1].kind == LEXEME_OPERATOR &&
            string_equals(parser->at[1].text, "=")) {
            struct node *parameter = parser_node(parser, NODE_PARAMETER);
            if (!append(&named, parameter))
                return false;
            parameter->text = parser->at->text;
            parser->at += 2;
            parameter->a = parser_expression(parser, true);
            if (!parameter->a)
                return false;
        } else if (node->c) {
            return parser_expected(parser, "an argument with a name");
        } else if (!append(&arguments, parser_expression(parser, true))) {
            return false;
        }
        if (!takes_operator(parser, ",") && !sees_operator(parser, ")"))
            return parser_expected(parser, ")");
    }
    return true;
}

/* After "[": an index or a slice. */
static struct node *read_subscript(struct parser *parser, struct node *object)
{
    struct node *node = parser_node(parser, NODE_ITEM);
    if (!node)
        return NULL;
    node->a = object;
    if (!sees_operator(parser, ":")) {
        node->b = parser_expression(parser, true);
        if (!node->b)
            return NULL;
    }
    if (takes_operator(parser, ":")) {
        node->kind = NODE_SLICE;
        struct node **parts[] = {&node->c, &node->d};
        for (int i = 0; i < 2; i++) {
            if (!sees_operator(parser, ":") && !sees_operator(parser, "]") &&
                !(*parts[i] = parser_expression(parser, true)))
                return NULL;
            if (i == 1 || !takes_operator(parser, ":"))
                break;
        }
    } else if (!node->b) {
        parser_expected(parser, "an index");
        return NULL;
    }
    return parser_needs(parser, LEXEME_OPERATOR, "]") ? node : NULL;
}

/* After ".": an attribute, or an index. */
static struct node *read_attribute(struct parser *parser, struct node *object)
{
    bool is_index = parser->at->kind == LEXEME_INT;
    struct node *node = parser_node(parser, is_index ? NODE_ITEM : NODE_ATTRIBUTE);
    if (!node)
        return NULL;
    node->a = object;
    node->text = parser->at->text;
    if (is_index) {
        node->b = read_primary(parser);
        return node->b ? node : NULL;
    }
    return parser_needs(parser, LEXEME_NAME, NULL) ? node : NULL;
}

static struct node *read_call(struct parser *parser, struct node *object)
{
    struct node *node = parser_node(parser, NODE_CALL);
    if (!node)
        return NULL;
    node->a = object;
    return read_arguments(parser, node) ? node : NULL;
}

static struct node *read_postfix(struct parser *parser, struct node *node)
{
    while (node) {
        if (takes_operator(parser, "."))
            node = read_attribute(parser, node);
        else if (takes_operator(parser, "["))
            node = read_subscript(parser, node);
        else if (takes_operator(parser, "("))
            node = read_call(parser, node);
        else
            break;
    }
    return node;
}

/* A name that may have dots. */
static bool read_dotted(struct parser *parser, struct string *name)
{
    *name = parser->at->text;
    if (!parser_needs(parser, LEXEME_NAME, NULL))
        return false;
    while (takes_operator(parser, ".")) {
        const struct lexeme *part = parser->at;
        if (!parser_needs(parser, LEXEME_NAME, NULL))
            return false;
        *name = string_of(name->bytes, (size_t)(part->text.bytes + part->text.len - name->bytes), true);
    }
    return true;
}

/* names: writes those that are known. */
static struct node *unknown(struct parser *parser, struct node *node, const char *what,
                            void (*names)(char text[LIBRARY_NAMES_BYTES]))
{
    char known[LIBRARY_NAMES_BYTES];
    if (parser->soft)
        return node;
    names(known);
    if (!parser->code)
        parser->code =
            error_set(parser->error, RUNNEL_EUNSUPPORTED,
                      "chat template, line %u: the %s \"%.*s\" is not known, expected one of %s", node->line,
                      what, (int)(node->text.len < 40 ? node->text.len : 40), node->text.bytes, known);
    return NULL;
}

struct node *parser_filters(struct parser *parser, struct node *node, bool begun)
{
    while (node && (begun || takes_operator(parser, "|"))) {
        struct node *filter = parser_node(parser, NODE_FILTER);
        begun = false;
        if (!filter || !read_dotted(parser, &filter->text))
            return NULL;
        filter->a = node;
        filter->filter = library_filter(filter->text);
        if (!filter->filter && !unknown(parser, filter, "filter", library_filter_names))
            return NULL;
        if (takes_operator(parser, "(") && !read_arguments(parser, filter))
            return NULL;
        node = filter;
    }
    return node;
}

static bool begins_argument(const struct parser *parser)
{
    enum lexeme_kind kind = parser->at->kind;
    if (kind == LEXEME_NAME)
        return !sees_name(parser, "else") && !sees_name(parser, "or") && !sees_name(parser, "and");
    return kind == LEXEME_STRING || kind == LEXEME_INT || kind == LEXEME_FLOAT ||
           sees_operator(parser, "[") || sees_operator(parser, "{");
}

/* After "is". */
static struct node *read_test(struct parser *parser, struct node *object)
{
    bool negated = parser_takes(parser, LEXEME_NAME, "not");
    struct node *test = parser_node(parser, NODE_TEST);
    if (!test || !read_dotted(parser, &test->text))
        return NULL;
    test->a = object;
    test->test = library_test(test->text);
    if (!test->test && !unknown(parser, test, "test", library_test_names))
        return NULL;
    if (takes_operator(parser, "(")) {
        if (!read_arguments(parser, test))
            return NULL;
    } else if (begins_argument(parser)) {
        if (sees_name(parser, "is")) {
            parser_expected(parser, "no second test");
            return NULL;
        }
        test->b = read_postfix(parser, read_primary(parser));
        if (!test->b)
            return NULL;
    }
    if (!negated)
        return test;
    struct node *not = parser_node(parser, NODE_NOT);
    if (not )
        not ->a = test;
    return not ;
}

static struct node *read_filters_and_tests(struct parser *parser, struct node *node)
{
    while (node) {
        if (sees_operator(parser, "|"))
            node = parser_filters(parser, node, false);
        else if (parser_takes(parser, LEXEME_NAME, "is"))
            node = read_test(parser, node);
        else if (takes_operator(parser, "("))
            node = read_call(parser, node);
        else
            break;
    }
    return node;
}

struct node *parser_unary(struct parser *parser, bool with_filters)
{
    if (!parser_enter(parser))
        return NULL;
    struct node *node;
    if (sees_operator(parser, "-") || sees_operator(parser, "+")) {
        node = parser_node(parser, sees_operator(parser, "-") ? NODE_NEGATIVE : NODE_POSITIVE);
        parser->at++;
        if (node && !(node->a = parser_unary(parser, false)))
            node = NULL;
    } else {
        node = read_primary(parser);
    }
    node = read_postfix(parser, node);
    if (with_filters)
        node = read_filters_and_tests(parser, node);
    parser_leave(parser);
    return node;
}

static struct node *read_power(struct parser *parser)
{
    return parser_unary(parser, true);
}

static struct node *binary(struct parser *parser, struct node *left,
                           struct node *(*read_right)(struct parser *))
{
    struct node *node = parser_node(parser, NODE_BINARY);
    if (!node)
        return NULL;
    node->text = parser->at->text;
    parser->at++;
    node->a = left;
    node->b = read_right(parser);
    return node->b ? node : NULL;
}

static struct node *read_powers(struct parser *parser)
{
    struct node *node = read_power(parser);
    while (node && sees_operator(parser, "**"))
        node = binary(parser, node, read_power);
    return node;
}

static struct node *read_product(struct parser *parser)
{
    struct node *node = read_powers(parser);
    while (node && (sees_operator(parser, "*") || sees_operator(parser, "/") || sees_operator(parser, "//") ||
                    sees_operator(parser, "%")))
        node = binary(parser, node, read_powers);
    return node;
}

static struct node *read_concat(struct parser *parser)
{
    struct node *first = read_product(parser);
    if (!first || !sees_operator(parser, "~"))
        return first;
    struct node *node = parser_node(parser, NODE_CONCAT), **items = &first->next;
    if (!node)
        return NULL;
    node->a = first;
    while (takes_operator(parser, "~"))
        if (!append(&items, read_product(parser)))
            return NULL;
    return node;
}

static struct node *read_sum(struct parser *parser)
{
    struct node *node = read_concat(parser);
    while (node && (sees_operator(parser, "+") || sees_operator(parser, "-")))
        node = binary(parser, node, read_concat);
    return node;
}

/* The comparison that comes next; a zero length: none. */
static struct string take_comparison(struct parser *parser)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (takes_operator(parser, operators[i]))
            return string_made(operators[i]);
    if (parser_takes(parser, LEXEME_NAME, "in"))
        return string_made("in");
    if (sees_name(parser, "not") && parser->at[1].kind == LEXEME_NAME &&
        string_equals(parser->at[1].text, "in")) {
        parser->at += 2;
        return string_made("not in");
    }
    return string_made("");
}

static struct node *read_comparison(struct parser *parser)
{
    struct node *first = read_sum(parser), *node = NULL, **operands = NULL;
    while (first) {
        struct string comparison = take_comparison(parser);
        if (!comparison.len)
            break;
        if (!node) {
            if (!(node = parser_node(parser, NODE_COMPARE)))
                return NULL;
            node->a = first;
            operands = &node->b;
        }
        struct node *operand = parser_node(parser, NODE_OPERAND);
        if (!append(&operands, operand) || !(operand->a = read_sum(parser)))
            return NULL;
        operand->text = comparison;
    }
    return node ? node : first;
}

static struct node *read_not(struct parser *parser)
{
    if (!parser_takes(parser, LEXEME_NAME, "not"))
        return read_comparison(parser);
    struct node *node = parser_enter(parser) ? parser_node(parser, NODE_NOT) : NULL;
    if (!node || !(node->a = read_not(parser)))
        return NULL;
    parser_leave(parser);
    return node;
}

static struct node *read_logic(struct parser *parser, const char *word, enum node_kind kind,
                               struct node *(*read)(struct parser *))
{
    struct node *node = read(parser);
    while (node && parser_takes(parser, LEXEME_NAME, word)) {
        struct node *both = parser_node(parser, kind);
        if (!both)
            return NULL;
        both->a = node;
        if (!(both->b = read(parser)))
            return NULL;
        node = both;
    }
    return node;
}

static struct node *read_and(struct parser *parser)
{
    return read_logic(parser, "and", NODE_AND, read_not);
}

static struct node *read_choice(struct parser *parser)
{
    struct node *node = read_logic(parser, "or", NODE_OR, read_and);
    while (node && parser_takes(parser, LEXEME_NAME, "if")) {
        struct node *choice = parser_node(parser, NODE_CHOICE);
        if (!choice)
            return NULL;
        choice->b = node;
        if (!(choice->a = read_logic(parser, "or", NODE_OR, read_and)))
            return NULL;
        if (parser_takes(parser, LEXEME_NAME, "else") && !(choice->c = parser_expression(parser, true)))
            return NULL;
        node = choice;
    }
    return node;
}

struct node *parser_expression(struct parser *parser, bool choice)
{
    if (!parser_enter(parser))
        return NULL;
    struct node *node = choice ? read_choice(parser) : read_logic(parser, "or", NODE_OR, read_and);
    parser_leave(parser);
    return node;
}

struct node *parser_tuple(struct parser *parser, bool choice, const char *end)
{
    struct node *first = parser_expression(parser, choice);
    if (!first || !sees_operator(parser, ","))
        return first;
    struct node *tuple = parser_node(parser, NODE_TUPLE), **items = &first->next;
    if (!tuple)
        return NULL;
    tuple->a = first;
    while (takes_operator(parser, ",")) {
        enum lexeme_kind kind = parser->at->kind;
        if (kind == LEXEME_PRINT_END || kind == LEXEME_BLOCK_END || sees_operator(parser, "=") ||
            (end && sees_name(parser, end)))
            break;
        if (!append(&items, parser_expression(parser, choice)))
            return NULL;
    }
    return tuple;
}
