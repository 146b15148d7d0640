/* listen.c: see listen.h. */
#include "cli/listen.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 1024 }; /* connections that the system keeps until they are accepted */
/* While the port is taken: processes of a server that was killed may be about to end, which takes them
 * up to a second on a busy machine. */
enum { BUSY_TRIES = 80, BUSY_PAUSE_MS = 25 };

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static int try_to_bind(int descriptor, const struct addrinfo *address)
{
    static const struct timespec pause = {.tv_nsec = BUSY_PAUSE_MS * 1000000};
    for (int i = 0;; i++) {
        if (!bind(descriptor, address->ai_addr, address->ai_addrlen) && !listen(descriptor, BACKLOG))
            return 0;
        if (errno != EADDRINUSE || i == BUSY_TRIES)
            return -1;
        nanosleep(&pause, NULL);
    }
}

static int fail_socket(int descriptor, const char *host, int port, runnel_error *error)
{
    int reason = errno;
    if (descriptor >= 0)
        close(descriptor);
    return error_set(error, RUNNEL_EIO, "%s port %d: %s", host, port,
                     reason == EADDRINUSE ? "another program listens there already; --port takes another"
                                          : strerror(reason));
}

static int listen_on(const struct addrinfo *address, const char *host, int port, struct listen_socket *out,
                     runnel_error *error)
{
    int made = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (made < 0)
        return fail_socket(made, host, port, error);
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char bound_host[NI_MAXHOST], bound_port[NI_MAXSERV];
    if (try_to_bind(made, address) || getsockname(made, (struct sockaddr *)&bound, &len) ||
        getnameinfo((struct sockaddr *)&bound, len, bound_host, sizeof bound_host, bound_port,
                    sizeof bound_port, NI_NUMERICHOST | NI_NUMERICSERV))
        return fail_socket(made, host, port, error);
    bool is_v6 = bound.ss_family == AF_INET6;
    snprintf(out->url, sizeof out->url, "http://%s%.255s%s:%s", is_v6 ? "[" : "", bound_host,
             is_v6 ? "]" : "", bound_port);
    out->descriptor = made;
    return RUNNEL_OK;
}

int listen_open(const char *host, int port,
                int (*may_listen)(void *user, bool is_loopback, runnel_error *error), void *user,
                struct listen_socket *out, runnel_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char service[8];
    snprintf(service, sizeof service, "%d", port);
    int reason = getaddrinfo(host, service, &hints, &found);
    if (reason)
        return error_set(error, RUNNEL_EIO, "%s: expected an address or a host name: %s", host,
                         gai_strerror(reason));
    out->is_loopback = is_loopback(found->ai_addr);
    int failure = may_listen(user, out->is_loopback, error);
    if (!failure)
        failure = listen_on(found, host, port, out, error);
    freeaddrinfo(found);
    return failure;
}
