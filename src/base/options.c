/* options.c: a command's options from one table. First every source is asked for each option's text, then the
 * texts are checked, then written to the settings: so a failure leaves the settings untouched. Owns nothing
 * but, for a moment, the config file's text, which it hands to the caller. */
#include "base/options.h"

#include "base/near_name.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX_BYTES = 1 << 20 };

/* What was found for an option. */
struct found {
    const char *text; /* NULL: nothing */
    enum { FROM_NOWHERE, FROM_FLAG, FROM_ENVIRONMENT, FROM_CONFIG, FROM_DEFAULT, FROM_PERSON } source;
    bool bare;                  /* FROM_FLAG: without it */
    int line;                   /* FROM_CONFIG */
    struct option_texts *texts; /* OPTION_TEXTS: all of them, text is the last; else NULL */
};

enum { TEXTS_OPTIONS_MAX = 8 }; /* of that type in a table */

struct reading {
    const struct options_table *table;
    struct found found[OPTIONS_MAX];
    struct option_texts texts[TEXTS_OPTIONS_MAX];
    size_t n_texts;
    const char *config_path;
    char *config_text;
    bool help;
    runnel_error *error;
};

union value {
    const char *string;
    int integer;
    uint64_t uint64;
    float real;
    bool flag;
    struct option_ints ints;
    struct option_texts texts;
};

/* Values -------------------------------------------------------------------------------------------------- */

void options_environment_name(const char *name, char out[OPTIONS_ENVIRONMENT_NAME_MAX])
{
    size_t len = (size_t)snprintf(out, OPTIONS_ENVIRONMENT_NAME_MAX, "RUNNEL_%s", name);
    for (size_t i = 0; i < len && i < OPTIONS_ENVIRONMENT_NAME_MAX - 1; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* "option --top-p", "RUNNEL_TOP_P" or "FILE, line 3: top-p": who gave the value. */
static void describe(const struct reading *r, const struct option_spec *spec, const struct found *found,
                     char *out, size_t size)
{
    char name[OPTIONS_ENVIRONMENT_NAME_MAX];
    options_environment_name(spec->name, name);
    if (found->source == FROM_ENVIRONMENT)
        snprintf(out, size, "%s", name);
    else if (found->source == FROM_CONFIG)
        snprintf(out, size, "%.160s, line %d: %s", r->config_path, found->line, spec->name);
    else
        snprintf(out, size, "%s%s", spec->positional || found->source == FROM_PERSON ? "" : "--", spec->name);
}

static int wrong_value(const struct reading *r, const struct option_spec *spec, const struct found *found,
                       const char *expected)
{
    char who[256], range[96] = "";
    describe(r, spec, found, who, sizeof who);
    if ((spec->minimum != 0 || spec->maximum != 0) && spec->type != OPTION_STRING)
        snprintf(range, sizeof range, " from %.10g to %.10g", spec->minimum, spec->maximum);
    return error_set(r->error, RUNNEL_EINVAL, "%s: expected %s%s, found '%.80s'", who, expected, range,
                     found->text);
}

static bool in_bounds(const struct option_spec *spec, double value)
{
    return (spec->minimum == 0 && spec->maximum == 0) || (value >= spec->minimum && value <= spec->maximum);
}

/* A whole number up to *end; false if there is none or it is out of the option's bounds. */
static bool read_int(const struct option_spec *spec, const char *text, char **end, int *value)
{
    if (!isdigit((unsigned char)*text) && *text != '-')
        return false;
    errno = 0;
    long number = strtol(text, end, 10);
    if (errno || *end == text || number < INT_MIN || number > INT_MAX || !in_bounds(spec, (double)number))
        return false;
    *value = (int)number;
    return true;
}

static bool read_ints(const struct option_spec *spec, const char *text, struct option_ints *ints)
{
    ints->n = 0;
    for (char *end = NULL; ints->n < OPTION_INTS_MAX; text = end + 1) {
        if (!read_int(spec, text, &end, &ints->values[ints->n++]))
            return false;
        if (*end == 0)
            return true;
        if (*end != ',')
            return false;
    }
    return false;
}

static bool read_flag(const char *text, bool *value)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = i % 2;
            return true;
        }
    }
    return false;
}

static bool is_choice(const char *choices, bool any_case, const char *text)
{
    size_t len = strlen(text);
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        if (n == len && (any_case ? strncasecmp(at, text, n) : memcmp(at, text, n)) == 0)
            return true;
        at += n;
        if (*at == 0)
            return false;
    }
}

static int read_value(const struct reading *r, const struct option_spec *spec, const struct found *found,
                      union value *value)
{
    const char *text = found->text;
    char *end = NULL;
    errno = 0;
    switch (spec->type) {
    case OPTION_STRING:
    case OPTION_CONFIG:
        value->string = text;
        if (spec->choices && !is_choice(spec->choices, spec->any_case, text))
            return wrong_value(r, spec, found, spec->choices);
        return RUNNEL_OK;
    case OPTION_INT:
        if (!read_int(spec, text, &end, &value->integer) || *end)
            return wrong_value(r, spec, found, "a whole number");
        return RUNNEL_OK;
    case OPTION_UINT64:
        value->uint64 = isdigit((unsigned char)*text) ? strtoull(text, &end, 10) : 0;
        if (!end || *end || errno)
            return wrong_value(r, spec, found, "a whole number from 0 to 2^64 - 1");
        return RUNNEL_OK;
    case OPTION_FLOAT:
        value->real = strtof(text, &end);
        if (end == text || *end || strpbrk(text, "xX") || /* hexadecimal, as no other type takes it */
            isspace((unsigned char)*text) || !isfinite(value->real) || !in_bounds(spec, (double)value->real))
            return wrong_value(r, spec, found, "a number");
        return RUNNEL_OK;
    case OPTION_FLAG:
        return read_flag(text, &value->flag) ? RUNNEL_OK : wrong_value(r, spec, found, "yes or no");
    case OPTION_INTS:
        return read_ints(spec, text, &value->ints)
                   ? RUNNEL_OK
                   : wrong_value(r, spec, found, "up to 32 whole numbers, with commas,");
    case OPTION_TEXTS:
        if (found->texts)
            value->texts = *found->texts;
        else
            value->texts = (struct option_texts){1, {text}}; /* the default */
        return RUNNEL_OK;
    }
    return error_set(r->error, RUNNEL_EINVAL, "--%s: of no known type", spec->name);
}

static void store_value(const struct reading *r, const struct option_spec *spec, const union value *value,
                        void *settings)
{
    static const size_t sizes[] = {
        [OPTION_STRING] = sizeof value->string, [OPTION_INT] = sizeof value->integer,
        [OPTION_UINT64] = sizeof value->uint64, [OPTION_FLOAT] = sizeof value->real,
        [OPTION_FLAG] = sizeof value->flag,     [OPTION_INTS] = sizeof value->ints,
        [OPTION_TEXTS] = sizeof value->texts,
    };
    char *field = (char *)settings + spec->field;
    if (spec->type == OPTION_CONFIG)
        memcpy(field, &r->config_text, sizeof r->config_text);
    else
        memcpy(field, value, sizes[spec->type]);
}

/* Names --------------------------------------------------------------------------------------------------- */

/* The index of the option with a name of len bytes; n_specs if there is none. */
static size_t find_name(const struct options_table *table, const char *name, size_t len)
{
    size_t i = 0;
    while (i < table->n_specs && (table->specs[i].positional || strlen(table->specs[i].name) != len ||
                                  memcmp(table->specs[i].name, name, len) != 0))
        i++;
    return i;
}

/* The error for a name that is not in the table, with the nearest one if it is near. prefix: "--" or "FILE,
 * line 3: ". */
static int unknown_name(const struct reading *r, const char *prefix, const char *name, size_t len)
{
    struct near_name near = near_name_begin(name, len);
    for (size_t i = 0; i < r->table->n_specs; i++) {
        const struct option_spec *spec = &r->table->specs[i];
        if (!spec->positional)
            near_name_consider(&near, spec->name, strlen(spec->name));
    }
    int shown = len < 80 ? (int)len : 80;
    if (*near.nearest)
        return error_set(r->error, RUNNEL_EINVAL, "%s%.*s: unknown option; did you mean %s%s?", prefix, shown,
                         name, strncmp(prefix, "-", 1) == 0 ? "--" : "", near.nearest);
    return error_set(r->error, RUNNEL_EINVAL, "%s%.*s: unknown option; %s --help lists them", prefix, shown,
                     name, r->table->command);
}

/* Sources ------------------------------------------------------------------------------------------------- */

/* The same thing with its flag and without. */
static int given_twice(struct reading *r, const struct option_spec *spec, const char *bare,
                       const char *with_flag)
{
    const char *hint = spec->extra_hint;
    return error_set(r->error, RUNNEL_EINVAL, "expected one %s, found '%.80s' and --%s '%.80s'%s%s",
                     spec->value_name, bare, spec->name, with_flag, hint ? "; " : "", hint ? hint : "");
}

/* Two texts, or config files, from the same source: neither is to be ignored. */
static int given_again(struct reading *r, const struct option_spec *spec, const struct found *before,
                       const struct found *found)
{
    if (found->source == FROM_CONFIG)
        return error_set(r->error, RUNNEL_EINVAL,
                         "%.160s, line %d: %s: expected it once, found '%.60s' here and '%.60s' in line %d",
                         r->config_path, found->line, spec->name, found->text, before->text, before->line);
    return error_set(r->error, RUNNEL_EINVAL, "--%s: expected it once, found '%.60s' and '%.60s'", spec->name,
                     before->text, found->text);
}

/* Keeps what was found for an option: in place of what another source had for it, or behind that. */
static int keep_text(struct reading *r, size_t index, struct found found)
{
    const struct option_spec *spec = &r->table->specs[index];
    const struct found *before = &r->found[index];
    if (before->bare && found.source == FROM_FLAG)
        return given_twice(r, spec, before->text, found.text);
    bool is_once = spec->once || spec->type == OPTION_CONFIG; /* one file is read */
    if (is_once && before->text && before->source == found.source)
        return given_again(r, spec, before, &found);
    if (spec->type == OPTION_TEXTS) {
        found.texts = r->found[index].texts;
        if (!found.texts && r->n_texts < TEXTS_OPTIONS_MAX)
            found.texts = &r->texts[r->n_texts++];
        if (!found.texts || found.texts->n == OPTION_TEXTS_MAX)
            return error_set(r->error, RUNNEL_EINVAL, "%s%s: expected it %d times at most",
                             spec->positional ? "" : "--", spec->name, OPTION_TEXTS_MAX);
        found.texts->values[found.texts->n++] = found.text;
    }
    r->found[index] = found;
    return RUNNEL_OK;
}

/* Takes the flag at argv[*i], and the value behind it. */
static int take_long(struct reading *r, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name), index = find_name(r->table, name, len);
    if (len == 4 && memcmp(name, "help", 4) == 0) {
        r->help = true;
        return RUNNEL_OK;
    }
    if (index == r->table->n_specs)
        return unknown_name(r, "--", name, len);
    const struct option_spec *spec = &r->table->specs[index];
    const char *text = equals                      ? equals + 1
                       : spec->type == OPTION_FLAG ? "yes"
                       : ++*i < argc               ? argv[*i]
                                                   : NULL;
    if (!text)
        return error_set(r->error, RUNNEL_EINVAL, "--%s: expected a value (%s) behind it, found nothing",
                         spec->name, spec->value_name);
    return keep_text(r, index, (struct found){.text = text, .source = FROM_FLAG});
}

static int take_letter(struct reading *r, int argc, char **argv, int *i)
{
    const char *letter = argv[*i] + 1, *rest = letter + 1;
    size_t index = 0;
    while (index < r->table->n_specs && r->table->specs[index].letter != *letter)
        index++;
    if (*letter == 'h' && *rest == 0 && index == r->table->n_specs) {
        r->help = true;
        return RUNNEL_OK;
    }
    if (index == r->table->n_specs)
        return unknown_name(r, "-", letter, strlen(letter));
    const struct option_spec *spec = &r->table->specs[index];
    if (spec->type == OPTION_FLAG && *rest)
        return unknown_name(r, "-", letter, strlen(letter));
    const char *text = *rest ? rest : spec->type == OPTION_FLAG ? "yes" : ++*i < argc ? argv[*i] : NULL;
    if (!text)
        return error_set(r->error, RUNNEL_EINVAL, "-%c: expected a value (%s) behind it, found nothing",
                         *letter, spec->value_name);
    return keep_text(r, index, (struct found){.text = text, .source = FROM_FLAG});
}

static int take_positional(struct reading *r, const char *text)
{
    const char *hint = NULL;
    for (size_t i = 0; i < r->table->n_specs; i++) {
        const struct option_spec *spec = &r->table->specs[i];
        if (spec->extra_hint)
            hint = spec->extra_hint;
        if (spec->bare && r->found[i].text && !r->found[i].bare)
            return given_twice(r, spec, text, r->found[i].text);
        if (spec->positional && spec->type == OPTION_TEXTS)
            return keep_text(r, i, (struct found){.text = text, .source = FROM_FLAG});
        if ((spec->positional || spec->bare) && !r->found[i].text) {
            r->found[i] = (struct found){.text = text, .source = FROM_FLAG, .bare = spec->bare};
            return RUNNEL_OK;
        }
    }
    return error_set(r->error, RUNNEL_EINVAL, "'%.80s': expected an option, found an argument too many%s%s",
                     text, hint ? "; " : "", hint ? hint : "");
}

static int read_flags(struct reading *r, int argc, char **argv)
{
    bool options_ended = false;
    for (int i = 1; i < argc && !r->help; i++) {
        int status = RUNNEL_OK;
        if (options_ended || argv[i][0] != '-' || argv[i][1] == 0) /* "-" alone is stdin */
            status = take_positional(r, argv[i]);
        else if (strcmp(argv[i], "--") == 0)
            options_ended = true;
        else if (argv[i][1] == '-')
            status = take_long(r, argc, argv, &i);
        else
            status = take_letter(r, argc, argv, &i);
        if (status)
            return status;
    }
    return RUNNEL_OK;
}

static void read_environment(struct reading *r)
{
    for (size_t i = 0; i < r->table->n_specs; i++) {
        char name[OPTIONS_ENVIRONMENT_NAME_MAX];
        options_environment_name(r->table->specs[i].name, name);
        const char *text = r->table->specs[i].positional || r->found[i].text ? NULL : getenv(name);
        if (text && *text)
            keep_text(r, i, (struct found){.text = text, .source = FROM_ENVIRONMENT}); /* one: it fits */
    }
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len && isspace((unsigned char)text[len - 1]))
        text[--len] = 0;
    return text;
}

/* A line: nothing, "# remark", or "name = value"; quotes around the value keep spaces at its ends. */
static int read_config_line(struct reading *r, char *line, int number)
{
    char prefix[224];
    snprintf(prefix, sizeof prefix, "%.160s, line %d: ", r->config_path, number);
    char *name = trim(line), *equals = strchr(name, '=');
    if (*name == 0 || *name == '#')
        return RUNNEL_OK;
    if (!equals)
        return error_set(r->error, RUNNEL_EINVAL, "%sexpected 'name = value', found '%.80s'", prefix, name);
    *equals = 0;
    name = trim(name);
    char *text = trim(equals + 1);
    size_t len = strlen(text);
    if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
        text[len - 1] = 0;
        text++;
    }
    size_t index = find_name(r->table, name, strlen(name));
    if (index == r->table->n_specs)
        return unknown_name(r, prefix, name, strlen(name));
    if (r->table->specs[index].type == OPTION_CONFIG)
        return error_set(r->error, RUNNEL_EINVAL, "%sexpected an option, found another config file", prefix);
    if (!r->found[index].text || r->found[index].source == FROM_CONFIG)
        return keep_text(r, index, (struct found){.text = text, .source = FROM_CONFIG, .line = number});
    return RUNNEL_OK;
}

static int load_config(struct reading *r)
{
    FILE *file = fopen(r->config_path, "re");
    if (!file)
        return error_set(r->error, RUNNEL_EIO, "config file %s: cannot be opened: %s", r->config_path,
                         strerror(errno));
    r->config_text = malloc(CONFIG_MAX_BYTES + 1);
    size_t len = r->config_text ? fread(r->config_text, 1, CONFIG_MAX_BYTES + 1, file) : 0;
    bool failed = ferror(file);
    fclose(file);
    if (!r->config_text)
        return error_set(r->error, RUNNEL_ENOMEM, "config file %s: no memory", r->config_path);
    if (failed)
        return error_set(r->error, RUNNEL_EIO, "config file %s: cannot be read", r->config_path);
    if (len > CONFIG_MAX_BYTES || memchr(r->config_text, 0, len))
        return error_set(r->error, RUNNEL_EINVAL,
                         "config file %s: expected text of at most 1 MiB, found something else",
                         r->config_path);
    r->config_text[len] = 0;
    return RUNNEL_OK;
}

static int read_config(struct reading *r)
{
    for (size_t i = 0; i < r->table->n_specs; i++)
        if (r->table->specs[i].type == OPTION_CONFIG)
            r->config_path = r->found[i].text;
    if (!r->config_path)
        return RUNNEL_OK;
    int status = load_config(r), number = 1;
    for (char *line = r->config_text; !status && line; number++) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        status = read_config_line(r, line, number);
        line = next;
    }
    return status;
}

/* Options together ---------------------------------------------------------------------------------------- */

/* Somebody gave it, and it is not switched off. */
static bool is_given(const struct reading *r, size_t index)
{
    const char *text = r->found[index].text;
    bool flag;
    if (!text)
        return false;
    switch (r->table->specs[index].type) {
    case OPTION_FLAG:
        return !read_flag(text, &flag) || flag;
    case OPTION_INT:
        return strcmp(text, "0") != 0;
    default:
        return true;
    }
}

/* The first option of list, "raw|json", that is given; n_specs if none is. */
static size_t find_given(const struct reading *r, const char *list)
{
    for (size_t i = 0; i < r->table->n_specs; i++)
        if (is_given(r, i) && is_choice(list, false, r->table->specs[i].name))
            return i;
    return r->table->n_specs;
}

/* "--keep-last, --other": the list as a message has it. */
static void describe_list(const char *list, char *out, size_t size)
{
    size_t used = 0;
    for (const char *name = list; *name && used < size; name += *name == '|') {
        size_t len = strcspn(name, "|");
        int n = snprintf(out + used, size - used, "%s--%.*s", name == list ? "" : " or ", (int)len, name);
        used += n > 0 ? (size_t)n : 0;
        name += len;
    }
}

/* Nothing that was given is ignored: an option that another one makes void is refused. */
static int check_together(const struct reading *r)
{
    for (size_t i = 0; i < r->table->n_specs; i++) {
        const struct option_spec *spec = &r->table->specs[i];
        size_t other = spec->excludes ? find_given(r, spec->excludes) : r->table->n_specs;
        char who[256], whom[256];
        if (!is_given(r, i))
            continue;
        describe(r, spec, &r->found[i], who, sizeof who);
        if (other < r->table->n_specs) {
            describe(r, &r->table->specs[other], &r->found[other], whom, sizeof whom);
            return error_set(r->error, RUNNEL_EINVAL, "%s: expected it without %s, found both", who, whom);
        }
        if (spec->needs && find_given(r, spec->needs) == r->table->n_specs) {
            describe_list(spec->needs, whom, sizeof whom);
            return error_set(r->error, RUNNEL_EINVAL,
                             "%s: expected %s beside it, found none: it would change nothing", who, whom);
        }
    }
    return RUNNEL_OK;
}

/* Reading ------------------------------------------------------------------------------------------------- */

/* Checks all values; then, with settings, stores them. */
static int read_values(struct reading *r, void *settings)
{
    for (size_t i = 0; i < r->table->n_specs; i++) {
        const struct option_spec *spec = &r->table->specs[i];
        struct found found = r->found[i];
        if (!found.text && spec->required)
            return error_set(r->error, RUNNEL_EINVAL, "expected %s%s%s%s, found none; %s --help tells more",
                             spec->positional ? "" : "--", spec->name, spec->positional ? "" : " ",
                             spec->positional ? "" : spec->value_name, r->table->command);
        if (!found.text && spec->default_text)
            found = (struct found){.text = spec->default_text, .source = FROM_DEFAULT};
        union value value;
        memset(&value, 0, sizeof value);
        int status = found.text ? read_value(r, spec, &found, &value) : RUNNEL_OK;
        if (status)
            return status;
        if (!settings)
            continue;
        store_value(r, spec, &value, settings);
        if (spec->has_field)
            *(bool *)((char *)settings + spec->has_field - 1) = r->found[i].text != NULL;
    }
    return RUNNEL_OK;
}

int options_read(const struct options_table *table, int argc, char **argv, void *settings,
                 runnel_error *error)
{
    if (table->n_specs > OPTIONS_MAX)
        return error_set(error, RUNNEL_EINVAL, "%s: expected at most %d options in the table, found %zu",
                         table->command, OPTIONS_MAX, table->n_specs);
    struct reading r = {.table = table, .error = error};
    int status = read_flags(&r, argc, argv);
    if (status)
        return status;
    if (r.help)
        return OPTIONS_HELP;
    read_environment(&r);
    if ((status = read_config(&r)) || (status = read_values(&r, NULL)) || (status = check_together(&r))) {
        free(r.config_text);
        return status;
    }
    read_values(&r, settings);
    return OPTIONS_READ;
}

int options_set(const struct options_table *table, const char *name, const char *text, void *settings,
                runnel_error *error)
{
    struct reading r = {.table = table, .error = error};
    size_t index = find_name(table, name, strlen(name));
    if (index == table->n_specs)
        return unknown_name(&r, "", name, strlen(name));
    const struct option_spec *spec = &table->specs[index];
    r.found[index] = (struct found){.text = text, .source = FROM_PERSON};
    union value value;
    memset(&value, 0, sizeof value);
    int status = read_value(&r, spec, &r.found[index], &value);
    if (status)
        return status;
    store_value(&r, spec, &value, settings);
    if (spec->has_field)
        *(bool *)((char *)settings + spec->has_field - 1) = true;
    return RUNNEL_OK;
}
