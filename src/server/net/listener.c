/* listener.c: new connections, and what to do when there can be no more.
 *
 * Without a free descriptor a client is accepted with the one kept in reserve, and the longest idle connection makes room
 * for it. If none is idle, the client is told to come back, and accepting rests for a moment: the listening socket stays
 * readable, so that without the rest the loop would do nothing else. A process that shares the listener with others which
 * have less to do rests as well, a little at a time, as by then it may be the one that has less; who still waits after
 * YIELD_MS is let in all the same. The loop's thread only. */
#include "base/clock.h"
#include "server/net/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_AT_ONCE = 64, PAUSE_MS = 100, YIELD_MS = 20, LOOK_AGAIN_MS = 1 };

void listener_start(struct loop *loop)
{
    event_add(&loop->listener, NULL);
}

void listener_stop(struct loop *loop)
{
    event_del(&loop->listener);
    event_del(&loop->listener_pause);
}

void listener_pause_event(evutil_socket_t descriptor, short what, void *user)
{
    (void)descriptor;
    (void)what;
    listener_start(user);
}

static int accept_one(struct loop *loop)
{
    return accept4(event_get_fd(&loop->listener), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void rest(struct loop *loop, double ms)
{
    event_del(&loop->listener);
    loop_arm(&loop->listener_pause, ms);
}

/* Others have less to do: they have YIELD_MS. False: somebody has waited for so long. */
static bool yields(struct loop *loop)
{
    double now_ms = clock_ms();
    if (now_ms - loop->yields_since_ms >= 2 * YIELD_MS) /* another client waited then */
        loop->yields_since_ms = now_ms;
    return now_ms - loop->yields_since_ms < YIELD_MS;
}

/* How many may be accepted in this turn. */
static unsigned quota(struct loop *loop)
{
    unsigned n =
        loop->handlers.n_to_accept ? loop->handlers.n_to_accept(loop->handlers.user) : ACCEPT_AT_ONCE;
    if (!n && !yields(loop))
        n = 1;
    if (n)
        loop->yields_since_ms = 0;
    return n < ACCEPT_AT_ONCE ? n : ACCEPT_AT_ONCE;
}

static void welcome(struct loop *loop, int descriptor)
{
    loop->stats.n_accepted++;
    connection_open(loop, descriptor);
}

/* The reserve comes from dup, not open: a sandboxed process can still do it. */
static void take_reserve(struct loop *loop)
{
    loop->reserve = fcntl(loop->mailbox_descriptor, F_DUPFD_CLOEXEC, 0);
}

static int accept_with_reserve(struct loop *loop)
{
    if (loop->reserve >= 0)
        close(loop->reserve);
    loop->reserve = -1;
    return accept_one(loop);
}

/* There is no descriptor, or no memory. Of descriptors the system says so whether or not somebody waits: only the reserve
 * tells. False: it is no use to go on accepting in this turn. */
static bool handle_shortage(struct loop *loop)
{
    int descriptor = accept_with_reserve(loop);
    bool nobody_waits = descriptor < 0 && errno == EAGAIN;
    bool has_made_room = !nobody_waits && connection_close_longest_idle(loop);
    if (descriptor >= 0 && has_made_room)
        welcome(loop, descriptor);
    else if (descriptor >= 0)
        connection_refuse_socket(loop, descriptor);
    take_reserve(loop);
    if (nobody_waits || has_made_room)
        return has_made_room;
    rest(loop, PAUSE_MS);
    return false;
}

void listener_event(evutil_socket_t listener, short what, void *user)
{
    struct loop *loop = user;
    (void)listener;
    (void)what;
    unsigned n = quota(loop);
    if (loop->retiring) /* it was found just now that others accept */
        return;
    if (!n)
        rest(loop, LOOK_AGAIN_MS);
    for (unsigned i = 0; i < n; i++) {
        int descriptor = accept_one(loop); /* first: an idle connection ends only for somebody who has come */
        bool full = descriptor >= 0 && loop->stats.n_connections >= loop->limits.n_connections &&
                    !connection_close_longest_idle(loop);
        if (descriptor >= 0 && full) {
            connection_refuse_socket(loop, descriptor);
        } else if (descriptor >= 0) {
            welcome(loop, descriptor);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            if (!handle_shortage(loop))
                return;
        } else if (errno == EAGAIN) {
            return;
        } /* else that client has left already */
    }
}
