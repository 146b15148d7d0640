/* same_names.c: a program whose own functions happen to be called as functions inside the library are. C and C++. It exits
 * with 0 if it links, and if neither side ever gets the other's. */
#include <runnel.h>

#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

int error_set(void);
int pool_create(void);
int log_say(void);
int text_add(void);
int text_free(void);
int clock_ms(void);
int gguf_open(void);
int team_create(void);
int kvcache_create(void);
int engine_call(void);
int engine_step(void);
int request_create(void);
int sampler_create(void);
int tokenizer_create(void);
int weights_load(void);
int kernels_get(void);

#ifdef __cplusplus
}
#endif

static int n_calls;

static int count(void)
{
    return ++n_calls;
}

/* clang-format off */
int error_set(void) { return count(); }
int pool_create(void) { return count(); }
int log_say(void) { return count(); }
int text_add(void) { return count(); }
int text_free(void) { return count(); }
int clock_ms(void) { return count(); }
int gguf_open(void) { return count(); }
int team_create(void) { return count(); }
int kvcache_create(void) { return count(); }
int engine_call(void) { return count(); }
int engine_step(void) { return count(); }
int request_create(void) { return count(); }
int sampler_create(void) { return count(); }
int tokenizer_create(void) { return count(); }
int weights_load(void) { return count(); }
int kernels_get(void) { return count(); }
/* clang-format on */

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

/* With a model it answers, too; without one the library only fails to open one. */
int main(int argc, char **argv)
{
    runnel_error error;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    char *text = NULL;
    memset(&error, 0, sizeof error);
    if (runnel_model_open("/nowhere/missing.gguf", NULL, &model, &error) != RUNNEL_EIO ||
        !strstr(error.message, "missing.gguf"))
        return fail("the library did not say that the file is missing");
    if (argc > 1) {
        if (runnel_model_open(argv[1], NULL, &model, &error) ||
            runnel_engine_start(model, NULL, &engine, &error) ||
            runnel_generate(engine, "Hi", 4, 0, &text, &error))
            return fail(error.message);
        runnel_text_free(text);
        runnel_engine_stop(engine);
        runnel_model_close(model);
    }
    if (n_calls != 0)
        return fail("the library called a function of this program");
    error_set();
    pool_create();
    log_say();
    text_add();
    return n_calls == 4 ? 0 : fail("a call of this program went into the library");
}
