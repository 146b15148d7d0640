/* calls.h: the calls of tools that an answer has made so far, collected from its events. Starts zeroed; one thread.
 *
 * What all calls have written lies in one text, which has room from the start (calls_reserve), so that collecting allocates
 * nothing. It may move all the same, where an answer is longer than was foreseen: calls point into it only once no more events
 * come. */
#ifndef RUNNEL_ENGINE_CALLS_H
#define RUNNEL_ENGINE_CALLS_H

#include "base/error.h"
#include "base/text.h"

enum { CALLS_BYTES_LEAST = 24 /* of an answer that one call takes, in whatever form it is written */ };

struct calls {
    runnel_call *calls; /* [n] their names and arguments are NULL until calls_finish */
    uint32_t n, cap;
    struct text
        written; /* name, zero, arguments, zero of each; the first call's name has it from calls_finish on */
    bool failed; /* memory ran out */
};

/* Room for the calls of an answer of so many bytes, n_max calls at most; 0: any number. failed: there is none. */
void calls_reserve(struct calls *calls, size_t n_bytes, uint32_t n_max);
/* A CALL, ARGUMENTS or CALL_END event. */
void calls_add(struct calls *calls, const runnel_event *event);
/* No more events come: the calls get their names and arguments. */
void calls_finish(struct calls *calls);
/* [n] with names and arguments; NULL: there are none, or not yet. */
runnel_call *calls_told(const struct calls *calls);
void calls_free(struct calls *calls);

#endif
