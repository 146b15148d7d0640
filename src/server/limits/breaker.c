/* breaker.c: see breaker.h. No clock, nothing allocated. */
#include "server/limits/breaker.h"

#include "server/limits/shared.h"

#include <math.h>

enum { PROBE_WAIT_MAX = 8 /* times the first wait */ };

static const double margin_percent = 5;

void breaker_init(struct breaker *breaker, const struct breaker_limits *limits,
                  struct shared_counters *counters)
{
    *breaker = (struct breaker){
        .limits = *limits,
        .counters = counters,
    };
    for (int kind = 0; kind < BREAKER_MEMORIES; kind++)
        breaker->memories[kind] =
            (struct breaker_memory){.mark = 100, .margin = margin_percent, .ready_percent = -1};
}

enum breaker_level breaker_level(const struct breaker *breaker)
{
    return breaker->by_memory > breaker->by_timeouts ? breaker->by_memory : breaker->by_timeouts;
}

const char *breaker_reason(const struct breaker *breaker)
{
    if (breaker->by_memory && breaker->by_timeouts)
        return "memory and timeouts";
    return breaker->by_memory ? "memory" : breaker->by_timeouts ? "timeouts" : "";
}

/* A new epoch; the next probe is due after the first wait. */
static void step(struct breaker *breaker, double now_ms)
{
    breaker->epoch++;
    breaker->n_timeouts = 0;
    breaker->probing = false;
    breaker->probe_wait_ms = breaker->limits.probe_ms;
    breaker->probe_at_ms = now_ms + breaker->probe_wait_ms;
}

/* Memory -------------------------------------------------------------------------------------------------- */

static void set_mark(struct breaker_memory *memory, const struct breaker_limits *limits)
{
    double base = memory->ready_percent;
    memory->mark = limits->memory_percent;
    if (base > memory->mark - margin_percent)
        memory->mark = fmax(memory->mark, (base + 100) / 2);
    memory->margin = fmin(margin_percent, (memory->mark - base) / 2);
}

void breaker_ready(struct breaker *breaker, enum breaker_memory_kind kind, double percent)
{
    breaker->memories[kind].ready_percent = fmin(percent, 100);
    set_mark(&breaker->memories[kind], &breaker->limits);
}

void breaker_set_limits(struct breaker *breaker, const struct breaker_limits *limits)
{
    breaker->limits = *limits;
    for (int kind = 0; kind < BREAKER_MEMORIES; kind++)
        if (breaker->memories[kind].ready_percent >= 0)
            set_mark(&breaker->memories[kind], limits);
}

/* What follows for one memory from how full it is. */
static enum breaker_level judge(const struct breaker_memory *memory, double percent)
{
    double mark = memory->mark, margin = memory->margin;
    double refusal_mark = (mark + 100) / 2, refusal_margin = fmin(margin, (refusal_mark - mark) / 2);
    if (percent > refusal_mark)
        return BREAKER_REFUSING;
    if (percent < mark - margin)
        return BREAKER_CLOSED;
    if (percent > mark && memory->level == BREAKER_CLOSED)
        return BREAKER_DEGRADED;
    if (percent < refusal_mark - refusal_margin && memory->level == BREAKER_REFUSING)
        return BREAKER_DEGRADED;
    return memory->level;
}

void breaker_see_memory(struct breaker *breaker, enum breaker_memory_kind kind, double percent, double now_ms)
{
    enum breaker_level level = BREAKER_CLOSED;
    breaker->memories[kind].level = judge(&breaker->memories[kind], fmin(percent, 100));
    for (int i = 0; i < BREAKER_MEMORIES; i++)
        if (breaker->memories[i].level > level)
            level = breaker->memories[i].level;
    if (level == breaker->by_memory)
        return;
    shared_add(&breaker->counters->n_opened_by_memory, breaker->by_memory == BREAKER_CLOSED);
    breaker->by_memory = level;
    step(breaker, now_ms);
}

/* Requests ------------------------------------------------------------------------------------------------ */

/* A step is tried out with a request; memory that only degrades closes without. */
static bool may_probe(const struct breaker *breaker, double now_ms)
{
    bool helps = breaker_level(breaker) == BREAKER_REFUSING || breaker->by_memory == BREAKER_CLOSED;
    return helps && !breaker->probing && now_ms >= breaker->probe_at_ms;
}

bool breaker_would_refuse(const struct breaker *breaker, double now_ms)
{
    return breaker_level(breaker) == BREAKER_REFUSING && !may_probe(breaker, now_ms);
}

unsigned breaker_retry_after_s(const struct breaker *breaker, double now_ms)
{
    double left_s = ceil((breaker->probe_at_ms - now_ms) / 1e3);
    return left_s > 1 ? (unsigned)left_s : 1;
}

struct breaker_verdict breaker_admit(struct breaker *breaker, double now_ms)
{
    struct breaker_verdict verdict = {.level = breaker_level(breaker), .epoch = breaker->epoch};
    if (verdict.level != BREAKER_CLOSED && may_probe(breaker, now_ms)) {
        verdict.level = verdict.level == BREAKER_REFUSING ? BREAKER_DEGRADED : BREAKER_CLOSED;
        verdict.is_probe = breaker->probing = true;
    }
    shared_add(&breaker->counters->n_refused, verdict.level == BREAKER_REFUSING);
    shared_add(&breaker->counters->n_degraded, verdict.level == BREAKER_DEGRADED);
    return verdict;
}

static void end_probe(struct breaker *breaker, enum breaker_outcome outcome, double now_ms)
{
    breaker->probing = false;
    if (outcome == BREAKER_ANSWERED && breaker->by_timeouts == breaker_level(breaker)) {
        breaker->by_timeouts = breaker->by_timeouts == BREAKER_REFUSING ? BREAKER_DEGRADED : BREAKER_CLOSED;
        step(breaker, now_ms);
    } else if (outcome == BREAKER_TIMED_OUT) {
        breaker->probe_wait_ms = fmin(2 * breaker->probe_wait_ms, PROBE_WAIT_MAX * breaker->limits.probe_ms);
        breaker->probe_at_ms = now_ms + breaker->probe_wait_ms;
    } else if (outcome == BREAKER_ANSWERED) { /* it is memory that must fall */
        breaker->probe_at_ms = now_ms + breaker->probe_wait_ms;
    } else {
        breaker->probe_at_ms = now_ms; /* it told nothing: the next one may */
    }
}

void breaker_end(struct breaker *breaker, const struct breaker_verdict *verdict, enum breaker_outcome outcome,
                 double now_ms)
{
    if (verdict->epoch != breaker->epoch)
        return;
    if (verdict->is_probe) {
        end_probe(breaker, outcome, now_ms);
        return;
    }
    if (outcome == BREAKER_ANSWERED)
        breaker->n_timeouts = 0;
    if (outcome != BREAKER_TIMED_OUT || !breaker->limits.n_timeouts ||
        ++breaker->n_timeouts < breaker->limits.n_timeouts || breaker->by_timeouts == BREAKER_REFUSING)
        return;
    shared_add(&breaker->counters->n_opened_by_timeouts, breaker->by_timeouts == BREAKER_CLOSED);
    breaker->by_timeouts = breaker->by_timeouts == BREAKER_CLOSED ? BREAKER_DEGRADED : BREAKER_REFUSING;
    step(breaker, now_ms);
}
