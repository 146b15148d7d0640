/* words.h: what the supervisor says in the log of the lives of others. Owns nothing. */
#ifndef RUNNEL_SERVICE_WORDS_H
#define RUNNEL_SERVICE_WORDS_H

#include <stddef.h>

/* How a process ended, by waitpid's status: "was killed by signal 9 (Killed)", "ended with status 1". Returns out. */
const char *words_of_end(int status, char *out, size_t size);

#endif
