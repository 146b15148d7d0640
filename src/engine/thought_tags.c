/* thought_tags.c: see thought_tags.h. */
#include "engine/thought_tags.h"

static const char *const TAGS[] = {
    [BEFORE_THOUGHT] = "<think>", [IN_THOUGHT] = "</think>", [AFTER_THOUGHT] = ""};

struct thought_tags thought_tags_begin(bool splits, bool opened)
{
    return (struct thought_tags){.phase = !splits ? AFTER_THOUGHT : opened ? IN_THOUGHT : BEFORE_THOUGHT};
}

bool thought_tags_push(struct thought_tags *tags, char byte)
{
    const char *tag = TAGS[tags->phase];
    if (tags->phase == AFTER_THOUGHT)
        return false;
    if (byte !=
        tag[tags->n_matched]) /* '<' stands at a tag's beginning alone: no later part of it begins one anew */
        tags->n_matched = 0;
    if (byte != tag[tags->n_matched])
        return false;
    if (tag[++tags->n_matched])
        return false;
    *tags = (struct thought_tags){.phase = (uint8_t)(tags->phase + 1)};
    return true;
}

size_t thought_tags_push_all(struct thought_tags *tags, const char *bytes, size_t len)
{
    size_t end = len;
    for (size_t i = 0; i < len; i++)
        if (thought_tags_push(tags, bytes[i]) && tags->phase == AFTER_THOUGHT)
            end = i + 1;
    return end;
}

const char *thought_tags_matched(const struct thought_tags *tags)
{
    return TAGS[tags->phase];
}
