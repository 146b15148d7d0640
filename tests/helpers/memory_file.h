/* memory_file.h: a file that exists in memory only and has a path, for tests of code that opens paths. */
#ifndef RUNNEL_TESTS_MEMORY_FILE_H
#define RUNNEL_TESTS_MEMORY_FILE_H

#include <stddef.h>

enum { MEMORY_FILE_PATH = 32 };

/* Makes one of n bytes and puts the path under which it can be opened, as long as the returned descriptor is
 * open, in path. -1: failed. */
int memory_file_create(const void *bytes, size_t n, char path[MEMORY_FILE_PATH]);

#endif
