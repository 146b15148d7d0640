/* matcher.c: see matcher.h. */
#include "constrain/matcher.h"
#include "constrain/masks.h"
#include "constrain/network_left.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { RING = MATCHER_UNDO_MAX + 1 };

struct automaton {
    atomic_uint n_users;
    pthread_mutex_t lock; /* of all that follows, and of the states of its matchers */
    struct grammar *grammar;
    struct network network;
    struct scanner *scanner;
    struct stacks stacks;
    struct masks masks;
    bool has_forgotten;       /* pools were full once */
    struct matcher *matchers; /* a list: whose states must not be forgotten */
    uint32_t **in_use; /* [cap_in_use] where those states are; room for all of them, made with each matcher */
    size_t n_matchers, cap_in_use;
    uint32_t **terminals; /* [n_terminals] numbers of expressions that texts begin terminals with */
    size_t n_terminals;
};

struct matcher {
    struct automaton *automaton;
    struct matcher *next, *before;
    uint32_t states[RING]; /* after token i: at i % RING; STATE_DEAD: an end was accepted */
    uint64_t n_tokens;
};

static void automaton_free(struct automaton *automaton)
{
    masks_free(&automaton->masks);
    stacks_free(&automaton->stacks);
    scanner_free(automaton->scanner);
    network_free(&automaton->network);
    grammar_free(automaton->grammar);
    free(automaton->in_use);
    free(automaton->terminals);
    pthread_mutex_destroy(&automaton->lock);
    free(automaton);
}

static int list_terminals(struct automaton *automaton, runnel_error *error)
{
    struct network *network = &automaton->network;
    automaton->terminals = malloc((network->n_steps + (size_t)1) * sizeof *automaton->terminals);
    if (!automaton->terminals)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the terminals of a grammar");
    for (uint32_t i = 0; i < network->n_steps; i++)
        if (network->steps[i].kind == STEP_TERMINAL)
            automaton->terminals[automaton->n_terminals++] = &network->steps[i].a;
    automaton->terminals[automaton->n_terminals++] = &automaton->masks.any_char;
    return RUNNEL_OK;
}

static int compile(struct automaton *automaton, const struct trie *trie, runnel_error *error)
{
    struct grammar *grammar = automaton->grammar;
    const struct constrain_limits *limits = &grammar->limits;
    int code = network_create(grammar, &automaton->network, error);
    if (!code)
        code = network_unroll_left(&automaton->network, limits->work, error);
    if (code)
        return code;
    automaton->scanner = scanner_create(grammar->exprs, limits->n_scans);
    if (!automaton->scanner)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the terminals of a grammar");
    code = network_prune(&automaton->network, automaton->scanner, limits->work, error);
    if (!code)
        code = stacks_create(&automaton->network, automaton->scanner, limits, &automaton->stacks, error);
    if (!code)
        code = masks_create(trie, &automaton->stacks, grammar->any_char, limits, &automaton->masks, error);
    return code ? code : list_terminals(automaton, error);
}

int automaton_create(struct grammar *grammar, const struct trie *trie, struct automaton **out,
                     runnel_error *error)
{
    struct automaton *automaton = calloc(1, sizeof *automaton);
    if (!automaton) {
        grammar_free(grammar);
        return error_set(error, RUNNEL_ENOMEM, "no memory to compile a grammar");
    }
    automaton->n_users = 1;
    automaton->grammar = grammar;
    pthread_mutex_init(&automaton->lock, NULL);
    int code = compile(automaton, trie, error);
    if (code) {
        automaton_free(automaton);
        return code;
    }
    grammar->exprs->max_work = grammar->limits.work_step;
    *out = automaton;
    return RUNNEL_OK;
}

struct automaton *automaton_acquire(struct automaton *automaton)
{
    automaton->n_users++;
    return automaton;
}

void automaton_release(struct automaton *automaton)
{
    if (automaton && --automaton->n_users == 0)
        automaton_free(automaton);
}

static size_t grammar_bytes(const struct grammar *grammar, bool all)
{
    return sizeof *grammar + grammar->cap_symbols * sizeof *grammar->symbols +
           grammar->cap_rules * sizeof *grammar->rules + grammar->index_size * sizeof *grammar->rule_index +
           exprs_bytes(grammar->exprs, all);
}

size_t automaton_bytes(struct automaton *automaton)
{
    pthread_mutex_lock(&automaton->lock);
    const struct network *network = &automaton->network;
    bool all = automaton->has_forgotten; /* how far its pools were filled before is not known any more */
    size_t n_bytes =
        sizeof *automaton + grammar_bytes(automaton->grammar, all) +
        network->cap_positions * sizeof *network->positions + network->cap_steps * sizeof *network->steps +
        automaton->n_terminals * sizeof *automaton->terminals +
        automaton->cap_in_use * sizeof *automaton->in_use + scanner_bytes(automaton->scanner, all) +
        stacks_bytes(&automaton->stacks, all) + masks_bytes(&automaton->masks, all);
    pthread_mutex_unlock(&automaton->lock);
    return n_bytes;
}

/* Nothing has failed, and no work is done yet. */
static void begin_work(struct automaton *automaton)
{
    struct exprs *exprs = automaton->grammar->exprs;
    automaton->stacks.failed = NULL;
    automaton->stacks.work = exprs->work = 0;
    automaton->scanner->failed = exprs->failed = false;
    exprs->n_scratch = 0;
}

/* What was worked out of terminals, but where texts stand in them. The grammar's own numbers of expressions mean nothing then. */
static void forget_terminals(struct automaton *automaton)
{
    stacks_mark_scans(&automaton->stacks);
    scanner_forget(automaton->scanner, automaton->terminals, automaton->n_terminals);
    stacks_renumber_scans(&automaton->stacks);
    masks_forget_insides(&automaton->masks);
}

static void forget(struct automaton *automaton)
{
    bool has_room = !scanner_is_full(automaton->scanner);
    automaton->has_forgotten = true;
    size_t n = 0;
    for (struct matcher *matcher = automaton->matchers; matcher; matcher = matcher->next)
        for (unsigned i = 0; i < RING; i++)
            automaton->in_use[n++] = &matcher->states[i];
    stacks_forget(&automaton->stacks, automaton->in_use, n);
    masks_forget(&automaton->masks);
    if (!has_room)
        forget_terminals(automaton);
}

/* For a call of a matcher. Its end is unlocking. */
static void begin_call(struct automaton *automaton)
{
    pthread_mutex_lock(&automaton->lock);
    begin_work(automaton);
    if (stacks_are_full(&automaton->stacks) || scanner_is_full(automaton->scanner))
        forget(automaton);
}

static int too_large(const struct automaton *automaton, runnel_error *error)
{
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "the constraint cannot be followed further: too large are %s", automaton->stacks.failed);
}

static uint32_t *current(struct matcher *matcher)
{
    return &matcher->states[matcher->n_tokens % RING];
}

/* Joins the automaton's list, which has room for its states from then on. Locked. */
static int enlist(struct automaton *automaton, struct matcher *matcher, runnel_error *error)
{
    size_t n = (automaton->n_matchers + 1) * RING;
    if (n > automaton->cap_in_use) {
        void *grown = realloc(automaton->in_use, n * 2 * sizeof *automaton->in_use);
        if (!grown)
            return error_set(error, RUNNEL_ENOMEM, "no memory for an answer's constraint");
        automaton->in_use = grown;
        automaton->cap_in_use = n * 2;
    }
    automaton->n_matchers++;
    matcher->automaton = automaton_acquire(automaton);
    matcher->before = NULL;
    matcher->next = automaton->matchers;
    if (matcher->next)
        matcher->next->before = matcher;
    automaton->matchers = matcher;
    return RUNNEL_OK;
}

int matcher_create(struct automaton *automaton, struct matcher **out, runnel_error *error)
{
    struct matcher *matcher = calloc(1, sizeof *matcher);
    if (!matcher)
        return error_set(error, RUNNEL_ENOMEM, "no memory for an answer's constraint");
    begin_call(automaton);
    uint32_t start = stacks_start(&automaton->stacks);
    int code = automaton->stacks.failed ? too_large(automaton, error) : enlist(automaton, matcher, error);
    for (unsigned i = 0; i < RING; i++)
        matcher->states[i] = start;
    pthread_mutex_unlock(&automaton->lock);
    if (code)
        free(matcher);
    else
        *out = matcher;
    return code;
}

int matcher_copy(struct matcher *matcher, struct matcher **out, runnel_error *error)
{
    struct automaton *automaton = matcher->automaton;
    struct matcher *copy = calloc(1, sizeof *copy);
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for an answer's constraint");
    begin_call(automaton);
    memcpy(copy->states, matcher->states, sizeof copy->states);
    copy->n_tokens = matcher->n_tokens;
    int code = enlist(automaton, copy, error);
    pthread_mutex_unlock(&automaton->lock);
    if (code)
        free(copy);
    else
        *out = copy;
    return code;
}

void matcher_free(struct matcher *matcher)
{
    if (!matcher)
        return;
    struct automaton *automaton = matcher->automaton;
    pthread_mutex_lock(&automaton->lock);
    if (matcher->before)
        matcher->before->next = matcher->next;
    else
        automaton->matchers = matcher->next;
    if (matcher->next)
        matcher->next->before = matcher->before;
    automaton->n_matchers--;
    pthread_mutex_unlock(&automaton->lock);
    automaton_release(automaton);
    free(matcher);
}

int matcher_mask(struct matcher *matcher, uint32_t *words, runnel_error *error)
{
    struct automaton *automaton = matcher->automaton;
    size_t size = trie_mask_words(automaton->masks.trie) * sizeof *words;
    int code = RUNNEL_OK;
    begin_call(automaton);
    if (*current(matcher) == STATE_DEAD) {
        memset(words, 0, size);
    } else {
        const uint32_t *mask = masks_get(&automaton->masks, *current(matcher));
        if (!mask) { /* once more, with as much room as there can be */
            begin_work(automaton);
            forget(automaton);
            mask = masks_get(&automaton->masks, *current(matcher));
        }
        if (mask)
            memcpy(words, mask, size);
        else
            code = too_large(automaton, error);
    }
    pthread_mutex_unlock(&automaton->lock);
    return code;
}

/* The state after these bytes; STATE_DEAD: they may not come. */
static uint32_t follow(struct automaton *automaton, uint32_t state, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len && state != STATE_DEAD; i++)
        state = stacks_next(&automaton->stacks, state, (unsigned char)bytes[i]);
    return state;
}

static int go_on(struct matcher *matcher, const char *bytes, size_t len, runnel_error *error)
{
    struct automaton *automaton = matcher->automaton;
    uint32_t next = follow(automaton, *current(matcher), bytes, len);
    if (automaton->stacks.failed) {
        begin_work(automaton);
        forget(automaton);
        next = follow(automaton, *current(matcher), bytes, len);
    }
    if (automaton->stacks.failed)
        return too_large(automaton, error);
    if (next == STATE_DEAD)
        return error_set(error, RUNNEL_EINVAL, "the constraint does not allow '%.*s' there",
                         len < 64 ? (int)len : 64, bytes);
    matcher->n_tokens++;
    *current(matcher) = next;
    return RUNNEL_OK;
}

int matcher_accept_bytes(struct matcher *matcher, const char *bytes, size_t len, runnel_error *error)
{
    begin_call(matcher->automaton);
    int code = go_on(matcher, bytes, len, error);
    pthread_mutex_unlock(&matcher->automaton->lock);
    return code;
}

bool matcher_would_accept_bytes(struct matcher *matcher, const char *bytes, size_t len)
{
    struct automaton *automaton = matcher->automaton;
    begin_call(automaton);
    uint32_t next = follow(automaton, *current(matcher), bytes, len);
    bool accepts = !automaton->stacks.failed && next != STATE_DEAD;
    pthread_mutex_unlock(&automaton->lock);
    return accepts;
}

int matcher_accept(struct matcher *matcher, int32_t token, runnel_error *error)
{
    struct automaton *automaton = matcher->automaton;
    const struct trie *trie = automaton->masks.trie;
    int code;
    if (token < 0 || (uint32_t)token >= trie->n_tokens)
        return error_set(error, RUNNEL_EINVAL, "token %d: expected 0 to %u", token, trie->n_tokens - 1);
    begin_call(automaton);
    uint32_t state = *current(matcher);
    if (!trie_is_end(trie, token)) {
        if (!trie->tokens[token].len || trie->tokens[token].len > TRIE_DEPTH)
            code = error_set(error, RUNNEL_EINVAL, "token %d is no text that a constraint knows", token);
        else
            code = go_on(matcher, trie->tokens[token].bytes, trie->tokens[token].len, error);
    } else if (state != STATE_DEAD && automaton->stacks.states[state].is_end) {
        matcher->n_tokens++;
        *current(matcher) = STATE_DEAD;
        code = RUNNEL_OK;
    } else {
        code = error_set(error, RUNNEL_EINVAL, "the constraint does not allow an end there");
    }
    pthread_mutex_unlock(&automaton->lock);
    return code;
}

void matcher_undo(struct matcher *matcher, uint32_t n)
{
    pthread_mutex_lock(&matcher->automaton->lock);
    if (n <= MATCHER_UNDO_MAX && n <= matcher->n_tokens)
        matcher->n_tokens -= n;
    pthread_mutex_unlock(&matcher->automaton->lock);
}

bool matcher_is_complete(struct matcher *matcher)
{
    pthread_mutex_lock(&matcher->automaton->lock);
    uint32_t state = *current(matcher);
    bool complete = state == STATE_DEAD || matcher->automaton->stacks.states[state].is_end;
    pthread_mutex_unlock(&matcher->automaton->lock);
    return complete;
}

bool matcher_is_over(struct matcher *matcher)
{
    pthread_mutex_lock(&matcher->automaton->lock);
    uint32_t state = *current(matcher);
    bool over = state == STATE_DEAD || !matcher->automaton->stacks.states[state].n;
    pthread_mutex_unlock(&matcher->automaton->lock);
    return over;
}
