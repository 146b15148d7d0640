/* test_arguments.c: every function of runnel.h with NULL for every pointer that it takes, one after the other, and requests
 * whose counts have no arrays. A pointer is refused by name, or it is fine; which, says a table that is compared with the
 * header: a new function or a new pointer fails this test until it has a row. On a tiny model. */
#include "helpers/tiny_engine.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Everything that the calls below are given, good unless it is replaced by NULL. */
static runnel_model *model;
static runnel_engine *engine;
static runnel_error *error = &(runnel_error){0};

static int start(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    model = tiny_engine_open(&options);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 256, .n_parallel = 2});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(runnel_engine_stop(engine), 0);
    runnel_model_close(model);
    return 0;
}

static runnel_request short_request(void)
{
    static const int32_t ids[] = {5, 6, 7};
    runnel_request request;
    runnel_request_init(&request);
    request.prompt_ids = ids;
    request.n_prompt_ids = 3;
    request.max_tokens = 2;
    return request;
}

/* The calls ----------------------------------------------------------------------------------------------- */

/* An argument by its name in runnel.h, or NULL if it is the one that this call is to lack. */
#define GIVE_AS(name, value) (strcmp(lacking, #name) == 0 ? NULL : (value))
#define GIVE(name)           GIVE_AS(name, name)

static int call_version(const char *lacking)
{
    (void)lacking;
    return runnel_version() ? RUNNEL_OK : RUNNEL_EINVAL;
}

static int call_model_options_init_sized(const char *lacking)
{
    runnel_model_options given, *options = &given;
    runnel_model_options_init_sized(GIVE(options), sizeof given);
    return RUNNEL_OK;
}

/* What succeeds is tested elsewhere: here the file is never there. */
static int call_model_open(const char *lacking)
{
    const char *path = "/nowhere/missing.gguf";
    runnel_model_options given, *options = &given;
    runnel_model *opened = NULL;
    runnel_model_options_init(options);
    int failure = runnel_model_open(GIVE(path), GIVE(options), GIVE_AS(model, &opened), GIVE(error));
    return failure == RUNNEL_EIO ? RUNNEL_OK : failure;
}

static int call_model_close(const char *lacking)
{
    if (strcmp(lacking, "model") == 0)
        runnel_model_close(NULL);
    return RUNNEL_OK;
}

static int call_model_get_info(const char *lacking)
{
    runnel_model_info given = {.size = sizeof given}, *info = &given;
    runnel_model_get_info(GIVE(model), GIVE(info));
    return RUNNEL_OK;
}

static int call_tokenize(const char *lacking)
{
    const char *text = "ab";
    int32_t *given = NULL, **ids = &given;
    size_t n, *n_ids = &n;
    int failure = runnel_tokenize(GIVE(model), GIVE(text), 2, false, GIVE(ids), GIVE(n_ids), GIVE(error));
    runnel_tokens_free(given);
    return failure;
}

static int call_tokens_free(const char *lacking)
{
    int32_t *ids = malloc(sizeof *ids);
    runnel_tokens_free(GIVE(ids));
    if (*lacking)
        free(ids);
    return RUNNEL_OK;
}

static int call_detokenize(const char *lacking)
{
    const int32_t some[] = {5, 6}, *ids = some;
    char *given = NULL, **text = &given;
    size_t n, *len = &n;
    int failure = runnel_detokenize(GIVE(model), GIVE(ids), 2, false, GIVE(text), GIVE(len), GIVE(error));
    runnel_text_free(given);
    return failure;
}

static int call_text_free(const char *lacking)
{
    char *text = malloc(1);
    runnel_text_free(GIVE(text));
    if (*lacking)
        free(text);
    return RUNNEL_OK;
}

static int call_chat_format(const char *lacking)
{
    const runnel_message one = {.role = "user", .content = "a"}, *messages = &one;
    char *given = NULL, **text = &given;
    int failure = runnel_chat_format(GIVE(model), GIVE(messages), 1, false, GIVE(text), GIVE(error));
    runnel_text_free(given);
    return failure;
}

static int call_engine_options_init_sized(const char *lacking)
{
    runnel_engine_options given, *options = &given;
    runnel_engine_options_init_sized(GIVE(options), sizeof given);
    return RUNNEL_OK;
}

static int call_engine_bytes(const char *lacking)
{
    const runnel_engine_options *options = NULL;
    uint64_t given, *n_bytes = &given;
    return runnel_engine_bytes(GIVE(model), GIVE(options), GIVE(n_bytes), GIVE(error));
}

static int call_engine_start(const char *lacking)
{
    runnel_engine_options given, *options = &given;
    runnel_engine *started = NULL;
    runnel_engine_options_init(options);
    options->n_context = 64;
    int failure = runnel_engine_start(GIVE(model), GIVE(options), GIVE_AS(engine, &started), GIVE(error));
    runnel_engine_stop(started);
    return failure;
}

static int call_engine_stop(const char *lacking)
{
    if (strcmp(lacking, "engine") == 0)
        return runnel_engine_stop(NULL) == 0 ? RUNNEL_OK : RUNNEL_EINVAL;
    return RUNNEL_OK;
}

static int call_prompt_tokens(const char *lacking)
{
    runnel_request given = short_request(), *request = &given;
    int32_t *made = NULL, **ids = &made;
    size_t n, *n_ids = &n;
    int failure = runnel_prompt_tokens(GIVE(model), GIVE(request), GIVE(ids), GIVE(n_ids), GIVE(error));
    runnel_tokens_free(made);
    return failure;
}

static int call_prompt_text(const char *lacking)
{
    runnel_request given = short_request(), *request = &given;
    char *made = NULL, **text = &made;
    size_t n, *len = &n;
    int failure = runnel_prompt_text(GIVE(model), GIVE(request), GIVE(text), GIVE(len), GIVE(error));
    runnel_text_free(made);
    return failure;
}

static int call_grammar_compile(const char *lacking)
{
    runnel_request given = short_request(), *request = &given;
    runnel_grammar *made = NULL, **grammar = &made;
    given.constraint = RUNNEL_CONSTRAINT_JSON;
    int failure = runnel_grammar_compile(GIVE(model), GIVE(request), GIVE(grammar), GIVE(error));
    runnel_grammar_free(made);
    return failure;
}

static int call_grammar_find(const char *lacking)
{
    runnel_request given = short_request(), *request = &given;
    runnel_grammar *found = NULL, **grammar = &found;
    given.constraint = RUNNEL_CONSTRAINT_JSON;
    int failure = runnel_grammar_find(GIVE(model), GIVE(request), GIVE(grammar), GIVE(error));
    runnel_grammar_free(found);
    return failure;
}

static int call_grammars_forget(const char *lacking)
{
    runnel_grammars_forget(GIVE(model));
    return RUNNEL_OK;
}

static int call_grammar_free(const char *lacking)
{
    runnel_grammar *grammar = NULL;
    (void)lacking;
    runnel_grammar_free(grammar);
    return RUNNEL_OK;
}

static int call_request_init_sized(const char *lacking)
{
    runnel_request given, *request = &given;
    runnel_request_init_sized(GIVE(request), sizeof given);
    return RUNNEL_OK;
}

static int call_sampling_init_sized(const char *lacking)
{
    runnel_sampling given, *sampling = &given;
    runnel_sampling_init_sized(GIVE(model), GIVE(sampling), sizeof given);
    if (strcmp(lacking, "model") == 0) { /* a request with it is refused */
        runnel_future *future;
        runnel_request request = short_request();
        request.sampling = &given;
        assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_EINVAL);
    }
    return RUNNEL_OK;
}

static int call_submit(const char *lacking)
{
    runnel_request given = short_request(), *requests = &given;
    runnel_future *future = NULL, **futures = &future;
    int failure = runnel_submit(GIVE(engine), GIVE(requests), 1, GIVE(futures), GIVE(error));
    runnel_free(future);
    return failure;
}

static runnel_future *submit_one(void)
{
    runnel_request request = short_request();
    runnel_future *future;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, error), RUNNEL_OK);
    return future;
}

static int call_wait(const char *lacking)
{
    runnel_future *future = submit_one();
    runnel_response given = {.size = sizeof given}, *response = &given;
    int failure = runnel_wait(GIVE(future), GIVE(response), GIVE(error));
    runnel_response_free(&given);
    runnel_free(future);
    return failure;
}

static int call_poll(const char *lacking)
{
    runnel_future *future = submit_one();
    bool done = runnel_poll(GIVE(future));
    runnel_free(future);
    return done || !*lacking ? RUNNEL_OK : RUNNEL_EINVAL;
}

static runnel_future *submit_one_with_events(void)
{
    runnel_request request = short_request();
    runnel_future *future;
    request.wants_events = true;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, error), RUNNEL_OK);
    return future;
}

static int call_next(const char *lacking)
{
    runnel_future *future = submit_one_with_events();
    runnel_event given = {.size = sizeof given}, *event = &given;
    int failure = runnel_next(GIVE(future), GIVE(event), -1);
    runnel_free(future);
    return failure;
}

static int call_descriptor(const char *lacking)
{
    runnel_future *future = submit_one_with_events();
    int descriptor = runnel_descriptor(GIVE(future));
    runnel_free(future);
    return descriptor >= 0 ? RUNNEL_OK : descriptor;
}

static int call_thought_end_name(const char *lacking)
{
    (void)lacking;
    return runnel_thought_end_name(RUNNEL_THOUGHT_LOOP) ? RUNNEL_OK : RUNNEL_EINVAL;
}

static int call_end_thought(const char *lacking)
{
    runnel_future *future = submit_one();
    runnel_end_thought(GIVE(future));
    runnel_free(future);
    return RUNNEL_OK;
}

static int call_cancel(const char *lacking)
{
    runnel_future *future = submit_one();
    runnel_cancel(GIVE(future));
    runnel_free(future);
    return RUNNEL_OK;
}

static int call_free(const char *lacking)
{
    runnel_future *future = submit_one();
    runnel_free(GIVE(future));
    if (*lacking)
        runnel_free(future);
    return RUNNEL_OK;
}

static int call_respond(const char *lacking)
{
    runnel_request given = short_request(), *request = &given;
    runnel_response filled = {.size = sizeof filled}, *response = &filled;
    int failure = runnel_respond(GIVE(engine), GIVE(request), GIVE(response), GIVE(error));
    runnel_response_free(&filled);
    return failure;
}

static int call_response_free(const char *lacking)
{
    runnel_response given = {.size = sizeof given}, *response = &given;
    runnel_response_free(GIVE(response));
    return RUNNEL_OK;
}

static runnel_request choice_request(void)
{
    static const char *const choices[] = {"ab"};
    runnel_request request = short_request();
    request.constraint = RUNNEL_CONSTRAINT_CHOICE;
    request.choices = choices;
    request.n_choices = 1;
    return request;
}

static int call_grammar_check(const char *lacking)
{
    const char *text = "ab";
    runnel_request request = choice_request();
    runnel_grammar *grammar = NULL;
    runnel_text_check filled = {.size = sizeof filled}, *check = &filled;
    assert_int_equal(runnel_grammar_compile(model, &request, &grammar, NULL), 0);
    int failure = runnel_grammar_check(GIVE(grammar), GIVE(text), 2, GIVE(check), GIVE(error));
    if (!failure)
        assert_true(filled.accepted && filled.n_masks == filled.n_tokens);
    runnel_text_check_free(&filled);
    runnel_grammar_free(grammar);
    return failure;
}

static int call_text_check_free(const char *lacking)
{
    runnel_text_check given = {.size = sizeof given}, *check = &given;
    runnel_text_check_free(GIVE(check));
    return RUNNEL_OK;
}

static int call_respond_many(const char *lacking)
{
    runnel_request given = short_request(), *requests = &given;
    runnel_response filled = {.size = sizeof filled}, *responses = &filled;
    int failure = runnel_respond_many(GIVE(engine), GIVE(requests), 1, GIVE(responses), GIVE(error));
    runnel_response_free(&filled);
    return failure;
}

static int call_generate(const char *lacking)
{
    const char *prompt = "ab";
    char *given = NULL, **text = &given;
    int failure = runnel_generate(GIVE(engine), GIVE(prompt), 2, 0, GIVE(text), GIVE(error));
    runnel_text_free(given);
    return failure;
}

static int call_get_logits(const char *lacking)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    const char *text = "ab";
    float *room = malloc(info.n_vocab * sizeof *room), *logits = room;
    int failure = runnel_get_logits(GIVE(engine), GIVE(text), GIVE(logits), info.n_vocab, GIVE(error));
    free(room);
    return failure;
}

static bool take_logits(void *user, size_t index, const float *logits)
{
    (void)user;
    (void)index;
    return logits != NULL;
}

static int call_logits_each(const char *lacking)
{
    const int32_t some[] = {5, 6}, *ids = some;
    bool (*on_logits)(void *user, size_t index, const float *logits) = take_logits;
    void *user = model;
    return runnel_logits_each(GIVE(engine), GIVE(ids), 2, 0, GIVE(on_logits), GIVE(user), GIVE(error));
}

static bool take_inputs(void *user, const runnel_inputs *inputs)
{
    (void)user;
    return inputs != NULL;
}

static int call_inputs_each(const char *lacking)
{
    const int32_t some[] = {5, 6}, *ids = some;
    bool (*on_inputs)(void *user, const runnel_inputs *inputs) = take_inputs;
    void *user = model;
    return runnel_inputs_each(GIVE(engine), GIVE(ids), 2, 0, GIVE(on_inputs), GIVE(user), GIVE(error));
}

static int call_stats(const char *lacking)
{
    runnel_stats_values given = {.size = sizeof given}, *stats = &given;
    runnel_stats(GIVE(engine), GIVE(stats));
    return RUNNEL_OK;
}

static int call_slots(const char *lacking)
{
    runnel_slot given[2] = {{.size = sizeof *given}}, *slots = given;
    runnel_slots(GIVE(engine), GIVE(slots), 2);
    return RUNNEL_OK;
}

static int call_devices(const char *lacking)
{
    runnel_device_list *given = NULL, **list = &given;
    size_t count, *n = &count;
    int failure = runnel_devices(GIVE(list), GIVE(n), GIVE(error));
    runnel_devices_free(given);
    return failure;
}

static int call_devices_get(const char *lacking)
{
    runnel_device_list *list = NULL;
    runnel_device given = {.size = sizeof given}, *device = &given;
    size_t n;
    if (runnel_devices(&list, &n, error))
        return error->code;
    runnel_devices_get(GIVE(list), 0, GIVE(device));
    runnel_devices_free(list);
    return RUNNEL_OK;
}

static int call_devices_free(const char *lacking)
{
    runnel_device_list *list = NULL;
    size_t n;
    if (runnel_devices(&list, &n, error))
        return error->code;
    runnel_devices_free(GIVE(list));
    if (*lacking)
        runnel_devices_free(list);
    return RUNNEL_OK;
}

static int call_measure_device(const char *lacking)
{
    double given, *gb_s = &given;
    return runnel_measure_device(GIVE(engine), GIVE(gb_s), GIVE(error));
}

/* The table ----------------------------------------------------------------------------------------------- */

static const struct row {
    const char *function; /* without runnel_ */
    int (*call)(const char *lacking);
    const char *refused; /* pointers that must not be NULL: RUNNEL_EINVAL, and a message with the name */
    const char *fine;    /* pointers that may be NULL */
} rows[] = {
    {"version", call_version, "", ""},
    {"model_options_init_sized", call_model_options_init_sized, "", "options"},
    {"model_open", call_model_open, "path model", "options error"},
    {"model_close", call_model_close, "", "model"},
    {"model_get_info", call_model_get_info, "", "model info"},
    {"tokenize", call_tokenize, "model text ids n_ids", "error"},
    {"tokens_free", call_tokens_free, "", "ids"},
    {"detokenize", call_detokenize, "model ids text len", "error"},
    {"text_free", call_text_free, "", "text"},
    {"chat_format", call_chat_format, "model messages text", "error"},
    {"engine_options_init_sized", call_engine_options_init_sized, "", "options"},
    {"engine_bytes", call_engine_bytes, "model n_bytes", "options error"},
    {"engine_start", call_engine_start, "model engine", "options error"},
    {"engine_stop", call_engine_stop, "", "engine"},
    {"prompt_tokens", call_prompt_tokens, "model request ids n_ids", "error"},
    {"prompt_text", call_prompt_text, "model request text len", "error"},
    {"grammar_compile", call_grammar_compile, "model request grammar", "error"},
    {"grammar_find", call_grammar_find, "model request grammar", "error"},
    {"grammar_free", call_grammar_free, "", "grammar"},
    {"grammars_forget", call_grammars_forget, "", "model"},
    {"sampling_init_sized", call_sampling_init_sized, "", "model sampling"},
    {"request_init_sized", call_request_init_sized, "", "request"},
    {"submit", call_submit, "engine requests futures", "error"},
    {"wait", call_wait, "future response", "error"},
    {"poll", call_poll, "", "future"},
    {"next", call_next, "future event", ""},
    {"descriptor", call_descriptor, "future", ""},
    {"cancel", call_cancel, "", "future"},
    {"thought_end_name", call_thought_end_name, "", ""},
    {"end_thought", call_end_thought, "", "future"},
    {"free", call_free, "", "future"},
    {"respond", call_respond, "engine request response", "error"},
    {"response_free", call_response_free, "", "response"},
    {"grammar_check", call_grammar_check, "grammar text check", "error"},
    {"text_check_free", call_text_check_free, "", "check"},
    {"respond_many", call_respond_many, "engine requests responses", "error"},
    {"generate", call_generate, "engine prompt text", "error"},
    {"get_logits", call_get_logits, "engine text logits", "error"},
    {"logits_each", call_logits_each, "engine ids on_logits", "user error"},
    {"inputs_each", call_inputs_each, "engine ids on_inputs", "user error"},
    {"stats", call_stats, "", "engine stats"},
    {"slots", call_slots, "", "engine slots"},
    {"devices", call_devices, "list n", "error"},
    {"devices_get", call_devices_get, "", "list device"},
    {"devices_free", call_devices_free, "", "list"},
    {"measure_device", call_measure_device, "engine gb_s", "error"},
};
/* These return the code alone. */
static const char without_message[] = "next descriptor";
enum { N_ROWS = sizeof rows / sizeof *rows };

/* The next of the names in a list with spaces between; false at its end. */
static bool next_name(const char **list, char name[32])
{
    *list += strspn(*list, " ");
    size_t len = strcspn(*list, " ");
    assert_true(len < 32);
    memcpy(name, *list, len);
    name[len] = 0;
    *list += len;
    return len > 0;
}

static bool lists(const char *list, const char *wanted)
{
    char name[32];
    while (next_name(&list, name))
        if (strcmp(name, wanted) == 0)
            return true;
    return false;
}

static void null_is_refused_by_name_or_fine(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ROWS; i++) {
        char name[32], expected[64], function[64];
        const char *refused = rows[i].refused, *fine = rows[i].fine;
        assert_int_equal(rows[i].call(""), RUNNEL_OK);
        while (next_name(&refused, name)) {
            *error = (runnel_error){0};
            int failure = rows[i].call(name);
            snprintf(expected, sizeof expected, "%s is NULL", name);
            snprintf(function, sizeof function, "runnel_%s:", rows[i].function);
            bool is_told = error->code == RUNNEL_EINVAL && strstr(error->message, expected) &&
                           strstr(error->message, function);
            if (failure != RUNNEL_EINVAL || (!is_told && !lists(without_message, rows[i].function)))
                fail_msg("runnel_%s without %s: %d, %s", rows[i].function, name, failure, error->message);
        }
        while (next_name(&fine, name))
            if (rows[i].call(name) != RUNNEL_OK)
                fail_msg("runnel_%s without %s failed", rows[i].function, name);
    }
}

/* The header ---------------------------------------------------------------------------------------------- */

static char *read_header(void)
{
    FILE *file = fopen(TEST_DATA "/../../include/runnel.h", "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 18);
    assert_non_null(text);
    size_t len = fread(text, 1, (1 << 18) - 1, file);
    fclose(file);
    assert_in_range(len, 1000, (1 << 18) - 2);
    return text;
}

static const struct row *row_of(const char *function, size_t len)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strlen(rows[i].function) == len && strncmp(rows[i].function, function, len) == 0)
            return &rows[i];
    fail_msg("runnel_%.*s has no row in test_arguments.c", (int)len, function);
    return NULL;
}

/* The name of a parameter, from its declaration. */
static void name_of(const char *declaration, size_t len, char name[64])
{
    const char *pointer = memmem(declaration, len, "(*", 2); /* a function: its name follows */
    size_t end = pointer ? (size_t)(pointer - declaration) + 2 : len;
    if (pointer)
        while (isalnum((unsigned char)declaration[end]) || declaration[end] == '_')
            end++;
    size_t begin = end;
    while (begin > 0 && (isalnum((unsigned char)declaration[begin - 1]) || declaration[begin - 1] == '_'))
        begin--;
    assert_in_range(end - begin, 1, 63);
    memcpy(name, declaration + begin, end - begin);
    name[end - begin] = 0;
}

/* Compares the parameters from the one after "(" with the row; returns how many pointers there are. */
static size_t check_parameters(const struct row *row, const char *at)
{
    size_t n_pointers = 0;
    for (int depth = 1; depth > 0;) {
        const char *begin = at;
        for (; depth > 1 || (*at != ',' && *at != ')'); at++)
            depth += (*at == '(') - (*at == ')');
        if (memchr(begin, '*', (size_t)(at - begin))) {
            char name[64];
            name_of(begin, (size_t)(at - begin), name);
            if (!lists(row->refused, name) && !lists(row->fine, name))
                fail_msg("runnel_%s: %s is not in its row of test_arguments.c", row->function, name);
            n_pointers++;
        }
        depth -= *at++ == ')';
    }
    return n_pointers;
}

static size_t count_names(const char *list)
{
    char name[32];
    size_t n = 0;
    while (next_name(&list, name))
        n++;
    return n;
}

static void the_table_is_the_header(void **state)
{
    (void)state;
    static const char mark[] = "\nRUNNEL_API ", prefix[] = "runnel_";
    char *header = read_header();
    size_t n_functions = 0;
    for (const char *at = header; (at = strstr(at, mark)); n_functions++) {
        at += strlen(mark);
        const char *open = strchr(at, '('), *name = open;
        assert_non_null(open);
        while (isalnum((unsigned char)name[-1]) || name[-1] == '_')
            name--;
        assert_int_equal(strncmp(name, prefix, strlen(prefix)), 0);
        name += strlen(prefix);
        const struct row *row = row_of(name, (size_t)(open - name));
        assert_int_equal(check_parameters(row, open + 1), count_names(row->refused) + count_names(row->fine));
        at = open;
    }
    assert_int_equal(n_functions, N_ROWS);
    free(header);
}

/* Requests ------------------------------------------------------------------------------------------------ */

static void expect_refusal(const runnel_request *request, const char *named)
{
    runnel_future *future = NULL;
    *error = (runnel_error){0};
    int failure = runnel_submit(engine, request, 1, &future, error);
    if (failure != RUNNEL_EINVAL || !strstr(error->message, named) || future)
        fail_msg("%s: %d, %s", named, failure, error->message);
    assert_int_equal(runnel_submit(engine, request, 1, &future, NULL), RUNNEL_EINVAL);
}

static void counts_without_their_arrays(void **state)
{
    (void)state;
    runnel_request request = short_request();
    request.n_stop = 2;
    expect_refusal(&request, "stop is NULL");
    request = short_request();
    own_sampling(model, &request)->n_logit_bias = 2;
    expect_refusal(&request, "logit_bias");
    request = short_request();
    request.prompt_ids = NULL;
    expect_refusal(&request, "prompt_ids is NULL");
    request.prompt = "a"; /* another input does not make up for it */
    expect_refusal(&request, "prompt_ids is NULL");
    request = short_request();
    request.n_messages = 1;
    expect_refusal(&request, "messages is NULL");
    request = short_request();
    request.prompt_len = 1;
    expect_refusal(&request, "prompt is NULL");
}

static void elements_that_are_null(void **state)
{
    (void)state;
    const char *const stop[] = {"a", NULL};
    runnel_request request = short_request();
    request.stop = stop;
    request.n_stop = 2;
    expect_refusal(&request, "stop[1]");

    runnel_message messages[] = {{.role = "user", .content = "a"}, {.role = "assistant"}};
    runnel_request_init(&request);
    request.messages = messages;
    request.n_messages = 2;
    request.continues = true;
    expect_refusal(&request, "messages[1]: content");
    const int32_t ids[] = {5, 6};
    request.prompt_ids = ids; /* the texts are not rendered, but looked at */
    request.n_prompt_ids = 2;
    request.encoded = true;
    expect_refusal(&request, "messages[1]: content");
    messages[1] = (runnel_message){.content = "a"};
    expect_refusal(&request, "messages[1]: role");

    char *text = NULL;
    assert_int_equal(runnel_chat_format(model, messages, 2, false, &text, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "messages[1]"));
    assert_null(text);
}

/* Nothing is read or written where there is nothing. */
static void none_of_them(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n = 7;
    assert_int_equal(runnel_tokenize(model, NULL, 0, false, &ids, &n, error), RUNNEL_OK);
    assert_int_equal(n, 0);
    assert_non_null(ids);
    runnel_tokens_free(ids);
    assert_int_equal(runnel_detokenize(model, NULL, 0, false, &text, &n, error), RUNNEL_OK);
    assert_string_equal(text, "");
    runnel_text_free(text);
    assert_int_equal(runnel_submit(engine, NULL, 0, NULL, error), RUNNEL_OK);
    assert_int_equal(runnel_respond_many(engine, NULL, 0, NULL, error), RUNNEL_OK);
    assert_int_equal(runnel_chat_format(model, NULL, 0, false, &text, error), RUNNEL_EINVAL);
    assert_int_equal(runnel_logits_each(engine, NULL, 0, 0, take_logits, NULL, error), RUNNEL_EINVAL);
}

static void expect_no_engine(runnel_engine_options options, const char *named)
{
    runnel_engine *started = NULL;
    options.size = sizeof options;
    *error = (runnel_error){0};
    assert_int_equal(runnel_engine_start(model, &options, &started, error), RUNNEL_EINVAL);
    if (started || !strstr(error->message, named))
        fail_msg("%s: %s", named, error->message);
}

static void times_that_are_none(void **state)
{
    (void)state;
    const float none[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        expect_no_engine((runnel_engine_options){.step_budget_ms = none[i]}, "step_budget_ms: ");
        expect_no_engine((runnel_engine_options){.batch_window_ms = none[i]}, "batch_window_ms: ");
        expect_no_engine((runnel_engine_options){.max_wait_ms = none[i]}, "max_wait_ms: ");
    }
}

/* Messages have the names of the header. */
static void options_that_cannot_be(void **state)
{
    (void)state;
    expect_no_engine((runnel_engine_options){.keep_first = 64}, "keep_first: 64 without keep_last");
    expect_no_engine((runnel_engine_options){.n_context = 1}, "n_context: 1");
    expect_no_engine((runnel_engine_options){.n_batch = 1 << 20}, "n_batch: 1048576");
    expect_no_engine((runnel_engine_options){.n_parallel = 1 << 20}, "n_parallel: 1048576");
    expect_no_engine((runnel_engine_options){.n_requests = 1 << 20}, "n_requests: 1048576");
    const runnel_model_options options = {.size = sizeof options, .n_threads = -1};
    runnel_model *opened = NULL;
    assert_int_equal(runnel_model_open("/dev/null", &options, &opened, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "n_threads: -1"));
}

/* Messages about arguments have the names of the header, too. */
static void arguments_that_cannot_be(void **state)
{
    (void)state;
    const int32_t ids[] = {5, -1};
    char *text;
    size_t len;
    float logit;
    expect_no_engine((runnel_engine_options){.n_kv_bytes = 1}, "n_kv_bytes: ");
    expect_no_engine(
        (runnel_engine_options){.n_context = 256, .n_kv_tokens = 64, .n_kv_bytes = 1 << 20},
        "n_kv_tokens: 64 beside n_kv_bytes, 1048576, expected room for n_context, 256, or 0 for the ");
    expect_no_engine((runnel_engine_options){.n_context = 256, .n_kv_tokens = 64, .n_kv_bytes = 1},
                     "n_kv_tokens: 64 beside n_kv_bytes, 1, expected room for n_context, 256");
    expect_no_engine((runnel_engine_options){.n_context = 256, .n_kv_tokens = 64},
                     "n_kv_tokens: 64, expected room for n_context, 256");
    assert_int_equal(runnel_logits_each(engine, ids, 2, 0, take_logits, NULL, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "ids: token 1 is -1"));
    assert_int_equal(runnel_logits_each(engine, ids, 1, 1 << 20, take_logits, NULL, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "n_chunk: "));
    assert_int_equal(runnel_get_logits(engine, "a", &logit, 1, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "n_vocab"));
    assert_int_equal(runnel_detokenize(model, ids, 2, false, &text, &len, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "ids: token 1 is -1"));
}

/* A window takes whole pages, and one more that is being filled. */
static void windows_that_do_not_fit(void **state)
{
    (void)state;
    expect_no_engine((runnel_engine_options){.n_context = 128, .keep_first = 4, .keep_last = 124},
                     "keep_first and keep_last: 4 and 124 take 6 pages of 32 tokens, each in whole pages and "
                     "one more, the KV cache has 4: expected 4 and at most 64");
    expect_no_engine((runnel_engine_options){.n_context = 128, .keep_first = 64, .keep_last = 64},
                     "expected 64 and at most 32");
    expect_no_engine((runnel_engine_options){.n_context = 128, .keep_last = 97}, "expected 0 and at most 96");
    expect_no_engine((runnel_engine_options){.n_context = 128, .keep_first = 100, .keep_last = 1},
                     "expected at most 64 and 32");
    expect_no_engine((runnel_engine_options){.n_context = 64, .keep_first = 4, .keep_last = 4},
                     "the KV cache has 2: expected room for three pages at least");
    expect_no_engine(
        (runnel_engine_options){.n_context = 128, .keep_first = UINT32_MAX, .keep_last = UINT32_MAX},
        "keep_first and keep_last: 4294967295 and 4294967295 take 268435457 pages");
}

static void two_chat_templates(void **state)
{
    (void)state;
    runnel_model *opened = NULL;
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.chat_template = "r1";
    options.chat_template_text = "{{ 1 }}";
    assert_int_equal(runnel_model_open("/nowhere", &options, &opened, error), RUNNEL_EINVAL);
    assert_non_null(strstr(error->message, "chat_template and chat_template_text"));
    assert_null(opened);
}

/* More requests than memory could count are refused before anything is made for them. */
static void more_requests_than_can_be(void **state)
{
    (void)state;
    runnel_request request = short_request();
    runnel_future *future = NULL;
    runnel_response response = {.size = sizeof response};
    assert_int_equal(runnel_submit(engine, &request, SIZE_MAX, &future, error), RUNNEL_EBUSY);
    assert_int_equal(runnel_respond_many(engine, &request, SIZE_MAX, &response, error), RUNNEL_EBUSY);
    assert_null(future);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused_by_name_or_fine),
        cmocka_unit_test(the_table_is_the_header),
        cmocka_unit_test(counts_without_their_arrays),
        cmocka_unit_test(elements_that_are_null),
        cmocka_unit_test(none_of_them),
        cmocka_unit_test(more_requests_than_can_be),
        cmocka_unit_test(times_that_are_none),
        cmocka_unit_test(options_that_cannot_be),
        cmocka_unit_test(arguments_that_cannot_be),
        cmocka_unit_test(windows_that_do_not_fit),
        cmocka_unit_test(two_chat_templates),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
