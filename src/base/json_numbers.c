/* json_numbers.c: see json_numbers.h. */
#include "base/json_numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char no_number[] = "9e307"; /* JSON_NO_NUMBER */

/* Digits, perhaps after a minus, that no 64 bits hold? */
static bool is_large_integer(const char *number, size_t len)
{
    bool is_negative = len && *number == '-';
    number += is_negative;
    len -= is_negative;
    for (size_t i = 0; i < len; i++)
        if (number[i] < '0' || number[i] > '9')
            return false;
    const char *most = is_negative ? "9223372036854775808" : "9223372036854775807";
    return len > 19 || (len == 19 && memcmp(number, most, 19) > 0);
}

/* At the end of a number, of len bytes, which is the last of what is spelt. Returns how long it is then. Room for two more. */
static size_t spell_number(char *number, size_t len, bool python)
{
    if (is_large_integer(number, len)) {
        number[len++] = 'e';
        number[len++] = '0';
    }
    number[len] = 0;
    if (!python || len < strlen(no_number) || isfinite(strtod(number, NULL)))
        return len;
    size_t sign = *number == '-';
    memcpy(number + sign, no_number, strlen(no_number));
    return sign + strlen(no_number);
}

/* How long the word is that stands for no number; 0: there is none. */
static size_t find_word(const char *bytes, size_t len)
{
    static const char *const words[] = {"NaN", "Infinity"};
    for (size_t i = 0; i < 2; i++)
        if (len >= strlen(words[i]) && !memcmp(bytes, words[i], strlen(words[i])))
            return strlen(words[i]);
    return 0;
}

char *json_numbers_spell(const char *bytes, size_t len, bool python, size_t *n_spelt)
{
    char *spelt = malloc(len + (python ? len / 3 : len / 19) * 2 + 4);
    size_t n = 0, number_at = 0;
    bool in_string = false, in_number = false;
    for (size_t i = 0; spelt && i <= len; i++) {
        char c = i < len ? bytes[i] : ' ';
        bool goes_on = !in_string && c && strchr("0123456789+-.eE", c);
        if (goes_on && !in_number)
            number_at = n;
        bool is_bare = !in_string && (!in_number || (n - number_at == 1 && spelt[number_at] == '-'));
        size_t word = python && is_bare && i < len ? find_word(bytes + i, len - i) : 0;
        if (in_number && !goes_on && !word)
            n = number_at + spell_number(spelt + number_at, n - number_at, python);
        in_number = goes_on;
        if (i == len)
            break;
        if (word) {
            memcpy(spelt + n, no_number, strlen(no_number));
            n += strlen(no_number);
            i += word - 1;
            continue;
        }
        spelt[n++] = c;
        if (c == '"')
            in_string = !in_string;
        else if (c == '\\' && in_string && i + 1 < len)
            spelt[n++] = bytes[++i];
    }
    *n_spelt = n;
    return spelt;
}
