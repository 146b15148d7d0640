/* special.h: finds the tokens that stand for themselves in a text: control tokens, the unknown token, user-defined ones.
 *
 * A struct special_set owns a sorted list of them; immutable once built, any number of threads may read it. */
#ifndef RUNNEL_MODEL_SPECIAL_H
#define RUNNEL_MODEL_SPECIAL_H

#include "model/vocabulary.h"

struct special_set {
    const struct vocabulary *vocabulary;
    int32_t *ids; /* in the order of their bytes: those with a common beginning are neighbours */
    size_t n;
    uint32_t begin[257]; /* the tokens whose first byte is b are ids[begin[b]] to ids[begin[b + 1] - 1] */
};

/* Keeps vocabulary, which must outlive the set. Free with special_set_free, also after a failure. */
int special_set_build(struct special_set *set, const struct vocabulary *vocabulary, runnel_error *error);
void special_set_free(struct special_set *set);

struct special_match {
    size_t begin, end; /* in the text */
    int32_t id;
};

/* The first match at or after from, the longest of those that begin there. All but user-defined tokens count only where they
 * lie whole in one of the spans; *span is the first span that has not ended before from, kept from call to call (0 at
 * first). False: none. Time is linear in the bytes passed over. */
bool special_set_next(const struct special_set *set, const char *text, size_t len, size_t from,
                      const struct text_span *spans, size_t n_spans, size_t *span,
                      struct special_match *match);

#endif
