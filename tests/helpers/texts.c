/* texts.c: see texts.h. */
#include "helpers/texts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char *texts_read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("%s cannot be read", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    text[size] = 0;
    fclose(file);
    return text;
}

char *texts_next(char **rest, const char **name)
{
    char *begin = strstr(*rest, "\n=== ");
    if (!begin)
        return NULL;
    *name = begin + 5;
    char *text = strchr(*name, '\n');
    *text++ = 0;
    char *end = strstr(text, "\n\n=== ");
    *rest = end ? end + 1 : text + strlen(text);
    if (end)
        *end = 0;
    else if (text[strlen(text) - 1] == '\n')
        text[strlen(text) - 1] = 0;
    return text;
}

char *texts_repeat(const char *prefix, const char *cycle, size_t n)
{
    size_t n_prefix = strlen(prefix), n_cycle = strlen(cycle);
    char *text = malloc(n_prefix + n * n_cycle + 1);
    assert_non_null(text);
    memcpy(text, prefix, n_prefix + 1);
    for (size_t i = 0; i < n; i++)
        memcpy(text + n_prefix + i * n_cycle, cycle, n_cycle + 1);
    return text;
}

char *texts_repeat_cycle(char *text, size_t n, size_t *n_prefix, size_t *n_cycle)
{
    char *cycle = strstr(text, "\n---\n");
    assert_non_null(cycle);
    *cycle = 0;
    cycle += 5;
    *n_prefix = strlen(text);
    *n_cycle = strlen(cycle);
    return texts_repeat(text, cycle, n);
}
