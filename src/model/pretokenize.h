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
/* A word that is a token as a whole is not merged. */
bool pretokenizer_keeps_words(const struct pretokenizer *pretokenizer);
/* Texts begin with the bos token where the file does not say whether they do. */
bool pretokenizer_adds_bos(const struct pretokenizer *pretokenizer);

/* What one thread needs while it cuts. */
struct cutter;
int cutter_create(const struct pretokenizer *pretokenizer, struct cutter **cutter, runnel_error *error);
void cutter_free(struct cutter *cutter);

struct word {
    const char *text; /* within the text that is cut */
    size_t len;       /* never 0 */
};

/* Begins to cut a text, which must be valid UTF-8 and stay until its last word. */
void cutter_begin(struct cutter *cutter, const char *text, size_t len);
/* The next word: they follow each other without a gap. 1: there is one; 0: the text has ended; negative: an error. */
int cutter_next(struct cutter *cutter, struct word *word, runnel_error *error);

#endif
