/* run.c: the command `runnel run`: its options, and one answer; a chat is chat.c's.
 *
 * The answer goes to stdout as it is made. Ctrl-C ends the answer, and then the program; a second one ends the program at
 * once. One thread. */
#include "cli/run.h"

#include "base/error.h"
#include "base/options.h"
#include "cli/answer_view.h"
#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/context_room.h"
#include "cli/run_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ROOM_FOR_TEMPLATE = 8, /* tokens */
};

/* Of a seed by chance: readers of --json may keep numbers as doubles. */
#define SEED_MOST ((UINT64_C(1) << 53) - 1)

static const struct option_spec run_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct run_settings, model), .required = true, .bare = true,
     .extra_hint = "a question goes behind -p, in quotes: -p \"...\""},
    {"prompt", 'p', OPTION_STRING, "TEXT",
     "answer this; behind it follow the file of -f and what is piped into stdin. Nothing of these, on a "
     "terminal: a chat (with --raw or --json: what is typed until Ctrl-D)",
     OPTION_FIELD(struct run_settings, prompt), .once = true},
    {"file", 'f', OPTION_STRING, "FILE", "answer the text in FILE (-: stdin)",
     OPTION_FIELD(struct run_settings, prompt_file), .once = true},
    {"system", 0, OPTION_STRING, "TEXT", "a system prompt: how the model shall answer",
     OPTION_FIELD(struct run_settings, system), .excludes = "system-file", .once = true},
    {"system-file", 0, OPTION_STRING, "FILE", "likewise, the text in FILE (-: stdin)",
     OPTION_FIELD(struct run_settings, system_file), .once = true},
    {"n-tokens", 'n', OPTION_INT, "N", "tokens of an answer at most, thoughts included",
     OPTION_FIELD(struct run_settings, n_tokens), .minimum = 1, .maximum = 1 << 24,
     .default_text = RUN_DEFAULT_TOKENS},
    CLI_ANSWER_RESERVE(struct run_settings),
    {"temp", 0, OPTION_FLOAT, "T", "temperature; 0: always the likeliest token (default: the model's own)",
     OPTION_FIELD(struct run_settings, temperature), OPTION_HAS(struct run_settings, has_temperature),
     .minimum = 0, .maximum = 100},
    {"top-p", 0, OPTION_FLOAT, "P",
     "keep the likeliest tokens that together reach P (default: the model's own)",
     OPTION_FIELD(struct run_settings, top_p), OPTION_HAS(struct run_settings, has_top_p), .minimum = 1e-6,
     .maximum = 1}, /* the engine refuses 0 */
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
     OPTION_FIELD(struct run_settings, n_context), OPTION_HAS(struct run_settings, has_context), .minimum = 2,
     .maximum = 1 << 24, .default_text = "8192"},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct run_settings, n_threads), .minimum = 0, .maximum = 256},
    CLI_DRAFT_OPTION(struct run_settings),
    CLI_DEVICE_OPTIONS(struct run_settings, device),
    {"chat-template", 0, OPTION_STRING, "NAME", "instead of the model's own chat template",
     OPTION_FIELD(struct run_settings, chat_template), .choices = "r1|chatml"},
    {"chat-template-file", 0, OPTION_STRING, "FILE",
     "a chat template in Jinja's language instead of the model's own",
     OPTION_FIELD(struct run_settings, chat_template_file), .excludes = "chat-template|raw"},
    {"raw", 0, OPTION_FLAG, NULL,
     "send the text without the chat template; a begin token that the model wants comes before it",
     OPTION_FIELD(struct run_settings, raw), .excludes = "system|system-file|chat-template|no-think"},
    {"no-think", 0, OPTION_FLAG, NULL, "answer without thoughts",
     OPTION_FIELD(struct run_settings, no_think)},
    {"reasoning", 0, OPTION_STRING, "WHEN",
     "whether the model shall think first: off is --no-think; auto: as its template does",
     OPTION_FIELD(struct run_settings, reasoning), .choices = "on|off|auto", .default_text = "auto",
     .excludes = "no-think|raw"},
    {"schema", 0, OPTION_STRING, "FILE",
     "the answer is JSON that fulfils the JSON Schema in FILE; thoughts are free",
     OPTION_FIELD(struct run_settings, schema), .once = true},
    {"json", 0, OPTION_FLAG, NULL, "print one object: text, reasoning, counts, timings, a hash of the logits",
     OPTION_FIELD(struct run_settings, json)},
    {"verbose", 'v', OPTION_FLAG, NULL, "after an answer, say more of its tokens and times",
     OPTION_FIELD(struct run_settings, verbose), .excludes = "json"},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct run_settings, config_text)},
};

const struct options_table run_table = {
    "runnel run", "Answers a prompt, or chats on the terminal. The answer is streamed to stdout.",
    run_options, OPTION_COUNT(run_options)};

/* Settings ------------------------------------------------------------------------------------------------ */

runnel_request run_make_request(const runnel_model *model, const struct run_settings *settings,
                                runnel_sampling *sampling)
{
    runnel_request request;
    runnel_request_init(&request);
    runnel_sampling_init(model, sampling);
    request.sampling = sampling;
    request.raw = settings->raw;
    request.no_thinking = settings->no_think;
    request.max_tokens = settings->n_tokens;
    if (settings->has_answer_reserve)
        request.answer_reserve = settings->answer_reserve;
    if (settings->schema_text) {
        request.constraint = RUNNEL_CONSTRAINT_SCHEMA;
        request.constraint_text = settings->schema_text;
    }
    sampling->seed = settings->seed;
    if (settings->has_temperature)
        sampling->temperature = settings->temperature;
    if (settings->has_top_p)
        sampling->top_p = settings->top_p;
    if (settings->has_top_k)
        sampling->top_k = settings->top_k;
    if (settings->has_min_p)
        sampling->min_p = settings->min_p;
    return request;
}

uint32_t run_context_limit(const runnel_model *model, const struct run_settings *settings)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    uint32_t n_context = (uint32_t)settings->n_context;
    return n_context < info.n_context_train ? n_context : info.n_context_train;
}

int run_check_context(const runnel_model *model, const struct run_settings *settings, uint32_t n_context,
                      runnel_error *error)
{
    char said[320];
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    if (settings->has_context && context_room_cut(&info, (uint32_t)settings->n_context, said, sizeof said))
        fprintf(stderr, "runnel: %s\n", said);
    if (cli_wants_device(&settings->device)) /* it is not this machine's memory, or not all of it */
        return RUNNEL_OK;
    return context_room_check("--ctx", n_context, n_context * info.kv_bytes_per_token, error);
}

void run_tell_device(const runnel_model *model, runnel_engine *engine, const struct run_settings *settings)
{
    char line[320];
    if (settings->json) /* for programs */
        return;
    if (cli_describe_device(&settings->device, model, engine, line, sizeof line))
        fprintf(stderr, "runnel: %s\n", line);
    else if (cli_wants_device(&settings->device))
        fprintf(stderr, "runnel: --device %s: there is no GPU, or it has no room: the CPU computes\n",
                settings->device.name);
    if (cli_describe_device_problem(engine, line, sizeof line))
        fprintf(stderr, "runnel: %s\n", line);
}

/* Starts an engine whose KV cache has room for this request and no more. */
static int start_for_request(const runnel_model *model, const struct run_settings *settings,
                             const runnel_request *request, runnel_engine **engine, runnel_error *error)
{
    int32_t *ids;
    size_t n_prompt;
    uint32_t limit = run_context_limit(model, settings);
    runnel_request asked = *request;
    asked.n_context = limit;
    int failure = runnel_prompt_tokens(model, &asked, &ids, &n_prompt, error);
    if (failure)
        return failure;
    runnel_tokens_free(ids);
    uint64_t wanted = n_prompt + (uint64_t)request->max_tokens + ROOM_FOR_TEMPLATE;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = wanted < limit ? (uint32_t)wanted : limit;
    options.quick_start = true; /* there is one request, and it waits */
    options.no_drafts = cli_draft_is_off(settings->draft);
    failure = run_check_context(model, settings, options.n_context, error);
    if (failure)
        return failure;
    failure = cli_start_engine(model, &options, engine, error);
    if (!failure)
        run_tell_device(model, *engine, settings);
    return failure;
}

/* One answer ---------------------------------------------------------------------------------------------- */

static int answer_once(const runnel_model *model, const struct run_settings *settings, const char *question,
                       const char *system)
{
    runnel_error error;
    runnel_engine *engine;
    runnel_response response = {.size = sizeof response};
    runnel_sampling sampling;
    runnel_request request = run_make_request(model, settings, &sampling);
    struct answer_view view = answer_view_open();
    const runnel_message messages[] = {{.role = "system", .content = system},
                                       {.role = "user", .content = question}};
    if (system) {
        request.messages = messages;
        request.n_messages = 2;
    } else {
        request.prompt = question;
    }
    request.wants_logits_hash = settings->json;
    if (start_for_request(model, settings, &request, &engine, &error)) {
        cli_name_template_options(&error);
        return cli_fail(&error);
    }
    int failure = answer_wait(engine, &request, settings->json ? NULL : &view, NULL, &response, &error);
    cli_stop_engine(engine);
    if (failure)
        return cli_fail(&error);
    int status = answer_was_interrupted() ? EXIT_INTERRUPTED : EXIT_DONE;
    if (settings->json) {
        if (answer_print_json(model, &response, settings->seed))
            status = EXIT_FAILED;
    } else {
        runnel_model_info info = {.size = sizeof info};
        runnel_model_get_info(model, &info);
        answer_print_timings(model, &response, info.load_ms, settings->verbose);
        answer_remark_thought(&response);
    }
    runnel_response_free(&response);
    return status;
}

/* The command --------------------------------------------------------------------------------------------- */

static int check_seed(const struct run_settings *settings, runnel_error *error)
{
    if (settings->has_seed && settings->seed > INT64_MAX) /* JSON's integers */
        return error_set(error, RUNNEL_EINVAL, "seed: expected a number up to %lld, found %llu",
                         (long long)INT64_MAX, (unsigned long long)settings->seed);
    return RUNNEL_OK;
}

int run_set(struct run_settings *settings, const char *name, const char *text, runnel_error *error)
{
    struct run_settings changed = *settings;
    int failure = options_set(&run_table, name, text, &changed, error);
    if (!failure)
        failure = check_seed(&changed, error);
    if (!failure)
        *settings = changed;
    return failure;
}

uint64_t run_random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)getpid();
    return seed & SEED_MOST;
}

/* Says that an option about thoughts changes nothing, if it does not. */
static void remark_thinking(const runnel_model *model, const struct run_settings *settings)
{
    bool is_auto = !strcmp(settings->reasoning, "auto");
    if ((settings->no_think || !is_auto) && !run_can_think(model))
        fprintf(stderr, "runnel: --%s: this model does not think\n", is_auto ? "no-think" : "reasoning");
}

/* Compiles the schema, which every request then finds. *grammar is NULL if there is none. */
static int compile_schema(const runnel_model *model, const struct run_settings *settings,
                          runnel_grammar **grammar, runnel_error *error)
{
    runnel_sampling sampling;
    const runnel_request request = run_make_request(model, settings, &sampling);
    return runnel_grammar_compile(model, &request, grammar, error)
               ? error_prefix(error, "%s", settings->schema)
               : RUNNEL_OK;
}

bool run_can_think(const runnel_model *model)
{
    const runnel_message message = {.role = "user", .content = "x"};
    char *with = NULL, *without = NULL;
    bool same = runnel_chat_format(model, &message, 1, true, &with, NULL) ||
                runnel_chat_format(model, &message, 1, false, &without, NULL) || !strcmp(with, without);
    runnel_text_free(with);
    runnel_text_free(without);
    return !same;
}

/* A model that is not there is told before anything is read; the texts are read before the model, which takes long. */
static int run(struct run_settings *settings)
{
    runnel_error error;
    char *question = NULL, *system = NULL;
    struct line_editor *editor = NULL;
    runnel_model *model = NULL;
    runnel_grammar *grammar = NULL;
    bool is_wrong_seed = check_seed(settings, &error);
    if (is_wrong_seed || run_input_check(settings, &error)) {
        fprintf(stderr, "runnel run: %s%s\n", is_wrong_seed ? "--" : "", error.message);
        return EXIT_USAGE;
    }
    if (!settings->has_seed)
        settings->seed = run_random_seed();
    settings->no_think = settings->no_think || !strcmp(settings->reasoning, "off");
    bool is_chat = run_input_is_chat(settings);
    int status = EXIT_DONE, failure = cli_find_model(settings->model, &error);
    if (!failure && !is_chat)
        failure = run_input_question(settings, &question, &error);
    if (!failure)
        failure = run_input_system(settings, &system, &error);
    if (!failure)
        failure = run_input_schema(settings, &settings->schema_text, &error);
    if (!failure && is_chat)
        failure = chat_open_editor(&editor, &error);
    if (!failure)
        failure = cli_open_model_on(&settings->device, settings->model, settings->n_threads,
                                    settings->chat_template, settings->chat_template_file, &model, &error);
    if (!failure)
        failure = compile_schema(model, settings, &grammar, &error);
    if (failure) {
        status = cli_fail(&error);
    } else {
        cli_tell_warning(model);
        remark_thinking(model, settings);
        if (!settings->json) /* --json is for programs */
            cli_tell_threads(settings->n_threads);
        status = is_chat ? chat_loop(model, settings, system, editor)
                         : answer_once(model, settings, question, system);
    }
    runnel_grammar_free(grammar);
    runnel_model_close(model);
    line_editor_close(editor);
    free(question);
    free(system);
    free(settings->schema_text);
    return status;
}

int command_run(int argc, char **argv)
{
    struct run_settings settings = {.schema_text = NULL};
    int status = cli_read_options(&run_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(&settings);
    free(settings.config_text);
    return status;
}
