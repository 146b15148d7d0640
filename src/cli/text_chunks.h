/* text_chunks.h: a text as tokens, cut into chunks that are computed one after the other: for commands that measure a model on
 * a text. A struct text_chunks owns its tokens. One thread. */
#ifndef RUNNEL_CLI_TEXT_CHUNKS_H
#define RUNNEL_CLI_TEXT_CHUNKS_H

#include "runnel.h"

struct text_chunks {
    int32_t *ids; /* [n_ids]: the whole text */
    size_t n_ids;
    size_t n_used;         /* of them; the others are not computed */
    int32_t begin_token;   /* that every chunk begins with, as the model's file wants; -1: none */
    uint32_t chunk_tokens; /* of a chunk, begin_token included; the last one may be shorter */
    size_t n_chunks;
};

struct text_chunks_options {
    const char *name;      /* of the text, for messages */
    uint32_t chunk_tokens; /* 2 or more; less if the model's context is shorter */
    uint64_t n_tokens_max; /* of the text are used; 0: all */
    uint32_t n_tokens_min; /* fewer are an error */
    bool special;          /* control tokens in the text are read as such */
};

/* Free with text_chunks_free. */
int text_chunks_create(const runnel_model *model, const char *text, size_t len,
                       const struct text_chunks_options *options, struct text_chunks *chunks,
                       runnel_error *error);
void text_chunks_free(struct text_chunks *chunks);

/* The tokens of a chunk: fills ids, which has room for chunk_tokens, and returns how many they are. */
size_t text_chunks_get(const struct text_chunks *chunks, size_t chunk, int32_t *ids);
/* How many tokens all chunks together have. */
uint64_t text_chunks_total(const struct text_chunks *chunks);

#endif
