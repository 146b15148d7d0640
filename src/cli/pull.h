/* pull.h: the command `runnel pull`. */
#ifndef RUNNEL_CLI_PULL_H
#define RUNNEL_CLI_PULL_H

/* argv[0] is the command's name. Returns the exit status. */
int command_pull(int argc, char **argv);

#endif
