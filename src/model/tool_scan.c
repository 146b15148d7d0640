/* tool_scan.c: see tool_scan.h. */
#include "model/tool_scan.h"

#include <stdlib.h>
#include <string.h>

/* Names --------------------------------------------------------------------------------------------------- */

bool tool_name_is_fit(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)name[i] < 32 || name[i] == 127 || name[i] == '"' || name[i] == '\\')
            return false;
    return len && len <= TOOL_NAME_MAX;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int tool_names_create(const char *const *names, size_t n, struct tool_names *out, runnel_error *error)
{
    if (n > UINT16_MAX)
        return error_set(error, RUNNEL_EINVAL, "tools: %zu, expected at most %d", n, UINT16_MAX);
    struct tool_names copies = {.names = calloc(n ? n : 1, sizeof *copies.names)};
    for (; copies.names && copies.n < n; copies.n++)
        if (!(copies.names[copies.n] = strdup(names[copies.n])))
            break;
    if (!copies.names || copies.n < n) {
        tool_names_free(&copies);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the names of %zu tools", n);
    }
    qsort(copies.names, n, sizeof *copies.names, compare_names);
    *out = copies;
    return RUNNEL_OK;
}

void tool_names_free(struct tool_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->names[i]);
    free(names->names);
    *names = (struct tool_names){0};
}

/* Steps --------------------------------------------------------------------------------------------------- */

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* Whether a byte was the next one of a step. */
enum taken {
    TAKEN_NO, /* it was not: the step, which may be left out, is over before it */
    TAKEN_YES,
    TAKEN_LAST, /* and the step is over */
    TAKEN_WRONG /* and the step may not be left out, or had begun */
};

static void begin_step(struct tool_scan *scan, size_t step, const struct tool_names *names)
{
    scan->step = (uint8_t)step;
    scan->alive = UINT8_MAX;
    scan->at = 0;
    scan->lo = 0;
    scan->hi = names->n;
    scan->depth = 0;
    scan->in_string = scan->is_escaped = false;
}

static bool has_opened(const struct tool_scan *scan)
{
    return scan->opened[0] || scan->opened[1] || scan->opened[2];
}

/* Goes on in those of the texts that were begun. Where one of them is complete, *complete is its index. */
static bool match_texts(struct tool_scan *scan, const struct tool_step *step, char byte, int *complete)
{
    uint8_t alive = 0;
    *complete = -1;
    for (int i = 0; i < TOOL_CHOICES && step->texts[i]; i++) {
        const char *text = step->texts[i];
        if (!(scan->alive >> i & 1) || text[scan->at] != byte)
            continue;
        alive |= (uint8_t)(1 << i);
        if (!text[scan->at + 1])
            *complete = i;
    }
    if (!alive)
        return false;
    scan->alive = alive;
    scan->at++;
    return true;
}

static enum taken take_text(struct tool_scan *scan, const struct tool_step *step, char byte)
{
    bool may_lack = step->kind == TOOL_CLOSE || (step->kind == TOOL_OPEN && !step->always);
    bool may_come = !step->at_line || !scan->within_line || has_opened(scan) || scan->at;
    int complete;
    if (step->kind == TOOL_CLOSE && !scan->at) {
        if (!scan->opened[step->pair] && !step->always)
            return TAKEN_NO;
        scan->alive = step->always ? 1 : (uint8_t)(1 << (scan->opened[step->pair] - 1));
    }
    if (!may_come || !match_texts(scan, step, byte, &complete))
        return may_lack && !scan->at ? TAKEN_NO : TAKEN_WRONG;
    if (complete < 0)
        return TAKEN_YES;
    if (step->kind == TOOL_OPEN)
        scan->opened[step->pair] = (uint8_t)(complete + 1);
    return TAKEN_LAST;
}

/* A name ends where the text after it begins; no name has a byte of that. */
static enum taken take_name(struct tool_scan *scan, const struct tool_step *step,
                            const struct tool_names *names, char byte)
{
    uint16_t at = scan->at;
    if (byte == step[1].texts[0][0]) {
        if (scan->lo == scan->hi || names->names[scan->lo][at])
            return TAKEN_WRONG;
        scan->name = scan->lo;
        return TAKEN_NO;
    }
    if (!byte) /* which would be the end of a name that is shorter */
        return TAKEN_WRONG;
    while (scan->lo < scan->hi && names->names[scan->lo][at] != byte)
        scan->lo++;
    while (scan->hi > scan->lo && names->names[scan->hi - 1][at] != byte)
        scan->hi--;
    scan->at++;
    return scan->lo < scan->hi ? TAKEN_YES : TAKEN_WRONG;
}

/* Brackets and strings; the one that closes the first bracket is the last byte. */
static enum taken take_nested(struct tool_scan *scan, char byte)
{
    if (scan->in_string) {
        scan->in_string = byte != '"' || scan->is_escaped;
        scan->is_escaped = byte == '\\' && !scan->is_escaped;
        return TAKEN_YES;
    }
    scan->in_string = byte == '"';
    if ((byte == '{' || byte == '[') && scan->depth < UINT16_MAX)
        scan->depth++;
    else if ((byte == '}' || byte == ']') && --scan->depth == 0)
        return TAKEN_LAST;
    return TAKEN_YES;
}

static enum taken take_rest(struct tool_scan *scan, char byte)
{
    if (scan->depth)
        return take_nested(scan, byte);
    if (byte == '}')
        return TAKEN_LAST;
    scan->depth = 1;
    return byte == ',' ? TAKEN_YES : TAKEN_WRONG;
}

static enum taken take_byte(struct tool_scan *scan, const struct tool_step *step,
                            const struct tool_names *names, char byte)
{
    switch (step->kind) {
    case TOOL_SPACE:
        return is_space(byte) ? TAKEN_YES : TAKEN_NO;
    case TOOL_NAME:
        return take_name(scan, step, names, byte);
    case TOOL_OBJECT:
        return scan->depth || byte == '{' ? take_nested(scan, byte) : TAKEN_WRONG;
    case TOOL_REST:
        return take_rest(scan, byte);
    case TOOL_TEXT:
    case TOOL_OPEN:
    case TOOL_CLOSE:
        break;
    }
    return take_text(scan, step, byte);
}

/* A step that may be left out had begun with bytes that were of a later one: the text that they are of; NULL: it may not. */
static const char *text_begun(const struct tool_scan *scan, const struct tool_step *step)
{
    bool may_lack = step->kind == TOOL_CLOSE || (step->kind == TOOL_OPEN && !step->always);
    for (size_t i = 0; may_lack && scan->at && i < TOOL_CHOICES && step->texts[i]; i++)
        if (scan->alive >> i & 1)
            return step->texts[i];
    return NULL;
}

/* Goes on with the first step, from the present one on, of which the byte is the next; that step is *taker. False: none. */
static bool advance(struct tool_scan *scan, const struct tool_form *form, const struct tool_names *names,
                    char byte, const struct tool_step **taker)
{
    while (scan->step < form->n_steps) {
        const struct tool_step *step = &form->steps[scan->step], *ignored;
        enum taken taken = take_byte(scan, step, names, byte);
        const char *begun = taken == TAKEN_WRONG ? text_begun(scan, step) : NULL;
        uint16_t n_begun = scan->at;
        if (taken == TAKEN_WRONG && !begun)
            return false;
        if (taken != TAKEN_YES)
            begin_step(scan, scan->step + 1u, names);
        for (uint16_t i = 0; begun && i < n_begun; i++)
            if (!advance(scan, form, names, begun[i], &ignored))
                return false;
        *taker = step;
        if (taken == TAKEN_YES || taken == TAKEN_LAST)
            return true;
    }
    return false;
}

/* Calls --------------------------------------------------------------------------------------------------- */

/* Nothing of a call is open. After a call a line begins, for another one. */
static void forget(struct tool_scan *scan)
{
    *scan = (struct tool_scan){
        .within_line = scan->within_line && !scan->begun, .name = scan->name, .n_calls = scan->n_calls};
}

/* Nothing is left that would have to come, or could. */
static bool is_over(const struct tool_scan *scan, const struct tool_form *form)
{
    for (size_t i = scan->step; i < form->n_steps; i++) {
        const struct tool_step *step = &form->steps[i];
        if (step->kind != TOOL_SPACE &&
            (step->kind != TOOL_CLOSE || step->always || scan->opened[step->pair]))
            return false;
    }
    return true;
}

/* The byte that was to be the next one of a step was not. */
static struct tool_scan_result break_off(struct tool_scan *scan)
{
    struct tool_scan_result result = {.fate = TOOL_SCAN_AGAIN, .ended = scan->begun};
    if (scan->begun) /* what was held after a call may begin the next one */
        result.n_again = scan->n_held;
    forget(scan);
    return result;
}

/* A byte of a call, of a step that is not over, or was the step before the present one. */
static struct tool_scan_result take_part(struct tool_scan *scan, const struct tool_form *form,
                                         enum tool_step_kind kind, bool is_first)
{
    struct tool_scan_result result = {.fate = TOOL_SCAN_HOLD};
    if (kind == TOOL_OBJECT) {
        result.fate = is_first ? TOOL_SCAN_BEGIN : TOOL_SCAN_ARGUMENT;
        scan->n_calls += is_first;
        scan->begun = true;
    } else if (scan->begun && (kind == TOOL_REST || (kind == TOOL_CLOSE && !scan->at))) {
        result.fate = TOOL_SCAN_SKIP;
    }
    scan->n_held = result.fate == TOOL_SCAN_HOLD ? scan->n_held + 1 : 0;
    if (scan->complete && is_over(scan, form)) {
        result.ended = true;
        forget(scan);
    }
    return result;
}

static void note_line(struct tool_scan *scan, char byte)
{
    scan->within_line = byte != '\n' && (scan->within_line || !is_space(byte));
}

/* White space outside of calls may come before one. */
static struct tool_scan_result hold_space(struct tool_scan *scan, char byte)
{
    enum { SPACES_MAX = 64 };
    note_line(scan, byte);
    if (scan->n_held++ < SPACES_MAX)
        return (struct tool_scan_result){.fate = TOOL_SCAN_HOLD};
    scan->n_held = 0;
    return (struct tool_scan_result){.fate = TOOL_SCAN_TEXT};
}

struct tool_scan_result tool_scan_push(struct tool_scan *scan, const struct tool_form *form,
                                       const struct tool_names *names, char byte)
{
    bool is_outside = scan->step == 0 && !scan->at;
    if (is_outside && is_space(byte))
        return hold_space(scan, byte);
    if (is_outside)
        begin_step(scan, 0, names);
    if (scan->n_held == TOOL_HELD_MAX)
        return break_off(scan);
    const struct tool_scan before = *scan;
    const struct tool_step *taker;
    bool is_first = !scan->depth;
    if (advance(scan, form, names, byte, &taker)) {
        bool step_is_over = &form->steps[scan->step] != taker;
        scan->complete = scan->complete || (step_is_over && taker->kind == TOOL_OBJECT);
        note_line(scan, byte);
        return take_part(scan, form, taker->kind, is_first);
    }
    *scan = before;
    if (!is_outside)
        return break_off(scan);
    forget(scan);
    note_line(scan, byte);
    return (struct tool_scan_result){.fate = TOOL_SCAN_TEXT};
}

struct tool_scan_end tool_scan_finish(const struct tool_scan *scan)
{
    bool only_space = scan->step == 0 && !scan->at;
    return (struct tool_scan_end){
        .ends_call = scan->begun && scan->complete,
        .held_is_text = !scan->begun && !(only_space && scan->n_calls),
    };
}
