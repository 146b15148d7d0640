/* http_body.c: what a request's body consists of, with a length or in chunks.
 *
 * A machine that is fed one byte at a time where lines are read, and takes data in one piece. It keeps all it
 * knows in the caller's struct. */
#include "server/net/http.h"

#include "server/net/http_bytes.h"

/* Where in the body the next byte belongs. */
enum body_state {
    BODY_DATA, /* of a body with a length, or of a chunk */
    BODY_SIZE,
    BODY_EXTENSION,
    BODY_SIZE_LF,
    BODY_DATA_CR, /* after a chunk */
    BODY_DATA_LF,
    BODY_TRAILER, /* the first byte of a trailer, or the empty line */
    BODY_TRAILER_LINE,
    BODY_TRAILER_LF,
    BODY_END_LF,
    BODY_DONE,
    BODY_REFUSED,
};

static enum http_outcome refuse_body(struct http_body *body, int status, const char *message)
{
    body->state = BODY_REFUSED;
    body->status = status;
    body->message = message;
    return HTTP_REFUSED;
}

static enum http_outcome refuse_size(struct http_body *body)
{
    return refuse_body(body, 413, "the body is too large");
}

enum http_outcome http_body_start(struct http_body *body, const struct http_head *head,
                                  const struct http_limits *limits)
{
    *body = (struct http_body){.framing = head->framing, .state = BODY_DATA, .max = limits->body_bytes};
    if (head->framing == HTTP_BODY_CHUNKED) {
        body->state = BODY_SIZE;
        return HTTP_MORE;
    }
    uint64_t length = head->framing == HTTP_BODY_LENGTH ? head->content_length : 0;
    if (length > body->max)
        return refuse_size(body);
    body->left = body->total = length;
    if (length)
        return HTTP_MORE;
    body->state = BODY_DONE;
    return HTTP_DONE;
}

/* A chunk's size is known: refused before any of it is taken if all would be too much. */
static enum http_outcome end_size(struct http_body *body)
{
    if (body->left > body->max - body->total)
        return refuse_size(body);
    body->total += body->left;
    body->state = body->left ? BODY_DATA : BODY_TRAILER;
    body->n_digits = 0;
    return HTTP_MORE;
}

static enum http_outcome step_size(struct http_body *body, char byte)
{
    int value = http_hex_value(byte);
    if (value >= 0) {
        if (body->n_digits == 16)
            return refuse_body(body, 400, "a chunk's size has too many digits");
        body->left = body->left << 4 | (unsigned)value;
        body->n_digits++;
        return HTTP_MORE;
    }
    if (!body->n_digits || (byte != '\r' && byte != ';'))
        return refuse_body(body, 400, "a chunk's size is not a hexadecimal number");
    body->state = byte == ';' ? BODY_EXTENSION : BODY_SIZE_LF;
    return HTTP_MORE;
}

/* Trailers are checked like headers, so that nothing hides in them, and ignored. */
static enum http_outcome step_trailer(struct http_body *body, char byte)
{
    if (!body->line_bytes++ && !http_is_token_byte(byte))
        return refuse_body(body, 400, "a trailer (a header line after the last chunk) has no name");
    if (body->has_colon && byte == '\r') {
        body->state = BODY_TRAILER_LF;
        return HTTP_MORE;
    }
    if (!body->has_colon && byte == ':')
        body->has_colon = true;
    else if (body->has_colon ? !http_is_value_byte(byte) : !http_is_token_byte(byte))
        return refuse_body(body, 400,
                           "a trailer (a header line after the last chunk) has a byte that is not allowed");
    return HTTP_MORE;
}

static enum http_outcome step_line(struct http_body *body, char byte)
{
    switch ((enum body_state)body->state) {
    case BODY_SIZE:
        return step_size(body, byte);
    case BODY_EXTENSION:
        if (byte == '\r')
            body->state = BODY_SIZE_LF;
        else if (!http_is_value_byte(byte))
            return refuse_body(body, 400, "a chunk's extension has a control byte");
        break;
    case BODY_TRAILER:
        body->line_bytes = 0;
        body->has_colon = false;
        if (byte == '\r') {
            body->state = BODY_END_LF;
            return HTTP_MORE;
        }
        body->state = BODY_TRAILER_LINE;
        /* fallthrough */
    case BODY_TRAILER_LINE:
        if (step_trailer(body, byte) == HTTP_REFUSED)
            return HTTP_REFUSED;
        break;
    default: /* a line end */
        if (byte != (body->state == BODY_DATA_CR ? '\r' : '\n'))
            return refuse_body(body, 400, "a chunk does not end where its size says, or in no CR and LF");
        if (body->state == BODY_SIZE_LF)
            return end_size(body);
        body->state = body->state == BODY_DATA_CR      ? BODY_DATA_LF
                      : body->state == BODY_DATA_LF    ? BODY_SIZE
                      : body->state == BODY_TRAILER_LF ? BODY_TRAILER
                                                       : BODY_DONE;
        return body->state == BODY_DONE ? HTTP_DONE : HTTP_MORE;
    }
    if (++body->extra > HTTP_MAX_CHUNK_EXTRA)
        return refuse_body(body, 400, "too many chunk extensions or trailers");
    return HTTP_MORE;
}

enum http_outcome http_body_next(struct http_body *body, const char *bytes, size_t len, size_t *n_used,
                                 const char **data, size_t *data_len)
{
    *n_used = *data_len = 0;
    *data = bytes;
    if (body->state == BODY_DONE)
        return HTTP_DONE;
    if (body->state == BODY_REFUSED)
        return HTTP_REFUSED;
    while (*n_used < len && body->state != BODY_DATA) {
        enum http_outcome outcome = step_line(body, bytes[(*n_used)++]);
        if (outcome != HTTP_MORE)
            return outcome;
    }
    if (*n_used == len)
        return HTTP_MORE;
    size_t n = len - *n_used < body->left ? len - *n_used : (size_t)body->left;
    *data = bytes + *n_used;
    *data_len = n;
    *n_used += n;
    body->left -= n;
    if (body->left)
        return HTTP_MORE;
    body->state = body->framing == HTTP_BODY_CHUNKED ? BODY_DATA_CR : BODY_DONE;
    return body->state == BODY_DONE ? HTTP_DONE : HTTP_MORE;
}
