/* tokens.c: /tokenize, /detokenize and /apply-template. Bodies are read on any thread (prepare.h). */
#include "server/api/tokens.h"

#include "base/utf8.h"
#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/json_write.h"

#include <stdlib.h>
#include <string.h>

/* Reads a body and writes its answer; 0, or -1 and the refusal. Any thread. */
typedef int (*answer_function)(const struct server *server, json_t *root, struct text *out,
                               struct refusal *refusal);

struct tokens_request {
    answer_function write;
    struct text out;
};

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    struct tokens_request *request = state;
    json_t *root;
    if (json_read(input->body.bytes, input->body.len, &root, refusal))
        return -1;
    int failure = json_is_object(root)
                      ? request->write(server, root, &request->out, refusal)
                      : refuse(refusal, NULL, "the body: expected a JSON object, found another value");
    json_decref(root);
    return failure;
}

static void tell(struct server *server, struct exchange *exchange, void *state, const struct refusal *refusal)
{
    const struct tokens_request *request = state;
    metrics_add_status(server->metrics,
                       refusal ? reply_refusal(exchange, refusal) : reply_json(exchange, &request->out));
}

static void free_request(void *state)
{
    struct tokens_request *request = state;
    text_free(&request->out);
}

static void answer(struct server *server, struct exchange *exchange, answer_function write)
{
    static const struct prepare_steps steps = {.state_bytes = sizeof(struct tokens_request),
                                               .read = read_body,
                                               .start = tell,
                                               .free_state = free_request};
    struct tokens_request request = {.write = write};
    prepare_request(server, exchange, &steps, &request);
}

/* Text of part of a character cannot be a JSON string: then it is a list of bytes. */
static void write_piece(const char *bytes, size_t len, struct text *out)
{
    if (utf8_valid(bytes, len)) {
        json_add_string(out, bytes, len);
        return;
    }
    for (size_t i = 0; i < len; i++)
        json_add_format(out, "%s%u", i ? "," : "[", (unsigned char)bytes[i]);
    text_add_string(out, "]");
}

/* The bytes that a token adds after the one before it (-1: none), as runnel_detokenize gives them for both. */
static int write_bytes(const struct server *server, int32_t before, int32_t id, struct text *out,
                       struct refusal *refusal)
{
    const int32_t ids[] = {before, id};
    char *first = NULL, *both;
    size_t first_len = 0, len;
    runnel_error error;
    if (before >= 0 && runnel_detokenize(server->model, ids, 1, true, &first, &first_len, &error))
        return reply_refuse_error(&error, refusal);
    runnel_text_free(first);
    if (runnel_detokenize(server->model, ids + (before < 0), before < 0 ? 1 : 2, true, &both, &len, &error))
        return reply_refuse_error(&error, refusal);
    write_piece(both + first_len, len - first_len, out);
    runnel_text_free(both);
    return 0;
}

static int write_token(const struct server *server, int32_t before, int32_t id, bool with_piece,
                       struct text *out, struct refusal *refusal)
{
    if (!with_piece) {
        json_add_format(out, "%d", id);
        return 0;
    }
    json_add_format(out, "{\"id\":%d,\"piece\":", id);
    int failure = write_bytes(server, before, id, out, refusal);
    text_add_string(out, "}");
    return failure;
}

static int tokenize(const struct server *server, json_t *root, struct text *out, struct refusal *refusal)
{
    const json_t *content = json_find(root, "content");
    bool adds = false, special = true, with_pieces = false;
    int32_t *ids;
    size_t n_ids;
    runnel_error error;
    if (json_read_bool(root, "add_special", &adds, refusal) ||
        json_read_bool(root, "parse_special", &special, refusal) ||
        json_read_bool(root, "with_pieces", &with_pieces, refusal))
        return -1;
    if (!json_is_string(content))
        return refuse(refusal, "content", "expected a string");
    if (runnel_tokenize(server->model, json_string_value(content), json_string_length(content), special, &ids,
                        &n_ids, &error))
        return reply_refuse_error(&error, refusal);
    bool leads = adds && server->info.adds_bos;
    int32_t before = leads ? server->info.bos_token : -1;
    int failure = 0;
    text_add_string(out, "{\"tokens\":[");
    if (leads)
        failure = write_token(server, -1, before, with_pieces, out, refusal);
    for (size_t i = 0; i < n_ids && !failure; before = ids[i++]) {
        text_add_string(out, i || leads ? "," : "");
        failure = write_token(server, before, ids[i], with_pieces, out, refusal);
    }
    text_add_string(out, "]}");
    runnel_tokens_free(ids);
    return failure;
}

static int read_ids(const struct server *server, const json_t *tokens, int32_t *ids, struct refusal *refusal)
{
    const json_t *value;
    size_t i;
    json_array_foreach(tokens, i, value)
    {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= (json_int_t)server->info.n_tokens)
            return refuse(refusal, "tokens", "expected token ids from 0 to %u", server->info.n_tokens - 1);
        ids[i] = (int32_t)id;
    }
    return 0;
}

static int detokenize(const struct server *server, json_t *root, struct text *out, struct refusal *refusal)
{
    static const runnel_error no_memory = {RUNNEL_ENOMEM, "no memory for the tokens"};
    const json_t *tokens = json_find(root, "tokens");
    char *text;
    size_t len;
    runnel_error error;
    if (!json_is_array(tokens))
        return refuse(refusal, "tokens", "expected a list of token ids");
    int32_t *ids = malloc(json_array_size(tokens) * sizeof *ids + 1);
    if (!ids)
        return reply_refuse_error(&no_memory, refusal);
    int failure = read_ids(server, tokens, ids, refusal);
    if (!failure && runnel_detokenize(server->model, ids, json_array_size(tokens), true, &text, &len, &error))
        failure = reply_refuse_error(&error, refusal);
    free(ids);
    if (failure)
        return failure;
    text_add_string(out, "{\"content\":");
    json_add_string(out, text, len);
    text_add_string(out, "}");
    runnel_text_free(text);
    return 0;
}

static int apply_template(const struct server *server, json_t *root, struct text *out,
                          struct refusal *refusal)
{
    const struct params_limits limits = reply_limits(server);
    struct params params;
    runnel_error error;
    char *text;
    size_t len;
    if (params_read_chat(root, &limits, &params, refusal))
        return -1;
    int failure = runnel_prompt_text(server->model, &params.request, &text, &len, &error);
    if (failure)
        failure = reply_refuse_prompt(&params.request, &error, refusal);
    params_free(&params);
    if (failure)
        return failure;
    text_add_string(out, "{\"prompt\":");
    json_add_string(out, text, len);
    text_add_string(out, "}");
    runnel_text_free(text);
    return 0;
}

void tokens_tokenize(struct server *server, struct exchange *exchange)
{
    answer(server, exchange, tokenize);
}

void tokens_detokenize(struct server *server, struct exchange *exchange)
{
    answer(server, exchange, detokenize);
}

void tokens_apply_template(struct server *server, struct exchange *exchange)
{
    answer(server, exchange, apply_template);
}
