/* http.h: what arrives as an HTTP/1.1 request, read strictly.
 *
 * Pure functions over the caller's bytes: no sockets, no allocation, no clock. Each looks at a byte once, so
 * bytes may come in any pieces and the outcome is the same. What two readers could understand differently
 * (RFC 9112, section 11) is refused, never repaired. Any thread.
 *
 * The head is read in a buffer that begins with its first byte and holds all of it until the request is
 * answered; results are spans of that buffer, so it may move. The body is then taken apart by http_body_next.
 */
#ifndef RUNNEL_SERVER_NET_HTTP_H
#define RUNNEL_SERVER_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_MAX_HEADERS = 128, /* what a struct http_head has room for; http_limits.n_headers is at most this */
    HTTP_MAX_METHOD_BYTES = 16,  /* a longer method is no method */
    HTTP_MAX_CHUNK_EXTRA = 8192, /* bytes of chunk extensions and trailers in one body, all ignored */
};

struct http_limits {
    uint32_t target_bytes; /* method and version do not count: past it 414 */
    uint32_t header_bytes; /* all header lines with their line ends, and the empty line: past it 431 */
    uint32_t n_headers;    /* past it 431 */
    uint64_t body_bytes;   /* after chunks are taken apart: past it 413 */
};

/* 8 KiB, 32 KiB, 100 headers, 2 MiB. */
extern const struct http_limits http_default_limits;

/* The longest head that passes: no head needs a larger buffer. */
size_t http_max_head_bytes(const struct http_limits *limits);

struct http_span {
    uint32_t at, len; /* offset in the head's buffer */
};

struct http_header {
    struct http_span name, value; /* value: without the blanks around it */
};

enum http_framing {
    HTTP_BODY_ABSENT,  /* no length announced: there is no body */
    HTTP_BODY_LENGTH,  /* Content-Length, also 0 */
    HTTP_BODY_CHUNKED, /* Transfer-Encoding: chunked */
};

/* A head as far as it is read. Everything above `scanned` is valid once http_head_read returned HTTP_DONE. */
struct http_head {
    struct http_span method;
    struct http_span
        path; /* begins with '/', or is "*"; not decoded: routes are compared with it byte by byte */
    struct http_span query; /* after the '?', without it; has_query tells "/a?" from "/a" */
    struct http_span
        host; /* of the Host header, which an absolute target must repeat; empty in HTTP/1.0 without */
    struct http_header headers[HTTP_MAX_HEADERS];
    uint32_t n_headers;
    uint8_t minor_version; /* 0 or 1 */
    bool has_query;
    bool keep_alive;       /* may another request follow on this connection? */
    bool expects_continue; /* the client waits for "100 Continue" before it sends the body */
    enum http_framing framing;
    uint64_t content_length; /* if framing is HTTP_BODY_LENGTH */
    uint32_t head_bytes;     /* the body begins here */

    uint32_t scanned; /* bytes looked at */
    uint32_t line_at; /* where the current part (method, target, header line ...) begins */
    uint32_t colon;   /* of the current header line */
    uint32_t headers_at;
    uint8_t state;
    int status; /* of a refusal, kept: a refused head stays refused */
    const char *message;
};

enum http_outcome {
    HTTP_MORE,    /* good so far; call again with more bytes */
    HTTP_DONE,    /* all there */
    HTTP_REFUSED, /* answer with the status and the message, then close */
};

void http_head_start(struct http_head *head);

/* Reads on in bytes[0..len), which begin with the request's first byte; those of earlier calls are still
 * there. HTTP_REFUSED: head->status is 400, 414, 417, 431, 501 or 505 and head->message a fixed text. */
enum http_outcome http_head_read(struct http_head *head, const struct http_limits *limits, const char *bytes,
                                 size_t len);

/* The value of the header with this name (given in any case), NULL if it is absent. If it came more than
 * once, the first; *n_found (may be NULL) says how often it came. */
const struct http_span *http_find_header(const struct http_head *head, const char *bytes, const char *name,
                                         unsigned *n_found);

/* For routes that read JSON: 0, or the status of the refusal and its message. 411 no length announced, 415 a
 * content coding, another media type than application/json, another charset than UTF-8. */
int http_check_json_body(const struct http_head *head, const char *bytes, const char **message);

/* A body as far as it is read. */
struct http_body {
    enum http_framing framing;
    uint8_t state;
    uint8_t n_digits;    /* of a chunk's size */
    uint64_t left;       /* bytes until the body or the chunk ends */
    uint64_t total;      /* bytes of data announced so far */
    uint64_t max;        /* for all chunks */
    uint32_t extra;      /* bytes of extensions and trailers */
    uint32_t line_bytes; /* of the current trailer */
    bool has_colon;      /* the current trailer has a name */
    int status;
    const char *message;
};

/* From a head that is done. The outcome is HTTP_DONE if no byte follows, HTTP_REFUSED (413) if too many
 * would. */
enum http_outcome http_body_start(struct http_body *body, const struct http_head *head,
                                  const struct http_limits *limits);

/* Reads on in bytes[0..len), the bytes after those used so far. Stops at the body's end and after each piece
 * of data: *n_used bytes are used up, and data_len of them, at *data, belong to the body (often none).
 * HTTP_MORE with *n_used == len: more bytes are needed; with less: call again with the rest. HTTP_REFUSED:
 * body->status is 400 or 413. */
enum http_outcome http_body_next(struct http_body *body, const char *bytes, size_t len, size_t *n_used,
                                 const char **data, size_t *data_len);

/* Steps through "a=1&b=2": *at is 0 at first. Name and value are spans of query, still encoded; empty parts
 * are skipped, a name without '=' has an empty value. False at the end. */
bool http_query_next(const char *query, size_t len, size_t *at, struct http_span *name,
                     struct http_span *value);

/* Decodes '+' and %XX into out, which has room for len bytes and may be the input itself. Returns the length,
 * or -1 if a '%' is not followed by two hexadecimal digits. The result may hold any byte. */
long http_query_decode(const char *bytes, size_t len, char *out);

/* The words of a status line: "Not Found". "Unknown" for a status that the server never sends. */
const char *http_status_words(int status);

enum { HTTP_ERROR_BODY_BYTES = 512 };

/* Writes the error object of the API; a longer message is cut. It holds no quotes, backslashes or control bytes.
 * Returns the length. */
size_t http_error_body(char out[HTTP_ERROR_BODY_BYTES], int status, const char *message);

/* The error type that belongs to a status: "invalid_request_error" ... */
const char *http_error_type(int status);

#endif
