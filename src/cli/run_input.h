/* run_input.h: the texts that `runnel run` is given: the question from -p, -f and stdin, and the system prompt. */
#ifndef RUNNEL_CLI_RUN_INPUT_H
#define RUNNEL_CLI_RUN_INPUT_H

#include "cli/run.h"

/* Whether nothing was given that could be answered at once, and a person sits at the terminal. */
bool run_input_is_chat(const struct run_settings *settings);

/* Whether the options can be meant: RUNNEL_EINVAL if a question stands in the model's place, or stdin is asked for twice. */
int run_input_check(const struct run_settings *settings, runnel_error *error);

/* The question: the text of -p, then the file of -f, then what is piped into stdin, with blank lines between. *question
 * is the caller's to free. */
int run_input_question(const struct run_settings *settings, char **question, runnel_error *error);

/* The text of --system or --system-file, without the line ends behind it; *system is the caller's to free, NULL if there
 * is none. */
int run_input_system(const struct run_settings *settings, char **system, runnel_error *error);

/* The text of --schema; *schema is the caller's to free, NULL if there is none. */
int run_input_schema(const struct run_settings *settings, char **schema, runnel_error *error);

#endif
