/* params_check.c: see params_check.h. */
#include "helpers/params_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const runnel_sampling default_sampling = {.size = sizeof default_sampling,
                                                 .temperature = 0.6f,
                                                 .top_k = 40,
                                                 .top_p = 0.95f,
                                                 .min_p = 0.05f,
                                                 .repetition_penalty = 1,
                                                 .seed = 5};

struct params_limits make_limits(void)
{
    struct params_limits limits = {.n_vocab = 1000, .n_choices = 4, .split_reasoning = true};
    limits.defaults = (runnel_request){.size = sizeof limits.defaults,
                                       .max_tokens = 4096,
                                       .n_logprobs = -1,
                                       .soft_thinking_budget = -1,
                                       .answer_reserve = -1};
    limits.defaults.sampling = &default_sampling;
    return limits;
}

/* Reads a body; on refusal *params stays as it is. */
static int read_text(reader read_params, const char *text, size_t len, struct params *params,
                     struct refusal *refusal)
{
    const struct params_limits limits = make_limits();
    json_t *root;
    *refusal = (struct refusal){0};
    if (json_read(text, len, &root, refusal))
        return -1;
    int failure = read_params(root, &limits, params, refusal);
    json_decref(root);
    return failure;
}

/* The body must be refused with 400, for this field ("": none), without touching the params or repeating the body. */
void check_refused(reader read_params, const char *text, size_t len, const char *param)
{
    struct params params, before;
    struct refusal refusal;
    memset(&params, 0x5a, sizeof params);
    before = params;
    if (!read_text(read_params, text, len, &params, &refusal))
        fail_msg("accepted: %.200s", text);
    if (strcmp(refusal.param, param) != 0)
        fail_msg("%.200s: expected param \"%s\", found \"%s\"", text, param, refusal.param);
    assert_int_equal(refusal.status, 400);
    assert_true(refusal.message[0]);
    assert_null(strstr(refusal.message, "SECRET"));
    assert_memory_equal(&params, &before, sizeof params);
}

void check_accepted(reader read_params, const char *text, struct params *params)
{
    struct refusal refusal;
    if (read_text(read_params, text, strlen(text), params, &refusal))
        fail_msg("refused: %.200s: %s", text, refusal.message);
}

void check_bad_fields(reader read_params, const char *start, const struct bad_field *fields, size_t n)
{
    char text[2048];
    for (size_t i = 0; i < n; i++) {
        snprintf(text, sizeof text, "{%s,%s}", start, fields[i].fields);
        check_refused(read_params, text, strlen(text), fields[i].param);
    }
}
