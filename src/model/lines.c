/* lines.c: BPE over characters, line by line: the encoding that files call gemma4. See encoding.h.
 *
 * A line is merged as a whole (bpe.c); newlines between lines are a token if the vocabulary has one for so many, or merged
 * like a line. U+2581 is a space, in tokens as in text. A character that is no token becomes its bytes' tokens. */
#include "base/utf8.h"
#include "model/bpe.h"
#include "model/encoding.h"

#include <stdlib.h>
#include <string.h>

struct lines {
    struct encoding encoding;
    const struct vocabulary *vocabulary;
    struct bpe bpe;
};

struct lines_session {
    struct encoding_session session;
    const struct lines *lines;
    struct text text; /* with spaces for U+2581 */
    struct bpe_scratch scratch;
};

static void lines_free(struct encoding *encoding)
{
    struct lines *lines = (struct lines *)encoding;
    if (!lines)
        return;
    bpe_free(&lines->bpe);
    free(lines);
}

static int lines_create(const struct gguf *gguf, const struct vocabulary *vocabulary, struct encoding **out,
                        runnel_error *error)
{
    struct gguf_array merges;
    int code = gguf_get_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, &merges, error);
    if (code)
        return code;
    struct lines *lines = calloc(1, sizeof *lines);
    if (!lines)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the tokenizer");
    lines->encoding = (struct encoding){.kind = &encoding_lines, .pre = "", .adds_bos = true};
    lines->vocabulary = vocabulary;
    code = bpe_build(&lines->bpe, vocabulary, SPELLED_WITH_U2581, merges.values, merges.n, error);
    if (!code)
        code = encoding_read_space_prefix(gguf, &lines->encoding, error);
    if (code) {
        lines_free(&lines->encoding);
        return code;
    }
    *out = &lines->encoding;
    return RUNNEL_OK;
}

static int lines_begin(const struct encoding *encoding, struct encoding_session **out, runnel_error *error)
{
    struct lines_session *session = calloc(1, sizeof *session);
    if (!session)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for encoding text");
    session->session.encoding = encoding;
    session->lines = (const struct lines *)encoding;
    *out = &session->session;
    return RUNNEL_OK;
}

static void lines_end(struct encoding_session *encoding_session)
{
    struct lines_session *session = (struct lines_session *)encoding_session;
    if (!session)
        return;
    text_free(&session->text);
    bpe_scratch_free(&session->scratch);
    free(session);
}

/* A line without its newline, or newlines alone. */
static int encode_line(struct lines_session *session, const char *line, size_t len, struct token_list *out,
                       runnel_error *error)
{
    int32_t whole = *line == '\n' ? vocabulary_find(session->lines->vocabulary, line, len,
                                                    KIND_BIT(TOKEN_NORMAL) | KIND_BIT(TOKEN_USER_DEFINED))
                                  : -1;
    return whole >= 0 ? token_list_add(out, whole, error)
                      : bpe_encode(&session->lines->bpe, line, len, &session->scratch, out, error);
}

/* Valid UTF-8. */
static int encode_text(struct lines_session *session, const char *text, size_t len, struct token_list *out,
                       runnel_error *error)
{
    int code = RUNNEL_OK;
    for (size_t n; len && !code; text += n, len -= n) {
        for (n = 1; n < len && (text[n] == '\n') == (*text == '\n'); n++)
            ;
        code = encode_line(session, text, n, out, error);
    }
    return code;
}

static int lines_encode(struct encoding_session *encoding_session, const char *text, size_t len,
                        bool is_spaced, struct token_list *out, runnel_error *error)
{
    struct lines_session *session = (struct lines_session *)encoding_session;
    if (!len)
        return RUNNEL_OK;
    int code = encoding_copy_text(&session->text, text, len, is_spaced, error);
    if (code)
        return code;
    for (text = session->text.bytes, len = session->text.len; len && !code;) {
        size_t valid = utf8_find_wrong(text, len);
        int32_t byte = valid < len ? session->lines->bpe.byte_tokens[(unsigned char)text[valid]] : -1;
        code = encode_text(session, text, valid, out, error);
        if (!code && byte >= 0)
            code = token_list_add(out, byte, error);
        valid += valid < len;
        text += valid;
        len -= valid;
    }
    return code;
}

const struct encoding_kind encoding_lines = {
    .name = "gemma4",
    .title = "BPE over lines",
    .spelling = SPELLED_WITH_U2581,
    .create = lines_create,
    .free = lines_free,
    .begin = lines_begin,
    .encode = lines_encode,
    .end = lines_end,
};
