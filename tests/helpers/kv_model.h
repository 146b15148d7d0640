/* kv_model.h: a simple model of the KV cache, to which tests compare it.
 *
 * A "forward pass" here makes the copies that the cache asks for, then stamps each committed position's slot in its page with a
 * hash of all tokens up to it; so a page that is wrong, stale or shared where it must not be shows as a wrong stamp. The model
 * keeps plain arrays of tokens and stamps. */
#ifndef RUNNEL_TESTS_KV_MODEL_H
#define RUNNEL_TESTS_KV_MODEL_H

#include "engine/kvcache.h"

enum { N_SEQUENCES = 6, MAX_PAGES = 14, N_POSITIONS = MAX_PAGES * KV_PAGE - 5, POOL_PAGES_MAX = 90 };

/* A sequence as the model has it. */
struct kv_model_sequence {
    bool open;
    uint64_t salt, nonce;
    uint32_t keep_first, keep_last;
    uint32_t length, n_reserved, n_mapped;
    uint32_t n_clean; /* pages computed before anything was dropped */
    bool dropped[MAX_PAGES];
    int32_t tokens[N_POSITIONS];
    uint64_t stamps[N_POSITIONS + 1]; /* stamps[i]: of position i - 1 */
};

/* n_pages: up to POOL_PAGES_MAX. What was stamped in the pages of a cache before is forgotten. */
struct kvcache *kv_model_create(uint32_t n_pages);

/* The page that is entry `index` of the sequence's table; NO_PAGE if there is none. */
uint32_t kv_model_page(const struct kvcache *cache, int sequence, uint32_t index);

uint64_t kv_model_mix(uint64_t a, uint64_t b);

/* Writes and commits the next n reserved positions. */
void kv_model_commit(struct kvcache *cache, int sequence, struct kv_model_sequence *m, const int32_t *tokens,
                     uint32_t n);

/* The sequence is as the model has it: length, pages that are there, stamps. */
void kv_model_verify(const struct kvcache *cache, int sequence, const struct kv_model_sequence *m);

/* kvcache_check finds nothing, and each page is free, cached or referenced. */
void kv_model_check(const struct kvcache *cache);

struct kv_model_sequence kv_model_open(struct kvcache *cache, int *sequence, uint64_t salt,
                                       uint32_t keep_first, uint32_t keep_last);

/* Tokens of page kinds: position i of a page of kind k. Few kinds, so that prefixes are common. */
int32_t kv_model_token(uint32_t kind, uint32_t i);

/* Reserves, writes and commits n tokens of a kind, checking after each. */
void kv_model_grow(struct kvcache *cache, int sequence, struct kv_model_sequence *m, uint32_t kind,
                   uint32_t n);

struct kvcache_stats kv_model_stats(const struct kvcache *cache);

#endif
