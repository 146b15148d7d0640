/* worker.c: see worker.h. */
#include "service/worker.h"

#include "service/process.h"
#include "service/title.h"

#include <stdlib.h>
#include <unistd.h>

static bool tell(const struct worker *worker, struct report *report)
{
    report->pid = getpid();
    return channel_send(worker->pipe, report, sizeof *report, -1);
}

void worker_tell_ready(const struct worker *worker, double prompt_ms, double token_ms)
{
    struct report report = {.what = REPORT_READY, .prompt_ms = prompt_ms, .token_ms = token_ms};
    process_outlive_keeper();
    tell(worker, &report);
}

bool worker_wake_supervisor(const struct worker *worker)
{
    struct report report = {.what = REPORT_ORDER};
    return tell(worker, &report);
}

int worker_run(const struct worker_birth *birth)
{
    const struct service_options *options = birth->options;
    const struct worker worker = {.pipe = birth->pipe};
    struct report failed = {.what = REPORT_FAILED};
    int keep[] = {options->listener, options->crash_file, birth->pipe};
    process_reset_signals();
    process_die_with_keeper(birth->keeper, birth->supervisor);
    channel_close_others(keep, 3);
    title_set("runnel: worker %u", birth->order->share.slot);
    int failure = options->work(options->user, &birth->order->share, &worker, &failed.error);
    if (failure)
        tell(&worker, &failed);
    return failure ? EXIT_FAILURE : EXIT_SUCCESS;
}
