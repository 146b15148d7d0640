/* kv_model.c: see kv_model.h. */
#include "helpers/kv_model.h"
#include "engine/sampler.h" /* for its random numbers */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

const struct kv_shape kv_model_shapes[N_LAYERS] = {{.head_dim = 4, .k_f32 = false},
                                                   {.head_dim = 6, .k_f32 = true}};

struct kvcache *kv_model_create(uint32_t n_pages)
{
    struct kvcache_options options = {.n_layers = N_LAYERS,
                                      .n_kv_heads = N_HEADS,
                                      .shapes = kv_model_shapes,
                                      .n_pages = n_pages,
                                      .n_sequences = N_SEQUENCES,
                                      .n_positions = N_POSITIONS};
    struct kvcache *cache = NULL;
    runnel_error error;
    assert_int_equal(kvcache_create(&options, &cache, &error), 0);
    return cache;
}

uint64_t kv_model_mix(uint64_t a, uint64_t b)
{
    return sampler_random(a, b);
}

static uint64_t *slot(const struct kvcache *cache, int sequence, uint32_t position, uint32_t layer,
                      uint32_t head)
{
    uint8_t *block = kvcache_block(cache, sequence, position / KV_PAGE, layer, head);
    return block ? (uint64_t *)(block + position % KV_PAGE * sizeof(uint64_t)) : NULL;
}

void kv_model_commit(struct kvcache *cache, int sequence, struct kv_model_sequence *m, const int32_t *tokens,
                     uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = m->length + i;
        bool clean = position / KV_PAGE < m->n_clean;
        m->tokens[position] = tokens[i];
        /* After a drop a page depends on what was dropped: nobody else's is equal. */
        m->stamps[position + 1] =
            kv_model_mix(m->stamps[position] + (clean ? 0 : m->nonce), (uint64_t)tokens[i] + 1);
        for (uint32_t layer = 0; layer < N_LAYERS; layer++)
            for (uint32_t head = 0; head < N_HEADS; head++) {
                uint64_t *place = slot(cache, sequence, position, layer, head);
                assert_non_null(place);
                *place = m->stamps[position + 1] + layer * N_HEADS + head;
            }
    }
    kvcache_commit(cache, sequence, tokens, n);
    m->length += n;
    m->n_reserved -= n;
}

void kv_model_verify(const struct kvcache *cache, int sequence, const struct kv_model_sequence *m)
{
    assert_int_equal(kvcache_length(cache, sequence), m->length);
    for (uint32_t page = 0; page < MAX_PAGES; page++) {
        bool there = page * KV_PAGE < m->length + m->n_reserved && !m->dropped[page];
        for (uint32_t layer = 0; layer < N_LAYERS; layer++)
            for (uint32_t head = 0; head < N_HEADS; head++) {
                if (!there && page >= m->n_mapped)
                    assert_null(kvcache_block(cache, sequence, page, layer, head));
                if (m->dropped[page])
                    assert_null(kvcache_block(cache, sequence, page, layer, head));
                for (uint32_t i = page * KV_PAGE; there && i < (page + 1) * KV_PAGE && i < m->length; i++) {
                    const uint64_t *place = slot(cache, sequence, i, layer, head);
                    assert_true(place && *place == m->stamps[i + 1] + layer * N_HEADS + head);
                }
            }
    }
    assert_null(kvcache_block(cache, sequence, MAX_PAGES + 3, 0, 0));
}

void kv_model_check(const struct kvcache *cache)
{
    const char *wrong = kvcache_check(cache);
    if (wrong)
        fail_msg("%s", wrong);
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    assert_int_equal(stats.n_free + stats.n_cached + stats.n_referenced, stats.n_pages);
}

struct kv_model_sequence kv_model_open(struct kvcache *cache, int *sequence, uint64_t salt,
                                       uint32_t keep_first, uint32_t keep_last)
{
    static uint64_t n_opened;
    *sequence = kvcache_open(cache, salt, keep_first, keep_last);
    assert_in_range(*sequence, 0, N_SEQUENCES - 1);
    struct kv_model_sequence m = {.open = true,
                                  .salt = salt,
                                  .nonce = kv_model_mix(++n_opened, 1),
                                  .keep_first = keep_first,
                                  .keep_last = keep_last,
                                  .n_clean = UINT32_MAX};
    m.stamps[0] = salt;
    if (keep_last)
        m.n_clean = (keep_first + KV_PAGE - 1) / KV_PAGE + 1 + (keep_last + KV_PAGE - 1) / KV_PAGE;
    return m;
}

int32_t kv_model_token(uint32_t kind, uint32_t i)
{
    return (int32_t)(kind * 1000 + i % KV_PAGE);
}

void kv_model_grow(struct kvcache *cache, int sequence, struct kv_model_sequence *m, uint32_t kind,
                   uint32_t n)
{
    int32_t tokens[N_POSITIONS];
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = kv_model_token(kind, m->length + i);
    assert_int_equal(kvcache_reserve(cache, sequence, n), 0);
    kv_model_check(cache);
    m->n_reserved = n;
    m->n_mapped = (m->length + n + KV_PAGE - 1) / KV_PAGE;
    kv_model_commit(cache, sequence, m, tokens, n);
    kv_model_check(cache);
    kv_model_verify(cache, sequence, m);
}

struct kvcache_stats kv_model_stats(const struct kvcache *cache)
{
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    return stats;
}
