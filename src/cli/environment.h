/* environment.h: variables RUNNEL_... that nobody reads: a misspelt option would be ignored without a word. Owns nothing;
 * any thread that may read the environment. */
#ifndef RUNNEL_CLI_ENVIRONMENT_H
#define RUNNEL_CLI_ENVIRONMENT_H

/* Tells a line of each variable that is set and is neither an option of any command nor known otherwise, with the nearest
 * name if there is one. Its value, which may be a key, is not told. */
void environment_tell_unknown(void (*tell)(void *user, const char *line), void *user);

#endif
