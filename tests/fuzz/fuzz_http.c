/* fuzz_http.c: any bytes as requests on one connection. What is read whole and what is read in pieces must
 * agree, spans must lie in what was read, and no limit may be passed. The first byte chooses the size of the
 * pieces. */
#include "server/net/http.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_limits limits = {
    .target_bytes = 64, .header_bytes = 256, .n_headers = 8, .body_bytes = 200};

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_span(struct http_span span, uint32_t end)
{
    check(span.at <= end && span.len <= end - span.at);
}

static void check_head(const struct http_head *head, const char *bytes)
{
    uint32_t end = head->head_bytes;
    const char *message = NULL;
    char decoded[64];
    struct http_span name, value;
    size_t at = 0;
    check(end == head->scanned && end <= http_max_head_bytes(&limits));
    check(head->method.len && head->path.len);
    check_span(head->method, end);
    check_span(head->path, end);
    check_span(head->query, end);
    check_span(head->host, end);
    check(head->n_headers <= limits.n_headers && head->query.len <= limits.target_bytes);
    for (uint32_t i = 0; i < head->n_headers; i++) {
        const struct http_header *header = &head->headers[i];
        check_span(header->name, end);
        check_span(header->value, end);
        check(header->name.len && !memchr(bytes + header->value.at, '\n', header->value.len));
    }
    check(!http_check_json_body(head, bytes, &message) == !message);
    const char *query = bytes + head->query.at;
    while (http_query_next(query, head->query.len, &at, &name, &value)) {
        check_span(name, head->query.len);
        check_span(value, head->query.len);
        check(http_query_decode(query + value.at, value.len, decoded) <= (long)value.len);
    }
}

/* Reads one request in pieces; the result and what it took up are left in head, body and *n_used. Data of the
 * body is copied to out. */
static enum http_outcome read_request(const char *bytes, size_t size, size_t piece, struct http_head *head,
                                      struct http_body *body, size_t *n_used, char *out, size_t *n_out)
{
    enum http_outcome outcome = HTTP_MORE;
    size_t end = 0;
    *n_used = *n_out = 0;
    memset(body, 0, sizeof *body);
    http_head_start(head);
    while (outcome == HTTP_MORE && end < size) {
        end = size - end > piece ? end + piece : size;
        outcome = http_head_read(head, &limits, bytes, end);
    }
    if (outcome != HTTP_DONE)
        return outcome;
    check_head(head, bytes);
    *n_used = head->head_bytes;
    outcome = http_body_start(body, head, &limits);
    while (outcome == HTTP_MORE && (*n_used < end || end < size)) {
        const char *piece_data;
        size_t used, len;
        if (*n_used == end)
            end = size - end > piece ? end + piece : size;
        outcome = http_body_next(body, bytes + *n_used, end - *n_used, &used, &piece_data, &len);
        check(used <= end - *n_used && len <= used && len <= limits.body_bytes - *n_out);
        check(!len || (piece_data >= bytes + *n_used && piece_data + len <= bytes + *n_used + used));
        memcpy(out + *n_out, piece_data, len);
        *n_used += used;
        *n_out += len;
    }
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    size_t piece = 1 + data[0] % 32;
    size--;
    char *copy = malloc(size ? size : 1); /* exactly as long as the input: a byte too far is seen */
    check(copy != NULL);
    memcpy(copy, data + 1, size);
    const char *bytes = copy;
    enum http_outcome outcome = HTTP_DONE;
    while (size && outcome == HTTP_DONE) {
        struct http_head heads[2];
        struct http_body bodies[2];
        size_t used[2], len[2];
        char out[2][200];
        outcome = read_request(bytes, size, size, &heads[0], &bodies[0], &used[0], out[0], &len[0]);
        check(outcome == read_request(bytes, size, piece, &heads[1], &bodies[1], &used[1], out[1], &len[1]));
        check(!memcmp(&heads[0], &heads[1], sizeof heads[0]));
        check(used[0] == used[1] && len[0] == len[1] && !memcmp(out[0], out[1], len[0]));
        check(bodies[0].status == bodies[1].status && bodies[0].state == bodies[1].state);
        check(outcome != HTTP_REFUSED || ((heads[0].status || bodies[0].status) &&
                                          (heads[0].message != NULL) + (bodies[0].message != NULL) == 1));
        check(outcome != HTTP_DONE || used[0]);
        bytes += used[0];
        size -= used[0];
    }
    free(copy);
    return 0;
}
