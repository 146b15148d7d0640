/* model.c: opening a model, and the parts of runnel.h that need no engine. A runnel_model owns its weights,
 * tokenizer and template; nothing in it changes after runnel_model_open but what is compiled for constraints (grammar_store.h). It leaves no thread, no lock that is held, no open file and no
 * state of a library's behind: so children of a fork may use it (runnel.h). */
#include "engine/model.h"

#include "backend/cpu.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/versioned.h"
#include "engine/arguments.h"
#include "engine/grammar_store.h"
#include "engine/thread_trial.h"
#include "model/sampling_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *runnel_version(void)
{
    return RUNNEL_VERSION;
}

void runnel_model_options_init_sized(void *options, size_t size)
{
    const runnel_model_options defaults = {.size = sizeof defaults};
    if (options)
        versioned_init(&defaults, sizeof defaults, options, size);
}

static bool wants_device(const runnel_model_options *options)
{
    return options->device && strcmp(options->device, "cpu") != 0;
}

static int read_options(const runnel_model_options *given, runnel_model_options *options, runnel_error *error)
{
    runnel_model_options_init(options);
    if (!given)
        return RUNNEL_OK;
    int failure = versioned_read("runnel_model_options", given, options, sizeof *options, error);
    if (failure)
        return failure;
    if (options->chat_template && options->chat_template_text)
        return error_set(error, RUNNEL_EINVAL,
                         "chat_template and chat_template_text: expected one of them, found both");
    if (options->n_threads < 0 || options->n_threads > MODEL_THREADS_MAX)
        return error_set(error, RUNNEL_EINVAL, "n_threads: %d, expected 0 to %d", options->n_threads,
                         MODEL_THREADS_MAX);
    if (options->device && !*options->device)
        return error_set(error, RUNNEL_EINVAL,
                         "device: expected cpu, gpu, auto or a device's name, found \"\"");
    if (options->gpu_layers && !wants_device(options))
        return error_set(error, RUNNEL_EINVAL, "gpu_layers: %u without a device, expected 0",
                         options->gpu_layers);
    if (options->gpu_approximate && !wants_device(options))
        return error_set(error, RUNNEL_EINVAL, "gpu_approximate: expected a device beside it, found none");
    return RUNNEL_OK;
}

/* Which device engines shall open. That there is one, they find: whoever forks may not have looked before. */
static int keep_device(const runnel_model_options *options, struct runnel_model *model, runnel_error *error)
{
    if (!wants_device(options))
        return RUNNEL_OK;
    model->n_device_layers = options->gpu_layers;
    model->device_approximates = options->gpu_approximate;
    model->device = strdup(options->device);
    return model->device ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for a device's name");
}

/* Sampling: what the file says, else what models that think want, else the defaults of the field. */
static void choose_sampling(const struct gguf *gguf, struct runnel_model *model)
{
    runnel_sampling *sampling = &model->sampling;
    *sampling = (runnel_sampling){
        .size = sizeof *sampling,
        .temperature = model->chat.thinks ? 0.6f : 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repetition_penalty = 1,
        .penalty_window = 64,
    };
    sampling_keys_read(gguf, sampling, model->warning, sizeof model->warning);
}

static int choose_template(const struct gguf *gguf, const runnel_model_options *options,
                           struct runnel_model *model, runnel_error *error)
{
    const struct chat_tokens tokens = chat_tokens_of(model->tokenizer);
    if (options->chat_template)
        return chat_open_by_name(options->chat_template, &tokens, &model->chat, error);
    if (options->chat_template_text) {
        int wrong = chat_open(options->chat_template_text, strlen(options->chat_template_text), &tokens,
                              &model->chat, error);
        return wrong ? error_prefix(error, "chat_template_text") : RUNNEL_OK;
    }
    struct gguf_string jinja;
    if (!gguf_has_key(gguf, "tokenizer.chat_template")) {
        chat_refuse_none(&model->chat_error);
        return RUNNEL_OK;
    }
    int failure = gguf_get_string(gguf, "tokenizer.chat_template", &jinja, error);
    if (failure)
        return failure;
    /* A template that cannot be run is no reason to refuse the file: the model can still be used without one. */
    failure = chat_open(jinja.bytes, jinja.len, &tokens, &model->chat, &model->chat_error);
    return failure == RUNNEL_ENOMEM ? error_set(error, failure, "%s", model->chat_error.message) : RUNNEL_OK;
}

/* A text that may be absent. */
static int copy_text(const struct gguf *gguf, const char *key, char **out, runnel_error *error)
{
    struct gguf_string text = {.bytes = "", .len = 0};
    if (gguf_has_key(gguf, key)) {
        int failure = gguf_get_string(gguf, key, &text, error);
        if (failure)
            return failure;
    }
    *out = strndup(text.bytes, text.len);
    return *out ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for the text of %s", key);
}

/* A draw picks a row of the output head: every token needs one. (Rows without a token are never drawn; see
 * draw in step.c.) */
static int check_vocabulary(const struct runnel_model *model, runnel_error *error)
{
    size_t n_tokens = tokenizer_n_tokens(model->tokenizer);
    if (n_tokens <= model->weights->config.n_vocab)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EFORMAT,
                     "tensor token_embd.weight: %u rows for %zu tokens, expected at least as many",
                     model->weights->config.n_vocab, n_tokens);
}

/* With how many threads engines will compute, where nobody has said it; the team is as large as this process may use. */
static int choose_threads(struct team *team, struct runnel_model *model, runnel_error *error)
{
    struct thread_choice choice;
    int failure =
        thread_trial_choose(model->kernels, model->weights, team, limits_quota_cpus(), &choice, error);
    if (failure)
        return failure;
    model->n_threads = choice.n_threads;
    thread_choice_describe(&choice, model->threads_why, sizeof model->threads_why);
    return RUNNEL_OK;
}

int runnel_model_open(const char *path, const runnel_model_options *given, runnel_model **out,
                      runnel_error *error)
{
    double start_ms = clock_ms();
    struct gguf *gguf = NULL;
    struct team *team = NULL;
    struct runnel_model *model = NULL;
    runnel_model_options options;
    int failure = arguments_check(__func__, ARGUMENTS(POINTER(path, path), POINTER(model, out)), error);
    if (!failure && !*path)
        failure = error_set(error, RUNNEL_EINVAL,
                            "runnel_model_open: path: expected the name of a file, found \"\"");
    if (!failure)
        failure = read_options(given, &options, error);
    if (failure)
        return failure;
    failure = gguf_open(path, &gguf, error);
    if (failure)
        return failure;
    model = calloc(1, sizeof *model);
    if (!model) {
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for a model");
        goto fail;
    }
    atomic_init(&model->n_holders, 1);
    char message[256];
    model->kernels = kernels_get(message, sizeof message);
    if (!model->kernels) {
        failure = error_set(error, RUNNEL_EINVAL, "%s", message);
        goto fail;
    }
    model->backend = &cpu_backend;
    model->file_bytes = gguf_file_bytes(gguf);
    model->n_threads = options.n_threads ? (unsigned)options.n_threads : limits_cpus();
    failure = gguf_check_model(gguf, error);
    if (!failure)
        failure = keep_device(&options, model, error);
    if (!failure)
        failure = copy_text(gguf, "general.name", &model->name, error);
    if (!failure)
        failure = copy_text(gguf, "tokenizer.chat_template", &model->jinja, error);
    if (!failure)
        failure = tokenizer_create(gguf, &model->tokenizer, error);
    if (!failure)
        failure = choose_template(gguf, &options, model, error);
    if (!failure)
        failure = team_create(model->n_threads, &team, error);
    if (!failure)
        failure = weights_load(gguf, team, options.on_progress, options.user, &model->weights, error);
    if (!failure)
        failure = check_vocabulary(model, error);
    if (!failure)
        failure = grammar_store_create(model->tokenizer, model->weights->config.n_vocab,
                                       model->chat.calls.form, &model->grammars, error);
    if (!failure && !options.n_threads)
        failure = choose_threads(team, model, error);
    if (failure)
        goto fail;
    choose_sampling(gguf, model);
    team_free(team);
    gguf_close(gguf);
    model->load_ms = clock_ms() - start_ms;
    *out = model;
    return RUNNEL_OK;

fail:
    team_free(team);
    runnel_model_close(model);
    gguf_close(gguf);
    return error ? error_prefix(error, "%s", path) : failure;
}

void runnel_model_close(runnel_model *model)
{
    if (model)
        model_let_go(model);
}

const struct runnel_model *model_hold(const struct runnel_model *model)
{
    atomic_fetch_add(&((struct runnel_model *)(uintptr_t)model)->n_holders, 1);
    return model;
}

void model_let_go(const struct runnel_model *held)
{
    struct runnel_model *model = (struct runnel_model *)(uintptr_t)held;
    if (atomic_fetch_sub(&model->n_holders, 1) != 1)
        return;
    grammar_store_let_go(model->grammars);
    weights_free(model->weights);
    tokenizer_free(model->tokenizer);
    chat_close(&model->chat);
    free(model->name);
    free(model->jinja);
    free(model->device);
    free(model);
}

void runnel_model_get_info(const runnel_model *model, runnel_model_info *info)
{
    if (!model || !info)
        return;
    const struct model_config *config = &model->weights->config;
    runnel_model_info full = {
        .size = sizeof full,
        .name = model->name,
        .architecture = config->architecture->name,
        .chat_template = model->chat.template ? model->chat.name : "",
        .cpu = model->kernels->name,
        .n_parameters = model->weights->n_parameters,
        .file_bytes = model->file_bytes,
        .weight_bytes = model->weights->region_bytes,
        .bytes_per_token = model->weights->bytes_per_token,
        .n_layer_weights = model->weights->n_layer_weights,
        .n_head_weights = (uint64_t)config->n_vocab * config->n_hidden,
        .n_vocab = config->n_vocab,
        .n_tokens = (uint32_t)tokenizer_n_tokens(model->tokenizer),
        .n_context_train = config->n_context_train,
        .n_layers = config->n_layers,
        .n_hidden = config->n_hidden,
        .eos_token = tokenizer_eos(model->tokenizer),
        .bos_token = tokenizer_bos(model->tokenizer),
        .adds_bos = tokenizer_adds_bos(model->tokenizer),
        .jinja = model->jinja,
        .n_threads = (int)model->n_threads,
        .load_ms = model->load_ms,
        .kv_bytes_per_token =
            UINT64_C(2) * sizeof(uint16_t) * config->n_layers * config->n_kv_heads * config->head_dim,
        .n_attention_products = UINT64_C(2) * config->n_layers * config->n_heads * config->head_dim,
        .warning = model->warning,
        .threads_why = model->threads_why,
    };
    versioned_write(&full, sizeof full, info);
}

bool model_is_reasoning(const struct runnel_model *model)
{
    return model->chat.thinks;
}

/* Text and tokens ----------------------------------------------------------------------------------------- */

int runnel_tokenize(const runnel_model *model, const char *text, size_t len, bool special, int32_t **ids,
                    size_t *n_ids, runnel_error *error)
{
    struct token_list tokens = {0};
    struct text_span all = {0, len};
    int failure = arguments_check(__func__,
                                  ARGUMENTS(POINTER(model, model), ARRAY(text, text, len, len),
                                            POINTER(ids, ids), POINTER(n_ids, n_ids)),
                                  error);
    if (!failure)
        failure =
            tokenizer_encode(model->tokenizer, text ? text : "", len, &all, special ? 1 : 0, &tokens, error);
    if (!failure && !tokens.ids) { /* an empty text: still something to free */
        tokens.ids = malloc(sizeof *tokens.ids);
        if (!tokens.ids)
            failure = error_set(error, RUNNEL_ENOMEM, "no memory for tokens");
    }
    if (failure) {
        free(tokens.ids);
        return failure;
    }
    *ids = tokens.ids;
    *n_ids = tokens.n;
    return RUNNEL_OK;
}

void runnel_tokens_free(int32_t *ids)
{
    free(ids);
}

int runnel_detokenize(const runnel_model *model, const int32_t *ids, size_t n_ids, bool special, char **text,
                      size_t *len, runnel_error *error)
{
    int failure = arguments_check(__func__,
                                  ARGUMENTS(POINTER(model, model), ARRAY(ids, ids, n_ids, n_ids),
                                            POINTER(text, text), POINTER(len, len)),
                                  error);
    if (failure)
        return failure;
    size_t total = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer_n_tokens(model->tokenizer))
            return error_set(error, RUNNEL_EINVAL, "ids: token %zu is %d, expected 0 to %zu", i, ids[i],
                             tokenizer_n_tokens(model->tokenizer) - 1);
        total += tokenizer_piece(model->tokenizer, ids[i]).len;
    }
    char *bytes = malloc(total + 1);
    if (!bytes)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a text of %zu bytes", total);
    size_t used = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (!special && !tokenizer_has_text(model->tokenizer, ids[i]))
            continue;
        struct gguf_string part = tokenizer_text(model->tokenizer, i ? ids[i - 1] : -1, ids[i]);
        memcpy(bytes + used, part.bytes, part.len);
        used += part.len;
    }
    bytes[used] = 0;
    *text = bytes;
    *len = used;
    return RUNNEL_OK;
}

void runnel_text_free(char *text)
{
    free(text);
}

/* The most bytes that so many tokens can have. */
static uint64_t bytes_at_most(const struct runnel_model *model, uint32_t n_tokens)
{
    size_t longest = 0;
    for (size_t id = 0; id < tokenizer_n_tokens(model->tokenizer); id++) {
        size_t len = tokenizer_piece(model->tokenizer, (int32_t)id).len;
        longest = len > longest ? len : longest;
    }
    return (uint64_t)n_tokens * longest;
}

/* A conversation that was too much for the template: for the context too, or does the template only waste what it may take? */
static int refuse_bound(const struct runnel_model *model, const struct model_chat *chat,
                        const runnel_error *bound, runnel_error *error)
{
    uint32_t n_context = chat->n_context ? chat->n_context : model->weights->config.n_context_train;
    uint64_t n_bytes = 0, at_most = bytes_at_most(model, n_context);
    for (size_t i = 0; i < chat->conversation.n_messages; i++)
        n_bytes += chat_content_len(&chat->conversation.messages[i]);
    n_bytes += chat->conversation.tools_len;
    if (n_bytes <= at_most)
        return error_set(error, RUNNEL_EINVAL, "%s", bound->message);
    return error_set(error, RUNNEL_ECONTEXT,
                     "the prompt has %llu bytes, the context of %u tokens has room for %llu at most",
                     (unsigned long long)n_bytes, n_context, (unsigned long long)at_most);
}

int model_render_chat(const struct runnel_model *model, const struct model_chat *chat,
                      struct chat_prompt *prompt, runnel_error *error)
{
    runnel_error why;
    if (!model->chat.template)
        return error_set(error, model->chat_error.code, "%s", model->chat_error.message);
    int failure = chat_render_conversation(&model->chat, &chat->conversation, chat->opening, prompt, &why);
    if (failure == TEMPLATE_EBOUND)
        return refuse_bound(model, chat, &why, error);
    return failure ? error_set(error, failure, "%s", why.message) : RUNNEL_OK;
}

int runnel_chat_format(const runnel_model *model, const runnel_message *messages, size_t n_messages,
                       bool thinking, char **text, runnel_error *error)
{
    const struct model_chat chat = {.conversation = {.messages = messages, .n_messages = n_messages},
                                    .opening = thinking ? CHAT_THINKING : CHAT_ANSWERING};
    struct chat_prompt prompt;
    int failure =
        arguments_check(__func__,
                        ARGUMENTS(POINTER(model, model), ARRAY(messages, messages, n_messages, n_messages),
                                  POINTER(text, text)),
                        error);
    if (!failure)
        failure = model_render_chat(model, &chat, &prompt, error);
    if (failure)
        return failure;
    *text = prompt.text;
    prompt.text = NULL;
    chat_prompt_free(&prompt);
    return RUNNEL_OK;
}

int model_encode_chat(const struct runnel_model *model, const struct model_chat *chat,
                      struct token_list *tokens, runnel_error *error)
{
    struct chat_prompt prompt;
    int failure = model_render_chat(model, chat, &prompt, error);
    if (failure)
        return failure;
    failure = tokenizer_encode(model->tokenizer, prompt.text, prompt.len, prompt.control, prompt.n_control,
                               tokens, error);
    chat_prompt_free(&prompt);
    return failure;
}

int model_encode_thought_end(const struct runnel_model *model, struct token_list *tokens, runnel_error *error)
{
    size_t len = strlen(chat_thought_end);
    struct text_span all = {0, len};
    return tokenizer_encode_on(model->tokenizer, chat_thought_end, len, &all, 1, tokens, error);
}
