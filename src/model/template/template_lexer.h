/* template_lexer.h: the text of a chat template cut into tokens, as Jinja cuts it with trim_blocks and lstrip_blocks. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_LEXER_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_LEXER_H

#include "model/template/template_value.h"

#include "base/error.h"

enum lexeme_kind {
    LEXEME_TEXT, /* between tags */
    LEXEME_PRINT_BEGIN,
    LEXEME_PRINT_END,
    LEXEME_BLOCK_BEGIN,
    LEXEME_BLOCK_END,
    LEXEME_NAME,
    LEXEME_STRING,
    LEXEME_INT,
    LEXEME_FLOAT,
    LEXEME_OPERATOR,
    LEXEME_END,
};

struct lexeme {
    enum lexeme_kind kind;
    unsigned line;
    struct string text; /* a string's is decoded */
    int64_t integer;
    double real;
};

/* Lexemes of `text` in the arena, the last one LEXEME_END. */
int lexer_read(struct template_arena *arena, const char *text, size_t len, struct lexeme **lexemes,
               runnel_error *error);

#endif
