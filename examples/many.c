/* many.c: asks several questions at once and prints each answer as soon as it is complete.
 *
 *     cc many.c $(pkg-config --cflags --libs runnel) -o many && ./many model.gguf "Why is the sky blue?" "What is 2+2?"
 *
 * The engine computes all questions together, each with the answer it would have alone. */
#include <poll.h>
#include <runnel.h>
#include <stdio.h>
#include <stdlib.h>

static int print_answer(const char *question, runnel_future *future)
{
    runnel_error error;
    runnel_response response;
    response.size = sizeof response;
    if (runnel_wait(future, &response, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%s\n%s\n(%u tokens, the first one after %.0f ms)\n\n", question, response.text, response.n_tokens,
           response.queue_ms + response.prefill_ms);
    runnel_response_free(&response);
    return 0;
}

/* Takes what has come for one question; true once it has ended. */
static bool has_ended(runnel_future *future)
{
    runnel_event event;
    event.size = sizeof event;
    while (!runnel_next(future, &event, 0) && event.kind != RUNNEL_EVENT_NONE)
        if (event.kind == RUNNEL_EVENT_FINISH)
            return true;
    return false;
}

/* Sleeps until one of the questions is answered, and prints that, until all are. */
static int wait_for_all(char **questions, runnel_future **futures, struct pollfd *waits, int n)
{
    int status = 0;
    for (int i = 0; i < n; i++) {
        waits[i].fd = runnel_descriptor(futures[i]);
        waits[i].events = POLLIN;
    }
    for (int n_open = n; n_open > 0;) {
        poll(waits, (nfds_t)n, -1);
        for (int i = 0; i < n; i++) {
            if (waits[i].fd < 0 || !waits[i].revents || !has_ended(futures[i]))
                continue;
            status |= print_answer(questions[i], futures[i]);
            waits[i].fd = -1; /* poll passes it over */
            n_open--;
        }
    }
    return status;
}

static int ask_all(runnel_engine *engine, char **questions, int n)
{
    runnel_error error;
    int status = 1;
    runnel_request *requests = (runnel_request *)calloc((size_t)n, sizeof *requests);
    runnel_future **futures = (runnel_future **)calloc((size_t)n, sizeof *futures);
    struct pollfd *waits = (struct pollfd *)calloc((size_t)n, sizeof *waits);
    if (!requests || !futures || !waits) {
        fprintf(stderr, "no memory for %d questions\n", n);
        goto end;
    }
    for (int i = 0; i < n; i++) {
        runnel_request_init(&requests[i]);
        requests[i].prompt = questions[i];
        requests[i].max_tokens = 64;
        requests[i].wants_events = true;
    }
    if (runnel_submit(engine, requests, (size_t)n, futures, &error)) {
        fprintf(stderr, "%s\n", error.message);
        goto end;
    }
    status = wait_for_all(questions, futures, waits, n);
    for (int i = 0; i < n; i++)
        runnel_free(futures[i]);

end:
    free(waits);
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
    int status = ask_all(engine, argv + 2, argc - 2);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return status;
}
