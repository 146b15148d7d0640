/* protection.h: the reports of crashes and the sandbox of a process, as an operator asked for them, and what the log says.
 *
 *     protection_watch   first of all
 *     protection_begin   before other threads are started, once what needs privileges (a port below 1024) is done
 *     protection_drop    on each thread that is to start others, once it needs no file
 *     protection_close   once all threads have been started and all that is ever read is open
 *     protection_tell    after it, for the log, in a process that stays: is the sandbox off although it was asked for
 *     protection_end     gives back
 *
 * In a server of many processes the first two are called before any is forked, and hold for all; the others by each for itself.
 * One thread, but for protection_drop. What cannot be had of the sandbox is told and no failure. */
#ifndef RUNNEL_SERVICE_PROTECTION_H
#define RUNNEL_SERVICE_PROTECTION_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>

struct protection {
    struct log *log;        /* the owner's, as the next two */
    const char *crash_path; /* NULL: the log gets the reports */
    bool wants_sandbox;
    bool has_gpu;        /* set before protection_close */
    int crash_file;      /* -1: none */
    const char *sandbox; /* "on", or "off: " and why */
    char why[520];
};

int protection_watch(struct protection *protection, runnel_error *error);
void protection_begin(struct protection *protection);
void protection_drop(const struct protection *protection);
void protection_close(struct protection *protection);
void protection_tell(const struct protection *protection);
void protection_end(struct protection *protection);

#endif
