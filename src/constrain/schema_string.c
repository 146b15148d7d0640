/* schema_string.c: strings of a schema: lengths, patterns, formats, and texts as JSON writes them. See schema_rules.h. */
#include "constrain/charset.h"
#include "constrain/regex.h"
#include "constrain/schema_rules.h"

#include <string.h>

#define LEAP_YEAR "(?:\\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
#define DATE                                                                                                 \
    "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0["  \
    "1-"                                                                                                     \
    "9]|1\\d|2[0-8]))|" LEAP_YEAR "-02-29)"
#define HOUR   "(?:[01]\\d|2[0-3])"
#define DIGITS "(?:\\.\\d+)?"
#define ZONE   "(?:[zZ]|[+-]" HOUR ":[0-5]\\d)"
#define CLOCK  HOUR ":[0-5]\\d:[0-5]\\d" DIGITS ZONE
/* A second 60 comes at the end of a day in UTC, in the last nights of June and December; loosely: anywhere. */
#define LEAP_SECOND "23:59:60" DIGITS "(?:[zZ]|[+-]00:00)"
#define LOOSE_CLOCK HOUR ":[0-5]\\d:(?:[0-5]\\d|60)" DIGITS ZONE
#define BYTE        "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4        BYTE "(?:\\." BYTE "){3}"
#define H16         "[0-9A-Fa-f]{1,4}"
#define LS32        "(?:" H16 ":" H16 "|" IPV4 ")"
/* Labels with hyphens in the third and fourth place are of international names, which are not decoded here. */
#define LETTER "[A-Za-z0-9]"
#define INNER  "[A-Za-z0-9-]"
#define LABEL                                                                                                \
    LETTER "(?:" INNER "{0,2}" LETTER "|" INNER "(?:" LETTER INNER "|-" LETTER ")" INNER "{0,58}" LETTER ")" \
           "?"
#define HOST "(?=.{1,253}$)" LABEL "(?:\\." LABEL ")*"
#define IPV6                                                                                                 \
    "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16 ":){4}" LS32 "|(?:(?:" H16  \
    ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32 "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32          \
    "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32 "|(?:(?:" H16    \
    ":){0,5}" H16 ")?::" H16 "|(?:(?:" H16 ":){0,6}" H16 ")?::)"
#define UNRESERVED "A-Za-z0-9_.~!$&'()*+,;="
#define ESCAPED    "%[0-9A-Fa-f]{2}"
#define PCHAR      "(?:[-" UNRESERVED ":@]|" ESCAPED ")"
#define AUTHORITY                                                                                            \
    "(?:(?:[-" UNRESERVED ":]|" ESCAPED ")*@)?(?:\\[(?:" IPV6 "|[vV][0-9A-Fa-f]+\\.[-" UNRESERVED            \
    ":]+)\\]|(?:[-" UNRESERVED "]|" ESCAPED ")*)(?::\\d*)?"
#define TAIL "(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"
#define HIERARCHY                                                                                            \
    "(?://" AUTHORITY "(?:/" PCHAR "*)*|/(?:" PCHAR "+(?:/" PCHAR "*)*)?|" PCHAR "+(?:/" PCHAR "*)*)?"
#define URI  "[A-Za-z][A-Za-z0-9+.-]*:" HIERARCHY TAIL
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"

/* Regular expressions, of those that every engine reads, with groups within groups within groups. */
#define RE_ESCAPE        "\\\\[dDwWsSnrtfv^$.|?*+()\\[\\]{}/\\\\-]"
#define RE_RANGE         "0-[1-9]|[0-8]-9|a-[b-z]|[a-y]-z|A-[B-Z]|[A-Y]-Z"
#define RE_CLASS         "\\[\\^?(?:[^\\\\\\[\\]^&~|-]|" RE_ESCAPE "|" RE_RANGE ")+-?\\]"
#define RE_CHAR          "[^\\\\^$.|?*+()\\[\\]{}]|" RE_ESCAPE "|" RE_CLASS "|\\."
#define RE_TIMES         "(?:(?:[*+?]|\\{\\d{1,2},?\\}|\\{0,\\d{1,2}\\}|\\{1,[1-9]\\d?\\})\\?{0,1})?"
#define RE_FLAT          "(?:(?:" RE_CHAR ")" RE_TIMES "|[\\^$|])*"
#define RE_GROUPS(inner) "(?:(?:" RE_CHAR "|\\((?:\\?:)?" inner "\\))" RE_TIMES "|[\\^$|])*"

/* The formats that the specification defines; pattern "": refused. Where the pattern leaves out some texts of a format, loose has all of
 * them, and others ("": all texts): with "not", only what is surely not of the format is taken. Other names say nothing. */
static const struct {
    const char *name, *pattern, *loose;
} formats[] = {
    {"date", DATE, NULL},
    {"time", "(?:" CLOCK "|" LEAP_SECOND ")", LOOSE_CLOCK},
    {"date-time", "(?:" DATE "[tT]" CLOCK "|\\d{4}-(?:06-30|12-31)[tT]" LEAP_SECOND ")",
     DATE "[tT]" LOOSE_CLOCK},
    {"duration",
     "P(?:\\d+W|(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)(?:T(?:\\d+H(?:\\d+M(?:\\d+S)?"
     ")?|\\d+M(?:\\d+S)?|"
     "\\d+S))?|T(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S))",
     NULL},
    {"email", "(?=[^@]{1,64}@)" ATOM "(?:\\." ATOM ")*@" HOST, "[^]*@[^]*"},
    {"hostname", HOST, "[A-Za-z0-9.-]*"},
    {"ipv4", IPV4, NULL},
    {"ipv6", IPV6, NULL},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}", NULL},
    {"uri", URI, NULL},
    {"uri-reference",
     "(?:" URI "|(?://" AUTHORITY "(?:/" PCHAR "*)*|/(?:" PCHAR "+(?:/" PCHAR "*)*)?|(?:[-" UNRESERVED
     "@]|" ESCAPED ")+(?:/" PCHAR "*)*)?" TAIL ")",
     NULL},
    {"json-pointer", "(?:/(?:[^~/]|~[01])*)*", NULL},
    {"relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|(?:/(?:[^~/]|~[01])*)*)",
     "\\d+(?:[+-]\\d+)?(?:#|(?:/(?:[^~/]|~[01])*)*)"},
    {"idn-email", "", NULL},
    {"idn-hostname", "", NULL},
    {"iri", "", NULL},
    {"iri-reference", "", NULL},
    {"uri-template", "", NULL},
    {"regex", RE_GROUPS(RE_GROUPS(RE_FLAT)), ""},
};

/* The next character of a text, which is UTF-8; what is not is taken byte by byte. */
static uint32_t next_char(const char *text, size_t len, size_t *at)
{
    unsigned char first = (unsigned char)text[*at];
    size_t n = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t character = n == 1 ? first : first & (0x7fu >> n);
    (*at)++;
    for (size_t i = 1; i < n && *at < len && ((unsigned char)text[*at] & 0xc0) == 0x80; i++)
        character = character << 6 | ((unsigned char)text[(*at)++] & 0x3f);
    return character;
}

static uint32_t char_literal(struct exprs *exprs, uint32_t character, bool in_all_ways)
{
    char escape[] = {'\\', (char)character};
    if (in_all_ways || character < 0x20 || character >= 0x80)
        return char_range_expr(exprs, character, character, CHAR_JSON);
    if (character == '"' || character == '\\')
        return expr_literal(exprs, escape, 2);
    return expr_range(exprs, character, character);
}

uint32_t string_literal(struct schema *schema, const char *text, size_t len, bool in_all_ways)
{
    struct exprs *exprs = schema->exprs;
    uint32_t expr = EXPR_EMPTY,
             part = EXPR_EMPTY; /* joined in parts, so that a long one takes no square time */
    unsigned n = 0;
    for (size_t at = 0; at < len;) {
        part = expr_cat(exprs, part, char_literal(exprs, next_char(text, len, &at), in_all_ways));
        if (++n % 64 == 0) {
            expr = expr_cat(exprs, expr, part);
            part = EXPR_EMPTY;
        }
    }
    return expr_cat(exprs, expr, part);
}

static uint32_t pattern_expr(struct schema *schema, const char *keyword, const char *pattern, size_t len,
                             bool is_whole)
{
    const struct regex_options options = {.form = CHAR_JSON, .is_whole = is_whole};
    runnel_error error;
    uint32_t expr = EXPR_ALL;
    int code = regex_expr(schema->exprs, pattern, len, &options, &expr, &error);
    if (code)
        schema_fail(schema, code, "%s: '%.60s': %.150s", keyword, pattern, error.message);
    return expr;
}

uint32_t string_pattern(struct schema *schema, const char *keyword, const char *pattern, size_t len)
{
    return pattern_expr(schema, keyword, pattern, len, false);
}

bool string_matches(struct schema *schema, uint32_t expr, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < len && expr != EXPR_NONE; i++) {
        unsigned char c = (unsigned char)text[i];
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        const char *bytes = c < 0x20 || c == '"' || c == '\\' ? escape : &text[i];
        for (size_t k = 0; k < (bytes == escape ? sizeof escape : 1); k++)
            expr = expr_derive(schema->exprs, expr, (unsigned char)bytes[k]);
    }
    return expr_is_nullable(schema->exprs, expr);
}

uint32_t string_choice(struct schema *schema, const struct json *values)
{
    struct expr_union all = {0};
    for (uint32_t i = 0; i < values->n; i++)
        if (values->items[i].kind == JSON_STRING)
            expr_union_add(schema->exprs, &all,
                           string_literal(schema, values->items[i].text, values->items[i].len, true));
    return expr_union_end(schema->exprs, &all);
}

static uint32_t format_expr(struct schema *schema, const struct json *value, bool is_not)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!json_tree_is(value, formats[i].name))
            continue;
        const char *pattern = is_not && formats[i].loose ? formats[i].loose : formats[i].pattern;
        if (pattern[0])
            return pattern_expr(schema, "format", pattern, strlen(pattern), true);
        if (pattern == formats[i].loose)
            return EXPR_ALL;
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "format: '%s' is not supported", formats[i].name);
    }
    return EXPR_ALL;
}

/* What one keyword leaves of strings; EXPR_ALL: everything. */
static uint32_t keyword_expr(struct schema *schema, const struct schema_rule *rule)
{
    struct exprs *exprs = schema->exprs;
    const struct json *value = rule_value(rule);
    uint32_t any = char_range_expr(exprs, 0, CHARSET_LAST, CHAR_JSON);
    if (rule_is(rule, "minLength"))
        return expr_repeat(exprs, any, schema_count(schema, rule), EXPR_FOREVER);
    if (rule_is(rule, "maxLength"))
        return expr_repeat(exprs, any, 0, schema_count(schema, rule));
    if (rule_is(rule, "format"))
        return format_expr(schema, value, rule->is_not);
    if (!rule_is(rule, "pattern"))
        return EXPR_ALL;
    if (value->kind != JSON_STRING) {
        schema_fail(schema, RUNNEL_EINVAL, "pattern: expected a string");
        return EXPR_ALL;
    }
    return pattern_expr(schema, "pattern", value->text, value->len, false);
}

/* The least and the greatest length in one repetition, as that has fewer derivatives than one and another. */
static uint32_t length_expr(struct schema *schema, const struct rule_list *list)
{
    uint32_t min = 0, max = EXPR_FOREVER;
    for (uint32_t i = 0; i < list->n; i++) {
        const struct schema_rule *rule = &list->rules[i];
        uint32_t count = !rule->is_not && (rule_is(rule, "minLength") || rule_is(rule, "maxLength"))
                             ? schema_count(schema, rule)
                             : 0;
        if (!rule->is_not && rule_is(rule, "minLength") && count > min)
            min = count;
        if (!rule->is_not && rule_is(rule, "maxLength") && count < max)
            max = count;
    }
    return expr_repeat(schema->exprs, char_range_expr(schema->exprs, 0, CHARSET_LAST, CHAR_JSON), min, max);
}

uint32_t string_content(struct schema *schema, const struct rule_list *list, bool *is_free)
{
    struct exprs *exprs = schema->exprs;
    uint32_t expr = length_expr(schema, list);
    for (uint32_t i = 0; i < list->n; i++) {
        const struct schema_rule *rule = &list->rules[i];
        bool is_length = rule_is(rule, "minLength") || rule_is(rule, "maxLength");
        uint32_t part = is_length && !rule->is_not ? EXPR_ALL : keyword_expr(schema, rule);
        bool is_all = part == EXPR_ALL;
        if (is_all && !(rule->is_not && rule_is(rule, "format")))
            continue;
        if (rule->is_not)
            part = expr_not(exprs, part);
        /* what matches a pattern is a string's content already: no more than that need be looked at */
        expr = expr == schema->name && !rule->is_not ? part : expr_both(exprs, expr, part);
    }
    *is_free = expr == schema->name;
    return expr;
}
