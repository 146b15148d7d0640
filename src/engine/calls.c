/* calls.c: see calls.h. */
#include "engine/calls.h"

#include <stdlib.h>
#include <string.h>

static void begin(struct calls *calls, const char *name)
{
    calls_finish(calls);
    if (calls->n == calls->cap) {
        uint32_t cap = 2 * calls->cap + 4;
        runnel_call *grown = realloc(calls->calls, cap * sizeof *grown);
        calls->failed = calls->failed || !grown;
        if (!grown)
            return;
        calls->calls = grown;
        calls->cap = cap;
    }
    char *copy = strdup(name);
    calls->failed = calls->failed || !copy;
    if (copy)
        calls->calls[calls->n++] = (runnel_call){.name = copy};
    text_add_string(&calls->arguments, ""); /* they are a text even if none come any more */
}

void calls_add(struct calls *calls, const runnel_event *event)
{
    if (event->kind == RUNNEL_EVENT_CALL)
        begin(calls, event->text);
    else if (event->kind == RUNNEL_EVENT_ARGUMENTS)
        text_add(&calls->arguments, event->text, event->text_len);
    else if (calls->n)
        calls->calls[calls->n - 1].complete = true;
}

void calls_finish(struct calls *calls)
{
    runnel_call *latest = calls->n ? &calls->calls[calls->n - 1] : NULL;
    calls->failed = calls->failed || calls->arguments.failed;
    if (!latest || latest->arguments)
        return;
    latest->arguments = calls->arguments.bytes;
    latest->arguments_len = calls->arguments.len;
    calls->failed = calls->failed || !latest->arguments;
    calls->arguments = (struct text){0};
}

void calls_free(struct calls *calls)
{
    for (uint32_t i = 0; i < calls->n; i++) {
        free(calls->calls[i].name);
        free(calls->calls[i].arguments);
    }
    free(calls->calls);
    text_free(&calls->arguments);
    *calls = (struct calls){0};
}
