/* serve.c: the command `runnel serve`: the socket, the model and the engine of a server, from one table of options.
 *
 * Prints one line on stderr once it can be asked. The model is opened on the server's opening thread; the rest is the
 * main thread's. */
#include "base/error.h"
#include "base/options.h"
#include "cli/affinity.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/context_room.h"
#include "cli/environment.h"
#include "server/server.h"
#include "service/protection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,  /* connections that the system keeps until they are accepted */
    URL_BYTES = 320, /* a host's name, and what is around it */
};

struct serve_settings {
    const char *model, *host, *alias, *chat_template, *chat_template_file, *reasoning_format, *reasoning;
    char *config_text;
    int port, n_threads;
    const char *cpu_affinity;
    int n_context, n_parallel, n_batch, kv_cache_mib, keep_first, keep_last;
    int n_requests, max_tokens, top_k;
    int max_body_bytes, max_header_bytes, max_headers, max_uri_bytes, max_connections, max_output_bytes;
    int max_bodies_bytes;
    float batch_window_ms, step_budget_ms, max_wait_s, request_s;
    float sse_ping_s, keep_alive_s, head_s, body_s, write_s, drain_s;
    struct option_texts api_keys, allowed_hosts, cors_origins;
    const char *api_key_file;
    float temperature, top_p, min_p;
    int memory_limit_mib, breaker_timeouts, degraded_max_tokens;
    float breaker_memory_percent, breaker_probe_s, degraded_temperature, wedged_s;
    uint64_t seed;
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_seed, has_max_bodies, has_context,
        has_max_tokens;
    bool insecure, log_json;
    const char *crash_file, *sandbox;
};

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
    {"kv-cache-mib", 0, OPTION_INT, "N", "memory for what the model keeps of all requests, in MiB",
     OPTION_FIELD(struct serve_settings, kv_cache_mib), .minimum = 1, .maximum = 1 << 20,
     .default_text = "512"},
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
    {"cpu-affinity", 0, OPTION_STRING, "LIST",
     "run on these CPUs only, such as 0,2-3 (default: all that it may)",
     OPTION_FIELD(struct serve_settings, cpu_affinity)},
    {"batch-window-ms", 0, OPTION_FLOAT, "MS",
     "how long the first request of an idle server waits for others",
     OPTION_FIELD(struct serve_settings, batch_window_ms), .minimum = 0, .maximum = 60000,
     .default_text = "0"},
    {"step-budget-ms", 0, OPTION_FLOAT, "MS",
     "a step that reads prompts takes about so long at most while others are answered",
     OPTION_FIELD(struct serve_settings, step_budget_ms), .minimum = 1, .maximum = 60000,
     .default_text = "60"},
    {"limit-concurrency", 0, OPTION_INT, "N", "requests computed or waiting at most; the next one is refused",
     OPTION_FIELD(struct serve_settings, n_requests), .minimum = 1, .maximum = 1000, .default_text = "100",
     .group = "Limits"},
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
    {"max-bodies-bytes", 0, OPTION_INT, "N", "likewise, of all that are not parsed yet, together",
     OPTION_FIELD(struct serve_settings, max_bodies_bytes), OPTION_HAS(struct serve_settings, has_max_bodies),
     .minimum = 1024, .maximum = 1 << 30, .default_text = "67108864"},
    {"max-output-bytes", 0, OPTION_INT, "N", "a stream that its client leaves so far behind is ended",
     OPTION_FIELD(struct serve_settings, max_output_bytes), .minimum = 4096, .maximum = 1 << 30,
     .default_text = "262144"},
    {"max-connections", 0, OPTION_INT, "N", "connections at most; the longest idle one makes room",
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
    {"timeout-drain", 0, OPTION_FLOAT, "S", "after SIGTERM, running requests have S seconds to finish",
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
    {"log-json", 0, OPTION_FLAG, NULL, "the lines on stderr, one a request, as JSON",
     OPTION_FIELD(struct serve_settings, log_json), .group = "Log and options"},
    {"crash-file", 0, OPTION_STRING, "FILE",
     "should the program crash, its report goes to the end of FILE (default: to stderr)",
     OPTION_FIELD(struct serve_settings, crash_file)},
    {"sandbox", 0, OPTION_STRING, "WHEN",
     "once the model is loaded, the process can open no file, run no program and connect to nobody",
     OPTION_FIELD(struct serve_settings, sandbox), .choices = "on|off", .default_text = "on"},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct serve_settings, config_text)},
};

const struct options_table serve_table = {"runnel serve",
                                          "Serves a model over HTTP, as the OpenAI API has it.",
                                          serve_options, OPTION_COUNT(serve_options)};

/* What is given back at the end. */
struct serving {
    const struct serve_settings *settings;
    struct server_options options;
    struct metrics metrics;
    struct log log;
    struct keys *keys;
    char url[URL_BYTES];
    char own_name[256]; /* the model's, if its file has none */
    runnel_model *model;
    runnel_engine *engine;
    struct protection protection;
};

/* The model ----------------------------------------------------------------------------------------------- */

static void set_sampling(struct serving *serving)
{
    const struct serve_settings *settings = serving->settings;
    runnel_sampling *sampling = &serving->options.sampling;
    runnel_sampling_init(serving->model, sampling);
    sampling->seed = settings->seed;
    if (settings->has_temperature)
        sampling->temperature = settings->temperature;
    if (settings->has_top_p)
        sampling->top_p = settings->top_p;
    if (settings->has_top_k)
        sampling->top_k = settings->top_k;
    if (settings->has_min_p)
        sampling->min_p = settings->min_p;
}

/* --alias, the file's own name, or what the file is called. */
static void set_name(struct serving *serving, const runnel_model_info *info)
{
    if (serving->settings->alias) {
        serving->options.alias = serving->settings->alias;
    } else if (!*info->name) {
        const char *slash = strrchr(serving->settings->model, '/');
        snprintf(serving->own_name, sizeof serving->own_name, "%s",
                 slash ? slash + 1 : serving->settings->model);
        serving->own_name[catalogue_stem(serving->own_name)] = 0;
        serving->options.alias = serving->own_name;
    }
}

/* What a process needs of the model however many engines it has: it is open, and requests have their defaults. */
static int open_model(void *user, const runnel_model **model, runnel_error *error)
{
    struct serving *serving = user;
    const struct serve_settings *settings = serving->settings;
    int failure = cli_open_model(settings->model, settings->n_threads, settings->chat_template,
                                 settings->chat_template_file, &serving->model, error);
    if (failure)
        return failure;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(serving->model, &info);
    set_sampling(serving);
    set_name(serving, &info);
    serving->options.model_path = settings->model;
    *model = serving->model;
    return RUNNEL_OK;
}

/* What the engine may refuse, as it was asked for here. */
static const struct field_name engine_names[] = {
    {"n_kv_bytes", "--kv-cache-mib"},
    {"n_context", "--ctx"},
    {"n_batch", "--batch"},
    {"n_parallel", "--parallel"},
    {"n_requests", "--limit-concurrency"},
    {"keep_first", "--keep-first"},
    {"keep_last", "--keep-last"},
    {NULL, NULL},
};

static runnel_engine_options make_engine_options(const struct serve_settings *settings,
                                                 const runnel_model_info *info)
{
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = (uint32_t)settings->n_context;
    if (options.n_context > info->n_context_train)
        options.n_context = info->n_context_train;
    options.n_parallel = (uint32_t)settings->n_parallel;
    options.n_batch = (uint32_t)settings->n_batch;
    options.n_requests = (uint32_t)settings->n_requests;
    options.n_kv_bytes = (uint64_t)settings->kv_cache_mib << 20;
    options.keep_last = (uint32_t)settings->keep_last;
    options.keep_first = settings->keep_last ? (uint32_t)settings->keep_first : 0;
    options.step_budget_ms = settings->step_budget_ms;
    options.batch_window_ms = settings->batch_window_ms;
    options.max_wait_ms = settings->max_wait_s * 1e3F;
    return options;
}

static int start_engine(void *user, const runnel_model *model, runnel_engine **engine, runnel_error *error)
{
    struct serving *serving = user;
    const struct serve_settings *settings = serving->settings;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    protection_drop(&serving->protection); /* and so the threads of the engine: all files are read */
    const runnel_engine_options options = make_engine_options(settings, &info);
    char said[320];
    if (settings->has_context && context_room_cut(&info, (uint32_t)settings->n_context, said, sizeof said))
        log_say(&serving->log, "context", "%s", said);
    int failure =
        context_room_check("--kv-cache-mib", (uint64_t)settings->kv_cache_mib, options.n_kv_bytes, error);
    if (!failure)
        failure = runnel_engine_start(model, &options, &serving->engine, error);
    if (failure) {
        error_name_options(engine_names, error);
        return failure;
    }
    serving->options.n_context = options.n_context;
    serving->options.n_parallel = options.n_parallel;
    *engine = serving->engine;
    return RUNNEL_OK;
}

/* With a window answers may be longer than the context. */
static void remark_max_tokens(const struct serving *serving, const struct server *server)
{
    const struct serve_settings *settings = serving->settings;
    uint32_t n_context = serving->options.n_context;
    if (settings->has_max_tokens && !settings->keep_last && (uint32_t)settings->max_tokens >= n_context)
        log_say(server->log, "max-tokens",
                "--max-tokens %d is more than fits: an answer ends where the context (--ctx) of %u tokens, "
                "prompt "
                "and answer together, is full",
                settings->max_tokens, n_context);
}

static void on_ready(void *user, const struct server *server)
{
    struct serving *serving = user;
    runnel_model_info info = {.size = sizeof info};
    protection_close(&serving->protection);
    serving->options.sandbox = serving->protection.sandbox;
    runnel_model_get_info(serving->model, &info);
    if (*info.warning)
        log_say(server->log, "model", "The model's file, left out: %s", info.warning);
    if (*info.threads_why)
        log_say(server->log, "threads", "%s", info.threads_why);
    remark_max_tokens(serving, server);
    log_say(server->log, "ready", "Runnel serves %s at %s", server->model_name, serving->url);
}

/* The socket ---------------------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static int fail_socket(int descriptor, const struct serve_settings *settings, runnel_error *error)
{
    int reason = errno;
    if (descriptor >= 0)
        close(descriptor);
    return error_set(error, RUNNEL_EIO, "%s port %d: %s", settings->host, settings->port,
                     reason == EADDRINUSE ? "another program listens there already; --port takes another"
                                          : strerror(reason));
}

/* A listening socket, and the URL that reaches it. */
static int listen_on(const struct addrinfo *address, const struct serve_settings *settings, int *descriptor,
                     char url[URL_BYTES], runnel_error *error)
{
    int made = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (made < 0)
        return fail_socket(made, settings, error);
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (bind(made, address->ai_addr, address->ai_addrlen) || listen(made, BACKLOG) ||
        getsockname(made, (struct sockaddr *)&bound, &len) ||
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return fail_socket(made, settings, error);
    bool is_v6 = bound.ss_family == AF_INET6;
    snprintf(url, URL_BYTES, "http://%s%.255s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
    *descriptor = made;
    return RUNNEL_OK;
}

static int open_socket(const struct serve_settings *settings, struct guard_options *guard, int *descriptor,
                       char url[URL_BYTES], runnel_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char port[8];
    snprintf(port, sizeof port, "%d", settings->port);
    int reason = getaddrinfo(settings->host, port, &hints, &found);
    if (reason)
        return error_set(error, RUNNEL_EIO, "%s: expected an address or a host name: %s", settings->host,
                         gai_strerror(reason));
    int failure;
    guard->is_loopback = is_loopback(found->ai_addr);
    if (!settings->insecure && !guard->is_loopback && !keys_count(guard->keys))
        failure =
            error_set(error, RUNNEL_EINVAL,
                      "--host %s: other machines reach this address, and anybody there could ask: expected "
                      "--api-key, or --insecure",
                      settings->host);
    else
        failure = listen_on(found, settings, descriptor, url, error);
    freeaddrinfo(found);
    return failure;
}

static void set_monitor(struct monitor_options *options, const struct serve_settings *settings)
{
    *options = (struct monitor_options){
        .memory_limit_bytes = (uint64_t)settings->memory_limit_mib << 20,
        .breaker = {.memory_percent = settings->breaker_memory_percent,
                    .n_timeouts = (unsigned)settings->breaker_timeouts,
                    .probe_ms = settings->breaker_probe_s * 1e3},
        .degraded_max_tokens = settings->degraded_max_tokens,
        .degraded_temperature = settings->degraded_temperature,
        .wedged_ms = settings->wedged_s * 1e3,
    };
}

/* The command --------------------------------------------------------------------------------------------- */

/* From where it may be asked. */
static int set_guard(struct serving *serving, runnel_error *error)
{
    const struct serve_settings *settings = serving->settings;
    struct guard_options *guard = &serving->options.guard;
    *guard = (struct guard_options){
        .host = settings->host,
        .allowed_hosts = settings->allowed_hosts.values,
        .n_allowed_hosts = settings->allowed_hosts.n,
        .cors_origins = settings->cors_origins.values,
        .n_cors_origins = settings->cors_origins.n,
    };
    int failure = guard_check_options(guard, error);
    if (!failure)
        failure = keys_create(settings->api_keys.values, settings->api_keys.n, settings->api_key_file,
                              &serving->keys, error);
    guard->keys = serving->keys;
    return failure;
}

static struct loop_limits make_limits(const struct serve_settings *settings)
{
    struct loop_limits limits = loop_default_limits;
    limits.keep_alive_ms = (double)settings->keep_alive_s * 1e3;
    limits.head_ms = (double)settings->head_s * 1e3;
    limits.body_ms = (double)settings->body_s * 1e3;
    limits.comment_ms =
        settings->sse_ping_s > 0 ? fmax((double)settings->sse_ping_s * 1e3, 1) : 1e12; /* never */
    limits.write_stall_ms = (double)settings->write_s * 1e3;
    limits.n_connections = (uint32_t)settings->max_connections;
    limits.output_bytes = (uint32_t)settings->max_output_bytes;
    limits.http.body_bytes = (uint64_t)settings->max_body_bytes;
    limits.all_body_bytes = limits.http.body_bytes;
    if ((uint64_t)settings->max_bodies_bytes > limits.all_body_bytes)
        limits.all_body_bytes = (uint64_t)settings->max_bodies_bytes;
    limits.http.header_bytes = (uint32_t)settings->max_header_bytes;
    limits.http.n_headers = (uint32_t)settings->max_headers;
    limits.http.target_bytes = (uint32_t)settings->max_uri_bytes;
    return limits;
}

/* As many descriptors as the system lets this process have: each connection is one. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* --insecure only permits: says so where there was nothing to permit. */
static void remark_insecure(struct serving *serving)
{
    if (!serving->settings->insecure)
        return;
    if (serving->options.guard.is_loopback)
        log_say(&serving->log, "insecure",
                "--insecure changes nothing: %s is reached from this machine alone", serving->settings->host);
    else if (keys_count(serving->keys))
        log_say(&serving->log, "insecure", "--insecure changes nothing: a key was given, and is asked for");
}

static void remark_threads(struct serving *serving)
{
    char line[128];
    if (cli_remark_threads(serving->settings->n_threads, line, sizeof line))
        log_say(&serving->log, "threads", "%s", line);
}

static void tell_in_log(void *log, const char *line)
{
    log_say(log, "environment", "%s", line);
}

static int serve(const struct serve_settings *settings)
{
    runnel_error error;
    struct serving serving = {
        .settings = settings,
        .log = {.descriptor = STDERR_FILENO, .is_json = settings->log_json},
        .protection = {.log = &serving.log,
                       .crash_path = settings->crash_file,
                       .wants_sandbox = !strcmp(settings->sandbox, "on"),
                       .crash_file = -1},
    };
    int descriptor = -1;
    environment_tell_unknown(tell_in_log, &serving.log);
    raise_descriptor_limit();
    int failure = settings->cpu_affinity ? affinity_set(settings->cpu_affinity, &error) : RUNNEL_OK;
    if (!failure)
        failure = protection_watch(&serving.protection, &error);
    if (!failure)
        failure = set_guard(&serving, &error);
    if (!failure)
        failure = open_socket(settings, &serving.options.guard, &descriptor, serving.url, &error);
    if (failure) {
        keys_free(serving.keys);
        protection_end(&serving.protection);
        cli_fail(&error);
        return failure == RUNNEL_EINVAL ? EXIT_USAGE : EXIT_FAILED;
    }
    protection_begin(&serving.protection);
    serving.options.sandbox = serving.protection.sandbox;
    remark_insecure(&serving);
    remark_threads(&serving);
    metrics_init(&serving.metrics);
    serving.options.max_tokens = settings->max_tokens;
    serving.options.n_requests = (uint32_t)settings->n_requests;
    serving.options.no_thinking = !strcmp(settings->reasoning, "off");
    serving.options.split_reasoning = !strcmp(settings->reasoning_format, "deepseek");
    serving.options.has_seed = settings->has_seed;
    set_monitor(&serving.options.monitor, settings);
    serving.options.request_ms = (double)settings->request_s * 1e3;
    serving.options.drain_ms = (double)settings->drain_s * 1e3;
    const struct loop_limits limits = make_limits(settings);
    const struct server_listening listening = {
        .descriptor = descriptor,
        .options = &serving.options,
        .limits = &limits,
        .metrics = &serving.metrics,
        .log = &serving.log,
        .open_model = open_model,
        .start_engine = start_engine,
        .on_ready = on_ready,
        .user = &serving,
    };
    failure = server_run(&listening, &error);
    runnel_engine_stop(serving.engine);
    runnel_model_close(serving.model);
    close(descriptor);
    protection_end(&serving.protection);
    keys_free(serving.keys);
    return failure ? cli_fail(&error) : EXIT_DONE;
}

/* What the table of options cannot say. */
static int check_values(const struct serve_settings *settings, runnel_error *error)
{
    if (settings->has_max_bodies && settings->max_bodies_bytes < settings->max_body_bytes)
        return error_set(error, RUNNEL_EINVAL,
                         "--max-bodies-bytes: expected at least the %d of --max-body-bytes, found %d",
                         settings->max_body_bytes, settings->max_bodies_bytes);
    if (settings->has_seed && settings->seed > INT64_MAX) /* JSON's integers: /completion and /props say it */
        return error_set(error, RUNNEL_EINVAL, "--seed: expected a number up to %lld, found %llu",
                         (long long)INT64_MAX, (unsigned long long)settings->seed);
    return RUNNEL_OK;
}

int command_serve(int argc, char **argv)
{
    struct serve_settings settings;
    runnel_error error;
    int status = cli_read_options_only(&serve_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (check_values(&settings, &error)) {
        fprintf(stderr, "runnel serve: %s\n", error.message);
        free(settings.config_text);
        return EXIT_USAGE;
    }
    status = serve(&settings);
    free(settings.config_text);
    return status;
}
