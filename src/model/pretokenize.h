/* pretokenize.h: cuts text into the words that byte-pair merges stay within.
 *
 * Each tokenizer family defines its cuts by a regular expression over Unicode. A struct pretokenizer owns the compiled
 * one; immutable, any number of threads may use it, each with a cutter of its own. */
#ifndef RUNNEL_MODEL_PRETOKENIZE_H
#define RUNNEL_MODEL_PRETOKENIZE_H

#include "model/gguf.h"

struct pretokenizer;

/* By the name that tokenizer.ggml.pre gives. An unknown one: RUNNEL_EUNSUPPORTED with the known ones. */
int pretokenizer_create(struct gguf_string name, struct pretokenizer **pretokenizer, runnel_error *error);
void pretokenizer_free(struct pretokenizer *pretokenizer);
const char *pretokenizer_name(const struct pretokenizer *pretokenizer);

/* What one thread needs while it cuts. */
struct cutter;
int cutter_create(const struct pretokenizer *pretokenizer, struct cutter **cutter, runnel_error *error);
void cutter_free(struct cutter *cutter);

/* The length of the word that begins at offset, which is less than len and at a character's start. text must be valid
 * UTF-8. Negative: an error. */
int64_t cutter_next(struct cutter *cutter, const char *text, size_t len, size_t offset, runnel_error *error);

/* How many bytes from text on are valid UTF-8: whole characters, no surrogates, nothing over-long. */
size_t utf8_valid_prefix(const char *text, size_t len);

#endif
