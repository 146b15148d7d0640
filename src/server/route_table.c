/* route_table.c: every route. The loop's thread only. */
#include "server/api/control.h"
#include "server/api/generate.h"
#include "server/api/native_completion.h"
#include "server/api/openai.h"
#include "server/api/props.h"
#include "server/api/render.h"
#include "server/api/tokens.h"
#include "server/health.h"
#include "server/openapi.h"
#include "server/routes.h"

/* Columns: path, body, function; summary, schema of the body, schema of the answer, whether it can stream. */
static const struct route routes[] = {
    {"/v1/chat/completions", BODY_JSON, openai_chat, "Chat, as the OpenAI API has it", "ChatRequest",
     "ChatCompletion", true},
    {"/chat/completions", BODY_JSON, openai_chat, "The same", "ChatRequest", "ChatCompletion", true},
    {"/v1/chat/completions/control", BODY_JSON, control_chat,
     "Ends the thought of an answer that is being written", "ControlRequest", "Controlled", false},
    {"/chat/completions/control", BODY_JSON, control_chat, "The same", "ControlRequest", "Controlled", false},
    {"/v1/chat/completions/input_tokens", BODY_JSON, openai_count_tokens,
     "How many tokens a chat's prompt has", "ChatRequest", "InputTokens", false},
    {"/chat/completions/input_tokens", BODY_JSON, openai_count_tokens, "The same", "ChatRequest",
     "InputTokens", false},
    {"/v1/chat/completions/render", BODY_JSON, render_chat,
     "The token ids of a chat's prompt, as vLLM gives them", "ChatRequest", "Rendered", false},
    {"/v1/completions", BODY_JSON, openai_completion, "Completions, as the OpenAI API has them",
     "CompletionRequest", "TextCompletion", true},
    {"/v1/completions/render", BODY_JSON, render_completion,
     "The token ids of each prompt, as vLLM gives them", "CompletionRequest", "RenderedPrompts", false},
    {"/completion", BODY_JSON, native_completion, "Completions, as llama-server has them", "NativeRequest",
     "NativeCompletions", true},
    {"/completions", BODY_JSON, native_completion, "The same", "NativeRequest", "NativeCompletions", true},
    {"/v1/models", BODY_NONE, openai_models, "The model", NULL, "Models", false},
    {"/models", BODY_NONE, openai_models, "The same", NULL, "Models", false},
    {"/v1/models/{model}", BODY_NONE, openai_model, "The model by its name", NULL, "Model", false},
    {"/models/{model}", BODY_NONE, openai_model, "The same", NULL, "Model", false},
    {"/generate", BODY_OPTIONAL, generate_one, "A prompt, answered whole", "GenerateRequest", "Generated",
     false},
    {"/generate-batch", BODY_JSON, generate_batch, "Several prompts, all answered or none",
     "GenerateBatchRequest", "GeneratedBatch", false},
    {"/tokenize", BODY_JSON, tokens_tokenize, "Text to tokens", "TokenizeRequest", "Tokenized", false},
    {"/detokenize", BODY_JSON, tokens_detokenize, "Tokens to text", "DetokenizeRequest", "Detokenized",
     false},
    {"/apply-template", BODY_JSON, tokens_apply_template, "A chat as the text that the model continues",
     "ChatRequest", "AppliedTemplate", false},
    {"/props", BODY_NONE, props_get, "What the server is, and the defaults of requests", NULL, "Props",
     false},
    {"/slots", BODY_NONE, props_get_slots, "What is being computed, without anybody's text", NULL, "Slots",
     false},
    {"/health", BODY_NONE, health_get, "Is it ready?", NULL, "Health", false},
    {"/v1/health", BODY_NONE, health_get, "The same", NULL, "Health", false},
    {"/metrics", BODY_NONE, metrics_get, "Figures for Prometheus", NULL, NULL, false},
    {"/openapi.json", BODY_NONE, openapi_get, "This description", NULL, "Description", false},
};

const struct route *route_table(size_t *n)
{
    *n = sizeof routes / sizeof *routes;
    return routes;
}
