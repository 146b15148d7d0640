/* progress.h: how far something is that takes a while, on stderr. On a terminal a bar that is drawn over
 * itself, else a line every few seconds. The main thread, one bar at a time. */
#ifndef RUNNEL_CLI_PROGRESS_H
#define RUNNEL_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *label; /* what is coming; the caller's */
    const char *unit;  /* what is counted, "tokens"; NULL: bytes */
    bool terminal;     /* is stderr one? */
    bool drawn;        /* is there a bar on the screen? */
    uint64_t
        begin; /* bytes, or what is counted, that were there at the start: they do not count for the speed */
    double start_s; /* monotonic clock at the start */
    double last_s;  /* when something was printed last */
};

/* Begins at `begin` bytes. Nothing is printed before the first update. */
void progress_start(struct progress *progress, const char *label, uint64_t begin);

/* Likewise for what is not counted in bytes: unit is "tokens", say. */
void progress_start_counting(struct progress *progress, const char *label, const char *unit, uint64_t begin);

/* done bytes of total (0: not known). Cheap to call often: draws ten times a second at most. */
void progress_update(struct progress *progress, uint64_t done, uint64_t total);

/* Removes the bar, so that a line can be printed. */
void progress_end(struct progress *progress);

/* Monotonic seconds since progress_start. */
double progress_seconds(const struct progress *progress);

#endif
