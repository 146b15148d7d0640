/* text.h: a text that grows. A struct text starts zeroed and owns its bytes; the caller frees them. One thread. */
#ifndef RUNNEL_BASE_TEXT_H
#define RUNNEL_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *bytes; /* zero-terminated once something was added or reserved */
    size_t len, cap;
    bool failed; /* memory ran out: what was added since is missing. Checked once, at the end */
};

/* Room for len bytes (less than SIZE_MAX) in all, so that adding up to there allocates nothing. */
void text_reserve(struct text *text, size_t len);
void text_add(struct text *text, const char *bytes, size_t len);
void text_add_string(struct text *text, const char *string);
void text_free(struct text *text); /* zeroes it */

/* Part of a text: [begin, end) in bytes. */
struct text_span {
    size_t begin, end;
};

#endif
