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

/* All of them, for whoever asked for another one: "abs, attr, ...". */
enum { LIBRARY_NAMES_BYTES = 400 };
void library_filter_names(char text[LIBRARY_NAMES_BYTES]);
void library_test_names(char text[LIBRARY_NAMES_BYTES]);

#endif
