/* params_table.c: see params_table.h. A field may stand in several lines if routes differ. */
#include "server/params_table.h"

#include <math.h>
#include <string.h>

#define STRING_OR_IDS                                                                                        \
    "{'type':'string','minLength':1},{'type':'array','minItems':1,'items':{'type':'integer','minimum':0}}"
#define PROMPT_OBJECT                                                                                        \
    "{'type':'object','required':['prompt_string'],'properties':{'prompt_string':{'type':'string','"         \
    "minLength':1}}}"
#define MIXED                                                                                                \
    "{'type':'array','minItems':1,'items':{'anyOf':[{'type':'integer','minimum':0},{'type':'string'}]}}"

static const struct params_field fields[] = {
    {.name = "messages",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .required = true,
     .schema = "{'type':'array','minItems':1,'items':{'$ref':'#/components/schemas/Message'}}",
     .meaning = "The conversation. The template is the model's own."},
    {.name = "prompt",
     .routes = PARAMS_COMPLETION | PARAMS_NATIVE,
     .kind = PARAMS_OTHER,
     .required = true,
     .schema = "{'anyOf':[" STRING_OR_IDS "," MIXED "," PROMPT_OBJECT
               ",{'type':'array','minItems':1,'maxItems':1024,'items':{'anyOf':[" STRING_OR_IDS
               "," PROMPT_OBJECT "]}}]}",
     .meaning =
         "What the model continues: a text, token ids, both mixed, {\"prompt_string\"}; or a list of these."},
    {.name = "prompt",
     .routes = PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .required = true,
     .schema = "{'type':'string','minLength':1}",
     .meaning = "The user's message, or with raw the text to continue."},
    {.name = "raw", .routes = PARAMS_GENERATE, .kind = PARAMS_BOOL, .meaning = "Without the chat template."},
    {.name = "id",
     .routes = PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'anyOf':[{'type':'integer','minimum':-9223372036854775808,'maximum':9223372036854775807},"
               "{'type':'string','maxLength':64},{'type':'null'}]}",
     .meaning = "Of an entry of a batch: comes back as request_id."},
    {.name = "model",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'string'}",
     .meaning = "Any: there is one model."},
    {.name = "stream",
     .routes = PARAMS_STREAMS,
     .kind = PARAMS_BOOL,
     .meaning = "The answer as it is written, as events."},
    {.name = "stream_options",
     .routes = PARAMS_OPENAI,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'object','properties':{'include_usage':{'type':'boolean'}}}",
     .meaning = "include_usage: a last event that counts tokens."},
    {.name = "max_tokens",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning =
         "Of the answer, thoughts included; -1: as many as fit. Never more than the context has room for."},
    {.name = "max_completion_tokens",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning = "The newer name of max_tokens."},
    {.name = "n_predict",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning =
         "llama-server's name of max_tokens. For /completion 0 computes the prompt, and answers nothing."},
    {.name = "temperature",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = 0,
     .most = 2,
     .meaning = "0: always the likeliest token."},
    {.name = "top_p",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = 0,
     .most = 1,
     .meaning = "Keep the likeliest tokens whose probabilities reach so much."},
    {.name = "top_k",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning = "Keep so many of the likeliest tokens; 0 or -1: all."},
    {.name = "min_p",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = 0,
     .most = 1,
     .meaning = "Drop what is less likely than this share of the likeliest token."},
    {.name = "repeat_penalty",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = 0.01,
     .most = 100,
     .meaning = "Makes tokens seen before less likely; 1: not."},
    {.name = "repetition_penalty",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = 0.01,
     .most = 100,
     .meaning = "Another name of repeat_penalty."},
    {.name = "presence_penalty",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = -2,
     .most = 2,
     .meaning = "Subtracted once from tokens seen before."},
    {.name = "frequency_penalty",
     .routes = PARAMS_ALL,
     .kind = PARAMS_NUMBER,
     .least = -2,
     .most = 2,
     .meaning = "Subtracted for each time a token was seen."},
    {.name = "repeat_last_n",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning = "How many of the last tokens the penalties look at; -1: all."},
    {.name = "seed",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -9223372036854775808.0,
     .most = 9223372036854775807.0,
     .meaning = "The same seed gives the same answer; -1: another one each time."},
    {.name = "stop",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'anyOf':[{'type':'string','maxLength':256},{'type':'array','maxItems':16,"
               "'items':{'type':'string','maxLength':256}},{'type':'null'}]}",
     .meaning =
         "Texts that end the answer and are not part of it, in the answer and never in thoughts: up to 16 "
         "of up to 1024 bytes; empty ones ask for nothing."},
    {.name = "logit_bias",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema =
         "{'anyOf':[{'type':'object','maxProperties':1024,'additionalProperties':{'type':'number','minimum':-"
         "100,"
         "'maximum':100}},{'type':'array','maxItems':1024,'items':{'type':'array','minItems':2,'maxItems':2,"
         "'items':{'anyOf':[{'type':'integer','minimum':0},{'type':'number','minimum':-100,'maximum':100},"
         "{'type':'string','minLength':1},{'type':'boolean','const':false}]}}}]}",
     .meaning = "Added to tokens' logits: {\"id or text\": bias} or [[id or text, bias]]. A text stands for "
                "each of its "
                "tokens; false: never."},
    {.name = "min_tokens",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = 0,
     .most = 2147483647,
     .meaning =
         "The end token is not drawn before so many others, thoughts included; stop texts still end the "
         "answer. At most max_tokens."},
    {.name = "min_new_tokens",
     .routes = PARAMS_ALL,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = 0,
     .most = 2147483647,
     .meaning = "SGLang's name of min_tokens."},
    {.name = "ignore_eos", .routes = PARAMS_ALL, .kind = PARAMS_BOOL, .meaning = "Go on past the end token."},
    {.name = "n",
     .routes = PARAMS_STREAMS,
     .kind = PARAMS_WHOLE,
     .least = 1,
     .most = INFINITY,
     .meaning = "Choices, with seeds that count up: as many as the server computes together."},
    {.name = "n_cmpl",
     .routes = PARAMS_STREAMS,
     .kind = PARAMS_WHOLE,
     .least = 1,
     .most = INFINITY,
     .meaning = "llama-server's name of n."},
    {.name = "n",
     .routes = PARAMS_GENERATE,
     .kind = PARAMS_WHOLE,
     .least = 1,
     .most = 1,
     .meaning = "Only 1."},
    {.name = "best_of",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['integer','null'],'minimum':1}",
     .meaning = "As many as n: choices are not picked from more."},
    {.name = "logprobs",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_BOOL,
     .meaning = "Tell the tokens' probabilities."},
    {.name = "top_logprobs",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_WHOLE,
     .least = 0,
     .most = 20,
     .meaning = "And those of so many of the likeliest ones; with logprobs."},
    {.name = "logprobs",
     .routes = PARAMS_COMPLETION,
     .kind = PARAMS_WHOLE,
     .least = 0,
     .most = 20,
     .meaning = "Tell the tokens' probabilities, and those of so many of the likeliest ones; false: not."},
    {.name = "echo",
     .routes = PARAMS_COMPLETION,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'boolean','const':false}",
     .meaning = "Not supported."},
    {.name = "n_probs",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_WHOLE,
     .least = 0,
     .most = 20,
     .meaning = "Tell the probabilities of the tokens and of so many of the likeliest ones; 0: not."},
    {.name = "post_sampling_probs",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'boolean','const':false}",
     .meaning = "Not supported: they are those of the model itself."},
    {.name = "return_tokens",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_BOOL,
     .meaning = "The answer's token ids, in tokens."},
    {.name = "response_fields",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null'],'maxItems':128,'items':{'type':'string'}}",
     .meaning = "The fields that the answer, or a stream's last event, shall have, such as content or "
                "timings/predicted_n, "
                "which stands in the answer by that name. Those that do not exist are left out; none: all. "
                "At most 128."},
    {.name = "timings_per_token",
     .routes = PARAMS_STREAMS,
     .kind = PARAMS_BOOL,
     .meaning = "timings in each event of a stream that has text, not only in the last."},
    {.name = "cache_prompt",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_BOOL,
     .meaning =
         "Without effect: what was computed before is always used again, and never changes an answer."},
    {.name = "thinking_budget_tokens",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_WHOLE_CLAMPED,
     .least = -1,
     .most = 2147483647,
     .meaning = "A thought still open after so many tokens is closed, and the answer follows; 0: no "
                "thinking; -1: no limit."},
    {.name = "chat_template_kwargs",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'object','properties':{'enable_thinking':{'type':'boolean'}}}",
     .meaning = "enable_thinking: false to have the answer without thoughts."},
    {.name = "enable_thinking",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_BOOL,
     .meaning = "The same without chat_template_kwargs."},
    {.name = "reasoning_effort",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null']}",
     .meaning = "none: the answer without thoughts; anything else changes nothing."},
    {.name = "reasoning_format",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'string','enum':['deepseek','deepseek-legacy','none','auto']}",
     .meaning = "deepseek: thoughts apart; none: in the content, between <think> and </think>; "
                "deepseek-legacy: both; "
                "auto: the server's."},
};

const struct params_field *params_fields(size_t *n)
{
    *n = sizeof fields / sizeof *fields;
    return fields;
}

static const struct params_field *find(const char *name, enum params_kind kind, enum params_kind or_kind)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, name) && (fields[i].kind == kind || fields[i].kind == or_kind))
            return &fields[i];
    return NULL;
}

static int refuse_unknown(const char *name, struct refusal *refusal)
{
    refuse(refusal, name, "not in the table of fields");
    refusal->status = 500;
    return -1;
}

int params_read_bool(const json_t *root, const char *name, bool *out, struct refusal *refusal)
{
    if (!find(name, PARAMS_BOOL, PARAMS_BOOL))
        return refuse_unknown(name, refusal);
    return json_read_bool(root, name, out, refusal);
}

int params_read_number(const json_t *root, const char *name, float *out, struct refusal *refusal)
{
    const struct params_field *field = find(name, PARAMS_NUMBER, PARAMS_NUMBER);
    return field ? json_read_float(root, name, field->least, field->most, out, refusal)
                 : refuse_unknown(name, refusal);
}

/* Bounds that a double cannot hold exactly are those of the type. */
static int64_t whole_bound(double bound)
{
    return bound >= 0x1p63 ? INT64_MAX : (int64_t)bound;
}

int params_read_whole(const json_t *root, const char *name, int64_t *out, struct refusal *refusal)
{
    const struct params_field *field = find(name, PARAMS_WHOLE, PARAMS_WHOLE_CLAMPED);
    return field ? json_read_int(root, name, whole_bound(field->least), whole_bound(field->most),
                                 field->kind == PARAMS_WHOLE_CLAMPED, out, refusal)
                 : refuse_unknown(name, refusal);
}
