/* process.h: what a process of the family does first after it was forked. */
#ifndef RUNNEL_SERVICE_PROCESS_H
#define RUNNEL_SERVICE_PROCESS_H

#include <sys/types.h>

/* Signals are as for a new program but for SIGINT and SIGHUP, which a terminal sends to all of the family and which are the
 * supervisor's, and SIGPIPE, which nobody wants; none is blocked. */
void process_reset_signals(void);

/* Ends with its parent, which was `parent` before the fork. */
void process_die_with(pid_t parent);

/* Ends with its parent until process_outlive_keeper was called, then only when `supervisor` is not its parent
 * either: that adopts what a keeper leaves. */
void process_die_with_keeper(pid_t keeper, pid_t supervisor);
void process_outlive_keeper(void);

#endif
