/* chat_commands.c: what is typed in a chat instead of a question. */
#include "cli/chat_commands.h"

#include "base/error.h"
#include "base/near_name.h"
#include "cli/cli.h"
#include "cli/wrap.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    NAME_MAX_LEN = 16,
    WORD_MAX = 32,
    LEFT_COLUMNS = 16, /* of the table of commands */
    ANSWER_SHARE = 4,  /* a quarter of the context is kept for the answer */
    SHOWN_BYTES = 240, /* of a message whose beginning is shown */
    SHOWN_LINES = 3,
};

/* A line of two columns. */
static void say_row(const char *left, const char *right)
{
    char row[160];
    snprintf(row, sizeof row, "%-*s %s\n", LEFT_COLUMNS, left, right);
    wrap_print(stderr, LEFT_COLUMNS + 1, row);
}

void chat_say(const char *format, ...)
{
    va_list args;
    char *text;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0)
        return;
    wrap_print(stderr, 0, text);
    free(text);
}

/* Room ---------------------------------------------------------------------------------------------------- */

/* The tokens of the conversation without its n_dropped oldest turns, and of question behind it; 0: it has none, or they
 * cannot be counted. */
static size_t count_tokens(const struct chat *chat, size_t n_dropped, const char *question)
{
    const struct conversation *conversation = &chat->conversation;
    size_t first = conversation->has_system, n = 0, n_tokens = 0;
    runnel_message *messages = calloc(conversation->n + 1, sizeof *messages);
    if (!messages)
        return 0;
    for (size_t i = 0; i < conversation->n; i++)
        if (i < first || i >= first + 2 * n_dropped)
            messages[n++] = conversation->messages[i];
    messages[n++] = (runnel_message){.role = "user", .content = question ? question : ""};
    runnel_sampling sampling;
    runnel_request request = run_make_request(chat->model, &chat->settings, &sampling);
    request.messages = messages;
    request.n_messages = n;
    request.n_context = chat->n_context;
    int32_t *ids;
    int failure = runnel_prompt_tokens(chat->model, &request, &ids, &n_tokens, NULL);
    if (!failure)
        runnel_tokens_free(ids);
    else /* more than fit, or nothing is known */
        n_tokens = failure == RUNNEL_ECONTEXT ? chat->n_context : 0;
    free(messages);
    return n_tokens;
}

size_t chat_turns_in_the_way(const struct chat *chat, const char *question)
{
    size_t n_turns = conversation_turns(&chat->conversation), n_dropped = 0;
    size_t reserve = chat->n_context / ANSWER_SHARE;
    if ((size_t)chat->settings.n_tokens < reserve)
        reserve = (size_t)chat->settings.n_tokens;
    while (n_dropped < n_turns && count_tokens(chat, n_dropped, question) + reserve > chat->n_context)
        n_dropped++;
    if (n_dropped == n_turns && count_tokens(chat, n_turns, question) >= chat->n_context)
        return n_turns + 1;
    return n_dropped;
}

/* The commands -------------------------------------------------------------------------------------------- */

/* For /retry, as the turn is about to go. */
static void keep_last_question(struct chat *chat)
{
    const runnel_message *last = conversation_last_question(&chat->conversation);
    if (!chat->unasked && last)
        chat->unasked = strdup(last->content);
}

static enum chat_typed take_clear(struct chat *chat, const char *argument, char **question)
{
    (void)argument, (void)question;
    if (chat->retry_refused)
        keep_last_question(chat);
    chat->retry_refused = false;
    conversation_clear(&chat->conversation);
    chat_say("A new conversation.%s%s\n", chat->conversation.has_system ? " The system prompt stays." : "",
             chat->unasked ? " /retry asks the question that was refused." : "");
    return CHAT_NOTHING;
}

static enum chat_typed take_quit(struct chat *chat, const char *argument, char **question)
{
    (void)chat, (void)argument, (void)question;
    return CHAT_END;
}

static enum chat_typed take_system(struct chat *chat, const char *argument, char **question)
{
    (void)question;
    struct conversation *conversation = &chat->conversation;
    if (!*argument) {
        if (conversation->has_system)
            chat_say("The system prompt (/system clear removes it):\n%s\n",
                     conversation->messages[0].content);
        else
            chat_say("There is no system prompt. /system TEXT sets one.\n");
        return CHAT_NOTHING;
    }
    bool clears = !strcasecmp(argument, "clear");
    if (!conversation_set_system(conversation, clears ? NULL : argument))
        chat_say("No memory for the system prompt.\n");
    else
        chat_say(clears ? "There is no system prompt now.\n"
                        : "The system prompt is set, from the next question on.\n");
    return CHAT_NOTHING;
}

static enum chat_typed take_undo(struct chat *chat, const char *argument, char **question)
{
    (void)argument, (void)question;
    struct conversation *conversation = &chat->conversation;
    const runnel_message *last = conversation_last_question(conversation);
    if (!last) {
        chat_say("There is nothing to undo.\n");
        return CHAT_NOTHING;
    }
    if (conversation_last_answer(conversation))
        conversation_drop_last(conversation);
    conversation_drop_last(conversation);
    chat->retry_refused = false;
    chat_say("Forgot the last question and its answer. Turns left: %zu.%s\n",
             conversation_turns(conversation),
             chat->unasked ? " /retry asks the question that was refused." : "");
    return CHAT_NOTHING;
}

/* Takes the last turn, of which there is one, out of the conversation. False: no memory, nothing has changed. */
static bool lift_last_turn(struct chat *chat, char **question)
{
    struct conversation *conversation = &chat->conversation;
    const runnel_message *last = conversation_last_question(conversation);
    const runnel_message *answer = conversation_last_answer(conversation);
    *question = strdup(last->content);
    chat->replaced = answer ? strdup(answer->content) : NULL;
    if (!*question || (answer && !chat->replaced)) {
        free(*question);
        free(chat->replaced);
        *question = chat->replaced = NULL; /* the caller frees the question, too */
        chat_say("No memory to ask again.\n");
        return false;
    }
    if (answer)
        conversation_drop_last(conversation);
    conversation_drop_last(conversation);
    chat->retries = true;
    return true;
}

void chat_put_back(struct chat *chat, const char *question)
{
    struct conversation *conversation = &chat->conversation;
    const char *answer = chat->replaced;
    if (conversation_add(conversation, "user", question, strlen(question)) && answer &&
        !conversation_add(conversation, "assistant", answer, strlen(answer)))
        conversation_drop_last(conversation);
}

/* The question that was refused, if there is one: no answer is in its place. */
static enum chat_typed take_unasked(struct chat *chat, char **question)
{
    *question = chat->unasked;
    chat->unasked = NULL;
    return *question ? CHAT_QUESTION : CHAT_NOTHING;
}

static enum chat_typed take_retry(struct chat *chat, const char *argument, char **question)
{
    (void)argument;
    if (chat->unasked)
        return take_unasked(chat, question);
    if (!conversation_last_question(&chat->conversation)) {
        chat_say("There is no question to ask again.\n");
        return CHAT_NOTHING;
    }
    if (!lift_last_turn(chat, question))
        return CHAT_NOTHING;
    if (!chat->settings.has_seed)
        chat->settings.seed = run_random_seed();
    else
        chat_say("The seed is set, so the answer may be the same: /set seed default takes another.\n");
    return CHAT_QUESTION;
}

/* Drops turns for question (NULL: for whatever is asked next). False: that would not help, or there is none. */
static bool drop_turns(struct chat *chat, const char *question)
{
    size_t n_turns = conversation_turns(&chat->conversation), n = chat_turns_in_the_way(chat, question);
    if (question && n > n_turns) {
        chat_say(
            "The question that was refused is too long by itself, so nothing was dropped. /undo and /clear "
            "forget turns.\n");
        return false;
    }
    if (!n_turns) {
        chat_say("There is no turn to drop.\n");
        return false;
    }
    if (n == 0)
        n = 1; /* somebody wants it */
    if (n >= n_turns && !question)
        n = n_turns > 1 ? n_turns - 1 : 1; /* the last one stays for /retry */
    bool keeps_question = n == n_turns && !question;
    if (keeps_question)
        keep_last_question(chat);
    conversation_drop_oldest(&chat->conversation, n);
    chat_say("Dropped the oldest %zu of %zu turn%s%s.%s\n", n, n_turns, n_turns == 1 ? "" : "s",
             chat->conversation.has_system ? "; the system prompt stays" : "",
             keeps_question ? " /retry asks its question again." : "");
    return true;
}

static enum chat_typed take_drop(struct chat *chat, const char *argument, char **question)
{
    (void)argument;
    bool lifts = chat->retry_refused;
    if (lifts && !lift_last_turn(chat, question))
        return CHAT_NOTHING;
    bool asks = lifts || chat->unasked;
    if (!drop_turns(chat, lifts ? *question : chat->unasked)) {
        if (lifts)
            chat_put_back(chat, *question);
        free(chat->replaced);
        chat->replaced = NULL;
        chat->retries = false;
        return CHAT_NOTHING;
    }
    if (!asks)
        return CHAT_NOTHING;
    return lifts ? CHAT_QUESTION : take_unasked(chat, question);
}

/* Files --------------------------------------------------------------------------------------------------- */

/* "~/" is the home folder, as in a shell. False: nothing was named, or the name is too long. */
static bool find_path(const char *argument, char path[PATH_MAX])
{
    const char *home = !strncmp(argument, "~/", 2) ? getenv("HOME") : NULL;
    int len = home ? snprintf(path, PATH_MAX, "%s%s", home, argument + 1)
                   : snprintf(path, PATH_MAX, "%s", argument);
    return len > 0 && len < PATH_MAX;
}

static enum chat_typed take_save(struct chat *chat, const char *argument, char **question)
{
    (void)question;
    runnel_error error;
    char path[PATH_MAX];
    if (!find_path(argument, path))
        chat_say("/save: expected the name of a file, found %s\n",
                 *argument ? "one that is too long" : "none");
    else if (conversation_save(&chat->conversation, path, &error))
        chat_say("/save: %s\n", error.message);
    else
        chat_say("Saved %zu turn%s to %s\n", conversation_turns(&chat->conversation),
                 conversation_turns(&chat->conversation) == 1 ? "" : "s", path);
    return CHAT_NOTHING;
}

/* Copies the beginning of a text: a few lines, none of them empty. Returns whether there is more of it. */
static bool shorten(const char *text, char shown[SHOWN_BYTES + 1])
{
    static const char spaces[] = " \t\r\n";
    size_t len = 0, n_lines = 1;
    for (text += strspn(text, spaces); *text && len < SHOWN_BYTES; text++) {
        bool ends_line = *text == '\n' && text[1] != '\n';
        n_lines += ends_line;
        if (n_lines > SHOWN_LINES)
            break;
        if (*text != '\n' || ends_line)
            shown[len++] = *text;
    }
    for (; len && ((unsigned char)*text & 0xc0) == 0x80; len--) /* within a character of UTF-8 */
        text--;
    while (len && strchr(spaces, shown[len - 1]))
        len--;
    shown[len] = 0;
    return text[strspn(text, spaces)];
}

static void say_beginning(const char *label, const char *text)
{
    char shown[SHOWN_BYTES + 1];
    bool has_more = shorten(text, shown);
    chat_say("%s: %s%s\n", label, shown, has_more ? " ..." : "");
}

/* Where a conversation stands: who loads it may have saved it a month ago. */
static void say_last_turn(const struct conversation *conversation)
{
    const runnel_message *question = conversation_last_question(conversation);
    const runnel_message *answer = conversation_last_answer(conversation);
    if (question)
        say_beginning("Last question", question->content);
    if (answer)
        say_beginning("Its answer", answer->content);
}

static enum chat_typed take_load(struct chat *chat, const char *argument, char **question)
{
    (void)question;
    runnel_error error;
    char path[PATH_MAX];
    struct conversation *conversation = &chat->conversation;
    if (!find_path(argument, path)) {
        chat_say("/load: expected the name of a file, found %s\n",
                 *argument ? "one that is too long" : "none");
    } else if (conversation_load(conversation, path, &error)) {
        chat_say("/load: %s\n", error.message);
    } else {
        free(chat->unasked); /* it belonged to what was said before */
        chat->unasked = NULL;
        chat->retry_refused = false;
        size_t n_turns = conversation_turns(conversation);
        chat_say("Loaded %zu turn%s%s from %s%s\n", n_turns, n_turns == 1 ? "" : "s",
                 conversation->has_system ? " and a system prompt" : "", path,
                 conversation_is_open(conversation)
                     ? ". The last question has no answer: /retry asks it, another question takes its place."
                     : "");
        say_last_turn(conversation);
    }
    return CHAT_NOTHING;
}

/* Settings ------------------------------------------------------------------------------------------------ */

/* Those of the option table that /set takes. */
static const struct setting {
    const char *name;
    size_t has; /* where it is noted that somebody gave it; 0: nowhere */
} setting_list[] = {
    {"temp", offsetof(struct run_settings, has_temperature)},
    {"top-p", offsetof(struct run_settings, has_top_p)},
    {"top-k", offsetof(struct run_settings, has_top_k)},
    {"min-p", offsetof(struct run_settings, has_min_p)},
    {"seed", offsetof(struct run_settings, has_seed)},
    {"n-tokens", 0},
    {"think", 0},
    {"verbose", 0},
};
enum { N_SETTINGS = sizeof setting_list / sizeof *setting_list };

static const struct setting *find_setting(const char *name)
{
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (!strcmp(setting_list[i].name, name))
            return &setting_list[i];
    return NULL;
}

static int refuse_setting(const char *name, runnel_error *error)
{
    char names[128];
    size_t len = 0;
    struct near_name near = near_name_begin(name, strlen(name));
    for (size_t i = 0; i < N_SETTINGS; i++) {
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", setting_list[i].name);
        near_name_consider(&near, setting_list[i].name, strlen(setting_list[i].name));
    }
    return error_set(error, RUNNEL_EINVAL, "expected one of %s, found '%.80s'%s%s%s", names, name,
                     *near.nearest ? "; did you mean " : "", near.nearest, *near.nearest ? "?" : "");
}

static void show_settings(const struct chat *chat)
{
    const struct run_settings *settings = &chat->settings;
    runnel_sampling sampling;
    run_make_request(chat->model, settings, &sampling);
    static const char own[] = " (the model's own)";
    chat_say("temp      %g%s\n", (double)sampling.temperature, settings->has_temperature ? "" : own);
    chat_say("top-p     %g%s\n", (double)sampling.top_p, settings->has_top_p ? "" : own);
    chat_say("top-k     %d%s\n", sampling.top_k, settings->has_top_k ? "" : own);
    chat_say("min-p     %g%s\n", (double)sampling.min_p, settings->has_min_p ? "" : own);
    chat_say("seed      %" PRIu64 "%s\n", settings->seed, settings->has_seed ? "" : " (by chance)");
    chat_say("n-tokens  %d\n", settings->n_tokens);
    chat_say("think     %s\n", !run_can_think(chat->model) ? "off (never, with this model)"
                               : settings->no_think        ? "off"
                                                           : "on");
    chat_say("verbose   %s\n", settings->verbose ? "on" : "off");
}

static int read_switch(const char *name, const char *value, bool usual, bool *is_on, runnel_error *error)
{
    if (strcasecmp(value, "on") != 0 && strcasecmp(value, "off") != 0 && strcasecmp(value, "default") != 0)
        return error_set(error, RUNNEL_EINVAL, "%s: expected on, off or default, found '%.80s'", name, value);
    *is_on = !strcasecmp(value, "on") || (usual && !strcasecmp(value, "default"));
    return RUNNEL_OK;
}

/* Thinking is an option by its negation. */
static int set_think(struct chat *chat, const char *value, runnel_error *error)
{
    bool can_think = run_can_think(chat->model), is_on;
    int failure = read_switch("think", value, can_think, &is_on, error);
    if (failure)
        return failure;
    if (!can_think && strcasecmp(value, "default") != 0)
        return error_set(error, RUNNEL_EINVAL,
                         "think: expected a model that thinks, found one that does not");
    chat->settings.no_think = !is_on && can_think;
    return RUNNEL_OK;
}

static int set_one(struct chat *chat, const char *name, const char *value, runnel_error *error)
{
    const struct setting *setting = find_setting(name);
    if (!setting)
        return refuse_setting(name, error);
    if (!strcmp(name, "think"))
        return set_think(chat, value, error);
    if (!strcmp(name, "verbose"))
        return read_switch("verbose", value, false, &chat->settings.verbose, error);
    if (strcasecmp(value, "default") != 0)
        return run_set(&chat->settings, name, value, error);
    bool *has = setting->has ? (bool *)((char *)&chat->settings + setting->has) : NULL;
    if (!has)
        return run_set(&chat->settings, name, RUN_DEFAULT_TOKENS, error);
    *has = false;
    if (has == &chat->settings.has_seed)
        chat->settings.seed = run_random_seed();
    return RUNNEL_OK;
}

static void lower(char *text)
{
    for (; *text; text++)
        *text = (char)tolower((unsigned char)*text);
}

static enum chat_typed take_set(struct chat *chat, const char *argument, char **question)
{
    (void)question;
    runnel_error error;
    char name[NAME_MAX_LEN] = "";
    size_t len = strcspn(argument, " \t=");
    const char *value = argument + len + strspn(argument + len, " \t=");
    if (!*argument) {
        show_settings(chat);
        return CHAT_NOTHING;
    }
    snprintf(name, sizeof name, "%.*s", (int)(len < NAME_MAX_LEN ? len : NAME_MAX_LEN - 1), argument);
    lower(name);
    if (!*value)
        error_set(&error, RUNNEL_EINVAL, "%s: expected a value (or default) behind it, found nothing", name);
    else if (!set_one(chat, name, value, &error)) {
        char said[WORD_MAX]; /* of what can be set, nothing is longer */
        snprintf(said, sizeof said, "%s", value);
        lower(said);
        chat_say("%s: %s\n", name, said);
        return CHAT_NOTHING;
    }
    chat_say("/set: %s\n", error.message);
    return CHAT_NOTHING;
}

/* The table ----------------------------------------------------------------------------------------------- */

static enum chat_typed take_help(struct chat *chat, const char *argument, char **question);

static const struct command {
    const char *name;
    enum chat_typed (*take)(struct chat *chat, const char *argument, char **question);
    const char *argument; /* NULL: it takes none */
    const char *help;     /* NULL: another name of the one before */
} commands[] = {
    {"help", take_help, NULL, "shows this"},
    {"?", take_help, NULL, NULL},
    {"set", take_set, "NAME VALUE", "changes a setting; alone, shows them"},
    {"system", take_system, "TEXT", "sets the system prompt; alone, shows it"},
    {"retry", take_retry, NULL, "asks the last question again"},
    {"undo", take_undo, NULL, "forgets the last question and its answer"},
    {"drop", take_drop, NULL, "forgets the oldest turns, for room"},
    {"clear", take_clear, NULL, "starts anew"},
    {"save", take_save, "FILE", "writes the conversation as JSON"},
    {"load", take_load, "FILE", "reads one"},
    {"quit", take_quit, NULL, "ends"},
    {"exit", take_quit, NULL, NULL},
    {"bye", take_quit, NULL, NULL},
};

static enum chat_typed take_help(struct chat *chat, const char *argument, char **question)
{
    (void)chat, (void)argument, (void)question;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char left[32];
        const char *value = commands[i].argument;
        snprintf(left, sizeof left, "/%s%s%s", commands[i].name, value ? " " : "", value ? value : "");
        if (commands[i].help)
            say_row(left, commands[i].help);
    }
    chat_say("\nCtrl-C stops an answer, /clear starts anew, /quit or Ctrl-D ends.\n");
    return CHAT_NOTHING;
}

static const struct command *find_command(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strlen(commands[i].name) == len && !strncasecmp(commands[i].name, name, len))
            return &commands[i];
    return NULL;
}

/* Whatever is not ASCII counts as one: a slip of a keyboard with ä, a word of Chinese. */
static bool is_letter(char c)
{
    return isalpha((unsigned char)c) || c == '-' || c == '_' || (unsigned char)c >= 0x80;
}

/* A first word of letters, perhaps with punctuation behind it, is meant as a command; a path or code is not. */
static bool is_command_word(const char *word, size_t len)
{
    size_t n_letters = 0;
    while (is_letter(word[n_letters]))
        n_letters++;
    return n_letters && n_letters + strspn(word + n_letters, ".,:;!?") >= len;
}

static enum chat_typed take_unknown(const char *text, size_t len, char **question)
{
    if (!is_command_word(text + 1, len)) {
        *question = strdup(text);
        return *question ? CHAT_QUESTION : CHAT_NOTHING;
    }
    struct near_name near = near_name_begin(text + 1, len);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        near_name_consider(&near, commands[i].name, strlen(commands[i].name));
    if (*near.nearest)
        chat_say("/%.*s: no such command; did you mean /%s?\n", (int)len, text + 1, near.nearest);
    else
        chat_say("/%.*s: no such command; /? lists them. A space before it makes it a question.\n", (int)len,
                 text + 1);
    return CHAT_NOTHING;
}

enum chat_typed chat_take(struct chat *chat, const char *text, char **question)
{
    static const char spaces[] = " \t\r\n";
    *question = NULL;
    if (!text[strspn(text, spaces)])
        return CHAT_NOTHING;
    if (*text != '/') {
        *question = strdup(text);
        return *question ? CHAT_QUESTION : CHAT_NOTHING;
    }
    size_t len = strcspn(text + 1, spaces);
    const char *rest = text + 1 + len + strspn(text + 1 + len, spaces);
    const struct command *command = find_command(text + 1, len);
    if (!command)
        return take_unknown(text, len, question);
    if (*rest && !command->argument) {
        chat_say("/%s: expected nothing behind it, found '%.80s'\n", command->name, rest);
        return CHAT_NOTHING;
    }
    char *argument = strdup(rest);
    if (!argument)
        return CHAT_NOTHING;
    for (size_t n = strlen(argument); n && strchr(spaces, argument[n - 1]); n--)
        argument[n - 1] = 0;
    enum chat_typed typed = command->take(chat, argument, question);
    free(argument);
    return typed;
}
