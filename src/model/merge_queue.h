/* merge_queue.h: the pairs of neighbouring symbols that wait to be merged, the one to be merged first in front.
 *
 * A binary heap of entries priority << 32 | place: a lower priority comes first, of equal ones the leftmost. The caller
 * owns the memory. For the files that merge (bpe.c, sentencepiece.c), which compile it for themselves. */
#ifndef RUNNEL_MODEL_MERGE_QUEUE_H
#define RUNNEL_MODEL_MERGE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

struct merge_queue {
    uint64_t *entries;
    size_t n;
};

static inline uint64_t merge_entry(uint32_t priority, uint32_t place)
{
    return (uint64_t)priority << 32 | place;
}

static inline void merge_queue_sift_down(struct merge_queue *queue, size_t i)
{
    uint64_t *entries = queue->entries, entry = entries[i];
    for (size_t child; (child = 2 * i + 1) < queue->n; i = child) {
        if (child + 1 < queue->n && entries[child + 1] < entries[child])
            child++;
        if (entry <= entries[child])
            break;
        entries[i] = entries[child];
    }
    entries[i] = entry;
}

/* Makes a heap of entries in any order, in linear time. */
static inline void merge_queue_arrange(struct merge_queue *queue)
{
    for (size_t i = queue->n / 2; i-- > 0;)
        merge_queue_sift_down(queue, i);
}

static inline void merge_queue_push(struct merge_queue *queue, uint64_t entry)
{
    size_t i = queue->n++;
    for (size_t parent; i > 0 && queue->entries[parent = (i - 1) / 2] > entry; i = parent)
        queue->entries[i] = queue->entries[parent];
    queue->entries[i] = entry;
}

static inline uint64_t merge_queue_pop(struct merge_queue *queue)
{
    uint64_t first = queue->entries[0];
    queue->entries[0] = queue->entries[--queue->n];
    if (queue->n)
        merge_queue_sift_down(queue, 0);
    return first;
}

#endif
