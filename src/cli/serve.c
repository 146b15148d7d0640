/* serve.c: the command `runnel serve`: the socket, the model and the engine of a server, from one table of options.
 *
 * Prints one line on stderr once it can be asked. The model is opened on the server's opening thread; the rest is the
 * main thread's. */
#include "base/error.h"
#include "cli/affinity.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/context_room.h"
#include "cli/environment.h"
#include "cli/listen.h"
#include "cli/serve_options.h"
#include "server/server.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What is given back at the end. */
struct serving {
    const struct serve_settings *settings;
    struct server_options options;
    struct shared *shared;
    struct log log;
    struct keys *keys;
    struct listen_socket socket;
    char own_name[256]; /* the model's, if its file has none */
    runnel_model *model;
    runnel_engine *engine;
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
    const struct serving *serving = user;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(serving->model, &info);
    if (*info.warning)
        log_say(server->log, "model", "The model's file, left out: %s", info.warning);
    if (*info.threads_why)
        log_say(server->log, "threads", "%s", info.threads_why);
    remark_max_tokens(serving, server);
    log_say(server->log, "ready", "Runnel serves %s at %s", server->model_name, serving->socket.url);
}

/* The command's parts --------------------------------------------------------------------------------------- */

/* Other machines would reach it, and nothing was said of a key. */
static int may_listen(void *user, bool is_loopback, runnel_error *error)
{
    const struct serving *serving = user;
    if (serving->settings->insecure || is_loopback || keys_count(serving->keys))
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL,
                     "--host %s: other machines reach this address, and anybody there could ask: expected "
                     "--api-key, or --insecure",
                     serving->settings->host);
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
    return failure;
}

static struct loop_limits make_loop_limits(const struct serve_settings *settings)
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

/* What a server that runs may be told anew. */
static void write_rules(const struct serving *serving)
{
    const struct serve_settings *settings = serving->settings;
    struct shared_rules rules = {
        .keys = *serving->keys,
        .limits = {.n_requests = (uint32_t)settings->n_requests,
                   .request_ms = (double)settings->request_s * 1e3,
                   .drain_ms = (double)settings->drain_s * 1e3,
                   .loop = make_loop_limits(settings)},
    };
    set_monitor(&rules.limits.monitor, settings);
    shared_write_rules(serving->shared, &rules);
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
    };
    environment_tell_unknown(tell_in_log, &serving.log);
    raise_descriptor_limit();
    int failure = settings->cpu_affinity ? affinity_set(settings->cpu_affinity, &error) : RUNNEL_OK;
    if (!failure)
        failure = set_guard(&serving, &error);
    if (!failure)
        failure = shared_create(&serving.shared, &error);
    if (!failure)
        failure = listen_open(settings->host, settings->port, may_listen, &serving, &serving.socket, &error);
    if (failure) {
        shared_free(serving.shared);
        keys_free(serving.keys);
        cli_fail(&error);
        return failure == RUNNEL_EINVAL ? EXIT_USAGE : EXIT_FAILED;
    }
    serving.options.guard.is_loopback = serving.socket.is_loopback;
    remark_insecure(&serving);
    remark_threads(&serving);
    serving.options.max_tokens = settings->max_tokens;
    serving.options.no_thinking = !strcmp(settings->reasoning, "off");
    serving.options.split_reasoning = !strcmp(settings->reasoning_format, "deepseek");
    serving.options.has_seed = settings->has_seed;
    write_rules(&serving);
    const struct server_listening listening = {
        .descriptor = serving.socket.descriptor,
        .options = &serving.options,
        .shared = serving.shared,
        .log = &serving.log,
        .open_model = open_model,
        .start_engine = start_engine,
        .on_ready = on_ready,
        .user = &serving,
    };
    failure = server_run(&listening, &error);
    runnel_engine_stop(serving.engine);
    runnel_model_close(serving.model);
    close(serving.socket.descriptor);
    shared_free(serving.shared);
    keys_free(serving.keys);
    return failure ? cli_fail(&error) : EXIT_DONE;
}

int command_serve(int argc, char **argv)
{
    struct serve_settings settings;
    runnel_error error;
    int status = cli_read_options_only(&serve_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (serve_options_check(&settings, &error)) {
        fprintf(stderr, "runnel serve: %s\n", error.message);
        free(settings.config_text);
        return EXIT_USAGE;
    }
    status = serve(&settings);
    free(settings.config_text);
    return status;
}
