/* tool_reader.h: what bytes of an answer are, of those that are certain: text, or of a call of a tool (tool_scan.h).
 *
 * A struct tool_reader is a value that starts zeroed: a copy of it is a place to go back to. */
#ifndef RUNNEL_MODEL_TOOL_READER_H
#define RUNNEL_MODEL_TOOL_READER_H

#include "model/tool_scan.h"

struct tool_reader {
    struct tool_scan scan;
    char held[TOOL_HELD_MAX]; /* [scan.n_held] text, or of a call */
};

enum tool_part {
    TOOL_PART_TEXT,     /* a byte of text */
    TOOL_PART_BEGIN,    /* a call: of names[scan.name] */
    TOOL_PART_ARGUMENT, /* a byte of its arguments */
    TOOL_PART_END,      /* of the call */
};

/* Who is told; byte is 0 at the beginning and the end of a call. */
struct tool_listener {
    void (*on_part)(void *user, enum tool_part part, char byte);
    void *user;
};

void tool_reader_push(struct tool_reader *reader, const struct tool_form *form,
                      const struct tool_names *names, char byte, struct tool_listener listener);
/* Nothing comes any more: what was held is told, or goes. */
void tool_reader_finish(struct tool_reader *reader, struct tool_listener listener);

#endif
