/* tool_reader.c: see tool_reader.h. */
#include "model/tool_reader.h"

#include <string.h>

static void tell(struct tool_listener listener, enum tool_part part, char byte)
{
    listener.on_part(listener.user, part, byte);
}

static void tell_text(struct tool_listener listener, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tell(listener, TOOL_PART_TEXT, bytes[i]);
}

/* True if the byte is to be taken again. */
static bool take(struct tool_reader *reader, const struct tool_form *form, const struct tool_names *names,
                 char byte, struct tool_listener listener)
{
    char held[TOOL_HELD_MAX];
    size_t n_held = reader->scan.n_held;
    const struct tool_scan_result result = tool_scan_push(&reader->scan, form, names, byte);
    if (result.ended && result.fate == TOOL_SCAN_AGAIN)
        tell(listener, TOOL_PART_END, 0);
    switch (result.fate) {
    case TOOL_SCAN_HOLD:
        reader->held[n_held] = byte;
        break;
    case TOOL_SCAN_TEXT:
        tell_text(listener, reader->held, n_held);
        tell(listener, TOOL_PART_TEXT, byte);
        break;
    case TOOL_SCAN_AGAIN: /* these bytes overwrite what they are read from */
        memcpy(held, reader->held, n_held);
        tell_text(listener, held, n_held - result.n_again);
        for (size_t i = n_held - result.n_again; i < n_held; i++)
            while (take(reader, form, names, held[i], listener))
                ;
        return true;
    case TOOL_SCAN_BEGIN:
        tell(listener, TOOL_PART_BEGIN, 0);
        tell(listener, TOOL_PART_ARGUMENT, byte);
        break;
    case TOOL_SCAN_ARGUMENT:
        tell(listener, TOOL_PART_ARGUMENT, byte);
        break;
    case TOOL_SCAN_SKIP:
        break;
    }
    if (result.ended)
        tell(listener, TOOL_PART_END, 0);
    return false;
}

void tool_reader_push(struct tool_reader *reader, const struct tool_form *form,
                      const struct tool_names *names, char byte, struct tool_listener listener)
{
    while (take(reader, form, names, byte, listener))
        ;
}

void tool_reader_finish(struct tool_reader *reader, struct tool_listener listener)
{
    const struct tool_scan_end end = tool_scan_finish(&reader->scan);
    if (end.ends_call)
        tell(listener, TOOL_PART_END, 0);
    if (end.held_is_text)
        tell_text(listener, reader->held, reader->scan.n_held);
    reader->scan = (struct tool_scan){.n_calls = reader->scan.n_calls};
}
