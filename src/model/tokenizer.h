/* tokenizer.h: text to token ids and back.
 *
 * A struct tokenizer owns its tables, copied from the file; immutable after creation, any number of threads may use it.
 * The ways of encoding are listed in tokenizer.c. Encoding a text of n bytes takes time n log n at most. */
#ifndef RUNNEL_MODEL_TOKENIZER_H
#define RUNNEL_MODEL_TOKENIZER_H

#include "base/text.h"
#include "model/gguf.h"
#include "model/token_list.h"

enum token_kind {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};

struct tokenizer;

int tokenizer_create(const struct gguf *gguf, struct tokenizer **tokenizer, runnel_error *error);
void tokenizer_free(struct tokenizer *tokenizer);

size_t tokenizer_n_tokens(const struct tokenizer *tokenizer);
const char *tokenizer_pre(const struct tokenizer *tokenizer); /* "qwen2"; "": has no pre-tokenizer */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);     /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);     /* -1: none */
/* True if the model wants bos before texts that have no template. Encoding does not add it. */
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);
/* True for every token that ends an answer: the file's eos and eot ids, and the end tokens known by name. */
bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id);
/* All of them, in no order, each once; they live as long as the tokenizer. */
const int32_t *tokenizer_ends(const struct tokenizer *tokenizer, size_t *n);
/* The tokens whose text is white space and nothing else, likewise. */
const int32_t *tokenizer_blanks(const struct tokenizer *tokenizer, size_t *n);
/* Those that are no text (tokenizer_has_text), likewise. */
const int32_t *tokenizer_silent(const struct tokenizer *tokenizer, size_t *n);
enum token_kind tokenizer_kind(const struct tokenizer *tokenizer, int32_t id);
/* The id of the token whose text is exactly this, of any kind; -1: none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t len);

/* Appends the tokens of text to out. A control token (or the unknown one) is recognised only where it lies whole in one of the
 * spans (in ascending order); user-defined tokens match everywhere; all else is ordinary text, split and merged across the
 * borders of spans, and never becomes a control token. Some models have a space set before ordinary text that begins the
 * text or follows a token recognised so; nothing else is added before or after. On failure out is as before. text must be valid UTF-8:
 * bytes that are not are encoded byte by byte. */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                     const struct text_span *spans, size_t n_spans, struct token_list *out,
                     runnel_error *error);

/* The same for a text that goes on from other text of this model: in front of it stands no space that is none of its own. */
int tokenizer_encode_on(const struct tokenizer *tokenizer, const char *text, size_t len,
                        const struct text_span *spans, size_t n_spans, struct token_list *out,
                        runnel_error *error);

/* False for tokens that are no text: control tokens and the unknown one. */
bool tokenizer_has_text(const struct tokenizer *tokenizer, int32_t id);
/* What a token adds to a text: its piece, without the space that encoding sets before a text. before is the token before it, -1:
 * none. Decoding is adding these. */
struct gguf_string tokenizer_text(const struct tokenizer *tokenizer, int32_t before, int32_t id);

/* The bytes of one token (control tokens: their names). Static in the tokenizer; may be incomplete UTF-8. Ids out of
 * range give an empty piece. */
struct gguf_string tokenizer_piece(const struct tokenizer *tokenizer, int32_t id);

#endif
