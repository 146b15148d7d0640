/* thought_tags.h: where a text stands between <think> and </think>, byte by byte.
 *
 * There is one thought: text up to <think> comes before it, text up to </think> is it, and tags after that are text like any
 * other, so that an answer may speak about them. A struct thought_tags is a value: a copy of it is a place to go back to. */
#ifndef RUNNEL_ENGINE_THOUGHT_TAGS_H
#define RUNNEL_ENGINE_THOUGHT_TAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum thought_phase { BEFORE_THOUGHT = 0, IN_THOUGHT, AFTER_THOUGHT };

struct thought_tags {
    uint8_t phase;     /* enum thought_phase: of the next text, unless it completes a tag */
    uint8_t n_matched; /* the text ends with so many bytes of the tag that would end this phase */
};

/* splits false: there are no thoughts, all is answer. opened: the text begins in a thought. */
struct thought_tags thought_tags_begin(bool splits, bool opened);
/* Takes the next byte. True if it completes the tag, and so ends the phase. */
bool thought_tags_push(struct thought_tags *tags, char byte);
/* The same for several bytes. Returns how many there are up to the end of the thought, if they complete that, else len. */
size_t thought_tags_push_all(struct thought_tags *tags, const char *bytes, size_t len);
/* The bytes that n_matched counts. */
const char *thought_tags_matched(const struct thought_tags *tags);

#endif
