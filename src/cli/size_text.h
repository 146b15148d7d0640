/* size_text.h: a number of bytes for people, in units of a thousand. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_SIZE_TEXT_H
#define RUNNEL_CLI_SIZE_TEXT_H

#include <stdint.h>

enum { SIZE_TEXT_BYTES = 16 };

/* "12 B", "340 kB", "1.5 MB", "491 MB", "1.1 GB" where a size is looked at; with a digit more of the gigabytes, "1.12 GB",
 * where it is seen to grow. Returns text. */
const char *size_text(uint64_t n_bytes, char text[SIZE_TEXT_BYTES]);
const char *size_text_growing(uint64_t n_bytes, char text[SIZE_TEXT_BYTES]);

#endif
