/* mixes.h: which type each tensor of a model gets in a file "Q4_K_M" and the like: as llama.cpp's files have them.
 *
 * Matrices get the mix's type; some that matter more get a better one, by rules of a table. A row that is no whole number of
 * a type's blocks gets one with smaller blocks. All else (norms, biases, frequencies) stays as it is. Constant; any thread. */
#ifndef RUNNEL_MODEL_MIXES_H
#define RUNNEL_MODEL_MIXES_H

#include "model/gguf.h"

struct mix {
    const char *name;
    enum tensor_type type; /* of most matrices */
    uint32_t file_type;    /* general.file_type: llama.cpp's number of the mix */
};

/* By its name, in capital or small letters. NULL: there is none. */
const struct mix *mix_find(const char *name);
/* All of them, in the order of their names in messages; NULL: there are no more. */
const struct mix *mix_at(size_t index);

/* What the rules look at of a model. */
struct mix_model {
    uint32_t n_layers;
    uint32_t n_query_heads_per_kv; /* that share keys and values */
    bool tied;                     /* the embedding is the output matrix, too */
    bool has_importance;           /* the user gave an importance file */
};

/* From the keys of a model's file; RUNNEL_EFORMAT where the number of layers is missing. */
int mix_model_read(const struct gguf *gguf, bool has_importance, struct mix_model *model,
                   runnel_error *error);

/* Whether a mix says what type this tensor gets: matrices, but no norms. All others are copied. */
bool mix_covers(const struct gguf_tensor *tensor);
enum tensor_type mix_type_of(const struct mix *mix, const struct mix_model *model,
                             const struct gguf_tensor *tensor);

#endif
