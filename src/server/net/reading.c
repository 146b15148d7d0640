/* reading.c: how long a client may take to read what waits for it.
 *
 * It has to take some bytes in every write_stall_ms. Of whole answers, which could be large, it has to take as many as
 * answer_bytes_per_s make, after that time; a stream that is still written has no such rate, as its client cannot read faster than it is
 * made: what piles up is limited there (output_bytes). What counts is what the client's side has acknowledged: the
 * system asks for more output only once much of its buffer is free, which takes a client that reads steadily as
 * long as one that does not read. */
#include "server/net/connection.h"

#include "base/clock.h"

#include <linux/sockios.h>
#include <math.h>
#include <sys/ioctl.h>

enum { READING_LOOKS = 4 }; /* in write_stall_ms: so much later a client that reads nothing may be noticed */

/* Looks what the client's side has taken. */
static void look(struct connection *connection, double now_ms)
{
    int n_kept = 0;
    if (ioctl(connection->descriptor, SIOCOUTQ, &n_kept) || (uint64_t)n_kept > connection->n_written)
        n_kept = 0;
    uint64_t n_taken = connection->n_written - (uint64_t)n_kept;
    if (n_taken <= connection->reading.n_taken)
        return;
    connection->reading.n_taken = n_taken;
    connection->reading.since_ms = now_ms;
}

void reading_begin(struct connection *connection)
{
    connection->reading.since_ms = clock_ms();
    reading_goes_on(connection);
}

void reading_begin_whole(struct connection *connection)
{
    double now_ms = clock_ms();
    look(connection, now_ms);
    connection->reading.whole_from = connection->reading.n_taken;
    connection->reading.whole_ms = now_ms;
}

bool reading_goes_on(struct connection *connection)
{
    const struct loop_limits *limits = &connection->loop->limits;
    double now_ms = clock_ms();
    look(connection, now_ms);
    double until_ms = connection->reading.since_ms;
    if (connection->unwritten) {
        uint64_t n_taken = connection->reading.n_taken - connection->reading.whole_from;
        double earned_ms = (double)n_taken * 1e3 / limits->answer_bytes_per_s;
        until_ms = fmin(until_ms, connection->reading.whole_ms + earned_ms);
    }
    double left_ms = until_ms + limits->write_stall_ms - now_ms;
    bool goes_on = left_ms > 1;
    loop_arm(&connection->stall_timer, goes_on ? fmin(left_ms, limits->write_stall_ms / READING_LOOKS) : 0);
    return goes_on;
}
