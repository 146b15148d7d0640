/* chat.c: the conversation of `runnel run` on a terminal: questions, commands, history. One thread. */
#include "cli/chat.h"

#include "cli/answer_view.h"
#include "cli/cli.h"

#include <editline/readline.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* The terminal -------------------------------------------------------------------------------------------- */

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

/* The conversation ---------------------------------------------------------------------------------------- */

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
    runnel_request request = run_make_request(model, settings);
    struct answer_view view = answer_view_open();
    size_t n_before = chat->n;
    if (!chat_add(chat, "user", question))
        goto no_memory;
    request.messages = chat->messages;
    request.n_messages = chat->n;
    request.on_event = answer_view_on_event;
    request.user = &view;
    int failure = answer_wait(engine, &request, restore_terminal, &response, error);
    signal(SIGINT, SIG_IGN);
    if (failure) {
        chat_drop(chat, n_before);
        return failure;
    }
    bool kept = chat_add(chat, "assistant", response.text);
    answer_print_timings(model, &response, 0, settings->verbose);
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

int chat_loop(const runnel_model *model, const struct run_settings *settings, const char *system)
{
    (void)system;
    runnel_error error;
    runnel_engine *engine;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = run_context_limit(model, settings);
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
