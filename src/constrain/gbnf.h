/* gbnf.h: grammars as llama.cpp writes them: `root ::= "yes" | "no"`.
 *
 * Known: rules, literals, classes, '.', groups, * + ? {m} {m,} {m,n}, comments, and rules that begin with themselves, which
 * llama.cpp refuses. A rule that is defined twice means what it says last. Refused: tokens in angle brackets. */
#ifndef RUNNEL_CONSTRAIN_GBNF_H
#define RUNNEL_CONSTRAIN_GBNF_H

#include "constrain/grammar.h"

int gbnf_grammar(const struct constrain_limits *limits, const char *text, size_t len,
                 struct grammar **grammar, runnel_error *error);

#endif
