/* grammar_store.c: see grammar_store.h. */
#include "engine/grammar_store.h"

#include "base/text.h"
#include "constrain/matcher.h"
#include "engine/grammar_source.h"
#include "model/tool_forms.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct runnel_grammar {
    struct grammar_store *store;
    const struct vocabulary *vocabulary; /* one of the store's */
    struct automaton *automaton;
    struct text key;  /* what it was compiled from, with its kind */
    unsigned n_users; /* the rest is guarded by the store's lock */
    uint64_t used;    /* when it was asked for */
    uint64_t n_bytes; /* that it takes, once nobody uses it */
    runnel_grammar *next;
};

struct grammar_store {
    const struct tokenizer *tokenizer;
    uint32_t n_vocab;
    const struct tool_form *form; /* NULL: none */
    pthread_mutex_t lock;         /* guards the rest; a vocabulary's fields do not change once there is one */
    unsigned n_holders;           /* the model, and each user of a grammar */
    uint64_t now;
    struct vocabulary texts; /* no trie: not made yet */
    struct vocabulary calls; /* likewise; the control tokens that calls are written with are text */
    runnel_grammar *list;
    unsigned n;
    uint64_t n_compiled;
};

/* The vocabulary ------------------------------------------------------------------------------------------ */

/* form: whose control tokens are text; NULL: none are. */
static struct gguf_string text_of(const struct tokenizer *tokenizer, const struct tool_form *form,
                                  int32_t token)
{
    static const struct gguf_string none = {.bytes = "", .len = 0};
    if (token >= (int32_t)tokenizer_n_tokens(tokenizer))
        return none;
    struct gguf_string piece = tokenizer_piece(tokenizer, token);
    bool is_of_call = form && piece.len && tool_form_has_token(form, piece.bytes, piece.len);
    return tokenizer_has_text(tokenizer, token) || is_of_call ? piece : none;
}

static void note_beginning(struct vocabulary *vocabulary, int32_t token, struct gguf_string text)
{
    uint32_t bit = 1u << (token % 32);
    if (!text.len)
        return;
    if (*text.bytes == '\n')
        vocabulary->newlines[token / 32] |= bit;
    if (memchr(text.bytes, '{', text.len - 1))
        vocabulary->openers[vocabulary->n_openers++] = token;
    if (tokenizer_text(vocabulary->tokenizer, -1, token).len == text.len)
        return;
    vocabulary->spaces[token / 32] |= bit;
    vocabulary->space = token;
}

static void free_vocabulary(struct vocabulary *vocabulary)
{
    trie_free(vocabulary->trie);
    free(vocabulary->newlines);
    free(vocabulary->spaces);
    free(vocabulary->openers);
    *vocabulary = (struct vocabulary){0};
}

static int fill_vocabulary(struct vocabulary *vocabulary, const struct tool_form *form,
                           struct trie_token *tokens, runnel_error *error)
{
    const struct tokenizer *tokenizer = vocabulary->tokenizer;
    size_t n_ends;
    const int32_t *ends = tokenizer_ends(tokenizer, &n_ends);
    for (uint32_t i = 0; i < vocabulary->n_vocab; i++) {
        struct gguf_string text = text_of(tokenizer, form, (int32_t)i);
        bool is_end = tokenizer_is_end(tokenizer, (int32_t)i);
        tokens[i] = is_end ? (struct trie_token){NULL, 0} : (struct trie_token){text.bytes, text.len};
        note_beginning(vocabulary, (int32_t)i, text);
    }
    return trie_create(tokens, vocabulary->n_vocab, ends, n_ends, &vocabulary->trie, error);
}

static int make_vocabulary(const struct grammar_store *store, const struct tool_form *form,
                           struct vocabulary *vocabulary, runnel_error *error)
{
    size_t n_words = ((size_t)store->n_vocab + 31) / 32;
    struct trie_token *tokens = calloc(store->n_vocab, sizeof *tokens);
    struct vocabulary made = {
        .tokenizer = store->tokenizer,
        .n_vocab = store->n_vocab,
        .newlines = calloc(n_words, sizeof *made.newlines),
        .spaces = calloc(n_words, sizeof *made.spaces),
        .openers = malloc(store->n_vocab * sizeof *made.openers),
        .space = -1,
    };
    int failure = tokens && made.newlines && made.spaces && made.openers
                      ? fill_vocabulary(&made, form, tokens, error)
                      : error_set(error, RUNNEL_ENOMEM, "no memory for a trie of the vocabulary");
    free(tokens);
    if (failure) {
        free_vocabulary(&made);
        return failure;
    }
    *vocabulary = made;
    return RUNNEL_OK;
}

/* The model's part ---------------------------------------------------------------------------------------- */

int grammar_store_create(const struct tokenizer *tokenizer, uint32_t n_vocab, const struct tool_form *form,
                         struct grammar_store **out, runnel_error *error)
{
    struct grammar_store *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the constraints of a model");
    store->tokenizer = tokenizer;
    store->n_vocab = n_vocab;
    store->form = form;
    store->n_holders = 1;
    pthread_mutex_init(&store->lock, NULL);
    *out = store;
    return RUNNEL_OK;
}

static void free_grammar(runnel_grammar *grammar)
{
    automaton_release(grammar->automaton);
    text_free(&grammar->key);
    free(grammar);
}

static void free_list(runnel_grammar *list)
{
    while (list) {
        runnel_grammar *grammar = list;
        list = grammar->next;
        free_grammar(grammar);
    }
}

static void free_store(struct grammar_store *store)
{
    free_list(store->list);
    free_vocabulary(&store->texts);
    free_vocabulary(&store->calls);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

void grammar_store_let_go(struct grammar_store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->lock);
    bool is_last = --store->n_holders == 0;
    pthread_mutex_unlock(&store->lock);
    if (is_last)
        free_store(store);
}

/* Grammars ------------------------------------------------------------------------------------------------ */

static bool is_of_key(const runnel_grammar *grammar, const struct text *key)
{
    return grammar->key.len == key->len && memcmp(grammar->key.bytes, key->bytes, key->len) == 0;
}

/* With one more user; NULL: there is none. Locked, as are the next ones. */
static runnel_grammar *find(struct grammar_store *store, const struct text *key)
{
    for (runnel_grammar *grammar = store->list; grammar; grammar = grammar->next)
        if (is_of_key(grammar, key)) {
            grammar->n_users++;
            grammar->used = ++store->now;
            store->n_holders++;
            return grammar;
        }
    return NULL;
}

static void count(const struct grammar_store *store, struct grammar_store_stats *stats)
{
    *stats = (struct grammar_store_stats){.n_compiled = store->n_compiled};
    for (const runnel_grammar *grammar = store->list; grammar; grammar = grammar->next) {
        stats->n_used += grammar->n_users > 0;
        stats->n_unused += !grammar->n_users;
        stats->unused_bytes += grammar->n_users ? 0 : grammar->n_bytes;
    }
}

/* Of those that nobody uses, of which there is one, taken out of the list. */
static runnel_grammar *take_oldest(struct grammar_store *store)
{
    runnel_grammar **oldest = NULL;
    for (runnel_grammar **at = &store->list; *at; at = &(*at)->next)
        if (!(*at)->n_users && (!oldest || (*at)->used < (*oldest)->used))
            oldest = at;
    runnel_grammar *grammar = *oldest;
    *oldest = grammar->next;
    store->n--;
    return grammar;
}

/* Until of those that nobody uses no more than n are left, which take no more than n_bytes. Returns the others, a list. */
static runnel_grammar *take_surplus(struct grammar_store *store, unsigned n, uint64_t n_bytes)
{
    struct grammar_store_stats stats;
    runnel_grammar *surplus = NULL;
    for (count(store, &stats); stats.n_unused > n || stats.unused_bytes > n_bytes; count(store, &stats)) {
        runnel_grammar *oldest = take_oldest(store);
        oldest->next = surplus;
        surplus = oldest;
    }
    return surplus;
}

/* Among those that are used; the key is taken over. */
static int make(struct grammar_store *store, const runnel_request *request,
                const struct vocabulary *vocabulary, struct text *key, runnel_grammar **out,
                runnel_error *error)
{
    struct grammar *rules;
    struct automaton *automaton;
    int failure = grammar_source_read(request, store->form, &rules, error);
    if (!failure)
        failure = automaton_create(rules, vocabulary->trie, &automaton, error);
    if (failure)
        return failure;
    runnel_grammar *grammar = calloc(1, sizeof *grammar);
    if (!grammar) {
        automaton_release(automaton);
        return error_set(error, RUNNEL_ENOMEM, "no memory for a constraint");
    }
    grammar->store = store;
    grammar->vocabulary = vocabulary;
    grammar->automaton = automaton;
    grammar->key = *key;
    *key = (struct text){0};
    *out = grammar;
    return RUNNEL_OK;
}

/* Where another thread was first with the same, its grammar is used. Returns what is to be freed. */
static runnel_grammar *enlist(struct grammar_store *store, runnel_grammar **grammar)
{
    runnel_grammar *made = *grammar, *found = find(store, &made->key);
    if (found) {
        *grammar = found;
        return made;
    }
    made->next = store->list;
    store->list = made;
    store->n++;
    store->n_compiled++;
    *grammar = find(store, &made->key);
    return NULL;
}

/* The grammar, if there is one already; else what making one needs. */
static int look_up(struct grammar_store *store, struct vocabulary *vocabulary, const struct text *key,
                   runnel_grammar **grammar, runnel_error *error)
{
    int failure = RUNNEL_OK;
    pthread_mutex_lock(&store->lock);
    *grammar = find(store, key);
    if (!*grammar && store->n >= GRAMMAR_STORE_MAX + GRAMMAR_STORE_KEPT)
        failure = error_set(error, RUNNEL_EBUSY, "constraint: %d different ones are in use already",
                            GRAMMAR_STORE_MAX);
    else if (!*grammar && !vocabulary->trie)
        failure = make_vocabulary(store, vocabulary == &store->calls ? store->form : NULL, vocabulary, error);
    pthread_mutex_unlock(&store->lock);
    return failure;
}

static int get(struct grammar_store *store, const runnel_request *request, struct text *key,
               runnel_grammar **out, runnel_error *error)
{
    struct vocabulary *vocabulary =
        grammar_source_kind(request) == GRAMMAR_OF_CALLS ? &store->calls : &store->texts;
    runnel_grammar *grammar;
    int failure = look_up(store, vocabulary, key, &grammar, error);
    if (!failure && !grammar) {
        failure = make(store, request, vocabulary, key, &grammar, error);
        if (!failure) {
            pthread_mutex_lock(&store->lock);
            runnel_grammar *surplus = enlist(store, &grammar);
            pthread_mutex_unlock(&store->lock);
            if (surplus)
                free_grammar(surplus);
        }
    }
    if (!failure)
        *out = grammar;
    return failure;
}

/* The key of what a request asks for; empty: of nothing. The caller frees it, after a failure, too. */
static int make_key(const struct grammar_store *store, const runnel_request *request, struct text *key,
                    runnel_error *error)
{
    int failure = grammar_source_check(request, store->form, error);
    *key = (struct text){0};
    if (failure || grammar_source_kind(request) == GRAMMAR_OF_NOTHING)
        return failure;
    *key = grammar_source_key(request);
    return key->failed ? error_set(error, RUNNEL_ENOMEM, "no memory for a constraint") : RUNNEL_OK;
}

int grammar_store_get(struct grammar_store *store, const runnel_request *request, runnel_grammar **grammar,
                      runnel_error *error)
{
    struct text key;
    int failure = make_key(store, request, &key, error);
    if (!failure)
        *grammar = NULL;
    if (!failure && key.len)
        failure = get(store, request, &key, grammar, error);
    text_free(&key);
    return failure;
}

int grammar_store_find(struct grammar_store *store, const runnel_request *request, runnel_grammar **grammar,
                       runnel_error *error)
{
    struct text key;
    int failure = make_key(store, request, &key, error);
    if (!failure)
        *grammar = NULL;
    if (!failure && key.len &&
        !pthread_mutex_trylock(&store->lock)) { /* held for long where a vocabulary is made */
        *grammar = find(store, &key);
        pthread_mutex_unlock(&store->lock);
    }
    text_free(&key);
    return failure;
}

/* Nobody uses it: what it has grown to counts from now on. */
static void set_aside(runnel_grammar *grammar)
{
    grammar->n_bytes = sizeof *grammar + grammar->key.cap + automaton_bytes(grammar->automaton);
}

void grammar_release(runnel_grammar *grammar)
{
    if (!grammar)
        return;
    struct grammar_store *store = grammar->store;
    pthread_mutex_lock(&store->lock);
    if (--grammar->n_users == 0)
        set_aside(grammar);
    runnel_grammar *surplus = take_surplus(store, GRAMMAR_STORE_KEPT, GRAMMAR_STORE_KEPT_BYTES);
    pthread_mutex_unlock(&store->lock);
    free_list(surplus);
    grammar_store_let_go(store);
}

void grammar_store_forget(struct grammar_store *store)
{
    pthread_mutex_lock(&store->lock);
    runnel_grammar *surplus = take_surplus(store, 0, 0);
    pthread_mutex_unlock(&store->lock);
    free_list(surplus);
}

void grammar_store_get_stats(struct grammar_store *store, struct grammar_store_stats *stats)
{
    pthread_mutex_lock(&store->lock);
    count(store, stats);
    pthread_mutex_unlock(&store->lock);
}

struct automaton *grammar_automaton(const runnel_grammar *grammar)
{
    return grammar->automaton;
}

const struct vocabulary *grammar_vocabulary(const runnel_grammar *grammar)
{
    return grammar->vocabulary;
}
