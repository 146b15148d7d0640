/* split_name.h: the names of the files of a model in parts, as gguf-split gives them: NAME-00001-of-00003.gguf is the first
 * of three. Owns nothing; any thread. */
#ifndef RUNNEL_BASE_SPLIT_NAME_H
#define RUNNEL_BASE_SPLIT_NAME_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SPLIT_PARTS_MAX = 512,       /* of one model */
    SPLIT_NAME_ENDING_BYTES = 20 /* "-00001-of-00003.gguf" */
};

struct split_name {
    size_t stem_len;        /* of what stands before -00001-of-00003.gguf, a folder included */
    unsigned number, count; /* 1 <= number <= count */
};

/* Whether path[0..len) is the name of a part. It may be that of a file, a path or an address. */
bool split_name_read(const char *path, size_t len, struct split_name *name);

/* Makes path, which split_name_read has read, the name of another part of the same model. */
void split_name_renumber(char *path, const struct split_name *name, unsigned number);

#endif
