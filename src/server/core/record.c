/* record.c: one line a request (see record.h). The loop's thread only. */
#include "server/core/record.h"

#include "base/clock.h"
#include "server/core/json_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { PATH_BYTES = 200 }; /* of a path that a client made up */

struct record *record_of(const struct exchange *exchange)
{
    return exchange_note(exchange);
}

void record_start(struct exchange *exchange, unsigned worker)
{
    struct record *record = record_of(exchange);
    uint64_t random[2] = {0};
    char line[64];
    if (getrandom(random, sizeof random, 0) < 0)
        random[0] = (uint64_t)(clock_ms() * 1e6);
    record->number = (struct record_id){(random[0] & ~UINT64_C(0xff)) | (worker & 0xff), (uint32_t)random[1]};
    snprintf(record->id, sizeof record->id, "%016" PRIx64 "%08" PRIx32, record->number.first,
             record->number.rest);
    snprintf(line, sizeof line, "X-Request-Id: %s\r\n", record->id);
    exchange_add_header(exchange, line);
}

/* As record_start writes them. */
bool record_read_id(const char *digits, size_t len, struct record_id *id)
{
    char text[RECORD_ID_BYTES];
    if (len != RECORD_ID_BYTES - 1)
        return false;
    memcpy(text, digits, len);
    text[len] = '\0';
    if (strspn(text, "0123456789abcdef") != len)
        return false;
    id->rest = (uint32_t)strtoul(text + 16, NULL, 16);
    text[16] = '\0';
    id->first = strtoull(text, NULL, 16);
    return true;
}

unsigned record_worker(const struct record_id *id)
{
    return (unsigned)(id->first & 0xff);
}

bool record_is(const struct record *record, const struct record_id *id)
{
    return record->number.first == id->first && record->number.rest == id->rest;
}

double record_start_text(struct shared_counters *counters, struct exchange *exchange,
                         enum metrics_route route)
{
    struct record *record = record_of(exchange);
    record->asks_for_text = true;
    record->route = route;
    record->started_ms = metrics_request_started(counters);
    return record->started_ms;
}

/* What its client got; 499: it left before. */
static int status_of(const struct exchange *exchange)
{
    return exchange_has_left(exchange) ? 499 : exchange_status(exchange);
}

void record_count(struct shared_counters *counters, const struct exchange *exchange)
{
    const struct record *record = record_of(exchange);
    int status = status_of(exchange);
    if (status != 499 && record->stream_status)
        status = record->stream_status;
    if (record->asks_for_text)
        metrics_request_finished(counters, record->route, status, record->started_ms);
    metrics_add_finished(counters, record->n_finished, exchange_is_cut(exchange));
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

void record_add_response(struct record *record, const runnel_response *response)
{
    runnel_response *counts = &record->counts;
    record->computed = true;
    record->n_answers++;
    if ((unsigned)response->finish_reason <= RUNNEL_FINISH_ERROR)
        record->n_finished[response->finish_reason]++;
    counts->n_prompt_tokens += response->n_prompt_tokens;
    counts->n_cached_tokens += response->n_cached_tokens;
    counts->n_tokens += response->n_tokens;
    counts->n_reasoning_tokens += response->n_reasoning_tokens;
    counts->n_preempted += response->n_preempted;
    counts->n_draft_tokens += response->n_draft_tokens;
    counts->n_draft_accepted += response->n_draft_accepted;
    counts->queue_ms = larger(counts->queue_ms, response->queue_ms);
    counts->prefill_ms = larger(counts->prefill_ms, response->prefill_ms);
    counts->decode_ms = larger(counts->decode_ms, response->decode_ms);
    counts->stall_ms = larger(counts->stall_ms, response->stall_ms);
    if (response->finish_reason > counts->finish_reason) /* of several the worst */
        counts->finish_reason = response->finish_reason;
    if (response->thought_end > counts->thought_end) /* likewise: what the model did itself comes first */
        counts->thought_end = response->thought_end;
}

static void add_string(struct log_line *line, const char *name, struct exchange_text text)
{
    log_add_text(line, name, text.bytes ? text.bytes : "", text.len < PATH_BYTES ? text.len : PATH_BYTES);
}

static const char *finish_name(enum runnel_finish_reason reason)
{
    switch (reason) {
    case RUNNEL_FINISH_STOP:
        return "stop";
    case RUNNEL_FINISH_LENGTH:
        return "length";
    case RUNNEL_FINISH_CANCELLED:
        return "abort";
    default:
        return "error";
    }
}

static void add_finish(struct log_line *line, const struct record *record, const struct exchange *exchange)
{
    const char *finish =
        exchange_is_cut(exchange) ? "slow_reader" : finish_name(record->counts.finish_reason);
    log_add_text(line, "finish", finish, strlen(finish));
}

static void add_counts(struct log_line *line, const struct record *record, const struct exchange *exchange)
{
    double since_ms = exchange_since_ms(exchange);
    const runnel_response *counts = &record->counts;
    if (record->n_answers > 1)
        log_add_number(line, "answers", record->n_answers);
    log_add_number(line, "prompt_tokens", counts->n_prompt_tokens);
    log_add_number(line, "cached_tokens", counts->n_cached_tokens);
    log_add_number(line, "completion_tokens", counts->n_tokens);
    log_add_number(line, "reasoning_tokens", counts->n_reasoning_tokens);
    add_finish(line, record, exchange);
    if (counts->thought_end)
        log_add_text(line, "thought_end", runnel_thought_end_name(counts->thought_end),
                     strlen(runnel_thought_end_name(counts->thought_end)));
    log_add_number(line, "queued_ms", counts->queue_ms);
    log_add_number(line, "prefill_ms", counts->prefill_ms);
    log_add_number(line, "decode_ms", counts->decode_ms);
    log_add_number(line, "stalled_ms", counts->stall_ms);
    if (record->first_text_ms > 0)
        log_add_number(line, "first_text_ms", record->first_text_ms - since_ms);
    if (counts->n_draft_tokens) {
        log_add_number(line, "draft_tokens", counts->n_draft_tokens);
        log_add_number(line, "draft_accepted", counts->n_draft_accepted);
    }
    if (counts->n_preempted)
        log_add_number(line, "preempted", counts->n_preempted);
}

void record_write_degraded(const struct record *record, struct text *out)
{
    if (record->degraded)
        json_add_format(out, ",\"degraded\":{\"reason\":\"%s\",\"max_tokens\":%d,\"temperature\":%g}",
                        record->degraded, record->degraded_max_tokens, (double)record->degraded_temperature);
}

bool record_is_probe(const struct exchange *exchange)
{
    struct exchange_text path = exchange_path(exchange);
    return exchange_text_is(path, "/health") || exchange_text_is(path, "/v1/health") ||
           exchange_text_is(path, "/metrics");
}

void record_log(struct log *log, const struct exchange *exchange)
{
    const struct record *record = record_of(exchange);
    bool is_slow = exchange_is_cut(exchange);
    struct log_line line;
    if (record_is_probe(exchange) && !is_slow) /* but that somebody does not read them is told */
        return;
    log_begin(&line, log, "request");
    add_string(&line, "method", exchange_method(exchange));
    add_string(&line, "path", exchange_path(exchange));
    log_add_number(&line, "status", status_of(exchange));
    log_add_text(&line, "id", record->id, strlen(record->id));
    if (exchange_key(exchange))
        log_add_number(&line, "key", exchange_key(exchange));
    if (record->computed)
        add_counts(&line, record, exchange);
    else if (is_slow)
        add_finish(&line, record, exchange);
    log_add_number(&line, "total_ms", clock_ms() - exchange_since_ms(exchange));
    if (record->degraded)
        log_add_text(&line, "degraded", record->degraded, strlen(record->degraded));
    if (exchange_has_left(exchange))
        log_add_flag(&line, "left", true);
    log_end(&line);
}

void record_log_refusal(struct log *log, int status)
{
    struct log_line line;
    log_begin(&line, log, "request");
    log_add_text(&line, "method", "-", 1);
    log_add_text(&line, "path", "-", 1);
    log_add_number(&line, "status", status);
    log_end(&line);
}
