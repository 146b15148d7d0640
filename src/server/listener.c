/* listener.c: new connections, and what to do when there can be no more.
 *
 * Without a free descriptor the longest idle connection makes room. If none is idle, the reserve descriptor serves to
 * tell one client that it must come back, and accepting rests for a moment: the listening socket stays readable, so
 * that without the rest the loop would do nothing else. The loop's thread only. */
#include "server/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_AT_ONCE = 64, PAUSE_MS = 100 };

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

/* The reserve comes from dup, not open: a sandboxed process can still do it. */
static void refuse_one(struct loop *loop)
{
    if (loop->reserve >= 0)
        close(loop->reserve);
    int descriptor = accept_one(loop);
    if (descriptor >= 0)
        connection_refuse_socket(loop, descriptor);
    loop->reserve = fcntl(loop->mailbox_descriptor, F_DUPFD_CLOEXEC, 0);
}

static void handle_shortage(struct loop *loop)
{
    if (connection_close_longest_idle(loop))
        return; /* the loop calls again at once */
    refuse_one(loop);
    event_del(&loop->listener);
    loop_arm(&loop->listener_pause, PAUSE_MS);
}

void listener_event(evutil_socket_t listener, short what, void *user)
{
    struct loop *loop = user;
    (void)listener;
    (void)what;
    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        bool full = loop->stats.n_connections >= loop->limits.n_connections;
        if (full && connection_close_longest_idle(loop))
            full = false;
        int descriptor = accept_one(loop);
        if (descriptor >= 0 && full) {
            connection_refuse_socket(loop, descriptor);
        } else if (descriptor >= 0) {
            loop->stats.n_accepted++;
            connection_open(loop, descriptor);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            handle_shortage(loop);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* else that client has left already */
    }
}
