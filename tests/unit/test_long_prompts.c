/* test_long_prompts.c: texts that are too much for the chat template: those that could never fit the context are told apart
 * from those that only this template makes too much of. On tiny models with templates that waste what they may take. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { N_BYTES = 3000, SHORT_CONTEXT = 32 /* tokens; those of a tiny model have at most some 30 bytes */ };

static void add_template(struct gguf_writer *writer, void *user)
{
    gguf_writer_add_string(writer, "tokenizer.chat_template", user);
}

static runnel_model *open_with(const char *template)
{
    struct tiny_model_options options = tiny_engine_model();
    options.chat = NULL;
    options.add_keys = add_template;
    options.user = (void *)(uintptr_t) template;
    return tiny_engine_open(&options);
}

static int respond(runnel_model *model, const runnel_request *request, uint32_t n_context,
                   runnel_error *error)
{
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = n_context});
    runnel_response response = {.size = sizeof response};
    int code = runnel_respond(engine, request, &response, error);
    runnel_engine_stop(engine);
    return code;
}

/* What each way to a prompt says of a text of N_BYTES: in a context of so many tokens, in the model's. */
static void assert_refused(const char *template, int in_a_short_context, const char *message)
{
    char text[N_BYTES + 1] = {0}, *rendered = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    runnel_error error;
    runnel_model *model = open_with(template);
    memset(text, 'a', N_BYTES);
    const runnel_message user = {.role = "user", .content = text};
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = text;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n, &error), RUNNEL_EINVAL);
    assert_int_equal(runnel_prompt_text(model, &request, &rendered, &n, &error), RUNNEL_EINVAL);
    assert_int_equal(runnel_chat_format(model, &user, 1, false, &rendered, &error), RUNNEL_EINVAL);
    assert_int_equal(respond(model, &request, 4096, &error), RUNNEL_EINVAL);
    assert_int_equal(respond(model, &request, SHORT_CONTEXT, &error), in_a_short_context);
    assert_non_null(strstr(error.message, message));
    request.n_context = SHORT_CONTEXT;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n, &error), in_a_short_context);
    assert_non_null(strstr(error.message, message));
    assert_int_equal(runnel_prompt_text(model, &request, &rendered, &n, &error), in_a_short_context);
    request.prompt = NULL;
    request.messages = &user;
    request.n_messages = 1;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n, &error), in_a_short_context);
    runnel_model_close(model);
}

#define IF_LONG(what) "{{ messages[0].content }}{% if messages[0].content|length > 100 %}" what "{% endif %}"

static void bounds_of_the_template(void **state)
{
    (void)state;
    static const char fits_not[] = "the prompt has 3000 bytes, the context of 32 tokens has room for ";
    assert_refused(IF_LONG("{{ 'x' * 1000000000 }}"), RUNNEL_ECONTEXT, fits_not);
    assert_refused(IF_LONG("{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"),
                   RUNNEL_ECONTEXT, fits_not);
    assert_refused(IF_LONG("{% set s = 'x' * 100000 %}{% for i in range(99999) %}{{ s }}{% endfor %}"),
                   RUNNEL_ECONTEXT, fits_not);
}

static void refusals_of_the_template(void **state)
{
    (void)state;
    assert_refused(IF_LONG("{{ raise_exception('Too long for me') }}"), RUNNEL_EINVAL, "Too long for me");
    assert_refused(IF_LONG("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), RUNNEL_EINVAL, "levels");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_of_the_template),
        cmocka_unit_test(refusals_of_the_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
