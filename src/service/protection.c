/* protection.c: see protection.h. */
#include "service/protection.h"

#include "service/crash.h"
#include "service/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int open_crash_file(struct protection *protection, runnel_error *error)
{
    protection->crash_file =
        open(protection->crash_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (protection->crash_file < 0)
        return error_set(error, RUNNEL_EIO, "--crash-file %s: cannot be opened: %s", protection->crash_path,
                         strerror(errno));
    return RUNNEL_OK;
}

int protection_watch(struct protection *protection, runnel_error *error)
{
    int failure = RUNNEL_OK;
    if (protection->crash_path && protection->crash_file < 0)
        failure = open_crash_file(protection, error);
    if (failure)
        return failure;
    if (protection->crash_file >= 0)
        return crash_watch(protection->crash_file, protection->log->is_json, error);
    return crash_watch(protection->log->descriptor, protection->log->is_json, error);
}

void protection_begin(struct protection *protection)
{
    runnel_error error;
    protection->sandbox = protection->wants_sandbox ? "off: the model is being loaded" : "off: --sandbox off";
    if (protection->wants_sandbox && sandbox_begin(&error))
        log_say(protection->log, "sandbox", "The sandbox is not whole: %s", error.message);
}

void protection_drop(const struct protection *protection)
{
    if (protection->wants_sandbox)
        (void)sandbox_drop_capabilities(NULL); /* protection_close meets the same */
}

void protection_close(struct protection *protection)
{
    runnel_error error;
    if (!protection->wants_sandbox)
        return;
    protection->sandbox = "on";
    if (!sandbox_close(protection->has_gpu, &error))
        return;
    snprintf(protection->why, sizeof protection->why, "off: %s", error.message);
    protection->sandbox = protection->why;
}

void protection_tell(const struct protection *protection)
{
    if (protection->sandbox == protection->why)
        log_say(protection->log, "sandbox", "The sandbox is %s", protection->why);
}

void protection_end(struct protection *protection)
{
    if (protection->crash_file >= 0)
        close(protection->crash_file);
    protection->crash_file = -1;
}
