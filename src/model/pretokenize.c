/* pretokenize.c: the regular expressions of the known tokenizers, compiled by PCRE2. See pretokenize.h.
 *
 * The expressions are those of the models' own Hugging Face tokenizers, with changes that keep their meaning: \s is written
 * out as Unicode's White_Space (PCRE2's \s has U+180E besides), two steps of which the first cuts out every digit are one
 * expression, and what could scan the same spaces from each of them does not. A match takes time linear in what it passes:
 * cutting is linear in the text. */
#include "model/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGES_MAX = 7 /* one more than any family has: the last is NULL */ };

#define SPACE                                                                                                \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* clang-format off */
#define LIKE_QWEN2(LETTER, MARK, NUMBER)                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"                                                                           \
    "|[^\\r\\n\\p{L}\\p{N}]?" LETTER "+"                                                                     \
    "|" NUMBER                                                                                               \
    "| ?[^" SPACE "\\p{L}" MARK "\\p{N}]+[\\r\\n]*"                                                           \
    "|[" SPACE "]*[\\r\\n]+"                                                                                 \
    "|[" SPACE "]+(?![^" SPACE "])"                                                                          \
    "|[" SPACE "]+"
#define QWEN2  LIKE_QWEN2("\\p{L}", "", "\\p{N}")
#define QWEN35 LIKE_QWEN2("[\\p{L}\\p{M}]", "\\p{M}", "\\p{N}")
#define LLAMA3 LIKE_QWEN2("\\p{L}", "", "\\p{N}{1,3}")

#define LIKE_GPT2(NUMBER, END)                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d"                                                                                \
    "| ?\\p{L}+"                                                                                             \
    "|" NUMBER                                                                                               \
    "| ?[^" SPACE "\\p{L}\\p{N}]+"                                                                           \
    "|[" SPACE "]+(?![^" SPACE END "])"                                                                      \
    "|[" SPACE "]+"
#define GPT2 LIKE_GPT2(" ?\\p{N}+", "")
/* Digits are cut out first, each alone. One ends what came before it like the end of the text does: spaces before one are
 * not split. */
#define DIGITS_AND_GPT2 LIKE_GPT2("\\p{N}", "\\p{N}")

#define NEWLINE       "[\\r\\n]"
#define PUNCTUATION   "[\\p{P}$+<=>^~|`]+"
#define THREE_DIGITS  "[0-9]{3}"
#define SPACES_AT_END "(?<![" SPACE "])[" SPACE "]++\\z"
#define CHINESE       "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* Of alphabets with capitals, as a list that one model's tokenizer has. */
#define DEEPSEEK_LETTERS                                                                                     \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}" \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}" \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}" \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}" \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}" \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}" \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}" \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}" \
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}" \
    "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}" \
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}" \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}" \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}" \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}" \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}" \
    "\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_WORD        "[" SPACE "]?[" DEEPSEEK_LETTERS "]+"
#define DEEPSEEK_PUNCTUATION                                                                                 \
    "[" SPACE "]?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
/* clang-format on */

/* Each expression of a family cuts the pieces that the one before it left, the first the whole text: what it matches becomes
 * a piece, and so does what lies between two matches. Matches never reach over the ends of a piece. The last pieces are
 * the words. */
static const struct family {
    const char *name;
    const char *patterns[STAGES_MAX];
    bool leaves_nothing; /* the last pattern matches wherever it is tried: no text lies between its matches */
    bool keeps_words;    /* a word that is a token is not merged */
    bool adds_bos;       /* texts begin with the bos token unless the file says otherwise */
} families[] = {
    {"command-r", {DIGITS_AND_GPT2}, .leaves_nothing = true},
    {"deepseek-coder",
     {NEWLINE, "[" SPACE "]?\\p{L}+", "[" SPACE "]?\\p{P}+", CHINESE, "\\p{N}"},
     .leaves_nothing = false},
    {"deepseek-llm",
     {NEWLINE, DEEPSEEK_WORD, DEEPSEEK_PUNCTUATION, SPACES_AT_END, CHINESE, "\\p{N}+"},
     .leaves_nothing = false},
    {"deepseek-r1-qwen", {QWEN2}, .leaves_nothing = true},
    {"falcon", {PUNCTUATION, GPT2, THREE_DIGITS}, .leaves_nothing = false},
    {"gpt-2", {GPT2}, .leaves_nothing = true},
    {"llama-bpe", {LLAMA3}, .leaves_nothing = true, .keeps_words = true, .adds_bos = true},
    {"mpt", {GPT2}, .leaves_nothing = true},
    {"qwen2", {QWEN2}, .leaves_nothing = true},
    {"qwen35", {QWEN35}, .leaves_nothing = true},
    {"refact", {DIGITS_AND_GPT2}, .leaves_nothing = true},
    {"smollm", {DIGITS_AND_GPT2}, .leaves_nothing = true},
    {"starcoder", {DIGITS_AND_GPT2}, .leaves_nothing = true},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

struct expression {
    pcre2_code *code;
    bool compiled_to_machine_code; /* false where the system allows no such memory: slower, the same words */
    bool is_anchored;
};

struct pretokenizer {
    const struct family *family;
    struct expression expressions[STAGES_MAX];
    size_t n_stages;
};

struct stage {
    struct word piece; /* what this stage cuts now */
    size_t position;   /* of what is not cut yet */
    struct word match; /* to be given out next; empty: none */
};

struct cutter {
    const struct pretokenizer *pretokenizer;
    struct stage stages[STAGES_MAX];
    pcre2_match_data *match;
    const PCRE2_SIZE *range; /* in match: where the last match begins and ends */
    pcre2_match_context *context;
};

static const struct family *find_family(struct gguf_string name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strlen(families[i].name) == name.len && memcmp(families[i].name, name.bytes, name.len) == 0)
            return &families[i];
    return NULL;
}

static int unknown_name(struct gguf_string name, runnel_error *error)
{
    char known[512] = "";
    for (size_t i = 0, len = 0; i < N_FAMILIES && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", families[i].name);
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "tokenizer.ggml.pre is \"%.*s\": known pre-tokenizers are %s",
                     (int)(name.len < 64 ? name.len : 64), name.bytes, known);
}

static int compile(const struct family *family, size_t stage, struct expression *expression,
                   runnel_error *error)
{
    int number;
    PCRE2_SIZE offset;
    expression->is_anchored = family->leaves_nothing && !family->patterns[stage + 1];
    expression->code = pcre2_compile(
        (PCRE2_SPTR)family->patterns[stage], PCRE2_ZERO_TERMINATED,
        PCRE2_UTF | PCRE2_UCP | (expression->is_anchored ? PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE : 0),
        &number, &offset, NULL);
    if (!expression->code) /* the expressions are ours: only memory can be missing */
        return error_set(error, RUNNEL_ENOMEM, "pre-tokenizer %s: PCRE2 error %d", family->name, number);
    expression->compiled_to_machine_code = pcre2_jit_compile(expression->code, PCRE2_JIT_COMPLETE) == 0;
    return RUNNEL_OK;
}

int pretokenizer_create(struct gguf_string name, struct pretokenizer **out, runnel_error *error)
{
    const struct family *family = find_family(name);
    if (!family)
        return unknown_name(name, error);
    struct pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the pre-tokenizer");
    pretokenizer->family = family;
    for (size_t stage = 0; family->patterns[stage]; stage++) {
        int code = compile(family, stage, &pretokenizer->expressions[stage], error);
        if (code) {
            pretokenizer_free(pretokenizer);
            return code;
        }
        pretokenizer->n_stages++;
    }
    *out = pretokenizer;
    return RUNNEL_OK;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
    if (!pretokenizer)
        return;
    for (size_t stage = 0; stage < STAGES_MAX; stage++)
        pcre2_code_free(pretokenizer->expressions[stage].code);
    free(pretokenizer);
}

const char *pretokenizer_name(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->family->name;
}

bool pretokenizer_keeps_words(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->family->keeps_words;
}

bool pretokenizer_adds_bos(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->family->adds_bos;
}

int cutter_create(const struct pretokenizer *pretokenizer, struct cutter **out, runnel_error *error)
{
    struct cutter *cutter = calloc(1, sizeof *cutter);
    if (!cutter)
        goto fail;
    cutter->pretokenizer = pretokenizer;
    cutter->match = pcre2_match_data_create(1, NULL);
    cutter->context = pcre2_match_context_create(NULL);
    if (!cutter->match || !cutter->context)
        goto fail;
    cutter->range = pcre2_get_ovector_pointer(cutter->match);
    /* Backtracking is bounded by the expressions: at most once over a run of spaces, which is then one word.
     */
    pcre2_set_match_limit(cutter->context, UINT32_MAX);
    pcre2_set_heap_limit(cutter->context, UINT32_MAX);
    *out = cutter;
    return RUNNEL_OK;
fail:
    cutter_free(cutter);
    return error_set(error, RUNNEL_ENOMEM, "out of memory for cutting text into words");
}

void cutter_free(struct cutter *cutter)
{
    if (!cutter)
        return;
    pcre2_match_data_free(cutter->match);
    pcre2_match_context_free(cutter->context);
    free(cutter);
}

void cutter_begin(struct cutter *cutter, const char *text, size_t len)
{
    memset(cutter->stages, 0, sizeof cutter->stages);
    cutter->stages[0].piece = (struct word){text, len};
}

static int fail_match(const struct stage *stage, int result, runnel_error *error)
{
    return error_set(error, RUNNEL_ENOMEM, "cutting text into words stopped at byte %zu: PCRE2 error %d",
                     stage->position, result);
}

/* Finds the first match in what is left of a stage's piece; none: the empty word at its end. */
static inline int find_match(struct cutter *cutter, size_t number, struct word *match, runnel_error *error)
{
    const struct expression *expression = &cutter->pretokenizer->expressions[number];
    const struct stage *stage = &cutter->stages[number];
    PCRE2_SPTR text = (PCRE2_SPTR)stage->piece.text;
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (expression->compiled_to_machine_code)
        result = pcre2_jit_match(expression->code, text, stage->piece.len, stage->position, 0, cutter->match,
                                 cutter->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        result = pcre2_match(expression->code, text, stage->piece.len, stage->position,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, cutter->match, cutter->context);
    if (result == PCRE2_ERROR_NOMATCH && !expression->is_anchored) {
        *match = (struct word){stage->piece.text + stage->piece.len, 0};
        return RUNNEL_OK;
    }
    const PCRE2_SIZE *range = cutter->range;
    if (result < 0 || range[0] < stage->position || range[1] <= range[0] || range[1] > stage->piece.len)
        return fail_match(stage, result, error);
    *match = (struct word){stage->piece.text + range[0], range[1] - range[0]};
    return RUNNEL_OK;
}

/* The next piece that a stage leaves. 1: there is one; 0: there is none; negative: an error. */
static int next_piece(struct cutter *cutter, size_t number, struct word *piece, runnel_error *error)
{
    struct stage *stage = &cutter->stages[number];
    if (stage->match.len) {
        *piece = stage->match;
        stage->match.len = 0;
        return 1;
    }
    if (stage->position == stage->piece.len) {
        int more = number ? next_piece(cutter, number - 1, &stage->piece, error) : 0;
        if (more <= 0)
            return more;
        stage->position = 0;
    }
    const char *begin = stage->piece.text + stage->position;
    struct word match = {begin, 0};
    int code = find_match(cutter, number, &match, error);
    if (code)
        return code;
    stage->position = (size_t)(match.text + match.len - stage->piece.text);
    if (match.text > begin) {
        *piece = (struct word){begin, (size_t)(match.text - begin)};
        stage->match = match;
    } else
        *piece = match;
    return 1;
}

/* What next_piece does where one expression matches everywhere: most families' words. */
static int next_match(struct cutter *cutter, struct word *word, runnel_error *error)
{
    struct stage *stage = &cutter->stages[0];
    if (stage->position == stage->piece.len)
        return 0;
    word->len = 0;
    int code = find_match(cutter, 0, word, error);
    stage->position += word->len;
    return code ? code : 1;
}

int cutter_next(struct cutter *cutter, struct word *word, runnel_error *error)
{
    if (cutter->pretokenizer->expressions[0].is_anchored)
        return next_match(cutter, word, error);
    return next_piece(cutter, cutter->pretokenizer->n_stages - 1, word, error);
}
