/* http.c: the head of a request and its query.
 *
 * The head is read by a machine that is fed one byte at a time and keeps all it knows in the caller's struct.
 */
#include "server/net/http.h"

#include "server/net/http_bytes.h"

#include <string.h>
#include <strings.h>

const struct http_limits http_default_limits = {
    .target_bytes = 8192, .header_bytes = 32768, .n_headers = 100, .body_bytes = 2097152};

/* Where in the head the next byte belongs. */
enum head_state {
    HEAD_FIRST, /* before the method; one empty line is passed over, as old clients send one after a body */
    HEAD_FIRST_LF,
    HEAD_METHOD,
    HEAD_TARGET,
    HEAD_VERSION,
    HEAD_VERSION_LF,
    HEAD_LINE, /* the first byte of a header line, or the empty line */
    HEAD_NAME,
    HEAD_VALUE,
    HEAD_VALUE_LF,
    HEAD_END_LF,
    HEAD_DONE,
    HEAD_REFUSED,
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static bool span_is(const char *bytes, struct http_span span, const char *word)
{
    return span.len == strlen(word) && !strncasecmp(bytes + span.at, word, span.len);
}

static struct http_span trim(const char *bytes, uint32_t from, uint32_t to)
{
    while (from < to && is_blank(bytes[from]))
        from++;
    while (to > from && is_blank(bytes[to - 1]))
        to--;
    return (struct http_span){from, to - from};
}

/* Steps through a list "a, b;c" at the separator: *rest shrinks, *element is the next one without blanks. */
static bool next_element(const char *bytes, char separator, struct http_span *rest, struct http_span *element)
{
    if (!rest->len)
        return false;
    const char *start = bytes + rest->at;
    const char *end = memchr(start, separator, rest->len);
    uint32_t len = end ? (uint32_t)(end - start) : rest->len;
    *element = trim(bytes, rest->at, rest->at + len);
    uint32_t used = len + (end ? 1 : 0);
    rest->at += used;
    rest->len -= used;
    return true;
}

size_t http_max_head_bytes(const struct http_limits *limits)
{
    /* an empty line, the method, two blanks, the version, a line end */
    return 2 + HTTP_MAX_METHOD_BYTES + 2 + 8 + 2 + (size_t)limits->target_bytes + limits->header_bytes;
}

void http_head_start(struct http_head *head)
{
    memset(head, 0, sizeof *head);
    head->state = HEAD_FIRST;
}

static enum http_outcome refuse(struct http_head *head, int status, const char *message)
{
    head->state = HEAD_REFUSED;
    head->status = status;
    head->message = message;
    return HTTP_REFUSED;
}

const struct http_span *http_find_header(const struct http_head *head, const char *bytes, const char *name,
                                         unsigned *n_found)
{
    const struct http_span *first = NULL;
    unsigned n = 0;
    for (uint32_t i = 0; i < head->n_headers; i++) {
        if (!span_is(bytes, head->headers[i].name, name))
            continue;
        first = first ? first : &head->headers[i].value;
        n++;
    }
    if (n_found)
        *n_found = n;
    return first;
}

/* --- the request line --- */

/* Is this a host name, or an address in brackets, with an optional port? Whether it is ours is for the routes to
 * say. */
static bool is_authority(const char *bytes, struct http_span span)
{
    const char *at = bytes + span.at, *end = at + span.len;
    bool in_brackets = at < end && *at == '[';
    const char *others = in_brackets ? "-._~:%" : "-._~%";
    at += in_brackets;
    while (at < end && (http_is_letter(*at) || http_is_digit(*at) || (*at && strchr(others, *at))))
        at++;
    if (in_brackets && (at == end || *at++ != ']'))
        return false;
    if (at == end)
        return true;
    uint32_t port = 0;
    if (*at++ != ':')
        return false;
    while (at < end && http_is_digit(*at) && port <= 65535)
        port = port * 10 + (uint32_t)(*at++ - '0');
    return at == end && port <= 65535;
}

/* Takes the target apart: "/path?query", "*", or "http://host/path?query". */
static enum http_outcome end_target(struct http_head *head, const char *bytes, uint32_t end)
{
    uint32_t at = head->line_at;
    if (end - at > 7 && !strncasecmp(bytes + at, "http://", 7)) {
        at += 7;
        uint32_t host_at = at;
        while (at < end && bytes[at] != '/' && bytes[at] != '?')
            at++;
        head->host = (struct http_span){host_at, at - host_at};
        if (!head->host.len)
            return refuse(head, 400, "the request target has no host");
    }
    const char *question = memchr(bytes + at, '?', end - at);
    uint32_t path_end = question ? (uint32_t)(question - bytes) : end;
    head->path = (struct http_span){at, path_end - at};
    if (question) {
        head->has_query = true;
        head->query = (struct http_span){path_end + 1, end - path_end - 1};
    }
    bool is_star = end - at == 1 && bytes[at] == '*' && span_is(bytes, head->method, "OPTIONS");
    if (!is_star && (at == path_end || bytes[at] != '/'))
        return refuse(head, 400, "the request target must begin with '/'");
    return HTTP_MORE;
}

static enum http_outcome end_version(struct http_head *head, const char *bytes, uint32_t end)
{
    const char *version = bytes + head->line_at;
    if (end - head->line_at != 8 || memcmp(version, "HTTP/", 5) || !http_is_digit(version[5]) ||
        version[6] != '.' || !http_is_digit(version[7]))
        return refuse(head, 400, "the request line must end in an HTTP version");
    if (version[5] != '1' || version[7] > '1')
        return refuse(head, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    head->minor_version = (uint8_t)(version[7] - '0');
    return HTTP_MORE;
}

/* --- what the headers mean together --- */

static enum http_outcome read_length(struct http_head *head, const char *bytes, struct http_span value)
{
    if (!value.len)
        return refuse(head, 400, "Content-Length is empty");
    uint64_t length = 0;
    for (uint32_t i = 0; i < value.len; i++) {
        char byte = bytes[value.at + i];
        if (!http_is_digit(byte))
            return refuse(head, 400, "Content-Length is not a number");
        if (length > (UINT64_MAX - 9) / 10)
            return refuse(head, 400, "Content-Length is too large for any body");
        length = length * 10 + (uint64_t)(byte - '0');
    }
    head->framing = HTTP_BODY_LENGTH;
    head->content_length = length;
    return HTTP_MORE;
}

/* Where the body ends. Whatever could be read in two ways is how requests are smuggled past a proxy. */
static enum http_outcome find_framing(struct http_head *head, const char *bytes)
{
    unsigned n_lengths, n_codings;
    const struct http_span *length = http_find_header(head, bytes, "Content-Length", &n_lengths);
    const struct http_span *coding = http_find_header(head, bytes, "Transfer-Encoding", &n_codings);
    if (length && coding)
        return refuse(head, 400, "both Content-Length and Transfer-Encoding");
    if (n_lengths > 1)
        return refuse(head, 400, "more than one Content-Length");
    if (n_codings > 1)
        return refuse(head, 400, "more than one Transfer-Encoding");
    if (length)
        return read_length(head, bytes, *length);
    if (!coding)
        return HTTP_MORE;
    if (!head->minor_version)
        return refuse(head, 400, "Transfer-Encoding in a request of HTTP/1.0");
    if (!span_is(bytes, *coding, "chunked"))
        return refuse(head, 501, "the only known transfer coding is chunked");
    head->framing = HTTP_BODY_CHUNKED;
    return HTTP_MORE;
}

static enum http_outcome find_host(struct http_head *head, const char *bytes)
{
    unsigned n;
    const struct http_span *host = http_find_header(head, bytes, "Host", &n);
    if (n > 1)
        return refuse(head, 400, "more than one Host");
    if (!host && head->minor_version)
        return refuse(head, 400, "no Host");
    if (host && !is_authority(bytes, *host))
        return refuse(head, 400, "Host is not a host name");
    if (head->host.len && host &&
        (host->len != head->host.len || strncasecmp(bytes + host->at, bytes + head->host.at, host->len)))
        return refuse(head, 400, "Host and the request target name different hosts");
    if (head->host.len && !is_authority(bytes, head->host))
        return refuse(head, 400, "the request target has no valid host");
    if (host)
        head->host = *host;
    return HTTP_MORE;
}

static void find_keep_alive(struct http_head *head, const char *bytes)
{
    bool close = false, keep = false;
    for (uint32_t i = 0; i < head->n_headers; i++) {
        if (!span_is(bytes, head->headers[i].name, "Connection"))
            continue;
        struct http_span rest = head->headers[i].value, word;
        while (next_element(bytes, ',', &rest, &word)) {
            close |= span_is(bytes, word, "close");
            keep |= span_is(bytes, word, "keep-alive");
        }
    }
    head->keep_alive = !close && (head->minor_version || keep);
}

static enum http_outcome end_head(struct http_head *head, const char *bytes, uint32_t end)
{
    if (find_framing(head, bytes) == HTTP_REFUSED || find_host(head, bytes) == HTTP_REFUSED)
        return HTTP_REFUSED;
    find_keep_alive(head, bytes);
    const struct http_span *expect = http_find_header(head, bytes, "Expect", NULL);
    if (expect && head->minor_version) { /* in HTTP/1.0 it means nothing */
        if (!span_is(bytes, *expect, "100-continue"))
            return refuse(head, 417, "the only known expectation is 100-continue");
        head->expects_continue = head->framing != HTTP_BODY_ABSENT;
    }
    head->head_bytes = end;
    head->state = HEAD_DONE;
    return HTTP_DONE;
}

/* --- the machine --- */

static enum http_outcome end_header(struct http_head *head, const char *bytes, uint32_t end)
{
    struct http_header *header = &head->headers[head->n_headers++];
    header->name = (struct http_span){head->line_at, head->colon - head->line_at};
    header->value = trim(bytes, head->colon + 1, end);
    return HTTP_MORE;
}

static enum http_outcome enter(struct http_head *head, enum head_state state, uint32_t line_at)
{
    head->state = (uint8_t)state;
    head->line_at = line_at;
    return HTTP_MORE;
}

static enum http_outcome step_request_line(struct http_head *head, const struct http_limits *limits,
                                           const char *bytes, uint32_t at)
{
    char byte = bytes[at];
    switch ((enum head_state)head->state) {
    case HEAD_FIRST:
        if (byte == '\r' && !at)
            return enter(head, HEAD_FIRST_LF, at);
        enter(head, HEAD_METHOD, at);
        /* fallthrough */
    case HEAD_METHOD:
        if (byte == ' ' && at > head->line_at) {
            head->method = (struct http_span){head->line_at, at - head->line_at};
            return enter(head, HEAD_TARGET, at + 1);
        }
        if (!http_is_token_byte(byte) || at - head->line_at >= HTTP_MAX_METHOD_BYTES)
            return refuse(head, 400, "the request line must begin with a method");
        return HTTP_MORE;
    case HEAD_FIRST_LF:
        return byte == '\n' ? enter(head, HEAD_FIRST, at + 1) : refuse(head, 400, "a CR without LF");
    case HEAD_TARGET:
        if (byte == ' ')
            return end_target(head, bytes, at) ? HTTP_REFUSED : enter(head, HEAD_VERSION, at + 1);
        if (byte <= ' ' || byte >= 0x7f ||
            byte == '#') /* as char is signed or not, bytes from 0x80 are one of both */
            return refuse(head, 400, "the request target has a byte that belongs into no URI");
        if (at - head->line_at >= limits->target_bytes)
            return refuse(head, 414, "the request target is too long");
        return HTTP_MORE;
    case HEAD_VERSION:
        if (byte == '\r')
            return end_version(head, bytes, at) ? HTTP_REFUSED : enter(head, HEAD_VERSION_LF, at);
        if (at - head->line_at >= 8 || byte <= ' ' || byte >= 0x7f)
            return refuse(head, 400, "the request line must end in an HTTP version");
        return HTTP_MORE;
    default: /* HEAD_VERSION_LF */
        if (byte != '\n')
            return refuse(head, 400, "a CR without LF");
        head->headers_at = at + 1;
        return enter(head, HEAD_LINE, at + 1);
    }
}

static enum http_outcome step_headers(struct http_head *head, const struct http_limits *limits,
                                      const char *bytes, uint32_t at)
{
    char byte = bytes[at];
    if (at - head->headers_at >= limits->header_bytes)
        return refuse(head, 431, "the headers are too long");
    switch ((enum head_state)head->state) {
    case HEAD_LINE:
        if (byte == '\r')
            return enter(head, HEAD_END_LF, at);
        if (is_blank(byte))
            return refuse(head, 400, "a header continues on a second line");
        if (!http_is_token_byte(byte))
            return refuse(head, 400, "a header has no name");
        if (head->n_headers >= limits->n_headers || head->n_headers >= HTTP_MAX_HEADERS)
            return refuse(head, 431, "too many headers");
        return enter(head, HEAD_NAME, at);
    case HEAD_NAME:
        if (byte == ':') {
            head->colon = at;
            head->state = HEAD_VALUE;
        } else if (!http_is_token_byte(byte)) {
            return refuse(head, 400, "a header's name has a byte that belongs into no name");
        }
        return HTTP_MORE;
    case HEAD_VALUE:
        if (byte == '\r') {
            head->state = HEAD_VALUE_LF;
            return end_header(head, bytes, at);
        }
        return http_is_value_byte(byte) ? HTTP_MORE
                                        : refuse(head, 400, "a header's value has a control byte");
    case HEAD_VALUE_LF:
        return byte == '\n' ? enter(head, HEAD_LINE, at + 1) : refuse(head, 400, "a CR without LF");
    default: /* HEAD_END_LF */
        return byte == '\n' ? end_head(head, bytes, at + 1) : refuse(head, 400, "a CR without LF");
    }
}

enum http_outcome http_head_read(struct http_head *head, const struct http_limits *limits, const char *bytes,
                                 size_t len)
{
    if (head->state == HEAD_DONE)
        return HTTP_DONE;
    if (head->state == HEAD_REFUSED)
        return HTTP_REFUSED;
    while (head->scanned < len) {
        uint32_t at = head->scanned++;
        enum http_outcome outcome = head->state < HEAD_LINE ? step_request_line(head, limits, bytes, at)
                                                            : step_headers(head, limits, bytes, at);
        if (outcome != HTTP_MORE)
            return outcome;
    }
    return HTTP_MORE;
}

/* --- what routes ask about the body before it is read --- */

int http_check_json_body(const struct http_head *head, const char *bytes, const char **message)
{
    unsigned n;
    const struct http_span *coding = http_find_header(head, bytes, "Content-Encoding", &n);
    const struct http_span *type = NULL;
    struct http_span rest = {0}, word;
    if (head->framing == HTTP_BODY_ABSENT) {
        *message = "Content-Length is missing";
        return 411;
    }
    if (n > 1 || (coding && !span_is(bytes, *coding, "identity"))) {
        *message = "Content-Encoding is not supported: send the body as it is";
        return 415;
    }
    type = http_find_header(head, bytes, "Content-Type", &n);
    if (type)
        rest = *type;
    if (n != 1 || !next_element(bytes, ';', &rest, &word) || !span_is(bytes, word, "application/json")) {
        *message = "Content-Type must be application/json";
        return 415;
    }
    while (next_element(bytes, ';', &rest, &word))
        if (word.len > 8 && !strncasecmp(bytes + word.at, "charset=", 8) &&
            !span_is(bytes, word, "charset=utf-8") && !span_is(bytes, word, "charset=\"utf-8\"")) {
            *message = "the charset must be UTF-8";
            return 415;
        }
    return 0;
}

/* --- queries --- */

bool http_query_next(const char *query, size_t len, size_t *at, struct http_span *name,
                     struct http_span *value)
{
    while (*at < len && query[*at] == '&')
        ++*at;
    if (*at >= len)
        return false;
    const char *start = query + *at;
    const char *end = memchr(start, '&', len - *at);
    size_t part = end ? (size_t)(end - start) : len - *at;
    const char *equals = memchr(start, '=', part);
    size_t name_len = equals ? (size_t)(equals - start) : part;
    *name = (struct http_span){(uint32_t)*at, (uint32_t)name_len};
    *value = (struct http_span){(uint32_t)(*at + part), 0};
    if (equals)
        *value = (struct http_span){(uint32_t)(*at + name_len + 1), (uint32_t)(part - name_len - 1)};
    *at += part;
    return true;
}

long http_query_decode(const char *bytes, size_t len, char *out)
{
    long n = 0;
    for (size_t i = 0; i < len; i++) {
        char byte = bytes[i] == '+' ? ' ' : bytes[i];
        if (byte == '%') {
            int high = i + 1 < len ? http_hex_value(bytes[i + 1]) : -1;
            int low = i + 2 < len ? http_hex_value(bytes[i + 2]) : -1;
            if (high < 0 || low < 0)
                return -1;
            byte = (char)(high << 4 | low);
            i += 2;
        }
        out[n++] = byte;
    }
    return n;
}
