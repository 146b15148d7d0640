/* template_library.h: the filters, tests, methods and functions of chat templates. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_LIBRARY_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_LIBRARY_H

#include "model/template/template_value.h"

struct run;
struct filter;
struct test;

/* NULL: none of that name. */
const struct filter *library_filter(struct string name);
const struct test *library_test(struct string name);

#endif
