/* calls.c: see calls.h. */
#include "engine/calls.h"

#include <stdlib.h>
#include <string.h>

static void make_room(struct calls *calls, uint32_t cap)
{
    runnel_call *grown = realloc(calls->calls, cap * sizeof *grown);
    calls->failed = calls->failed || !grown;
    if (!grown)
        return;
    calls->calls = grown;
    calls->cap = cap;
}

void calls_reserve(struct calls *calls, size_t n_bytes, uint32_t n_max)
{
    size_t n = n_bytes / CALLS_BYTES_LEAST + 1;
    if (n_max && n > n_max)
        n = n_max;
    make_room(calls, n < UINT32_MAX / 2 ? (uint32_t)n : UINT32_MAX / 2);
    text_reserve(&calls->written, n_bytes);
    calls->failed = calls->failed || calls->written.failed;
}

static void begin(struct calls *calls, const char *name)
{
    if (calls->n == calls->cap)
        make_room(calls, 2 * calls->cap + 4);
    if (calls->failed)
        return;
    if (calls->n)
        text_add(&calls->written, "", 1); /* behind the arguments of the one before */
    text_add(&calls->written, name, strlen(name) + 1);
    calls->calls[calls->n++] = (runnel_call){.name = NULL};
}

void calls_add(struct calls *calls, const runnel_event *event)
{
    runnel_call *latest = calls->n ? &calls->calls[calls->n - 1] : NULL;
    if (event->kind == RUNNEL_EVENT_CALL) {
        begin(calls, event->text);
    } else if (event->kind == RUNNEL_EVENT_ARGUMENTS && latest) {
        text_add(&calls->written, event->text, event->text_len);
        latest->arguments_len += event->text_len;
    } else if (latest) {
        latest->complete = true;
    }
    calls->failed = calls->failed || calls->written.failed;
}

void calls_finish(struct calls *calls)
{
    char *at = calls->written.bytes;
    if (calls->failed)
        return;
    if (!calls->n) {
        calls_free(calls);
        return;
    }
    for (uint32_t i = 0; at && i < calls->n; i++) {
        runnel_call *call = &calls->calls[i];
        call->name = at;
        call->arguments = at + strlen(at) + 1; /* no name has a zero */
        at = call->arguments + call->arguments_len + 1;
    }
    calls->written = (struct text){0};
}

runnel_call *calls_told(const struct calls *calls)
{
    return calls->n && calls->calls[0].name ? calls->calls : NULL;
}

void calls_free(struct calls *calls)
{
    if (calls->n)
        free(calls->calls[0].name); /* all that they have written, if they were told */
    free(calls->calls);
    text_free(&calls->written);
    *calls = (struct calls){0};
}
