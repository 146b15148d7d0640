/* json_write.h: JSON written piece by piece into a struct text. Owns nothing; any thread. */
#ifndef RUNNEL_SERVER_CORE_JSON_WRITE_H
#define RUNNEL_SERVER_CORE_JSON_WRITE_H

#include "base/text.h"

/* What printf would give; at most JSON_FORMAT_MAX bytes of it, so not for texts of any length. */
enum { JSON_FORMAT_MAX = 511 };
void json_add_format(struct text *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A string with its quotes. Bytes that are no UTF-8 become U+FFFD. */
void json_add_string(struct text *out, const char *bytes, size_t len);

/* A number; one that JSON cannot write (infinite, none) becomes -9999, as the OpenAI API has it for logarithms. */
void json_add_number(struct text *out, double number);

#endif
