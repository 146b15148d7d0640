/* chat.c: the conversation of `runnel run` on a terminal: questions, commands, history. One thread. */
#include "cli/chat.h"

#include "base/error.h"
#include "cli/answer_view.h"
#include "cli/chat_commands.h"
#include "cli/cli.h"
#include "cli/line_editor.h"
#include "cli/line_history.h"
#include "cli/line_terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* A text that somebody typed, to be freed; NULL at the end. */
static char *read_question(struct line_editor *editor)
{
    char *text;
    enum line_result result;
    while ((result = line_editor_read(editor, "\n> ", &text)) == LINE_INTERRUPTED || result == LINE_CLEARED)
        if (result == LINE_INTERRUPTED)
            chat_say("\nCtrl-C again or Ctrl-D ends.\n");
    return text;
}

/* Turns --------------------------------------------------------------------------------------------------- */

/* A question without an answer is only ever the last message: another one takes its place. */
static void drop_open_question(struct conversation *conversation)
{
    if (conversation_is_open(conversation))
        conversation_drop_last(conversation);
}

/* Asks the question, streams the answer, keeps both: the answer without its thoughts, and if there is any, as models are
 * irritated by an answer of theirs that is empty. */
static int ask(struct chat *chat, const char *question, runnel_response *response, runnel_error *error)
{
    struct conversation *conversation = &chat->conversation;
    struct answer_view view = answer_view_open();
    runnel_sampling sampling;
    runnel_request request = run_make_request(chat->model, &chat->settings, &sampling);
    drop_open_question(conversation);
    if (!conversation_add(conversation, "user", question, strlen(question)))
        return error_set(error, RUNNEL_ENOMEM, "no memory for the conversation");
    request.messages = conversation->messages;
    request.n_messages = conversation->n;
    int failure = answer_wait(chat->engine, &request, &view, line_editor_restore, response, error);
    signal(SIGINT, SIG_IGN);
    if (!failure && response->text_len &&
        !conversation_add(conversation, "assistant", response->text, response->text_len)) {
        runnel_response_free(response);
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for the conversation");
    }
    if (failure)
        conversation_drop_last(conversation);
    return failure;
}

/* The question found no room, which the error says in tokens. */
static void offer_room(const struct chat *chat, const char *question, const runnel_error *error)
{
    size_t n_turns = conversation_turns(&chat->conversation), n = chat_turns_in_the_way(chat, question);
    if (n > n_turns)
        chat_say("The question is too long by itself (%s): --ctx gives more room, if the model has it%s.\n",
                 error->message,
                 chat->conversation.has_system ? ", and so does a shorter system prompt" : "");
    else
        chat_say("The conversation has become too long (%s): /drop forgets the oldest %zu of its %zu turn%s "
                 "and asks again, /clear starts a new one, in which /retry asks.\n",
                 error->message, n, n_turns, n_turns == 1 ? "" : "s");
}

/* The answer ended because the context did. */
static void say_full(const struct chat *chat)
{
    if (conversation_turns(&chat->conversation) > 1)
        chat_say("The context is full: /drop forgets the oldest turns, /retry then asks again, /clear "
                 "starts anew.\n");
    else
        chat_say(
            "The context is full with this turn alone: /clear starts anew; --ctx gives more room, if the "
            "model has it.\n");
}

/* What ended the answer too early and what can be done, or that there is none: one thing is said. */
static void say_what_is_missing(const struct chat *chat, const runnel_response *response)
{
    bool is_cut = response->finish_reason == RUNNEL_FINISH_LENGTH;
    if (is_cut && response->n_prompt_tokens + response->n_tokens >= chat->n_context)
        say_full(chat);
    else if (is_cut && response->reasoning_len && !response->text_len)
        chat_say(
            "Cut off within its thoughts, so there is no answer: /set n-tokens N gives room for one, /set "
            "think off leaves the thoughts out, /retry then asks again.\n");
    else if (response->finish_reason == RUNNEL_FINISH_STOP && response->reasoning_len && !response->text_len)
        chat_say("The model ended behind its thought, so there is no answer: /retry asks again, /set think "
                 "off leaves the thoughts out.\n");
    else if (!response->text_len && !chat->replaced)
        chat_say("There is no answer: /retry asks again, another question takes its place.\n");
    else if (response->thought_end == RUNNEL_THOUGHT_LOOP)
        chat_say("The thought went in circles, and was closed.\n");
}

static void forget(char **text)
{
    free(*text);
    *text = NULL;
}

/* Says why, and keeps the question for /retry. */
static void refuse(struct chat *chat, const char *question, int failure, const runnel_error *error)
{
    bool has_room = failure != RUNNEL_ECONTEXT;
    if (has_room)
        chat_say("runnel: %s\n", error->message);
    else
        offer_room(chat, question, error);
    if (chat->retries) {
        chat_put_back(chat, question);
        chat->retry_refused = !has_room;
    } else {
        chat->unasked = strdup(question); /* NULL: it has to be typed again */
    }
}

/* A retry that was interrupted or cut off before its answer began takes none away: the one before comes back. */
static void keep_replaced(struct chat *chat, const runnel_response *response)
{
    struct conversation *conversation = &chat->conversation;
    const char *answer = chat->replaced;
    if (response->text_len || !answer || !*answer)
        return;
    if (conversation_add(conversation, "assistant", answer, strlen(answer)))
        chat_say("The answer before stays.\n");
    else
        chat_say("No memory for the answer before.\n");
}

static void take_turn(struct chat *chat, const char *question)
{
    runnel_error error;
    runnel_response response = {.size = sizeof response};
    forget(&chat->unasked);
    chat->retry_refused = false;
    int failure = ask(chat, question, &response, &error);
    if (failure) {
        cli_name_template_options(&error);
        refuse(chat, question, failure, &error);
    } else {
        answer_print_timings(chat->model, &response, 0, chat->settings.verbose);
        say_what_is_missing(chat, &response);
        keep_replaced(chat, &response);
        runnel_response_free(&response);
    }
    forget(&chat->replaced);
    chat->retries = false;
}

/* The loop ------------------------------------------------------------------------------------------------ */

static void converse(struct chat *chat, struct line_editor *editor)
{
    enum chat_typed typed = CHAT_NOTHING;
    char *line, *question;
    while (typed != CHAT_END && (line = read_question(editor))) {
        typed = chat_take(chat, line, &question);
        if (line[strspn(line, " \t\n")])
            line_editor_remember(editor, line);
        if (typed == CHAT_QUESTION)
            take_turn(chat, question);
        free(question);
        free(line);
    }
}

static int start_engine(struct chat *chat, runnel_error *error)
{
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = chat->n_context = run_context_limit(chat->model, &chat->settings);
    int failure = run_check_context(chat->model, &chat->settings, chat->n_context, error);
    options.no_drafts = cli_draft_is_off(chat->settings.draft);
    options.quick_start = true; /* the context's memory is taken while somebody types */
    if (!failure)
        failure = cli_start_engine(chat->model, &options, &chat->engine, error);
    if (!failure)
        run_tell_device(chat->model, chat->engine, &chat->settings);
    return failure;
}

int chat_open_editor(struct line_editor **editor, runnel_error *error)
{
    char *history_path = line_history_path();
    int failure = line_editor_open(history_path, editor, error);
    free(history_path);
    return failure;
}

int chat_loop(const runnel_model *model, const struct run_settings *settings, const char *system,
              struct line_editor *editor)
{
    runnel_error error;
    struct chat chat = {.model = model, .settings = *settings};
    if (start_engine(&chat, &error))
        return cli_fail(&error);
    if (system && !conversation_set_system(&chat.conversation, system))
        fputs("runnel: no memory for the system prompt\n", stderr);
    chat_say("Type a question. Ctrl-C stops an answer, /? lists the commands, Ctrl-D ends.\n");
    converse(&chat, editor);
    fputc('\n', stderr);
    conversation_free(&chat.conversation);
    forget(&chat.unasked);
    cli_stop_engine(chat.engine);
    return EXIT_DONE;
}
