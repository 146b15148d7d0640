/* record.h: what is noted of a request while it is on its way, and told in one line when it has ended.
 *
 * A record is the note of an exchange (exchange_note). It holds numbers and fixed words: nothing that anybody wrote, and no
 * key. The loop's thread only. */
#ifndef RUNNEL_SERVER_CORE_RECORD_H
#define RUNNEL_SERVER_CORE_RECORD_H

#include "base/log.h"
#include "base/text.h"
#include "runnel.h"
#include "server/core/metrics.h"
#include "server/net/exchange.h"

enum { RECORD_ID_BYTES = 25 };

/* The id of a request as numbers: its first 16 digits, of which the last two are its worker's number, and the other 8. */
struct record_id {
    uint64_t first;
    uint32_t rest;
};

struct record {
    char id[RECORD_ID_BYTES]; /* of the request; also in its answer, as the header X-Request-Id */
    struct record_id number;  /* the same */
    bool asks_for_text;       /* its route answers with text, and it is counted under: */
    enum metrics_route route;
    double started_ms; /* of metrics_request_started */
    int stream_status; /* of a stream that failed after its head had gone out, what a whole answer would have had; else 0 */
    bool computed;                                /* the engine had it: what follows is filled */
    unsigned n_answers;                           /* more than 1 for a batch and for "n" */
    double began_ms;                              /* monotonic time at which a route took it, body and all */
    double first_text_ms;                         /* monotonic time of its first text; 0: there was none */
    runnel_response counts;                       /* tokens added up, times those of the slowest; no texts */
    uint32_t n_finished[RUNNEL_FINISH_ERROR + 1]; /* its answers, by how they ended */
    const char
        *degraded; /* why it got less than it asked for (static text), or NULL; then what it got at most */
    int degraded_max_tokens;
    float degraded_temperature;
};

/* Gives a new exchange its id: 24 random digits, but for the 15th and 16th: the number of its worker, so that what
 * concerns a request finds it (shared.h, messages). */
void record_start(struct exchange *exchange, unsigned worker);

/* It asks for text on this route. Returns the time. */
double record_start_text(struct shared_counters *counters, struct exchange *exchange,
                         enum metrics_route route);

struct record *record_of(const struct exchange *exchange);

/* The digits of an id, without what stands before them in an answer. False: they are not those of any. */
bool record_read_id(const char *digits, size_t len, struct record_id *id);
unsigned record_worker(const struct record_id *id);
bool record_is(const struct record *record, const struct record_id *id);

/* One of its answers has come, or was cancelled, or failed. */
void record_add_response(struct record *record, const runnel_response *response);

/* Counts the request and its answers, once it is known whether they reached the client. */
void record_count(struct shared_counters *counters, const struct exchange *exchange);

/* Says in its answer, as one more field of an object, that it was degraded; nothing if it was not. */
void record_write_degraded(const struct record *record, struct text *out);

/* Is it for /health, /v1/health or /metrics: what watches a server, and asks every few seconds. */
bool record_is_probe(const struct exchange *exchange);

/* The line of an exchange that ends. Those of probes are left out: what they would tell is told when it changes. */
void record_log(struct log *log, const struct exchange *exchange);

/* The line of a request that was refused before its head was whole. */
void record_log_refusal(struct log *log, int status);

#endif
