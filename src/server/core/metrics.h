/* metrics.h: what is counted while serving, and GET /metrics.
 *
 * What is counted lies in the block that all workers share (shared.h), which has room for more than there is now; gauges are
 * read when somebody asks. The loop's thread only.
 *
 * A route that answers with text calls, in this order:
 *
 *     record_start_text(server->metrics, exchange, METRICS_CHAT);
 *     metrics_text_arrived(server->metrics, &last_ms);       for each piece of text of one answer
 *     metrics_add_response(server->metrics, response);       for each answer that came out
 *
 * and any other route metrics_add_status or metrics_add_answer only. How a request for text ended is counted from its record when its exchange
 * ends (record_count), as only then it is known whether its client has got the answer. */
#ifndef RUNNEL_SERVER_CORE_METRICS_H
#define RUNNEL_SERVER_CORE_METRICS_H

#include "runnel.h"
#include "server/limits/shared.h"

struct server;
struct exchange;

enum metrics_route {
    METRICS_CHAT,           /* /v1/chat/completions */
    METRICS_COMPLETIONS,    /* /v1/completions */
    METRICS_COMPLETION,     /* /completion */
    METRICS_GENERATE,       /* /generate */
    METRICS_GENERATE_BATCH, /* /generate-batch */
    METRICS_HEALTH,         /* /health, /v1/health: mostly a balancer's */
    METRICS_METRICS,        /* /metrics */
    METRICS_OTHER, /* all other routes, which compute nothing, and requests refused before they had one */
    METRICS_ROUTES
};

enum metrics_histogram {
    METRICS_LATENCY, /* of a whole answer, over HTTP */
    METRICS_FIRST_TOKEN,
    METRICS_INTER_TOKEN,
    METRICS_END_TO_END, /* of one response of the engine */
    METRICS_QUEUE,
    METRICS_PREFILL,
    METRICS_DECODE,
    METRICS_HISTOGRAMS
};

enum {
    METRICS_BUCKETS = 24,  /* at most, without the last, "+Inf" */
    METRICS_STATUSES = 22, /* status codes that are told apart; the last stands for all others */
};

/* A request to a route that answers with text. Returns the time, for metrics_request_finished. */
double metrics_request_started(struct shared_counters *counters);
/* Its answer is out, or refused, whatever its status; 499: the client left before. */
void metrics_request_finished(struct shared_counters *counters, enum metrics_route route, int status,
                              double started_ms);
/* The times of an answer of the engine, also of one that was cancelled. Its texts are not looked at. */
void metrics_add_response(struct shared_counters *counters, const runnel_response *counts);
/* How the answers of a request ended, by enum runnel_finish_reason; is_slow: their client did not read them. */
void metrics_add_finished(struct shared_counters *counters,
                          const uint32_t n_finished[RUNNEL_FINISH_ERROR + 1], bool is_slow);
/* A piece of text of one answer came from the engine. *last_ms is the caller's, 0 before the first piece. */
void metrics_text_arrived(struct shared_counters *counters, double *last_ms);
/* An answer of a route that computes nothing. */
void metrics_add_answer(struct shared_counters *counters, enum metrics_route route, int status);
/* ... that has no name of its own here, or a refusal. */
void metrics_add_status(struct shared_counters *counters, int status);

/* GET /metrics: the counters, and the gauges as they are now, in Prometheus' text format. Ends the exchange. */
void metrics_get(struct server *server, struct exchange *exchange);

#endif
