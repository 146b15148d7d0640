/* interrupt.h: commands that compute for long end cleanly at Ctrl-C: the first one is only noted, for whoever computes to look
 * at; the second one ends the program, as the system has it. The main thread begins; any thread may ask. */
#ifndef RUNNEL_CLI_INTERRUPT_H
#define RUNNEL_CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP are noted, but for those that are ignored already, as nohup does. */
void interrupt_watch(void);
/* One has come since. */
bool interrupt_came(void);

#endif
