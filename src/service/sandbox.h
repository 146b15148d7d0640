/* sandbox.h: what a process that answers requests gives up, so that a defect in it is worth little to whoever finds one.
 *
 *     sandbox_begin(&error);             main thread, before others are started; then the model is opened
 *     sandbox_drop_capabilities(&error); each thread that needs no file any more, before it starts others
 *     sandbox_close(&error);             once all threads have been started and all that is ever read is open
 *
 * After sandbox_close no thread of the process can open, create or look at a file, execute a program, make a socket, connect,
 * start a thread or a process, map memory executable, or signal anybody else: the system refuses it (EPERM), or ends the process
 * where no library has a reason to try. What goes on is computing, memory, and reading and writing what is open; connections are
 * accepted. Nothing takes that back. The list of calls is in sandbox.c.
 *
 * Each fails where the system does not let it be done (an old kernel, the policy of a container), says why, and has done what
 * could be done: the caller goes on, and tells. Owns nothing; state of the process. */
#ifndef RUNNEL_SERVICE_SANDBOX_H
#define RUNNEL_SERVICE_SANDBOX_H

#include "base/error.h"

#include <stdbool.h>

/* From now on nothing that is executed gains privileges (no_new_privs), the time zone is read and needs no file, and no
 * capability is left but that to read any file, which a model of somebody else may want. */
int sandbox_begin(runnel_error *error);

/* Nor that one, for the calling thread and those that it starts. */
int sandbox_drop_capabilities(runnel_error *error);

/* Closes it, for all threads at once; drops the capabilities of the calling thread before. RUNNEL_EUNSUPPORTED where this
 * build or this system cannot. has_gpu: what drivers of graphics cards ask of their open devices goes through as well. */
int sandbox_close(bool has_gpu, runnel_error *error);

#endif
