/* fuzz_regex.c: arbitrary patterns, and texts that match them, of which PCRE2 must say the same. Input: see constrain_walk.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "constrain/regex.h"
#include "helpers/constrain_walk.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Both have the same spaces and ends of lines in ASCII. Other meanings have "[:", "{,", "\\v" and "\\u{"; and a class of nothing, "[]", that
 * comes no times, as "[]*" says, is a failure to PCRE2. */
static bool is_common(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const char *rest = text + i;
        size_t n = len - i;

        if ((unsigned char)*rest >= 0x80 || *rest == '\r' ||
            (n > 1 && *rest == '[' && strchr(":.=]", rest[1])) ||
            (n > 1 && (!memcmp(rest, "{,", 2) || !memcmp(rest, "\\v", 2))) ||
            (n > 2 && !memcmp(rest, "\\u{", 3)))
            return false;
    }
    return true;
}

static void matches(const char *pattern, size_t len, const char *text, size_t text_len)
{
    static const uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY |
                                    PCRE2_ALT_BSUX | PCRE2_ALLOW_EMPTY_CLASS | PCRE2_UTF;
    size_t where;
    int code;
    if (!is_common(pattern, len) || !is_common(text, text_len))
        return;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, len, options, &code, &where, NULL);
    if (!compiled) /* it knows less: names of groups, \u{...} */
        return;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    code = match ? pcre2_match(compiled, (PCRE2_SPTR)text, text_len, 0, 0, match, NULL) : 0;
    if (code == PCRE2_ERROR_NOMATCH)
        abort();
    pcre2_match_data_free(match);
    pcre2_code_free(compiled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    constrain_walk(regex_grammar, data, size, matches);
    return 0;
}
