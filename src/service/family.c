/* family.c: see family.h. */
#include "service/family.h"

#include "base/clock.h"
#include "service/keeper.h"
#include "service/process.h"
#include "service/title.h"
#include "service/words.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A keeper owes something for so many looks at most, and a greeter stays, of which there is one a second. Not for a time: after a
 * freeze of all processes that would be over. */
enum { OWING_MOST = 5 };

void family_init(struct family *family, const struct service_options *options,
                 const struct policy_options *policy)
{
    *family = (struct family){.options = options, .supervisor = getpid()};
    policy_init(&family->policy, policy);
    for (unsigned i = 0; i < POLICY_KEEPERS; i++)
        family->keepers[i].channel = -1;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        family->workers[i].pipe = -1;
}

unsigned family_polls(const struct family *family, struct pollfd polls[FAMILY_POLLS])
{
    unsigned n = 0;
    for (unsigned i = 0; i < POLICY_KEEPERS; i++)
        if (family->keepers[i].channel >= 0)
            polls[n++] = (struct pollfd){.fd = family->keepers[i].channel, .events = POLLIN};
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (family->workers[i].pipe >= 0)
            polls[n++] = (struct pollfd){.fd = family->workers[i].pipe, .events = POLLIN};
    return n;
}

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

/* Those who died ------------------------------------------------------------------------------------------- */

/* status: as waitpid says, -1: not known. */
static void say_end_of_worker(struct family *family, uint32_t slot, int status)
{
    const struct family_worker *worker = &family->workers[slot];
    enum policy_worker_state was = family->policy.workers[slot].state;
    struct log *log = family->options->log;
    char how[96];
    if (worker->error.code)
        log_say(log, "worker",
                was == POLICY_STARTING ? "Worker %u could not start: %s" : "Worker %u ended: %s", slot,
                worker->error.message);
    else if (status == -1 && (was == POLICY_READY || was == POLICY_STARTING))
        log_say(log, "worker", "Worker %u (pid %d) died", slot, (int)worker->pid);
    else if (status > 0 && was != POLICY_DYING)
        log_say(log, "worker", "Worker %u (pid %d) %s", slot, (int)worker->pid,
                words_of_end(status, how, sizeof how));
}

/* Its record in the block is nobody's, and its end is counted. */
static void bury(const struct family *family, uint32_t slot, int status)
{
    const struct policy_worker *was = &family->policy.workers[slot];
    struct shared_counters *counters = shared_counters(family->options->shared);
    enum shared_exit how = family->workers[slot].hung             ? SHARED_EXIT_HUNG
                           : status && was->state != POLICY_DYING ? SHARED_EXIT_CRASHED
                           : was->is_spent                        ? SHARED_EXIT_RECYCLED
                                                                  : SHARED_EXIT_STOPPED;
    shared_reap(family->options->shared, slot);
    shared_add(&counters->n_exits[how], 1);
}

static void lose_worker(struct family *family, uint32_t slot, int status)
{
    struct family_worker *worker = &family->workers[slot];
    bool has_said_why = worker->error.code != 0;
    /* It was killed because of another one, or its keeper's end is the reason. */
    bool is_known_why = (family->policy.workers[slot].state == POLICY_DYING && family->error.code) ||
                        worker->keeper == POLICY_NONE;
    char how[96];
    /* Before there is a server to speak of, what it says is the error of all. */
    if (family->policy.was_ready)
        say_end_of_worker(family, slot, status);
    if (has_said_why)
        family->error = worker->error;
    else if (status > 0 && !is_known_why)
        error_set(&family->error, RUNNEL_EIO, "worker %u %s before it was ready", slot,
                  words_of_end(status, how, sizeof how));
    close_end(&worker->pipe);
    worker->lives = false;
    bury(family, slot, status);
    policy_worker_died(&family->policy, slot, has_said_why, clock_ms());
}

/* Whose pipe has ended, and whose keeper is dead. Its status is known, unless the keeper had asked for it and could not tell any
 * more. */
static void lose_adopted(struct family *family, uint32_t slot)
{
    pid_t pid = family->workers[slot].pid;
    int status = -1;
    pid_t found = pid > 0 ? waitpid(pid, &status, WNOHANG) : -1;
    if (found) /* 0: it is about to end, and SIGCHLD will tell */
        lose_worker(family, slot, found < 0 ? -1 : status);
}

static void read_reports(struct family *family, uint32_t slot);
static void read_notices(struct family *family, uint32_t seat);
static void send_signal(struct family *family, uint32_t slot, int number);

/* What the keeper was told last may not have come to its worker, which may hear it twice. */
static void signal_again(struct family *family, uint32_t slot)
{
    const struct policy_worker *worker = &family->policy.workers[slot];
    if (worker->state == POLICY_DYING)
        send_signal(family, slot, SIGKILL);
    else if (worker->state == POLICY_DRAINING)
        send_signal(family, slot, worker->is_hurried ? SIGALRM : worker->ends ? SIGUSR1 : SIGTERM);
}

/* The workers that a dead keeper has left are the supervisor's. */
static void adopt_workers(struct family *family, uint32_t seat)
{
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        struct family_worker *worker = &family->workers[i];
        if (!worker->lives || worker->keeper != seat)
            continue;
        worker->keeper = POLICY_NONE;
        read_reports(family, i); /* its number may be among them */
        signal_again(family, i);
        if (worker->pipe < 0)
            lose_adopted(family, i);
    }
}

static void lose_keeper(struct family *family, uint32_t seat, int status)
{
    struct family_keeper *keeper = &family->keepers[seat];
    enum policy_keeper_state was = family->policy.keepers[seat];
    char how[96];
    read_notices(family, seat);
    if (was != POLICY_KEEPER_ENDING && keeper->error.code) {
        family->error = keeper->error;
        if (family->policy.was_ready)
            log_say(family->options->log, "keeper", "The model cannot be opened: %s", keeper->error.message);
    } else if (was != POLICY_KEEPER_ENDING) {
        error_set(&family->error, RUNNEL_EIO, "the keeper, which opens the model, %s",
                  words_of_end(status, how, sizeof how));
        if (family->policy.was_ready)
            log_say(family->options->log, "keeper", "The keeper (pid %d) %s: its workers go on",
                    (int)keeper->pid, how);
    }
    close_end(&keeper->channel);
    keeper->pid = 0;
    bool fits = family->options->has_room(family->options->user, family_model_bytes(family));
    policy_keeper_died(&family->policy, seat, fits, clock_ms());
    adopt_workers(family, seat);
}

/* One of the workers that were adopted, if it is one. */
static void lose_child(struct family *family, pid_t pid, int status)
{
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        const struct family_worker *worker = &family->workers[i];
        if (!worker->lives || worker->pid != pid || worker->keeper != POLICY_NONE)
            continue;
        read_reports(family, i); /* its last words */
        lose_worker(family, i, status);
    }
}

/* Children of the supervisor: keepers, a greeter, workers whose keeper is dead. */
static void reap(struct family *family)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == family->greeter) {
            family->greeter = 0;
            shared_reap(family->options->shared, SERVICE_GREETER_RECORD);
            policy_greeter_ended(&family->policy, clock_ms());
        }
        for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
            if (pid == family->keepers[i].pid)
                lose_keeper(family, i, status);
        lose_child(family, pid, status);
    }
}

/* What they say -------------------------------------------------------------------------------------------- */

/* Others of the same team start the sooner for it. */
static void learn(struct family *family, uint32_t slot, const struct report *report)
{
    const struct policy_worker *worker = &family->policy.workers[slot];
    if (worker->team == family->policy.team.number && worker->keeper != POLICY_NONE)
        family->keepers[worker->keeper].learned =
            (struct service_share){.n_workers = family->policy.team.n_workers,
                                   .prompt_ms = report->prompt_ms,
                                   .token_ms = report->token_ms};
}

static void hear_ready(struct family *family, uint32_t slot, const struct report *report)
{
    double now_ms = clock_ms();
    learn(family, slot, report);
    if (family->policy.has_told_ready)
        log_say(family->options->log, "worker", "Worker %u is ready after %.0f ms", slot,
                now_ms - family->workers[slot].started_ms);
    policy_worker_ready(&family->policy, slot, now_ms);
}

static void hear_report(struct family *family, uint32_t slot, const struct report *report)
{
    struct family_worker *worker = &family->workers[slot];
    if (!worker->pid) /* else its keeper has told, which nobody has taken over: signals go to this number */
        worker->pid = report->pid;
    switch (report->what) {
    case REPORT_READY:
        hear_ready(family, slot, report);
        break;
    case REPORT_FAILED:
        worker->error = report->error;
        break;
    case REPORT_ORDER:
        family->has_orders = true;
        break;
    }
}

static void read_reports(struct family *family, uint32_t slot)
{
    struct family_worker *worker = &family->workers[slot];
    while (worker->pipe >= 0) {
        struct report report;
        enum channel_result result = channel_receive(worker->pipe, &report, sizeof report, NULL);
        if (result == CHANNEL_EMPTY)
            return;
        if (result == CHANNEL_MESSAGE)
            hear_report(family, slot, &report);
        else
            close_end(&worker->pipe);
    }
}

static void hear_notice(struct family *family, uint32_t seat, const struct notice *notice)
{
    struct family_keeper *keeper = &family->keepers[seat];
    switch (notice->what) {
    case NOTICE_OPENED:
        family->n_opened++;
        keeper->n_bytes = notice->n_bytes;
        memcpy(keeper->name, notice->name, sizeof keeper->name);
        policy_keeper_opened(&family->policy, seat);
        break;
    case NOTICE_FAILED:
        keeper->error = notice->error;
        break;
    case NOTICE_FORKED:
        family->workers[notice->slot].pid = notice->pid;
        break;
    case NOTICE_GONE:
        if (!family->workers[notice->slot].lives)
            break;
        read_reports(family, notice->slot);
        if (notice->error.code)
            family->workers[notice->slot].error = notice->error;
        lose_worker(family, notice->slot, notice->status);
        break;
    }
}

static void read_notices(struct family *family, uint32_t seat)
{
    struct family_keeper *keeper = &family->keepers[seat];
    struct notice notice;
    while (keeper->channel >= 0) {
        enum channel_result result = channel_receive(keeper->channel, &notice, sizeof notice, NULL);
        if (result == CHANNEL_EMPTY)
            return;
        if (result == CHANNEL_MESSAGE)
            hear_notice(family, seat, &notice);
        else
            close_end(&keeper->channel); /* how it ended, reap learns */
    }
}

void family_listen(struct family *family)
{
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        read_notices(family, i);
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        read_reports(family, i);
        const struct family_worker *worker = &family->workers[i];
        if (worker->lives && worker->pipe < 0 && worker->keeper == POLICY_NONE)
            lose_adopted(family, i);
    }
    reap(family);
}

uint64_t family_model_bytes(const struct family *family)
{
    uint64_t n_bytes = 0;
    for (unsigned i = 0; i < POLICY_KEEPERS; i++)
        if (family->keepers[i].n_bytes > n_bytes)
            n_bytes = family->keepers[i].n_bytes;
    return n_bytes;
}

const char *family_model_name(const struct family *family)
{
    const struct policy *policy = &family->policy;
    if (policy->team.keeper != POLICY_NONE)
        return family->keepers[policy->team.keeper].name;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        if (family->workers[i].lives && policy->workers[i].team == policy->team.number)
            return family->workers[i].name;
    return "no model";
}

/* What a worker shows of itself in the block. */
static void look_at(struct family *family, uint32_t slot)
{
    const struct service_options *options = family->options;
    struct shared_gauges gauges;
    enum shared_state state = shared_state(options->shared, slot);
    if (state != SHARED_READY && state != SHARED_DRAINING)
        return;
    if (state == SHARED_DRAINING)
        policy_worker_drains(&family->policy, slot, clock_ms());
    shared_read_gauges(options->shared, slot, &gauges);
    policy_worker_progress(&family->policy, slot, gauges.n_steps, (uint64_t)gauges.beat_ms,
                           gauges.n_running > 0, clock_ms());
    if (family->n_requests_most && gauges.n_taken >= family->n_requests_most)
        policy_worker_spent(&family->policy, slot);
}

/* It has an order before it, or a worker of it has ended, and it has not told how. */
static bool owes(const struct family *family, uint32_t seat)
{
    int channel = family->keepers[seat].channel;
    if (channel >= 0 && channel_is_unread(channel))
        return true;
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        const struct family_worker *worker = &family->workers[i];
        if (worker->lives && worker->keeper == seat && worker->pipe < 0)
            return true;
    }
    return false;
}

/* One that is stopped, or stuck: all that its workers are told goes through it, and how they end. */
static void look_at_keeper(struct family *family, uint32_t seat)
{
    struct family_keeper *keeper = &family->keepers[seat];
    keeper->n_owing = owes(family, seat) ? keeper->n_owing + 1 : 0;
    if (keeper->n_owing != OWING_MOST || !keeper->pid)
        return;
    log_say(family->options->log, "keeper", "The keeper (pid %d) is ended: it does not do what it should",
            (int)keeper->pid);
    kill(keeper->pid, SIGKILL);
}

/* The server is not called ready, and does not end, before it has gone. */
static void look_at_greeter(struct family *family)
{
    if (family->greeter && family->greeter_ends && ++family->n_greeter_looks >= OWING_MOST)
        kill(family->greeter, SIGKILL);
}

void family_look(struct family *family)
{
    policy_time_passes(&family->policy, clock_ms());
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++)
        look_at_keeper(family, i);
    look_at_greeter(family);
    for (uint32_t i = 0; i < POLICY_SLOTS; i++)
        if (family->workers[i].lives)
            look_at(family, i);
}

/* Starting and ending -------------------------------------------------------------------------------------- */

static void start_keeper(struct family *family, uint32_t seat)
{
    struct family_keeper *keeper = &family->keepers[seat];
    int ends[2];
    *keeper = (struct family_keeper){.channel = -1};
    if (channel_pair(ends, &family->error)) {
        policy_keeper_died(&family->policy, seat, true, clock_ms());
        return;
    }
    pid_t pid = fork();
    if (pid == 0)
        exit(keeper_run(family->options, ends[1], family->supervisor));
    int reason = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        error_set(&family->error, RUNNEL_ENOMEM, "no process to open the model: %s", strerror(reason));
        policy_keeper_died(&family->policy, seat, true, clock_ms());
        return;
    }
    keeper->pid = pid;
    keeper->channel = ends[0];
}

/* One that loads does not listen, and has nothing to give back. */
static void end_keeper(struct family *family, uint32_t seat)
{
    const struct family_keeper *keeper = &family->keepers[seat];
    const struct order order = {.what = ORDER_END};
    if (!keeper->pid)
        return;
    if (!keeper->name[0] || !channel_send(keeper->channel, &order, sizeof order, -1))
        kill(keeper->pid, SIGKILL);
}

static void start_worker(struct family *family, const struct policy_action *action)
{
    struct family_worker *worker = &family->workers[action->slot];
    struct order order = {
        .what = ORDER_START,
        .share = {.slot = action->slot, .rank = action->rank, .n_workers = action->n_workers}};
    const struct family_keeper *keeper = &family->keepers[action->keeper];
    const struct service_share *learned = &keeper->learned;
    int ends[2];
    if (learned->n_workers == action->n_workers) {
        order.share.prompt_ms = learned->prompt_ms;
        order.share.token_ms = learned->token_ms;
    }
    *worker =
        (struct family_worker){.lives = true, .keeper = action->keeper, .pipe = -1, .started_ms = clock_ms()};
    memcpy(worker->name, keeper->name, sizeof worker->name);
    if (channel_pipe(ends, &worker->error)) {
        lose_worker(family, action->slot, -1);
        return;
    }
    worker->pipe = ends[0];
    bool is_sent = channel_send(keeper->channel, &order, sizeof order, ends[1]);
    close(ends[1]);
    if (!is_sent) /* the keeper is dead, or about to be found so */
        lose_worker(family, action->slot, -1);
}

static void send_signal(struct family *family, uint32_t slot, int number)
{
    const struct family_worker *worker = &family->workers[slot];
    const struct order order = {.what = ORDER_SIGNAL, .share = {.slot = slot}, .number = number};
    if (worker->keeper != POLICY_NONE)
        channel_send(family->keepers[worker->keeper].channel, &order, sizeof order, -1);
    else if (worker->pid > 0 &&
             worker->pipe >= 0) /* it lives, and nobody but the supervisor can take its number away */
        kill(worker->pid, number);
}

static void start_greeter(struct family *family)
{
    pid_t pid = fork();
    if (pid == 0) {
        runnel_error error;
        int keep[] = {family->options->listener, family->options->crash_file};
        process_reset_signals();
        process_die_with(family->supervisor);
        channel_close_others(keep, 2);
        title_set("runnel: greeter");
        exit(family->options->greet(family->options->user, &error) ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    if (pid < 0)
        policy_greeter_ended(&family->policy, clock_ms());
    else
        family->greeter = pid;
    family->greeter_ends = false;
    family->n_greeter_looks = 0;
}

static void kill_worker(struct family *family, const struct policy_action *action)
{
    family->workers[action->slot].hung = family->policy.workers[action->slot].hangs;
    if (action->why)
        log_say(family->options->log, "worker", "Worker %u (pid %d) is ended: %s", action->slot,
                (int)family->workers[action->slot].pid, action->why);
    send_signal(family, action->slot, SIGKILL);
}

static void say_delay(const struct family *family, const struct policy_action *action)
{
    bool is_worker = action->slot != POLICY_NONE;
    log_say(family->options->log, is_worker ? "worker" : "keeper",
            "%s is started in %.1f s, as the last %u could not",
            is_worker ? "The next worker" : "The next keeper", action->delay_ms / 1e3,
            is_worker ? family->policy.n_early : family->policy.n_keeper_early);
}

bool family_act(struct family *family, struct policy_action *action)
{
    switch (action->what) {
    case POLICY_START_KEEPER:
        start_keeper(family, action->keeper);
        return true;
    case POLICY_END_KEEPER:
        end_keeper(family, action->keeper);
        return true;
    case POLICY_START_WORKER:
        start_worker(family, action);
        return true;
    case POLICY_RETIRE_WORKER:
        send_signal(family, action->slot, SIGTERM);
        return true;
    case POLICY_END_WORKER:
        send_signal(family, action->slot, SIGUSR1);
        return true;
    case POLICY_HURRY_WORKER:
        send_signal(family, action->slot, SIGALRM);
        return true;
    case POLICY_KILL_WORKER:
        kill_worker(family, action);
        return true;
    case POLICY_START_GREETER:
        start_greeter(family);
        return true;
    case POLICY_END_GREETER:
        family->greeter_ends = true;
        if (family->greeter)
            kill(family->greeter, SIGTERM);
        return true;
    case POLICY_TELL_READY:
        family->options->on_ready(family->options->user, family_model_name(family));
        return true;
    case POLICY_TELL_CHANGED:
    case POLICY_TELL_GIVEN_UP:
        return true; /* the supervisor's to say */
    case POLICY_TELL_DELAY:
        say_delay(family, action);
        return true;
    case POLICY_EXIT_DONE:
    case POLICY_EXIT_FAILED:
        break;
    }
    return false;
}
