/* openapi_schemas.c: the schemas of answers, and of the few bodies whose fields stand in no table; with ' for every ". */
#include "server/openapi.h"

#define STRING  "{'type':'string'}"
#define WHOLE   "{'type':'integer','minimum':0}"
#define NUMBER  "{'type':'number','minimum':0}"
#define BOOLEAN "{'type':'boolean'}"

#define LIST(items) "{'type':'array','items':" items "}"
#define OBJECT(required, properties)                                                                         \
    "{'type':'object','required':[" required "],'properties':{" properties "}}"
#define REF(name) "{'$ref':'#/components/schemas/" name "'}"

/* clang-format off */
const char openapi_schemas[] =
    "'Error':" OBJECT("'error'", "'error':" OBJECT("'message','type','param','code'",
        "'message':" STRING ",'type':" STRING ",'param':{'type':['string','null']},'code':{'type':'integer'},"
        "'n_prompt_tokens':" WHOLE ",'n_ctx':" WHOLE)) ","

    "'Message':" OBJECT("'role'",
        "'role':{'type':'string','enum':['system','developer','user','assistant','tool']},"
        "'content':{'anyOf':[" STRING "," LIST(OBJECT("'type','text'",
            "'type':{'type':'string','const':'text'},'text':" STRING)) ",{'type':'null'}]},"
        "'tool_calls':{'type':['array','null'],'items':" REF("ToolCall") "},"
        "'tool_call_id':{'type':['string','null']}") ","
    "'Tool':" OBJECT("'type','function'", "'type':{'type':'string','const':'function'},"
        "'function':" OBJECT("'name'", "'name':" STRING ",'description':{'type':['string','null']},"
            "'parameters':{'type':['object','null']},'strict':{'type':['boolean','null']}")) ","
    "'ToolCall':" OBJECT("'type','function'", "'id':{'type':['string','null']},"
        "'type':{'type':'string','const':'function'},"
        "'function':" OBJECT("'name','arguments'", "'name':" STRING ",'arguments':" STRING)) ","

    "'GenerateBatchRequest':{'anyOf':[{'type':'array','minItems':1,'maxItems':1024,'items':" REF("GenerateRequest") "},"
        OBJECT("'requests'", "'requests':{'type':'array','minItems':1,'maxItems':1024,'items':" REF("GenerateRequest") "}")
        "]},"
    "'TokenizeRequest':" OBJECT("'content'", "'content':" STRING ",'add_special':" BOOLEAN ",'parse_special':" BOOLEAN
        ",'with_pieces':" BOOLEAN) ","
    "'DetokenizeRequest':" OBJECT("'tokens'", "'tokens':" LIST(WHOLE)) ","

    "'ControlRequest':" OBJECT("'id','action'", "'id':" STRING ",'action':{'type':'string','const':'reasoning_end'}") ","

    "'Usage':" OBJECT("'prompt_tokens','completion_tokens','total_tokens'",
        "'prompt_tokens':" WHOLE ",'completion_tokens':" WHOLE ",'total_tokens':" WHOLE ","
        "'prompt_tokens_details':" OBJECT("'cached_tokens'", "'cached_tokens':" WHOLE) ","
        "'completion_tokens_details':" OBJECT("'reasoning_tokens'", "'reasoning_tokens':" WHOLE)) ","
    "'Timings':" OBJECT("'cache_n','prompt_n','prompt_ms','predicted_n','predicted_ms','queue_ms','stall_ms'",
        "'cache_n':" WHOLE ",'prompt_n':" WHOLE ",'prompt_ms':" NUMBER ",'prompt_per_token_ms':" NUMBER ","
        "'prompt_per_second':" NUMBER ",'predicted_n':" WHOLE ",'predicted_ms':" NUMBER ","
        "'predicted_per_token_ms':" NUMBER ",'predicted_per_second':" NUMBER ",'queue_ms':" NUMBER ","
        "'stall_ms':" NUMBER ",'draft_n':" WHOLE ",'draft_accepted_n':" WHOLE ",'thinking_n':" WHOLE ","
        "'thinking_ms':" NUMBER ",'thinking_end':{'enum':['model','budget','soft_budget','reserve','loop',"
        "'end_token','asked',null]}") ","

    "'Degraded':" OBJECT("'reason','max_tokens','temperature'",
        "'reason':" STRING ",'max_tokens':" WHOLE ",'temperature':" NUMBER) ","

    "'ChatCompletion':" OBJECT("'id','object','created','model','choices','usage','timings'",
        "'id':" STRING ",'object':{'type':'string','const':'chat.completion'},'created':" WHOLE ",'model':" STRING ","
        "'system_fingerprint':" STRING ",'choices':" LIST(OBJECT("'index','message','finish_reason'",
            "'index':" WHOLE ",'message':" OBJECT("'role','content'",
                "'role':{'type':'string','const':'assistant'},'content':{'type':['string','null']},'reasoning_content':" STRING ","
                "'tool_calls':" LIST(REF("ToolCall")) ","
                "'reasoning':" STRING) ",'logprobs':{'type':['object','null']},"
            "'finish_reason':{'type':'string','enum':['stop','length','tool_calls']}")) ","
        "'usage':" REF("Usage") ",'timings':" REF("Timings") ",'degraded':" REF("Degraded")) ","
    "'TextCompletion':" OBJECT("'id','object','created','model','choices','usage','timings'",
        "'id':" STRING ",'object':{'type':'string','const':'text_completion'},'created':" WHOLE ",'model':" STRING ","
        "'system_fingerprint':" STRING ",'choices':" LIST(OBJECT("'index','text','finish_reason'",
            "'index':" WHOLE ",'text':" STRING ",'logprobs':{'type':['object','null']},"
            "'finish_reason':{'type':'string','enum':['stop','length']}")) ","
        "'usage':" REF("Usage") ",'timings':" REF("Timings") ",'degraded':" REF("Degraded")) ","
    "'Controlled':" OBJECT("'success','message'", "'success':" BOOLEAN ",'message':" STRING) ","
    "'InputTokens':" OBJECT("'input_tokens'", "'input_tokens':" WHOLE) ","
    "'Rendered':" OBJECT("'request_id','token_ids','sampling_params','model'",
        "'request_id':" STRING ",'token_ids':" LIST(WHOLE) ",'features':{'type':'null'},"
        "'sampling_params':{'type':'object'},'model':" STRING ",'stream':" BOOLEAN ",'priority':" WHOLE) ","
    "'RenderedPrompts':" LIST(REF("Rendered")) ","
    "'Model':" OBJECT("'id','object','created','owned_by','meta'", "'id':" STRING ","
        "'object':{'type':'string','const':'model'},'created':" WHOLE ",'owned_by':" STRING ",'meta':" OBJECT(
        "'n_vocab','n_ctx','n_ctx_train','n_embd','n_params','size'", "'n_vocab':" WHOLE ",'n_ctx':" WHOLE ","
        "'n_ctx_train':" WHOLE ",'n_embd':" WHOLE ",'n_params':" WHOLE ",'size':" WHOLE)) ","
    "'Models':" OBJECT("'object','data'", "'object':{'type':'string','const':'list'},"
        "'data':" LIST(REF("Model"))) ","

    "'NativeCompletion':{'description':'With response_fields: those fields alone.',"
        "'type':'object','properties':{"
        "'index':" WHOLE ",'content':" STRING ",'tokens':" LIST(WHOLE) ",'id_slot':{'type':'integer'},"
        "'stop':{'type':'boolean','const':true},'model':" STRING ",'tokens_predicted':" WHOLE ","
        "'tokens_evaluated':" WHOLE ",'tokens_cached':" WHOLE ",'truncated':{'type':'boolean','const':false},"
        "'stop_type':{'type':'string','enum':['eos','limit','word']},'stopping_word':" STRING ","
        "'has_new_line':" BOOLEAN ",'prompt':" STRING ",'generation_settings':{'type':'object'},"
        "'completion_probabilities':" LIST("{'type':'object'}") ",'timings':" REF("Timings") ",'degraded':" REF("Degraded")
        "}},"
    "'NativeCompletions':{'anyOf':[" REF("NativeCompletion") "," LIST(REF("NativeCompletion")) "]},"

    "'Generated':" OBJECT("'response','reasoning','latency_ms'",
        "'response':" STRING ",'reasoning':" STRING ",'latency_ms':" NUMBER ",'degraded':" REF("Degraded")) ","
    "'GeneratedBatch':" OBJECT("'results'", "'results':" LIST(OBJECT("'response','reasoning','request_id'",
        "'response':" STRING ",'reasoning':" STRING ",'request_id':{'type':['string','integer','null']}")) ","
        "'degraded':" REF("Degraded")) ","

    "'Tokenized':" OBJECT("'tokens'", "'tokens':" LIST("{'anyOf':[" WHOLE "," OBJECT("'id','piece'",
        "'id':" WHOLE ",'piece':{'anyOf':[" STRING "," LIST(WHOLE) "]}") "]}")) ","
    "'Detokenized':" OBJECT("'content'", "'content':" STRING) ","
    "'AppliedTemplate':" OBJECT("'prompt'", "'prompt':" STRING) ","
    "'Props':" OBJECT("'default_generation_settings','total_slots','model_path','chat_template','build_info'",
        "'default_generation_settings':{'type':'object'},'total_slots':" WHOLE ",'model_alias':" STRING ","
        "'model_path':" STRING ",'chat_template':" STRING ",'bos_token':" STRING ",'eos_token':" STRING ","
        "'modalities':{'type':'object'},'build_info':" STRING ",'is_sleeping':" BOOLEAN ",'sandbox':" STRING) ","
    "'Slots':" LIST(OBJECT("'id','n_ctx','is_processing'", "'id':" WHOLE ",'n_ctx':" WHOLE ",'speculative':" BOOLEAN ","
        "'is_processing':" BOOLEAN ",'n_prompt_tokens':" WHOLE ",'n_prompt_tokens_cache':" WHOLE ",'n_computed':" WHOLE ","
        "'next_token':{'type':'object'}")) ","
    "'Health':" OBJECT("'status'", "'status':{'type':'string','enum':['loading model','ok','degraded','wedged','draining']},"
        "'reason':" STRING ",'message':" STRING ",'refusing':" BOOLEAN ",'memory_percent':" NUMBER) ","
    "'Description':{'type':'object'}";
/* clang-format on */
