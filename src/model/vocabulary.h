/* vocabulary.h: the tokens of a model as bytes, found by id and by their bytes.
 *
 * A struct vocabulary owns its tables; it is immutable once built and any number of threads may read it. The bytes of
 * all tokens lie in one block, the hash table is sized before it is filled: a vocabulary of 151,936 tokens is a handful
 * of allocations. */
#ifndef RUNNEL_MODEL_VOCABULARY_H
#define RUNNEL_MODEL_VOCABULARY_H

#include "model/tokenizer.h"

enum { TOKEN_MAX_BYTES = 1024 }; /* of one token's text in the file; the longest known ones have 256 */

/* How a file writes the bytes of ordinary tokens. */
enum token_spelling {
    SPELLED_BYTE_LEVEL, /* every byte as one printable character */
    SPELLED_WITH_U2581, /* as they are, but for spaces, which are U+2581; user-defined tokens, too */
};

#define KIND_BIT(kind) (1u << (kind))
#define KIND_ANY       0xffu

struct vocabulary {
    size_t n;
    char *bytes;       /* of all pieces, one after the other */
    uint32_t *offsets; /* [n + 1] into bytes */
    uint8_t *kinds;    /* [n] enum token_kind */
    uint32_t *slots;   /* hash table of ids + 1; 0 is empty */
    size_t slot_mask;
    uint64_t seed; /* random: no file can be made so that its tokens collide */
};

/* Fills *vocabulary from the file's lists, which have n entries each. Free with vocabulary_free, also after a failure
 * (then it is empty). */
int vocabulary_build(struct vocabulary *vocabulary, enum token_spelling spelling,
                     const struct gguf_string *texts, const int32_t *kinds, size_t n, runnel_error *error);
void vocabulary_free(struct vocabulary *vocabulary);

/* The bytes of token id, which must be in range. */
struct gguf_string vocabulary_piece(const struct vocabulary *vocabulary, int32_t id);

/* The lowest id whose bytes are these and whose kind is in the set kinds (of KIND_BIT), of tokens that are spelled as they should be
 * if there is one; -1: none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t len, unsigned kinds);

/* Byte-level BPE writes every byte as one printable character. Turns such a text back into bytes and returns how many
 * there are; out has room for len. A text that is not written that way is copied as it is. */
size_t byte_level_decode(const char *text, size_t len, char *out);
/* Writes text to out, which has room for len, with a space for each U+2581, and returns how many bytes there are. */
size_t space_decode(const char *text, size_t len, char *out);

/* Mixes 64-bit words into a hash that a file's author cannot predict without the seed. */
uint64_t hash_mix(uint64_t hash, uint64_t word);
/* A random seed, the same for nobody. */
uint64_t hash_seed(void);

#endif
