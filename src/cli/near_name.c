/* near_name.c: see near_name.h. */
#include "cli/near_name.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum {
    WRONG_MAX = 2,     /* letters that may be wrong in a name; in a short one no more than half of them */
    BEGINNING_MIN = 2, /* letters of a name's beginning from which it is suggested */
};

size_t near_name_stem(const char *name)
{
    static const char extension[] = ".gguf";
    size_t len = strlen(name), n = strlen(extension);
    return len > n && !strcmp(name + len - n, extension) ? len - n : len;
}

/* The name in lower case, without .gguf; 0 if it does not fit. */
static size_t fold_name(const char *name, char folded[TEXT_DISTANCE_MAX + 1])
{
    size_t len = near_name_stem(name);
    if (len > TEXT_DISTANCE_MAX)
        len = 0;
    for (size_t i = 0; i < len; i++)
        folded[i] = (char)tolower((unsigned char)name[i]);
    folded[len] = 0;
    return len;
}

struct near_name near_name_begin(const char *wanted)
{
    struct near_name near = {.len = 0};
    near.len = fold_name(wanted, near.wanted);
    near.distance =
        (near.len / 2 < WRONG_MAX ? near.len / 2 : WRONG_MAX) + 1; /* one more than what is near */
    return near;
}

void near_name_consider(struct near_name *near, const char *name)
{
    char folded[TEXT_DISTANCE_MAX + 1];
    size_t len = fold_name(name, folded);
    if (!len || !near->len)
        return;
    size_t distance = text_distance(near->wanted, near->len, folded);
    bool begins = near->len >= BEGINNING_MIN && len > near->len && !memcmp(folded, near->wanted, near->len);
    if (begins && distance > 1)
        distance = 1;
    if (distance < near->distance) {
        near->distance = distance;
        memcpy(near->nearest, name, len);
        near->nearest[len] = 0;
    }
}
