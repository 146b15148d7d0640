/* grammar_store.h: what answers of a model may be kept to, compiled: the model's vocabulary as a trie, and automata kept by their text.
 *
 * The trie is made with the first grammar. A grammar that is in use is found by its text and the API key that it was compiled for,
 * so that whoever holds one saves others of the key the compiling; of those that nobody uses the latest are kept, as many as take
 * little memory. Any thread; compiling takes milliseconds, bounded by constrain.h's limits, and holds up nobody else. The model
 * holds its grammars, and so does each grammar in use, as answers may outlive the model. */
#ifndef RUNNEL_ENGINE_GRAMMAR_STORE_H
#define RUNNEL_ENGINE_GRAMMAR_STORE_H

#include "base/error.h"
#include "model/tokenizer.h"

enum {
    GRAMMAR_STORE_KEPT = 16,             /* that nobody uses, */
    GRAMMAR_STORE_KEPT_BYTES = 64 << 20, /* ... and what these take in all */
    GRAMMAR_STORE_MAX = 128,             /* in use, of different texts; more are RUNNEL_EBUSY */
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
/* The same, but NULL, too, if it is not there, or while another thread has the store. Compiles nothing and waits for nobody. */
int grammar_store_find(struct grammar_store *store, const runnel_request *request, runnel_grammar **grammar,
                       runnel_error *error);
/* One user less. NULL is fine. */
void grammar_release(runnel_grammar *grammar);
/* Frees those that nobody uses. */
void grammar_store_forget(struct grammar_store *store);

struct grammar_store_stats {
    unsigned n_used, n_unused;
    uint64_t unused_bytes; /* what those take that nobody uses */
    uint64_t n_compiled;   /* so far */
};
void grammar_store_get_stats(struct grammar_store *store, struct grammar_store_stats *stats);

struct automaton *grammar_automaton(const runnel_grammar *grammar);
const struct vocabulary *grammar_vocabulary(const runnel_grammar *grammar);

#endif
