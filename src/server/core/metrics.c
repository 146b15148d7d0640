/* metrics.c: the counters, and their text for Prometheus. See metrics.h.
 *
 * Names that begin with vllm: are those of vLLM, so that its dashboards work; deepseek_ are the project's oldest ones; what
 * neither has is called runnel_. */
#include "server/core/metrics.h"

#include "base/clock.h"
#include "base/text.h"
#include "server/core/server.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

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
    [METRICS_CHAT] = "/v1/chat/completions",
    [METRICS_COMPLETIONS] = "/v1/completions",
    [METRICS_COMPLETION] = "/completion",
    [METRICS_GENERATE] = "/generate",
    [METRICS_GENERATE_BATCH] = "/generate-batch",
    [METRICS_HEALTH] = "/health",
    [METRICS_METRICS] = "/metrics",
    [METRICS_OTHER] = "other",
};

/* The last one stands for all that are not named. */
static const int statuses[METRICS_STATUSES] = {200, 304, 400, 401, 403, 404, 405, 408, 411, 413, 414,
                                               415, 417, 429, 431, 499, 500, 501, 503, 504, 505};

/* Counting ------------------------------------------------------------------------------------------------ */

_Static_assert((int)METRICS_ROUTES <= (int)SHARED_ROUTES && (int)METRICS_STATUSES <= (int)SHARED_STATUSES &&
                   (int)METRICS_HISTOGRAMS <= (int)SHARED_HISTOGRAMS &&
                   (int)METRICS_BUCKETS < (int)SHARED_BUCKETS,
               "the shared block has room for what is counted");

static size_t status_index(int status)
{
    size_t at = 0;
    while (at < METRICS_STATUSES - 1 && statuses[at] != status)
        at++;
    return at;
}

static void observe(struct shared_counters *counters, enum metrics_histogram which, double ms)
{
    double seconds = ms > 0 ? ms / 1e3 : 0;
    const double *bounds = histograms[which].bounds;
    size_t at = 0;
    while (at < METRICS_BUCKETS && bounds[at] > 0 && seconds > bounds[at])
        at++;
    shared_add(&counters->histograms[which].counts[at], 1);
    shared_add_seconds(&counters->histograms[which].sum, seconds);
}

double metrics_request_started(struct shared_counters *counters)
{
    shared_add(&counters->n_requests, 1);
    return clock_ms();
}

void metrics_add_answer(struct shared_counters *counters, enum metrics_route route, int status)
{
    shared_add(&counters->n_answers[route][status_index(status)], 1);
}

void metrics_request_finished(struct shared_counters *counters, enum metrics_route route, int status,
                              double started_ms)
{
    metrics_add_answer(counters, route, status);
    observe(counters, METRICS_LATENCY, clock_ms() - started_ms);
}

void metrics_add_finished(struct shared_counters *counters,
                          const uint32_t n_finished[RUNNEL_FINISH_ERROR + 1], bool is_slow)
{
    for (size_t reason = 0; reason <= RUNNEL_FINISH_ERROR; reason++)
        shared_add(is_slow ? &counters->n_slow_readers : &counters->n_finished[reason], n_finished[reason]);
}

void metrics_add_response(struct shared_counters *counters, const runnel_response *response)
{
    shared_add(&counters->n_reasoning_tokens, response->n_reasoning_tokens);
    if (runnel_thought_end_name(response->thought_end))
        shared_add(&counters->n_thoughts[response->thought_end], 1);
    observe(counters, METRICS_QUEUE, response->queue_ms);
    if (!response->n_tokens)
        return; /* it left before it had any */
    observe(counters, METRICS_PREFILL, response->prefill_ms);
    observe(counters, METRICS_FIRST_TOKEN, response->queue_ms + response->prefill_ms);
    observe(counters, METRICS_DECODE, response->decode_ms);
    observe(counters, METRICS_END_TO_END, response->queue_ms + response->prefill_ms + response->decode_ms);
}

void metrics_text_arrived(struct shared_counters *counters, double *last_ms)
{
    double now_ms = clock_ms();
    if (*last_ms > 0)
        observe(counters, METRICS_INTER_TOKEN, now_ms - *last_ms);
    *last_ms = now_ms;
}

void metrics_add_status(struct shared_counters *counters, int status)
{
    metrics_add_answer(counters, METRICS_OTHER, status);
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

static void add_histogram(struct page *page, const struct shared_counters *counters,
                          enum metrics_histogram which)
{
    const char *name = histograms[which].name, *label = histograms[which].has_model ? page->model : "";
    const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
    const double *bounds = histograms[which].bounds;
    uint64_t n = 0;
    size_t at = 0;
    head(page, name, "histogram", histograms[which].help);
    for (; at < METRICS_BUCKETS && bounds[at] > 0; at++) {
        n += shared_get(&counters->histograms[which].counts[at]);
        add(page, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma, bounds[at], n);
    }
    n += shared_get(&counters->histograms[which].counts[at]);
    add(page, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, n);
    add(page, "%s_sum%s%s%s %.17g\n", name, open, label, close,
        shared_get_seconds(&counters->histograms[which].sum));
    add(page, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, n);
}

static void add_requests(struct page *page, const struct shared_counters *counters)
{
    static const char *const reasons[RUNNEL_FINISH_ERROR + 1] = {
        [RUNNEL_FINISH_STOP] = "stop",
        [RUNNEL_FINISH_LENGTH] = "length",
        [RUNNEL_FINISH_CANCELLED] = "abort",
        [RUNNEL_FINISH_ERROR] = "error",
    };
    number(page, "deepseek_requests_total", "counter", (double)shared_get(&counters->n_requests),
           "Requests to the routes that answer with text.");
    head(page, "runnel_http_responses_total", "counter",
         "Answers by route and status; 499: the client left.");
    for (size_t route = 0; route < METRICS_ROUTES; route++)
        for (size_t status = 0; status < METRICS_STATUSES; status++)
            if (shared_get(&counters->n_answers[route][status]))
                add(page, "runnel_http_responses_total{route=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                    routes[route], statuses[status], shared_get(&counters->n_answers[route][status]));
    head(page, "vllm:request_success_total", "counter", "Answers of the engine, by how they ended.");
    for (size_t reason = RUNNEL_FINISH_STOP; reason <= RUNNEL_FINISH_ERROR; reason++)
        add(page, "vllm:request_success_total{finished_reason=\"%s\",%s} %" PRIu64 "\n", reasons[reason],
            page->model, shared_get(&counters->n_finished[reason]));
    add(page, "vllm:request_success_total{finished_reason=\"slow_reader\",%s} %" PRIu64 "\n", page->model,
        shared_get(&counters->n_slow_readers));
    for (size_t i = 0; i < METRICS_HISTOGRAMS; i++)
        add_histogram(page, counters, (enum metrics_histogram)i);
}

/* A counter of what parts of workers count by themselves. */
static double total(const struct shared_counters *counters, enum shared_total which)
{
    return (double)shared_get(&counters->totals[which]);
}

/* Routers of vLLM's servers read these; some ask for the names that the gauge and the counters had before, too. */
static void add_cache_usage(struct page *page, const struct shared_gauges *now)
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

static void add_prefix_cache(struct page *page, const struct shared_counters *counters)
{
    double queries = total(counters, SHARED_PREFIX_QUERIES), hits = total(counters, SHARED_PREFIX_HITS);
    model_number(page, "vllm:prefix_cache_queries_total", "counter", queries,
                 "Prompt tokens looked up in the prefix cache.");
    model_number(page, "vllm:prefix_cache_hits_total", "counter", hits,
                 "Prompt tokens found in the prefix cache.");
    model_number(page, "vllm:gpu_prefix_cache_queries_total", "counter", queries,
                 "The former name of vllm:prefix_cache_queries_total.");
    model_number(page, "vllm:gpu_prefix_cache_hits_total", "counter", hits,
                 "The former name of vllm:prefix_cache_hits_total.");
}

static void add_drafts(struct page *page, const struct shared_counters *counters)
{
    model_number(page, "vllm:spec_decode_num_drafts_total", "counter", total(counters, SHARED_DRAFTS),
                 "Drafts: an answer's tokens of one step, where more than one was computed.");
    model_number(page, "vllm:spec_decode_num_draft_tokens_total", "counter",
                 total(counters, SHARED_DRAFT_TOKENS), "Guessed tokens that were computed.");
    model_number(page, "vllm:spec_decode_num_accepted_tokens_total", "counter",
                 total(counters, SHARED_DRAFT_ACCEPTED), "Guessed tokens that came true.");
}

static void add_engine(struct page *page, const struct shared_gauges *now,
                       const struct shared_counters *counters)
{
    model_number(page, "vllm:num_requests_running", "gauge", now->n_engine_running,
                 "Requests being computed.");
    model_number(page, "vllm:num_requests_waiting", "gauge", now->n_engine_waiting,
                 "Requests that wait for a place.");
    add_cache_usage(page, now);
    add_prefix_cache(page, counters);
    model_number(page, "vllm:prompt_tokens_total", "counter", total(counters, SHARED_PROMPT_TOKENS),
                 "Tokens of the prompts of requests.");
    model_number(page, "vllm:generation_tokens_total", "counter", total(counters, SHARED_GENERATED_TOKENS),
                 "Tokens generated for all requests.");
    model_number(page, "vllm:num_preemptions_total", "counter", total(counters, SHARED_PREEMPTIONS),
                 "Requests dropped for want of pages, to be computed again.");
    add_drafts(page, counters);
    model_number(page, "runnel_reasoning_tokens_total", "counter",
                 (double)shared_get(&counters->n_reasoning_tokens),
                 "Tokens of thoughts in finished answers.");
    head(page, "runnel_thoughts_total", "counter", "Thoughts that ended, by what ended them.");
    for (size_t end = RUNNEL_THOUGHT_MODEL; end <= RUNNEL_THOUGHT_ASKED; end++)
        add(page, "runnel_thoughts_total{end=\"%s\",%s} %" PRIu64 "\n", runnel_thought_end_name(end),
            page->model, shared_get(&counters->n_thoughts[end]));
    model_number(page, "runnel_steps_total", "counter", total(counters, SHARED_STEPS),
                 "Steps of the engine computed.");
    head(page, "runnel_kv_pages", "gauge",
         "Pages of the KV cache: held by requests, kept for equal prefixes, free.");
    uint32_t n_free = now->n_kv_pages - now->n_kv_used - now->n_kv_cached;
    add(page, "runnel_kv_pages{state=\"used\",%s} %u\n", page->model, now->n_kv_used);
    add(page, "runnel_kv_pages{state=\"cached\",%s} %u\n", page->model, now->n_kv_cached);
    add(page, "runnel_kv_pages{state=\"free\",%s} %u\n", page->model, n_free);
    model_number(page, "runnel_kv_cache_bytes", "gauge", (double)now->n_kv_bytes, "Size of the KV cache.");
}

static void add_loop(struct page *page, const struct shared_gauges *now,
                     const struct shared_counters *counters)
{
    number(page, "runnel_connections", "gauge", now->n_connections, "Connections open now.");
    number(page, "runnel_connections_accepted_total", "counter", total(counters, SHARED_CONNECTIONS_ACCEPTED),
           "Connections accepted since the start.");
    number(page, "runnel_exchanges", "gauge", now->n_exchanges,
           "Requests being answered, this one included.");
    number(page, "runnel_clients_left_total", "counter", total(counters, SHARED_CLIENTS_LEFT),
           "Clients that left before their answer was complete.");
    number(page, "runnel_slow_readers_total", "counter", total(counters, SHARED_SLOW_READERS),
           "Answers given up because their client did not read them, of any route.");
}

static void add_pool(struct page *page, const struct shared_gauges *now,
                     const struct shared_counters *counters)
{
    number(page, "runnel_pool_held_bytes", "gauge", (double)now->pool_held_bytes,
           "Memory that the pool of requests on their way holds from the system.");
    number(page, "runnel_pool_peak_held_bytes", "gauge", (double)now->pool_peak_held_bytes,
           "The most that runnel_pool_held_bytes ever was.");
    number(page, "runnel_pool_limit_bytes", "gauge", (double)now->pool_limit_bytes,
           "The most that runnel_pool_held_bytes may be.");
    number(page, "runnel_pool_in_use_bytes", "gauge", (double)now->pool_in_use_bytes,
           "Memory of requests on their way that is in use now.");
    number(page, "runnel_pool_blocks", "gauge", (double)now->n_pool_blocks,
           "Blocks of the pool of requests' memory in use now.");
    number(page, "runnel_pool_allocations_total", "counter", total(counters, SHARED_POOL_ALLOCATIONS),
           "Blocks taken from the pool of requests' memory.");
    number(page, "runnel_pool_reuses_total", "counter", total(counters, SHARED_POOL_REUSES),
           "Blocks taken from the pool that had been used before.");
    number(page, "runnel_pool_refusals_total", "counter", total(counters, SHARED_POOL_REFUSALS),
           "Blocks refused because runnel_pool_limit_bytes was reached.");
}

static void add_workers(struct page *page, const struct shared *shared,
                        const struct shared_counters *counters)
{
    static const char *const how[SHARED_EXITS] = {
        [SHARED_EXIT_CRASHED] = "crashed",
        [SHARED_EXIT_HUNG] = "hung",
        [SHARED_EXIT_RECYCLED] = "recycled",
        [SHARED_EXIT_STOPPED] = "stopped",
    };
    number(page, "runnel_workers", "gauge", shared_n_workers(shared), "Workers that live.");
    head(page, "runnel_worker_exits_total", "counter", "Workers that ended, by how.");
    for (size_t i = 0; i < SHARED_EXITS; i++)
        add(page, "runnel_worker_exits_total{how=\"%s\"} %" PRIu64 "\n", how[i],
            shared_get(&counters->n_exits[i]));
    number(page, "runnel_reloads_total", "counter", (double)shared_get(&counters->n_reloads),
           "How often API keys and limits were read again.");
    number(page, "runnel_model_swaps_total", "counter", (double)shared_get(&counters->n_swaps),
           "How often another model took the place of the one before.");
}

/* What keeps requests out, and what they get when they are not kept out. */
static void add_protection(struct page *page, const struct shared_gauges *now, const struct server *server,
                           const struct shared_counters *counters)
{
    const struct admit *admit = &server->admit;
    const char *sandbox = server->options->sandbox;
    uint32_t level =
        now->breaker_by_memory > now->breaker_by_timeouts ? now->breaker_by_memory : now->breaker_by_timeouts;
    number(page, "runnel_requests_admitted", "gauge", admit_n_requests(admit),
           "Requests that hold a place now.");
    number(page, "runnel_requests_admitted_limit", "gauge", admit->n_max,
           "Requests that may hold a place at once: --limit-concurrency.");
    number(page, "runnel_long_bodies", "gauge", now->n_preparing,
           "Long bodies that are being read beside the loop, or wait for that; each holds a place.");
    number(page, "runnel_timeouts_total", "counter", (double)shared_get(&counters->n_timeouts),
           "Requests that waited or took longer than they may.");
    head(page, "runnel_refusals_total", "counter",
         "Requests refused: all places taken, the key over its share, the wait too long, the breaker.");
    add(page, "runnel_refusals_total{reason=\"full\"} %" PRIu64 "\n", shared_get(&counters->n_full));
    add(page, "runnel_refusals_total{reason=\"share\"} %" PRIu64 "\n", shared_get(&counters->n_over_share));
    add(page, "runnel_refusals_total{reason=\"wait\"} %" PRIu64 "\n", shared_get(&counters->n_slow));
    add(page, "runnel_refusals_total{reason=\"breaker\"} %" PRIu64 "\n", shared_get(&counters->n_refused));
    number(page, "runnel_breaker_state", "gauge", level,
           "The breaker: 0 closed, 1 degraded (shorter answers), 2 refusing new requests.");
    head(page, "runnel_breaker_opened_total", "counter", "How often the breaker opened, by reason.");
    add(page, "runnel_breaker_opened_total{reason=\"memory\"} %" PRIu64 "\n",
        shared_get(&counters->n_opened_by_memory));
    add(page, "runnel_breaker_opened_total{reason=\"timeouts\"} %" PRIu64 "\n",
        shared_get(&counters->n_opened_by_timeouts));
    number(page, "runnel_degraded_requests_total", "counter", (double)shared_get(&counters->n_degraded),
           "Requests that got less than they asked for.");
    number(page, "runnel_engine_wedged", "gauge", now->is_wedged > 0,
           "1 while the engine does no steps though requests wait, else 0.");
    number(page, "runnel_sandbox_closed", "gauge", sandbox && !strcmp(sandbox, "on"),
           "1 if this process can open no file, run no program and connect to nobody, else 0.");
    number(page, "runnel_log_lines_lost_total", "counter", total(counters, SHARED_LOG_LINES_LOST),
           "Lines of the log for which there was no room.");
}

static double seconds(uint64_t us)
{
    return (double)(us / 1000000) + (double)(us % 1000000) * 1e-6;
}

static void add_process(struct page *page, const struct shared_gauges *now, int64_t created_s,
                        const struct shared_counters *counters)
{
    struct rlimit descriptors;
    number(page, "deepseek_memory_percent", "gauge", now->memory_percent,
           "Memory in use, of the limit that applies: --memory-limit-mib, the container's or the machine's, "
           "0 to 100.");
    if (now->has_gpu)
        number(page, "deepseek_gpu_memory_percent", "gauge", now->gpu_memory_percent,
               "The GPU's memory in use, 0 to 100: by anybody where its driver says, else by this server.");
    number(page, "runnel_memory_used_bytes", "gauge", (double)now->memory_used_bytes,
           "Memory in use, of the kind that runnel_memory_limit_bytes limits.");
    number(page, "runnel_memory_limit_bytes", "gauge", (double)now->memory_limit_bytes,
           "The limit of memory that applies: --memory-limit-mib, the container's or the machine's.");
    number(page, "runnel_memory_growth_bytes", "gauge",
           (double)now->resident_bytes - (double)now->ready_bytes,
           "Resident memory of all workers since they were ready.");
    number(page, "process_cpu_seconds_total", "counter",
           seconds(shared_get(&counters->totals[SHARED_USER_US])) +
               seconds(shared_get(&counters->totals[SHARED_SYSTEM_US])),
           "Processor time used by all workers, those that ended included.");
    number(page, "process_virtual_memory_bytes", "gauge", (double)now->virtual_bytes,
           "Address space of all workers.");
    number(page, "process_resident_memory_bytes", "gauge", (double)now->resident_bytes,
           "Resident memory of all workers, what they share counted for each.");
    number(page, "process_start_time_seconds", "gauge", (double)created_s,
           "When the server was started, in seconds since 1970.");
    number(page, "process_open_fds", "gauge", (double)now->n_descriptors,
           "Descriptors that all workers have open.");
    if (!getrlimit(RLIMIT_NOFILE, &descriptors))
        number(page, "process_max_fds", "gauge", (double)descriptors.rlim_cur,
               "Descriptors that a worker may have open.");
}

void metrics_get(struct server *server, struct exchange *exchange)
{
    const struct shared_counters *counters = server->metrics;
    struct page page = {0};
    struct shared_gauges now;
    make_model_label(page.model, server->model_name);
    metrics_add_answer(server->metrics, METRICS_METRICS, 200);
    gauges_refresh(server);
    gauges_tell(server);
    gauges_sum(server, &now);
    add_requests(&page, counters);
    if (now.has_engine)
        add_engine(&page, &now, counters);
    add_loop(&page, &now, counters);
    add_pool(&page, &now, counters);
    add_workers(&page, server->worker.shared, counters);
    add_protection(&page, &now, server, counters);
    add_process(&page, &now, server->created_s, counters);
    if (page.text.failed)
        exchange_respond_error(exchange, 500, NULL, "no memory for the metrics");
    else
        exchange_respond(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, page.text.bytes,
                         page.text.len);
    text_free(&page.text);
}
