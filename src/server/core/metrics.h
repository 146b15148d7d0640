/* metrics.h: what is counted while serving, and GET /metrics.
 *
 * struct metrics is a block of numbers without pointers, which its owner keeps where it likes and zeroes once
 * (metrics_init); gauges are read when somebody asks. The loop's thread only.
 *
 * A route that answers with text calls, in this order:
 *
 *     double started_ms = metrics_request_started(server->metrics, METRICS_CHAT);
 *     metrics_text_arrived(server->metrics, &last_ms);       for each piece of text of one answer
 *     metrics_add_response(server->metrics, response, false);      for each answer that came out
 *     metrics_request_finished(server->metrics, METRICS_CHAT, 200, started_ms);
 *
 * and any other route metrics_add_status only. */
#ifndef RUNNEL_SERVER_CORE_METRICS_H
#define RUNNEL_SERVER_CORE_METRICS_H

#include "runnel.h"

struct server;
struct exchange;

enum metrics_route {
    METRICS_CHAT,           /* /v1/chat/completions */
    METRICS_COMPLETIONS,    /* /v1/completions */
    METRICS_COMPLETION,     /* /completion */
    METRICS_GENERATE,       /* /generate */
    METRICS_GENERATE_BATCH, /* /generate-batch */
    METRICS_OTHER,          /* all routes that compute nothing, and requests refused before they had one */
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

struct metrics {
    uint64_t n_requests;                                  /* started, of the routes that answer with text */
    uint64_t n_answers[METRICS_ROUTES][METRICS_STATUSES]; /* finished, by status */
    uint64_t n_slow_readers; /* responses that ended early for that, and are in no other of: */
    uint64_t n_finished[RUNNEL_FINISH_ERROR + 1]; /* responses, by enum runnel_finish_reason */
    uint64_t n_reasoning_tokens;
    struct {
        uint64_t counts[METRICS_BUCKETS + 1]; /* each bucket by itself */
        double sum;                           /* seconds */
    } histograms[METRICS_HISTOGRAMS];
};

void metrics_init(struct metrics *metrics);

/* A request to a route that answers with text. Returns the time, for metrics_request_finished. */
double metrics_request_started(struct metrics *metrics, enum metrics_route route);
/* Its answer is out, or refused, whatever its status; 499: the client left before. */
void metrics_request_finished(struct metrics *metrics, enum metrics_route route, int status,
                              double started_ms);
/* An answer of the engine, also one that was cancelled. counts: its texts are not looked at. is_cut: its client read it too
 * slowly. */
void metrics_add_response(struct metrics *metrics, const runnel_response *counts, bool is_cut);
/* A piece of text of one answer came from the engine. *last_ms is the caller's, 0 before the first piece. */
void metrics_text_arrived(struct metrics *metrics, double *last_ms);
/* An answer of a route that computes nothing, or a refusal. */
void metrics_add_status(struct metrics *metrics, int status);

/* GET /metrics: the counters, and the gauges as they are now, in Prometheus' text format. Ends the exchange. */
void metrics_get(struct server *server, struct exchange *exchange);

#endif
