/* channel.h: messages of a fixed size between the processes of a server. Over a pair of sockets they go both ways and may
 * carry a descriptor; over a pipe they go to its reader. All functions belong to whoever holds the end; none waits.
 *
 * A message is a struct without pointers. One that is longer than PIPE_BUF does not compile. */
#ifndef RUNNEL_SERVICE_CHANNEL_H
#define RUNNEL_SERVICE_CHANNEL_H

#include "base/error.h"
#include "service/service.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the supervisor orders of a keeper. */
enum order_what {
    ORDER_START,  /* a worker: share; the message carries the end of its pipe */
    ORDER_SIGNAL, /* number to the worker in the share's slot */
    ORDER_END,    /* no worker is left */
};

struct order {
    enum order_what what;
    struct service_share share; /* of a signal only the slot counts */
    int number;
};

/* What a keeper tells the supervisor. */
enum notice_what {
    NOTICE_OPENED, /* name, n_bytes */
    NOTICE_FAILED, /* the model could not be opened: error */
    NOTICE_FORKED, /* the worker in this slot is pid */
    NOTICE_GONE, /* the worker in this slot was pid, and ended with this status of waitpid; pid 0: there was no fork */
};

struct notice {
    enum notice_what what;
    uint32_t slot;
    pid_t pid;
    int status;
    uint64_t n_bytes; /* of memory that the keeper has to itself */
    char name[128];   /* the model's */
    runnel_error error;
};

/* What a worker tells the supervisor, through a pipe whose end nobody else has: its end means that the worker is dead. */
enum report_what {
    REPORT_READY,  /* prompt_ms, token_ms */
    REPORT_FAILED, /* its engine could not be started: error */
    REPORT_ORDER,  /* somebody wants something: it is in the block that all share */
};

struct report {
    enum report_what what;
    pid_t pid;
    double prompt_ms, token_ms; /* as in struct service_share */
    runnel_error error;
};

/* A pair of sockets, or a pipe; both ends are closed on exec and do not wait. */
int channel_pair(int ends[2], runnel_error *error);
int channel_pipe(int ends[2], runnel_error *error);

/* True if the whole message is on its way. descriptor: goes with it; -1: none. */
bool channel_send(int end, const void *message, size_t n_bytes, int descriptor);
/* Of a pair: does something that was sent from this end wait for its receiver? */
bool channel_is_unread(int end);

enum channel_result { CHANNEL_MESSAGE, CHANNEL_EMPTY, CHANNEL_CLOSED };
/* *descriptor, if it is not NULL: what came with the message, or -1; it is the caller's. */
enum channel_result channel_receive(int end, void *message, size_t n_bytes, int *descriptor);

/* Closes all descriptors from 3 on but these, which a process that was just forked has no business with; keep is sorted on
 * return. */
void channel_close_others(int *keep, unsigned n);

#endif
