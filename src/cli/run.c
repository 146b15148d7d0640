/* run.c: the command `runnel run`: one answer, or a chat on the terminal.
 *
 * The answer goes to stdout as it is made. Thoughts are shown dimmed where a person looks on, and left out
 * where stdout goes to a file or another program. Ctrl-C ends the answer, a second one the program. One
 * thread. */
#include "base/options.h"
#include "cli/cli.h"

#include <editline/readline.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    ROOM_FOR_TEMPLATE = 8, /* tokens */
};

struct run_settings {
    const char *model, *prompt, *prompt_file, *chat_template, *chat_template_file;
    char *config_text;
    int n_tokens, n_context, n_threads, top_k;
    float temperature, top_p, min_p;
    uint64_t seed;
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_seed;
    bool raw, no_think, json;
};

static const struct option_spec run_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct run_settings, model), .required = true},
    {"prompt", 'p', OPTION_STRING, "TEXT", "answer this; without -p and -f on a terminal: a chat",
     OPTION_FIELD(struct run_settings, prompt)},
    {"file", 'f', OPTION_STRING, "FILE", "answer the text in FILE (-: stdin)",
     OPTION_FIELD(struct run_settings, prompt_file)},
    {"n-tokens", 'n', OPTION_INT, "N", "tokens of an answer at most, thoughts included",
     OPTION_FIELD(struct run_settings, n_tokens), .minimum = 1, .maximum = 1 << 24, .default_text = "4096"},
    {"temp", 0, OPTION_FLOAT, "T", "temperature; 0: always the likeliest token (default: the model's own)",
     OPTION_FIELD(struct run_settings, temperature), OPTION_HAS(struct run_settings, has_temperature),
     .minimum = 0, .maximum = 100},
    {"top-p", 0, OPTION_FLOAT, "P",
     "keep the likeliest tokens that together reach P (default: the model's own)",
     OPTION_FIELD(struct run_settings, top_p), OPTION_HAS(struct run_settings, has_top_p), .minimum = 0,
     .maximum = 1},
    {"top-k", 0, OPTION_INT, "K", "keep the K likeliest tokens; 0: all (default: the model's own)",
     OPTION_FIELD(struct run_settings, top_k), OPTION_HAS(struct run_settings, has_top_k), .minimum = 0,
     .maximum = 1 << 24},
    {"min-p", 0, OPTION_FLOAT, "P",
     "drop tokens less likely than P times the likeliest (default: the model's own)",
     OPTION_FIELD(struct run_settings, min_p), OPTION_HAS(struct run_settings, has_min_p), .minimum = 0,
     .maximum = 1},
    {"seed", 0, OPTION_UINT64, "S", "the same seed gives the same answer (default: another one each time)",
     OPTION_FIELD(struct run_settings, seed), OPTION_HAS(struct run_settings, has_seed)},
    {"ctx", 0, OPTION_INT, "N", "context in tokens, prompt and answer together",
     OPTION_FIELD(struct run_settings, n_context), .minimum = 2, .maximum = 1 << 24, .default_text = "8192"},
    {"threads", 't', OPTION_INT, "N", "compute threads; 0: as many as this process may use",
     OPTION_FIELD(struct run_settings, n_threads), .minimum = 0, .maximum = 256},
    {"chat-template", 0, OPTION_STRING, "NAME", "instead of the model's own chat template",
     OPTION_FIELD(struct run_settings, chat_template), .choices = "r1|chatml"},
    {"chat-template-file", 0, OPTION_STRING, "FILE",
     "a chat template in Jinja's language instead of the model's own",
     OPTION_FIELD(struct run_settings, chat_template_file)},
    {"raw", 0, OPTION_FLAG, NULL, "send the text as it is, without the chat template",
     OPTION_FIELD(struct run_settings, raw)},
    {"no-think", 0, OPTION_FLAG, NULL, "answer without thoughts",
     OPTION_FIELD(struct run_settings, no_think)},
    {"json", 0, OPTION_FLAG, NULL, "print one object: text, reasoning, counts, timings, a hash of the logits",
     OPTION_FIELD(struct run_settings, json)},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct run_settings, config_text)},
};

static const struct options_table run_table = {
    "runnel run", "Answers a prompt, or chats on the terminal. The answer is streamed to stdout.",
    run_options, OPTION_COUNT(run_options)};

static volatile sig_atomic_t interrupted;

/* The terminal as it was found; only a chat changes it. */
static struct termios found_terminal;
static volatile sig_atomic_t terminal_changed;

static void restore_terminal(void)
{
    if (terminal_changed)
        tcsetattr(STDIN_FILENO, TCSANOW, &found_terminal);
    terminal_changed = 0;
}

/* Keys are read one by one for as long as the chat lasts. Were lines gathered between two questions, a Ctrl-D that is
 * typed while an answer streams would reach the line editor as another byte, and stay in its line. */
static void read_single_keys(void)
{
    if (tcgetattr(STDIN_FILENO, &found_terminal))
        return;
    struct termios single = found_terminal;
    single.c_lflag &= (tcflag_t)~ICANON; /* echo stays: without it libedit does not edit */
    single.c_cc[VMIN] = 1;
    single.c_cc[VTIME] = 0;
    terminal_changed = tcsetattr(STDIN_FILENO, TCSANOW, &single) == 0;
}

/* The first Ctrl-C asks the answer to end; the next one is the system's own. */
static void on_interrupt(int signal_number)
{
    if (interrupted) {
        restore_terminal();
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    interrupted = 1;
}

/* Waits for the answer; Ctrl-C ends it, in the middle of a long prompt too. */
static int respond(runnel_engine *engine, const runnel_request *request, runnel_response *response,
                   runnel_error *error)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    runnel_future *future;
    interrupted = 0;
    signal(SIGINT, on_interrupt);
    int failure = runnel_submit(engine, request, 1, &future, error);
    if (failure)
        return failure;
    for (bool cancelled = false; !runnel_poll(future); nanosleep(&moment, NULL))
        if (interrupted && !cancelled) {
            cancelled = true;
            runnel_cancel(future);
        }
    failure = runnel_wait(future, response, error);
    runnel_free(future);
    return failure;
}

/* Streaming ----------------------------------------------------------------------------------------------- */

struct stream {
    FILE *thoughts; /* where thoughts are shown; NULL: not at all */
    bool dims;      /* with terminal colours */
    bool in_thought;
    bool wrote; /* any answer text */
};

static void show_thought(struct stream *stream, const runnel_event *event)
{
    if (!stream->thoughts)
        return;
    if (!stream->in_thought && stream->dims)
        fputs("\033[2m", stream->thoughts);
    stream->in_thought = true;
    fwrite(event->text, 1, event->text_len, stream->thoughts);
    fflush(stream->thoughts);
}

static void end_thought(struct stream *stream)
{
    if (!stream->in_thought)
        return;
    stream->in_thought = false;
    fputs(stream->dims ? "\033[0m\n\n" : "\n\n", stream->thoughts);
    fflush(stream->thoughts);
}

static bool on_event(void *user, const runnel_event *event)
{
    struct stream *stream = user;
    if (event->kind == RUNNEL_EVENT_THOUGHT) {
        show_thought(stream, event);
    } else if (event->kind == RUNNEL_EVENT_ANSWER) {
        end_thought(stream);
        stream->wrote = true;
        fwrite(event->text, 1, event->text_len, stdout);
        fflush(stdout);
    } else {
        end_thought(stream);
        if (stream->wrote)
            putchar('\n');
        fflush(stdout);
    }
    return !ferror(stdout);
}

static struct stream stream_to_stdout(void)
{
    bool out_is_terminal = isatty(STDOUT_FILENO), err_is_terminal = isatty(STDERR_FILENO);
    return (struct stream){
        .thoughts = out_is_terminal   ? stdout
                    : err_is_terminal ? stderr
                                      : NULL,
        .dims = out_is_terminal || err_is_terminal,
    };
}

/* Reports ------------------------------------------------------------------------------------------------- */

static const char *finish_name(enum runnel_finish_reason reason)
{
    switch (reason) {
    case RUNNEL_FINISH_STOP:
        return "stop";
    case RUNNEL_FINISH_LENGTH:
        return "length";
    case RUNNEL_FINISH_CANCELLED:
        return "cancelled";
    case RUNNEL_FINISH_ERROR:
        return "error";
    }
    return "";
}

static double per_second(double n, double ms)
{
    return ms > 0 ? n / ms * 1e3 : 0;
}

/* The same for people. */
static const char *describe_finish(enum runnel_finish_reason reason)
{
    return reason == RUNNEL_FINISH_STOP     ? "complete"
           : reason == RUNNEL_FINISH_LENGTH ? "cut off at its limit"
                                            : finish_name(reason);
}

/* Tokens after the first one: those that decode_ms covers. */
static double decoded(const runnel_response *response)
{
    return response->n_tokens ? response->n_tokens - 1.0 : 0;
}

static void print_timings(const runnel_model *model, const runnel_response *response, double load_ms)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    double decode_tok_s = per_second(decoded(response), response->decode_ms);
    uint32_t n_computed = response->n_prompt_tokens - response->n_cached_tokens;
    fprintf(stderr, "\n[");
    if (load_ms > 0)
        fprintf(stderr, "load %.2f s | ", load_ms / 1e3);
    fprintf(stderr, "prompt %u tokens", response->n_prompt_tokens);
    if (response->n_cached_tokens)
        fprintf(stderr, " (%u cached)", response->n_cached_tokens);
    fprintf(
        stderr,
        ", prefill %.1f tok/s, first token %.0f ms | answer %u tokens, decode %.1f tok/s, %.1f GB/s | %s]\n",
        per_second(n_computed, response->prefill_ms), response->prefill_ms, response->n_tokens, decode_tok_s,
        decode_tok_s * (double)info.bytes_per_token / 1e9, describe_finish(response->finish_reason));
}

static int print_json(const runnel_model *model, const runnel_response *response, uint64_t seed)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, response->logits_hash);
    double decode_tok_s = per_second(decoded(response), response->decode_ms);
    json_t *object = json_pack(
        "{s:s%, s:s%, s:s, s:i, s:i, s:i, s:i, s:I, s:s, s:{s:f, s:f, s:f, s:f, s:f, s:f}}", "text",
        response->text, response->text_len, "reasoning", response->reasoning, response->reasoning_len,
        "finish_reason", finish_name(response->finish_reason), "prompt_tokens",
        (int)response->n_prompt_tokens, "cached_tokens", (int)response->n_cached_tokens, "completion_tokens",
        (int)response->n_tokens, "reasoning_tokens", (int)response->n_reasoning_tokens, "seed",
        (json_int_t)seed, "logits_hash", hash, "timings", "load_ms", info.load_ms, "prefill_ms",
        response->prefill_ms, "prefill_tok_s",
        per_second(response->n_prompt_tokens - response->n_cached_tokens, response->prefill_ms), "decode_ms",
        response->decode_ms, "decode_tok_s", decode_tok_s, "decode_gb_s",
        decode_tok_s * (double)info.bytes_per_token / 1e9);
    if (!object) {
        fprintf(stderr, "runnel: the answer cannot be written as JSON\n");
        return EXIT_FAILED;
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
    return EXIT_DONE;
}

/* Settings ------------------------------------------------------------------------------------------------ */

static runnel_request make_request(const runnel_model *model, const struct run_settings *settings)
{
    runnel_request request;
    runnel_request_init(model, &request);
    request.raw = settings->raw;
    request.no_thinking = settings->no_think;
    request.max_tokens = settings->n_tokens;
    request.sampling.seed = settings->seed;
    if (settings->has_temperature)
        request.sampling.temperature = settings->temperature;
    if (settings->has_top_p)
        request.sampling.top_p = settings->top_p;
    if (settings->has_top_k)
        request.sampling.top_k = settings->top_k;
    if (settings->has_min_p)
        request.sampling.min_p = settings->min_p;
    return request;
}

/* How many tokens the prompt will have. */
static int count_prompt(const runnel_model *model, const runnel_request *request, size_t *n_tokens,
                        runnel_error *error)
{
    char *text = NULL;
    if (!request->raw) {
        const runnel_message message = {.role = "user", .content = request->prompt};
        int failure = runnel_chat_format(model, &message, 1, !request->no_thinking, &text, error);
        if (failure)
            return failure;
    }
    const char *counted = text ? text : request->prompt;
    int32_t *ids;
    int failure = runnel_tokenize(model, counted, strlen(counted), true, &ids, n_tokens, error);
    if (!failure)
        runnel_tokens_free(ids);
    runnel_text_free(text);
    return failure;
}

/* What --ctx asks for, or the model's own context if that is shorter. */
static uint32_t context_limit(const runnel_model *model, const struct run_settings *settings)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    uint32_t n_context = (uint32_t)settings->n_context;
    return n_context < info.n_context_train ? n_context : info.n_context_train;
}

/* Starts an engine whose KV cache has room for this request and no more. */
static int start_for_request(const runnel_model *model, const struct run_settings *settings,
                             const runnel_request *request, runnel_engine **engine, runnel_error *error)
{
    size_t n_prompt;
    int failure = count_prompt(model, request, &n_prompt, error);
    if (failure)
        return failure;
    uint64_t wanted = n_prompt + (uint64_t)request->max_tokens + ROOM_FOR_TEMPLATE;
    uint32_t limit = context_limit(model, settings);
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = wanted < limit ? (uint32_t)wanted : limit;
    return runnel_engine_start(model, &options, engine, error);
}

/* One answer ---------------------------------------------------------------------------------------------- */

static int answer_once(const runnel_model *model, const struct run_settings *settings, const char *prompt)
{
    runnel_error error;
    runnel_engine *engine;
    runnel_response response;
    runnel_request request = make_request(model, settings);
    struct stream stream = stream_to_stdout();
    request.prompt = prompt;
    request.wants_logits_hash = settings->json;
    request.on_event = on_event;
    request.user = &stream;
    if (settings->json)
        request.on_event = NULL;
    if (start_for_request(model, settings, &request, &engine, &error))
        return cli_fail(&error);
    int failure = respond(engine, &request, &response, &error);
    runnel_engine_stop(engine);
    if (failure)
        return cli_fail(&error);
    int status = EXIT_DONE;
    if (settings->json) {
        status = print_json(model, &response, settings->seed);
    } else {
        runnel_model_info info = {.size = sizeof info};
        runnel_model_get_info(model, &info);
        print_timings(model, &response, info.load_ms);
    }
    runnel_response_free(&response);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "runnel: stdout cannot be written\n");
        return EXIT_FAILED;
    }
    return status;
}

/* Chat ---------------------------------------------------------------------------------------------------- */

static const char chat_help[] = "Ctrl-C stops an answer, /clear starts anew, /quit or Ctrl-D ends.\n";

struct chat {
    runnel_message *messages;
    size_t n, cap;
};

static bool chat_add(struct chat *chat, const char *role, const char *content)
{
    if (chat->n == chat->cap) {
        size_t cap = chat->cap * 2 + 16;
        runnel_message *grown = realloc(chat->messages, cap * sizeof *grown);
        if (!grown)
            return false;
        chat->messages = grown;
        chat->cap = cap;
    }
    char *copy = strdup(content);
    if (!copy)
        return false;
    chat->messages[chat->n++] = (runnel_message){.role = role, .content = copy};
    return true;
}

static void chat_drop(struct chat *chat, size_t n_kept)
{
    while (chat->n > n_kept)
        free((char *)(uintptr_t)chat->messages[--chat->n].content);
}

/* Asks the question, streams the answer, keeps both in the history: the answer without its thoughts. */
static int chat_turn(runnel_engine *engine, const runnel_model *model, const struct run_settings *settings,
                     struct chat *chat, const char *question, runnel_error *error)
{
    runnel_response response;
    runnel_request request = make_request(model, settings);
    struct stream stream = stream_to_stdout();
    size_t n_before = chat->n;
    if (!chat_add(chat, "user", question))
        goto no_memory;
    request.messages = chat->messages;
    request.n_messages = chat->n;
    request.on_event = on_event;
    request.user = &stream;
    int failure = respond(engine, &request, &response, error);
    signal(SIGINT, SIG_IGN);
    if (failure) {
        chat_drop(chat, n_before);
        return failure;
    }
    bool kept = chat_add(chat, "assistant", response.text);
    print_timings(model, &response, 0);
    runnel_response_free(&response);
    if (kept)
        return RUNNEL_OK;

no_memory:
    chat_drop(chat, n_before);
    error->code = RUNNEL_ENOMEM;
    snprintf(error->message, sizeof error->message, "no memory for the conversation");
    return error->code;
}

/* What is typed instead of a question. */
enum typed { TYPED_QUESTION, TYPED_NOTHING, TYPED_END };

static enum typed take_command(const char *line, struct chat *chat)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    if (!line[strspn(line, " \t")])
        return TYPED_NOTHING;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit") || !strcmp(line, "/bye"))
        return TYPED_END;
    if (*line != '/' || line[1 + strspn(line + 1, letters)])
        return TYPED_QUESTION;
    if (!strcmp(line, "/clear")) {
        chat_drop(chat, 0);
        fprintf(stderr, "A new conversation.\n");
    } else {
        if (strcmp(line, "/help"))
            fprintf(stderr, "%s: no such command. ", line);
        fputs(chat_help, stderr);
    }
    return TYPED_NOTHING;
}

static void note_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* A line that somebody typed, to be freed; NULL at the end. Ctrl-C throws away what stands in the line; twice in a row
 * it is the end. */
static char *read_question(void)
{
    for (bool warned = false;; warned = true) {
        interrupted = 0;
        signal(SIGINT, note_interrupt);
        char *line = readline("\n> ");
        if (line || !interrupted || warned)
            return line;
        fputs("\nCtrl-C again or Ctrl-D ends.\n", stderr);
    }
}

static int chat_loop(const runnel_model *model, const struct run_settings *settings)
{
    runnel_error error;
    runnel_engine *engine;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = context_limit(model, settings);
    if (runnel_engine_start(model, &options, &engine, &error))
        return cli_fail(&error);
    fputs("Type a question. ", stderr);
    fputs(chat_help, stderr);
    struct chat chat = {0};
    read_single_keys();
    rl_initialize();
    char *line;
    while ((line = read_question())) {
        enum typed typed = take_command(line, &chat);
        if (typed == TYPED_END) {
            free(line);
            break;
        }
        if (typed == TYPED_QUESTION) {
            add_history(line);
            if (chat_turn(engine, model, settings, &chat, line, &error)) {
                cli_fail(&error);
                if (error.code == RUNNEL_ECONTEXT)
                    fprintf(stderr, "The conversation has become too long: /clear starts a new one.\n");
            }
        }
        free(line);
    }
    restore_terminal();
    fputc('\n', stderr);
    chat_drop(&chat, 0);
    free(chat.messages);
    runnel_engine_stop(engine);
    return EXIT_DONE;
}

/* The command --------------------------------------------------------------------------------------------- */

static int run(struct run_settings *settings)
{
    if (!settings->has_seed && getrandom(&settings->seed, sizeof settings->seed, 0) != sizeof settings->seed)
        settings->seed = (uint64_t)getpid();
    settings->seed &= INT64_MAX; /* JSON's integers */

    runnel_error error;
    char *text = NULL;
    size_t len;
    bool is_chat = !settings->prompt && !settings->prompt_file && isatty(STDIN_FILENO) && !settings->json &&
                   !settings->raw;
    if (!settings->prompt && !is_chat) {
        if (cli_read_file(settings->prompt_file ? settings->prompt_file : "-", &text, &len, &error))
            return cli_fail(&error);
        settings->prompt = text;
        if (!text[strspn(text, " \t\r\n")]) {
            fprintf(stderr, "runnel: %s: expected a question, found nothing\n",
                    settings->prompt_file && strcmp(settings->prompt_file, "-") ? settings->prompt_file
                                                                                : "stdin");
            free(text);
            return EXIT_FAILED;
        }
        if (strlen(text) != len) {
            fprintf(stderr, "runnel: %s: expected text, found a zero byte at offset %zu\n",
                    settings->prompt_file ? settings->prompt_file : "stdin", strlen(text));
            free(text);
            return EXIT_FAILED;
        }
    }
    runnel_model *model;
    int status;
    if (cli_open_model(settings->model, settings->n_threads, settings->chat_template,
                       settings->chat_template_file, &model, &error)) {
        status = cli_fail(&error);
    } else {
        status = is_chat ? chat_loop(model, settings) : answer_once(model, settings, settings->prompt);
        runnel_model_close(model);
    }
    free(text);
    return status;
}

int command_run(int argc, char **argv)
{
    struct run_settings settings;
    int status = cli_read_options(&run_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(&settings);
    free(settings.config_text);
    return status;
}
