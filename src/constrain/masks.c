/* masks.c: see masks.h. */
#include "constrain/masks.h"

#include "constrain/table.h"

#include <stdlib.h>
#include <string.h>

/* --- slots ---------------------------------------------------------------------------------------------------------- */

static int slots_create(struct mask_slots *slots, uint32_t n, uint32_t n_words, uint32_t max_number)
{
    *slots = (struct mask_slots){
        .n = n < UINT16_MAX ? n : UINT16_MAX - 1, .n_words = n_words, .max_number = max_number};
    slots->words = table_create((size_t)slots->n * n_words, sizeof *slots->words);
    slots->number = table_create(slots->n, sizeof *slots->number);
    slots->used = table_create(slots->n, sizeof *slots->used);
    slots->slot_of = table_create(max_number, sizeof *slots->slot_of);
    return slots->words && slots->number && slots->used && slots->slot_of ? RUNNEL_OK : RUNNEL_ENOMEM;
}

static void slots_free(struct mask_slots *slots)
{
    table_free(slots->words);
    table_free(slots->number);
    table_free(slots->used);
    table_free(slots->slot_of);
}

/* The slot of a number; n: it has none. */
static uint32_t slots_find(struct mask_slots *slots, uint32_t number)
{
    uint32_t slot = slots->slot_of[number];
    if (!slot)
        return slots->n;
    slots->used[slot - 1] = ++slots->now;
    return slot - 1;
}

static void slots_drop(struct mask_slots *slots, uint32_t slot)
{
    if (slots->number[slot])
        slots->slot_of[slots->number[slot]] = 0;
    slots->number[slot] = 0;
    slots->used[slot] = 0;
}

/* A slot for a number, in place of the one that was asked for longest ago. */
static uint32_t slots_take(struct mask_slots *slots, uint32_t number)
{
    uint32_t oldest = 0;
    for (uint32_t i = 1; i < slots->n; i++)
        if (slots->used[i] < slots->used[oldest])
            oldest = i;
    slots_drop(slots, oldest);
    slots->number[oldest] = number;
    slots->used[oldest] = ++slots->now;
    slots->slot_of[number] = (uint16_t)(oldest + 1);
    return oldest;
}

static uint32_t *slots_words(const struct mask_slots *slots, uint32_t slot)
{
    return slots->words + (size_t)slot * slots->n_words;
}

/* --- walks ---------------------------------------------------------------------------------------------------------- */

/* How many characters may come in a terminal's state, of those that JSON does not escape, whichever they are, without the
 * terminal ending: FREE_FOREVER if they lead back to it. So tokens of TRIE_CHARS may come that are no longer. freedom holds it plus
 * one; 0: not looked at. */
#define FREE_FOREVER (UINT16_MAX - 1)

static uint32_t next_scan(struct scanner *scanner, uint32_t scan, unsigned byte)
{
    return scanner_next(scanner, scan, scanner->class_of[byte]);
}

/* Every way of ending a character leads to `home`: n more bytes from `from` on, of which the next is least to most. */
static bool leads_home(struct scanner *scanner, uint32_t from, unsigned least, unsigned most, unsigned n,
                       uint32_t home)
{
    uint32_t before = SCAN_DEAD;
    for (unsigned byte = least; byte <= most; byte++) {
        uint32_t next = next_scan(scanner, from, byte);
        if (next == SCAN_DEAD)
            return false;
        if (next != before && (n == 1 ? next != home : !leads_home(scanner, next, 0x80, 0xbf, n - 1, home)))
            return false;
        before = next;
    }
    return true;
}

static bool finds_free(struct scanner *scanner, uint32_t scan)
{
    if (scanner->states[scan].accepts)
        return false;
    for (unsigned byte = 0x20; byte < 0x80; byte++)
        if (byte != '"' && byte != '\\' && next_scan(scanner, scan, byte) != scan)
            return false;
    for (unsigned lead = 0xc2; lead < 0xf5; lead++) {
        unsigned least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        unsigned most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        uint32_t next = next_scan(scanner, scan, lead);
        if (next == SCAN_DEAD || !leads_home(scanner, next, least, most,
                                             lead < 0xe0   ? 1
                                             : lead < 0xf0 ? 2
                                                           : 3,
                                             scan))
            return false;
    }
    return true;
}

/* Counted characters and something behind them. */
static uint16_t counted_chars(const struct masks *masks, uint32_t scan)
{
    const struct exprs *exprs = masks->stacks->scanner->exprs;
    const struct expr *expr = &exprs->exprs[masks->stacks->scanner->states[scan].expr];
    const struct expr *repeat = expr->kind == EXPR_IS_CAT ? &exprs->exprs[expr->a] : expr;
    if (!masks->any_char || expr->kind != EXPR_IS_CAT || expr_is_nullable(exprs, expr->b) ||
        repeat->kind != EXPR_IS_REPEAT || repeat->a != masks->any_char)
        return 0;
    return repeat->n < FREE_FOREVER ? (uint16_t)repeat->n : FREE_FOREVER;
}

static uint16_t free_chars(struct masks *masks, uint32_t scan)
{
    struct scanner *scanner = masks->stacks->scanner;
    if (!masks->freedom[scan]) {
        uint16_t counted = counted_chars(masks, scan);
        if (!counted && finds_free(scanner, scan))
            counted = FREE_FOREVER;
        if (scanner->failed || scanner->exprs->failed)
            return 0;
        masks->freedom[scan] = (uint16_t)(counted + 1);
    }
    return (uint16_t)(masks->freedom[scan] - 1);
}

/* The same of a text's state: those of its terminal, if it is within one alone. */
static uint16_t free_chars_of(struct masks *masks, uint32_t number)
{
    const struct text_state *state = &masks->stacks->states[number];
    return state->n == 1 && !state->is_end ? free_chars(masks, masks->stacks->members[state->first].scan) : 0;
}

/* The tokens of a part from number `from` to `to` in its order. */
static void allow(uint32_t *words, const struct trie_part *part, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        words[part->order[i] / 32] |= 1u << (part->order[i] % 32);
}

static void allow_all_chars(const struct masks *masks, uint32_t *words)
{
    for (uint32_t i = 0; i < masks->whole.n_words; i++)
        words[i] |= masks->trie->all_chars[i];
}

/* Adds the tokens among nodes [from, to) of a part, which are whole subtrees side by side, that a text may go on with that is
 * in this state at their parent. */
static void walk(struct masks *masks, unsigned which, uint32_t from, uint32_t to, uint32_t state,
                 uint32_t *words)
{
    const struct trie_part *part = &masks->trie->parts[which];
    struct stacks *stacks = masks->stacks;
    uint32_t path[TRIE_DEPTH + 1]; /* the state before the byte of this depth */
    if (from >= to || state == STATE_DEAD)
        return;
    path[part->nodes[from].depth] = state;
    for (uint32_t i = from; i < to;) {
        const struct trie_node *node = &part->nodes[i];
        uint32_t next = stacks_next(stacks, path[node->depth], node->byte);
        if (next == STATE_DEAD) {
            if (stacks->failed)
                return;
            i = node->after;
            continue;
        }
        if (which == TRIE_CHARS && node->ends_a_char && node->n_below &&
            node->n_below <= free_chars_of(masks, next)) {
            allow(words, part, node->first, part->nodes[node->after].first);
            i = node->after;
            continue;
        }
        allow(words, part, node->first, node->first + node->n_own);
        path[node->depth + 1] = next;
        i++;
    }
}

/* From the beginning of a token. */
static void walk_all(struct masks *masks, uint32_t state, uint32_t *words)
{
    const struct trie *trie = masks->trie;
    if (free_chars_of(masks, state) >= trie->parts[TRIE_CHARS].n_chars)
        allow_all_chars(masks, words);
    else
        walk(masks, TRIE_CHARS, 0, trie->parts[TRIE_CHARS].n_nodes, state, words);
    walk(masks, TRIE_OTHERS, 0, trie->parts[TRIE_OTHERS].n_nodes, state, words);
}

/* What stays within a terminal, and where it may end, of one part. */
static void walk_inside(struct masks *masks, unsigned which, uint32_t scan, uint32_t slot)
{
    const struct trie_part *part = &masks->trie->parts[which];
    struct scanner *scanner = masks->stacks->scanner;
    uint32_t *words = slots_words(&masks->insides, slot), *exits = masks->exits + (size_t)slot * MAX_EXITS;
    uint32_t path[TRIE_DEPTH + 1], n_exits = masks->n_exits[slot];
    path[0] = scan;
    for (uint32_t i = 0; i < part->n_nodes;) {
        const struct trie_node *node = &part->nodes[i];
        uint32_t next = next_scan(scanner, path[node->depth], node->byte);
        if (next == SCAN_DEAD) {
            i = node->after;
            continue;
        }
        if (which == TRIE_CHARS && node->ends_a_char && node->n_below &&
            node->n_below <= free_chars(masks, next)) {
            allow(words, part, node->first, part->nodes[node->after].first);
            i = node->after;
            continue;
        }
        allow(words, part, node->first, node->first + node->n_own);
        path[node->depth + 1] = next;
        if (scanner->states[next].accepts && node->after > i + 1) {
            if (n_exits < MAX_EXITS)
                exits[n_exits] = which == TRIE_OTHERS ? i | EXIT_OF_OTHERS : i;
            n_exits++;
        }
        i++;
    }
    masks->n_exits[slot] = n_exits;
}

static void make_inside(struct masks *masks, uint32_t scan, uint32_t slot)
{
    uint32_t *words = slots_words(&masks->insides, slot);
    memset(words, 0, masks->insides.n_words * sizeof *words);
    masks->n_exits[slot] = 0;
    if (free_chars(masks, scan) >= masks->trie->parts[TRIE_CHARS].n_chars)
        allow_all_chars(masks, words);
    else
        walk_inside(masks, TRIE_CHARS, scan, slot);
    walk_inside(masks, TRIE_OTHERS, scan, slot);
}

/* The slot of a wide terminal's inside; insides.n: it is not kept. */
static uint32_t find_inside(struct masks *masks, uint32_t scan)
{
    struct mask_slots *slots = &masks->insides;
    uint32_t slot = slots_find(slots, scan);
    if (slot == slots->n) {
        slot = slots_take(slots, scan);
        make_inside(masks, scan, slot);
        if (masks->stacks->scanner->failed || masks->stacks->scanner->exprs->failed) {
            slots_drop(slots, slot);
            masks->stacks->failed = "the states of its terminals";
            return slots->n;
        }
    }
    return masks->n_exits[slot] > MAX_EXITS ? slots->n : slot;
}

/* --- strings of any characters -------------------------------------------------------------------------------------- */

/* A terminal within a JSON string: min to max more characters, whichever they are, then `rest`, which begins with the quote. */
struct string_place {
    uint32_t min, max, rest;
};

static bool begins_with_quote(const struct exprs *exprs, uint32_t expr)
{
    static const struct byte_set quote = {.bits[(unsigned)'"' / 64] = (uint64_t)1 << ((unsigned)'"' % 64)};
    return !expr_is_nullable(exprs, expr) &&
           !memcmp(&exprs->sets[exprs->exprs[expr].first], &quote, sizeof quote);
}

static bool is_in_string(const struct masks *masks, uint32_t scan, struct string_place *place)
{
    const struct exprs *exprs = masks->stacks->scanner->exprs;
    const struct expr *expr = &exprs->exprs[masks->stacks->scanner->states[scan].expr];
    if (!masks->any_char || expr->kind != EXPR_IS_CAT || !begins_with_quote(exprs, expr->b))
        return false;
    const struct expr *chars = &exprs->exprs[expr->a];
    *place = (struct string_place){.min = 1, .max = 1, .rest = expr->b};
    if (expr->a == masks->any_char)
        return true;
    place->min = chars->b;
    place->max = chars->n;
    return chars->kind == EXPR_IS_REPEAT && chars->a == masks->any_char;
}

/* A token with the closing quote: if so many characters may come before that. */
static void allow_closing(const struct masks *masks, const struct string_place *place, int32_t token,
                          uint32_t *words)
{
    uint32_t n = masks->trie->strings.n_chars[token];
    if (n >= place->min && n <= place->max)
        words[token / 32] |= 1u << (token % 32);
}

/* Tokens that go on behind the closing quote, after which the text is in this state. */
static void walk_behind(struct masks *masks, const struct string_place *place, uint32_t state,
                        uint32_t *words)
{
    const struct trie_part *part = &masks->trie->strings.behind;
    uint32_t path[TRIE_DEPTH + 1]; /* the state before the byte of this depth */
    path[0] = state;
    for (uint32_t i = 0; i < part->n_nodes && state != STATE_DEAD;) {
        const struct trie_node *node = &part->nodes[i];
        uint32_t next = stacks_next(masks->stacks, path[node->depth], node->byte);
        if (next == STATE_DEAD) {
            if (masks->stacks->failed)
                return;
            i = node->after;
            continue;
        }
        for (uint32_t k = node->first; k < node->first + node->n_own; k++)
            allow_closing(masks, place, part->order[k], words);
        path[node->depth + 1] = next;
        i++;
    }
}

static void add_string(struct masks *masks, struct member member, const struct string_place *place,
                       uint32_t *words)
{
    const struct string_tokens *strings = &masks->trie->strings;
    struct stacks *stacks = masks->stacks;
    string_tokens_add_within(strings, place->max, words);
    for (uint32_t i = 0; i < strings->n_closing; i++)
        allow_closing(masks, place, strings->closing[i], words);
    member.scan = scanner_state(stacks->scanner, place->rest);
    walk_behind(masks, place, stacks_next(stacks, stacks_part(stacks, &member, 1), '"'), words);
}

/* --- wholes --------------------------------------------------------------------------------------------------------- */

/* A member within a wide terminal. False: it has to be walked. */
static bool add_wide(struct masks *masks, struct member member, uint32_t *words)
{
    const struct trie *trie = masks->trie;
    struct string_place place;
    if (!masks->stacks->scanner->states[member.scan].is_wide)
        return false;
    if (is_in_string(masks, member.scan, &place)) {
        add_string(masks, member, &place, words);
        return true;
    }
    uint32_t slot = find_inside(masks, member.scan);
    if (slot == masks->insides.n)
        return false;
    const uint32_t *inside = slots_words(&masks->insides, slot),
                   *exits = masks->exits + (size_t)slot * MAX_EXITS;
    for (uint32_t i = 0; i < masks->insides.n_words; i++)
        words[i] |= inside[i];
    if (!masks->n_exits[slot])
        return true;
    uint32_t state = stacks_border(masks->stacks, member.position, member.frames);
    for (uint32_t i = 0; i < masks->n_exits[slot] && !masks->stacks->failed; i++) {
        unsigned which = exits[i] & EXIT_OF_OTHERS ? TRIE_OTHERS : TRIE_CHARS;
        uint32_t node = exits[i] & ~EXIT_OF_OTHERS;
        walk(masks, which, node + 1, trie->parts[which].nodes[node].after, state, words);
    }
    return true;
}

static void make(struct masks *masks, uint32_t number, uint32_t *words)
{
    struct stacks *stacks = masks->stacks;
    const struct text_state state = stacks->states[number];
    uint32_t n_narrow = 0;
    memset(words, 0, masks->whole.n_words * sizeof *words);
    for (uint32_t i = 0; i < state.n && !stacks->failed; i++) {
        const struct member member = stacks->members[state.first + i];
        if (!add_wide(masks, member, words))
            masks->narrow[n_narrow++] = member;
    }
    if (n_narrow && !stacks->failed)
        walk_all(masks, n_narrow == state.n ? number : stacks_part(stacks, masks->narrow, n_narrow), words);
    for (size_t i = 0; state.is_end && i < masks->trie->n_ends; i++)
        words[masks->trie->ends[i] / 32] |= 1u << (masks->trie->ends[i] % 32);
}

const uint32_t *masks_get(struct masks *masks, uint32_t state)
{
    uint32_t slot = slots_find(&masks->whole, state);
    if (slot == masks->whole.n) {
        slot = slots_take(&masks->whole, state);
        make(masks, state, slots_words(&masks->whole, slot));
        if (masks->stacks->failed) {
            slots_drop(&masks->whole, slot);
            return NULL;
        }
    }
    return slots_words(&masks->whole, slot);
}

void masks_forget(struct masks *masks)
{
    for (uint32_t slot = 0; slot < masks->whole.n; slot++)
        slots_drop(&masks->whole, slot);
}

void masks_forget_insides(struct masks *masks)
{
    for (uint32_t slot = 0; slot < masks->insides.n; slot++)
        slots_drop(&masks->insides, slot);
    memset(masks->freedom, 0, masks->stacks->scanner->max * sizeof *masks->freedom);
}

static size_t slots_bytes(const struct mask_slots *slots, bool all)
{
    size_t n = 0;
    for (uint32_t slot = 0; slot < slots->n; slot++)
        n += all || slots->number[slot];
    return n * slots->n_words * sizeof *slots->words +
           slots->n * (sizeof *slots->number + sizeof *slots->used) +
           table_scattered_bytes(n, slots->max_number, sizeof *slots->slot_of);
}

size_t masks_bytes(const struct masks *masks, bool all)
{
    const struct scanner *scanner = masks->stacks->scanner;
    size_t n_exits = 0;
    for (uint32_t slot = 0; slot < masks->insides.n; slot++)
        n_exits += all || masks->n_exits[slot] > MAX_EXITS ? MAX_EXITS : masks->n_exits[slot];
    return slots_bytes(&masks->whole, all) + slots_bytes(&masks->insides, all) +
           n_exits * sizeof *masks->exits + masks->insides.n * sizeof *masks->n_exits +
           (all ? scanner->max : scanner->n) * sizeof *masks->freedom +
           masks->stacks->max_found * sizeof *masks->narrow;
}

void masks_free(struct masks *masks)
{
    slots_free(&masks->whole);
    slots_free(&masks->insides);
    table_free(masks->exits);
    table_free(masks->n_exits);
    table_free(masks->freedom);
    table_free(masks->narrow);
    *masks = (struct masks){0};
}

int masks_create(const struct trie *trie, struct stacks *stacks, uint32_t any_char,
                 const struct constrain_limits *limits, struct masks *masks, runnel_error *error)
{
    uint32_t n_words = trie_mask_words(trie);
    *masks = (struct masks){.trie = trie, .stacks = stacks, .any_char = any_char};
    int whole = slots_create(&masks->whole, limits->n_masks, n_words, limits->n_states);
    int insides = slots_create(&masks->insides, limits->n_insides, n_words, stacks->scanner->max);
    masks->exits = table_create((size_t)masks->insides.n * MAX_EXITS, sizeof *masks->exits);
    masks->n_exits = table_create(masks->insides.n, sizeof *masks->n_exits);
    masks->freedom = table_create(stacks->scanner->max, sizeof *masks->freedom);
    masks->narrow = table_create(stacks->max_found, sizeof *masks->narrow);
    if (whole || insides || !masks->exits || !masks->n_exits || !masks->freedom || !masks->narrow) {
        masks_free(masks);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the masks of a grammar");
    }
    return RUNNEL_OK;
}
