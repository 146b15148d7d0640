/* vocabulary.c: the tokens' bytes and a hash table from bytes to ids. See vocabulary.h. */
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

uint64_t hash_mix(uint64_t hash, uint64_t word)
{
    /* The high and low halves of a 128-bit product, folded: every bit of the word reaches every bit of the
     * hash. */
    unsigned __int128 product =
        (unsigned __int128)(hash ^ word ^ 0x9e3779b97f4a7c15u) * ((hash >> 32) * 2 + 0xd6e8feb86659fd93u);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_seed(void)
{
    uint64_t seed = 0;
    /* Without the system's random numbers the table works as well, only predictably. */
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)(uintptr_t)&seed;
    return seed;
}

static uint64_t hash_bytes(uint64_t seed, const char *bytes, size_t len)
{
    uint64_t hash = hash_mix(seed, len);
    for (; len >= 8; bytes += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = hash_mix(hash, word);
    }
    uint64_t word = 0;
    if (len)
        memcpy(&word, bytes, len);
    return hash_mix(hash, word);
}

/* The byte that a character of the byte-level alphabet stands for; -1 if it is not of the alphabet. Printable
 * Latin-1 stands for itself; the 68 other bytes have the code points from 256 on, in ascending order. */
static int byte_of_code_point(unsigned code_point)
{
    if ((code_point >= 33 && code_point <= 126) ||
        (code_point >= 161 && code_point <= 255 && code_point != 173))
        return (int)code_point;
    if (code_point < 256 || code_point > 256 + 67)
        return -1;
    unsigned i = code_point - 256;
    return (int)(i <= 32 ? i : i < 67 ? 127 + (i - 33) : 173);
}

/* False: the text is not written in the alphabet, and out holds anything. */
static bool decode_letters(const char *text, size_t len, char *out, size_t *n_out)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        unsigned char first = (unsigned char)text[i];
        unsigned code_point = first;
        size_t width = 1;
        if (first >= 0xc2 && first <= 0xdf && i + 1 < len && ((unsigned char)text[i + 1] & 0xc0) == 0x80) {
            code_point = (first & 0x1fu) << 6 | ((unsigned char)text[i + 1] & 0x3fu);
            width = 2;
        }
        int byte = width == 1 && first >= 0x80 ? -1 : byte_of_code_point(code_point);
        if (byte < 0)
            return false;
        out[n++] = (char)byte;
        i += width;
    }
    *n_out = n;
    return true;
}

size_t byte_level_decode(const char *text, size_t len, char *out)
{
    size_t n;
    if (decode_letters(text, len, out, &n))
        return n;
    memcpy(out, text, len);
    return len;
}

size_t space_decode(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        if (text[i] == '\xe2' && len - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 2;
        } else
            out[n++] = text[i];
    return n;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* A token of kind byte is written <0xHH>. Returns its byte; -1 if it is not. */
static int parse_byte_token(struct gguf_string text)
{
    if (text.len != 6 || memcmp(text.bytes, "<0x", 3) != 0 || text.bytes[5] != '>')
        return -1;
    int high = hex_digit(text.bytes[3]), low = hex_digit(text.bytes[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static int check_token(struct gguf_string text, int32_t kind, size_t id, runnel_error *error)
{
    if (text.len == 0)
        return error_set(error, RUNNEL_EFORMAT, "tokenizer.ggml.tokens: token %zu is empty", id);
    if (text.len > TOKEN_MAX_BYTES)
        return error_set(error, RUNNEL_EFORMAT,
                         "tokenizer.ggml.tokens: token %zu has %zu bytes, at most %d expected", id, text.len,
                         TOKEN_MAX_BYTES);
    if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
        return error_set(error, RUNNEL_EFORMAT,
                         "tokenizer.ggml.token_type: token %zu has type %d, 1 to 6 expected", id, (int)kind);
    if (kind == TOKEN_BYTE && parse_byte_token(text) < 0)
        return error_set(error, RUNNEL_EFORMAT,
                         "tokenizer.ggml.tokens: byte token %zu is \"%.*s\", <0x00> to <0xFF> expected", id,
                         (int)(text.len < 64 ? text.len : 64), text.bytes);
    return RUNNEL_OK;
}

/* Writes the bytes of a token that was checked to out, which has room for its text. Returns how many. */
static size_t decode_token(enum token_spelling spelling, struct gguf_string text, int32_t kind, char *out,
                           bool *is_misspelled)
{
    size_t n;
    *is_misspelled = false;
    if (kind == TOKEN_BYTE) {
        out[0] = (char)parse_byte_token(text);
        return 1;
    }
    if (kind == TOKEN_NORMAL && spelling == SPELLED_BYTE_LEVEL) {
        if (decode_letters(text.bytes, text.len, out, &n))
            return n;
        *is_misspelled = true;
    }
    if (spelling == SPELLED_WITH_U2581 && (kind == TOKEN_NORMAL || kind == TOKEN_USER_DEFINED))
        return space_decode(text.bytes, text.len, out);
    memcpy(out, text.bytes, text.len);
    return text.len;
}

struct gguf_string vocabulary_piece(const struct vocabulary *vocabulary, int32_t id)
{
    uint32_t begin = vocabulary->offsets[id], end = vocabulary->offsets[id + 1];
    return (struct gguf_string){vocabulary->bytes + begin, end - begin};
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t len, unsigned kinds)
{
    size_t slot = hash_bytes(vocabulary->seed, bytes, len) & vocabulary->slot_mask;
    for (; vocabulary->slots[slot]; slot = (slot + 1) & vocabulary->slot_mask) {
        int32_t id = (int32_t)(vocabulary->slots[slot] - 1);
        struct gguf_string piece = vocabulary_piece(vocabulary, id);
        if (piece.len == len && memcmp(piece.bytes, bytes, len) == 0 &&
            (KIND_BIT(vocabulary->kinds[id]) & kinds))
            return id;
    }
    return -1;
}

/* Of tokens with the same bytes and kind only the first is entered: a list of equal tokens stays cheap. */
static void enter_token(struct vocabulary *vocabulary, int32_t id)
{
    struct gguf_string piece = vocabulary_piece(vocabulary, id);
    if (vocabulary_find(vocabulary, piece.bytes, piece.len, KIND_BIT(vocabulary->kinds[id])) >= 0)
        return;
    size_t slot = hash_bytes(vocabulary->seed, piece.bytes, piece.len) & vocabulary->slot_mask;
    while (vocabulary->slots[slot])
        slot = (slot + 1) & vocabulary->slot_mask;
    vocabulary->slots[slot] = (uint32_t)id + 1;
}

/* A byte-level file may have a character as such beside the token of its bytes: only the latter is what merges make. So those that are
 * not written in the alphabet are entered after all others. */
static void enter_misspelled(struct vocabulary *vocabulary, const struct gguf_string *texts)
{
    char bytes[TOKEN_MAX_BYTES];
    size_t n;
    for (size_t id = 0; id < vocabulary->n; id++)
        if (vocabulary->kinds[id] == TOKEN_NORMAL &&
            !decode_letters(texts[id].bytes, texts[id].len, bytes, &n))
            enter_token(vocabulary, (int32_t)id);
}

static int allocate(struct vocabulary *vocabulary, const struct gguf_string *texts, size_t n,
                    runnel_error *error)
{
    size_t n_bytes = 1; /* never zero: an over-long token is refused only when it is decoded */
    for (size_t id = 0; id < n; id++)
        n_bytes += texts[id].len <= TOKEN_MAX_BYTES ? texts[id].len : 0;
    if (n > INT32_MAX / 4 || n_bytes > UINT32_MAX)
        return error_set(error, RUNNEL_EFORMAT, "tokenizer.ggml.tokens: %zu tokens are more than fit", n);
    size_t n_slots = 16;
    while (n_slots < n * 2)
        n_slots *= 2;
    vocabulary->bytes = malloc(n_bytes);
    vocabulary->offsets = malloc((n + 1) * sizeof *vocabulary->offsets);
    vocabulary->kinds = malloc(n);
    vocabulary->slots = calloc(n_slots, sizeof *vocabulary->slots);
    if (!vocabulary->bytes || !vocabulary->offsets || !vocabulary->kinds || !vocabulary->slots)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for a vocabulary of %zu tokens", n);
    vocabulary->n = n;
    vocabulary->slot_mask = n_slots - 1;
    vocabulary->seed = hash_seed();
    return RUNNEL_OK;
}

int vocabulary_build(struct vocabulary *vocabulary, enum token_spelling spelling,
                     const struct gguf_string *texts, const int32_t *kinds, size_t n, runnel_error *error)
{
    *vocabulary = (struct vocabulary){0};
    int code = allocate(vocabulary, texts, n, error);
    if (code)
        goto fail;
    bool is_misspelled, any_misspelled = false;
    vocabulary->offsets[0] = 0;
    for (size_t id = 0; id < n; id++) {
        uint32_t begin = vocabulary->offsets[id];
        code = check_token(texts[id], kinds[id], id, error);
        if (code)
            goto fail;
        size_t len = decode_token(spelling, texts[id], kinds[id], vocabulary->bytes + begin, &is_misspelled);
        vocabulary->offsets[id + 1] = begin + (uint32_t)len;
        vocabulary->kinds[id] = (uint8_t)kinds[id];
        if (!is_misspelled)
            enter_token(vocabulary, (int32_t)id);
        any_misspelled |= is_misspelled;
    }
    if (any_misspelled)
        enter_misspelled(vocabulary, texts);
    return RUNNEL_OK;
fail:
    vocabulary_free(vocabulary);
    return code;
}

void vocabulary_free(struct vocabulary *vocabulary)
{
    free(vocabulary->bytes);
    free(vocabulary->offsets);
    free(vocabulary->kinds);
    free(vocabulary->slots);
    *vocabulary = (struct vocabulary){0};
}
