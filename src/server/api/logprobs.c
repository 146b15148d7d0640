/* logprobs.c: see logprobs.h. The loop's thread only. */
#include "server/api/logprobs.h"

#include "server/core/json_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct logprobs_entry {
    int32_t token;
    size_t bytes_at, n_bytes;
    float logprob;
    unsigned n_top; /* entries that follow and are its alternatives; of these 0 */
};

void logprobs_free(struct logprobs *list)
{
    free(list->entries);
    text_free(&list->bytes);
    *list = (struct logprobs){0};
}

static const char *bytes_of(const struct logprobs *list, const struct logprobs_entry *entry)
{
    return entry->n_bytes ? list->bytes.bytes + entry->bytes_at : "";
}

static bool make_room(struct logprobs *list, size_t n)
{
    if (list->cap - list->n >= n)
        return true;
    size_t cap = 2 * list->cap + n + 32;
    struct logprobs_entry *entries = realloc(list->entries, cap * sizeof *entries);
    if (!entries)
        return false;
    list->entries = entries;
    list->cap = cap;
    return true;
}

void logprobs_add(struct logprobs *list, const runnel_event *event)
{
    if (!event->n_logprobs || list->failed || !make_room(list, event->n_logprobs)) {
        list->failed = list->failed || event->n_logprobs;
        return;
    }
    for (size_t i = 0; i < event->n_logprobs; i++) {
        const runnel_logprob *logprob = &event->logprobs[i];
        list->entries[list->n++] = (struct logprobs_entry){
            .token = logprob->token,
            .bytes_at = list->bytes.len,
            .n_bytes = logprob->n_bytes,
            .logprob = logprob->logprob,
            .n_top = i ? 0 : (unsigned)event->n_logprobs - 1,
        };
        text_add(&list->bytes, logprob->bytes, logprob->n_bytes);
    }
    list->failed = list->bytes.failed;
}

void logprobs_settle(struct logprobs *list, size_t n_bytes)
{
    while (list->n_ahead < n_bytes && list->n_settled < list->n) {
        const struct logprobs_entry *entry = &list->entries[list->n_settled];
        list->n_ahead += entry->n_bytes;
        list->n_settled += 1 + entry->n_top;
    }
    /* More text than bytes: invalid ones became U+FFFD. */
    list->n_ahead = list->n_ahead > n_bytes ? list->n_ahead - n_bytes : 0;
}

void logprobs_settle_all(struct logprobs *list)
{
    list->n_settled = list->n;
    list->n_ahead = 0;
}

void logprobs_drop(struct logprobs *list)
{
    list->n = list->n_settled;
    list->n_ahead = 0;
}

/* The bytes of the pending tokens, without their alternatives. */
static void collect_pending(const struct logprobs *list, struct text *out)
{
    for (size_t at = list->n_settled; at < list->n; at += 1 + list->entries[at].n_top)
        text_add(out, bytes_of(list, &list->entries[at]), list->entries[at].n_bytes);
}

void logprobs_drop_thoughts(struct logprobs *list)
{
    static const char mark[] = "</think>";
    struct text pending = {0};
    size_t n_skip = 0, at = list->n_settled, n_bytes = 0;
    collect_pending(list, &pending);
    const char *found = pending.len ? memmem(pending.bytes, pending.len, mark, strlen(mark)) : NULL;
    if (found) {
        found += strlen(mark);
        n_skip = (size_t)(found - pending.bytes) + strspn(found, " \t\r\n");
    }
    while (at < list->n && n_bytes + list->entries[at].n_bytes <= n_skip) {
        n_bytes += list->entries[at].n_bytes;
        at += 1 + list->entries[at].n_top;
    }
    if (at > list->n_settled && at < list->n)
        memmove(list->entries + list->n_settled, list->entries + at, (list->n - at) * sizeof *list->entries);
    list->n -= at - list->n_settled;
    list->failed = list->failed || pending.failed;
    text_free(&pending);
}

/* Writing ------------------------------------------------------------------------------------------------- */

static void write_text(const struct logprobs *list, const struct logprobs_entry *entry, struct text *out)
{
    json_add_string(out, bytes_of(list, entry), entry->n_bytes);
}

static void forget_settled(struct logprobs *list)
{
    list->n -= list->n_settled;
    if (list->n)
        memmove(list->entries, list->entries + list->n_settled, list->n * sizeof *list->entries);
    else
        list->bytes.len = 0;
    list->n_settled = 0;
}

/* {"token":..,"logprob":..,"bytes":[..] without the closing brace. */
static void write_named(const struct logprobs *list, const struct logprobs_entry *entry, const char *name,
                        double number, struct text *out)
{
    const char *bytes = bytes_of(list, entry);
    text_add_string(out, "{\"token\":");
    write_text(list, entry, out);
    json_add_format(out, ",\"%s\":", name);
    json_add_number(out, number);
    text_add_string(out, ",\"bytes\":[");
    for (size_t i = 0; i < entry->n_bytes; i++)
        json_add_format(out, i ? ",%u" : "%u", (unsigned char)bytes[i]);
    text_add_string(out, "]");
}

static void write_token(const struct logprobs *list, const struct logprobs_entry *entry, struct text *out)
{
    write_named(list, entry, "logprob", (double)entry->logprob, out);
}

typedef void token_writer(const struct logprobs *list, const struct logprobs_entry *entry, struct text *out);

/* The settled tokens as objects that write_one begins, each with its likeliest ones. */
static void write_settled(const struct logprobs *list, token_writer *write_one, const char *likeliest,
                          struct text *out)
{
    for (size_t at = 0; at < list->n_settled; at += 1 + list->entries[at].n_top) {
        const struct logprobs_entry *entry = &list->entries[at];
        text_add_string(out, at ? "," : "");
        write_one(list, entry, out);
        json_add_format(out, ",\"%s\":[", likeliest);
        for (unsigned i = 1; i <= entry->n_top; i++) {
            text_add_string(out, i > 1 ? "," : "");
            write_one(list, entry + i, out);
            text_add_string(out, "}");
        }
        text_add_string(out, "]}");
    }
}

void logprobs_write_chat(struct logprobs *list, struct text *out)
{
    if (!list->n_settled) {
        text_add_string(out, "null");
        return;
    }
    text_add_string(out, "{\"content\":[");
    write_settled(list, write_token, "top_logprobs", out);
    text_add_string(out, "],\"refusal\":null}");
    forget_settled(list);
}

static void write_top(const struct logprobs *list, const struct logprobs_entry *entry, struct text *out)
{
    text_add_string(out, "{");
    for (unsigned i = 1; i <= entry->n_top; i++) {
        text_add_string(out, i > 1 ? "," : "");
        write_text(list, entry + i, out);
        text_add_string(out, ":");
        json_add_number(out, entry[i].logprob);
    }
    text_add_string(out, "}");
}

static size_t count_characters(const char *bytes, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return n;
}

void logprobs_write_completion(struct logprobs *list, struct text *out)
{
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
                                        "],\"text_offset\":["};
    if (!list->n_settled) {
        text_add_string(out, "null");
        return;
    }
    for (int row = 0; row < 4; row++) {
        text_add_string(out, names[row]);
        for (size_t at = 0; at < list->n_settled; at += 1 + list->entries[at].n_top) {
            const struct logprobs_entry *entry = &list->entries[at];
            text_add_string(out, at ? "," : "");
            if (row == 0)
                write_text(list, entry, out);
            else if (row == 1)
                json_add_number(out, entry->logprob);
            else if (row == 2)
                write_top(list, entry, out);
            else
                json_add_format(out, "%zu", list->offset);
            if (row == 3)
                list->offset += count_characters(bytes_of(list, entry), entry->n_bytes);
        }
    }
    text_add_string(out, "]}");
    forget_settled(list);
}

static void write_native_token(const struct logprobs *list, const struct logprobs_entry *entry,
                               struct text *out)
{
    write_token(list, entry, out);
    json_add_format(out, ",\"id\":%d", entry->token);
}

/* The same with {"token":..,"prob":... */
static void write_sampled_token(const struct logprobs *list, const struct logprobs_entry *entry,
                                struct text *out)
{
    write_named(list, entry, "prob", exp((double)entry->logprob), out);
    json_add_format(out, ",\"id\":%d", entry->token);
}

static void write_probabilities(const struct logprobs *list, enum logprobs_native probabilities,
                                struct text *out)
{
    text_add_string(out, ",\"completion_probabilities\":[");
    if (probabilities == LOGPROBS_AFTER_SAMPLING)
        write_settled(list, write_sampled_token, "top_probs", out);
    else
        write_settled(list, write_native_token, "top_logprobs", out);
    text_add_string(out, "]");
}

void logprobs_write_native(struct logprobs *list, bool with_ids, enum logprobs_native probabilities,
                           struct text *out)
{
    text_add_string(out, ",\"tokens\":[");
    for (size_t at = 0; with_ids && at < list->n_settled; at += 1 + list->entries[at].n_top)
        json_add_format(out, at ? ",%d" : "%d", list->entries[at].token);
    text_add_string(out, "]");
    if (probabilities != LOGPROBS_NONE)
        write_probabilities(list, probabilities, out);
    forget_settled(list);
}
