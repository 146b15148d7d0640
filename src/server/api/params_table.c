/* params_table.c: see params_table.h. A field may stand in several lines if routes differ. */
#include "server/api/params_table.h"

#include "runnel.h"

#include <math.h>
#include <string.h>

#define STRING_OR_IDS                                                                                        \
    "{'type':'string','minLength':1},{'type':'array','minItems':1,'items':{'type':'integer','minimum':0}}"
#define PROMPT_OBJECT                                                                                        \
    "{'type':'object','required':['prompt_string'],'properties':{'prompt_string':{'type':'string','"         \
    "minLength':1}}}"
#define MIXED                                                                                                \
    "{'type':'array','minItems':1,'items':{'anyOf':[{'type':'integer','minimum':0},{'type':'string'}]}}"

#define EFFORTS "'enum':['none','minimal','low','medium','high',null]"
#define TEXT    "{'type':['string','null'],'maxLength':64}"

#define BUDGET(name_, meaning_)                                                                              \
    {                                                                                                        \
        .name = name_, .routes = PARAMS_CHAT | PARAMS_GENERATE, .kind = PARAMS_WHOLE_CLAMPED, .least = -1,   \
        .most = 2147483647, .meaning = meaning_                                                              \
    }
#define REFUSED(name_, routes_, least_, most_, meaning_)                                                     \
    {                                                                                                        \
        .name = name_, .routes = routes_, .kind = PARAMS_REFUSED, .least = least_, .most = most_,            \
        .meaning = meaning_                                                                                  \
    }
#define ONLY_TRUE(name_, routes_, meaning_)                                                                  \
    {                                                                                                        \
        .name = name_, .routes = routes_, .kind = PARAMS_ONLY_TRUE, .meaning = meaning_                      \
    }
#define HARMLESS(name_, routes_, meaning_)                                                                   \
    {                                                                                                        \
        .name = name_, .routes = routes_, .kind = PARAMS_HARMLESS, .meaning = meaning_                       \
    }

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
     .most = RUNNEL_LOGPROBS_MAX,
     .meaning = "And those of so many of the likeliest ones; with logprobs."},
    {.name = "logprobs",
     .routes = PARAMS_COMPLETION,
     .kind = PARAMS_WHOLE,
     .least = 0,
     .most = RUNNEL_LOGPROBS_MAX,
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
     .most = RUNNEL_LOGPROBS_MAX,
     .meaning = "Tell the probabilities of the tokens and of so many of the likeliest ones; 0: not."},
    {.name = "post_sampling_probs",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_BOOL,
     .meaning =
         "n_probs tells prob and top_probs, those with which the token was drawn (after biases, penalties, "
         "temperature and filters), instead of the model's own."},
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
    {.name = "return_progress",
     .routes = PARAMS_STREAMS,
     .kind = PARAMS_BOOL,
     .meaning = "Events of a stream, without text, that tell in prompt_progress how much of the prompt is "
                "computed: at the beginning and after each step. Without stream it changes nothing."},
    {.name = "cache_prompt",
     .routes = PARAMS_NATIVE,
     .kind = PARAMS_BOOL,
     .meaning =
         "Without effect: what was computed before is always used again, and never changes an answer."},
    BUDGET("thinking_budget_tokens",
           "A thought still open after so many tokens is closed, and the answer follows; 0: no "
           "thinking; -1: no limit."),
    BUDGET(
        "soft_thinking_budget_tokens",
        "Past so many tokens of a thought it ends where a sentence does: at first likelier than else, then "
        "always; -1: not. At most thinking_budget_tokens."),
    BUDGET("answer_reserve",
           "Tokens of max_tokens that a thought leaves to the answer: it is closed before; 0: none; -1: the "
           "server's (--answer-reserve), and none beside a thinking_budget_tokens that leaves an answer."),
    {.name = "reasoning_budget_message",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = TEXT,
     .meaning =
         "llama-server's: what the server writes, as the end of the thought, before it closes one. Up to "
         "256 tokens."},
    {.name = "think_stop_sentence",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = TEXT,
     .meaning = "FastDeploy's name of reasoning_budget_message; two that differ are refused."},
    {.name = "logits_processors_args",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','null'],'properties':{'thinking_budget':{'type':['integer','null'],'"
               "minimum':-1},'think_stop_sentence':" TEXT "}}",
     .meaning =
         "FastDeploy's: thinking_budget, as thinking_budget_tokens, and think_stop_sentence. What else is in "
         "it is ignored."},
    {.name = "reasoning_control",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_BOOL,
     .meaning = "true: POST /v1/chat/completions/control may end the thought of this answer."},
    {.name = "chat_template_kwargs",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema =
         "{'type':'object','properties':{'enable_thinking':{'type':'boolean'},'thinking':{'type':'boolean'},'"
         "reasoning_effort':{" EFFORTS "},'thinking_budget':{'type':'integer','minimum':-1}}}",
     .meaning = "enable_thinking or thinking: false to have the answer without thoughts; reasoning_effort, "
                "thinking_budget. Whichever name says no switches thinking off. Any other name is refused, "
                "unless it is null: it does not reach the template."},
    {.name = "enable_thinking",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_BOOL,
     .meaning = "The same without chat_template_kwargs."},
    {.name = "reasoning_effort",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{" EFFORTS "}",
     .meaning = "minimal, low, medium, high: budgets that are shares of max_tokens; none: the answer without "
                "thoughts. A budget that is named goes before it."},
    {.name = "reasoning_format",
     .routes = PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'string','enum':['deepseek','auto']}",
     .meaning = "Thoughts are always apart here."},
    {.name = "reasoning_format",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .schema = "{'type':'string','enum':['deepseek','deepseek-legacy','none','auto']}",
     .meaning = "deepseek: thoughts apart; none: in the content, between <think> and </think>; "
                "deepseek-legacy: both; "
                "auto: the server's."},
    BUDGET("reasoning_budget_tokens",
           "llama-server's name of thinking_budget_tokens; two that differ are refused."),
    BUDGET("reasoning_budget", "Another name of thinking_budget_tokens; two that differ are refused."),
    BUDGET("thinking_token_budget", "vLLM's name of thinking_budget_tokens; two that differ are refused."),
    BUDGET("max_thinking_tokens", "SGLang's name of thinking_budget_tokens; two that differ are refused."),
    BUDGET("reasoning_max_tokens",
           "FastDeploy's name of thinking_budget_tokens; two that differ are refused."),
    BUDGET("thinking_budget", "Another name of thinking_budget_tokens; two that differ are refused."),
    {.name = "custom_params",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','null'],'properties':{'thinking_budget':{'type':['integer','null'],'"
               "minimum':-1}}}",
     .meaning = "SGLang's: thinking_budget, as thinking_budget_tokens."},
    {.name = "thinking",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','boolean','null'],'properties':{'type':{'type':['string','null'],'enum':['"
               "enabled','disabled','adaptive','auto',null]},'budget_tokens':{'type':['integer','null'],'"
               "minimum':-1}}}",
     .meaning =
         "Anthropic's: disabled or false as enable_thinking false, budget_tokens as thinking_budget_tokens."},
    {.name = "reasoning",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','null'],'properties':{'effort':{" EFFORTS "},'max_tokens':{'"
               "type':['integer','null'],'minimum':-1},'enabled':{'type':['boolean','null']},'exclude':{'"
               "enum':[false,null]}}}",
     .meaning = "effort as reasoning_effort, max_tokens as thinking_budget_tokens, enabled as "
                "enable_thinking; exclude is refused."},
    {.name = "think",
     .routes = PARAMS_CHAT | PARAMS_GENERATE,
     .kind = PARAMS_OTHER,
     .schema = "{'anyOf':[{'type':'boolean'},{" EFFORTS "}]}",
     .meaning = "Ollama's: true or false as enable_thinking, a text as reasoning_effort."},
    REFUSED("thinking_budget_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("reasoning_budget_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("reasoning_budget", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("thinking_token_budget", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("max_thinking_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("reasoning_max_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("thinking_budget", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("soft_thinking_budget_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, -1, -1,
            "Without a chat template thoughts are not known."),
    REFUSED("answer_reserve", PARAMS_COMPLETION | PARAMS_NATIVE, -1, 0,
            "Without a chat template thoughts are not known."),
    REFUSED("reasoning_budget_message", PARAMS_COMPLETION | PARAMS_NATIVE, 0, 0,
            "Without a chat template thoughts are not known."),
    REFUSED("think_stop_sentence", PARAMS_COMPLETION | PARAMS_NATIVE, 0, 0,
            "Without a chat template thoughts are not known."),
    HARMLESS("logits_processors_args", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("custom_params", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("thinking", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("reasoning", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("think", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("chat_template_kwargs", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("enable_thinking", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("reasoning_effort", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    HARMLESS("reasoning_format", PARAMS_COMPLETION | PARAMS_NATIVE,
             "Without effect: text is continued as it is, without a chat template."),
    {.name = "separate_reasoning",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_BOOL,
     .meaning = "SGLang's: true as reasoning_format deepseek, false as none."},
    {.name = "verbosity",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null'],'enum':['medium',null]}",
     .meaning = "Only medium, which changes nothing."},
    {.name = "tools",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null'],'maxItems':512,'items':{'$ref':'#/components/schemas/Tool'}}",
     .meaning =
         "Functions that the model may call, where its template writes calls in a known form. Arguments are "
         "kept to their parameters, strict or not; what these say and cannot be enforced is refused by its "
         "keyword."},
    {.name = "tools",
     .routes = PARAMS_ALL & ~PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null']}",
     .meaning = "Refused, but for an empty list or a tool_choice of none."},
    {.name = "tool_choice",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .schema = "{'anyOf':[{'type':['string','null'],'enum':['none','auto','required',null]},{'type':'object',"
               "'properties':{'type':{'const':'function'},'function':{'type':'object','properties':{'name':{'"
               "type':'"
               "string'}},'required':['name']}},'required':['function']}]}",
     .meaning = "none: the model is told of no tools. auto: it calls some if it likes. required: the answer "
                "is calls, one at "
                "least. The name of a tool: it is one call, of that."},
    {.name = "tool_choice",
     .routes = PARAMS_ALL & ~PARAMS_CHAT,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null'],'enum':['none','auto',null]}",
     .meaning = "Changes nothing, as there are no tools."},
    {.name = "parallel_tool_calls",
     .routes = PARAMS_CHAT,
     .kind = PARAMS_BOOL,
     .meaning = "false: the answer ends after its first call."},
    {.name = "functions",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null']}",
     .meaning = "Refused, but for an empty list or a function_call of none."},
    {.name = "function_call",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null'],'enum':['none','auto',null]}",
     .meaning = "The older name of tool_choice."},
    {.name = "response_format",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema =
         "{'type':['object','null'],'properties':{'type':{'enum':['text','json_object','json_schema']},'"
         "json_schema':{'type':['object','null'],'properties':{'name':{'type':['string','null']},'strict':{'"
         "type':['boolean','null']},'schema':{'type':['object','boolean','null']}}},'schema':{'type':['"
         "object','boolean','null']}}}",
     .meaning =
         "json_object: the answer is a JSON object; json_schema: it fulfils the schema, strict or not. "
         "Thoughts are free. What a schema says and cannot be enforced is refused by its keyword."},
    {.name = "json_schema",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','string','null']}",
     .meaning = "llama-server's: the answer is JSON that fulfils this schema."},
    {.name = "grammar",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null']}",
     .meaning = "llama-server's: the answer is a text of this grammar, in GBNF."},
    {.name = "structured_outputs",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema =
         "{'type':['object','null'],'properties':{'json':{'type':['object','string','null']},'json_object':{'"
         "type':['boolean','null']},'regex':{'type':['string','null']},'choice':{'type':['array','null'],'"
         "items':{'type':'string'}},'grammar':{'type':['string','null']}}}",
     .meaning = "vLLM's: one of json (a schema), json_object, regex, choice (one of these texts), grammar."},
    {.name = "guided_json",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['object','string','null']}",
     .meaning = "vLLM's older name of structured_outputs.json."},
    {.name = "guided_regex",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null']}",
     .meaning = "vLLM's: the whole answer matches this pattern, as ECMA-262 writes them."},
    {.name = "guided_choice",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null'],'maxItems':4096,'items':{'type':'string'}}",
     .meaning = "vLLM's: the answer is one of these texts."},
    {.name = "guided_grammar",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['string','null']}",
     .meaning = "vLLM's: the answer is a text of this grammar, in GBNF."},
    HARMLESS("guided_decoding_backend", PARAMS_ALL,
             "Without effect. There is one way, and it changes no text."),
    {.name = "modalities",
     .routes = PARAMS_ALL,
     .kind = PARAMS_OTHER,
     .schema = "{'type':['array','null'],'items':{'enum':['text']},'maxItems':1}",
     .meaning = "Only text."},
    REFUSED("guided_whitespace_pattern", PARAMS_ALL, 0, 0,
            "Not supported: response_format and structured_outputs say it."),
    REFUSED("structural_tag", PARAMS_ALL, 0, 0,
            "Not supported: response_format and structured_outputs say it."),
    REFUSED("regex", PARAMS_ALL, 0, 0, "Not supported: response_format and structured_outputs say it."),
    REFUSED("ebnf", PARAMS_ALL, 0, 0, "Not supported: response_format and structured_outputs say it."),
    REFUSED("format", PARAMS_ALL, 0, 0, "Not supported: response_format and structured_outputs say it."),
    REFUSED("grammar_triggers", PARAMS_ALL, 0, 0,
            "Not supported: response_format and structured_outputs say it."),
    REFUSED("preserved_tokens", PARAMS_ALL, 0, 0,
            "Not supported: response_format and structured_outputs say it."),
    REFUSED("grammar_lazy", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("logits_processors", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("custom_logit_processor", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("lora", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("lora_path", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("lora_request", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("adapter_id", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("session_params", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("audio", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("web_search_options", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("documents", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("chat_template", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("prompt_embeds", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("input_embeds", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("input_ids", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("images", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("image_data", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("multimodal_data", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("system", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("instructions", PARAMS_ALL, 0, 0, "Not supported: a message of the system says it."),
    REFUSED("stop_sequences", PARAMS_ALL, 0, 0, "Not supported: stop says it."),
    REFUSED("response_prefix", PARAMS_ALL, 0, 0, "Not supported: a last message of the assistant says it."),
    REFUSED("template", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("context", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("options", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("sampling_params", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("kv_transfer_params", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("vllm_xargs", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("suffix", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("bad_words", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("allowed_token_ids", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("stop_token_ids", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("stop_regex", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("include_stop_str_in_output", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("no_stop_trim", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("use_beam_search", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("n_indent", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("early_stopping", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("watermark", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("no_repeat_ngram_size", PARAMS_ALL, 0, 0, "Not supported."),
    REFUSED("t_max_predict_ms", PARAMS_ALL, -1, 0, "A limit of time is not supported."),
    REFUSED("dynatemp_range", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("xtc_probability", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("dry_multiplier", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("mirostat", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("mirostat_mode", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("top_a", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("smoothing_factor", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("penalty_alpha", PARAMS_ALL, 0, 0, "Samplers that are not here may only be switched off."),
    REFUSED("typical_p", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("typical", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("tfs_z", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("tfs", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("encoder_repetition_penalty", PARAMS_ALL, 1, 1,
            "Samplers that are not here may only be switched off."),
    REFUSED("guidance_scale", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("length_penalty", PARAMS_ALL, 1, 1, "Samplers that are not here may only be switched off."),
    REFUSED("num_beams", PARAMS_ALL, 0, 1, "Only 1."),
    REFUSED("min_keep", PARAMS_ALL, 0, 1, "Only 1."),
    REFUSED("top_n_sigma", PARAMS_ALL, -INFINITY, 0, "Samplers that are not here may only be switched off."),
    REFUSED("adaptive_target", PARAMS_ALL, -INFINITY, -1e-6,
            "Samplers that are not here may only be switched off."),
    REFUSED("prompt_logprobs", PARAMS_ALL, 1, 0, "Not supported."),
    REFUSED("truncate_prompt_tokens", PARAMS_ALL, 1, 0, "Not supported."),
    REFUSED("return_progress", PARAMS_GENERATE, 0, 0, "Not here: answers are whole."),
    REFUSED("return_token_ids", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("return_tokens_as_token_ids", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("return_hidden_states", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("return_routed_experts", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("return_logprob", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("logprob_start_len", PARAMS_ALL, -1, -1, "Answers do not tell this."),
    REFUSED("top_logprobs_num", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("token_ids_logprob", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("decoder_input_details", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("details", PARAMS_ALL, 0, 0, "Answers do not tell this."),
    REFUSED("logprobs", PARAMS_NATIVE | PARAMS_GENERATE, 0, 0, "Not here."),
    REFUSED("top_logprobs", PARAMS_COMPLETION | PARAMS_NATIVE | PARAMS_GENERATE, 0, 0, "Not here."),
    REFUSED("n_probs", PARAMS_OPENAI | PARAMS_GENERATE, 0, 0, "Not here: see logprobs."),
    REFUSED("echo", PARAMS_CHAT | PARAMS_GENERATE | PARAMS_NATIVE, 0, 0, "Not supported."),
    REFUSED("post_sampling_probs", PARAMS_OPENAI | PARAMS_GENERATE, 0, 0, "Not here."),
    REFUSED("return_tokens", PARAMS_OPENAI | PARAMS_GENERATE, 0, 0, "Not here."),
    REFUSED("response_fields", PARAMS_OPENAI | PARAMS_GENERATE, 0, 0, "Not here."),
    REFUSED("stream", PARAMS_GENERATE, 0, 0, "Not here: answers are whole."),
    REFUSED("raw", PARAMS_STREAMS, 0, 0, "Not here."),
    REFUSED("add_special_tokens", PARAMS_CHAT | PARAMS_GENERATE, 0, 0, "The template has what is needed."),
    ONLY_TRUE("add_special_tokens", PARAMS_COMPLETION | PARAMS_NATIVE, "Only true, which is what happens."),
    ONLY_TRUE("skip_special_tokens", PARAMS_ALL, "Only true, which is what happens."),
    ONLY_TRUE("add_generation_prompt", PARAMS_CHAT | PARAMS_GENERATE, "Only true, which is what happens."),
    ONLY_TRUE("do_sample", PARAMS_ALL, "Only true, which is what happens."),
    ONLY_TRUE("include_reasoning", PARAMS_CHAT | PARAMS_GENERATE, "Only true, which is what happens."),
    ONLY_TRUE("stream_reasoning", PARAMS_CHAT | PARAMS_GENERATE, "Only true, which is what happens."),
    HARMLESS("user", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("metadata", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("store", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("safety_identifier", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("request_id", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("rid", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("verbose", PARAMS_ALL, "Without effect. It says who asks, or what is logged."),
    HARMLESS("service_tier", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("priority", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("prediction", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("prompt_cache_key", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("prompt_cache_retention", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("cache_salt", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("id_slot", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("keep_alive", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("parallel_tool_calls", PARAMS_ALL & ~PARAMS_CHAT,
             "Without effect. It changes how fast, not what."),
    HARMLESS("continuous_usage_stats", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("data_parallel_rank", PARAMS_ALL, "Without effect. It changes how fast, not what."),
    HARMLESS("samplers", PARAMS_ALL, "Without effect: those that are here have one order."),
    HARMLESS("mirostat_tau", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("mirostat_eta", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("dynatemp_exponent", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("xtc_threshold", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("dry_base", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("dry_allowed_length", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("dry_penalty_last_n", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("dry_sequence_breakers", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("n_keep", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("n_discard", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("spaces_between_special_tokens", PARAMS_ALL,
             "Without effect. It belongs to a sampler or feature that is switched off."),
    HARMLESS("reasoning_control", PARAMS_ALL & ~PARAMS_CHAT,
             "Without effect: no thought of such an answer can be ended."),
    HARMLESS("continue_final_message", PARAMS_ALL,
             "Without effect: a last message of the assistant is always gone on with; false beside one is "
             "refused."),
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
