/* serve.c: the command `runnel serve`: the socket, the model and the engines of a server, from one table of options.
 *
 * Prints one line on stderr once it can be asked. What the processes of a server do with all that is here; who lives when is
 * service/service.h's. */
#include "base/error.h"
#include "base/limits.h"
#include "cli/affinity.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/context_room.h"
#include "cli/environment.h"
#include "cli/listen.h"
#include "cli/serve_cache.h"
#include "cli/serve_options.h"
#include "server/server.h"
#include "service/divide.h"
#include "service/protection.h"
#include "service/service.h"
#include "service/worker.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A worker with a device may take so long to be ready: its driver compiles, and is waited for that long. */
static const double DEVICE_START_MS = 1200e3;

/* What tells whether a model is still the one that was loaded: its file, and what else its keeper was told. */
struct model_state {
    struct stat file, template_file;
};

/* All that a server is made of. Each process has its own: the supervisor's as far as options and the socket go, the
 * keeper's with a model, and a worker's with an engine. */
struct serving {
    struct serve_settings settings;
    int argc;
    char **argv; /* that settings were read from */
    struct server_options options;
    struct shared *shared; /* by all processes */
    struct log log;
    struct keys *keys, *admin_keys;
    struct model_state state; /* of what was loaded, or is to be */
    struct listen_socket socket;
    char own_name[256]; /* the model's, if its file has none */
    runnel_model *model;
    runnel_engine *engine;
    struct service_share share;
    const struct worker *worker;
    struct protection protection;
};

/* The model ----------------------------------------------------------------------------------------------- */

static void set_sampling(struct serving *serving)
{
    const struct serve_settings *settings = &serving->settings;
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
    if (serving->settings.alias) {
        serving->options.alias = serving->settings.alias;
    } else if (!*info->name) {
        const char *slash = strrchr(serving->settings.model, '/');
        snprintf(serving->own_name, sizeof serving->own_name, "%s",
                 slash ? slash + 1 : serving->settings.model);
        serving->own_name[catalogue_stem(serving->own_name)] = 0;
        serving->options.alias = serving->own_name;
    }
}

/* As much of a context as the model was trained for. */
static uint32_t choose_context(const struct serving *serving, const runnel_model_info *info)
{
    uint32_t n_context = (uint32_t)serving->settings.n_context;
    return n_context < info->n_context_train ? n_context : info->n_context_train;
}

/* What was asked for, or is in the file, and will not be. */
static void remark_model(struct serving *serving, const runnel_model_info *info)
{
    const struct serve_settings *settings = &serving->settings;
    uint32_t n_context = choose_context(serving, info);
    char said[320];
    if (settings->has_context && context_room_cut(info, (uint32_t)settings->n_context, said, sizeof said))
        log_say(&serving->log, "context", "%s", said);
    if (*info->warning)
        log_say(&serving->log, "model", "The model's file, left out: %s", info->warning);
    if (*info->threads_why)
        log_say(&serving->log, "threads", "%s", info->threads_why);
    /* With a window answers may be longer than the context. */
    if (settings->has_max_tokens && !settings->keep_last && (uint32_t)settings->max_tokens >= n_context)
        log_say(&serving->log, "max-tokens",
                "--max-tokens %d is more than fits: an answer ends where the context (--ctx) of %u tokens, "
                "prompt "
                "and answer together, is full",
                settings->max_tokens, n_context);
}

/* In the keeper. */
static int open_model(void *user, char name[SERVICE_NAME_BYTES], runnel_error *error)
{
    struct serving *serving = user;
    const struct serve_settings *settings = &serving->settings;
    int failure =
        cli_open_model_on(&settings->device, settings->model, settings->n_threads, settings->chat_template,
                          settings->chat_template_file, &serving->model, error);
    if (failure)
        return failure;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(serving->model, &info);
    set_sampling(serving);
    set_name(serving, &info);
    serving->options.model_path = settings->model;
    remark_model(serving, &info);
    snprintf(name, SERVICE_NAME_BYTES, "%s", serving->options.alias ? serving->options.alias : info.name);
    return RUNNEL_OK;
}

static void close_model(void *user)
{
    struct serving *serving = user;
    runnel_model_close(serving->model);
}

/* In a worker --------------------------------------------------------------------------------------------- */

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

/* All but the cache. */
static runnel_engine_options make_engine_options(const struct serving *serving, const runnel_model_info *info)
{
    const struct serve_settings *settings = &serving->settings;
    const struct divide_amounts whole = {.n_threads = (uint32_t)info->n_threads,
                                         .n_parallel = (uint32_t)settings->n_parallel};
    const struct divide_amounts part = divide_among(&whole, serving->share.rank, serving->share.n_workers);
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = choose_context(serving, info);
    options.n_threads = part.n_threads;
    options.n_parallel = part.n_parallel;
    options.n_batch = (uint32_t)settings->n_batch;
    options.n_requests = (uint32_t)settings->n_requests;
    options.answer_reserve = settings->has_answer_reserve ? settings->answer_reserve : -1;
    options.keep_last = (uint32_t)settings->keep_last;
    options.keep_first = settings->keep_last ? (uint32_t)settings->keep_first : 0;
    options.step_budget_ms = divide_step_budget_ms(settings->step_budget_ms, serving->share.n_workers);
    options.batch_window_ms = settings->batch_window_ms;
    options.max_wait_ms = settings->max_wait_s * 1e3F;
    options.no_drafts = cli_draft_is_off(settings->draft);
    options.warm_up_prompt_ms = serving->share.prompt_ms;
    options.warm_up_token_ms = serving->share.token_ms;
    options.quick_start = serving->share.token_ms > 0;
    return options;
}

/* What computes, if it is not the CPU alone, or not as it was asked. */
static void remark_device(struct serving *serving, const runnel_model *model)
{
    char line[320];
    serving->protection.has_gpu =
        cli_describe_device(&serving->settings.device, model, serving->engine, line, sizeof line);
    if (serving->protection.has_gpu)
        log_say(&serving->log, "device", "%s", line);
    else if (cli_wants_device(&serving->settings.device))
        log_say(&serving->log, "device", "--device %s: there is no GPU, or it has no room: the CPU computes",
                serving->settings.device.name);
    if (cli_describe_device_problem(serving->engine, line, sizeof line))
        log_say(&serving->log, "device", "%s", line);
}

static int start_engine(void *user, const runnel_model *model, runnel_engine **engine, runnel_error *error)
{
    struct serving *serving = user;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    protection_drop(&serving->protection); /* and so the threads of the engine */
    runnel_engine_options options = make_engine_options(serving, &info);
    int failure = serve_cache_set(&serving->settings, model, serving->share.rank, serving->share.n_workers,
                                  &options, error);
    if (!failure)
        failure = cli_start_engine(model, &options, &serving->engine, error);
    if (failure) {
        error_name_options(engine_names, error);
        return failure;
    }
    serving->options.n_context = options.n_context;
    serving->options.n_parallel = options.n_parallel;
    remark_device(serving, model);
    *engine = serving->engine;
    return RUNNEL_OK;
}

static void close_sandbox(struct serving *serving)
{
    protection_close(&serving->protection);
    serving->options.sandbox = serving->protection.sandbox;
}

static void on_worker_ready(void *user, const struct server *server)
{
    struct serving *serving = user;
    runnel_stats_values stats = {.size = sizeof stats};
    (void)server;
    close_sandbox(serving);
    protection_tell(&serving->protection);
    runnel_stats(serving->engine, &stats);
    worker_tell_ready(serving->worker, stats.warm_up_prompt_ms, stats.warm_up_token_ms);
}

static bool wake_supervisor(void *user)
{
    const struct serving *serving = user;
    return worker_wake_supervisor(serving->worker);
}

static int work(void *user, const struct service_share *share, const struct worker *worker,
                runnel_error *error)
{
    struct serving *serving = user;
    serving->share = *share;
    serving->worker = worker;
    serving->log.n_lost = serving->log.n_untold = 0; /* those of the keeper are not its own */
    serving->options.admin = (struct admin_options){
        .n_workers_max = cli_wants_device(&serving->settings.device) ? 1 : SERVICE_WORKERS_MAX,
        .wake = wake_supervisor,
        .user = serving,
    };
    const struct server_listening listening = {
        .descriptor = serving->socket.descriptor,
        .options = &serving->options,
        .shared = serving->shared,
        .worker = share->slot,
        .log = &serving->log,
        .model = serving->model,
        .start_engine = start_engine,
        .on_ready = on_worker_ready,
        .user = serving,
        .is_worker = true,
    };
    int failure = server_run(&listening, error);
    cli_stop_engine(serving->engine);
    runnel_model_close(serving->model);
    return failure;
}

/* In the greeter, which answers /health and leaves soon once a worker is there ------------------------------- */

static void on_greeter_ready(void *user, const struct server *server)
{
    (void)server;
    close_sandbox(user);
}

static int greet(void *user, runnel_error *error)
{
    struct serving *serving = user;
    const struct server_listening listening = {
        .descriptor = serving->socket.descriptor,
        .options = &serving->options,
        .shared = serving->shared,
        .worker = SERVICE_GREETER_RECORD,
        .log = &serving->log,
        .on_ready = on_greeter_ready,
        .user = serving,
        .is_worker = true,
    };
    return server_run(&listening, error);
}

/* In the supervisor ----------------------------------------------------------------------------------------- */

static void on_ready(void *user, const char *name)
{
    struct serving *serving = user;
    log_say(&serving->log, "ready", "Runnel serves %s at %s", name, serving->socket.url);
}

/* Another model beside the one that is there, and the memory of its workers beside that of theirs. The other one is at least as
 * large as its file. */
static bool has_room(void *user, uint64_t model_bytes)
{
    const struct serving *serving = user;
    uint64_t kv_bytes = (uint64_t)serving->settings.kv_cache_mib << 20;
    uint64_t own_limit = (uint64_t)serving->settings.memory_limit_mib << 20;
    uint64_t file_bytes = (uint64_t)serving->state.file.st_size, other_bytes = model_bytes, room;
    if (model_bytes && file_bytes > model_bytes)
        other_bytes = file_bytes;
    if (own_limit && model_bytes && model_bytes + other_bytes + 2 * kv_bytes > own_limit)
        return false;
    return !limits_memory_room(&room) || other_bytes + kv_bytes <= room;
}

/* From options to what a server is made with ------------------------------------------------------------------ */

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

/* What a worker that others replace has for its requests: as long as each of them may take, the last ones of its open connections
 * included. */
static double retire_ms(const struct serve_settings *settings)
{
    double last_ms = loop_default_limits.retire_idle_ms + (double)settings->head_s * 1e3;
    if (settings->request_s <= 0)
        return HUGE_VAL;
    return fmax((double)settings->drain_s * 1e3, (double)settings->request_s * 1e3 + last_ms);
}

/* What the supervisor itself keeps to. */
static struct service_limits make_service_limits(const struct serve_settings *settings)
{
    return (struct service_limits){
        .drain_ms = (double)settings->drain_s * 1e3,
        .retire_ms = retire_ms(settings),
        .hang_ms = (double)settings->watchdog_s * 1e3,
        .n_requests_most = (uint64_t)settings->n_worker_requests,
    };
}

/* From where it may be asked: the lists lie in the settings. */
static void set_guard(struct serving *serving)
{
    const struct serve_settings *settings = &serving->settings;
    serving->options.guard = (struct guard_options){
        .is_loopback = serving->socket.is_loopback,
        .host = settings->host,
        .allowed_hosts = settings->allowed_hosts.values,
        .n_allowed_hosts = settings->allowed_hosts.n,
        .cors_origins = settings->cors_origins.values,
        .n_cors_origins = settings->cors_origins.n,
    };
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
    if (!serving->settings.insecure)
        return;
    if (serving->socket.is_loopback)
        log_say(&serving->log, "insecure",
                "--insecure changes nothing: %s is reached from this machine alone", serving->settings.host);
    else if (keys_count(serving->keys))
        log_say(&serving->log, "insecure", "--insecure changes nothing: a key was given, and is asked for");
}

static void remark_threads(struct serving *serving)
{
    char line[128];
    if (cli_remark_threads(serving->settings.n_threads, line, sizeof line))
        log_say(&serving->log, "threads", "%s", line);
}

static void tell_in_log(void *log, const char *line)
{
    log_say(log, "environment", "%s", line);
}

/* Keys and limits, which may be told anew while the server runs. */
static void write_rules(const struct serving *serving)
{
    const struct serve_settings *settings = &serving->settings;
    struct shared_rules rules = {
        .keys = *serving->keys,
        .admin_keys = *serving->admin_keys,
        .limits = {.n_requests = (uint32_t)settings->n_requests,
                   .request_ms = (double)settings->request_s * 1e3,
                   .drain_ms = (double)settings->drain_s * 1e3,
                   .retire_ms = retire_ms(settings),
                   .loop = make_limits(settings)},
    };
    set_monitor(&rules.limits.monitor, settings);
    shared_write_rules(serving->shared, &rules);
}

/* Other machines would reach it, and nothing was said of a key. */
static int may_listen(void *user, bool is_loopback, runnel_error *error)
{
    const struct serving *serving = user;
    if (serving->settings.insecure || is_loopback || keys_count(serving->keys))
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL,
                     "--host %s: other machines reach this address, and anybody there could ask: expected "
                     "--api-key, or --insecure",
                     serving->settings.host);
}

/* From settings all that follows from them alone; keys are read. */
static int prepare(struct serving *serving, runnel_error *error)
{
    const struct serve_settings *settings = &serving->settings;
    set_guard(serving);
    int failure = guard_check_options(&serving->options.guard, error);
    if (!failure)
        failure = keys_create(settings->api_keys.values, settings->api_keys.n, settings->api_key_file,
                              &serving->keys, error);
    if (!failure)
        failure = keys_create(settings->admin_keys.values, settings->admin_keys.n, settings->admin_key_file,
                              &serving->admin_keys, error);
    if (failure)
        return failure;
    set_guard(serving);
    serving->options.max_tokens = settings->max_tokens;
    serving->options.n_choices = (uint32_t)settings->n_parallel;
    serving->options.no_thinking = !strcmp(settings->reasoning, "off");
    serving->options.split_reasoning = !strcmp(settings->reasoning_format, "deepseek");
    serving->options.has_seed = settings->has_seed;
    return RUNNEL_OK;
}

/* A file that is not there has no size; that is told when it is to be opened. */
static void look_at_model(struct serving *serving)
{
    const struct serve_settings *settings = &serving->settings;
    struct model_state *state = &serving->state;
    char path[PATH_MAX];
    *state = (struct model_state){0};
    if (catalogue_resolve(settings->model, path, sizeof path, NULL) || stat(path, &state->file))
        state->file.st_size = 0;
    if (settings->chat_template_file && stat(settings->chat_template_file, &state->template_file))
        state->template_file.st_size = 0;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The command line and the environment never change; in the file of --config any option may be another. */
static bool is_same_model(const struct serving *a, const struct serving *b)
{
    return is_same_file(&a->state.file, &b->state.file) &&
           is_same_file(&a->state.template_file, &b->state.template_file) &&
           serve_options_same(&a->settings, &b->settings);
}

/* All options once more, for all processes that are started from now on. Where it listens, how many workers there are, and what
 * was set up at the start (the log, --crash-file, --sandbox, --cpu-affinity) stay. */
static int reload(void *user, struct service_limits *limits, bool *is_other_model, runnel_error *error)
{
    struct serving *serving = user;
    struct serving next = {.argc = serving->argc,
                           .argv = serving->argv,
                           .shared = serving->shared,
                           .log = serving->log,
                           .socket = serving->socket,
                           .protection = serving->protection};
    if (options_read(&serve_table, next.argc, next.argv, &next.settings, error) != OPTIONS_READ)
        return RUNNEL_EINVAL;
    int failure = serve_options_check(&next.settings, error);
    if (!failure)
        failure = prepare(&next, error);
    if (!failure)
        failure = may_listen(&next, next.socket.is_loopback, error);
    if (!failure)
        look_at_model(&next);
    *is_other_model = !failure && !is_same_model(serving, &next);
    struct serving *unused = failure ? &next : serving;
    keys_free(unused->keys);
    keys_free(unused->admin_keys);
    free(unused->settings.config_text);
    if (failure)
        return failure;
    *serving = next;
    set_guard(serving);
    write_rules(serving);
    *limits = make_service_limits(&serving->settings);
    return RUNNEL_OK;
}

static int open_socket(struct serving *serving, runnel_error *error)
{
    const struct serve_settings *settings = &serving->settings;
    int failure = settings->cpu_affinity ? affinity_set(settings->cpu_affinity, error) : RUNNEL_OK;
    if (!failure)
        failure = prepare(serving, error);
    if (!failure)
        failure = listen_open(settings->host, settings->port, may_listen, serving, &serving->socket, error);
    set_guard(serving);
    return failure;
}

static int protect(struct serving *serving, runnel_error *error)
{
    serving->protection.log = &serving->log;
    serving->protection.crash_path = serving->settings.crash_file;
    serving->protection.wants_sandbox = !strcmp(serving->settings.sandbox, "on");
    return protection_watch(&serving->protection, error);
}

static int serve(struct serving *serving)
{
    const struct serve_settings *settings = &serving->settings;
    runnel_error error;
    environment_tell_unknown(tell_in_log, &serving->log);
    raise_descriptor_limit();
    int failure = shared_create(&serving->shared, &error);
    if (!failure)
        failure = protect(serving, &error);
    if (!failure)
        failure = open_socket(serving, &error);
    if (failure) {
        cli_fail(&error);
        return failure == RUNNEL_EINVAL ? EXIT_USAGE : EXIT_FAILED;
    }
    write_rules(serving);
    protection_begin(&serving->protection);
    serving->options.sandbox = serving->protection.sandbox;
    remark_insecure(serving);
    remark_threads(serving);
    const struct service_options service = {
        .log = &serving->log,
        .shared = serving->shared,
        .listener = serving->socket.descriptor,
        .crash_file = serving->protection.crash_file,
        .n_workers = (uint32_t)settings->n_workers,
        .start_ms = cli_wants_device(&settings->device) ? DEVICE_START_MS : 0,
        .limits = make_service_limits(settings),
        .open_model = open_model,
        .close_model = close_model,
        .work = work,
        .greet = greet,
        .has_room = has_room,
        .on_ready = on_ready,
        .reload = reload,
        .user = serving,
    };
    look_at_model(serving);
    failure = service_run(&service, &error);
    close(serving->socket.descriptor);
    return failure ? cli_fail(&error) : EXIT_DONE;
}

int command_serve(int argc, char **argv)
{
    struct serving serving = {
        .argc = argc, .argv = argv, .log = {.descriptor = STDERR_FILENO}, .protection = {.crash_file = -1}};
    runnel_error error;
    int status = cli_read_options_only(&serve_table, argc, argv, &serving.settings);
    if (status >= 0)
        return status;
    serving.log.is_json = serving.settings.log_json;
    if (serve_options_check(&serving.settings, &error)) {
        fprintf(stderr, "runnel serve: %s\n", error.message);
        status = EXIT_USAGE;
    } else {
        status = serve(&serving);
    }
    protection_end(&serving.protection);
    shared_free(serving.shared);
    keys_free(serving.keys);
    keys_free(serving.admin_keys);
    free(serving.settings.config_text);
    return status;
}
