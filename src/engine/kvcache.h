/* kvcache.h: one pool of pages for the keys and values of all sequences, by number.
 *
 * A page stands for KV_PAGE positions of all layers and KV heads; the keys and values themselves are the back end's. A struct
 * kvcache owns the sequences' page tables and the prefix index. The engine thread alone calls these functions; while a step
 * runs, the back end reads the page tables of its sequences. No function allocates after kvcache_create.
 *
 * A page is free, or referenced by one or more sequences, or cached: indexed by the tokens it and all pages
 * before it hold and by a salt, referenced by nobody, and taken for new pages when no free one is left, the
 * least recently used first. A page becomes indexed when all its positions are committed. The hash finds a
 * page, the tokens are compared. Shared pages are never written: reserving into one puts a copy in its
 * place, which the step makes before it computes (kvcache_copies).
 *
 * Two sequences that commit equal tokens end up with the same pages: a page that turns out to be indexed
 * already is given back and the indexed one taken (equal bit for bit, by the one arithmetic).
 *
 * A window (keep_first, keep_last; keep_last 0: none) drops the middle pages of a long sequence as it grows:
 * a reserve drops the pages that lie wholly after the first keep_first positions and wholly before the last
 * keep_last of the committed whole pages. Positions are never renumbered. What is computed after a page was
 * dropped depends on the drop: such pages are neither indexed nor matched. */
#ifndef RUNNEL_ENGINE_KVCACHE_H
#define RUNNEL_ENGINE_KVCACHE_H

#include "backend/page_table.h"
#include "base/error.h"
#include "kernels/ops.h"

struct kvcache;

struct kvcache_options {
    uint32_t n_pages;     /* of the pool */
    uint32_t n_sequences; /* open at once, at most */
    uint32_t n_positions; /* of one sequence, at most */
};

int kvcache_create(const struct kvcache_options *options, struct kvcache **cache, runnel_error *error);
void kvcache_free(struct kvcache *cache);

/* Opens an empty sequence and returns its number (from 0 on), or RUNNEL_ENOMEM if n_sequences are open. Pages
 * are shared only among sequences of equal salt (API keys must not learn what others asked). */
int kvcache_open(struct kvcache *cache, uint64_t salt, uint32_t keep_first, uint32_t keep_last);
void kvcache_close(struct kvcache *cache, int sequence); /* its indexed pages stay cached */

/* On an empty sequence: takes the longest run of cached whole pages that hold the beginning of tokens, at
 * most n_tokens - 1 positions (somebody has to compute the last one's logits). Returns how many positions it
 * now has. */
uint32_t kvcache_match(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n_tokens);
/* The same on a sequence that has some positions and nothing reserved: takes the pages that others have computed
 * meanwhile, also in place of a page that it has begun itself. */
uint32_t kvcache_match_more(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n_tokens);
/* How many positions kvcache_match would find now, without a window. n_held (may be NULL): how many of these are in pages
 * that open sequences have. */
uint32_t kvcache_find(const struct kvcache *cache, uint64_t salt, const int32_t *tokens, uint32_t n_tokens,
                      uint32_t *n_held);
/* True if two sequences have the same whole pages and the page that comes next, whole, will be the same too:
 * whichever commits it first, the other one can take it. Both have KV_PAGE tokens for it. */
bool kvcache_same_next(const struct kvcache *cache, int a, const int32_t *a_tokens, int b,
                       const int32_t *b_tokens);

/* On an empty sequence: shares the first n committed positions of another one of equal salt; neither has a
 * window or anything reserved. Does nothing where that does not hold. */
void kvcache_share(struct kvcache *cache, int from, int to, uint32_t n);

/* Makes room for n positions after the committed ones. RUNNEL_ENOMEM if the pool has too few pages that
 * nobody references, or if it would take a copy and n_sequences of them are to be made already; RUNNEL_ECONTEXT past
 * n_positions; nothing is changed then. After RUNNEL_ENOMEM, closing
 * another sequence helps; its whole pages stay cached, so that opened again it matches what was not evicted
 * meanwhile. */
int kvcache_reserve(struct kvcache *cache, int sequence, uint32_t n);
/* How many positions one reserve may add so that the window's drops, and with them the results, do not depend
 * on how a prompt is cut into chunks: without a window UINT32_MAX; with one, up to the first drop, then up to
 * a page's end. */
uint32_t kvcache_chunk(const struct kvcache *cache, int sequence);
/* The next n reserved positions hold these tokens, and their keys and values are written. Pages may be others
 * afterwards. */
void kvcache_commit(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n);
/* Gives back what is reserved and not committed. */
void kvcache_rollback(struct kvcache *cache, int sequence);
/* Forgets the committed positions from n on (and all reserved ones). n must not lie in pages that the window
 * dropped. */
void kvcache_truncate(struct kvcache *cache, int sequence, uint32_t n);

uint32_t kvcache_length(const struct kvcache *cache, int sequence); /* committed positions */

/* For a step: the sequence's page table and how many entries it has, reserved positions included. It changes with the next
 * call for the sequence but kvcache_length. */
const uint32_t *kvcache_pages(const struct kvcache *cache, int sequence, uint32_t *n_pages);
/* For a step: what is to be copied, one after the other, before it writes or reads pages; how many. */
uint32_t kvcache_copies(const struct kvcache *cache, const struct page_copy **copies);
/* A step makes these copies: they are not wanted again. */
void kvcache_copies_made(struct kvcache *cache);

struct kvcache_stats {
    uint32_t n_pages, n_free, n_cached, n_referenced; /* the last three add up to the first */
    uint64_t n_queries, n_hits;                       /* tokens asked for in kvcache_match, tokens found */
    uint64_t n_evicted;
};
void kvcache_get_stats(const struct kvcache *cache, struct kvcache_stats *stats);

/* Checks every invariant (reference counts against the page tables, each page in exactly one state, index
 * entries found by their hash, lists whole). NULL, or what is wrong (static text). For tests and debug
 * builds, after every step. */
const char *kvcache_check(const struct kvcache *cache);

#endif
