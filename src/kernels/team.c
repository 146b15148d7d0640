/* team.c: the compute threads and their barriers.
 *
 * A struct team owns its threads. All that several threads touch is atomic: `job` counts team_run calls and
 * is what idle members wait for; `round` counts barriers and is what members wait for inside one; `next` is
 * where the shared part of the current loop goes on, set back by the last member that arrives at a barrier.
 */
#include "kernels/team.h"

#include "base/thread.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SPIN_NS = 30000, /* before a waiting member sleeps */
    SPINS_PER_CLOCK_LOOK = 64,
    FIXED_EIGHTHS = 6, /* of a loop that is handed out in fixed shares */
    CACHE_LINE = 64,
};

/* A counter that can be waited for; each on a cache line of its own. */
struct event_counter {
    _Alignas(CACHE_LINE) atomic_uint value;
    atomic_uint n_sleepers;
};

struct member {
    struct team *team;
    unsigned index;
    pthread_t thread;
};

struct team {
    struct event_counter job;
    struct event_counter round;
    _Alignas(CACHE_LINE) atomic_uint n_arrived;
    _Alignas(CACHE_LINE) atomic_uint next;
    /* Written by team_run before `job` rises, read by the members after. */
    _Alignas(CACHE_LINE) void *arg;
    void (*work)(void *arg, unsigned member); /* NULL: the members end */
    unsigned n, n_started;
    struct member *members; /* [n]; the first has no thread */
};

static void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Returns once the counter is no longer `old`. */
static void counter_wait(struct event_counter *counter, unsigned old)
{
    uint64_t sleep_at_ns = 0;
    for (unsigned spins = 1; atomic_load_explicit(&counter->value, memory_order_acquire) == old; spins++) {
        cpu_pause();
        if (spins % SPINS_PER_CLOCK_LOOK)
            continue;
        uint64_t now_ns = monotonic_ns();
        if (!sleep_at_ns) {
            sleep_at_ns = now_ns + SPIN_NS;
        } else if (now_ns >= sleep_at_ns) {
            atomic_fetch_add(&counter->n_sleepers, 1);
            while (atomic_load(&counter->value) == old)
                syscall(SYS_futex, &counter->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
            atomic_fetch_sub(&counter->n_sleepers, 1);
        }
    }
}

/* Raises the counter and wakes who sleeps on it. A member that is about to sleep has announced itself before
 * it looks at the value for the last time, so it either sees the new value or is seen here. */
static void counter_raise(struct event_counter *counter)
{
    atomic_fetch_add(&counter->value, 1);
    if (atomic_load(&counter->n_sleepers))
        syscall(SYS_futex, &counter->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void team_barrier(struct team *team)
{
    if (team->n == 1) {
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        return;
    }
    unsigned round = atomic_load_explicit(&team->round.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->n_arrived, 1, memory_order_acq_rel) + 1 == team->n) {
        atomic_store_explicit(&team->n_arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        counter_raise(&team->round);
    } else {
        counter_wait(&team->round, round);
    }
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    struct team *team = member->team;
    char name[32];
    snprintf(name, sizeof name, "runnel-team %u", member->index);
    thread_begin(name);
    for (unsigned job = 0;; job++) {
        counter_wait(&team->job, job);
        if (!team->work)
            return NULL;
        team->work(team->arg, member->index);
        team_barrier(team);
    }
}

void team_run(struct team *team, void (*work)(void *arg, unsigned member), void *arg)
{
    team->work = work;
    team->arg = arg;
    if (team->n > 1)
        counter_raise(&team->job);
    work(arg, 0);
    team_barrier(team);
}

bool team_next(struct team *team, unsigned member, struct team_loop *loop)
{
    uint32_t fixed = (uint32_t)((uint64_t)loop->n * FIXED_EIGHTHS / 8 / team->n);
    if (team->n == 1)
        fixed = loop->n;
    if (!loop->started) {
        loop->started = true;
        if (fixed) {
            loop->begin = fixed * member;
            loop->end = loop->begin + fixed;
            return true;
        }
    }
    uint32_t shared_begin = fixed * team->n, n_shared = loop->n - shared_begin, n_taken;
    unsigned taken = atomic_load_explicit(&team->next, memory_order_relaxed);
    do {
        if (taken >= n_shared)
            return false;
        n_taken = (n_shared - taken) / (2 * team->n);
        n_taken = n_taken < loop->grain ? n_taken : loop->grain;
        n_taken = n_taken ? n_taken : 1;
    } while (!atomic_compare_exchange_weak_explicit(&team->next, &taken, taken + n_taken,
                                                    memory_order_relaxed, memory_order_relaxed));
    loop->begin = shared_begin + taken;
    loop->end = loop->begin + n_taken;
    return true;
}

unsigned team_size(const struct team *team)
{
    return team->n;
}

int team_create(unsigned n, struct team **out, runnel_error *error)
{
    if (n < 1 || n > 1024)
        return error_set(error, RUNNEL_EINVAL, "threads: %u, expected 1 to 1024", n);
    struct team *team = aligned_alloc(CACHE_LINE, sizeof *team);
    if (!team)
        goto no_memory;
    memset(team, 0, sizeof *team);
    team->n = n;
    team->n_started = 1;
    team->members = calloc(n, sizeof *team->members);
    if (!team->members)
        goto no_memory;
    for (unsigned i = 1; i < n; i++) {
        team->members[i] = (struct member){.team = team, .index = i};
        int failure = thread_start(&team->members[i].thread, member_main, &team->members[i]);
        if (failure) {
            team_free(team);
            return error_set(error, RUNNEL_ENOMEM, "thread %u of %u could not be started: %s", i + 1, n,
                             strerror(failure));
        }
        team->n_started++;
    }
    *out = team;
    return RUNNEL_OK;

no_memory:
    free(team);
    return error_set(error, RUNNEL_ENOMEM, "no memory for a team of %u threads", n);
}

void team_free(struct team *team)
{
    if (!team)
        return;
    team->work = NULL;
    counter_raise(&team->job);
    for (unsigned i = 1; i < team->n_started; i++)
        pthread_join(team->members[i].thread, NULL);
    free(team->members);
    free(team);
}
