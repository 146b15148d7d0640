/* calls.h: the calls of tools that an answer has made so far, collected from its events. Starts zeroed; one thread. */
#ifndef RUNNEL_ENGINE_CALLS_H
#define RUNNEL_ENGINE_CALLS_H

#include "base/error.h"
#include "base/text.h"

struct calls {
    runnel_call *calls; /* [n] without the arguments of the latest one, which are being written */
    uint32_t n, cap;
    struct text arguments; /* of the latest one */
    bool failed;           /* memory ran out */
};

/* A CALL, ARGUMENTS or CALL_END event. */
void calls_add(struct calls *calls, const runnel_event *event);
/* No more events come: the latest call gets its arguments. */
void calls_finish(struct calls *calls);
void calls_free(struct calls *calls);

#endif
