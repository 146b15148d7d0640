/* family.h: the processes that a supervisor has started: their numbers, their pipes, what they said last, and how they ended.
 *
 * What they do is told to the policy (policy.h), whose actions are carried out here. A worker of a keeper that lives is dead when
 * its keeper, which is its parent, says so, and signals go through the keeper; one whose keeper is dead is the supervisor's own
 * child. A keeper that does not do what it should is killed. The supervisor's only thread. */
#ifndef RUNNEL_SERVICE_FAMILY_H
#define RUNNEL_SERVICE_FAMILY_H

#include "service/channel.h"
#include "service/policy.h"
#include "service/service.h"

#include <poll.h>

struct family_keeper {
    pid_t pid; /* 0: none */
    int channel;
    unsigned n_owing; /* times in a row that somebody looked, and it owed something */
    uint64_t n_bytes; /* once it has opened its model */
    /* What steps took the first worker of so many that was ready; n_workers 0: there was none. */
    struct service_share learned;
    char name[SERVICE_NAME_BYTES];
    runnel_error error; /* code 0: it has not said why it could not */
};

struct family_worker {
    bool lives;
    pid_t pid;                     /* 0: not told yet */
    uint32_t keeper;               /* POLICY_NONE: that is dead, and the supervisor the worker's parent */
    int pipe;                      /* -1: it has ended */
    bool hung;                     /* it is killed because it stood still */
    char name[SERVICE_NAME_BYTES]; /* its model's */
    double started_ms;
    runnel_error error; /* as above */
};

struct family {
    const struct service_options *options;
    struct policy policy;
    struct family_keeper keepers[POLICY_KEEPERS];
    struct family_worker workers[POLICY_SLOTS];
    pid_t supervisor, greeter; /* greeter 0: none */
    bool greeter_ends;         /* it was told to */
    unsigned n_greeter_looks;  /* since then */
    uint64_t n_requests_most;  /* service_limits */
    uint64_t n_opened;         /* models, since the start */
    runnel_error error;        /* the last reason why one could not start; code 0: none */
    bool has_orders;           /* somebody has put one into the block */
};

enum { FAMILY_POLLS = POLICY_SLOTS + POLICY_KEEPERS };

void family_init(struct family *family, const struct service_options *options,
                 const struct policy_options *policy);

/* What to wait for: fills polls and returns how many. */
unsigned family_polls(const struct family *family, struct pollfd polls[FAMILY_POLLS]);

/* Takes in what came: messages, and who died. */
void family_listen(struct family *family);
/* The memory of the largest model that is open. */
uint64_t family_model_bytes(const struct family *family);
/* The model that is served: its keeper may be dead. "no model": neither is there a worker. */
const char *family_model_name(const struct family *family);

/* How workers and keepers get on; about once a second. */
void family_look(struct family *family);

/* Carries out what the policy wants, but for POLICY_EXIT_...: false, and *action is that. In a child it does not return. */
bool family_act(struct family *family, struct policy_action *action);

#endif
