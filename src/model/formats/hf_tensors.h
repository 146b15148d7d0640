/* hf_tensors.h: which tensors a model has, what the checkpoint of a Hugging Face folder calls them, and how their values come
 * out of it for a GGUF file.
 *
 * A struct hf_tensors owns the list; it refers to the checkpoint, which must outlive it. One thread. */
#ifndef RUNNEL_MODEL_FORMATS_HF_TENSORS_H
#define RUNNEL_MODEL_FORMATS_HF_TENSORS_H

#include "model/formats/folder_file.h"
#include "model/formats/int4.h"

struct hf_tensor {
    char name[64]; /* in the GGUF file */
    bool is_matrix;
    uint32_t n_rows, n_columns;
    enum tensor_type type; /* in the GGUF file */

    /* Its values: stored as floats, or quantised, or computed. */
    const struct checkpoint_tensor *stored;
    enum tensor_type stored_type;
    struct int4_tensor int4; /* if qweight is there */
    float *computed;         /* [n_columns] */

    /* What happens to them. */
    uint32_t n_heads;  /* rows are put in the order of interleaved rotation within each head; 0: they stay */
    float add, factor; /* (value + add) factor */
};

struct hf_tensors {
    struct hf_tensor *list;
    size_t n;
};

/* Lists the tensors of the architecture and finds them. type: of the matrices that are stored as floats; NULL: as most of
 * them are. Refused are tensors that are missing, of another shape or dtype, and those that no list has. remark is told of
 * what is left out, and of a type that a tensor cannot have. */
int hf_tensors_find(struct checkpoint *checkpoint, const struct hf_config *config,
                    const enum tensor_type *type, hf_remark *remark, void *user, struct hf_tensors *tensors,
                    runnel_error *error);
void hf_tensors_free(struct hf_tensors *tensors);

/* Values on their way: rows in order, encoded, from one tensor at a time. */
struct hf_reader {
    const struct hf_tensor *tensor;
    struct int4_values int4;
    size_t row_bytes;
    unsigned char *stored; /* of one row */
    float *values;         /* of one row */
};
int hf_reader_open(struct hf_reader *reader, const struct hf_tensor *tensor, runnel_error *error);
void hf_reader_close(struct hf_reader *reader);

/* Writes the row_bytes of a row of the GGUF file's tensor. */
int hf_reader_row(struct hf_reader *reader, uint32_t row, void *out, runnel_error *error);

#endif
