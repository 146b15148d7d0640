/* chat.h: a conversation on the terminal. */
#ifndef RUNNEL_CLI_CHAT_H
#define RUNNEL_CLI_CHAT_H

#include "cli/line_editor.h"
#include "cli/run.h"

/* Takes the terminal, so that what is typed while a model loads is kept and not shown. Close with line_editor_close. */
int chat_open_editor(struct line_editor **editor, runnel_error *error);

/* system: the prompt of --system, or NULL. Asks and answers until the end is typed. Returns the exit status. One thread. */
int chat_loop(const runnel_model *model, const struct run_settings *settings, const char *system,
              struct line_editor *editor);

#endif
