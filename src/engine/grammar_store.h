/* grammar_store.h: what answers of a model may be kept to, compiled: the model's vocabulary as a trie, and automata kept by their text.
 *
 * The trie is made with the first grammar. A grammar that is in use is found by its text, so that whoever holds one saves others
 * the compiling; of those that nobody uses the latest are kept. Any thread; compiling takes milliseconds, bounded by
 * constrain.h's limits, and holds up nobody else. The model holds its grammars, and so does each grammar in use, as answers
 * may outlive the model. */
#ifndef RUNNEL_ENGINE_GRAMMAR_STORE_H
#define RUNNEL_ENGINE_GRAMMAR_STORE_H

#include "base/error.h"
#include "model/tokenizer.h"

enum {
    GRAMMAR_STORE_KEPT = 16, /* that nobody uses */
    GRAMMAR_STORE_MAX = 128, /* in use, of different texts; more are RUNNEL_EBUSY */
};

struct grammar_store;
struct automaton;
struct tool_form;
struct trie;

/* The tokens of a model as constraints see them. Read by any thread. */
struct vocabulary {
    const struct tokenizer *tokenizer;
    uint32_t n_vocab;
    struct trie *trie; /* [n_vocab] tokens */
    /* Bits as in a mask: the tokens whose text begins so. */
    uint32_t *newlines; /* with a newline, */
    uint32_t *spaces;   /* with a space that is left out at the beginning of a text (tokenizer_text) */
    int32_t space;      /* one of spaces; -1: there are none */
    int32_t *openers;   /* [n_openers] tokens that have something behind a { */
    uint32_t n_openers;
};

/* Makes nothing yet. form: in which the model calls tools; NULL: none that is known. The tokenizer outlives whatever uses a
 * grammar but to free it. */
int grammar_store_create(const struct tokenizer *tokenizer, uint32_t n_vocab, const struct tool_form *form,
                         struct grammar_store **store, runnel_error *error);
/* For the model at its end. NULL is fine. */
void grammar_store_let_go(struct grammar_store *store);

/* The grammar that the request's constraint and tools say (grammar_source.h), compiled or found; NULL: they say none. RUNNEL_EINVAL: it is none;
 * RUNNEL_EUNSUPPORTED: something in it cannot be enforced, or it is too large; both name what. */
int grammar_store_get(struct grammar_store *store, const runnel_request *request, runnel_grammar **grammar,
                      runnel_error *error);
/* One user less. NULL is fine. */
void grammar_release(runnel_grammar *grammar);

struct automaton *grammar_automaton(const runnel_grammar *grammar);
const struct vocabulary *grammar_vocabulary(const runnel_grammar *grammar);

#endif
