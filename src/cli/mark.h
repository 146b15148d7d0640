/* mark.h: a number that tells texts, tokens and logits from others of their kind: FNV-1a over their bytes. Nobody is kept from making
 * two with the same. Any thread. */
#ifndef RUNNEL_CLI_MARK_H
#define RUNNEL_CLI_MARK_H

#include <stddef.h>
#include <stdint.h>

/* Of no bytes. */
#define MARK_BEGIN ((uint64_t)0xcbf29ce484222325u)

/* Of more bytes behind those of mark. */
static inline uint64_t mark_add(uint64_t mark, const void *bytes, size_t n)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < n; i++)
        mark = (mark ^ byte[i]) * 0x100000001b3u;
    return mark;
}

#endif
