/* tool_scan.h: finds calls of tools in a text, byte by byte, by the steps of a form (tool_forms.h).
 *
 * A struct tool_scan is a value: a copy of it is a place to go back to. It keeps no bytes: of each one it says what becomes of
 * it, and bytes that may still be text or a call are held by whoever pushes them, TOOL_HELD_MAX at most. What only looks like a
 * call is text: a call has begun with the first byte of its arguments, when everything before it was as the form has it and its
 * name is one of the given ones. White space before a call, and after one at the end of the text, is the call's. How the
 * arguments end is told by brackets and strings alone; they may be no JSON otherwise. */
#ifndef RUNNEL_MODEL_TOOL_SCAN_H
#define RUNNEL_MODEL_TOOL_SCAN_H

#include "base/error.h"
#include "model/tool_forms.h"

enum {
    TOOL_NAME_MAX = 256, /* bytes */
    TOOL_HELD_MAX = 768,
};

/* The names that calls may have. Never changed; several threads may read it. */
struct tool_names {
    char **names; /* [n] sorted */
    uint16_t n;
};

/* A name that can be one: 1 to TOOL_NAME_MAX bytes, none of them a control character, a quote or a backslash. */
bool tool_name_is_fit(const char *name, size_t len);
/* Copies of n fit names; the same one may come twice. */
int tool_names_create(const char *const *names, size_t n, struct tool_names *out, runnel_error *error);
void tool_names_free(struct tool_names *names);

struct tool_scan {
    uint8_t step;    /* of the form: what comes next */
    uint8_t alive;   /* texts of it that the latest bytes began, a bit each */
    uint16_t at;     /* bytes of them, or of the name, that have come */
    uint16_t lo, hi; /* names [lo, hi) begin with these bytes */
    uint16_t n_held;
    uint16_t depth;             /* of brackets in the arguments, or in the rest */
    uint8_t opened[TOOL_PAIRS]; /* 1 + which text; 0: none */
    bool begun;                 /* its arguments have begun */
    bool complete;              /* ... and ended */
    bool in_string, is_escaped; /* in the arguments, or in the rest */
    bool within_line;           /* the latest bytes are no beginning of a line */
    uint16_t name;              /* of the latest call */
    uint16_t n_calls;           /* begun so far */
};

enum tool_scan_fate {
    TOOL_SCAN_HOLD, /* the byte is held, too */
    TOOL_SCAN_TEXT, /* what is held and the byte are text */
    TOOL_SCAN_AGAIN, /* what is held is text, but for its last n_again bytes; these, and the byte, are to be pushed again */
    TOOL_SCAN_BEGIN,    /* a call: what is held goes, the byte is the first one of the arguments */
    TOOL_SCAN_ARGUMENT, /* one more of them */
    TOOL_SCAN_SKIP,     /* what is held and the byte belong to the call, and are not told */
};

struct tool_scan_result {
    enum tool_scan_fate fate;
    uint16_t n_again;
    bool
        ended; /* the call is over: before what was held, or with TOOL_SCAN_SKIP and TOOL_SCAN_ARGUMENT with the byte */
};

struct tool_scan_result tool_scan_push(struct tool_scan *scan, const struct tool_form *form,
                                       const struct tool_names *names, char byte);

/* What is left at the text's end. */
struct tool_scan_end {
    bool ends_call;    /* a call was open whose arguments were complete */
    bool held_is_text; /* else what is held goes */
};
struct tool_scan_end tool_scan_finish(const struct tool_scan *scan);

/* A call has begun and is not over. */
static inline bool tool_scan_in_call(const struct tool_scan *scan)
{
    return scan->begun;
}

#endif
