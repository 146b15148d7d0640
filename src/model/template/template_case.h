/* template_case.h: upper and lower case of characters, as Python's str has them. No state; any thread. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_CASE_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CASE_MOST = 3 }; /* characters that one becomes */

/* Writes what code becomes and returns how many characters that is, 1 to CASE_MOST. */
size_t case_upper(uint32_t code, uint32_t out[CASE_MOST]);
size_t case_lower(uint32_t code, uint32_t out[CASE_MOST]);
size_t case_title(uint32_t code, uint32_t out[CASE_MOST]);
/* A letter that has a case: the next one does not begin a word. */
bool case_is_cased(uint32_t code);
/* Looked past when it is asked whether a sigma ends a word. */
bool case_is_ignorable(uint32_t code);

/* The tables, in ascending order; template_case_table.c. */
struct case_run {
    uint32_t first, last, step;
    int32_t distance;
};
struct case_several {
    uint32_t code, to[CASE_MOST]; /* unused ones are 0 */
};
struct case_span {
    uint32_t first, last;
};
extern const struct case_run case_upper_runs[], case_lower_runs[], case_title_runs[];
extern const struct case_several case_upper_several[], case_lower_several[], case_title_several[];
extern const struct case_span case_cased[], case_ignorable[];
extern const size_t n_case_upper_runs, n_case_lower_runs, n_case_title_runs, n_case_upper_several,
    n_case_lower_several, n_case_title_several, n_case_cased, n_case_ignorable;

#endif
