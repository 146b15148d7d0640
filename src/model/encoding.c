/* encoding.c: what several ways of encoding share. See encoding.h. */
#include "model/encoding.h"

int encoding_read_space_prefix(const struct gguf *gguf, struct encoding *encoding, runnel_error *error)
{
    static const char key[] = "tokenizer.ggml.add_space_prefix";
    return gguf_has_key(gguf, key) ? gguf_get_bool(gguf, key, &encoding->adds_space_prefix, error)
                                   : RUNNEL_OK;
}

int encoding_copy_text(struct text *copy, const char *text, size_t len, bool is_spaced, runnel_error *error)
{
    copy->len = 0;
    text_reserve(copy, len + 1);
    if (copy->failed)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for a text of %zu bytes", len);
    if (is_spaced)
        copy->bytes[copy->len++] = ' ';
    copy->len += space_decode(text, len, copy->bytes + copy->len);
    return RUNNEL_OK;
}
