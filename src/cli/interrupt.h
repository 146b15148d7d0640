/* interrupt.h: commands that compute for long end cleanly at Ctrl-C: it is only noted, for whoever computes to look at. The main
 * thread begins; any thread may ask. */
#ifndef RUNNEL_CLI_INTERRUPT_H
#define RUNNEL_CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP are noted, but for those that are ignored already, as nohup does. The second of a kind
 * ends the program, as the system has it. */
void interrupt_watch(void);
/* The same, and the second one is noted, too: for who ends at once and has something to remove. */
void interrupt_watch_each(void);
/* One has come since. */
bool interrupt_came(void);

#endif
