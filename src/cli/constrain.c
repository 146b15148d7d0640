/* constrain.c: the command `runnel constrain`: constraints and texts on stdin, a line each, to what the constraint says of each
 * text on stdout: for whoever looks for what a schema refuses, and for bench/schemas. One thread. */
#include "base/clock.h"
#include "base/options.h"
#include "base/utf8.h"
#include "cli/cli.h"
#include "cli/json_members.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *model;
    bool jsonl;
};

static const struct option_spec specs[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct settings, model), .required = true, .bare = true,
     .extra_hint = "constraints are read from stdin: runnel constrain MODEL --jsonl < lines"},
    {"jsonl", 0, OPTION_FLAG, NULL, "one JSON object a line in, one a line out: the only form there is",
     OPTION_FIELD(struct settings, jsonl)},
};

const struct options_table constrain_table = {
    "runnel constrain",
    "Says which texts keep to a constraint. Each line on stdin is {\"schema\": {...}, \"texts\": [\"...\", "
    "...]}, or has "
    "\"grammar\" (GBNF), \"regex\" or \"choice\" (a list of texts) instead of \"schema\". Each line on "
    "stdout is {\"error\": "
    "null, or why there is no such constraint; \"compile_ms\"; \"results\": for each text {\"accepted\", "
    "\"tokens\", "
    "\"mask_us\"}}. A text is cut by the model's tokenizer; a mask is made before every token, up to the "
    "first "
    "that may not come, so that mask_us has the times of as many; accepted says that all may come and the "
    "text may end there. "
    "A result has an \"error\" where the text became too much to follow.",
    specs,
    OPTION_COUNT(specs),
};

/* Names of members: those of constraints first, in the order of their kinds. */
enum { SCHEMA, GRAMMAR, REGEX, CHOICE, TEXTS, N_MEMBERS };
static const char *const member_names[] = {"schema", "grammar", "regex", "choice", "texts"};
static const enum runnel_constraint kinds[] = {RUNNEL_CONSTRAINT_SCHEMA, RUNNEL_CONSTRAINT_GRAMMAR,
                                               RUNNEL_CONSTRAINT_REGEX, RUNNEL_CONSTRAINT_CHOICE};

/* What a line asks. */
struct question {
    runnel_request request; /* its constraint; points into the line and into source */
    json_t *source, *texts; /* source NULL: it is a schema */
    const char **choices;
};

static void question_free(struct question *question)
{
    json_decref(question->source);
    json_decref(question->texts);
    free(question->choices);
}

static bool is_of_strings(const json_t *list)
{
    bool all = json_is_array(list);
    for (size_t i = 0; i < json_array_size(list); i++)
        all = all && json_is_string(json_array_get(list, i));
    return all;
}

static json_t *read_value(const char *line, struct text_span span)
{
    json_error_t where;
    return json_loadb(line + span.begin, span.end - span.begin, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
}

/* json_t strings of a list to those that a request has. */
static int read_choices(const char *name, struct question *question, runnel_error *error)
{
    size_t n = json_array_size(question->source);
    question->choices = malloc(n * sizeof *question->choices + 1);
    if (!question->choices)
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory for its choices", name);
    for (size_t i = 0; i < n; i++) {
        const json_t *choice = json_array_get(question->source, i);
        question->choices[i] = json_string_value(choice);
        if (strlen(question->choices[i]) != json_string_length(choice))
            return error_set(error, RUNNEL_EINVAL, "%s: a choice has a zero in it", name);
    }
    question->request.choices = question->choices;
    question->request.n_choices = n;
    return RUNNEL_OK;
}

static int read_constraint(const char *name, const char *line, unsigned member, struct text_span span,
                           struct question *question, runnel_error *error)
{
    runnel_request_init(&question->request);
    question->request.constraint = kinds[member];
    if (member == SCHEMA) {
        question->request.constraint_text = line + span.begin;
        question->request.constraint_len = span.end - span.begin;
        return RUNNEL_OK;
    }
    question->source = read_value(line, span);
    if (member == CHOICE)
        return is_of_strings(question->source)
                   ? read_choices(name, question, error)
                   : error_set(error, RUNNEL_EINVAL, "%s: choice: expected a list of strings", name);
    if (!json_is_string(question->source))
        return error_set(error, RUNNEL_EINVAL, "%s: %s: expected a string", name, member_names[member]);
    question->request.constraint_text = json_string_value(question->source);
    question->request.constraint_len = json_string_length(question->source);
    return RUNNEL_OK;
}

static int read_question(const char *name, const char *line, size_t len, struct question *question,
                         runnel_error *error)
{
    struct text_span values[N_MEMBERS];
    unsigned member = N_MEMBERS, n_constraints = 0;
    int failure = cli_check_utf8(name, line, len, error);
    if (!failure)
        failure = json_members_find(name, line, len, member_names, N_MEMBERS, values, error);
    if (failure)
        return failure;
    for (unsigned i = 0; i < TEXTS; i++)
        if (values[i].end) {
            member = i;
            n_constraints++;
        }
    if (n_constraints != 1)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: expected one of schema, grammar, regex and choice, found %u", name,
                         n_constraints);
    question->texts = read_value(line, values[TEXTS]);
    if (!is_of_strings(question->texts))
        return error_set(error, RUNNEL_EINVAL, "%s: texts: expected a list of strings", name);
    return read_constraint(name, line, member, values[member], question, error);
}

/* Of a message, as much as is UTF-8: a long one was cut anywhere. */
static json_t *message_of(const runnel_error *error)
{
    return json_stringn(error->message, utf8_find_wrong(error->message, strlen(error->message)));
}

static json_t *check_text(const runnel_grammar *grammar, const json_t *text)
{
    runnel_error error;
    runnel_text_check check = {.size = sizeof check};
    json_t *result = json_object(), *times = json_array();
    int failure =
        runnel_grammar_check(grammar, json_string_value(text), json_string_length(text), &check, &error);
    for (size_t i = 0; i < check.n_masks; i++)
        json_array_append_new(times, json_real(check.mask_us[i]));
    json_object_set_new(result, "accepted", json_boolean(check.accepted));
    json_object_set_new(result, "tokens", json_integer((json_int_t)check.n_tokens));
    json_object_set_new(result, "mask_us", times);
    if (failure)
        json_object_set_new(result, "error", message_of(&error));
    runnel_text_check_free(&check);
    return result;
}

static json_t *answer(const runnel_model *model, const struct question *question)
{
    runnel_grammar *grammar = NULL;
    runnel_error error;
    json_t *line = json_object(), *results = json_array();
    double began = clock_ms();
    int failure = runnel_grammar_compile(model, &question->request, &grammar, &error);
    double took = clock_ms() - began;
    for (size_t i = 0; i < json_array_size(question->texts) && !failure; i++)
        json_array_append_new(results, check_text(grammar, json_array_get(question->texts, i)));
    runnel_grammar_free(grammar);
    json_object_set_new(line, "error", failure ? message_of(&error) : json_null());
    json_object_set_new(line, "compile_ms", json_real(took));
    json_object_set_new(line, "results", results);
    return line;
}

static int print_answer(const runnel_model *model, const struct question *question, runnel_error *error)
{
    json_t *line = answer(model, question);
    bool printed = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) == 0 &&
                   putchar('\n') != EOF && fflush(stdout) == 0;
    json_decref(line);
    return printed ? RUNNEL_OK : error_set(error, RUNNEL_EIO, "stdout could not be written");
}

static int answer_lines(const runnel_model *model, runnel_error *error)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int failure = RUNNEL_OK;
    for (size_t number = 1; !failure && (len = getline(&line, &cap, stdin)) >= 0; number++) {
        struct question question = {0};
        char name[48];
        snprintf(name, sizeof name, "stdin, line %zu", number);
        failure = read_question(name, line, (size_t)len, &question, error);
        if (!failure)
            failure = print_answer(model, &question, error);
        question_free(&question);
    }
    if (!failure && !feof(stdin))
        failure =
            error_set(error, errno == ENOMEM ? RUNNEL_ENOMEM : RUNNEL_EIO, "stdin: %s", strerror(errno));
    free(line);
    return failure;
}

/* The vocabulary is brought into form with a model's first constraint: here, so that no line's compile_ms has it. */
static int prepare(const runnel_model *model, runnel_error *error)
{
    static const char *const choices[] = {"x"};
    runnel_grammar *grammar;
    runnel_request request;
    runnel_request_init(&request);
    request.constraint = RUNNEL_CONSTRAINT_CHOICE;
    request.choices = choices;
    request.n_choices = 1;
    int failure = runnel_grammar_compile(model, &request, &grammar, error);
    if (!failure)
        runnel_grammar_free(grammar);
    return failure;
}

int command_constrain(int argc, char **argv)
{
    struct settings settings = {0};
    runnel_model *model;
    runnel_error error;
    int status = cli_read_options(&constrain_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (!settings.jsonl) {
        fprintf(stderr, "runnel constrain: expected --jsonl: constraints and texts come a line each\n");
        return EXIT_USAGE;
    }
    int failure = cli_open_model(settings.model, 1, NULL, NULL, &model, &error);
    if (failure)
        return cli_fail(&error);
    failure = prepare(model, &error);
    if (!failure)
        failure = answer_lines(model, &error);
    runnel_model_close(model);
    return failure ? cli_fail(&error) : EXIT_DONE;
}
