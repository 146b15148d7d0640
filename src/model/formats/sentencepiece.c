/* sentencepiece.c: tokenizer.model to the lists of a GGUF file. See sentencepiece.h.
 *
 * A message is fields one after the other: a key, whose upper bits are the field's number and whose lower three say how its value
 * is written (0: a varint, 1: eight bytes, 2: a length and so many bytes, 5: four bytes), then the value. */
#include "model/formats/sentencepiece.h"

#include "model/vocabulary.h"

#include <math.h>
#include <string.h>

#define NAME "tokenizer.model"

enum { WIRE_VARINT = 0, WIRE_8 = 1, WIRE_BYTES = 2, WIRE_4 = 5 };

/* Numbers of fields. */
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_KIND = 3 };
enum { TRAINER_KIND = 3 };
enum { NORMALIZER_DUMMY_PREFIX = 3 };

enum { TRAINED_UNIGRAM = 1, TRAINED_BPE = 2 };

struct message {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    unsigned wire;
    uint64_t number_value; /* of a varint */
    struct message bytes;  /* of all others */
};

/* Protocol buffers --------------------------------------------------------------------------------------------- */

static bool read_varint(struct message *message, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && message->at < message->end; shift += 7) {
        uint8_t byte = *message->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool read_field(struct message *message, struct field *field)
{
    uint64_t key, n_bytes;
    if (!read_varint(message, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return false;
    *field = (struct field){.number = (uint32_t)(key >> 3), .wire = (unsigned)(key & 7)};
    switch (field->wire) {
    case WIRE_VARINT:
        return read_varint(message, &field->number_value);
    case WIRE_8:
        n_bytes = 8;
        break;
    case WIRE_4:
        n_bytes = 4;
        break;
    case WIRE_BYTES:
        if (read_varint(message, &n_bytes))
            break;
        return false;
    default:
        return false;
    }
    if (n_bytes > (uint64_t)(message->end - message->at))
        return false;
    field->bytes = (struct message){message->at, message->at + n_bytes};
    message->at += n_bytes;
    return true;
}

static int fail(const uint8_t *begin, const struct message *message, runnel_error *error)
{
    return error_set(error, RUNNEL_EFORMAT, NAME ": not a SentencePiece model: broken at byte %zu",
                     (size_t)(message->at - begin));
}

/* The model ---------------------------------------------------------------------------------------------------- */

struct reading {
    const uint8_t *begin;
    struct hf_vocabulary *vocabulary;
    uint64_t n_pieces;
    size_t n_left_out;
    bool says_trainer;
    uint64_t trained; /* how */
};

static int read_piece(struct reading *reading, struct message message, runnel_error *error)
{
    struct field field;
    struct message text = {NULL, NULL};
    float score = 0;
    uint64_t kind = TOKEN_NORMAL;
    while (message.at < message.end) {
        if (!read_field(&message, &field))
            return fail(reading->begin, &message, error);
        if (field.number == PIECE_TEXT && field.wire == WIRE_BYTES)
            text = field.bytes;
        else if (field.number == PIECE_SCORE && field.wire == WIRE_4)
            memcpy(&score, field.bytes.at, sizeof score);
        else if (field.number == PIECE_KIND && field.wire == WIRE_VARINT)
            kind = field.number_value;
    }
    size_t len = (size_t)(text.end - text.at);
    uint64_t id = reading->n_pieces++;
    if (len == 0 || len > TOKEN_MAX_BYTES || kind < TOKEN_NORMAL || kind > TOKEN_BYTE || !isfinite(score))
        return error_set(
            error, RUNNEL_EFORMAT,
            NAME ": piece %llu: expected a text of 1 to %d bytes, a finite score and a kind from 1 to 6",
            (unsigned long long)id, TOKEN_MAX_BYTES);
    if (id >= reading->vocabulary->n)
        reading->n_left_out++;
    else if (kind == TOKEN_USER_DEFINED) {
        hf_vocabulary_set_added(reading->vocabulary, (uint32_t)id, (const char *)text.at, len, false);
        reading->vocabulary->tokens[id].score = score;
    } else {
        hf_vocabulary_set(reading->vocabulary, (uint32_t)id, (const char *)text.at, len,
                          (enum token_kind)kind, score);
    }
    return RUNNEL_OK;
}

/* A field of an inner message that is a varint, if it is there. */
static int find_number(const struct reading *reading, struct message message, uint32_t number,
                       uint64_t *value, runnel_error *error)
{
    struct field field;
    while (message.at < message.end) {
        if (!read_field(&message, &field))
            return fail(reading->begin, &message, error);
        if (field.number == number && field.wire == WIRE_VARINT)
            *value = field.number_value;
    }
    return RUNNEL_OK;
}

static int read_model(struct reading *reading, struct message message, runnel_error *error)
{
    struct field field;
    uint64_t prefix = 1;
    int code = RUNNEL_OK;
    while (message.at < message.end && !code) {
        if (!read_field(&message, &field))
            return fail(reading->begin, &message, error);
        if (field.wire != WIRE_BYTES)
            continue;
        if (field.number == MODEL_PIECE)
            code = read_piece(reading, field.bytes, error);
        else if (field.number == MODEL_TRAINER) {
            reading->says_trainer = true;
            code = find_number(reading, field.bytes, TRAINER_KIND, &reading->trained, error);
        } else if (field.number == MODEL_NORMALIZER)
            code = find_number(reading, field.bytes, NORMALIZER_DUMMY_PREFIX, &prefix, error);
    }
    reading->vocabulary->space_prefix = prefix != 0;
    return code;
}

int sentencepiece_read(const void *bytes, size_t len, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                       runnel_error *error)
{
    struct reading reading = {.begin = bytes, .vocabulary = vocabulary, .trained = TRAINED_UNIGRAM};
    struct message message = {bytes, (const uint8_t *)bytes + len};
    int code = read_model(&reading, message, error);
    if (code)
        return code;
    if (!reading.n_pieces)
        return error_set(error, RUNNEL_EFORMAT, NAME ": not a SentencePiece model: no pieces in it");
    if (reading.says_trainer && reading.trained != TRAINED_BPE)
        return error_set(
            error, RUNNEL_EUNSUPPORTED, NAME ": a model of kind %llu%s is not supported, expected 2 (BPE)",
            (unsigned long long)reading.trained, reading.trained == TRAINED_UNIGRAM ? " (unigram)" : "");
    vocabulary->model = "llama";
    vocabulary->has_scores = vocabulary->says_space_prefix = true;
    *n_left_out += reading.n_left_out;
    return RUNNEL_OK;
}
