/* crash.h: the report of a crash: a few lines that say what happened and where, and nothing of what was computed.
 *
 *     2026-01-31T12:00:00.000Z crash: SIGSEGV at address 0x10, thread runnel-engine (4713) of process 4711
 *     2026-01-31T12:00:00.000Z crash: runnel 0.1.0, build 5b3e...9c, gcc 12.2.0
 *     2026-01-31T12:00:00.000Z crash: #0 runnel+0x3f2c1
 *     2026-01-31T12:00:00.000Z crash: #1 libc.so.6+0x89134
 *     2026-01-31T12:00:00.000Z crash: end of the report
 *
 * A frame is an address within a program or library, as addr2line takes it; nothing else of memory is in the report, no
 * registers, no stack. A line is written whole or not at all, and writing never waits, as in base/log.h. Afterwards the signal
 * does what it does by default: the process ends by it, with a core file where those are wanted.
 *
 * Handlers and what they need belong to the process and to all that it forks; the alternate signal stacks on which they run
 * belong to the main thread and to each thread that calls thread_begin (base/thread.h). On a thread without one, all but a
 * stack that is full is reported. Builds with sanitizers report by themselves: there all this does nothing. */
#ifndef RUNNEL_SERVICE_CRASH_H
#define RUNNEL_SERVICE_CRASH_H

#include "base/error.h"

#include <stdbool.h>

/* Reports crashes by SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT to the descriptor, which is the caller's and stays open. is_json:
 * lines are objects, as those of a log in JSON. On the main thread, before others are started; again where a process has set
 * its signals back after a fork, or to name another descriptor. Fails only for want of memory. */
int crash_watch(int descriptor, bool is_json, runnel_error *error);

#endif
