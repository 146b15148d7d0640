/* grammar_constraint.h: the constraint that keeps an answer's text to a grammar. Thoughts are free,
 * but that the answer does not end in one, and so are the two newlines behind them, which are no part of the answer (output.h). */
#ifndef RUNNEL_ENGINE_GRAMMAR_CONSTRAINT_H
#define RUNNEL_ENGINE_GRAMMAR_CONSTRAINT_H

#include "engine/constraint.h"
#include "engine/grammar_store.h"

struct grammar_constraint_options {
    bool
        waits_for_thought; /* the answer begins in a thought: its text is kept to the grammar from the thought's end on */
    bool ignores_end; /* while there is anything else to write, the answer does not end */
};

/* Takes over the grammar, also if it fails. It binds more than those that an answer had before: where they would leave no token at
 * all, its own may be drawn. */
int grammar_constraint_create(runnel_grammar *grammar, const struct grammar_constraint_options *options,
                              struct constraint **constraint, runnel_error *error);

#endif
