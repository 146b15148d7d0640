/* monitor.h: what a server watches about itself, about once a second: its memory, whether its engine gets on, and the
 * breaker that both memory and requests move. The loop's thread only. */
#ifndef RUNNEL_SERVER_LIMITS_MONITOR_H
#define RUNNEL_SERVER_LIMITS_MONITOR_H

#include "base/error.h"
#include "base/log.h"
#include "runnel.h"
#include "server/limits/breaker.h"
#include "server/limits/descriptors.h"
#include "server/limits/memory.h"
#include "server/net/exchange.h"

struct event;
struct event_base;

struct monitor_options {
    uint64_t memory_limit_bytes; /* of this process; 0: the container's or the machine's limit */
    struct breaker_limits breaker;
    int degraded_max_tokens; /* what a request gets at most while the breaker is open */
    float degraded_temperature;
    double wedged_ms; /* without a step while requests run */
};

struct monitor {
    const struct monitor_options *options;
    struct log *log;
    const runnel_model *model; /* NULL until the server is ready, */
    runnel_engine *engine;     /* likewise */
    uint32_t n_running;        /* jobs that were admitted and have not ended */
    struct event *timer;
    struct breaker breaker;
    enum breaker_level told; /* in the log */
    bool is_open;            /* this and what the next two have: from monitor_start to monitor_stop */
    struct memory_files memory_files;
    struct descriptors descriptors;
    struct memory_reading memory;
    double gpu_percent;   /* of the memory of the engine's GPU; 0: it has none */
    uint64_t ready_bytes; /* resident when the server was ready; 0: it is not */
    uint64_t n_steps;     /* of the engine, when it was last seen to get on, */
    double step_ms;       /* and the time */
    bool wedged;
    /* The engine's GPU is lost: every request would fail. Called once, within a second. */
    void (*on_lost)(void *user);
    void *user;
    bool lost;
};

/* Opens all that it will read, and watches until monitor_stop. options live as long, and may change: monitor_set_options. Uses
 * base until then. */
int monitor_start(struct monitor *monitor, const struct monitor_options *options,
                  struct shared_counters *counters, struct event_base *base, struct log *log,
                  runnel_error *error);
/* Before monitor_ready; on the loop's thread. */
void monitor_on_lost(struct monitor *monitor, void (*on_lost)(void *user), void *user);
/* What options point to has changed. */
void monitor_set_options(struct monitor *monitor);
void monitor_stop(struct monitor *monitor); /* also if it was not started */

/* Reads how much memory is used once more, as it does every second. */
void monitor_read_memory(struct monitor *monitor);

/* The model is loaded and the engine runs: what grows from now on counts. */
void monitor_ready(struct monitor *monitor, const runnel_model *model, runnel_engine *engine);

/* A request comes and goes: as in breaker.h, and told in the log when it moves the breaker. One that is not refused is to
 * be followed by monitor_end. */
struct breaker_verdict monitor_admit(struct monitor *monitor);
void monitor_end(struct monitor *monitor, const struct breaker_verdict *verdict,
                 enum breaker_outcome outcome);

/* Why nothing is taken now, for people. */
const char *monitor_refusal(const struct monitor *monitor);
/* The headers that tell of a breaker that is open; if the answer is a refusal, also when to come back. */
void monitor_add_headers(const struct monitor *monitor, struct exchange *exchange);
/* True if the breaker would refuse a request, which counts as refused: before its body is read, that is memory, too. */
bool monitor_refuses(struct monitor *monitor);

#endif
