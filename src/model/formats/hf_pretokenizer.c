/* hf_pretokenizer.c: the pre_tokenizer of a tokenizer.json to the name that GGUF files have for it. Files name what they do, and
 * tokenizer.json lists the steps: known ones are written here in the same way. Owns nothing; any thread. */
#include "model/formats/hf_tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { STEPS_MAX = 8 };

enum step_kind {
    NO_STEP,
    SPLIT,      /* at what the expression matches */
    DIGITS,     /* each digit alone */
    DIGIT_RUNS, /* digits apart from all else */
    PUNCTUATION_RUNS,
    BYTES,      /* to the byte-level alphabet */
    GPT2_BYTES, /* ... after GPT-2's expression */
};

struct step {
    enum step_kind kind;
    const char *pattern; /* of SPLIT */
};

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK          "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
// clang-format off
/* Of alphabets with capitals, as a list. */
#define DEEPSEEK_LETTERS \
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af" \
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1" \
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd" \
    "\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d" \
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4" \
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec" \
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128" \
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b" \
    "\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787" \
    "\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a" \
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2" \
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
#define DEEPSEEK_PUNCTUATION "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
// clang-format on

static const struct {
    const char *name;
    struct step steps[STEPS_MAX];
} known[] = {
    {"qwen2",
     {{SPLIT, CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES},
      {BYTES, NULL}}},
    {"llama-bpe",
     {{SPLIT,
       CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES},
      {BYTES, NULL}}},
    {"qwen35",
     {{SPLIT, CONTRACTIONS
       "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES},
      {BYTES, NULL}}},
    {"smollm", /* and starcoder, refact, command-r: the same words by other names */
     {{DIGITS, NULL}, {GPT2_BYTES, NULL}}},
    {"gpt-2", {{GPT2_BYTES, NULL}}}, /* and mpt */
    {"deepseek-coder",
     {{SPLIT, "[\\r\\n]"},
      {SPLIT, "\\s?\\p{L}+"},
      {SPLIT, "\\s?\\p{P}+"},
      {SPLIT, CJK},
      {DIGITS, NULL},
      {BYTES, NULL}}},
    /* Its name means runs of digits: the same tokens, as a vocabulary made of single digits has no others. */
    {"deepseek-llm",
     {{SPLIT, "[\\r\\n]"},
      {SPLIT, "\\s?[" DEEPSEEK_LETTERS "]+"},
      {SPLIT, "\\s?[" DEEPSEEK_PUNCTUATION "]+"},
      {SPLIT, "\\s+$"},
      {SPLIT, CJK},
      {DIGITS, NULL},
      {BYTES, NULL}}},
    {"falcon",
     {{PUNCTUATION_RUNS, NULL}, {GPT2_BYTES, NULL}, {DIGIT_RUNS, NULL}, {SPLIT, "[0-9][0-9][0-9]"}}},
};

enum { N_KNOWN = sizeof known / sizeof *known };

/* What a step is, or an error that names it. */
static int read_split(struct json_place place, struct step *step, runnel_error *error)
{
    const char *behavior = "", *regex = NULL;
    bool inverts = false;
    json_t *pattern = NULL;
    int code = json_field_text(place, "behavior", &behavior, error);
    if (!code)
        code = json_field_bool(place, "invert", &inverts, error);
    if (!code)
        code = json_field_object(place, "pattern", &pattern, error);
    if (!code && pattern)
        code = json_field_text((struct json_place){pattern, place.name}, "Regex", &regex, error);
    if (code)
        return code;
    bool keeps_matches =
        (!strcmp(behavior, "Isolated") && !inverts) || (!strcmp(behavior, "Removed") && inverts);
    if (!regex || !keeps_matches)
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s: a Split of this kind is not known", place.name);
    *step = (struct step){SPLIT, regex};
    return RUNNEL_OK;
}

static int read_bytes(struct json_place place, struct step *step, runnel_error *error)
{
    bool prefixes = true, has_regex = true; /* what is meant by a file that says nothing */
    int code = json_field_bool(place, "add_prefix_space", &prefixes, error);
    if (!code)
        code = json_field_bool(place, "use_regex", &has_regex, error);
    if (!code && prefixes)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: add_prefix_space: true is not supported of ByteLevel", place.name);
    if (!code)
        *step = (struct step){has_regex ? GPT2_BYTES : BYTES, NULL};
    return code;
}

static int read_punctuation(struct json_place place, struct step *step, runnel_error *error)
{
    const char *behavior = "Isolated"; /* what is meant by a file that says nothing */
    int code = json_field_text(place, "behavior", &behavior, error);
    if (!code && strcmp(behavior, "Contiguous") != 0)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: behavior: %.40s is not supported of Punctuation, expected Contiguous",
                         place.name, behavior);
    if (!code)
        *step = (struct step){PUNCTUATION_RUNS, NULL};
    return code;
}

static int read_step(const json_t *object, struct step *step, runnel_error *error)
{
    struct json_place place = {object, "tokenizer.json: pre_tokenizer"};
    const char *type = "";
    bool individual = false;
    int code = json_field_text(place, "type", &type, error);
    if (code)
        return code;
    if (!strcmp(type, "Split"))
        return read_split(place, step, error);
    if (!strcmp(type, "ByteLevel"))
        return read_bytes(place, step, error);
    if (!strcmp(type, "Punctuation"))
        return read_punctuation(place, step, error);
    if (strcmp(type, "Digits") != 0)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: %.40s is not known, expected steps of Split, Digits, Punctuation and "
                         "ByteLevel",
                         place.name, *type ? type : "a step without a type");
    code = json_field_bool(place, "individual_digits", &individual, error);
    if (!code)
        *step = (struct step){individual ? DIGITS : DIGIT_RUNS, NULL};
    return code;
}

static int read_steps(const json_t *steps, struct step out[STEPS_MAX], runnel_error *error)
{
    struct json_place place = {steps, "tokenizer.json: pre_tokenizer"};
    json_t *list = NULL;
    const char *type = "";
    int code = json_field_text(place, "type", &type, error);
    if (code || strcmp(type, "Sequence") != 0)
        return code ? code : read_step(steps, &out[0], error);
    code = json_field_array(place, "pretokenizers", &list, error);
    if (!code && json_array_size(list) > STEPS_MAX)
        code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: %zu steps, at most %d are known", place.name,
                         json_array_size(list), STEPS_MAX);
    for (size_t i = 0; i < json_array_size(list) && !code; i++)
        code = read_step(json_array_get(list, i), &out[i], error);
    return code;
}

static bool equals(const struct step *left, const struct step *right)
{
    for (int i = 0; i < STEPS_MAX; i++)
        if (left[i].kind != right[i].kind ||
            (left[i].kind == SPLIT && strcmp(left[i].pattern, right[i].pattern) != 0))
            return false;
    return true;
}

/* Names the first step that is an expression, and all that is known. */
static int refuse_steps(const struct step found[STEPS_MAX], runnel_error *error)
{
    const char *pattern = "";
    for (int i = STEPS_MAX; i-- > 0;)
        if (found[i].kind == SPLIT)
            pattern = found[i].pattern;
    char names[256] = "";
    for (size_t i = 0, len = 0; i < N_KNOWN; i++)
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s",
                                i == 0            ? ""
                                : i + 1 < N_KNOWN ? ", "
                                                  : " or ",
                                known[i].name);
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "tokenizer.json: pre_tokenizer: these steps are not known%s%.80s, expected those of %s",
                     *pattern ? ", the first expression is " : "", pattern, names);
}

int hf_pretokenizer_name(const json_t *steps, bool is_r1, const char **name, runnel_error *error)
{
    struct step found[STEPS_MAX] = {{NO_STEP, NULL}};
    if (!steps)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "tokenizer.json: pre_tokenizer: not there, as byte-level BPE needs one");
    int code = read_steps(steps, found, error);
    if (code)
        return code;
    for (size_t i = 0; i < N_KNOWN; i++)
        if (equals(found, known[i].steps)) {
            *name = i == 0 && is_r1 ? "deepseek-r1-qwen" : known[i].name; /* the same words by another name */
            return RUNNEL_OK;
        }
    return refuse_steps(found, error);
}
