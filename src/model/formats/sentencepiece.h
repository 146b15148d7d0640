/* sentencepiece.h: reads tokenizer.model, the file of SentencePiece: a message of protocol buffers with pieces, their scores and
 * kinds, and how the model was made. Nothing is kept; any thread. */
#ifndef RUNNEL_MODEL_FORMATS_SENTENCEPIECE_H
#define RUNNEL_MODEL_FORMATS_SENTENCEPIECE_H

#include "model/formats/hf_vocabulary.h"

/* Fills in tokens, kinds, scores, and whether a space is put before a text. n_left_out: pieces that have no row in the
 * embedding. Refused are broken messages, and models of another kind than BPE. */
int sentencepiece_read(const void *bytes, size_t len, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                       runnel_error *error);

#endif
