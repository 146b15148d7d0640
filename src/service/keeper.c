/* keeper.c: see keeper.h. */
#include "service/keeper.h"

#include "service/channel.h"
#include "service/policy.h"
#include "service/process.h"
#include "service/title.h"
#include "service/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct keeper {
    const struct service_options *options;
    int channel;
    pid_t supervisor;
    pid_t workers[POLICY_SLOTS]; /* 0: none in this slot */
    bool must_end;
    int worker_status; /* in a worker: its exit status; -1: this is the keeper */
};

/* The supervisor always reads; it may be late. */
static void tell(const struct keeper *keeper, const struct notice *notice)
{
    while (!channel_send(keeper->channel, notice, sizeof *notice, -1) && errno == EAGAIN) {
        struct pollfd room = {.fd = keeper->channel, .events = POLLOUT};
        poll(&room, 1, -1);
    }
}

/* Memory that this process alone has: the model. 0: not known. */
static uint64_t own_bytes(void)
{
    char line[256];
    unsigned long long n_kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %llu kB", &n_kib) == 1)
            break;
    if (file)
        fclose(file);
    return (uint64_t)n_kib << 10;
}

static int open_model(const struct keeper *keeper)
{
    struct notice notice = {.what = NOTICE_OPENED};
    int failure = keeper->options->open_model(keeper->options->user, notice.name, &notice.error);
    if (failure)
        notice.what = NOTICE_FAILED;
    else
        notice.n_bytes = own_bytes();
    tell(keeper, &notice);
    return failure;
}

static void start_worker(struct keeper *keeper, const struct order *order, int pipe)
{
    struct notice notice = {.what = NOTICE_FORKED, .slot = order->share.slot};
    const struct worker_birth birth = {keeper->options, order, pipe, getpid(), keeper->supervisor};
    pid_t made = order->share.slot < POLICY_SLOTS ? fork() : -1;
    if (made == 0) {
        keeper->worker_status = worker_run(&birth);
        return;
    }
    close(pipe);
    if (made < 0) {
        notice.what = NOTICE_GONE;
        error_set(&notice.error, RUNNEL_ENOMEM, "no process for a worker: %s", strerror(errno));
    } else {
        keeper->workers[order->share.slot] = notice.pid = made;
    }
    tell(keeper, &notice);
}

static void obey(struct keeper *keeper, const struct order *order, int descriptor)
{
    switch (order->what) {
    case ORDER_START:
        start_worker(keeper, order, descriptor);
        break;
    case ORDER_SIGNAL: /* not waited for yet, so the number is still its own */
        if (order->share.slot < POLICY_SLOTS && keeper->workers[order->share.slot])
            kill(keeper->workers[order->share.slot], order->number);
        break;
    case ORDER_END:
        keeper->must_end = true;
        break;
    }
}

static void read_orders(struct keeper *keeper)
{
    for (;;) {
        struct order order;
        int descriptor;
        enum channel_result result = channel_receive(keeper->channel, &order, sizeof order, &descriptor);
        if (result == CHANNEL_EMPTY)
            return;
        if (result == CHANNEL_CLOSED) { /* the supervisor is dead */
            keeper->must_end = true;
            return;
        }
        obey(keeper, &order, descriptor);
        if (keeper->worker_status >= 0)
            return;
    }
}

static void reap(struct keeper *keeper)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (uint32_t i = 0; i < POLICY_SLOTS; i++)
            if (keeper->workers[i] == pid) {
                struct notice notice = {.what = NOTICE_GONE, .slot = i, .pid = pid, .status = status};
                keeper->workers[i] = 0;
                tell(keeper, &notice);
            }
}

static void on_child(int number)
{
    (void)number; /* it only ends ppoll */
}

/* Signals come while it waits, and never else. */
static void watch(struct keeper *keeper)
{
    struct sigaction action = {.sa_handler = on_child};
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &open);
    sigaction(SIGCHLD, &action, NULL);
    while (!keeper->must_end && keeper->worker_status < 0) {
        struct pollfd orders = {.fd = keeper->channel, .events = POLLIN};
        ppoll(&orders, 1, NULL, &open);
        reap(keeper);
        read_orders(keeper);
    }
}

int keeper_run(const struct service_options *options, int channel, pid_t supervisor)
{
    struct keeper keeper = {
        .options = options, .channel = channel, .supervisor = supervisor, .worker_status = -1};
    int keep[] = {options->listener, options->crash_file, channel};
    process_reset_signals();
    process_die_with(supervisor);
    channel_close_others(keep, 3);
    title_set("runnel: keeper");
    if (open_model(&keeper))
        return EXIT_FAILURE;
    watch(&keeper);
    if (keeper.worker_status >= 0)
        return keeper.worker_status;
    for (unsigned i = 0; i < POLICY_SLOTS; i++) /* none, unless the supervisor is dead */
        if (keeper.workers[i])
            kill(keeper.workers[i], SIGKILL);
    options->close_model(options->user);
    return EXIT_SUCCESS;
}
