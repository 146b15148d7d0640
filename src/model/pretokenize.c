/* pretokenize.c: the regular expressions of the known tokenizers, compiled by PCRE2. See pretokenize.h.
 *
 * The expressions are those of the models' own Hugging Face tokenizers, with two changes that keep their
 * meaning: \s is written out as Unicode's White_Space (PCRE2's \s has U+180E besides), and the two steps of
 * smollm (cut out every digit, then GPT-2's expression within what is left) are one expression. Every
 * character is matched by one of the alternatives, so a match always begins where the last one ended. */
#include "model/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGES_MAX = 7 /* one more than any family has: the last is NULL */ };

#define SPACE                                                                                                \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

#define QWEN2                                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"                                                                           \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"                                                                         \
    "|\\p{N}"                                                                                                \
    "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*"                                                                  \
    "|[" SPACE "]*[\\r\\n]+"                                                                                 \
    "|[" SPACE "]+(?![^" SPACE "])"                                                                          \
    "|[" SPACE "]+"

/* A digit ends what came before it like the end of the text does: spaces before one are not split. */
#define SMOLLM                                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d"                                                                                \
    "| ?\\p{L}+"                                                                                             \
    "|\\p{N}"                                                                                                \
    "| ?[^" SPACE "\\p{L}\\p{N}]+"                                                                           \
    "|[" SPACE "]+(?![^" SPACE "\\p{N}])"                                                                    \
    "|[" SPACE "]+"

/* Each expression of a family cuts the pieces that the one before it left, the first the whole text: what it matches becomes
 * a piece, and so does what lies between two matches. Matches never reach over the ends of a piece. The last pieces are
 * the words. */
static const struct family {
    const char *name;
    const char *patterns[STAGES_MAX];
    bool leaves_nothing; /* the last pattern matches wherever it is tried: no text lies between its matches */
} families[] = {
    {"deepseek-r1-qwen", {QWEN2}, true},
    {"qwen2", {QWEN2}, true},
    {"smollm", {SMOLLM}, true},
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
    for (size_t i = 0, len = 0; i < N_FAMILIES; i++)
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

/* Finds the first match in what is left of a stage's piece; none: the empty word at its end. */
static int find_match(struct cutter *cutter, size_t number, struct word *match, runnel_error *error)
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
    PCRE2_SIZE *range = pcre2_get_ovector_pointer(cutter->match);
    if (result < 0 || range[0] < stage->position || range[1] <= range[0] || range[1] > stage->piece.len)
        return error_set(error, RUNNEL_ENOMEM, "cutting text into words stopped at byte %zu: PCRE2 error %d",
                         stage->position, result);
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

int cutter_next(struct cutter *cutter, struct word *word, runnel_error *error)
{
    return next_piece(cutter, cutter->pretokenizer->n_stages - 1, word, error);
}
