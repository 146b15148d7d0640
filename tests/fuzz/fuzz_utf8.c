/* fuzz_utf8.c: whatever the bytes, what comes out is valid UTF-8, and what is valid comes out unchanged. */
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct utf8_assembler assembler = {0};
    char *text = malloc(size * UTF8_PUSH_MAX + UTF8_PUSH_MAX), piece[UTF8_PUSH_MAX];
    size_t len = 0;
    for (size_t i = 0; i < size; i++) {
        size_t n = utf8_push(&assembler, data[i], piece);
        if (n > UTF8_PUSH_MAX || !utf8_valid(piece, n))
            abort();
        memcpy(text + len, piece, n);
        len += n;
    }
    len += utf8_finish(&assembler, text + len);
    if (utf8_finish(&assembler, text + len) != 0 || !utf8_valid(text, len))
        abort();
    bool same = len == size && (size == 0 || memcmp(text, data, size) == 0);
    if (same != utf8_valid((const char *)data, size))
        abort();
    free(text);
    return 0;
}
