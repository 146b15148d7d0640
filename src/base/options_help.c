/* options_help.c: the --help text that an option table gives. Owns nothing; any thread. */
#include "base/options.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    WIDTH = 80, /* where nobody says how wide it may be */
    WIDTH_MIN = 60,
    WIDTH_MAX = 100,
    LEFT_MAX = 30, /* a longer left column has its text on the next line */
};

static size_t width_of(FILE *out)
{
    struct winsize size;
    int fd = fileno(out);
    if (fd < 0 || ioctl(fd, TIOCGWINSZ, &size) || size.ws_col == 0)
        return WIDTH;
    return size.ws_col < WIDTH_MIN ? WIDTH_MIN : size.ws_col > WIDTH_MAX ? WIDTH_MAX : size.ws_col;
}

/* "  -m, --model FILE" or "  MODEL". Returns its width. */
static size_t format_left(const struct option_spec *spec, char *out, size_t size)
{
    int len;
    if (spec->positional)
        len = snprintf(out, size, "  %s", spec->name);
    else if (spec->letter)
        len = snprintf(out, size, "  -%c, --%s%s%s", spec->letter, spec->name, spec->value_name ? " " : "",
                       spec->value_name ? spec->value_name : "");
    else
        len = snprintf(out, size, "      --%s%s%s", spec->name, spec->value_name ? " " : "",
                       spec->value_name ? spec->value_name : "");
    return len < 0 ? 0 : (size_t)len < size ? (size_t)len : size - 1;
}

/* Prints text from column on, broken at spaces, each further line indented to column. */
static void print_wrapped(const char *text, size_t column, FILE *out)
{
    size_t at = column, end = width_of(out);
    for (bool first = true; *text; first = false) {
        size_t len = strcspn(text, " ");
        if (!first && at + 1 + len > end) {
            fprintf(out, "\n%*s", (int)column, "");
            at = column;
        } else if (!first) {
            fputc(' ', out);
            at++;
        }
        fwrite(text, 1, len, out);
        at += len;
        text += len;
        text += *text == ' ';
    }
    fputc('\n', out);
}

static void print_spec(const struct option_spec *spec, size_t column, FILE *out)
{
    char left[128], text[512];
    if (spec->group)
        fprintf(out, "\n%s:\n", spec->group);
    size_t width = format_left(spec, left, sizeof left);
    fputs(left, out);
    if (width + 2 > column)
        fprintf(out, "\n%*s", (int)column, "");
    else
        fprintf(out, "%*s", (int)(column - width), "");
    const char *value = spec->default_text;
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", spec->help, spec->choices ? ": " : "",
             spec->choices ? spec->choices : "", value ? " (default " : "", value ? value : "",
             value ? ")" : "",
             spec->required && !spec->positional
                 ? (spec->bare ? " (required; also without the flag)" : " (required)")
                 : "");
    print_wrapped(text, column, out);
}

static const struct option_spec help_spec = {
    .name = "help", .letter = 'h', .type = OPTION_FLAG, .help = "print this text"};

void options_print_help(const struct options_table *table, FILE *out)
{
    bool has_config = false, letter_h_taken = false;
    const struct option_spec *example = NULL;
    char left[128];
    size_t column = format_left(&help_spec, left, sizeof left) + 2;
    fprintf(out, "Usage: %s [OPTION...]", table->command);
    for (size_t i = 0; i < table->n_specs; i++) {
        const struct option_spec *spec = &table->specs[i];
        if (spec->positional || spec->bare)
            fprintf(out, spec->required ? " %s%s" : " [%s]%s", spec->bare ? spec->value_name : spec->name,
                    spec->type == OPTION_TEXTS ? "..." : "");
        size_t width = format_left(spec, left, sizeof left) + 2;
        column = width > column && width <= LEFT_MAX ? width : column;
        has_config |= spec->type == OPTION_CONFIG;
        letter_h_taken |= spec->letter == 'h';
        if (!example && !spec->positional && spec->type != OPTION_CONFIG && spec->type != OPTION_FLAG)
            example = spec;
    }
    fputs("\n\n", out);
    print_wrapped(table->summary, 0, out);
    fputc('\n', out);
    for (size_t i = 0; i < table->n_specs; i++)
        print_spec(&table->specs[i], column, out);
    struct option_spec help = help_spec;
    help.letter = letter_h_taken ? 0 : 'h';
    print_spec(&help, column, out);
    if (!example)
        return;
    char text[512], name[OPTIONS_ENVIRONMENT_NAME_MAX];
    options_environment_name(example->name, name);
    snprintf(text, sizeof text, "Options can also be given in the environment (%s=...)%s%s%s.", name,
             has_config ? " or in the file of --config, in lines like '" : "",
             has_config ? example->name : "", has_config ? " = ...'" : "");
    fputc('\n', out);
    print_wrapped(text, 0, out);
}
