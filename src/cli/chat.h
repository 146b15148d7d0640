/* chat.h: a conversation on the terminal. */
#ifndef RUNNEL_CLI_CHAT_H
#define RUNNEL_CLI_CHAT_H

#include "cli/run.h"

/* system: the prompt of --system, or NULL. Asks and answers until the end is typed. Returns the exit status. One thread. */
int chat_loop(const runnel_model *model, const struct run_settings *settings, const char *system);

#endif
