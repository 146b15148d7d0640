/* network_left.c: see network_left.h.
 *
 * Rules that reach each other through their first calls are a ring. A rule A of a ring R becomes: first any rule X of R as it
 * begins without a call of R ("its seed"); then "there is an X"; from there, wherever a rule Y of R began with a call of X, what
 * followed that call, and "there is a Y"; and it may end where there is an A. */
#include "constrain/network_left.h"

#include <stdlib.h>
#include <string.h>

/* What is worked out of a network's positions: arrays [n_positions], as they were before anything is added. */
struct left {
    struct network *network;
    uint32_t n;
    bool *is_empty;                               /* from here to the end of the rule without a byte */
    bool *is_called;                              /* a rule, or what is called like one, begins here */
    uint32_t *ring;                               /* number of the strongly connected component */
    uint32_t *order, *low, *stack, *calls, *next; /* of the search for rings */
    uint32_t *seed, *changed;                     /* of what begins here, once it was changed; UINT32_MAX */
    uint64_t work, max_work;
};

static void left_free(struct left *left)
{
    free(left->is_empty);
    free(left->is_called);
    free(left->ring);
}

static int left_create(struct left *left, struct network *network, uint64_t max_work, runnel_error *error)
{
    uint32_t n = network->n_positions;
    *left = (struct left){.network = network, .n = n, .max_work = max_work};
    left->is_empty = calloc(n, sizeof *left->is_empty);
    left->is_called = calloc(n, sizeof *left->is_called);
    left->ring = calloc((size_t)n * 8, sizeof *left->ring);
    if (!left->is_empty || !left->is_called || !left->ring) {
        left_free(left);
        return error_set(error, RUNNEL_ENOMEM, "no memory to look for left recursion");
    }
    left->order = left->ring + n;
    left->low = left->order + n;
    left->stack = left->low + n;
    left->calls = left->stack + n;
    left->next = left->calls + n;
    left->seed = left->next + n;
    left->changed = left->seed + n;
    memset(left->seed, 0xff, (size_t)n * 2 * sizeof *left->seed);
    for (uint32_t s = 0; s < network->n_steps; s++)
        if (network->steps[s].kind == STEP_CALL)
            left->is_called[network->steps[s].a] = true;
    return RUNNEL_OK;
}

static bool find_empty(struct left *left)
{
    const struct network *network = left->network;
    bool changes = true;
    for (uint32_t p = 0; p < left->n; p++)
        left->is_empty[p] = network->positions[p].is_end;
    while (changes) {
        changes = false;
        left->work += network->n_steps;
        for (uint32_t s = network->n_steps; s-- > 0;) {
            const struct network_step *step = &network->steps[s];
            if (!left->is_empty[step->from] && left->is_empty[step->to] &&
                (step->kind == STEP_EMPTY || (step->kind == STEP_CALL && left->is_empty[step->a])))
                left->is_empty[step->from] = changes = true;
        }
        if (left->work > left->max_work)
            return false;
    }
    return true;
}

/* Where one can be without a byte after position p, the edge numbered e: two for each step; UINT32_MAX: this edge leads nowhere. */
static uint32_t edge(const struct left *left, uint32_t p, uint32_t e)
{
    const struct network_step *step = &left->network->steps[left->network->positions[p].first + e / 2];
    if (e % 2)
        return step->kind == STEP_CALL ? step->a : UINT32_MAX;
    return step->kind == STEP_EMPTY || (step->kind == STEP_CALL && left->is_empty[step->a]) ? step->to
                                                                                            : UINT32_MAX;
}

/* Tarjan's search for strongly connected components, with a stack of its own. */
static void find_rings_from(struct left *left, uint32_t root, uint32_t *n_ordered, uint32_t *n_rings)
{
    uint32_t n_calls = 0, n_stack = 0;
    left->calls[n_calls++] = root;
    while (n_calls) {
        uint32_t p = left->calls[n_calls - 1];
        if (!left->order[p]) {
            left->order[p] = left->low[p] = ++*n_ordered;
            left->stack[n_stack++] = p;
        }
        if (left->next[p] < left->network->positions[p].n * 2) {
            uint32_t to = edge(left, p, left->next[p]++);
            if (to == UINT32_MAX)
                continue;
            if (!left->order[to])
                left->calls[n_calls++] = to;
            else if (!left->ring[to] && left->order[to] < left->low[p])
                left->low[p] = left->order[to];
            continue;
        }
        n_calls--;
        if (n_calls && left->low[p] < left->low[left->calls[n_calls - 1]])
            left->low[left->calls[n_calls - 1]] = left->low[p];
        if (left->low[p] == left->order[p]) {
            uint32_t member;
            ++*n_rings;
            do {
                member = left->stack[--n_stack];
                left->ring[member] = *n_rings;
            } while (member != p);
        }
    }
}

/* A call of what begins at the position from which one came here without a byte. */
static bool is_left_call(const struct left *left, const struct network_step *step)
{
    return step->kind == STEP_CALL && step->from < left->n && left->ring[step->from] == left->ring[step->a];
}

static uint32_t find_rings(struct left *left)
{
    uint32_t n_ordered = 0, n_rings = 0, n_left_calls = 0;
    for (uint32_t p = 0; p < left->n; p++)
        if (!left->order[p])
            find_rings_from(left, p, &n_ordered, &n_rings);
    for (uint32_t s = 0; s < left->network->n_steps; s++)
        n_left_calls += is_left_call(left, &left->network->steps[s]);
    return n_left_calls;
}

/* The positions that are reached from `from` without a byte and without a call: in left->stack. */
static uint32_t reach(struct left *left, uint32_t from)
{
    const struct network *network = left->network;
    uint32_t n = 0;
    memset(left->order, 0, left->n * sizeof *left->order);
    left->work += left->n;
    left->stack[n++] = from;
    left->order[from] = 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct network_position *position = &network->positions[left->stack[i]];
        for (uint32_t s = position->first; s < position->first + position->n; s++)
            if (network->steps[s].kind == STEP_EMPTY && !left->order[network->steps[s].to]) {
                left->order[network->steps[s].to] = 1;
                left->stack[n++] = network->steps[s].to;
            }
    }
    return n;
}

/* A rule of a ring began with a call of another one. */
struct left_call {
    uint32_t rule, of, then; /* first positions; then: where it goes on after that */
};

struct ring {
    uint32_t *rules; /* first positions */
    uint32_t n_rules;
    struct left_call *calls;
    uint32_t n_calls;
};

/* The seed of a rule, and its calls that are no part of it. */
static void split(struct left *left, struct ring *ring, uint32_t rule)
{
    struct network *network = left->network;
    uint32_t n = reach(left, rule), seed = network_add_position(network, false);
    left->seed[rule] = seed;
    for (uint32_t i = 0; i < n; i++) {
        const struct network_position position = network->positions[left->stack[i]];
        network->positions[seed].is_end |= position.is_end;
        for (uint32_t s = position.first; s < position.first + position.n; s++) {
            const struct network_step step = network->steps[s];
            if (step.kind == STEP_CALL && left->is_called[step.a] && left->ring[step.a] == left->ring[rule])
                ring->calls[ring->n_calls++] = (struct left_call){rule, step.a, step.to};
            else if (step.kind != STEP_EMPTY)
                network_add_step(network, (enum step_kind)step.kind, seed, step.a, step.to);
        }
    }
}

static uint32_t index_of(const struct ring *ring, uint32_t rule)
{
    for (uint32_t i = 0; i < ring->n_rules; i++)
        if (ring->rules[i] == rule)
            return i;
    return UINT32_MAX;
}

static void change(struct left *left, const struct ring *ring, uint32_t rule)
{
    struct network *network = left->network;
    uint32_t first = network_add_position(network, false), there_is = network->n_positions;
    left->changed[rule] = first;
    for (uint32_t i = 0; i < ring->n_rules && !network->failed; i++) {
        network_add_position(network, ring->rules[i] == rule);
        network_add_step(network, STEP_CALL, first, left->seed[ring->rules[i]], there_is + i);
    }
    for (uint32_t i = 0; i < ring->n_calls && !network->failed; i++) {
        const struct left_call *call = &ring->calls[i];
        network_add_step(network, STEP_CALL, there_is + index_of(ring, call->of), call->then,
                         there_is + index_of(ring, call->rule));
    }
    left->work += ring->n_rules + (uint64_t)ring->n_calls * ring->n_rules;
}

/* Rules that are in no ring, but whose first position another ring's number has, have no call within it: nothing is done then. */
static int change_ring(struct left *left, uint32_t number, runnel_error *error)
{
    struct network *network = left->network;
    struct ring ring = {.rules = malloc(left->n * sizeof *ring.rules),
                        .calls = malloc((network->n_steps + 1) * sizeof *ring.calls)};
    int code = RUNNEL_OK;
    if (!ring.rules || !ring.calls) {
        code = error_set(error, RUNNEL_ENOMEM, "no memory to undo left recursion");
        goto done;
    }
    for (uint32_t p = 0; p < left->n; p++)
        if (left->is_called[p] && left->ring[p] == number)
            ring.rules[ring.n_rules++] = p;
    for (uint32_t i = 0; i < ring.n_rules && left->work <= left->max_work && !network->failed; i++)
        split(left, &ring, ring.rules[i]);
    for (uint32_t i = 0; i < ring.n_rules && left->work <= left->max_work && !network->failed; i++)
        change(left, &ring, ring.rules[i]);
    if (network->no_memory)
        code = error_set(error, RUNNEL_ENOMEM, "no memory to undo left recursion");
    else if (network->failed || left->work > left->max_work)
        code = error_set(error, RUNNEL_EUNSUPPORTED, "its left recursion is too large written out");
done:
    free(ring.rules);
    free(ring.calls);
    return code;
}

static int change_rings(struct left *left, runnel_error *error)
{
    struct network *network = left->network;
    uint32_t n_steps = network->n_steps;
    for (uint32_t s = 0; s < n_steps; s++) {
        const struct network_step step = network->steps[s];
        if (is_left_call(left, &step) && left->changed[step.a] == UINT32_MAX) {
            int code = change_ring(left, left->ring[step.a], error);
            if (code)
                return code;
        }
    }
    for (uint32_t s = 0; s < network->n_steps; s++) {
        struct network_step *step = &network->steps[s];
        if (step->kind == STEP_CALL && step->a < left->n && left->changed[step->a] != UINT32_MAX)
            step->a = left->changed[step->a];
    }
    if (left->changed[network->start] != UINT32_MAX)
        network->start = left->changed[network->start];
    return network_order(network, error);
}

static int look(struct left *left, struct network *network, uint64_t max_work, uint32_t *n_left_calls,
                runnel_error *error)
{
    int code = left_create(left, network, max_work, error);
    if (code)
        return code;
    if (!find_empty(left)) {
        left_free(left);
        return error_set(error, RUNNEL_EUNSUPPORTED, "it takes too long to look for left recursion");
    }
    *n_left_calls = find_rings(left);
    return RUNNEL_OK;
}

int network_unroll_left(struct network *network, uint64_t max_work, runnel_error *error)
{
    struct left left;
    uint32_t n_left_calls;
    int code = look(&left, network, max_work, &n_left_calls, error);
    if (code)
        return code;
    if (n_left_calls)
        code = change_rings(&left, error);
    left_free(&left);
    if (code || !n_left_calls)
        return code;
    code = look(&left, network, max_work, &n_left_calls, error);
    if (code)
        return code;
    left_free(&left);
    if (n_left_calls)
        return error_set(
            error, RUNNEL_EUNSUPPORTED,
            "a rule begins with what may be empty, and then with itself, which is not done here");
    return RUNNEL_OK;
}
