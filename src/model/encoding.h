/* encoding.h: the ways of turning ordinary text, in which no token stands for itself, into tokens.
 *
 * Each is a file with a struct encoding_kind, named as tokenizer.ggml.model names it; tokenizer.c has the list. An encoding
 * is what one of them read of a model file: immutable, any number of threads may use it, each with a session of its
 * own. */
#ifndef RUNNEL_MODEL_ENCODING_H
#define RUNNEL_MODEL_ENCODING_H

#include "base/text.h"
#include "model/gguf.h"
#include "model/token_list.h"
#include "model/vocabulary.h"

struct encoding { /* first member of each kind's own struct */
    const struct encoding_kind *kind;
    const char *pre; /* the name of the pre-tokenizer; "": there is none */
    bool adds_bos;   /* where the file does not say whether texts begin with the bos token */
    /* A text, and what follows a token that stands for itself, is encoded with a space before it. */
    bool adds_space_prefix;
};

struct encoding_session { /* first member likewise */
    const struct encoding *encoding;
};

struct encoding_kind {
    const char *name;  /* "gpt2": what tokenizer.ggml.model says */
    const char *title; /* "byte-level BPE" */
    enum token_spelling spelling;
    int32_t bos, eos; /* control tokens that begin and end texts where the file names none; 0: unknown */

    /* Reads the file's keys. Keeps vocabulary, which must outlive the encoding. */
    int (*create)(const struct gguf *gguf, const struct vocabulary *vocabulary, struct encoding **encoding,
                  runnel_error *error);
    void (*free)(struct encoding *encoding); /* NULL: nothing */

    int (*begin)(const struct encoding *encoding, struct encoding_session **session, runnel_error *error);
    /* Appends the tokens of text, is_spaced: with a space before it, in time n log n at most. Bytes that are no valid UTF-8
     * are encoded byte by byte; what the vocabulary has no token for is left out. */
    int (*encode)(struct encoding_session *session, const char *text, size_t len, bool is_spaced,
                  struct token_list *out, runnel_error *error);
    void (*end)(struct encoding_session *session); /* NULL: nothing */
};

/* Reads whether the file wants a space before texts; without the key adds_space_prefix stays as it is. */
int encoding_read_space_prefix(const struct gguf *gguf, struct encoding *encoding, runnel_error *error);
/* Makes copy, which may hold an earlier text, the text with spaces for U+2581, and perhaps one before it. */
int encoding_copy_text(struct text *copy, const char *text, size_t len, bool is_spaced, runnel_error *error);

extern const struct encoding_kind encoding_byte_level, encoding_sentencepiece, encoding_lines;

#endif
