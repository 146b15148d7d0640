/* serve_options.h: the options of `runnel serve`. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_SERVE_OPTIONS_H
#define RUNNEL_CLI_SERVE_OPTIONS_H

#include "base/error.h"
#include "base/options.h"
#include "cli/cli.h"

#include <stdbool.h>
#include <stdint.h>

/* As read by serve_table (cli.h). */
struct serve_settings {
    const char *model, *host, *alias, *chat_template, *chat_template_file, *reasoning_format, *reasoning,
        *draft;
    char *config_text;
    int port, n_threads, n_workers, n_worker_requests;
    const char *cpu_affinity;
    int n_context, n_parallel, n_batch, kv_cache_mib, keep_first, keep_last;
    int n_requests, max_tokens, answer_reserve, top_k;
    int max_body_bytes, max_header_bytes, max_headers, max_uri_bytes, max_connections, max_output_bytes;
    int max_bodies_bytes;
    float batch_window_ms, step_budget_ms, max_wait_s, request_s;
    float sse_ping_s, keep_alive_s, head_s, body_s, write_s, drain_s;
    struct option_texts api_keys, admin_keys, allowed_hosts, cors_origins;
    const char *api_key_file, *admin_key_file;
    float temperature, top_p, min_p;
    int memory_limit_mib, breaker_timeouts, degraded_max_tokens;
    float breaker_memory_percent, breaker_probe_s, degraded_temperature, wedged_s, watchdog_s;
    uint64_t seed;
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_seed, has_max_bodies, has_context,
        has_max_tokens, has_answer_reserve, has_kv_cache;
    bool insecure, log_json;
    const char *crash_file, *sandbox;
    struct cli_device device;
};

/* What the table cannot say. */
int serve_options_check(const struct serve_settings *settings, runnel_error *error);

/* Whether all that the table has was given in both, or left out, with the same values. */
bool serve_options_same(const struct serve_settings *a, const struct serve_settings *b);

#endif
