/* texts.h: the files of texts that tests of the loop detector read: each text begins with a line === and its name. */
#ifndef TESTS_HELPERS_TEXTS_H
#define TESTS_HELPERS_TEXTS_H

#include <stddef.h>

/* A whole file, zero-terminated; to be freed. */
char *texts_read_file(const char *path);
/* The next text of a file: from behind its name to the next one's mark; rest goes on behind it. NULL: there is none. The file is
 * written to. */
char *texts_next(char **rest, const char **name);
/* A text of loops.txt: what stands before its ---, and n times what stands behind it; to be freed. Sets the lengths of these two. */
char *texts_repeat_cycle(char *text, size_t n, size_t *n_prefix, size_t *n_cycle);
/* prefix, then n times cycle; to be freed. */
char *texts_repeat(const char *prefix, const char *cycle, size_t n);

#endif
