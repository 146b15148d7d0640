/* token_list.c: token ids in a list that grows. See token_list.h. */
#include "model/token_list.h"

#include <stdlib.h>

int token_list_reserve(struct token_list *list, size_t n, runnel_error *error)
{
    if (n <= list->cap - list->n)
        return RUNNEL_OK;
    size_t cap = list->cap ? list->cap : 64;
    while (cap < list->n + n)
        cap += cap / 2;
    int32_t *ids = realloc(list->ids, cap * sizeof *ids);
    if (!ids)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for %zu tokens", list->n + n);
    list->ids = ids;
    list->cap = cap;
    return RUNNEL_OK;
}

int token_list_add(struct token_list *list, int32_t id, runnel_error *error)
{
    int code = token_list_reserve(list, 1, error);
    if (!code)
        list->ids[list->n++] = id;
    return code;
}
