/* engine_options.h: the options of an engine, checked and with their defaults. */
#ifndef RUNNEL_ENGINE_ENGINE_OPTIONS_H
#define RUNNEL_ENGINE_ENGINE_OPTIONS_H

#include "base/error.h"
#include "engine/model.h"

/* What the caller gave (NULL: nothing), with the defaults in the places of zeros. */
int engine_options_read(const struct runnel_model *model, const runnel_engine_options *given,
                        runnel_engine_options *options, runnel_error *error);
/* How many pages the pool has: as many as asked for, room for one context at least. */
int engine_options_pages(const runnel_engine_options *options, size_t page_bytes, uint32_t *n_pages,
                         runnel_error *error);
/* The pool's pages are enough for one sequence, of n_positions at most, with its window: the beginning and the end that are
 * kept, in whole pages, and the page that is being filled. */
int engine_options_check_window(const runnel_engine_options *options, uint32_t n_positions, uint32_t n_pages,
                                runnel_error *error);

#endif
