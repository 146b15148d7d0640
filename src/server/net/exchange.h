/* exchange.h: one request and its answer, as routes see them.
 *
 * An exchange lives until it is ended by exactly one of exchange_respond, exchange_stream_end and exchange_abort, also
 * if the client is gone: then they send nothing. What it returns stays valid until then. The loop's thread only. */
#ifndef RUNNEL_SERVER_NET_EXCHANGE_H
#define RUNNEL_SERVER_NET_EXCHANGE_H

#include "server/net/loop.h"

/* Bytes of the request; not terminated by zero. NULL and 0 if there are none. */
struct exchange_text {
    const char *bytes;
    size_t len;
};

struct exchange_text exchange_method(const struct exchange *exchange);
struct exchange_text exchange_path(const struct exchange *exchange);  /* as sent, not decoded */
struct exchange_text exchange_query(const struct exchange *exchange); /* after '?'; see http_query_next */
struct exchange_text exchange_host(const struct exchange *exchange);
struct exchange_text exchange_body(
    const struct exchange *exchange);               /* followed by a zero byte if not empty */
void exchange_drop_body(struct exchange *exchange); /* its bytes are not needed any more */

/* The value of a header, its name in any case; *n_found (may be NULL) says how often it came. */
struct exchange_text exchange_header(const struct exchange *exchange, const char *name, unsigned *n_found);

bool exchange_text_is(struct exchange_text text, const char *string);

/* The head as it was read, and the bytes its spans point into. */
const struct http_head *exchange_head(const struct exchange *exchange);
const char *exchange_head_bytes(const struct exchange *exchange);

struct loop *exchange_loop(const struct exchange *exchange);
void exchange_set_user(struct exchange *exchange, void *user);
void *exchange_user(const struct exchange *exchange);

/* A number that on_head leaves for on_request: whose request it is. 0 at first. */
void exchange_set_key(struct exchange *exchange, uint32_t key);
uint32_t exchange_key(const struct exchange *exchange);

/* What the routes keep about it until it has ended: loop_handlers.note_bytes, zeroed at first. */
void *exchange_note(const struct exchange *exchange);

/* When its head had come, on the monotonic clock; and the status it was answered with, 0 before that. */
double exchange_since_ms(const struct exchange *exchange);
int exchange_status(const struct exchange *exchange);

/* A header line of its answer, with its "\r\n", whoever answers and whatever: to be added before that. Without memory
 * for it, it is left out. */
void exchange_add_header(struct exchange *exchange, const char *line);

/* After how many seconds a client that is refused for now should come back: 1 unless set. */
void exchange_set_retry(struct exchange *exchange, unsigned seconds);
unsigned exchange_retry(const struct exchange *exchange);

/* Called from the loop as soon as the client has left (FIN, RST, or its stream is ended because it does not read),
 * once, unless the exchange was ended before. The exchange must still be ended, there or later. Set it in
 * on_request. */
void exchange_set_gone(struct exchange *exchange, void (*on_gone)(struct exchange *exchange, void *user),
                       void *user);
bool exchange_is_gone(const struct exchange *exchange);
/* It is gone for one of two reasons: its client left, or its client read too slowly, so that its stream was ended early or
 * its whole answer was given up. */
bool exchange_has_left(const struct exchange *exchange);
bool exchange_is_cut(const struct exchange *exchange);

/* The connection is closed after this answer. */
void exchange_close_after(struct exchange *exchange);

/* Answers and ends. headers: more header lines, each with its "\r\n", or NULL. body is copied. */
void exchange_respond(struct exchange *exchange, int status, const char *content_type, const char *headers,
                      const char *body, size_t body_len);

/* Answers with the error object of the API and ends. message holds no quotes, backslashes or control bytes. */
void exchange_respond_error(struct exchange *exchange, int status, const char *headers, const char *message);

/* Begins an answer in pieces; if its type is text/event-stream, comment lines keep it alive. Not from on_head. */
void exchange_stream_begin(struct exchange *exchange, int status, const char *content_type,
                           const char *headers);

/* Sends a piece; an event stream's pieces are whole events. False: nobody listens any more, nothing was sent, and
 * on_gone comes or came. */
bool exchange_stream_write(struct exchange *exchange, const char *bytes, size_t len);

/* Ends the stream and the exchange. */
void exchange_stream_end(struct exchange *exchange);

/* Ends the exchange and closes the connection at once, so that the client sees that something is missing. */
void exchange_abort(struct exchange *exchange);

#endif
