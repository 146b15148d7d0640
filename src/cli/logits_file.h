/* logits_file.h: files of logits: what is written while they are computed, and references, which `eval` compares a model with.
 *
 * A reference is, all little-endian: a struct reference_header; for each sequence of tokens a struct reference_span; the ids of
 * all sequences, i32; then a row for each scored position, in order: a struct reference_row and n_vocab codes, u16. The
 * logarithm of a token's probability is `largest` - code * step: 65,536 steps over what lies at most 64 below the likeliest token. So
 * it is wrong by at most 0.0005, and a KL divergence by less than 1e-7; smaller ones than that say nothing.
 *
 * One thread at a time. */
#ifndef RUNNEL_CLI_LOGITS_FILE_H
#define RUNNEL_CLI_LOGITS_FILE_H

#include "base/new_file.h"

#include <stdio.h>

/* Writing ------------------------------------------------------------------------------------------------- */

/* A file that gets its name when it is whole, or a device or a pipe. */
struct logits_output {
    FILE *file;
    const char *path; /* the caller's */
    bool is_file;
    struct new_file new_file; /* if it is one */
    int write_error;          /* errno of the write that failed; 0: none did */
};

int logits_output_open(struct logits_output *output, const char *path, runnel_error *error);
/* False: it failed, which logits_output_close will tell. */
bool logits_output_write(struct logits_output *output, const void *bytes, size_t n);
/* failure: of whoever computed what was to be written, or 0. Returns it, or that of writing. */
int logits_output_close(struct logits_output *output, int failure, runnel_error *error);

/* References ---------------------------------------------------------------------------------------------- */

enum { REFERENCE_VERSION = 1 };

struct reference_header {
    char magic[8];    /* "RNLREF\r\n" */
    uint32_t version; /* REFERENCE_VERSION */
    uint32_t
        is_answers; /* 1: the sequences are prompts and the model's own answers to them; 0: chunks of a text */
    uint32_t n_vocab;
    uint32_t n_sequences;
    uint64_t n_ids, n_rows;
    uint64_t text_hash; /* FNV-1a of the file of the text, or of the prompts */
    uint64_t word_hash; /* likewise of what the ids of all sequences say */
};

/* Of a sequence with n_ids tokens: scored are the logits after tokens `first` to n_ids - 2, each against the token behind it. */
struct reference_span {
    uint32_t n_ids, first;
};

struct reference_row {
    float largest, step;
    uint32_t top; /* the likeliest token */
    uint32_t unused;
};

/* A sequence that is to be scored. */
struct scored_sequence {
    int32_t *ids; /* [n_ids] */
    uint32_t n_ids, first;
};

/* Those of a text, an answer, or a reference. Owns all of them. */
struct scored_sequences {
    struct scored_sequence *sequences;
    size_t n;
};

void scored_sequences_free(struct scored_sequences *sequences);
/* Adds a copy. */
int scored_sequences_add(struct scored_sequences *sequences, const int32_t *ids, size_t n_ids, size_t first,
                         runnel_error *error);
/* Scored positions of all. */
uint64_t scored_sequences_rows(const struct scored_sequences *sequences);

/* Bytes of a reference to these. */
uint64_t reference_bytes(const struct scored_sequences *sequences, uint32_t n_vocab);

/* Refuses a path where something else than a reference is, which would be lost. */
int reference_check_place(const char *path, runnel_error *error);

/* Writes all that comes before the rows. Of header is_answers, n_vocab and the hashes are the caller's. */
bool reference_write_begin(struct logits_output *output, struct reference_header header,
                           const struct scored_sequences *sequences);
/* A row; codes: [n_vocab] scratch. log_sum: the logarithm of the sum of exp(logits), which must be finite. */
bool reference_write_row(struct logits_output *output, const float *logits, uint32_t n_vocab, double log_sum,
                         uint16_t *codes);

struct reference {
    FILE *file;
    const char *path; /* the caller's */
    struct reference_header header;
    struct scored_sequences sequences;
    uint16_t *codes; /* [n_vocab] of the row that was read last */
    struct reference_row row;
};

/* Opens and checks all that comes before the rows, and that these are all there. Close with reference_close. */
int reference_open(struct reference *reference, const char *path, runnel_error *error);
void reference_close(struct reference *reference);
/* The next row. */
int reference_read_row(struct reference *reference, runnel_error *error);

#endif
