/* keeper.h: the process that has opened a model, and forks workers that share it. One thread once the model is open. */
#ifndef RUNNEL_SERVICE_KEEPER_H
#define RUNNEL_SERVICE_KEEPER_H

#include "service/service.h"

#include <sys/types.h>

/* After the fork: opens the model, then does what the supervisor orders through the channel until told to end, or until it is dead:
 * then its workers end as well. Returns the exit status, in the keeper and in each worker. */
int keeper_run(const struct service_options *options, int channel, pid_t supervisor);

#endif
