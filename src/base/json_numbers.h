/* json_numbers.h: JSON's numbers spelt as the parser, which holds 64 bits, takes them. Nothing is kept; any thread. */
#ifndef RUNNEL_BASE_JSON_NUMBERS_H
#define RUNNEL_BASE_JSON_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>

/* What stands in place of a number that 64 bits do not hold: past all bounds of this program's fields. */
#define JSON_NO_NUMBER 9e307

/* The text once more, with an exponent after integers past 64 bits: the parser takes them as reals then, and the others stay
 * integers. python: also JSON_NO_NUMBER, with its sign, for NaN, Infinity and reals past a double, which Python writes and
 * JSON has not. The caller frees it; NULL: no memory. */
char *json_numbers_spell(const char *bytes, size_t len, bool python, size_t *n_spelt);

#endif
