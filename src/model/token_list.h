/* token_list.h: token ids in a list that grows. A struct token_list starts zeroed; free(ids). One thread. */
#ifndef RUNNEL_MODEL_TOKEN_LIST_H
#define RUNNEL_MODEL_TOKEN_LIST_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct token_list {
    int32_t *ids;
    size_t n, cap;
};

/* Makes room for n more tokens. */
int token_list_reserve(struct token_list *list, size_t n, runnel_error *error);
/* Appends one. */
int token_list_add(struct token_list *list, int32_t id, runnel_error *error);

#endif
