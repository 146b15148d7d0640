/* metrics.c: the counters, and their text for Prometheus. See metrics.h.
 *
 * Names that begin with vllm: are those of vLLM, so that its dashboards work; deepseek_ are the project's oldest ones; what
 * neither has is called runnel_. */
#include "server/core/metrics.h"

#include "base/clock.h"
#include "base/pool.h"
#include "base/text.h"
#include "server/core/server.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Upper bounds in seconds; a 0 ends the list. */
static const double latency_buckets[METRICS_BUCKETS] = {
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 600};
static const double wait_buckets[METRICS_BUCKETS] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                                     0.15,  0.25,  0.5,  0.75, 1,    2.5,  5,    7.5,
                                                     10,    20,    40,   60,   120,  300,  600};
static const double gap_buckets[METRICS_BUCKETS] = {0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04,
                                                    0.05,  0.06, 0.075, 0.1,  0.15,  0.2,  0.3,
                                                    0.4,   0.5,  0.75,  1,    2.5,   5};

static const struct {
    const char *name, *help;
    const double *bounds;
    bool has_model; /* the label model_name */
} histograms[METRICS_HISTOGRAMS] = {
    [METRICS_LATENCY] = {"deepseek_request_latency_seconds",
                         "From a request for text to the end of its answer.", latency_buckets, false},
    [METRICS_FIRST_TOKEN] = {"vllm:time_to_first_token_seconds", "From a request to its first token.",
                             wait_buckets, true},
    [METRICS_INTER_TOKEN] = {"vllm:inter_token_latency_seconds",
                             "Between two pieces of text of the same answer.", gap_buckets, true},
    [METRICS_END_TO_END] = {"vllm:e2e_request_latency_seconds", "From a request to its last token.",
                            latency_buckets, true},
    [METRICS_QUEUE] = {"vllm:request_queue_time_seconds",
                       "Time of requests waiting for a place to be computed.", wait_buckets, true},
    [METRICS_PREFILL] = {"vllm:request_prefill_time_seconds",
                         "From getting a place to the first token: reading the prompt.", wait_buckets, true},
    [METRICS_DECODE] = {"vllm:request_decode_time_seconds", "From the first token to the last.",
                        latency_buckets, true},
};

static const char *const routes[METRICS_ROUTES] = {
    [METRICS_CHAT] = "/v1/chat/completions",      [METRICS_COMPLETIONS] = "/v1/completions",
    [METRICS_COMPLETION] = "/completion",         [METRICS_GENERATE] = "/generate",
    [METRICS_GENERATE_BATCH] = "/generate-batch", [METRICS_OTHER] = "other",
};

/* The last one stands for all that are not named. */
static const int statuses[METRICS_STATUSES] = {200, 304, 400, 401, 403, 404, 405, 408, 411, 413, 414,
                                               415, 417, 429, 431, 499, 500, 501, 503, 504, 505};

/* Counting ------------------------------------------------------------------------------------------------ */

void metrics_init(struct metrics *metrics)
{
    memset(metrics, 0, sizeof *metrics);
}

static size_t status_index(int status)
{
    size_t at = 0;
    while (at < METRICS_STATUSES - 1 && statuses[at] != status)
        at++;
    return at;
}

static void observe(struct metrics *metrics, enum metrics_histogram which, double ms)
{
    double seconds = ms > 0 ? ms / 1e3 : 0;
    const double *bounds = histograms[which].bounds;
    size_t at = 0;
    while (at < METRICS_BUCKETS && bounds[at] > 0 && seconds > bounds[at])
        at++;
    metrics->histograms[which].counts[at]++;
    metrics->histograms[which].sum += seconds;
}

double metrics_request_started(struct metrics *metrics)
{
    metrics->n_requests++;
    return clock_ms();
}

void metrics_request_finished(struct metrics *metrics, enum metrics_route route, int status,
                              double started_ms)
{
    metrics->n_answers[route][status_index(status)]++;
    observe(metrics, METRICS_LATENCY, clock_ms() - started_ms);
}

void metrics_add_finished(struct metrics *metrics, const uint32_t n_finished[RUNNEL_FINISH_ERROR + 1],
                          bool is_slow)
{
    for (size_t reason = 0; reason <= RUNNEL_FINISH_ERROR; reason++)
        *(is_slow ? &metrics->n_slow_readers : &metrics->n_finished[reason]) += n_finished[reason];
}

void metrics_add_response(struct metrics *metrics, const runnel_response *counts)
{
    metrics->n_reasoning_tokens += counts->n_reasoning_tokens;
    observe(metrics, METRICS_QUEUE, counts->queue_ms);
    if (!counts->n_tokens)
        return; /* it left before it had any */
    observe(metrics, METRICS_PREFILL, counts->prefill_ms);
    observe(metrics, METRICS_FIRST_TOKEN, counts->queue_ms + counts->prefill_ms);
    observe(metrics, METRICS_DECODE, counts->decode_ms);
    observe(metrics, METRICS_END_TO_END, counts->queue_ms + counts->prefill_ms + counts->decode_ms);
}

void metrics_text_arrived(struct metrics *metrics, double *last_ms)
{
    double now_ms = clock_ms();
    if (*last_ms > 0)
        observe(metrics, METRICS_INTER_TOKEN, now_ms - *last_ms);
    *last_ms = now_ms;
}

void metrics_add_status(struct metrics *metrics, int status)
{
    metrics->n_answers[METRICS_OTHER][status_index(status)]++;
}

/* Prometheus' text ---------------------------------------------------------------------------------------- */

enum { LABEL_BYTES = 320 };

struct page {
    struct text text;
    char model[LABEL_BYTES]; /* model_name="..." */
};

__attribute__((format(printf, 2, 3))) static void add(struct page *page, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (len > 0)
        text_add(&page->text, line, (size_t)len < sizeof line ? (size_t)len : sizeof line - 1);
}

/* Quotes, backslashes and line ends in a label's value are escaped. */
static void make_model_label(char label[LABEL_BYTES], const char *name)
{
    size_t len = (size_t)snprintf(label, LABEL_BYTES, "model_name=\"");
    for (; *name && len < LABEL_BYTES - 4; name++) {
        if (*name == '"' || *name == '\\' || *name == '\n')
            label[len++] = '\\';
        label[len++] = *name == '\n' ? 'n' : *name;
    }
    memcpy(label + len, "\"", 2);
}

static void head(struct page *page, const char *name, const char *type, const char *help)
{
    add(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A number without labels. */
static void number(struct page *page, const char *name, const char *type, double value, const char *help)
{
    head(page, name, type, help);
    add(page, "%s %.17g\n", name, value);
}

/* A number of the model. */
static void model_number(struct page *page, const char *name, const char *type, double value,
                         const char *help)
{
    head(page, name, type, help);
    add(page, "%s{%s} %.17g\n", name, page->model, value);
}

static void add_histogram(struct page *page, const struct metrics *metrics, enum metrics_histogram which)
{
    const char *name = histograms[which].name, *label = histograms[which].has_model ? page->model : "";
    const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
    const double *bounds = histograms[which].bounds;
    uint64_t n = 0;
    size_t at = 0;
    head(page, name, "histogram", histograms[which].help);
    for (; at < METRICS_BUCKETS && bounds[at] > 0; at++) {
        n += metrics->histograms[which].counts[at];
        add(page, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma, bounds[at], n);
    }
    n += metrics->histograms[which].counts[at];
    add(page, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, n);
    add(page, "%s_sum%s%s%s %.17g\n", name, open, label, close, metrics->histograms[which].sum);
    add(page, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, n);
}

static void add_requests(struct page *page, const struct metrics *metrics)
{
    static const char *const reasons[RUNNEL_FINISH_ERROR + 1] = {
        [RUNNEL_FINISH_STOP] = "stop",
        [RUNNEL_FINISH_LENGTH] = "length",
        [RUNNEL_FINISH_CANCELLED] = "abort",
        [RUNNEL_FINISH_ERROR] = "error",
    };
    number(page, "deepseek_requests_total", "counter", (double)metrics->n_requests,
           "Requests to the routes that answer with text.");
    head(page, "runnel_http_responses_total", "counter",
         "Answers by route and status; 499: the client left.");
    for (size_t route = 0; route < METRICS_ROUTES; route++)
        for (size_t status = 0; status < METRICS_STATUSES; status++)
            if (metrics->n_answers[route][status])
                add(page, "runnel_http_responses_total{route=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                    routes[route], statuses[status], metrics->n_answers[route][status]);
    head(page, "vllm:request_success_total", "counter", "Answers of the engine, by how they ended.");
    for (size_t reason = RUNNEL_FINISH_STOP; reason <= RUNNEL_FINISH_ERROR; reason++)
        add(page, "vllm:request_success_total{finished_reason=\"%s\",%s} %" PRIu64 "\n", reasons[reason],
            page->model, metrics->n_finished[reason]);
    add(page, "vllm:request_success_total{finished_reason=\"slow_reader\",%s} %" PRIu64 "\n", page->model,
        metrics->n_slow_readers);
    for (size_t i = 0; i < METRICS_HISTOGRAMS; i++)
        add_histogram(page, metrics, (enum metrics_histogram)i);
}

/* Routers of vLLM's servers read these; some ask for the names that the gauge and the counters had before, too. */
static void add_cache_usage(struct page *page, const runnel_stats_values *now)
{
    double used = now->n_kv_pages ? (double)now->n_kv_used / now->n_kv_pages : 0;
    model_number(page, "vllm:kv_cache_usage_perc", "gauge", used,
                 "Share of the pages that requests hold, 0 to 1.");
    model_number(page, "vllm:gpu_cache_usage_perc", "gauge", used,
                 "The former name of vllm:kv_cache_usage_perc.");
    head(page, "vllm:cache_config_info", "gauge",
         "Always 1; the labels tell how many tokens a page of the KV cache has, and how many pages there "
         "are.");
    add(page, "vllm:cache_config_info{block_size=\"%d\",num_gpu_blocks=\"%u\",%s} 1\n", RUNNEL_PAGE_TOKENS,
        now->n_kv_pages, page->model);
}

static void add_prefix_cache(struct page *page, const runnel_stats_values *now)
{
    double queries = (double)now->n_prefix_queries, hits = (double)now->n_prefix_hits;
    model_number(page, "vllm:prefix_cache_queries_total", "counter", queries,
                 "Prompt tokens looked up in the prefix cache.");
    model_number(page, "vllm:prefix_cache_hits_total", "counter", hits,
                 "Prompt tokens found in the prefix cache.");
    model_number(page, "vllm:gpu_prefix_cache_queries_total", "counter", queries,
                 "The former name of vllm:prefix_cache_queries_total.");
    model_number(page, "vllm:gpu_prefix_cache_hits_total", "counter", hits,
                 "The former name of vllm:prefix_cache_hits_total.");
}

static void add_engine(struct page *page, runnel_engine *engine, const struct metrics *metrics)
{
    runnel_stats_values now = {.size = sizeof now};
    runnel_stats(engine, &now);
    model_number(page, "vllm:num_requests_running", "gauge", now.n_running, "Requests being computed.");
    model_number(page, "vllm:num_requests_waiting", "gauge", now.n_waiting,
                 "Requests that wait for a place.");
    add_cache_usage(page, &now);
    add_prefix_cache(page, &now);
    model_number(page, "vllm:prompt_tokens_total", "counter", (double)now.n_prompt_tokens,
                 "Tokens of the prompts of requests.");
    model_number(page, "vllm:generation_tokens_total", "counter", (double)now.n_generated_tokens,
                 "Tokens generated for all requests.");
    model_number(page, "vllm:num_preemptions_total", "counter", (double)now.n_preemptions,
                 "Requests dropped for want of pages, to be computed again.");
    model_number(page, "runnel_reasoning_tokens_total", "counter", (double)metrics->n_reasoning_tokens,
                 "Tokens of thoughts in finished answers.");
    model_number(page, "runnel_steps_total", "counter", (double)now.n_steps, "Steps of the engine computed.");
    head(page, "runnel_kv_pages", "gauge",
         "Pages of the KV cache: held by requests, kept for equal prefixes, free.");
    uint32_t n_free = now.n_kv_pages - now.n_kv_used - now.n_kv_cached;
    add(page, "runnel_kv_pages{state=\"used\",%s} %u\n", page->model, now.n_kv_used);
    add(page, "runnel_kv_pages{state=\"cached\",%s} %u\n", page->model, now.n_kv_cached);
    add(page, "runnel_kv_pages{state=\"free\",%s} %u\n", page->model, n_free);
    model_number(page, "runnel_kv_cache_bytes", "gauge", (double)now.n_kv_bytes, "Size of the KV cache.");
}

static void add_loop(struct page *page, const struct loop *loop)
{
    struct loop_stats now = loop_stats(loop);
    number(page, "runnel_connections", "gauge", now.n_connections, "Connections open now.");
    number(page, "runnel_connections_accepted_total", "counter", (double)now.n_accepted,
           "Connections accepted since the start.");
    number(page, "runnel_exchanges", "gauge", now.n_exchanges, "Requests being answered, this one included.");
    number(page, "runnel_clients_left_total", "counter", (double)now.n_left,
           "Clients that left before their answer was complete.");
    number(page, "runnel_slow_readers_total", "counter", (double)now.n_slow_readers,
           "Answers given up because their client did not read them, of any route.");
}

static void add_pool(struct page *page, struct pool *pool)
{
    struct pool_stats now;
    pool_get_stats(pool, &now);
    number(page, "runnel_pool_held_bytes", "gauge", (double)now.held_bytes,
           "Memory that the pool of requests on their way holds from the system.");
    number(page, "runnel_pool_peak_held_bytes", "gauge", (double)now.peak_held_bytes,
           "The most that runnel_pool_held_bytes ever was.");
    number(page, "runnel_pool_limit_bytes", "gauge", (double)now.limit_bytes,
           "The most that runnel_pool_held_bytes may be.");
    number(page, "runnel_pool_in_use_bytes", "gauge", (double)now.in_use_bytes,
           "Memory of requests on their way that is in use now.");
    number(page, "runnel_pool_blocks", "gauge", (double)now.n_in_use,
           "Blocks of the pool of requests' memory in use now.");
    number(page, "runnel_pool_allocations_total", "counter", (double)now.n_allocations,
           "Blocks taken from the pool of requests' memory.");
    number(page, "runnel_pool_reuses_total", "counter", (double)now.n_reuses,
           "Blocks taken from the pool that had been used before.");
    number(page, "runnel_pool_refusals_total", "counter", (double)now.n_refusals,
           "Blocks refused because runnel_pool_limit_bytes was reached.");
}

/* What keeps requests out, and what they get when they are not kept out. */
static void add_protection(struct page *page, const struct server *server)
{
    const struct breaker *breaker = &server->monitor.breaker;
    const struct admit *admit = &server->admit;
    number(page, "runnel_requests_admitted", "gauge", admit->n_requests, "Requests that hold a place now.");
    number(page, "runnel_requests_admitted_limit", "gauge", admit->n_max,
           "Requests that may hold a place at once: --limit-concurrency.");
    number(page, "runnel_long_bodies", "gauge", server->n_preparing,
           "Long bodies that are being read beside the loop, or wait for that; each holds a place.");
    number(page, "runnel_timeouts_total", "counter", (double)admit->n_timeouts,
           "Requests that waited or took longer than they may.");
    head(page, "runnel_refusals_total", "counter",
         "Requests refused: all places taken, the key over its share, the wait too long, the breaker.");
    add(page, "runnel_refusals_total{reason=\"full\"} %" PRIu64 "\n", admit->n_full);
    add(page, "runnel_refusals_total{reason=\"share\"} %" PRIu64 "\n", admit->n_over_share);
    add(page, "runnel_refusals_total{reason=\"wait\"} %" PRIu64 "\n", admit->n_slow);
    add(page, "runnel_refusals_total{reason=\"breaker\"} %" PRIu64 "\n", breaker->n_refused);
    number(page, "runnel_breaker_state", "gauge", breaker_level(breaker),
           "The breaker: 0 closed, 1 degraded (shorter answers), 2 refusing new requests.");
    head(page, "runnel_breaker_opened_total", "counter", "How often the breaker opened, by reason.");
    add(page, "runnel_breaker_opened_total{reason=\"memory\"} %" PRIu64 "\n", breaker->n_opened_by_memory);
    add(page, "runnel_breaker_opened_total{reason=\"timeouts\"} %" PRIu64 "\n",
        breaker->n_opened_by_timeouts);
    number(page, "runnel_degraded_requests_total", "counter", (double)breaker->n_degraded,
           "Requests that got less than they asked for.");
    number(page, "runnel_engine_wedged", "gauge", server->monitor.wedged,
           "1 while the engine does no steps though requests wait, else 0.");
    number(page, "runnel_log_lines_lost_total", "counter", (double)server->log->n_lost,
           "Lines of the log for which there was no room.");
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static unsigned count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned n = 0;
    if (!folder)
        return 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n > 3 ? n - 3 : 0; /* without ".", ".." and the folder itself */
}

static void add_process(struct page *page, const struct server *server)
{
    struct rusage usage;
    struct rlimit descriptors;
    const struct monitor *monitor = &server->monitor;
    struct memory_reading memory = memory_read(monitor->options->memory_limit_bytes);
    double growth = (double)memory.resident_bytes - (double)monitor->ready_bytes;
    number(page, "deepseek_memory_percent", "gauge", memory.percent,
           "Memory in use, of the limit that applies: --memory-limit-mib, the container's or the machine's, "
           "0 to 100.");
    number(page, "runnel_memory_used_bytes", "gauge", (double)memory.used_bytes,
           "Memory in use, of the kind that runnel_memory_limit_bytes limits.");
    number(page, "runnel_memory_limit_bytes", "gauge", (double)memory.limit_bytes,
           "The limit of memory that applies: --memory-limit-mib, the container's or the machine's.");
    number(page, "runnel_memory_growth_bytes", "gauge", monitor->ready_bytes ? growth : 0,
           "Resident memory since the server was ready.");
    if (!getrusage(RUSAGE_SELF, &usage))
        number(page, "process_cpu_seconds_total", "counter",
               seconds(usage.ru_utime) + seconds(usage.ru_stime), "Processor time used by this process.");
    number(page, "process_virtual_memory_bytes", "gauge", (double)memory.virtual_bytes,
           "Address space of this process.");
    number(page, "process_resident_memory_bytes", "gauge", (double)memory.resident_bytes,
           "Resident memory of this process.");
    number(page, "process_start_time_seconds", "gauge", (double)server->created_s,
           "When this process was started, in seconds since 1970.");
    number(page, "process_open_fds", "gauge", count_descriptors(), "Descriptors that this process has open.");
    if (!getrlimit(RLIMIT_NOFILE, &descriptors))
        number(page, "process_max_fds", "gauge", (double)descriptors.rlim_cur,
               "Descriptors that this process may have open.");
}

void metrics_get(struct server *server, struct exchange *exchange)
{
    struct page page = {0};
    make_model_label(page.model, server->model_name);
    metrics_add_status(server->metrics, 200);
    add_requests(&page, server->metrics);
    if (server->engine)
        add_engine(&page, server->engine, server->metrics);
    add_loop(&page, server->loop);
    add_pool(&page, server->pool);
    add_protection(&page, server);
    add_process(&page, server);
    if (page.text.failed)
        exchange_respond_error(exchange, 500, NULL, "no memory for the metrics");
    else
        exchange_respond(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, page.text.bytes,
                         page.text.len);
    text_free(&page.text);
}
