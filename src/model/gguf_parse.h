/* gguf_parse.h: what gguf.c, gguf_parse.c and gguf_index.c share: the parsed file. Nobody else includes it.
 */
#ifndef RUNNEL_MODEL_GGUF_PARSE_H
#define RUNNEL_MODEL_GGUF_PARSE_H

#include "model/gguf_raw.h"

enum { GGUF_NAME_SHOWN = 120 }; /* bytes of a name in a message */

struct gguf_key {
    const char *name; /* zero-terminated */
    enum gguf_type type;
    uint64_t value_offset; /* in the file, after the value's type */
    uint64_t value_bytes;
    union {
        uint64_t integer; /* unsigned types and bool */
        int64_t signed_integer;
        double real; /* f32 is exact in it */
        struct gguf_string string;
        struct gguf_array array;
    } value;
};

struct gguf_chunk; /* of memory for names and values */

struct gguf_part { /* a file */
    char *path;
    int fd;         /* -1: not open */
    uint64_t start; /* of its bytes, where those of all parts stand one after the other */
    uint64_t n_bytes;
};

struct gguf {
    struct gguf_part *parts; /* one, but for a model in several files */
    size_t n_parts;
    uint64_t file_bytes; /* of all parts */
    uint32_t version;
    uint32_t alignment;
    struct gguf_key *keys; /* in the file's order */
    size_t n_keys;
    uint32_t *keys_by_name; /* indices, ascending by name */
    struct gguf_tensor *tensors;
    size_t n_tensors;
    uint32_t *tensors_by_name;
    struct gguf_chunk *chunks;
    uint64_t metadata_bytes; /* of all parts */
};

enum { GGUF_METADATA_MAX_BYTES = 256 << 20 }; /* of all parts; the largest vocabularies take 10 MiB */

/* Fills version .. metadata_bytes from the one file, which must be open, with the rest zeroed; with keys_only no tensors.
 * max_bytes: what its metadata may take. On failure what was allocated so far stays in gguf, to be freed by
 * gguf_close. */
int gguf_parse(struct gguf *gguf, bool keys_only, uint64_t max_bytes, runnel_error *error);

/* Frees the chunks. */
void gguf_chunks_free(struct gguf_chunk *chunk);

/* Gives the chunks of a list to another. */
void gguf_chunks_move(struct gguf_chunk **from, struct gguf_chunk **to);

/* Opens one file, whatever it says of others, and names it in errors. */
int gguf_open_file(const char *path, bool keys_only, uint64_t max_bytes, struct gguf **gguf,
                   runnel_error *error);

/* Puts the path of a file before the message, or the end of a long one. */
void gguf_name_file(const char *path, runnel_error *error);

/* Opens the other files of a model whose first one is open, if it is in several, and makes them parts of it: gguf_parts.c. */
int gguf_open_others(struct gguf *gguf, runnel_error *error);

/* "u32": for messages. */
const char *gguf_type_name(enum gguf_type type);

/* Sort for finding by name; refuse what is there twice. After all keys (tensors) are read. */
int gguf_index_keys(struct gguf *gguf, runnel_error *error);
int gguf_index_tensors(struct gguf *gguf, runnel_error *error);
/* Refuses tensors that share bytes. After offsets and sizes are known not to overflow. */
int gguf_check_overlaps(struct gguf *gguf, runnel_error *error);

/* The part that the byte at this offset lies in. */
const struct gguf_part *gguf_find_part(const struct gguf *gguf, uint64_t offset);

/* The key of that name; NULL: there is none. */
const struct gguf_key *gguf_find_key(const struct gguf *gguf, const char *name);

#endif
