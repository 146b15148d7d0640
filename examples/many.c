/* many.c: asks several questions at once and prints each answer as soon as it is complete.
 *
 *     cc many.c $(pkg-config --cflags --libs runnel) -o many && ./many model.gguf "Why is the sky blue?" "What is 2+2?"
 *
 * The engine computes all questions together, each with the answer it would have alone. */
#include <runnel.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int print_answer(const char *question, runnel_future *future)
{
    runnel_error error;
    runnel_response response = {.size = sizeof response};
    if (runnel_wait(future, &response, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%s\n%s\n(%u tokens, the first one after %.0f ms)\n\n", question, response.text, response.n_tokens,
           response.queue_ms + response.prefill_ms);
    runnel_response_free(&response);
    return 0;
}

/* Submits all questions, and waits for whichever is answered next. */
static int ask_all(runnel_engine *engine, const runnel_model *model, char **questions, int n)
{
    const struct timespec moment = {0, 20000000};
    runnel_error error;
    int status = 0, n_open = n;
    runnel_request *requests = (runnel_request *)calloc((size_t)n, sizeof *requests);
    runnel_future **futures = (runnel_future **)calloc((size_t)n, sizeof *futures);
    if (!requests || !futures) {
        fprintf(stderr, "no memory for %d questions\n", n);
        status = 1;
        goto end;
    }
    for (int i = 0; i < n; i++) {
        runnel_request_init(&requests[i]);
        requests[i].prompt = questions[i];
        requests[i].max_tokens = 64;
    }
    if (runnel_submit(engine, requests, (size_t)n, futures, &error)) {
        fprintf(stderr, "%s\n", error.message);
        status = 1;
        goto end;
    }
    while (n_open > 0) {
        for (int i = 0; i < n; i++) {
            if (!futures[i] || !runnel_poll(futures[i]))
                continue;
            status |= print_answer(questions[i], futures[i]);
            runnel_free(futures[i]);
            futures[i] = NULL;
            n_open--;
        }
        nanosleep(&moment, NULL);
    }

end:
    free(futures);
    free(requests);
    return status;
}

int main(int argc, char **argv)
{
    runnel_error error;
    runnel_model *model;
    runnel_engine *engine;
    runnel_engine_options options;
    if (argc < 3) {
        fprintf(stderr, "usage: many MODEL.gguf QUESTION...\n");
        return 2;
    }
    runnel_engine_options_init(&options);
    options.n_context = 512;
    options.n_parallel = (uint32_t)(argc - 2);
    if (runnel_model_open(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (runnel_engine_start(model, &options, &engine, &error)) {
        fprintf(stderr, "%s\n", error.message);
        runnel_model_close(model);
        return 1;
    }
    int status = ask_all(engine, model, argv + 2, argc - 2);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return status;
}
