/* supervisor.c: the process that looks after all others: one ppoll over their pipes and signals. See service.h.
 *
 * It opens no model, starts no thread and has no event loop, so that little can happen to it. Signals are blocked but while
 * it waits.
 *
 * Orders are SIGHUP, and what workers hand on. Keys and limits are read as soon as one comes. What has to wait for another change
 * (other workers, another model) waits; of each kind the latest alone, and the one before it is answered. */
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

enum {
    LOOK_MS = 1000,
    TURN_MS = 10000, /* an order for so many workers is refused if its turn does not come within this time */
};

static const struct policy_options usual = {
    .first_delay_ms = 100,
    .longest_delay_ms = 30000,
    .n_early_deaths = 4,
    .start_ms = 120000,
    .hurry_ms = 3000,
};
static const double DRAINED_MS = 3000; /* what a worker may take over its own limit, to tell its clients */
/* A signal that comes so soon after the first is the same: `timeout` sends it to its child and to the child's group. */
static const double SAME_SIGNAL_MS = 20;

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
    /* Orders: kind 0: none, id 0: by a signal. What is being carried out; what waits until it can begin. */
    struct shared_message order, next_workers, next_model;
    double refused_ms; /* next_workers, from then on */
    bool must_reload;  /* SIGHUP came */
    bool owes_model;   /* another one was to be loaded, and is not */
    sigset_t mask;     /* while it waits */
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

/* What came of an order, in the log and for whoever gave it; it is none any more. */
static void answer_order(struct supervisor *supervisor, struct shared_message *order, int code,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
static void answer_order(struct supervisor *supervisor, struct shared_message *order, int code,
                         const char *format, ...)
{
    struct shared_outcome outcome = {.order = order->id, .code = code};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(outcome.message, sizeof outcome.message, format, arguments);
    va_end(arguments);
    log_say(supervisor->family.options->log, "change", "%s", outcome.message);
    shared_add_outcome(&supervisor->service, &outcome);
    if (order->kind == SHARED_ORDER_RELOAD && supervisor->family.policy.has_told_ready)
        tell_ready(supervisor);
    *order = (struct shared_message){0};
}

/* Of a reload: the model is not what it should be. */
static void answer_not_loaded(struct supervisor *supervisor, struct shared_message *order, int code,
                              const char *why)
{
    answer_order(supervisor, order, code, "Keys and limits are read; the model is not loaded again: %s", why);
}

/* Another one came, and nothing will come of this one. */
static void answer_late(struct supervisor *supervisor, struct shared_message *order)
{
    if (order->kind == SHARED_ORDER_RELOAD)
        answer_not_loaded(supervisor, order, RUNNEL_EBUSY, "another one is, by a later order");
    else if (order->kind)
        answer_order(supervisor, order, RUNNEL_EBUSY, "A later order came before there were %u workers",
                     order->value);
}

static void refuse_workers(struct supervisor *supervisor, struct shared_message *order, const char *why)
{
    answer_order(supervisor, order, RUNNEL_EBUSY, "There are not to be %u workers: %s", order->value, why);
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

static void set_limits(struct supervisor *supervisor, const struct service_limits *limits)
{
    supervisor->family.n_requests_most = limits->n_requests_most;
    policy_set_limits(&supervisor->family.policy, limits->drain_ms + DRAINED_MS,
                      limits->retire_ms + DRAINED_MS, limits->hang_ms);
}

/* What loads, or is to be loaded next, knows the options as they were read last. */
static bool is_model_on_its_way(const struct supervisor *supervisor)
{
    return supervisor->order.kind == SHARED_ORDER_RELOAD || supervisor->next_model.kind ||
           policy_is_loading(&supervisor->family.policy);
}

/* Keys and limits, at once. What is left to do with the model waits for its turn. */
static void reload(struct supervisor *supervisor, struct shared_message *order)
{
    struct family *family = &supervisor->family;
    const struct service_options *options = family->options;
    struct service_limits limits;
    bool is_other_model = false;
    runnel_error error;
    if (family->policy.has_told_ready)
        notify_reloading(&supervisor->notify);
    if (options->reload(options->user, &limits, &is_other_model, &error)) {
        answer_order(supervisor, order, error.code, "Nothing is changed: %s", error.message);
        return;
    }
    set_limits(supervisor, &limits);
    shared_add(&shared_counters(options->shared)->n_reloads, 1);
    bool is_owed = supervisor->owes_model || !policy_has_model(&family->policy);
    if (!is_other_model && !is_owed) {
        answer_order(supervisor, order, RUNNEL_OK, "Keys and limits are read again; the model is the same");
    } else if (!is_other_model && is_model_on_its_way(supervisor)) {
        answer_order(supervisor, order, RUNNEL_OK,
                     "Keys and limits are read again; the model is being loaded already");
    } else {
        supervisor->owes_model |= is_other_model;
        answer_late(supervisor, &supervisor->next_model);
        supervisor->next_model = *order;
    }
}

static void take_order(struct supervisor *supervisor, struct shared_message *order)
{
    if (order->kind == SHARED_ORDER_RELOAD) {
        reload(supervisor, order);
    } else if (order->kind == SHARED_ORDER_WORKERS) {
        answer_late(supervisor, &supervisor->next_workers);
        supervisor->next_workers = *order;
        supervisor->refused_ms = clock_ms() + TURN_MS;
    }
}

static void take_orders(struct supervisor *supervisor)
{
    struct family *family = &supervisor->family;
    struct shared_message order = {.kind = SHARED_ORDER_RELOAD};
    if (supervisor->must_reload)
        take_order(supervisor, &order);
    while (family->has_orders && shared_receive_order(family->options->shared, &order))
        take_order(supervisor, &order);
    supervisor->must_reload = family->has_orders = false;
}

static bool begin_workers(struct supervisor *supervisor)
{
    struct shared_message *next = &supervisor->next_workers;
    const struct policy *policy = &supervisor->family.policy;
    if (!next->kind)
        return false;
    if (supervisor->order.kind || !policy_is_settled(policy)) {
        if (clock_ms() >= supervisor->refused_ms)
            refuse_workers(supervisor, next,
                           policy_has_model(policy) ? "another change is under way" : "no model is open");
        return false;
    }
    supervisor->family.error = (runnel_error){0};
    const char *why = begin_scale(supervisor, next->value);
    if (why) {
        refuse_workers(supervisor, next, why);
        return true;
    }
    supervisor->order = *next;
    *next = (struct shared_message){0};
    return true;
}

/* What loads already, or could not be loaded, is given up for it. */
static bool begin_model(struct supervisor *supervisor)
{
    struct shared_message *next = &supervisor->next_model;
    struct family *family = &supervisor->family;
    const struct service_options *options = family->options;
    if (!next->kind || !policy_can_swap(&family->policy))
        return false;
    const char *why = NULL;
    if (policy_is_settled(&family->policy) && !options->has_room(options->user, family_model_bytes(family)))
        why = "two of them do not fit into the memory limit";
    else
        why = policy_swap(&family->policy);
    if (why) {
        answer_not_loaded(supervisor, next, RUNNEL_EBUSY, why);
        return true;
    }
    answer_late(supervisor, &supervisor->order);
    family->error = (runnel_error){0};
    supervisor->order = *next;
    *next = (struct shared_message){0};
    return true;
}

/* True: something is begun or refused. */
static bool obey_orders(struct supervisor *supervisor)
{
    take_orders(supervisor);
    return begin_workers(supervisor) || begin_model(supervisor);
}

/* A team is complete. */
static void tell_changed(struct supervisor *supervisor, uint32_t n_workers)
{
    const struct family *family = &supervisor->family;
    const char *name = family_model_name(family);
    struct shared_message nobodys = {0}, *order = &supervisor->order;
    if (order->kind == SHARED_ORDER_RELOAD && family->policy.is_swapping)
        order = &nobodys; /* it was tried for long, and is not what was ordered */
    else if (order->kind != SHARED_ORDER_WORKERS && supervisor->owes_model && !supervisor->next_model.kind) {
        supervisor->owes_model = false;
        shared_add(&shared_counters(family->options->shared)->n_swaps, 1);
    }
    answer_order(supervisor, order, RUNNEL_OK, "%u worker%s of %s ready", n_workers,
                 n_workers == 1 ? "" : "s", name);
}

/* The team before it serves on. */
static void tell_given_up(struct supervisor *supervisor, uint32_t n_workers)
{
    const struct family *family = &supervisor->family;
    const char *what = supervisor->order.kind == SHARED_ORDER_RELOAD
                           ? "Keys and limits are read; the model is not loaded again"
                           : "The change is given up";
    answer_order(supervisor, &supervisor->order, family->error.code ? family->error.code : RUNNEL_EIO,
                 "%s, and %u worker%s of %s serve on as before: %s", what, n_workers,
                 n_workers == 1 ? "" : "s", family_model_name(family),
                 family->error.code ? family->error.message : "no worker came to be ready");
}

/* A keeper, or workers without a team to return to, are tried for ever: for that nobody is to wait. */
static void tell_delayed(struct supervisor *supervisor, const struct policy_action *action)
{
    const struct policy *policy = &supervisor->family.policy;
    const runnel_error *error = &supervisor->family.error;
    bool is_keeper = action->slot == POLICY_NONE;
    if (!supervisor->order.kind ||
        (!is_keeper && (!policy->is_changing || policy->is_swapping || !policy_can_swap(policy))))
        return;
    answer_order(supervisor, &supervisor->order, error->code ? error->code : RUNNEL_EIO,
                 supervisor->order.kind == SHARED_ORDER_RELOAD
                     ? "Keys and limits are read; the model could not be loaded, and is tried again: %s"
                     : "The workers could not start, and are tried again: %s",
                 error->code ? error->message : "no worker came to be ready");
}

/* Life ------------------------------------------------------------------------------------------------------ */

static void wait_for_something(struct supervisor *supervisor)
{
    struct pollfd polls[FAMILY_POLLS];
    unsigned n = family_polls(&supervisor->family, polls);
    double now_ms = clock_ms(), until_ms = supervisor->looked_ms + LOOK_MS;
    until_ms = fmin(until_ms, policy_wake_ms(&supervisor->family.policy, now_ms));
    if (supervisor->next_workers.kind)
        until_ms = fmin(until_ms, supervisor->refused_ms);
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
    supervisor->family.has_orders = true; /* a worker that died may have left one, and told nobody */
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
        if (action.what == POLICY_TELL_DELAY)
            tell_delayed(supervisor, &action);
        if (action.what == POLICY_TELL_CHANGED)
            tell_changed(supervisor, action.n_workers);
        else if (action.what == POLICY_TELL_GIVEN_UP)
            tell_given_up(supervisor, action.n_workers);
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
    if (options->start_ms > 0)
        policy.start_ms = options->start_ms;
    title_set("runnel: supervisor");
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* it adopts the workers of a keeper that died */
    family_init(family, options, &policy);
    set_limits(&supervisor, &options->limits);
    notify_open(&supervisor.notify);
    watch_signals(&supervisor);
    while (act(&supervisor)) {
        if (obey_orders(&supervisor))
            continue; /* what came of the change before was told */
        show_service(&supervisor);
        wait_for_something(&supervisor);
        obey_signals(&supervisor);
        family_listen(family);
        look(&supervisor);
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
