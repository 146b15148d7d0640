/* template_filters.h: the filters over lists, for the table of all filters. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_FILTERS_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_FILTERS_H

#include "model/template/template_run.h"

library_function filter_length, filter_items, filter_list, filter_first, filter_last, filter_join, filter_map,
    filter_select, filter_reject, filter_selectattr, filter_rejectattr, filter_sort, filter_unique,
    filter_min, filter_max, filter_sum, filter_reverse, filter_dictsort;

/* The lines of a text, as a list. */
bool filter_lines(struct run *run, struct string text, bool keep_ends, struct value *out);

#endif
