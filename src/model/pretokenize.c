/* pretokenize.c: the regular expressions of the known tokenizers, compiled by PCRE2. See pretokenize.h.
 *
 * The expressions are those of the models' own Hugging Face tokenizers, with two changes that keep their
 * meaning: \s is written out as Unicode's White_Space (PCRE2's \s has U+180E besides), and the two steps of
 * smollm (cut out every digit, then GPT-2's expression within what is left) are one expression. Every
 * character is matched by one of the alternatives, so a match always begins where the last one ended. */
#include "model/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

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

static const struct {
    const char *name, *pattern;
} known[] = {
    {"deepseek-r1-qwen", QWEN2},
    {"qwen2", QWEN2},
    {"smollm", SMOLLM},
};

struct pretokenizer {
    const char *name;
    pcre2_code *code;
    bool compiled_to_machine_code; /* false where the system allows no such memory: slower, the same words */
};

struct cutter {
    const struct pretokenizer *pretokenizer;
    pcre2_match_data *match;
    pcre2_match_context *context;
};

int pretokenizer_create(struct gguf_string name, struct pretokenizer **out, runnel_error *error)
{
    const char *pattern = NULL, *known_name = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == name.len && memcmp(known[i].name, name.bytes, name.len) == 0) {
            known_name = known[i].name;
            pattern = known[i].pattern;
        }
    if (!pattern)
        return error_set(
            error, RUNNEL_EUNSUPPORTED,
            "tokenizer.ggml.pre is \"%.*s\": known pre-tokenizers are deepseek-r1-qwen, qwen2, smollm",
            (int)(name.len < 64 ? name.len : 64), name.bytes);
    struct pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the pre-tokenizer");
    int number;
    PCRE2_SIZE offset;
    pretokenizer->name = known_name;
    pretokenizer->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE,
                                       &number, &offset, NULL);
    if (!pretokenizer->code) { /* the expressions are ours: only memory can be missing */
        pretokenizer_free(pretokenizer);
        return error_set(error, RUNNEL_ENOMEM, "pre-tokenizer %s: PCRE2 error %d", known_name, number);
    }
    pretokenizer->compiled_to_machine_code = pcre2_jit_compile(pretokenizer->code, PCRE2_JIT_COMPLETE) == 0;
    *out = pretokenizer;
    return RUNNEL_OK;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
    if (!pretokenizer)
        return;
    pcre2_code_free(pretokenizer->code);
    free(pretokenizer);
}

const char *pretokenizer_name(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->name;
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

int64_t cutter_next(struct cutter *cutter, const char *text, size_t len, size_t offset, runnel_error *error)
{
    const struct pretokenizer *pretokenizer = cutter->pretokenizer;
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pretokenizer->compiled_to_machine_code)
        result = pcre2_jit_match(pretokenizer->code, (PCRE2_SPTR)text, len, offset, 0, cutter->match,
                                 cutter->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        result = pcre2_match(pretokenizer->code, (PCRE2_SPTR)text, len, offset,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, cutter->match, cutter->context);
    PCRE2_SIZE *range = pcre2_get_ovector_pointer(cutter->match);
    if (result < 0 || range[0] != offset || range[1] <= offset || range[1] > len)
        return error_set(error, RUNNEL_ENOMEM, "cutting text into words stopped at byte %zu: PCRE2 error %d",
                         offset, result);
    return (int64_t)(range[1] - offset);
}

size_t utf8_valid_prefix(const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t i = 0;
    while (i < len) {
        unsigned char first = bytes[i];
        if (first < 0x80) {
            i++;
            continue;
        }
        size_t width = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
        if (first < 0xc2 || first > 0xf4 || len - i < width)
            return i;
        /* The second byte says whether a character is over-long, a surrogate or past U+10FFFF. */
        unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (bytes[i + 1] < low || bytes[i + 1] > high)
            return i;
        for (size_t k = 2; k < width; k++)
            if ((bytes[i + k] & 0xc0) != 0x80)
                return i;
        i += width;
    }
    return i;
}
