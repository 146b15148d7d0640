/* text_chunks.c: see text_chunks.h. */
#include "cli/text_chunks.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

/* Tokens of the text in a chunk. */
static uint32_t text_tokens(const struct text_chunks *chunks)
{
    return chunks->chunk_tokens - (chunks->begin_token >= 0);
}

/* Of the text that was tokenized. */
static int cut(const struct text_chunks_options *options, struct text_chunks *chunks, runnel_error *error)
{
    chunks->n_used = chunks->n_ids;
    if (options->n_tokens_max && options->n_tokens_max < chunks->n_used)
        chunks->n_used = (size_t)options->n_tokens_max;
    if (chunks->n_used < options->n_tokens_min)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: too short a text: expected at least %u token%s, found %zu", options->name,
                         options->n_tokens_min, options->n_tokens_min == 1 ? "" : "s", chunks->n_used);
    chunks->n_chunks = (chunks->n_used + text_tokens(chunks) - 1) / text_tokens(chunks);
    return RUNNEL_OK;
}

int text_chunks_create(const runnel_model *model, const char *text, size_t len,
                       const struct text_chunks_options *options, struct text_chunks *chunks,
                       runnel_error *error)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    uint32_t chunk_tokens = options->chunk_tokens;
    struct text_chunks made = {
        .begin_token = info.adds_bos ? info.bos_token : -1,
        .chunk_tokens = chunk_tokens < info.n_context_train ? chunk_tokens : info.n_context_train,
    };
    if (made.chunk_tokens < 2) /* a begin token and one of the text */
        return error_set(error, RUNNEL_ECONTEXT, "expected a context of at least 2 tokens, the model has %u",
                         info.n_context_train);
    int failure = runnel_tokenize(model, text, len, options->special, &made.ids, &made.n_ids, error);
    if (!failure)
        failure = cut(options, &made, error);
    if (failure) {
        text_chunks_free(&made);
        return failure;
    }
    *chunks = made;
    return RUNNEL_OK;
}

void text_chunks_free(struct text_chunks *chunks)
{
    runnel_tokens_free(chunks->ids);
    *chunks = (struct text_chunks){.n_ids = 0};
}

size_t text_chunks_get(const struct text_chunks *chunks, size_t chunk, int32_t *ids)
{
    size_t begin = chunk * text_tokens(chunks), n = chunks->n_used - begin, n_before = 0;
    if (n > text_tokens(chunks))
        n = text_tokens(chunks);
    if (chunks->begin_token >= 0)
        ids[n_before++] = chunks->begin_token;
    memcpy(ids + n_before, chunks->ids + begin, n * sizeof *ids);
    return n_before + n;
}

uint64_t text_chunks_total(const struct text_chunks *chunks)
{
    return chunks->n_used + (chunks->begin_token >= 0 ? chunks->n_chunks : 0);
}
