/* options.h: a command's options from one table: flags, environment, a file, defaults, --help.
 *
 *     struct settings {
 *         const char *model;
 *         float top_p;
 *         bool has_top_p, json;
 *         struct option_ints sizes;
 *         char *config_text;
 *     };
 *     static const struct option_spec specs[] = {
 *         {"model", 'm', OPTION_STRING, "FILE", "the model", OPTION_FIELD(struct settings, model), .required
 * = true},
 *         {"top-p", 0, OPTION_FLOAT, "P", "keep the likeliest tokens that reach P",
 *          OPTION_FIELD(struct settings, top_p), OPTION_HAS(struct settings, has_top_p), .minimum = 0,
 * .maximum = 1},
 *         {"json", 0, OPTION_FLAG, NULL, "print JSON", OPTION_FIELD(struct settings, json)},
 *         {"sizes", 'b', OPTION_INTS, "N,N", "batches", OPTION_FIELD(struct settings, sizes), .minimum = 1,
 *          .maximum = 64, .default_text = "1,2,4"},
 *         {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE", OPTION_FIELD(struct settings,
 * config_text)},
 *     };
 *     static const struct options_table table = {"runnel bench", "Measure a model.", specs,
 * OPTION_COUNT(specs)};
 *
 *     struct settings settings;
 *     runnel_error error;
 *     switch (options_read(&table, argc, argv, &settings, &error)) {   // argv[0] is skipped
 *     case OPTIONS_READ: break;
 *     case OPTIONS_HELP: options_print_help(&table, stdout); return 0;
 *     default: fprintf(stderr, "%s: %s\n", table.command, error.message); return 2;
 *     }
 *     ...
 *     free(settings.config_text);                                      // string options may point into it
 *
 * An option "top-p" is --top-p VALUE, --top-p=VALUE, or -x VALUE and -xVALUE by its letter; RUNNEL_TOP_P in
 * the environment; a line "top-p = VALUE" in the file of --config. The first of these that has it wins, then
 * the default; of repeated flags the last. An empty environment variable counts as not set. A flag takes no
 * value (but --json=no is possible); in the environment and the file it is yes, true, on or 1, or no, false,
 * off or 0. "--" ends the options.
 * Options that exclude or need one another are compared wherever they were given; one that is no, or 0, is not given.
 * --help and -h are in every table by themselves.
 *
 * Owns nothing; any thread that may read the environment. */
#ifndef RUNNEL_BASE_OPTIONS_H
#define RUNNEL_BASE_OPTIONS_H

#include "base/error.h"

#include <stdio.h>

enum option_type {
    OPTION_STRING, /* const char *: into argv, the environment, the config text, or the default */
    OPTION_INT,    /* int */
    OPTION_UINT64, /* uint64_t; has no bounds */
    OPTION_FLOAT,  /* float, finite */
    OPTION_FLAG,   /* bool */
    OPTION_INTS,   /* struct option_ints: whole numbers with commas between */
    OPTION_TEXTS,  /* struct option_texts: the flag, or the file's line, may come several times */
    OPTION_CONFIG, /* char *: the text of the file that is named, once, to be freed by the caller; NULL if
                    * none is */
};

enum {
    OPTION_INTS_MAX = 32,  /* numbers in a list */
    OPTION_TEXTS_MAX = 32, /* times that an option may come */
    OPTIONS_MAX = 96,      /* options of a table */
};

struct option_ints {
    size_t n;
    int values[OPTION_INTS_MAX];
};

/* Each as it was given, in this order. */
struct option_texts {
    size_t n;
    const char *values[OPTION_TEXTS_MAX];
};

struct option_spec {
    const char *name; /* "top-p"; of a positional argument the name it has in messages, "MODEL" */
    char letter;      /* 'm' for -m; 0: none */
    enum option_type type;
    const char *value_name; /* "N", "FILE"; NULL for flags */
    const char *help;       /* a phrase; the default is added to it */
    size_t field;           /* OPTION_FIELD: where the value goes */
    size_t has_field; /* OPTION_HAS: a bool that becomes true if somebody gave a value; left out: none */
    double minimum, maximum;  /* INT, FLOAT, each of INTS; both 0: unbounded */
    const char *default_text; /* as a user would write it; NULL: zero, false, NULL, an empty list */
    const char *choices;      /* STRING: the values it may have, "avx2|avx512"; NULL: any */
    bool any_case;            /* of choices: in capital or small letters; it is kept as it was given */
    bool required;            /* an error if nobody gives a value */
    bool positional;          /* no flag: the next argument without one; of TEXTS all that are left */
    bool bare;                /* with its flag, or as the next argument without one */
    bool once; /* a text that is used up: two of them are refused. Of other options the last one counts */
    const char *extra_hint; /* bare: what is said of an argument too many; NULL: nothing */
    const char *excludes;   /* options that cannot be given beside it, "raw|json"; NULL: none */
    const char *needs;      /* of these one must be given, too, else it would change nothing; NULL: none */
    const char *group;      /* of the first option of a group in --help: its heading; else NULL */
};

#define OPTION_FIELD(type, name) .field = offsetof(type, name)
#define OPTION_HAS(type, name)   .has_field = offsetof(type, name) + 1
#define OPTION_COUNT(specs)      (sizeof(specs) / sizeof *(specs))

struct options_table {
    const char *command; /* "runnel run" */
    const char *summary; /* a sentence for --help */
    const struct option_spec *specs;
    size_t n_specs; /* up to OPTIONS_MAX */
};

enum { OPTIONS_READ = 0, OPTIONS_HELP = 1 };

/* Fills *settings, each field that the table names and no other. Returns OPTIONS_READ; OPTIONS_HELP if help
 * is asked for (settings are untouched then); or RUNNEL_EINVAL, RUNNEL_EIO (config file), RUNNEL_ENOMEM with
 * a line that names the option, what was expected and what was found, settings untouched. argv[0] is skipped.
 */
int options_read(const struct options_table *table, int argc, char **argv, void *settings,
                 runnel_error *error);

/* Sets one option to text, as a person asks while the program runs: *settings changes if RUNNEL_OK is returned, else the
 * error names what was expected. */
int options_set(const struct options_table *table, const char *name, const char *text, void *settings,
                runnel_error *error);

/* The environment variable of an option: "RUNNEL_TOP_P" of "top-p". */
enum { OPTIONS_ENVIRONMENT_NAME_MAX = 64 };
void options_environment_name(const char *name, char out[OPTIONS_ENVIRONMENT_NAME_MAX]);

/* As wide as the terminal that out is, 100 columns at most; 80 elsewhere. */
void options_print_help(const struct options_table *table, FILE *out);

#endif
