/* tiny_model.c: see tiny_model.h. Owns nothing after tiny_model_write has returned; any thread. */
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
static const char template_chatml[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '"
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'"
    "] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assis"
    "tant\n' }}{% endif %}";

static const char template_r1[] =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% e"
    "ndif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system"
    "_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set "
    "ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.syste"
    "m_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is"
    "_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] ="
    "= 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for too"
    "l in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜"
    "><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n'"
    " + '```json' + '\\n' + tool['function']['arguments'] + '\\n' + '```' + '<｜tool▁call▁end｜"
    ">'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + '<｜tool▁call▁begin｜>' + tool['typ"
    "e'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['func"
    "tion']['arguments'] + '\\n' + '```' + '<｜tool▁call▁end｜>'}}{{'<｜tool▁calls▁end｜><｜end▁of"
    "▁sentence｜>'}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant'"
    " and message['content'] is not none %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + mes"
    "sage['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{% set"
    " content = message['content'] %}{% if '</think>' in content %}{% set content = content.s"
    "plit('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{"
    "%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{"
    "%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + message['co"
    "ntent'] + '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<"
    "｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- endif %}{%- endi"
    "f %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_gene"
    "ration_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}";
/* clang-format on */

const char *tiny_model_template(const char *chat)
{
    return strcmp(chat, "r1") ? template_chatml : template_r1;
}

/* Random numbers and blocks ------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* About normal with deviation 1: the sum of 12 uniform numbers. */
static float next_normal(uint64_t *state)
{
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)(next_random(state) >> 40) * 0x1p-24f;
    return sum;
}

static void store_f16(uint8_t *to, float value)
{
    uint16_t half = f32_to_f16(value);
    memcpy(to, &half, sizeof half);
}

/* Random bytes are valid quants and sub-block scales of every type; what remains to choose are the block's
 * f16 scales. `spread` is the deviation of a decoded value when scale is 1 and a minimum, if there is one, is
 * `minimum`, which brings the mean to about 0. */
static const struct {
    enum tensor_type type;
    uint32_t scale_at, minimum_at; /* in the block; 0xff: none */
    float spread, minimum;
} block_scales[] = {
    {TENSOR_Q4_0, 0, 0xff, 4.6f, 0},   {TENSOR_Q4_1, 0, 2, 4.6f, -7.5f}, {TENSOR_Q5_0, 0, 0xff, 9.2f, 0},
    {TENSOR_Q5_1, 0, 2, 9.2f, -15.5f}, {TENSOR_Q8_0, 0, 0xff, 74, 0},    {TENSOR_Q2_K, 80, 82, 14, 1.5f},
    {TENSOR_Q3_K, 108, 0xff, 43, 0},   {TENSOR_Q4_K, 0, 2, 255, 7.5f},   {TENSOR_Q5_K, 0, 2, 521, 15.5f},
    {TENSOR_Q6_K, 208, 0xff, 1367, 0}, {TENSOR_IQ4_NL, 0, 0xff, 67, 0},  {TENSOR_IQ4_XS, 0, 0xff, 1245, 0},
};

/* The exponent of an MXFP4 block: one of the two powers of two about the scale that is wanted, so often each that the deviation
 * is right. */
static uint8_t random_exponent(uint64_t *state, float deviation)
{
    int exponent;
    float part =
        frexpf(deviation / 5.85f, &exponent); /* half the scale; 5.85: the deviation of doubled values */
    bool upper = (float)(next_random(state) >> 40) * 0x1p-24f < (4 * part * part - 1) / 3;
    return (uint8_t)(exponent + (upper ? 128 : 127));
}

static void random_block(const struct quant_info *info, uint64_t *state, float deviation, uint8_t *block)
{
    float value = next_normal(state) * deviation;
    if (info->type == TENSOR_F32)
        memcpy(block, &value, sizeof value);
    else if (info->type == TENSOR_F16)
        store_f16(block, value);
    else if (info->type == TENSOR_BF16)
        memcpy(block, (const char *)&value + 2, 2); /* cut, not rounded: exact enough for random numbers */
    if (info->block_values == 1)
        return;
    for (uint32_t i = 0; i < info->block_bytes; i++)
        block[i] = (uint8_t)(next_random(state) >> 56);
    if (info->type == TENSOR_MXFP4)
        block[0] = random_exponent(state, deviation);
    for (size_t i = 0; i < sizeof block_scales / sizeof *block_scales; i++)
        if (block_scales[i].type == info->type) {
            /* 0.5 .. 1.5 of the mean scale, so that blocks differ */
            float vary = 0.5f + (float)(next_random(state) >> 40) * 0x1p-24f;
            float scale = deviation / block_scales[i].spread * vary;
            store_f16(block + block_scales[i].scale_at, scale);
            if (block_scales[i].minimum_at != 0xff)
                store_f16(block + block_scales[i].minimum_at, scale * block_scales[i].minimum);
        }
}

void tiny_model_random_blocks(enum tensor_type type, uint64_t seed, float deviation, size_t n, void *blocks)
{
    const struct quant_info *info = quant_find((uint32_t)type);
    uint64_t state = seed;
    uint8_t *block = blocks;
    for (size_t i = 0; i < n; i += info->block_values, block += info->block_bytes)
        random_block(info, &state, deviation, block);
}

/* The tokenizer ------------------------------------------------------------------------------------------- */

/* A merge makes the token that is its two parts joined. In GPT-2's letters a space is "Ġ". */
static const char *const merges[TINY_MODEL_MERGES] = {
    "t h",   "th e",   "i n",   "in g", "e r", "a n", "an d", "Ġ the", "Ġ a", "o n",    "h e",     "l l",
    "he ll", "hell o", "Ġ and", "1 0",  "0 0", "Ġ Ġ", "o r",  "w or",  "l d", "wor ld", "Ġ hello", "Ġ world",
};

static const struct {
    const char *text;
    int32_t kind; /* 3: control, 4: user-defined */
} specials[] = {
    {"<|endoftext|>", 3},
    {"<|im_start|>", 3},
    {"<|im_end|>", 3},
    {"<｜begin▁of▁sentence｜>", 3},
    {"<｜end▁of▁sentence｜>", 3},
    {"<｜User｜>", 3},
    {"<｜Assistant｜>", 3},
    {"<think>", 4},
    {"</think>", 4},
};

/* GPT-2's letter of a byte, in UTF-8: the printable ones stand for themselves, the others for U+0100 and up.
 */
static size_t byte_letter(unsigned byte, char *letter)
{
    unsigned point = byte;
    bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    if (!printable) /* the how manyth of those that are not: 0 .. 32, 127 .. 160, 173 */
        point = 256 + (byte <= 32 ? byte : byte <= 160 ? byte - 127 + 33 : 67);
    if (point < 0x80) {
        letter[0] = (char)point;
        return 1;
    }
    letter[0] = (char)(0xc0 | point >> 6);
    letter[1] = (char)(0x80 | (point & 63));
    return 2;
}

enum { TEXT_CAP = 64 };

/* The token that a merge makes. SentencePiece writes a space as U+2581. */
static void write_merged(const char *merge, bool is_sentencepiece, char *text)
{
    const char *space = strchr(merge, ' ');
    char joined[TEXT_CAP];
    snprintf(joined, sizeof joined, "%.*s%s", (int)(space - merge), merge, space + 1);
    *text = 0;
    for (const char *c = joined; *c; c++) {
        bool is_space = is_sentencepiece && strncmp(c, "Ġ", 2) == 0;
        snprintf(text + strlen(text), TEXT_CAP - strlen(text), "%.*s", is_space ? 3 : 1, is_space ? "▁" : c);
        c += is_space;
    }
}

static uint32_t count_words(const char *const *words)
{
    uint32_t n = 0;
    while (words && words[n])
        n++;
    return n;
}

static int32_t write_token(uint32_t id, bool is_sentencepiece, const char *const *words, char *text)
{
    if (id < 256 && is_sentencepiece) {
        snprintf(text, TEXT_CAP, "<0x%02X>", id);
        return 6;
    }
    if (id < 256)
        byte_letter(id, text);
    else if (id < TINY_TOKEN_ENDOFTEXT)
        write_merged(merges[id - TINY_TOKEN_MERGES], is_sentencepiece, text);
    else if (id < TINY_MODEL_TOKENS) {
        snprintf(text, TEXT_CAP, "%s", specials[id - TINY_TOKEN_ENDOFTEXT].text);
        return specials[id - TINY_TOKEN_ENDOFTEXT].kind;
    } else if (id - TINY_MODEL_TOKENS < count_words(words)) {
        snprintf(text, TEXT_CAP, "%s", words[id - TINY_MODEL_TOKENS]);
        return strncmp(text, "<|", 2) ? 4 : 3;
    } else {
        snprintf(text, TEXT_CAP, "[PAD%u]", id);
        return 5;
    }
    return 1;
}

static void add_merges(struct gguf_writer *writer)
{
    struct gguf_string list[TINY_MODEL_MERGES];
    for (size_t i = 0; i < TINY_MODEL_MERGES; i++)
        list[i] = (struct gguf_string){merges[i], strlen(merges[i])};
    gguf_writer_add_array(writer, "tokenizer.ggml.merges", GGUF_STRING, TINY_MODEL_MERGES, list);
}

static void add_tokenizer(struct gguf_writer *writer, const char *pre, const char *chat, uint32_t n_vocab,
                          const char *const *words)
{
    if (n_vocab < TINY_MODEL_TOKENS)
        n_vocab = TINY_MODEL_TOKENS;
    char(*texts)[TEXT_CAP] = calloc(n_vocab, sizeof *texts);
    struct gguf_string *tokens = calloc(n_vocab, sizeof *tokens);
    int32_t *kinds = calloc(n_vocab, sizeof *kinds);
    float *scores = calloc(n_vocab, sizeof *scores);
    bool is_sentencepiece = strcmp(pre, "sentencepiece") == 0;
    if (!texts || !tokens || !kinds || !scores)
        goto done;
    for (uint32_t id = 0; id < n_vocab; id++) {
        kinds[id] = write_token(id, is_sentencepiece, words, texts[id]);
        tokens[id] = (struct gguf_string){texts[id], strlen(texts[id])};
        scores[id] = -(float)id; /* in the order of the merges */
    }
    bool r1 = chat && !strcmp(chat, "r1");
    gguf_writer_add_string(writer, "tokenizer.ggml.model", is_sentencepiece ? "llama" : "gpt2");
    gguf_writer_add_string(writer, "tokenizer.ggml.pre", is_sentencepiece ? "default" : pre);
    gguf_writer_add_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, n_vocab, tokens);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, n_vocab, kinds);
    if (is_sentencepiece)
        gguf_writer_add_array(writer, "tokenizer.ggml.scores", GGUF_F32, n_vocab, scores);
    else
        add_merges(writer);
    gguf_writer_add_u32(writer, "tokenizer.ggml.bos_token_id",
                        r1 ? TINY_TOKEN_R1_BEGIN : TINY_TOKEN_ENDOFTEXT);
    gguf_writer_add_u32(writer, "tokenizer.ggml.eos_token_id", r1 ? TINY_TOKEN_R1_END : TINY_TOKEN_IM_END);
    gguf_writer_add_bool(writer, "tokenizer.ggml.add_bos_token", r1);
    if (chat)
        gguf_writer_add_string(writer, "tokenizer.chat_template", tiny_model_template(chat));
done:
    free(texts);
    free(tokens);
    free(kinds);
    free(scores);
}

void tiny_model_add_tokenizer(struct gguf_writer *writer, const char *pre, const char *chat, uint32_t n_vocab)
{
    add_tokenizer(writer, pre, chat, n_vocab, NULL);
}

/* The model ----------------------------------------------------------------------------------------------- */

void tiny_model_set_types(struct tiny_model_options *options, enum tensor_type type)
{
    options->q = options->k = options->v = options->o = type;
    options->gate = options->up = options->down = type;
    options->embed = options->output = type;
}

void tiny_model_defaults(struct tiny_model_options *options)
{
    *options = (struct tiny_model_options){
        .architecture = "qwen2",
        .n_layers = 2,
        .n_hidden = 256,
        .n_heads = 4,
        .n_kv_heads = 2,
        .n_ffn = 512,
        .n_context = 1024,
        .rope_base = 10000,
        .epsilon = 1e-6f,
        .biases = true,
        .pre = "qwen2",
        .chat = "chatml",
        .seed = 1,
    };
    tiny_model_set_types(options, TENSOR_Q4_K);
    options->v = options->down = options->output = TENSOR_Q6_K;
}

struct tiny_model {
    const struct tiny_model_options *options;
    struct gguf_writer *writer;
    unsigned char **data; /* of all tensors, until the file is written */
    size_t n_data, data_cap;
    bool failed; /* no memory */
};

static int copy_data(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)error;
    memcpy(buffer, (const unsigned char *)arg + offset, n);
    return RUNNEL_OK;
}

/* A seed of the tensor's own, so that one tensor's bytes do not depend on which others there are. */
static uint64_t seed_of(const struct tiny_model *model, const char *name)
{
    uint64_t seed = model->options->seed * 0x100000001b3u + 0xcbf29ce484222325u;
    for (; *name; name++)
        seed = (seed ^ (unsigned char)*name) * 0x100000001b3u;
    return seed;
}

/* A matrix [rows, columns], or with rows 0 a vector, with values around `mean`. */
static void add_tensor(struct tiny_model *model, const char *name, enum tensor_type type, uint64_t columns,
                       uint64_t rows, float deviation, float mean)
{
    const struct quant_info *info = quant_find((uint32_t)type);
    uint64_t dims[2] = {columns, rows}, n = columns * (rows ? rows : 1);
    if (columns % info->block_values == 0 && model->n_data < model->data_cap) {
        unsigned char *data = malloc(n / info->block_values * info->block_bytes);
        if (!data) {
            model->failed = true;
            return;
        }
        model->data[model->n_data++] = data;
        tiny_model_random_blocks(type, seed_of(model, name), deviation, n, data);
        for (uint64_t i = 0; type == TENSOR_F32 && mean != 0 && i < n; i++) {
            float value;
            memcpy(&value, data + 4 * i, sizeof value);
            value += mean;
            memcpy(data + 4 * i, &value, sizeof value);
        }
        gguf_writer_add_tensor(model->writer, name, type, rows ? 2 : 1, dims, copy_data, data);
    } else /* the writer refuses it with a message */
        gguf_writer_add_tensor(model->writer, name, type, rows ? 2 : 1, dims, copy_data, NULL);
}

static void add_layer_tensor(struct tiny_model *model, uint32_t layer, const char *part,
                             enum tensor_type type, uint64_t columns, uint64_t rows, float deviation,
                             float mean)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s", layer, part);
    add_tensor(model, name, type, columns, rows, deviation, mean);
}

/* What a layer has beyond matrices, two norms and biases. */
static void add_further_norms(struct tiny_model *model, uint32_t layer, uint32_t head_dim)
{
    const struct tiny_model_options *o = model->options;
    bool is_gemma3 = !strcmp(o->architecture, "gemma3");
    if (is_gemma3 || !strcmp(o->architecture, "qwen3")) {
        add_layer_tensor(model, layer, "attn_q_norm.weight", TENSOR_F32, head_dim, 0, 0.1f, 1);
        add_layer_tensor(model, layer, "attn_k_norm.weight", TENSOR_F32, head_dim, 0, 0.1f, 1);
    }
    if (is_gemma3) {
        add_layer_tensor(model, layer, "post_attention_norm.weight", TENSOR_F32, o->n_hidden, 0, 0.1f, 1);
        add_layer_tensor(model, layer, "post_ffw_norm.weight", TENSOR_F32, o->n_hidden, 0, 0.1f, 1);
    }
}

static void add_layer(struct tiny_model *model, uint32_t layer, uint32_t head_dim)
{
    const struct tiny_model_options *o = model->options;
    uint64_t hidden = o->n_hidden, query = (uint64_t)o->n_heads * head_dim,
             kv = (uint64_t)o->n_kv_heads * head_dim;
    float of_hidden = 1 / sqrtf((float)hidden), of_query = 1 / sqrtf((float)query),
          of_ffn = 1 / sqrtf((float)o->n_ffn);
    add_layer_tensor(model, layer, "attn_norm.weight", TENSOR_F32, hidden, 0, 0.1f, 1);
    add_layer_tensor(model, layer, "attn_q.weight", o->q, hidden, query, of_hidden, 0);
    add_layer_tensor(model, layer, "attn_k.weight", o->k, hidden, kv, of_hidden, 0);
    add_layer_tensor(model, layer, "attn_v.weight", o->v, hidden, kv, of_hidden, 0);
    if (o->biases) {
        float k_bias = o->k_bias > 0 ? o->k_bias / 3 : 0.1f;
        add_layer_tensor(model, layer, "attn_q.bias", TENSOR_F32, query, 0, 0.1f, 0);
        add_layer_tensor(model, layer, "attn_k.bias", TENSOR_F32, kv, 0, k_bias, 0);
        add_layer_tensor(model, layer, "attn_v.bias", TENSOR_F32, kv, 0, 0.1f, 0);
    }
    add_further_norms(model, layer, head_dim);
    add_layer_tensor(model, layer, "attn_output.weight", o->o, query, hidden, of_query, 0);
    add_layer_tensor(model, layer, "ffn_norm.weight", TENSOR_F32, hidden, 0, 0.1f, 1);
    add_layer_tensor(model, layer, "ffn_gate.weight", o->gate, hidden, o->n_ffn, of_hidden, 0);
    add_layer_tensor(model, layer, "ffn_up.weight", o->up, hidden, o->n_ffn, of_hidden, 0);
    add_layer_tensor(model, layer, "ffn_down.weight", o->down, o->n_ffn, hidden, of_ffn, 0);
}

static void add_keys(struct tiny_model *model, uint32_t n_vocab)
{
    const struct tiny_model_options *o = model->options;
    struct gguf_writer *writer = model->writer;
    char key[96];
    const struct {
        const char *name;
        uint32_t value;
    } counts[] = {
        {"block_count", o->n_layers},         {"context_length", o->n_context},
        {"embedding_length", o->n_hidden},    {"feed_forward_length", o->n_ffn},
        {"attention.head_count", o->n_heads}, {"attention.head_count_kv", o->n_kv_heads},
    };
    gguf_writer_add_string(writer, "general.architecture", o->architecture);
    gguf_writer_add_string(writer, "general.name", "Tiny random model");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", o->architecture, counts[i].name);
        gguf_writer_add_u32(writer, key, counts[i].value);
    }
    snprintf(key, sizeof key, "%s.rope.freq_base", o->architecture);
    gguf_writer_add_f32(writer, key, o->rope_base);
    if (o->window_rope_base > 0) {
        snprintf(key, sizeof key, "%s.rope.freq_base_swa", o->architecture);
        gguf_writer_add_f32(writer, key, o->window_rope_base);
    }
    if (o->window) {
        snprintf(key, sizeof key, "%s.attention.sliding_window", o->architecture);
        gguf_writer_add_u32(writer, key, o->window);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", o->architecture);
    gguf_writer_add_f32(writer, key, o->epsilon);
    if (o->rope_dimension_count) {
        snprintf(key, sizeof key, "%s.rope.dimension_count", o->architecture);
        gguf_writer_add_u32(writer, key, o->rope_dimension_count);
    }
    if (o->head_dim && o->head_dim * o->n_heads != o->n_hidden) {
        snprintf(key, sizeof key, "%s.attention.key_length", o->architecture);
        gguf_writer_add_u32(writer, key, o->head_dim);
        snprintf(key, sizeof key, "%s.attention.value_length", o->architecture);
        gguf_writer_add_u32(writer, key, o->head_dim);
    }
    add_tokenizer(writer, o->pre, o->chat, n_vocab, o->words);
    if (o->add_keys)
        o->add_keys(writer, o->user);
}

int tiny_model_write(const struct tiny_model_options *options, const char *path, runnel_error *error)
{
    struct tiny_model model = {.options = options, .data_cap = 4 + (size_t)options->n_layers * 16};
    uint32_t n_least = TINY_MODEL_TOKENS + count_words(options->words);
    uint32_t n_vocab = options->n_vocab < n_least ? n_least : options->n_vocab;
    uint32_t head_dim = options->head_dim ? options->head_dim : options->n_hidden / options->n_heads;
    int code;
    model.writer = gguf_writer_create();
    model.data = calloc(model.data_cap, sizeof *model.data);
    if (!model.writer || !model.data) {
        code = error_set(error, RUNNEL_ENOMEM, "no memory for a tiny model");
        goto done;
    }
    add_keys(&model, n_vocab);
    add_tensor(&model, "token_embd.weight", options->embed, options->n_hidden, n_vocab, 0.2f, 0);
    if (options->rope_factors)
        add_tensor(&model, "rope_freqs.weight", TENSOR_F32,
                   (options->rope_dimension_count ? options->rope_dimension_count : head_dim) / 2, 0, 0.3f,
                   3);
    for (uint32_t layer = 0; layer < options->n_layers; layer++)
        add_layer(&model, layer, head_dim);
    add_tensor(&model, "output_norm.weight", TENSOR_F32, options->n_hidden, 0, 0.1f, 1);
    if (!options->tied)
        add_tensor(&model, "output.weight", options->output, options->n_hidden, n_vocab,
                   2 / sqrtf((float)options->n_hidden), 0);
    code = model.failed ? error_set(error, RUNNEL_ENOMEM, "no memory for a tiny model")
                        : gguf_writer_save(model.writer, path, error);
done:
    gguf_writer_free(model.writer);
    for (size_t i = 0; i < model.n_data; i++)
        free(model.data[i]);
    free(model.data);
    return code;
}
