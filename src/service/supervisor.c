/* supervisor.c: the process that looks after all others: one ppoll over their pipes and signals. See service.h.
 *
 * It opens no model, starts no thread and has no event loop, so that little can happen to it. Signals are blocked but while
 * it waits. Orders (SIGHUP, and those that workers hand on) are carried out one after the other. */
#include "base/clock.h"
#include "service/family.h"
#include "service/notify.h"
#include "service/service.h"
#include "service/title.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { LOOK_MS = 1000 };

static const struct policy_options usual = {
    .first_delay_ms = 100,
    .longest_delay_ms = 30000,
    .n_early_deaths = 4,
    .start_ms = 120000,
    .hurry_ms = 3000,
};
static const double DRAINED_MS = 3000; /* what a worker may take over its own limit, to tell its clients */
/* A signal that comes so soon after the first is the same: `timeout` sends it to its child and to the child's group. */
static const double SAME_SIGNAL_MS = 200;

static const int watched[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
enum { N_WATCHED = sizeof watched / sizeof *watched };

_Static_assert((int)POLICY_SLOTS <= (int)SERVICE_GREETER_RECORD &&
                   (int)POLICY_WORKERS_MAX == (int)SERVICE_WORKERS_MAX,
               "each worker has a record");

/* Set by signals, which come in ppoll alone. */
static volatile sig_atomic_t n_ends, n_hangups;

struct supervisor {
    struct family family;
    struct notify notify; /* systemd */
    struct shared_service service;
    struct shared_message order; /* that is being carried out; kind 0: none, id 0: by a signal */
    bool must_reload;            /* SIGHUP came */
    bool owes_model;             /* another one was to be loaded, and is not */
    sigset_t mask;               /* while it waits */
    sigset_t mask_before;
    struct sigaction before[N_WATCHED];
    bool has_terminal;
    double looked_ms, ended_ms; /* ended_ms: when the first signal to end came */
    uint64_t n_lines_lost;      /* of its log, that are counted already */
};

/* Signals --------------------------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    n_ends += number == SIGTERM || number == SIGINT;
    n_hangups += number == SIGHUP;
}

/* They come though whoever started this process has blocked them. */
static void watch_signals(struct supervisor *supervisor)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    n_ends = n_hangups = 0;
    signal(SIGPIPE, SIG_IGN); /* whoever reads the log may go */
    for (unsigned i = 0; i < N_WATCHED; i++) {
        sigaddset(&blocked, watched[i]);
        sigaction(watched[i], &action, &supervisor->before[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked, &supervisor->mask_before);
    supervisor->mask = supervisor->mask_before;
    for (unsigned i = 0; i < N_WATCHED; i++)
        sigdelset(&supervisor->mask, watched[i]);
}

static void let_signals_be(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < N_WATCHED; i++)
        sigaction(watched[i], &supervisor->before[i], NULL);
    sigprocmask(SIG_SETMASK, &supervisor->mask_before, NULL);
}

static void end(struct supervisor *supervisor)
{
    struct family *family = &supervisor->family;
    double now_ms = clock_ms();
    if (family->policy.is_hurried ||
        (family->policy.is_ending && now_ms - supervisor->ended_ms < SAME_SIGNAL_MS))
        return;
    supervisor->ended_ms = now_ms;
    log_say(family->options->log, family->policy.is_ending ? "stop" : "drain",
            family->policy.is_ending ? "A second signal: what still runs is given up" : "Runnel ends");
    notify_stopping(&supervisor->notify);
    policy_end(&family->policy, now_ms);
}

/* The terminal that the server was started from is gone: nobody would see it any more. Else SIGHUP means to read all again. */
static void obey_signals(struct supervisor *supervisor)
{
    if (n_hangups && supervisor->has_terminal && !isatty(STDERR_FILENO))
        n_ends++;
    else if (n_hangups)
        supervisor->must_reload = true;
    n_hangups = 0;
    for (; n_ends > 0; n_ends--)
        end(supervisor);
}

/* Orders ---------------------------------------------------------------------------------------------------- */

/* What systemd shows of the service; it is ready, or again. */
static void tell_ready(const struct supervisor *supervisor)
{
    const struct family *family = &supervisor->family;
    uint32_t n_workers = family->policy.team.n_workers;
    char status[192];
    snprintf(status, sizeof status, "%.128s, %u worker%s", family_model_name(family), n_workers,
             n_workers == 1 ? "" : "s");
    notify_ready(&supervisor->notify, status);
}

/* What came of an order, in the log and for whoever gave it. */
static void answer_order(struct supervisor *supervisor, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void answer_order(struct supervisor *supervisor, int code, const char *format, ...)
{
    struct shared_service *service = &supervisor->service;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(service->message, sizeof service->message, format, arguments);
    va_end(arguments);
    log_say(supervisor->family.options->log, "change", "%s", service->message);
    service->code = code;
    if (supervisor->order.id)
        service->answered = supervisor->order.id;
    if (supervisor->order.kind == SHARED_ORDER_RELOAD)
        tell_ready(supervisor);
    supervisor->order = (struct shared_message){0};
}

/* The workers that there are stay until all others are ready. */
static const char *begin_scale(struct supervisor *supervisor, uint32_t n_workers)
{
    const struct service_options *options = supervisor->family.options;
    if (n_workers < 1 || n_workers > POLICY_WORKERS_MAX)
        return "expected 1 to 15";
    if (!options->has_room(options->user, 0))
        return "their memory does not fit beside that of those that are there";
    return policy_scale(&supervisor->family.policy, n_workers);
}

static void scale(struct supervisor *supervisor)
{
    const char *why = begin_scale(supervisor, supervisor->order.value);
    if (why)
        answer_order(supervisor, RUNNEL_EBUSY, "There are not to be %u workers: %s", supervisor->order.value,
                     why);
}

static void set_limits(struct supervisor *supervisor, const struct service_limits *limits)
{
    supervisor->family.n_requests_most = limits->n_requests_most;
    policy_set_limits(&supervisor->family.policy, limits->drain_ms + DRAINED_MS,
                      limits->retire_ms + DRAINED_MS, limits->hang_ms);
}

static void reload(struct supervisor *supervisor)
{
    struct family *family = &supervisor->family;
    const struct service_options *options = family->options;
    struct service_limits limits;
    bool is_other_model = false;
    runnel_error error;
    const char *why = NULL;
    notify_reloading(&supervisor->notify);
    if (options->reload(options->user, &limits, &is_other_model, &error)) {
        answer_order(supervisor, error.code, "Nothing is changed: %s", error.message);
        return;
    }
    set_limits(supervisor, &limits);
    shared_add(&shared_counters(options->shared)->n_reloads, 1);
    if (!is_other_model && !supervisor->owes_model) {
        answer_order(supervisor, RUNNEL_OK, "Keys and limits are read again; the model is the same");
        return;
    }
    supervisor->owes_model = true;
    if (!options->has_room(options->user, family_model_bytes(family)))
        why = "two of them do not fit into the memory limit";
    else
        why = policy_swap(&family->policy);
    if (why)
        answer_order(supervisor, RUNNEL_EBUSY, "The model is not loaded again: %s", why);
}

static bool take_order(struct supervisor *supervisor)
{
    const struct service_options *options = supervisor->family.options;
    unsigned from;
    if (supervisor->must_reload) {
        supervisor->must_reload = false;
        supervisor->order = (struct shared_message){.kind = SHARED_ORDER_RELOAD};
        return true;
    }
    if (!supervisor->family.has_orders)
        return false;
    supervisor->family.has_orders =
        shared_receive(options->shared, SHARED_SUPERVISOR, &supervisor->order, &from);
    return supervisor->family.has_orders;
}

/* One after the other: the next one waits until what the last one began has come to its end. */
static void obey_orders(struct supervisor *supervisor)
{
    struct family *family = &supervisor->family;
    while (!supervisor->order.kind && policy_is_settled(&family->policy) && take_order(supervisor)) {
        family->error = (runnel_error){0};
        if (supervisor->order.kind == SHARED_ORDER_WORKERS)
            scale(supervisor);
        else if (supervisor->order.kind == SHARED_ORDER_RELOAD)
            reload(supervisor);
        else
            supervisor->order = (struct shared_message){0};
    }
}

/* A team is complete, or the one before it serves on. */
static void end_change(struct supervisor *supervisor, const struct policy_action *action)
{
    const struct family *family = &supervisor->family;
    const char *name = family_model_name(family), *many = action->n_workers == 1 ? "" : "s";
    if (action->what == POLICY_TELL_CHANGED && supervisor->order.kind != SHARED_ORDER_WORKERS &&
        supervisor->owes_model) {
        supervisor->owes_model = false;
        shared_add(&shared_counters(family->options->shared)->n_swaps, 1);
    }
    if (action->what == POLICY_TELL_CHANGED)
        answer_order(supervisor, RUNNEL_OK, "%u worker%s of %s ready", action->n_workers, many, name);
    else
        answer_order(supervisor, family->error.code ? family->error.code : RUNNEL_EIO,
                     "The change is given up, and %u worker%s of %s serve on as before: %s",
                     action->n_workers, many, name,
                     family->error.code ? family->error.message : "no worker came to be ready");
}

/* Life ------------------------------------------------------------------------------------------------------ */

static void wait_for_something(struct supervisor *supervisor)
{
    struct pollfd polls[FAMILY_POLLS];
    unsigned n = family_polls(&supervisor->family, polls);
    double now_ms = clock_ms(), until_ms = supervisor->looked_ms + LOOK_MS;
    until_ms = fmin(until_ms, policy_wake_ms(&supervisor->family.policy, now_ms));
    until_ms = fmin(until_ms, supervisor->notify.told_ms + supervisor->notify.every_ms);
    double wait_ms = ceil(fmax(until_ms - now_ms, 0));
    struct timespec timeout = {.tv_sec = (time_t)(wait_ms / 1e3),
                               .tv_nsec = (long)fmod(wait_ms, 1e3) * 1000000};
    ppoll(polls, n, &timeout, &supervisor->mask);
}

static void look(struct supervisor *supervisor)
{
    double now_ms = clock_ms();
    notify_alive(&supervisor->notify, now_ms);
    if (now_ms - supervisor->looked_ms < LOOK_MS)
        return;
    supervisor->looked_ms = now_ms;
    family_look(&supervisor->family);
}

/* Lines of the log that could not be written, as workers count theirs. */
static void count_lost_lines(struct supervisor *supervisor)
{
    const struct service_options *options = supervisor->family.options;
    uint64_t n_lost = options->log->n_lost;
    shared_add(&shared_counters(options->shared)->totals[SHARED_LOG_LINES_LOST],
               n_lost - supervisor->n_lines_lost);
    supervisor->n_lines_lost = n_lost;
}

/* For workers that are asked how the server is. */
static void show_service(struct supervisor *supervisor)
{
    const struct policy *policy = &supervisor->family.policy;
    count_lost_lines(supervisor);
    supervisor->service.n_workers_wanted = policy->team.n_workers;
    supervisor->service.model_generation = supervisor->family.n_opened;
    shared_tell_service(supervisor->family.options->shared, &supervisor->service);
}

/* True until all have gone. */
static bool act(struct supervisor *supervisor)
{
    struct policy_action action;
    while (policy_next(&supervisor->family.policy, clock_ms(), &action)) {
        if (action.what == POLICY_TELL_READY)
            tell_ready(supervisor);
        if (action.what == POLICY_TELL_CHANGED || action.what == POLICY_TELL_GIVEN_UP)
            end_change(supervisor, &action);
        else if (!family_act(&supervisor->family, &action))
            return false;
    }
    return true;
}

int service_run(const struct service_options *options, runnel_error *error)
{
    struct supervisor supervisor = {
        .has_terminal = isatty(STDERR_FILENO), .looked_ms = clock_ms(), .service = {.pid = getpid()}};
    struct family *family = &supervisor.family;
    struct policy_options policy = usual;
    policy.n_workers = options->n_workers;
    title_set("runnel: supervisor");
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* it adopts the workers of a keeper that died */
    family_init(family, options, &policy);
    set_limits(&supervisor, &options->limits);
    notify_open(&supervisor.notify);
    watch_signals(&supervisor);
    while (act(&supervisor)) {
        show_service(&supervisor);
        wait_for_something(&supervisor);
        obey_signals(&supervisor);
        family_listen(family);
        look(&supervisor);
        obey_orders(&supervisor);
    }
    notify_close(&supervisor.notify);
    let_signals_be(&supervisor);
    if (!family->policy.has_failed)
        return RUNNEL_OK;
    if (error)
        *error = family->error;
    return family->error.code
               ? family->error.code
               : error_set(error, RUNNEL_EIO, "the processes of the server could not be started");
}
