/* commands.h: the table of commands: what each does, and its options. Constant; any thread. */
#ifndef RUNNEL_CLI_COMMANDS_H
#define RUNNEL_CLI_COMMANDS_H

#include "base/options.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    const struct options_table *options;
    const char *text;
};

/* NULL: there are no more. */
const struct command *commands_at(size_t index);
/* NULL: there is none of that name. */
const struct command *commands_find(const char *name);

#endif
