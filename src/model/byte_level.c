/* byte_level.c: byte-level BPE, the encoding that files call gpt2. See encoding.h.
 *
 * Text is cut into words (pretokenize.c), and each word into tokens by merges (bpe.c). A byte that is no part of valid UTF-8
 * is a word of its own, so it becomes that byte's token, and the text on either side is cut as if it ended there. Text
 * is not normalised. */
#include "base/utf8.h"
#include "model/bpe.h"
#include "model/encoding.h"
#include "model/pretokenize.h"

#include <stdlib.h>

struct byte_level {
    struct encoding encoding;
    struct bpe bpe;
    struct pretokenizer *pretokenizer;
    const struct vocabulary
        *whole_words; /* where words are looked up before they are merged; NULL: nowhere */
};

struct byte_level_session {
    struct encoding_session session;
    const struct bpe *bpe;
    const struct vocabulary *whole_words;
    struct cutter *cutter;
    struct bpe_scratch scratch;
};

static void byte_level_free(struct encoding *encoding)
{
    struct byte_level *byte_level = (struct byte_level *)encoding;
    if (!byte_level)
        return;
    bpe_free(&byte_level->bpe);
    pretokenizer_free(byte_level->pretokenizer);
    free(byte_level);
}

static int read_merges(const struct gguf *gguf, const struct vocabulary *vocabulary, struct bpe *bpe,
                       runnel_error *error)
{
    struct gguf_array merges;
    int code = gguf_get_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, &merges, error);
    return code ? code : bpe_build(bpe, vocabulary, SPELLED_BYTE_LEVEL, merges.values, merges.n, error);
}

static int byte_level_create(const struct gguf *gguf, const struct vocabulary *vocabulary,
                             struct encoding **out, runnel_error *error)
{
    struct gguf_string pre;
    int code = gguf_get_string(gguf, "tokenizer.ggml.pre", &pre, error);
    if (code)
        return code;
    struct byte_level *byte_level = calloc(1, sizeof *byte_level);
    if (!byte_level)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the tokenizer");
    if ((code = pretokenizer_create(pre, &byte_level->pretokenizer, error)) ||
        (code = read_merges(gguf, vocabulary, &byte_level->bpe, error))) {
        byte_level_free(&byte_level->encoding);
        return code;
    }
    const struct pretokenizer *pretokenizer = byte_level->pretokenizer;
    byte_level->encoding = (struct encoding){
        .kind = &encoding_byte_level,
        .pre = pretokenizer_name(pretokenizer),
        .adds_bos = pretokenizer_adds_bos(pretokenizer),
    };
    byte_level->whole_words = pretokenizer_keeps_words(pretokenizer) ? vocabulary : NULL;
    *out = &byte_level->encoding;
    return RUNNEL_OK;
}

static void byte_level_end(struct encoding_session *encoding_session)
{
    struct byte_level_session *session = (struct byte_level_session *)encoding_session;
    if (!session)
        return;
    cutter_free(session->cutter);
    bpe_scratch_free(&session->scratch);
    free(session);
}

static int byte_level_begin(const struct encoding *encoding, struct encoding_session **out,
                            runnel_error *error)
{
    const struct byte_level *byte_level = (const struct byte_level *)encoding;
    struct byte_level_session *session = calloc(1, sizeof *session);
    if (!session)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for cutting text into words");
    session->session.encoding = encoding;
    session->bpe = &byte_level->bpe;
    session->whole_words = byte_level->whole_words;
    int code = cutter_create(byte_level->pretokenizer, &session->cutter, error);
    if (code) {
        byte_level_end(&session->session);
        return code;
    }
    *out = &session->session;
    return RUNNEL_OK;
}

static inline int encode_word(struct byte_level_session *session, const char *word, size_t len,
                              struct token_list *out, runnel_error *error)
{
    int32_t whole =
        session->whole_words ? vocabulary_find(session->whole_words, word, len, KIND_BIT(TOKEN_NORMAL)) : -1;
    if (whole >= 0)
        return token_list_add(out, whole, error);
    return bpe_encode(session->bpe, word, len, &session->scratch, out, error);
}

static int encode_words(struct byte_level_session *session, const char *text, size_t len,
                        struct token_list *out, runnel_error *error)
{
    struct word word;
    int more;
    cutter_begin(session->cutter, text, len);
    while ((more = cutter_next(session->cutter, &word, error)) > 0) {
        int code = encode_word(session, word.text, word.len, out, error);
        if (code)
            return code;
    }
    return more;
}

static int byte_level_encode(struct encoding_session *encoding_session, const char *text, size_t len,
                             bool is_spaced, struct token_list *out, runnel_error *error)
{
    struct byte_level_session *session = (struct byte_level_session *)encoding_session;
    (void)is_spaced; /* never asked for */
    while (len) {
        size_t valid = utf8_find_wrong(text, len);
        int code = encode_words(session, text, valid, out, error);
        if (!code && valid < len)
            code = encode_word(session, text + valid++, 1, out, error);
        if (code)
            return code;
        text += valid;
        len -= valid;
    }
    return RUNNEL_OK;
}

const struct encoding_kind encoding_byte_level = {
    .name = "gpt2",
    .title = "byte-level BPE",
    .spelling = SPELLED_BYTE_LEVEL,
    .create = byte_level_create,
    .free = byte_level_free,
    .begin = byte_level_begin,
    .encode = byte_level_encode,
    .end = byte_level_end,
};
