/* exchange.c: the answers. See exchange.h; connection.h says how the work is divided. */
#include "server/net/exchange.h"

#include "base/clock.h"
#include "server/net/connection.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kept free for the end of a stream whose client reads too slowly: an error event, and the end of the chunks. */
enum { CUT_BYTES = 512 };

/* --- life --- */

struct exchange *exchange_create(struct connection *connection)
{
    struct exchange *exchange = calloc(1, sizeof *exchange + connection->loop->handlers.note_bytes);
    if (!exchange)
        return NULL;
    exchange->head_bytes = malloc(connection->head.head_bytes);
    if (!exchange->head_bytes) {
        free(exchange);
        return NULL;
    }
    memcpy(exchange->head_bytes, connection->input.bytes + connection->input_at, connection->head.head_bytes);
    exchange->head = connection->head;
    exchange->loop = connection->loop;
    exchange->connection = connection;
    exchange->since_ms = clock_ms();
    return exchange;
}

void exchange_hand_over(struct exchange *exchange)
{
    struct loop *loop = exchange->loop;
    exchange->handed_over = true;
    exchange->next = loop->exchanges;
    if (exchange->next)
        exchange->next->previous = exchange;
    loop->exchanges = exchange;
    loop->stats.n_exchanges++;
    loop->stats.n_requests++;
}

/* It is answered, or nobody will answer it. */
static void leave_loop(struct exchange *exchange)
{
    struct loop *loop = exchange->loop;
    if (!exchange->handed_over)
        return;
    exchange->handed_over = false;
    if (exchange->next)
        exchange->next->previous = exchange->previous;
    if (exchange->previous)
        exchange->previous->next = exchange->next;
    else
        loop->exchanges = exchange->next;
    loop->stats.n_exchanges--;
    loop_check_drained(loop);
}

void exchange_free(struct exchange *exchange)
{
    leave_loop(exchange);
    exchange_drop_body(exchange);
    text_free(&exchange->headers);
    free(exchange->head_bytes);
    free(exchange);
}

/* To whoever keeps the log, while all of it is still there. */
static void report(const struct exchange *exchange)
{
    const struct loop_handlers *handlers = &exchange->loop->handlers;
    if (handlers->on_end)
        handlers->on_end(exchange, handlers->user);
}

void exchange_finish(struct exchange *exchange)
{
    exchange->loop->stats.n_left += exchange_has_left(exchange);
    report(exchange);
    exchange_free(exchange);
}

void exchange_lost(struct exchange *exchange)
{
    exchange->connection = NULL;
    if (!exchange->handed_over) {
        report(exchange);
        exchange_free(exchange);
        return;
    }
    exchange->loop->stats.n_gone++;
    exchange->loop->stats.n_left += exchange_has_left(exchange);
    if (exchange->on_gone)
        exchange->on_gone(exchange, exchange->gone_user);
}

/* --- the request --- */

static struct exchange_text span_text(const struct exchange *exchange, struct http_span span)
{
    return (struct exchange_text){exchange->head_bytes + span.at, span.len};
}

struct exchange_text exchange_method(const struct exchange *exchange)
{
    return span_text(exchange, exchange->head.method);
}

struct exchange_text exchange_path(const struct exchange *exchange)
{
    return span_text(exchange, exchange->head.path);
}

struct exchange_text exchange_query(const struct exchange *exchange)
{
    return span_text(exchange, exchange->head.query);
}

struct exchange_text exchange_host(const struct exchange *exchange)
{
    return span_text(exchange, exchange->head.host);
}

struct exchange_text exchange_body(const struct exchange *exchange)
{
    return (struct exchange_text){exchange->body.bytes, exchange->body.len};
}

void exchange_drop_body(struct exchange *exchange)
{
    exchange->loop->body_bytes -= exchange->body.len;
    text_free(&exchange->body);
}

struct exchange_text exchange_header(const struct exchange *exchange, const char *name, unsigned *n_found)
{
    const struct http_span *value = http_find_header(&exchange->head, exchange->head_bytes, name, n_found);
    return value ? span_text(exchange, *value) : (struct exchange_text){0};
}

bool exchange_text_is(struct exchange_text text, const char *string)
{
    return text.len == strlen(string) && (!text.len || !memcmp(text.bytes, string, text.len));
}

const struct http_head *exchange_head(const struct exchange *exchange)
{
    return &exchange->head;
}

const char *exchange_head_bytes(const struct exchange *exchange)
{
    return exchange->head_bytes;
}

struct loop *exchange_loop(const struct exchange *exchange)
{
    return exchange->loop;
}

void exchange_set_user(struct exchange *exchange, void *user)
{
    exchange->user = user;
}

void *exchange_user(const struct exchange *exchange)
{
    return exchange->user;
}

void exchange_set_key(struct exchange *exchange, uint32_t key)
{
    exchange->key = key;
}

uint32_t exchange_key(const struct exchange *exchange)
{
    return exchange->key;
}

void *exchange_note(const struct exchange *exchange)
{
    return (void *)(uintptr_t)exchange->note;
}

double exchange_since_ms(const struct exchange *exchange)
{
    return exchange->since_ms;
}

int exchange_status(const struct exchange *exchange)
{
    return exchange->status;
}

void exchange_add_header(struct exchange *exchange, const char *line)
{
    text_add_string(&exchange->headers, line);
}

void exchange_set_retry(struct exchange *exchange, unsigned seconds)
{
    exchange->retry_s = seconds;
}

unsigned exchange_retry(const struct exchange *exchange)
{
    return exchange->retry_s ? exchange->retry_s : 1;
}

void exchange_set_gone(struct exchange *exchange, void (*on_gone)(struct exchange *exchange, void *user),
                       void *user)
{
    exchange->on_gone = on_gone;
    exchange->gone_user = user;
}

bool exchange_is_gone(const struct exchange *exchange)
{
    return !exchange->written && (!exchange->connection || exchange->connection->broken || exchange->cut);
}

bool exchange_has_left(const struct exchange *exchange)
{
    return exchange_is_gone(exchange) && !exchange->cut;
}

bool exchange_is_cut(const struct exchange *exchange)
{
    return exchange->cut;
}

void exchange_close_after(struct exchange *exchange)
{
    exchange->close_after = true;
}

/* --- the answer --- */

static void add(struct connection *connection, const char *bytes, size_t len)
{
    if (len && evbuffer_add(connection->output, bytes, len))
        connection->broken = true;
}

/* Without memory for an answer the connection is given up: half an answer would be worse. If the client is owed
 * nothing else, it is told so. before: length of the output before the answer. */
static void check_memory(struct connection *connection, bool was_broken, size_t before)
{
    if (!connection->broken || was_broken || before)
        return;
    evbuffer_drain(connection->output, evbuffer_get_length(connection->output));
    connection_say_overloaded(connection);
}

static void add_string(struct connection *connection, const char *string)
{
    add(connection, string, strlen(string));
}

/* The status line and the headers, those of the exchange as well. framing and connection_header are header lines of ours, or "". */
static void add_head(struct connection *connection, int status, const char *content_type, const char *headers,
                     const char *framing, const char *connection_header)
{
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %d ", status);
    add_string(connection, line);
    add_string(connection, http_status_words(status));
    if (content_type) {
        add_string(connection, "\r\nContent-Type: ");
        add_string(connection, content_type);
    }
    add_string(connection, "\r\n");
    if (headers)
        add_string(connection, headers);
    if (connection->exchange) {
        connection->exchange->status = status;
        add(connection, connection->exchange->headers.bytes, connection->exchange->headers.len);
    }
    add_string(connection, framing);
    add_string(connection, connection_header);
    add_string(connection, "\r\n");
}

static void add_whole(struct connection *connection, int status, const char *content_type,
                      const char *headers, const char *connection_header, size_t body_len)
{
    char length[64] = "";
    if (status != 304) /* it would be the length of what is not sent */
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", body_len);
    add_head(connection, status, content_type, headers, length, connection_header);
}

/* May another request follow on the connection of this exchange? */
static bool may_keep(const struct exchange *exchange)
{
    bool body_is_read = exchange->handed_over || exchange->head.framing == HTTP_BODY_ABSENT ||
                        (exchange->head.framing == HTTP_BODY_LENGTH && !exchange->head.content_length);
    bool goes_on = !exchange->loop->draining && (!exchange->loop->retiring || exchange->told_to_keep);
    return exchange->head.keep_alive && !exchange->close_after && goes_on && body_is_read;
}

static const char *choose_connection_header(struct exchange *exchange)
{
    exchange->told_to_keep = may_keep(exchange);
    if (!exchange->told_to_keep)
        return "Connection: close\r\n";
    return exchange->head.minor_version ? "" : "Connection: keep-alive\r\n";
}

/* The connection goes on without its exchange, which ends when its answer is written. */
static void end(struct exchange *exchange, bool keep)
{
    struct connection *connection = exchange->connection;
    bool is_cut = exchange->cut;
    if (!connection) {
        report(exchange);
        exchange_free(exchange);
        return;
    }
    exchange_drop_body(exchange);
    leave_loop(exchange);
    connection->exchange = NULL;
    connection_answered(connection, exchange, keep);
    if (is_cut)
        loop_arm(&connection->timer, connection->loop->limits.write_stall_ms);
    connection_wake(connection);
}

void exchange_respond(struct exchange *exchange, int status, const char *content_type, const char *headers,
                      const char *body, size_t body_len)
{
    struct connection *connection = exchange->connection;
    bool keep = may_keep(exchange);
    if (connection) {
        bool was_broken = connection->broken;
        size_t before = evbuffer_get_length(connection->output);
        add_whole(connection, status, content_type, headers, choose_connection_header(exchange), body_len);
        if (!exchange_text_is(exchange_method(exchange), "HEAD"))
            add(connection, body, body_len);
        check_memory(connection, was_broken, before);
    }
    end(exchange, keep);
}

void exchange_respond_error(struct exchange *exchange, int status, const char *headers, const char *message)
{
    char body[HTTP_ERROR_BODY_BYTES];
    size_t len = http_error_body(body, status, message);
    exchange_respond(exchange, status, "application/json", headers, body, len);
}

/* As far as is known: of what is refused, often not even the method could be read. */
static bool asks_for_head_only(const struct connection *connection)
{
    struct http_span method = connection->head.method;
    if (connection->exchange || !method.len)
        return connection->exchange && exchange_text_is(exchange_method(connection->exchange), "HEAD");
    return method.len == 4 && !memcmp(connection->input.bytes + connection->input_at + method.at, "HEAD", 4);
}

void exchange_refuse(struct connection *connection, int status, const char *message)
{
    struct exchange *exchange = connection->exchange;
    char body[HTTP_ERROR_BODY_BYTES];
    size_t len = http_error_body(body, status, message), before = evbuffer_get_length(connection->output);
    add_whole(connection, status, "application/json", status == 503 ? "Retry-After: 1\r\n" : NULL,
              "Connection: close\r\n", len);
    if (!asks_for_head_only(connection))
        add(connection, body, len);
    check_memory(connection, false, before);
    connection->exchange = NULL;
    if (!exchange)
        return;
    report(exchange);
    exchange_free(exchange);
}

void exchange_stream_begin(struct exchange *exchange, int status, const char *content_type,
                           const char *headers)
{
    struct connection *connection = exchange->connection;
    exchange->streaming = true;
    exchange->chunked = exchange->head.minor_version > 0;
    exchange->comments = !strncmp(content_type, "text/event-stream", 17);
    if (!exchange->chunked)
        exchange->close_after = true; /* the end of the connection is the end of the answer */
    if (!connection)
        return;
    bool was_broken = connection->broken;
    size_t before = evbuffer_get_length(connection->output);
    add_head(connection, status, content_type, headers,
             exchange->chunked ? "Transfer-Encoding: chunked\r\n" : "", choose_connection_header(exchange));
    check_memory(connection, was_broken, before);
    if (exchange->comments)
        loop_arm(&connection->timer, exchange->loop->limits.comment_ms);
    connection_wake(connection);
}

/* One piece always has, so that the limit holds for what piles up. What ends a stream early has its room kept. */
static bool has_room(const struct connection *connection, size_t len)
{
    size_t waiting = evbuffer_get_length(connection->output);
    return !waiting || waiting + len + CUT_BYTES <= connection->loop->limits.output_bytes;
}

static void add_piece(struct exchange *exchange, const char *bytes, size_t len)
{
    struct connection *connection = exchange->connection;
    char size[24];
    if (exchange->chunked) {
        snprintf(size, sizeof size, "%zx\r\n", len);
        add_string(connection, size);
    }
    add(connection, bytes, len);
    if (exchange->chunked)
        add(connection, "\r\n", 2);
}

static void add_end(struct exchange *exchange)
{
    if (exchange->chunked && !exchange_text_is(exchange_method(exchange), "HEAD"))
        add_string(exchange->connection, "0\r\n\r\n");
}

void exchange_cut(struct exchange *exchange)
{
    struct connection *connection = exchange->connection;
    char error[HTTP_ERROR_BODY_BYTES], event[HTTP_ERROR_BODY_BYTES + 16];
    http_error_body(error, 408, "the stream was read too slowly: it ends here, before the answer does");
    int len = snprintf(event, sizeof event, "data: %s\n\n", error);
    if (exchange->comments &&
        evbuffer_get_length(connection->output) + (size_t)len <= connection->loop->limits.output_bytes)
        add_piece(exchange, event, (size_t)len);
    add_end(exchange);
    exchange->cut = exchange->close_after = true;
    exchange->loop->stats.n_slow_readers++;
    connection_wake(connection);
}

bool exchange_stream_write(struct exchange *exchange, const char *bytes, size_t len)
{
    struct connection *connection = exchange->connection;
    if (exchange_is_gone(exchange))
        return false;
    if (!len || exchange_text_is(exchange_method(exchange), "HEAD"))
        return true;
    if (!has_room(connection, len))
        connection_flush(connection);
    if (!has_room(connection, len)) {
        exchange_cut(exchange);
        return false;
    }
    add_piece(exchange, bytes, len);
    if (exchange->comments)
        loop_arm(&connection->timer, exchange->loop->limits.comment_ms);
    connection_wake(connection);
    return !connection->broken;
}

void exchange_comment(struct exchange *exchange)
{
    if (exchange->comments)
        exchange_stream_write(exchange, ": still here\n\n", 14);
}

void exchange_stream_end(struct exchange *exchange)
{
    if (exchange->connection && !exchange->cut)
        add_end(exchange);
    end(exchange, may_keep(exchange));
}

void exchange_abort(struct exchange *exchange)
{
    struct connection *connection = exchange->connection;
    if (exchange->cut) { /* its end has been written */
        end(exchange, false);
        return;
    }
    report(exchange);
    if (connection) {
        connection->exchange = NULL;
        connection->broken = true;
    }
    exchange_free(exchange);
    if (connection)
        connection_wake(connection);
}
