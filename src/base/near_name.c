/* near_name.c: see near_name.h. */
#include "base/near_name.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum { BEGINNING_MIN = 2 /* letters of a name's beginning from which it is suggested */ };

/* What other programs call a command, an option or a setting of ours. Of several names for a word, a table has one. */
static const struct {
    const char *word, *name;
} words[] = {
    /* clang-format off */
    {"ls", "list"}, {"models", "list"},
    {"chat", "run"}, {"ask", "run"}, {"generate", "run"},
    {"start", "serve"}, {"server", "serve"},
    {"download", "pull"}, {"get", "pull"}, {"fetch", "pull"}, {"install", "pull"},
    {"remove", "rm"}, {"delete", "rm"}, {"uninstall", "rm"},
    {"show", "inspect"}, {"info", "inspect"}, {"benchmark", "bench"},
    {"reset", "clear"}, {"new", "clear"}, {"regenerate", "retry"}, {"regen", "retry"}, {"end", "quit"},
    {"temperature", "temp"}, {"num-threads", "threads"}, {"system-prompt", "system"}, {"batch-size", "batch"},
    {"ctx-size", "ctx"}, {"context", "ctx"}, {"context-size", "ctx"}, {"context-length", "ctx"}, {"max-model-len", "ctx"},
    {"n-predict", "n-tokens"}, {"max-tokens", "n-tokens"}, {"max-new-tokens", "n-tokens"},
    {"models-dir", "models"}, {"model-dir", "models"},
    {"n-predict", "max-tokens"}, {"max-new-tokens", "max-tokens"}, {"n-tokens", "max-tokens"},
    /* clang-format on */
};

static bool is_word_for(const char *wanted, const char *name)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i].word, wanted) && !strcmp(words[i].name, name))
            return true;
    return false;
}

/* The name in small letters, with - for _; 0 if it does not fit. */
static size_t fold(const char *name, size_t len, char folded[NEAR_NAME_MAX + 1])
{
    if (len > NEAR_NAME_MAX)
        len = 0;
    for (size_t i = 0; i < len; i++)
        folded[i] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
    folded[len] = 0;
    return len;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The fewest letters to put in, take out, change, or swap with the next one, to make a into b (optimal string alignment).
 * Three rows of its table are kept: cell [i][j] is the distance of the first i letters of a and the first j of b. */
static size_t distance_of(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][NEAR_NAME_MAX + 1];
    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

/* How many letters may be wrong in a name of len. */
static size_t wrong_letters(size_t len)
{
    return len >= 9 ? 3 : len >= 4 ? 2 : len / 2;
}

struct near_name near_name_begin(const char *wanted, size_t len)
{
    struct near_name near = {.len = 0};
    near.len = fold(wanted, len, near.wanted);
    near.distance = wrong_letters(near.len) + 1;
    return near;
}

void near_name_consider(struct near_name *near, const char *name, size_t len)
{
    char folded[NEAR_NAME_MAX + 1];
    len = fold(name, len, folded);
    if (!len || !near->len)
        return;
    size_t distance = distance_of(near->wanted, near->len, folded, len);
    bool begins = near->len >= BEGINNING_MIN && len > near->len && !memcmp(folded, near->wanted, near->len);
    if (begins && distance > 1)
        distance = 1;
    if (is_word_for(near->wanted, folded))
        distance = 0;
    bool is_nearer = distance < near->distance || (distance == near->distance && begins && !near->begins);
    if (is_nearer) {
        near->distance = distance;
        near->begins = begins;
        memcpy(near->nearest, name, len);
        near->nearest[len] = 0;
    }
}
