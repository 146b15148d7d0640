/* list.h: which models there are: those known by name, and those that lie in the folders where names are looked for. */
#ifndef RUNNEL_CLI_LIST_H
#define RUNNEL_CLI_LIST_H

#include <stdbool.h>

/* Writes them to stdout, for people or as JSON. Returns the exit status. */
int list_models(bool as_json);

#endif
