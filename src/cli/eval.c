/* eval.c: the command `runnel eval`: how well a model foretells a text, and how far it is from another form of itself, whose
 * logits were written before. The main thread. */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/mark.h"
#include "cli/own_answers.h"
#include "cli/scoring.h"
#include "cli/size_text.h"
#include "cli/text_chunks.h"

#include "base/error.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { BATCH = 512 };

struct eval_settings {
    const char *model, *text, *reference, *write_reference;
    int n_context, n_tokens, max_tokens, n_threads;
    bool own_answers, special, json, has_context;
    char *config_text;
};

static const struct option_spec eval_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct eval_settings, model), .required = true, .bare = true,
     .extra_hint = "the text is that of -f FILE"},
    {"file", 'f', OPTION_STRING, "TEXT",
     "the text; -: stdin. With --reference it may be left out: the reference has its tokens",
     OPTION_FIELD(struct eval_settings, text), .once = true},
    {"reference", 0, OPTION_STRING, "FILE",
     "compare with the logits that the model before quantising wrote there: KL and top-1",
     OPTION_FIELD(struct eval_settings, reference), .excludes = "write-reference|own-answers|special"},
    {"write-reference", 0, OPTION_STRING, "FILE",
     "write this model's logits there, 2 bytes for each token of the vocabulary at each token of the text",
     OPTION_FIELD(struct eval_settings, write_reference)},
    {"own-answers", 0, OPTION_FLAG, NULL,
     "with --write-reference: the text is a prompt a line; the model answers each, always by the likeliest "
     "token, and scored are its answers. Top-1 with that reference is another model's quality",
     OPTION_FIELD(struct eval_settings, own_answers), .needs = "write-reference"},
    {"max-tokens", 'n', OPTION_INT, "N", "of an answer, with --own-answers",
     OPTION_FIELD(struct eval_settings, max_tokens), .minimum = 1, .maximum = 1 << 20, .default_text = "256"},
    {"ctx", 'c', OPTION_INT, "N",
     "the text is cut into chunks of N tokens, each computed by itself and scored from its second token on; "
     "with --own-answers room for a prompt and its answer. Beside --reference it is that which says",
     OPTION_FIELD(struct eval_settings, n_context), OPTION_HAS(struct eval_settings, has_context),
     .minimum = 2, .maximum = 1 << 20, .default_text = "2048"},
    {"tokens", 0, OPTION_INT, "N", "of the text at most; 0: all. Beside --reference it is that which says",
     OPTION_FIELD(struct eval_settings, n_tokens), .minimum = 0, .maximum = 1 << 30},
    {"special", 0, OPTION_FLAG, NULL, "read control tokens in the text as such",
     OPTION_FIELD(struct eval_settings, special)},
    {"json", 0, OPTION_FLAG, NULL,
     "print {\"perplexity\", \"kl_mean\", \"top1\", \"n_tokens\"}; what there is no reference for is null",
     OPTION_FIELD(struct eval_settings, json)},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct eval_settings, n_threads), .minimum = 0, .maximum = 256},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct eval_settings, config_text)},
};

const struct options_table eval_table = {
    "runnel eval",
    "Measures how well a model foretells a text, and how far it is from what it was before quantising.",
    eval_options, OPTION_COUNT(eval_options)};

/* An evaluation, from the text to the score. */
struct evaluation {
    const struct eval_settings *settings;
    const runnel_model *model;
    runnel_model_info info;
    runnel_engine *engine; /* NULL: not started */
    char *text;            /* NULL: none was given */
    size_t len;
    struct reference reference;  /* file NULL: none */
    struct scored_sequences own; /* without a reference */
    const struct scored_sequences *sequences;
    struct score score;
};

/* Of what the ids of the sequences say in the model's vocabulary. */
static int hash_words(const runnel_model *model, const struct scored_sequences *sequences, uint64_t *hash,
                      runnel_error *error)
{
    *hash = MARK_BEGIN;
    for (size_t i = 0; i < sequences->n; i++) {
        char *words;
        size_t len;
        int failure = runnel_detokenize(model, sequences->sequences[i].ids, sequences->sequences[i].n_ids,
                                        true, &words, &len, error);
        if (failure)
            return failure;
        *hash = mark_add(*hash, words, len);
        runnel_text_free(words);
    }
    return RUNNEL_OK;
}

/* Sequences ----------------------------------------------------------------------------------------------- */

static int start_engine(struct evaluation *evaluation, uint32_t n_context, size_t n_requests,
                        runnel_error *error)
{
    static const struct field_name names[] = {{"n_context", "--ctx"}, {NULL, NULL}};
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = n_context;
    options.n_batch = n_context < BATCH ? n_context : BATCH;
    options.n_parallel = (uint32_t)(n_requests < OWN_ANSWERS_TOGETHER ? n_requests : OWN_ANSWERS_TOGETHER);
    options.n_requests = (uint32_t)n_requests;
    int failure = runnel_engine_start(evaluation->model, &options, &evaluation->engine, error);
    if (failure)
        error_name_options(names, error);
    return failure;
}

/* What was asked for and is not so. */
static void tell_cut(const struct evaluation *evaluation)
{
    const struct eval_settings *settings = evaluation->settings;
    if (settings->has_context && (uint32_t)settings->n_context > evaluation->info.n_context_train)
        fprintf(stderr, "--ctx %d: the model was trained for %u tokens, so there are no more\n",
                settings->n_context, evaluation->info.n_context_train);
}

static void tell_unused(const struct evaluation *evaluation, uint32_t longest)
{
    const struct eval_settings *settings = evaluation->settings;
    const struct reference_header *header = &evaluation->reference.header;
    uint64_t n_begins = evaluation->info.adds_bos ? header->n_sequences : 0,
             n_tokens = (uint64_t)settings->n_tokens;
    uint64_t n_text = header->n_ids > n_begins ? header->n_ids - n_begins : 0;
    if (settings->has_context && (uint32_t)settings->n_context != longest)
        fprintf(stderr, "--ctx %d: %s says how much is computed at once, %u tokens\n", settings->n_context,
                settings->reference, longest);
    if (n_tokens && n_tokens != n_text &&
        n_tokens != n_text + 1) /* a last one alone has nothing to be scored */
        fprintf(stderr, "--tokens %" PRIu64 ": %s says which, %" PRIu64 " of them\n", n_tokens,
                settings->reference, n_text);
}

static uint32_t context_of(const struct evaluation *evaluation)
{
    uint32_t n_context = (uint32_t)evaluation->settings->n_context;
    return n_context < evaluation->info.n_context_train ? n_context : evaluation->info.n_context_train;
}

/* The chunks of the text. A last one of a single token has nothing to be scored. */
static int cut_text(struct evaluation *evaluation, runnel_error *error)
{
    const struct eval_settings *settings = evaluation->settings;
    struct text_chunks chunks;
    const struct text_chunks_options options = {.name = settings->text,
                                                .chunk_tokens = (uint32_t)settings->n_context,
                                                .n_tokens_max = (uint64_t)settings->n_tokens,
                                                .n_tokens_min = 2,
                                                .special = settings->special};
    int failure =
        text_chunks_create(evaluation->model, evaluation->text, evaluation->len, &options, &chunks, error);
    if (failure)
        return failure;
    int32_t *ids = malloc(chunks.chunk_tokens * sizeof *ids);
    if (!ids)
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for chunks of %u tokens", chunks.chunk_tokens);
    for (size_t i = 0; i < chunks.n_chunks && !failure; i++) {
        size_t n = text_chunks_get(&chunks, i, ids);
        if (n >= 2)
            failure = scored_sequences_add(&evaluation->own, ids, n, 0, error);
    }
    free(ids);
    if (!failure)
        failure = start_engine(evaluation, chunks.chunk_tokens, 1, error);
    text_chunks_free(&chunks);
    return failure;
}

static int answer_prompts(struct evaluation *evaluation, runnel_error *error)
{
    const struct eval_settings *settings = evaluation->settings;
    if (strlen(evaluation->text) != evaluation->len)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a prompt a line, found a zero byte",
                         settings->text);
    size_t n = own_answers_count(evaluation->text);
    const struct own_prompts prompts = {
        .name = settings->text,
        .text = evaluation->text,
        .max_tokens = settings->max_tokens,
        .n_context = context_of(evaluation),
    };
    int failure = start_engine(evaluation, prompts.n_context, n ? n : 1, error);
    if (!failure)
        failure = own_answers_write(evaluation->engine, evaluation->model, &prompts, &evaluation->own, error);
    if (!failure && !evaluation->own.n)
        failure = error_set(error, RUNNEL_EINVAL, "%s: expected answers, found none that has a token",
                            settings->text);
    return failure;
}

/* A reference can be compared with the model if both have the same vocabulary, and is of the text if one was given. */
static int check_reference(const struct evaluation *evaluation, runnel_error *error)
{
    const struct reference *reference = &evaluation->reference;
    uint64_t hash;
    if (reference->header.n_vocab != evaluation->info.n_vocab)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: made with another vocabulary: expected %u tokens, found %u", reference->path,
                         evaluation->info.n_vocab, reference->header.n_vocab);
    if (hash_words(evaluation->model, &reference->sequences, &hash, NULL) ||
        hash != reference->header.word_hash)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: made with another vocabulary: its tokens say something else in this model's",
                         reference->path);
    if (evaluation->text &&
        mark_add(MARK_BEGIN, evaluation->text, evaluation->len) != reference->header.text_hash)
        return error_set(error, RUNNEL_EINVAL, "%s: made from another text than %s", reference->path,
                         evaluation->settings->text);
    return RUNNEL_OK;
}

static int start_for_reference(struct evaluation *evaluation, runnel_error *error)
{
    uint32_t longest = 2;
    for (size_t i = 0; i < evaluation->sequences->n; i++)
        if (evaluation->sequences->sequences[i].n_ids > longest)
            longest = evaluation->sequences->sequences[i].n_ids;
    if (longest > evaluation->info.n_context_train)
        return error_set(error, RUNNEL_ECONTEXT, "%s: has %u tokens in a row, the model was trained for %u",
                         evaluation->reference.path, longest, evaluation->info.n_context_train);
    tell_unused(evaluation, longest);
    return start_engine(evaluation, longest, 1, error);
}

/* Fills in the sequences, and starts an engine for them. */
static int find_sequences(struct evaluation *evaluation, runnel_error *error)
{
    evaluation->sequences = &evaluation->own;
    if (evaluation->settings->reference) {
        evaluation->sequences = &evaluation->reference.sequences;
        int failure = check_reference(evaluation, error);
        return failure ? failure : start_for_reference(evaluation, error);
    }
    tell_cut(evaluation);
    return evaluation->settings->own_answers ? answer_prompts(evaluation, error)
                                             : cut_text(evaluation, error);
}

/* Scoring ------------------------------------------------------------------------------------------------- */

static int score(struct evaluation *evaluation, struct logits_output *output, uint16_t *codes,
                 runnel_error *error)
{
    const struct scoring scoring = {
        .engine = evaluation->engine,
        .n_vocab = evaluation->info.n_vocab,
        .sequences = evaluation->sequences,
        .reference = evaluation->settings->reference ? &evaluation->reference : NULL,
        .output = output,
        .codes = codes,
    };
    return scoring_run(&scoring, &evaluation->score, error);
}

/* A reference can be large: that it does not fit is told before it is computed. */
static int check_room(const struct logits_output *output, uint64_t n_bytes, runnel_error *error)
{
    struct statvfs disk;
    char wanted[SIZE_TEXT_BYTES], found[SIZE_TEXT_BYTES];
    if (!output->is_file || fstatvfs(fileno(output->file), &disk))
        return RUNNEL_OK;
    uint64_t n_free = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (n_bytes <= n_free)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EIO,
                     "%s: will have %s, and there is room for %s: --tokens takes less of the text",
                     output->path, size_text_growing(n_bytes, wanted), size_text_growing(n_free, found));
}

static int score_and_write(struct evaluation *evaluation, runnel_error *error)
{
    const char *path = evaluation->settings->write_reference;
    char size[SIZE_TEXT_BYTES];
    struct logits_output output;
    struct reference_header header = {.is_answers = evaluation->settings->own_answers,
                                      .n_vocab = evaluation->info.n_vocab,
                                      .text_hash = mark_add(MARK_BEGIN, evaluation->text, evaluation->len)};
    uint64_t n_bytes = reference_bytes(evaluation->sequences, header.n_vocab);
    int failure = hash_words(evaluation->model, evaluation->sequences, &header.word_hash, error);
    if (failure)
        return failure;
    uint16_t *codes = malloc(header.n_vocab * sizeof *codes);
    if (!codes)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a row of %u logits", header.n_vocab);
    failure = logits_output_open(&output, path, error);
    if (!failure) {
        failure = check_room(&output, n_bytes, error);
        if (!failure && reference_write_begin(&output, header, evaluation->sequences))
            failure = score(evaluation, &output, codes, error);
        failure = logits_output_close(&output, failure, error);
    }
    free(codes);
    if (!failure)
        fprintf(stderr, "%s: %s\n", path, size_text(n_bytes, size));
    return failure;
}

/* The command --------------------------------------------------------------------------------------------- */

static int print_json(const struct evaluation *evaluation)
{
    const struct score *score = &evaluation->score;
    bool compared = evaluation->settings->reference != NULL;
    json_t *json =
        json_pack("{s:f, s:o, s:o, s:I}", "perplexity", score->perplexity, "kl_mean",
                  compared ? json_real(score->kl_mean) : json_null(), "top1",
                  compared ? json_real(score->top1) : json_null(), "n_tokens", (json_int_t)score->n_tokens);
    if (!json || json_dumpf(json, stdout, 0)) {
        json_decref(json);
        fprintf(stderr, "runnel: no memory for the result\n");
        return EXIT_FAILED;
    }
    json_decref(json);
    putchar('\n');
    return EXIT_DONE;
}

static void print_table(const struct evaluation *evaluation)
{
    const struct score *score = &evaluation->score;
    const struct reference_header *reference = &evaluation->reference.header;
    bool is_answers = evaluation->settings->own_answers || reference->is_answers;
    printf("%-12s%" PRIu64 " token%s of %zu %s%s\n", "scored", score->n_tokens,
           score->n_tokens == 1 ? "" : "s", evaluation->sequences->n, is_answers ? "answer" : "chunk",
           evaluation->sequences->n == 1 ? "" : "s");
    printf("%-12s%.4f\n", "perplexity", score->perplexity);
    if (evaluation->settings->reference) {
        printf("%-12s%.6f  mean, from the reference\n", "KL", score->kl_mean);
        printf("%-12s%.2f %%  the likeliest token is the reference's\n", is_answers ? "quality" : "top-1",
               100 * score->top1);
    }
}

/* With the model open. */
static int evaluate(struct evaluation *evaluation, runnel_error *error)
{
    int failure = find_sequences(evaluation, error);
    if (!failure)
        failure = evaluation->settings->write_reference ? score_and_write(evaluation, error)
                                                        : score(evaluation, NULL, NULL, error);
    if (evaluation->engine)
        runnel_engine_stop(evaluation->engine);
    return failure;
}

/* What can be wrong without the model is told before it is opened, which takes long. */
static int read_files(struct evaluation *evaluation, runnel_error *error)
{
    const struct eval_settings *settings = evaluation->settings;
    int failure = cli_find_model(settings->model, error);
    if (!failure && settings->text)
        failure = cli_read_file(settings->text, &evaluation->text, &evaluation->len, error);
    if (!failure && settings->text)
        failure = cli_check_utf8(settings->text, evaluation->text, evaluation->len, error);
    if (!failure && settings->write_reference)
        failure = reference_check_place(settings->write_reference, error);
    if (!failure && settings->write_reference)
        failure = cli_check_output(settings->write_reference, settings->model, settings->text, error);
    if (!failure && settings->reference)
        failure = reference_open(&evaluation->reference, settings->reference, error);
    return failure;
}

static int run(const struct eval_settings *settings)
{
    runnel_error error;
    runnel_model *model;
    struct evaluation evaluation = {.settings = settings, .info = {.size = sizeof evaluation.info}};
    int failure = read_files(&evaluation, &error), status = EXIT_DONE;
    if (!failure)
        failure = cli_open_model(settings->model, settings->n_threads, NULL, NULL, &model, &error);
    if (!failure) {
        interrupt_watch();
        cli_tell_threads(settings->n_threads);
        evaluation.model = model;
        runnel_model_get_info(model, &evaluation.info);
        failure = evaluate(&evaluation, &error);
        runnel_model_close(model);
    }
    if (failure)
        status = interrupt_came() ? EXIT_INTERRUPTED : cli_fail(&error);
    else if (settings->json)
        status = print_json(&evaluation);
    else
        print_table(&evaluation);
    reference_close(&evaluation.reference);
    scored_sequences_free(&evaluation.own);
    free(evaluation.text);
    return status;
}

int command_eval(int argc, char **argv)
{
    struct eval_settings settings;
    int status = cli_read_options(&eval_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (!settings.text && !settings.reference) {
        fprintf(stderr, "runnel eval: -f TEXT is missing; only with --reference it may be left out\n");
        status = EXIT_USAGE;
    } else {
        status = run(&settings);
    }
    free(settings.config_text);
    return status;
}
