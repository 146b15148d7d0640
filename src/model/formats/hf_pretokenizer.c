/* hf_pretokenizer.c: the pre_tokenizer of a tokenizer.json to the name that GGUF files have for it. Files name what they do, and
 * tokenizer.json lists the steps: known ones are written here in the same way. Owns nothing; any thread. */
#include "model/formats/hf_tokenizer.h"

#include <string.h>

enum { STEPS_MAX = 8 };

enum step_kind {
    NO_STEP,
    SPLIT,      /* at what the expression matches */
    DIGITS,     /* each digit alone */
    DIGIT_RUNS, /* digits apart from all else */
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
    {"smollm", {{DIGITS, NULL}, {GPT2_BYTES, NULL}}},
    {"gpt-2", {{GPT2_BYTES, NULL}}},
    {"deepseek-coder",
     {{SPLIT, "[\\r\\n]"},
      {SPLIT, "\\s?\\p{L}+"},
      {SPLIT, "\\s?\\p{P}+"},
      {SPLIT, CJK},
      {DIGITS, NULL},
      {BYTES, NULL}}},
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
    if (strcmp(type, "Digits") != 0)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: %.40s is not known, expected steps of Split, Digits and "
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
    const char *pattern = found[0].kind == SPLIT ? found[0].pattern : "";
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        "tokenizer.json: pre_tokenizer: these steps are not known%s%.80s, expected those of qwen2, "
        "llama-bpe, qwen35, smollm, gpt-2 or deepseek-coder",
        *pattern ? ", the first is " : "", pattern);
}
