/* near_name.h: the name that a person may have meant by one that is not there: a command, an option, a setting, a model.
 *
 *     struct near_name near = near_name_begin(typed, strlen(typed));
 *     for (size_t i = 0; i < n; i++)
 *         near_name_consider(&near, names[i], strlen(names[i]));
 *     if (*near.nearest)
 *         ... "did you mean %s?", near.nearest
 *
 * Nothing allocates; any thread. */
#ifndef RUNNEL_BASE_NEAR_NAME_H
#define RUNNEL_BASE_NEAR_NAME_H

#include <stdbool.h>
#include <stddef.h>

enum { NEAR_NAME_MAX = 63 /* bytes; a longer name is near to none */ };

struct near_name {
    char wanted[NEAR_NAME_MAX + 1];  /* in small letters, with - for _ */
    size_t len;                      /* of wanted; 0: it cannot be compared */
    size_t distance;                 /* of nearest; before there is one, the least that is too far */
    bool begins;                     /* wanted is the beginning of nearest */
    char nearest[NEAR_NAME_MAX + 1]; /* as it was considered; "": none is near */
};

/* wanted: len bytes. */
struct near_name near_name_begin(const char *wanted, size_t len);

/* Keeps a name of len bytes if it is nearer than those before: few letters are wrong, its beginning was given (which is
 * better than a wrong letter), or what other programs call it. Capital letters are as good as small ones, and _ as -. */
void near_name_consider(struct near_name *near, const char *name, size_t len);

#endif
