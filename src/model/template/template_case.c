/* template_case.c: see template_case.h. */
#include "model/template/template_case.h"

static size_t change(uint32_t code, const struct case_run *runs, size_t n_runs,
                     const struct case_several *several, size_t n_several, uint32_t out[CASE_MOST])
{
    for (size_t i = 0; i < n_several && several[i].code <= code; i++) {
        size_t n = 0;
        if (several[i].code != code)
            continue;
        for (; n < CASE_MOST && several[i].to[n]; n++)
            out[n] = several[i].to[n];
        return n;
    }
    size_t low = 0, high = n_runs; /* the first run that does not end before code */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (runs[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    bool in_run = low < n_runs && runs[low].first <= code && (code - runs[low].first) % runs[low].step == 0;
    out[0] = in_run ? (uint32_t)((int32_t)code + runs[low].distance) : code;
    return 1;
}

size_t case_upper(uint32_t code, uint32_t out[CASE_MOST])
{
    return change(code, case_upper_runs, n_case_upper_runs, case_upper_several, n_case_upper_several, out);
}

size_t case_lower(uint32_t code, uint32_t out[CASE_MOST])
{
    return change(code, case_lower_runs, n_case_lower_runs, case_lower_several, n_case_lower_several, out);
}

size_t case_title(uint32_t code, uint32_t out[CASE_MOST])
{
    return change(code, case_title_runs, n_case_title_runs, case_title_several, n_case_title_several, out);
}

static bool lies_in(uint32_t code, const struct case_span *spans, size_t n)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && spans[low].first <= code;
}

bool case_is_cased(uint32_t code)
{
    return lies_in(code, case_cased, n_case_cased);
}

bool case_is_ignorable(uint32_t code)
{
    return lies_in(code, case_ignorable, n_case_ignorable);
}
