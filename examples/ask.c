/* ask.c: asks a model one question through runnel.h and prints the answer as it comes, thoughts dimmed on a terminal.
 *
 *     cc ask.c $(pkg-config --cflags --libs runnel) -o ask
 *     ./ask model.gguf "Why is the sky blue?" [at most so many tokens]
 *
 * Compiles as C++ too. */
#include <runnel.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void print_text(const runnel_event *event, bool *thinking)
{
    bool color = isatty(STDOUT_FILENO);
    bool thought = event->kind == RUNNEL_EVENT_THOUGHT;
    if (thought != *thinking && color)
        fputs(thought ? "\033[2m" : "\033[0m\n\n", stdout);
    *thinking = thought;
    fwrite(event->text, 1, event->text_len, stdout);
    fflush(stdout);
}

static int ask(runnel_engine *engine, const char *question, int max_tokens, runnel_error *error)
{
    bool thinking = false;
    runnel_future *future;
    runnel_event event;
    runnel_response response;
    runnel_request request;
    event.size = sizeof event;
    response.size = sizeof response;
    runnel_request_init(&request); /* with the model's own sampling values */
    request.prompt = question;
    request.max_tokens = max_tokens;
    request.wants_events = true;
    int code = runnel_submit(engine, &request, 1, &future, error);
    if (code)
        return code;
    while (!runnel_next(future, &event, -1) && event.kind != RUNNEL_EVENT_FINISH)
        print_text(&event, &thinking);
    puts(thinking && isatty(STDOUT_FILENO) ? "\033[0m" : "");
    code = runnel_wait(future, &response, error);
    if (!code) {
        fprintf(stderr, "%u tokens of prompt in %.0f ms, %u of answer in %.0f ms\n", response.n_prompt_tokens,
                response.prefill_ms, response.n_tokens, response.decode_ms);
        runnel_response_free(&response);
    }
    runnel_free(future);
    return code;
}

int main(int argc, char **argv)
{
    runnel_error error;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    int max_tokens = argc > 3 ? atoi(argv[3]) : 512;

    if (argc < 3 || max_tokens < 1) {
        fprintf(stderr, "usage: ask MODEL.gguf QUESTION [TOKENS]    (runnel %s)\n", runnel_version());
        return 2;
    }
    int code = runnel_model_open(argv[1], NULL, &model, &error);
    if (!code)
        code = runnel_engine_start(model, NULL, &engine, &error);
    if (!code)
        code = ask(engine, argv[2], max_tokens, &error);
    if (code)
        fprintf(stderr, "ask: %s\n", error.message);
    if (engine)
        runnel_engine_stop(engine);
    if (model)
        runnel_model_close(model);
    return code ? 1 : 0;
}
