/* answer_view.h: an answer as it comes, and the reports behind it: what one answer and a chat share.
 *
 * The answer goes to stdout. Thoughts are shown dimmed where a person looks on, and left out where stdout goes to a
 * file or another program. The main thread's. */
#ifndef RUNNEL_CLI_ANSWER_VIEW_H
#define RUNNEL_CLI_ANSWER_VIEW_H

#include "cli/wrap.h"
#include "runnel.h"

#include <stdio.h>

struct answer_view {
    FILE *thoughts; /* where thoughts are shown; NULL: not at all */
    bool dims;      /* with terminal colours */
    bool in_thought;
    bool wrote; /* any answer text */
    bool wraps; /* the text that is being shown breaks between words */
    struct wrap wrap;
};

/* For stdout as it is. */
struct answer_view answer_view_open(void);

/* Shows an event of the answer. False: stdout cannot be written. */
bool answer_view_show(struct answer_view *view, const runnel_event *event);

/* Asks, shows the answer as it comes (view NULL: not at all) and waits for its end. Ctrl-C ends it, in the middle of a long
 * prompt too. A second one ends the program, after restore (which may be NULL, and is called by a signal handler). If the
 * program was stopped meanwhile (Ctrl-Z), the response's prefill_ms and decode_ms are 0. */
int answer_wait(runnel_engine *engine, const runnel_request *request, struct answer_view *view,
                void (*restore)(void), runnel_response *response, runnel_error *error);

/* Whether Ctrl-C was pressed during the last answer_wait. */
bool answer_was_interrupted(void);

/* Counts and speeds on stderr, in a line of at most 80 columns, or all of them if verbose. load_ms 0: the model was
 * loaded before, for a conversation. */
void answer_print_timings(const runnel_model *model, const runnel_response *response, double load_ms,
                          bool verbose);

/* Says on stderr that the thought went in circles, if it did, and why there is no answer, if all of it was thought. */
void answer_remark_thought(const runnel_response *response);

/* The object of --json, on stdout. Returns the exit status. */
int answer_print_json(const runnel_model *model, const runnel_response *response, uint64_t seed);

#endif
