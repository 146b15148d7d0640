/* split_name.c: see split_name.h. */
#include "base/split_name.h"

#include <string.h>

enum { N_DIGITS = 5 };

static const char middle[] = "-of-", end[] = ".gguf";

/* Five digits. */
static bool read_number(const char *digits, unsigned *number)
{
    *number = 0;
    for (int i = 0; i < N_DIGITS; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        *number = 10 * *number + (unsigned)(digits[i] - '0');
    }
    return true;
}

bool split_name_read(const char *path, size_t len, struct split_name *name)
{
    if (len <= SPLIT_NAME_ENDING_BYTES)
        return false;
    size_t stem_len = len - SPLIT_NAME_ENDING_BYTES;
    const char *ending = path + stem_len;
    const char *of = ending + 1 + N_DIGITS, *count = of + strlen(middle);
    unsigned number, n_parts;
    if (*ending != '-' || path[stem_len - 1] == '/' || memcmp(of, middle, strlen(middle)) ||
        memcmp(count + N_DIGITS, end, strlen(end)) || !read_number(ending + 1, &number) ||
        !read_number(count, &n_parts) || number == 0 || number > n_parts)
        return false;
    *name = (struct split_name){.stem_len = stem_len, .number = number, .count = n_parts};
    return true;
}

void split_name_renumber(char *path, const struct split_name *name, unsigned number)
{
    for (int i = N_DIGITS; i > 0; i--, number /= 10)
        path[name->stem_len + (size_t)i] = (char)('0' + number % 10);
}
