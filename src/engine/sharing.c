/* sharing.c: prompts that begin alike are computed once, also when they come together.
 *
 * The prefix cache knows a page once it is committed. Requests that run at the same time and want the same page next
 * are told to the scheduler, which lets one of them compute it; before the following step the others take it from the
 * cache. All of this is found out anew before each step and nobody is remembered as leading: whether who computed is
 * cancelled, put back or fails, the others simply go on. The engine thread alone runs this. */
#include "engine/sharing.h"

#include <string.h>

/* Whole pages with which two prompts begin alike, in positions. */
static uint32_t count_common(const struct runnel_future *a, const struct runnel_future *b)
{
    uint32_t n = 0, most = a->entry.n_prompt < b->entry.n_prompt ? a->entry.n_prompt : b->entry.n_prompt;
    while (n + KV_PAGE <= most && memcmp(a->answer.tokens.ids + n, b->answer.tokens.ids + n,
                                         KV_PAGE * sizeof *a->answer.tokens.ids) == 0)
        n += KV_PAGE;
    return n;
}

void engine_compare_prompt(struct runnel_engine *engine, struct runnel_future *future)
{
    struct scheduler_entry *entry = &future->entry;
    uint32_t most = entry->n_prompt / KV_PAGE * KV_PAGE;
    entry->n_cached_likely =
        kvcache_find(engine->cache, entry->key, future->answer.tokens.ids, entry->n_prompt, NULL);
    for (const struct runnel_future *other = engine->live; other && entry->n_common < most;
         other = other->next) {
        if (other == future || other->entry.key != entry->key || other->entry.state == SCHEDULER_OUT)
            continue;
        uint32_t n_common = count_common(future, other);
        if (n_common > entry->n_common) {
            entry->n_common = n_common;
            entry->prefix_group = other->entry.prefix_group;
        }
    }
    if (!entry->prefix_group) { /* the first one of its group */
        entry->prefix_group = ++engine->n_prefix_groups;
        entry->n_common = most;
    }
}

/* True if it has a prompt to compute whose next page is a whole one that others could compute for it. */
static bool wants_page(const struct runnel_future *future)
{
    uint32_t page_end = (future->entry.n_committed / KV_PAGE + 1) * KV_PAGE;
    return future->entry.state == SCHEDULER_RUNNING && page_end < future->entry.n_tokens;
}

static void take_pages(struct runnel_engine *engine, struct runnel_future *future)
{
    struct scheduler_entry *entry = &future->entry;
    uint32_t n_before = entry->n_committed;
    entry->n_committed = kvcache_match_more(engine->cache, future->sequence, future->answer.tokens.ids,
                                            (uint32_t)future->answer.tokens.n);
    if (!entry->n_drawn && !entry->n_preempted)
        future->n_cached += entry->n_committed - n_before;
}

void engine_share_pages(struct runnel_engine *engine)
{
    uint32_t n_wanting = 0;
    for (struct runnel_future *future = engine->live; future; future = future->next) {
        if (wants_page(future))
            take_pages(engine, future);
        future->entry.page_group = 0;
        if (wants_page(future)) /* still; such requests run, so they are n_parallel at most */
            engine->wanting[n_wanting++] = future;
    }
    for (uint32_t i = 0, n_pages = 0; i < n_wanting; i++) {
        struct runnel_future *future = engine->wanting[i];
        if (future->entry.page_group)
            continue;
        future->entry.page_group = ++n_pages;
        for (uint32_t j = i + 1; j < n_wanting; j++) {
            struct runnel_future *other = engine->wanting[j];
            if (!other->entry.page_group &&
                kvcache_same_next(engine->cache, future->sequence, future->answer.tokens.ids, other->sequence,
                                  other->answer.tokens.ids))
                other->entry.page_group = n_pages;
        }
    }
}
