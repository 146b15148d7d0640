/* serve_options.c: the table of options of `runnel serve`, and what it cannot say. See serve_options.h. */
#include "cli/serve_options.h"

#include "cli/cli.h"
#include "server/net/http.h"
#include "service/service.h"

#include <string.h>

static const struct option_spec serve_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct serve_settings, model), .required = true, .bare = true},
    {"host", 0, OPTION_STRING, "NAME", "listen on this address or host name",
     OPTION_FIELD(struct serve_settings, host), .default_text = "127.0.0.1",
     .group = "Where it listens, and who may ask"},
    {"port", 0, OPTION_INT, "N", "listen on this port; 0: any that is free",
     OPTION_FIELD(struct serve_settings, port), .minimum = 0, .maximum = 65535, .default_text = "8080"},
    {"insecure", 0, OPTION_FLAG, NULL, "listen on an address that other machines reach, without a key",
     OPTION_FIELD(struct serve_settings, insecure)},
    {"api-key", 0, OPTION_TEXTS, "KEY,KEY",
     "whoever asks must show one of these keys, as Authorization: Bearer KEY or X-Api-Key: KEY",
     OPTION_FIELD(struct serve_settings, api_keys)},
    {"api-key-file", 0, OPTION_STRING, "FILE", "likewise, a key a line; lines that begin with # are remarks",
     OPTION_FIELD(struct serve_settings, api_key_file)},
    {"admin-key", 0, OPTION_TEXTS, "KEY,KEY",
     "whoever shows one of these keys may change the number of workers and have the model loaded again "
     "(runnel ctl)",
     OPTION_FIELD(struct serve_settings, admin_keys)},
    {"admin-key-file", 0, OPTION_STRING, "FILE", "likewise, a key a line",
     OPTION_FIELD(struct serve_settings, admin_key_file)},
    {"allowed-host", 0, OPTION_TEXTS, "NAME,NAME",
     "a Host besides the loopback names by which this server may be called; *.NAME, or * for any",
     OPTION_FIELD(struct serve_settings, allowed_hosts)},
    {"cors-origin", 0, OPTION_TEXTS, "ORIGIN,ORIGIN",
     "pages from there may ask, too: https://app.example, or * for any",
     OPTION_FIELD(struct serve_settings, cors_origins)},
    {"ctx", 0, OPTION_INT, "N", "context of a request in tokens, prompt and answer together",
     OPTION_FIELD(struct serve_settings, n_context), OPTION_HAS(struct serve_settings, has_context),
     .minimum = 2, .maximum = 1 << 24, .default_text = "8192", .group = "Requests and memory"},
    {"parallel", 0, OPTION_INT, "N", "requests computed together at most",
     OPTION_FIELD(struct serve_settings, n_parallel), .minimum = 1, .maximum = 256, .default_text = "8"},
    {"kv-cache-mib", 0, OPTION_INT, "N",
     "memory for what the model keeps of all requests, in MiB; if it is not given, more where one --ctx for "
     "each worker needs it",
     OPTION_FIELD(struct serve_settings, kv_cache_mib), OPTION_HAS(struct serve_settings, has_kv_cache),
     .minimum = 1, .maximum = 1 << 20, .default_text = "512"},
    {"batch", 0, OPTION_INT, "N", "tokens computed in one step at most",
     OPTION_FIELD(struct serve_settings, n_batch), .minimum = 1, .maximum = 8192, .default_text = "512"},
    {"keep-first", 0, OPTION_INT, "N", "with --keep-last: tokens kept at the beginning",
     OPTION_FIELD(struct serve_settings, keep_first), .minimum = 0, .maximum = 1 << 24, .default_text = "64",
     .needs = "keep-last"},
    {"keep-last", 0, OPTION_INT, "N",
     "answers see only the last N tokens, and may get longer than the context; 0: all",
     OPTION_FIELD(struct serve_settings, keep_last), .minimum = 0, .maximum = 1 << 24},
    {"alias", 0, OPTION_STRING, "NAME", "the model's name in answers (default: the file's own)",
     OPTION_FIELD(struct serve_settings, alias), .group = "Answers"},
    {"temp", 0, OPTION_FLOAT, "T", "temperature of requests that do not say (default: the model's own)",
     OPTION_FIELD(struct serve_settings, temperature), OPTION_HAS(struct serve_settings, has_temperature),
     .minimum = 0, .maximum = 2}, /* as the request's own field */
    {"top-p", 0, OPTION_FLOAT, "P", "likewise: keep the likeliest tokens that together reach P",
     OPTION_FIELD(struct serve_settings, top_p), OPTION_HAS(struct serve_settings, has_top_p),
     .minimum = 1e-6, .maximum = 1}, /* 0 is refused by every request */
    {"top-k", 0, OPTION_INT, "K", "likewise: keep the K likeliest tokens; 0: all",
     OPTION_FIELD(struct serve_settings, top_k), OPTION_HAS(struct serve_settings, has_top_k), .minimum = 0,
     .maximum = 1 << 24},
    {"min-p", 0, OPTION_FLOAT, "P", "likewise: drop tokens less likely than P times the likeliest",
     OPTION_FIELD(struct serve_settings, min_p), OPTION_HAS(struct serve_settings, has_min_p), .minimum = 0,
     .maximum = 1},
    {"seed", 0, OPTION_UINT64, "S", "likewise (default: another one each time)",
     OPTION_FIELD(struct serve_settings, seed), OPTION_HAS(struct serve_settings, has_seed)},
    {"max-tokens", 0, OPTION_INT, "N", "likewise: tokens of an answer, thoughts included",
     OPTION_FIELD(struct serve_settings, max_tokens), OPTION_HAS(struct serve_settings, has_max_tokens),
     .minimum = 1, .maximum = 1 << 24, .default_text = "4096"},
    CLI_ANSWER_RESERVE(struct serve_settings),
    {"reasoning-format", 0, OPTION_STRING, "NAME", "thoughts apart from the answer, or as part of it",
     OPTION_FIELD(struct serve_settings, reasoning_format), .choices = "deepseek|none",
     .default_text = "deepseek"},
    {"chat-template", 0, OPTION_STRING, "NAME", "instead of the model's own chat template",
     OPTION_FIELD(struct serve_settings, chat_template), .choices = "r1|chatml"},
    {"chat-template-file", 0, OPTION_STRING, "FILE",
     "a chat template in Jinja's language instead of the model's own",
     OPTION_FIELD(struct serve_settings, chat_template_file), .excludes = "chat-template"},
    {"reasoning", 0, OPTION_STRING, "WHEN",
     "whether requests that do not say so are answered after a thought; auto: if the model thinks",
     OPTION_FIELD(struct serve_settings, reasoning), .choices = "on|off|auto", .default_text = "auto"},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct serve_settings, n_threads), .minimum = 0, .maximum = 256, .group = "Speed"},
    CLI_DEVICE_OPTIONS(struct serve_settings, device),
    {"cpu-affinity", 0, OPTION_STRING, "LIST",
     "run on these CPUs only, such as 0,2-3 (default: all that it may)",
     OPTION_FIELD(struct serve_settings, cpu_affinity)},
    {"batch-window-ms", 0, OPTION_FLOAT, "MS",
     "how long the first request of an idle server waits for others",
     OPTION_FIELD(struct serve_settings, batch_window_ms), .minimum = 0, .maximum = 60000,
     .default_text = "0"},
    {"step-budget-ms", 0, OPTION_FLOAT, "MS",
     "a step that reads prompts takes about so long at most while others are answered (default: 60, times "
     "the "
     "number of workers)",
     OPTION_FIELD(struct serve_settings, step_budget_ms), .maximum = 60000},
    CLI_DRAFT_OPTION(struct serve_settings),
    {"workers", 0, OPTION_INT, "N",
     "processes that answer, each with its part of threads, --parallel and --kv-cache-mib; the model is in "
     "memory once",
     OPTION_FIELD(struct serve_settings, n_workers), .minimum = 1, .maximum = SERVICE_WORKERS_MAX,
     .default_text = "1"},
    {"limit-concurrency", 0, OPTION_INT, "N", "requests computed or waiting at most; the next one is refused",
     OPTION_FIELD(struct serve_settings, n_requests), .minimum = 1, .maximum = 1000, .default_text = "100",
     .group = "Limits"},
    {"limit-max-requests", 0, OPTION_INT, "N",
     "after N requests a worker is replaced by a new one, which is ready before it goes; 0: never",
     OPTION_FIELD(struct serve_settings, n_worker_requests), .minimum = 0, .maximum = 1 << 30},
    {"max-wait-s", 0, OPTION_FLOAT, "S",
     "a request that would have to wait longer for its turn is refused; 0: it waits",
     OPTION_FIELD(struct serve_settings, max_wait_s), .minimum = 0, .maximum = 86400, .default_text = "30"},
    {"request-timeout-s", 0, OPTION_FLOAT, "S", "a request that takes longer in all is ended; 0: never",
     OPTION_FIELD(struct serve_settings, request_s), .minimum = 0, .maximum = 86400, .default_text = "600"},
    {"max-body-bytes", 0, OPTION_INT, "N", "a longer request is refused",
     OPTION_FIELD(struct serve_settings, max_body_bytes), .minimum = 1024, .maximum = 1 << 30,
     .default_text = "2097152"},
    {"max-header-bytes", 0, OPTION_INT, "N", "likewise, of all its headers",
     OPTION_FIELD(struct serve_settings, max_header_bytes), .minimum = 256, .maximum = 1 << 20,
     .default_text = "32768"},
    {"max-headers", 0, OPTION_INT, "N", "likewise, their number",
     OPTION_FIELD(struct serve_settings, max_headers), .minimum = 8, .maximum = HTTP_MAX_HEADERS,
     .default_text = "100"},
    {"max-uri-bytes", 0, OPTION_INT, "N", "likewise, of its path and query",
     OPTION_FIELD(struct serve_settings, max_uri_bytes), .minimum = 64, .maximum = 1 << 20,
     .default_text = "8192"},
    {"max-bodies-bytes", 0, OPTION_INT, "N",
     "likewise, of all that are not parsed yet, together, in each worker",
     OPTION_FIELD(struct serve_settings, max_bodies_bytes), OPTION_HAS(struct serve_settings, has_max_bodies),
     .minimum = 1024, .maximum = 1 << 30, .default_text = "67108864"},
    {"max-output-bytes", 0, OPTION_INT, "N", "a stream that its client leaves so far behind is ended",
     OPTION_FIELD(struct serve_settings, max_output_bytes), .minimum = 4096, .maximum = 1 << 30,
     .default_text = "262144"},
    {"max-connections", 0, OPTION_INT, "N",
     "connections of each worker at most; the longest idle one makes room",
     OPTION_FIELD(struct serve_settings, max_connections), .minimum = 1, .maximum = 1 << 20,
     .default_text = "4096"},
    {"timeout-head", 0, OPTION_FLOAT, "S", "the head of a request must have come within S seconds",
     OPTION_FIELD(struct serve_settings, head_s), .minimum = 0.1, .maximum = 86400, .default_text = "10"},
    {"timeout-body", 0, OPTION_FLOAT, "S",
     "the body of a request likewise; bytes that arrive extend the time",
     OPTION_FIELD(struct serve_settings, body_s), .minimum = 0.1, .maximum = 86400, .default_text = "30"},
    {"timeout-write", 0, OPTION_FLOAT, "S",
     "the answer of a client that reads nothing of it for S seconds, or then less than 16 KiB/s, is ended",
     OPTION_FIELD(struct serve_settings, write_s), .minimum = 0.1, .maximum = 86400, .default_text = "30"},
    {"sse-ping-s", 0, OPTION_FLOAT, "S",
     "send a comment line in a stream that was silent for S seconds, also while its request waits; 0: none",
     OPTION_FIELD(struct serve_settings, sse_ping_s), .minimum = 0, .maximum = 86400, .default_text = "15"},
    {"timeout-drain", 0, OPTION_FLOAT, "S",
     "after SIGTERM, running requests have S seconds to finish; those of a worker that another one replaces "
     "as long as --request-timeout-s says",
     OPTION_FIELD(struct serve_settings, drain_s), .minimum = 0, .maximum = 86400, .default_text = "10"},
    {"timeout-keep-alive", 0, OPTION_FLOAT, "S", "a connection without a request is closed after S seconds",
     OPTION_FIELD(struct serve_settings, keep_alive_s), .minimum = 1, .maximum = 86400, .default_text = "60"},
    {"memory-limit-mib", 0, OPTION_INT, "N",
     "memory that this process should not pass; 0: the container's or the machine's",
     OPTION_FIELD(struct serve_settings, memory_limit_mib), .minimum = 0, .maximum = 1 << 30,
     .group = "When it does not cope"},
    {"breaker-memory-percent", 0, OPTION_FLOAT, "P",
     "answers degrade once more than P % of the memory is used; 100: never",
     OPTION_FIELD(struct serve_settings, breaker_memory_percent), .minimum = 1, .maximum = 100,
     .default_text = "90"},
    {"breaker-timeouts", 0, OPTION_INT, "N", "answers degrade after N timeouts in a row; 0: never",
     OPTION_FIELD(struct serve_settings, breaker_timeouts), .minimum = 0, .maximum = 1 << 16,
     .default_text = "3"},
    {"breaker-probe-s", 0, OPTION_FLOAT, "S",
     "S seconds after it became degraded for timeouts, the server lets one request through in full to see "
     "whether it has recovered",
     OPTION_FIELD(struct serve_settings, breaker_probe_s), .minimum = 0.1, .maximum = 3600,
     .default_text = "10"},
    {"degraded-max-tokens", 0, OPTION_INT, "N", "tokens of a degraded answer at most",
     OPTION_FIELD(struct serve_settings, degraded_max_tokens), .minimum = 1, .maximum = 1 << 24,
     .default_text = "512"},
    {"degraded-temperature", 0, OPTION_FLOAT, "T", "temperature of a degraded answer at most",
     OPTION_FIELD(struct serve_settings, degraded_temperature), .minimum = 0, .maximum = 100,
     .default_text = "0.3"},
    {"wedged-s", 0, OPTION_FLOAT, "S", "/health says 503 once requests have waited so long without a step",
     OPTION_FIELD(struct serve_settings, wedged_s), .minimum = 1, .maximum = 86400, .default_text = "60"},
    {"watchdog-s", 0, OPTION_FLOAT, "S",
     "a worker whose requests have waited so long without a step is ended, and another takes its place; 0: "
     "never",
     OPTION_FIELD(struct serve_settings, watchdog_s), .minimum = 0, .maximum = 86400, .default_text = "120"},
    {"log-json", 0, OPTION_FLAG, NULL, "the lines on stderr, one a request, as JSON",
     OPTION_FIELD(struct serve_settings, log_json), .group = "Log and options"},
    {"crash-file", 0, OPTION_STRING, "FILE",
     "should the program crash, its report goes to the end of FILE (default: to stderr)",
     OPTION_FIELD(struct serve_settings, crash_file)},
    {"sandbox", 0, OPTION_STRING, "WHEN",
     "once it is ready, a worker can open no file, run no program and connect to nobody",
     OPTION_FIELD(struct serve_settings, sandbox), .choices = "on|off", .default_text = "on"},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct serve_settings, config_text)},
};

const struct options_table serve_table = {"runnel serve",
                                          "Serves a model over HTTP, as the OpenAI API has it.",
                                          serve_options, OPTION_COUNT(serve_options)};

int serve_options_check(const struct serve_settings *settings, runnel_error *error)
{
    if (settings->has_max_bodies && settings->max_bodies_bytes < settings->max_body_bytes)
        return error_set(error, RUNNEL_EINVAL,
                         "--max-bodies-bytes: expected at least the %d of --max-body-bytes, found %d",
                         settings->max_body_bytes, settings->max_bodies_bytes);
    if (settings->n_workers > 1 && cli_wants_device(&settings->device))
        return error_set(
            error, RUNNEL_EINVAL,
            "--workers: expected 1 with --device %s, found %d: each worker would hold the model in the "
            "GPU's memory for itself",
            settings->device.name, settings->n_workers);
    if (settings->has_seed && settings->seed > INT64_MAX) /* JSON's integers: /completion and /props say it */
        return error_set(error, RUNNEL_EINVAL, "--seed: expected a number up to %lld, found %llu",
                         (long long)INT64_MAX, (unsigned long long)settings->seed);
    return RUNNEL_OK;
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static bool are_same_texts(const struct option_texts *a, const struct option_texts *b)
{
    bool are_same = a->n == b->n;
    for (size_t i = 0; are_same && i < a->n; i++)
        are_same = is_same_text(a->values[i], b->values[i]);
    return are_same;
}

static bool is_same_value(const struct option_spec *spec, const void *a, const void *b)
{
    switch (spec->type) {
    case OPTION_STRING:
        return is_same_text(*(const char *const *)a, *(const char *const *)b);
    case OPTION_INT:
        return *(const int *)a == *(const int *)b;
    case OPTION_UINT64:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case OPTION_FLOAT:
        return !memcmp(a, b, sizeof(float));
    case OPTION_FLAG:
        return *(const bool *)a == *(const bool *)b;
    case OPTION_TEXTS:
        return are_same_texts(a, b);
    case OPTION_INTS: /* the table has none */
    case OPTION_CONFIG:
        break; /* the text of the file: what it says is in the others */
    }
    return true;
}

bool serve_options_same(const struct serve_settings *a, const struct serve_settings *b)
{
    bool are_same = true;
    for (size_t i = 0; are_same && i < serve_table.n_specs; i++) {
        const struct option_spec *spec = &serve_table.specs[i];
        const char *in_a = (const char *)a, *in_b = (const char *)b;
        are_same = is_same_value(spec, in_a + spec->field, in_b + spec->field);
        if (are_same && spec->has_field)
            are_same = in_a[spec->has_field - 1] == in_b[spec->has_field - 1];
    }
    return are_same;
}
