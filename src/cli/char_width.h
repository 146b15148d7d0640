/* char_width.h: how many columns of a terminal a character takes. */
#ifndef RUNNEL_CLI_CHAR_WIDTH_H
#define RUNNEL_CLI_CHAR_WIDTH_H

#include <wchar.h>

/* 0 (combining marks), 1 or 2; 1 for control characters, which are not printed as they are. Asks wcwidth(), so the thread's LC_CTYPE should be a UTF-8 one;
 * what that does not know (newer emoji, a system without such a locale) is looked up in a short table. Any thread. */
int char_width(wchar_t c);

#endif
