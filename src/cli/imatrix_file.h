/* imatrix_file.h: importance files: for each matrix of a model, the sum of the squares of each of its inputs over a text. They
 * are GGUF files as llama.cpp writes and reads them (general.type "imatrix"): the keys imatrix.datasets, imatrix.chunk_count
 * and imatrix.chunk_size, Runnel's own runnel.imatrix.model and runnel.imatrix.text (see below), and for a matrix NAME the
 * tensors NAME.in_sum2 [n_parts][n_columns] and NAME.counts [n_parts][1].
 *
 * The importance of a column is its sum / the count of its part: the mean square of that input. A struct imatrix owns all
 * that it points to. Its functions are for one thread; reading it is for any number. */
#ifndef RUNNEL_CLI_IMATRIX_FILE_H
#define RUNNEL_CLI_IMATRIX_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "runnel.h"

enum { IMATRIX_MARK_BYTES = 17 }; /* 16 digits */

struct imatrix_entry {
    char *name;         /* of the model's matrix: "blk.0.attn_q.weight" */
    uint32_t n_columns; /* inputs of a part */
    uint32_t n_parts;   /* 1; of a matrix for each of several experts, their number */
    float *sums;        /* [n_parts][n_columns]: of the squares of the inputs */
    float *counts;      /* [n_parts]: how many inputs (tokens) that was */
};

struct imatrix {
    struct imatrix_entry *entries;
    size_t n_entries;
    char **datasets; /* the texts' names */
    size_t n_datasets;
    uint32_t n_chunks;     /* of the texts, over which the sums go */
    uint32_t chunk_tokens; /* tokens a chunk */
    /* What `runnel imatrix` knows its own model and text by, to go on where it was stopped; "": not known. */
    char model_mark[IMATRIX_MARK_BYTES], text_mark[IMATRIX_MARK_BYTES];
};

/* An empty one; NULL: no memory. */
struct imatrix *imatrix_create(void);
void imatrix_free(struct imatrix *imatrix); /* NULL is fine */

/* Adds an entry whose sums and counts are 0, for the caller to fill in; its address holds until the next is added. NULL: no
 * memory. */
struct imatrix_entry *imatrix_add(struct imatrix *imatrix, const char *name, uint32_t n_columns,
                                  uint32_t n_parts);
int imatrix_add_dataset(struct imatrix *imatrix, const char *name, runnel_error *error);

/* NULL: there is none of that name. */
struct imatrix_entry *imatrix_find(const struct imatrix *imatrix, const char *name);

/* The importance of each column: [n_parts][n_columns] at out. A part that was never used has importance 1 in all of them. */
void imatrix_importance(const struct imatrix_entry *entry, float *out);

/* Reads a file; refuses what is no importance file, what is cut, and sums that are not finite or negative, by name. */
int imatrix_file_read(const char *path, struct imatrix **imatrix, runnel_error *error);

/* Writes it, beside path first, so that path never holds half a file. */
int imatrix_file_write(const struct imatrix *imatrix, const char *path, runnel_error *error);

#endif
