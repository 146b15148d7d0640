/* sentencepiece.c: SentencePiece's BPE, the encoding that files call llama. See encoding.h.
 *
 * There are no words and no list of merges: of all neighbours whose bytes together are a token, those whose token has the
 * highest score are merged first, of equal ones the leftmost. What is left and is no token becomes its bytes' tokens
 * (<0x00> to <0xFF>), or where a byte has none the unknown token.
 *
 * U+2581 is a space, in tokens (see vocabulary.h) as in text. A merge only ever makes a token of kind normal: none of the others
 * comes of ordinary text. User-defined ones were found before (special.c).
 *
 * Text is cut where no token goes on: between two characters whose last and first bytes stand side by side in no token.
 * No merge reaches over such a place, so the pieces are merged one by one, in little memory. */
#include "base/utf8.h"
#include "model/encoding.h"
#include "model/merge_queue.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX /* no symbol */

struct sentencepiece {
    struct encoding encoding;
    const struct vocabulary *vocabulary;
    uint32_t *priorities;     /* [vocabulary->n] lower for higher scores */
    size_t longest;           /* bytes of the longest normal token */
    int32_t byte_tokens[256]; /* -1: none */
    int32_t unknown;          /* -1: none */
    uint64_t joined[256][4];  /* bit b of row a: bytes a and b meet between two characters of some token */
};

/* A character, or several that were merged, at its place in the piece. */
struct symbol {
    int32_t token; /* -1: none has these bytes */
    int32_t
        merged; /* what it and the next one would become; -1: nothing, or it became part of the one before */
    uint32_t previous, next;
};

struct sentencepiece_session {
    struct encoding_session session;
    const struct sentencepiece *sentencepiece;
    struct text text; /* with spaces for U+2581 */
    struct symbol *symbols;
    uint64_t *entries; /* twice as many */
    size_t symbols_cap;
    size_t n_before; /* tokens that were there before this text */
};

/* Reading the file ---------------------------------------------------------------------------------------- */

/* Maps numbers to whole numbers of the opposite order. */
static uint32_t priority_of(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 becomes 0: they are equal */
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

static int read_scores(const struct gguf *gguf, struct sentencepiece *sentencepiece, runnel_error *error)
{
    struct gguf_array scores;
    size_t n = sentencepiece->vocabulary->n;
    int code = gguf_get_array(gguf, "tokenizer.ggml.scores", GGUF_F32, &scores, error);
    if (code)
        return code;
    sentencepiece->priorities = malloc(n * sizeof *sentencepiece->priorities);
    if (!sentencepiece->priorities)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the scores of %zu tokens", n);
    for (size_t id = 0; id < n; id++) {
        float score = ((const float *)scores.values)[id];
        if (isnan(score))
            return error_set(error, RUNNEL_EFORMAT,
                             "tokenizer.ggml.scores: token %zu has NaN, a number expected", id);
        sentencepiece->priorities[id] = priority_of(score);
    }
    return RUNNEL_OK;
}

static bool begins_or_ends_texts(const struct gguf *gguf, uint32_t id)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    uint32_t other;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!gguf_get_u32(gguf, keys[i], &other, NULL) && other == id)
            return true;
    return false;
}

/* The token that a character without any other becomes: the file's, or the first of its kind. Nobody's text becomes the token that
 * begins or ends texts: where a file gives it for unknown characters, they are left out. */
static int32_t find_unknown(const struct gguf *gguf, const struct vocabulary *vocabulary)
{
    uint32_t id;
    if (!gguf_get_u32(gguf, "tokenizer.ggml.unknown_token_id", &id, NULL))
        return id < vocabulary->n && !begins_or_ends_texts(gguf, id) ? (int32_t)id : -1;
    for (id = 0; id < vocabulary->n; id++)
        if (vocabulary->kinds[id] == TOKEN_UNKNOWN)
            return (int32_t)id;
    return -1;
}

static bool begins_character(char byte)
{
    return ((unsigned char)byte & 0xc0) != 0x80;
}

static void note_tokens(struct sentencepiece *sentencepiece)
{
    const struct vocabulary *vocabulary = sentencepiece->vocabulary;
    for (size_t id = 0; id < vocabulary->n; id++) {
        struct gguf_string piece = vocabulary_piece(vocabulary, (int32_t)id);
        if (vocabulary->kinds[id] != TOKEN_NORMAL)
            continue;
        sentencepiece->longest = piece.len > sentencepiece->longest ? piece.len : sentencepiece->longest;
        for (size_t i = 1; i < piece.len; i++) {
            unsigned char left = (unsigned char)piece.bytes[i - 1], right = (unsigned char)piece.bytes[i];
            if (begins_character(piece.bytes[i]))
                sentencepiece->joined[left][right / 64] |= UINT64_C(1) << right % 64;
        }
    }
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        sentencepiece->byte_tokens[byte] = vocabulary_find(vocabulary, &text, 1, KIND_BIT(TOKEN_BYTE));
    }
}

static void sentencepiece_free(struct encoding *encoding)
{
    struct sentencepiece *sentencepiece = (struct sentencepiece *)encoding;
    if (!sentencepiece)
        return;
    free(sentencepiece->priorities);
    free(sentencepiece);
}

static int sentencepiece_create(const struct gguf *gguf, const struct vocabulary *vocabulary,
                                struct encoding **out, runnel_error *error)
{
    int code;
    struct sentencepiece *sentencepiece = calloc(1, sizeof *sentencepiece);
    if (!sentencepiece)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the tokenizer");
    sentencepiece->encoding = (struct encoding){
        .kind = &encoding_sentencepiece, .pre = "", .adds_bos = true, .adds_space_prefix = true};
    sentencepiece->vocabulary = vocabulary;
    code = read_scores(gguf, sentencepiece, error);
    if (!code)
        code = encoding_read_space_prefix(gguf, &sentencepiece->encoding, error);
    if (code) {
        sentencepiece_free(&sentencepiece->encoding);
        return code;
    }
    sentencepiece->unknown = find_unknown(gguf, vocabulary);
    note_tokens(sentencepiece);
    *out = &sentencepiece->encoding;
    return RUNNEL_OK;
}

/* Merging ------------------------------------------------------------------------------------------------- */

static void sentencepiece_end(struct encoding_session *encoding_session)
{
    struct sentencepiece_session *session = (struct sentencepiece_session *)encoding_session;
    if (!session)
        return;
    text_free(&session->text);
    free(session->symbols);
    free(session->entries);
    free(session);
}

static int sentencepiece_begin(const struct encoding *encoding, struct encoding_session **out,
                               runnel_error *error)
{
    struct sentencepiece_session *session = calloc(1, sizeof *session);
    if (!session)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for encoding text");
    session->session.encoding = encoding;
    session->sentencepiece = (const struct sentencepiece *)encoding;
    *out = &session->session;
    return RUNNEL_OK;
}

/* Room for a piece of n bytes. Nothing is kept from piece to piece. */
static int reserve_symbols(struct sentencepiece_session *session, size_t n, runnel_error *error)
{
    if (n <= session->symbols_cap)
        return RUNNEL_OK;
    size_t cap = n > 2 * session->symbols_cap ? n : 2 * session->symbols_cap;
    free(session->symbols);
    free(session->entries);
    session->symbols_cap = 0;
    session->symbols = malloc(cap * sizeof *session->symbols);
    session->entries = malloc(2 * cap * sizeof *session->entries);
    if (!session->symbols || !session->entries)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for a piece of %zu bytes", n);
    session->symbols_cap = cap;
    return RUNNEL_OK;
}

static int32_t find_normal(const struct sentencepiece *sentencepiece, const char *text, size_t len)
{
    return len <= sentencepiece->longest
               ? vocabulary_find(sentencepiece->vocabulary, text, len, KIND_BIT(TOKEN_NORMAL))
               : -1;
}

/* The piece that is merged now. */
struct piece {
    const struct sentencepiece *sentencepiece;
    const char *text;
    uint32_t len;
    struct symbol *symbols; /* [len] at the place of its first byte */
    struct merge_queue queue;
};

/* Finds what the symbol at place and the next one would become. True: something, which entry stands for. */
static bool find_pair(struct piece *piece, uint32_t place, uint64_t *entry)
{
    struct symbol *symbol = &piece->symbols[place];
    symbol->merged = -1;
    if (symbol->next == NONE)
        return false;
    uint32_t end = piece->symbols[symbol->next].next;
    end = end == NONE ? piece->len : end;
    symbol->merged = find_normal(piece->sentencepiece, piece->text + place, end - place);
    if (symbol->merged < 0)
        return false;
    *entry = merge_entry(piece->sentencepiece->priorities[symbol->merged], place);
    return true;
}

/* One symbol for each character, and an entry for each pair that can be merged. */
static void find_symbols(struct piece *piece)
{
    uint32_t previous = NONE;
    uint64_t entry;
    for (uint32_t i = 0; i < piece->len;) {
        uint32_t end = i + (uint32_t)utf8_width(piece->text[i]);
        piece->symbols[i] = (struct symbol){
            .token = find_normal(piece->sentencepiece, piece->text + i, end - i),
            .merged = -1,
            .previous = previous,
            .next = end < piece->len ? end : NONE,
        };
        previous = i;
        i = end;
    }
    for (uint32_t i = 0; i != NONE; i = piece->symbols[i].next)
        if (find_pair(piece, i, &entry))
            piece->queue.entries[piece->queue.n++] = entry;
    merge_queue_arrange(&piece->queue);
}

/* Merges until no pair is a token. An entry may be older than the pair that is now at its place: it is passed over, unless that
 * pair has the same priority, and then it is its turn. The queue holds fewer entries than there are symbols at first and
 * grows by one with a merge. */
static void merge_all(struct piece *piece)
{
    while (piece->queue.n) {
        uint64_t entry = merge_queue_pop(&piece->queue);
        uint32_t place = (uint32_t)entry;
        struct symbol *left = &piece->symbols[place];
        if (left->merged < 0 || piece->sentencepiece->priorities[left->merged] != entry >> 32)
            continue;
        struct symbol *right = &piece->symbols[left->next];
        left->token = left->merged;
        left->next = right->next;
        right->merged = -1;
        if (left->next != NONE)
            piece->symbols[left->next].previous = place;
        if (left->previous != NONE && find_pair(piece, left->previous, &entry))
            merge_queue_push(&piece->queue, entry);
        if (find_pair(piece, place, &entry))
            merge_queue_push(&piece->queue, entry);
    }
}

/* One for a run of unknown characters. */
static int add_unknown(const struct sentencepiece_session *session, struct token_list *out,
                       runnel_error *error)
{
    int32_t unknown = session->sentencepiece->unknown;
    bool goes_on = out->n > session->n_before && out->ids[out->n - 1] == unknown;
    return unknown < 0 || goes_on ? RUNNEL_OK : token_list_add(out, unknown, error);
}

/* Bytes that no token has together. */
static int add_bytes(const struct sentencepiece_session *session, const char *text, size_t len,
                     struct token_list *out, runnel_error *error)
{
    const struct sentencepiece *sentencepiece = session->sentencepiece;
    bool is_known = true;
    for (size_t i = 0; i < len && is_known; i++)
        is_known = sentencepiece->byte_tokens[(unsigned char)text[i]] >= 0;
    if (!is_known)
        return add_unknown(session, out, error);
    int code = token_list_reserve(out, len, error);
    for (size_t i = 0; i < len && !code; i++)
        out->ids[out->n++] = sentencepiece->byte_tokens[(unsigned char)text[i]];
    return code;
}

static int add_symbols(const struct sentencepiece_session *session, const struct piece *piece,
                       struct token_list *out, runnel_error *error)
{
    int code = RUNNEL_OK;
    for (uint32_t i = 0; i != NONE && !code; i = piece->symbols[i].next) {
        const struct symbol *symbol = &piece->symbols[i];
        code = symbol->token >= 0
                   ? token_list_add(out, symbol->token, error)
                   : add_bytes(session, piece->text + i, utf8_width(piece->text[i]), out, error);
    }
    return code;
}

static int encode_piece(struct sentencepiece_session *session, const char *text, size_t len,
                        struct token_list *out, runnel_error *error)
{
    int code = reserve_symbols(session, len, error);
    if (code)
        return code;
    struct piece piece = {
        session->sentencepiece, text, (uint32_t)len, session->symbols, {session->entries, 0}};
    find_symbols(&piece);
    merge_all(&piece);
    return add_symbols(session, &piece, out, error);
}

/* The length of the piece that text, valid UTF-8 of at least a byte, begins with. */
static size_t piece_len(const struct sentencepiece *sentencepiece, const char *text, size_t len)
{
    size_t i = utf8_width(*text);
    while (i < len) {
        unsigned char left = (unsigned char)text[i - 1], right = (unsigned char)text[i];
        if (!(sentencepiece->joined[left][right / 64] >> right % 64 & 1))
            break;
        i += utf8_width(text[i]);
    }
    return i;
}

static int sentencepiece_encode(struct encoding_session *encoding_session, const char *text, size_t len,
                                bool is_spaced, struct token_list *out, runnel_error *error)
{
    struct sentencepiece_session *session = (struct sentencepiece_session *)encoding_session;
    if (!len)
        return RUNNEL_OK;
    int code = encoding_copy_text(&session->text, text, len, is_spaced, error);
    if (code)
        return code;
    session->n_before = out->n;
    size_t n;
    for (text = session->text.bytes, len = session->text.len; len; text += n, len -= n) {
        size_t valid = utf8_find_wrong(text, len);
        for (n = 0; n < valid;) {
            size_t piece = piece_len(session->sentencepiece, text + n, valid - n);
            if ((code = encode_piece(session, text + n, piece, out, error)))
                return code;
            n += piece;
        }
        if (valid < len && (code = add_bytes(session, text + n++, 1, out, error)))
            return code;
    }
    return RUNNEL_OK;
}

const struct encoding_kind encoding_sentencepiece = {
    .name = "llama",
    .title = "SentencePiece",
    .spelling = SPELLED_WITH_U2581,
    .bos = 1,
    .eos = 2,
    .create = sentencepiece_create,
    .free = sentencepiece_free,
    .begin = sentencepiece_begin,
    .encode = sentencepiece_encode,
    .end = sentencepiece_end,
};
