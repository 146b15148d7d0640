/* channel.c: see channel.h. */
#include "service/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct order) <= PIPE_BUF && sizeof(struct notice) <= PIPE_BUF &&
                   sizeof(struct report) <= PIPE_BUF,
               "a message is written whole or not at all");

int channel_pair(int ends[2], runnel_error *error)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return error_set(error, RUNNEL_EIO, "a pair of sockets between processes: %s", strerror(errno));
    return RUNNEL_OK;
}

int channel_pipe(int ends[2], runnel_error *error)
{
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return error_set(error, RUNNEL_EIO, "a pipe between processes: %s", strerror(errno));
    return RUNNEL_OK;
}

static ssize_t send_with(int end, const void *message, size_t n_bytes, int descriptor)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec bytes = {.iov_base = (void *)(uintptr_t)message, .iov_len = n_bytes};
    struct msghdr head = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        head.msg_control = control.room;
        head.msg_controllen = sizeof control.room;
        struct cmsghdr *part = CMSG_FIRSTHDR(&head);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(part), &descriptor, sizeof descriptor);
    }
    return sendmsg(end, &head, MSG_NOSIGNAL);
}

bool channel_send(int end, const void *message, size_t n_bytes, int descriptor)
{
    ssize_t n;
    do {
        n = send_with(end, message, n_bytes, descriptor);
        if (n < 0 && errno == ENOTSOCK)
            n = write(end, message, n_bytes);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)n_bytes;
}

bool channel_is_unread(int end)
{
    int n_bytes = 0; /* that the system keeps for it */
    return !ioctl(end, SIOCOUTQ, &n_bytes) && n_bytes > 0;
}

/* What came with a message; -1: nothing. */
static int take_descriptor(struct msghdr *head)
{
    int descriptor = -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(head); part; part = CMSG_NXTHDR(head, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
            memcpy(&descriptor, CMSG_DATA(part), sizeof descriptor);
    return descriptor;
}

static ssize_t receive_with(int end, void *message, size_t n_bytes, int *descriptor)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec bytes = {.iov_base = message, .iov_len = n_bytes};
    struct msghdr head = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (descriptor) {
        head.msg_control = control.room;
        head.msg_controllen = sizeof control.room;
    }
    ssize_t n = recvmsg(end, &head, MSG_CMSG_CLOEXEC);
    if (n >= 0 && descriptor)
        *descriptor = take_descriptor(&head);
    return n;
}

enum channel_result channel_receive(int end, void *message, size_t n_bytes, int *descriptor)
{
    ssize_t n;
    do {
        n = receive_with(end, message, n_bytes, descriptor);
        if (n < 0 && errno == ENOTSOCK)
            n = read(end, message, n_bytes);
    } while (n < 0 && (errno == EINTR ||
                       errno == ECONNRESET)); /* reset is told once, before what was sent before it */
    if (n == (ssize_t)n_bytes)
        return CHANNEL_MESSAGE;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? CHANNEL_EMPTY : CHANNEL_CLOSED;
}

static int compare_descriptors(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

/* Of a system that does not know close_range (before Linux 5.9). */
static void close_one_by_one(unsigned first, unsigned last)
{
    long n = sysconf(_SC_OPEN_MAX);
    if (n < 0 || n > 65536)
        n = 65536;
    for (unsigned i = first; i <= last && i < (unsigned)n; i++)
        close((int)i);
}

static void close_between(unsigned first, unsigned last)
{
    if (first <= last && syscall(SYS_close_range, first, last, 0))
        close_one_by_one(first, last);
}

void channel_close_others(int *keep, unsigned n)
{
    unsigned first = STDERR_FILENO + 1;
    qsort(keep, n, sizeof *keep, compare_descriptors);
    for (unsigned i = 0; i < n; i++) {
        if (keep[i] < (int)first)
            continue; /* -1, one of the first three, or twice the same */
        close_between(first, (unsigned)keep[i] - 1);
        first = (unsigned)keep[i] + 1;
    }
    close_between(first, INT_MAX);
}
