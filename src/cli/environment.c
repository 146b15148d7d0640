/* environment.c: see environment.h. */
#include "cli/environment.h"

#include "base/near_name.h"
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "RUNNEL_";

/* Variables that are no option's and that the program reads, without RUNNEL_. */
static const char *const others[] = {"CPU", "HISTORY", "MODELS"};

/* Kubernetes sets variables that begin so in each container, where a service is called runnel. */
static const char *const beginnings[] = {"PORT_", "SERVICE_"};

/* A variable's name without RUNNEL_, and what was found for it. */
struct search {
    const char *name;
    size_t len;
    bool is_known;
    struct near_name near;
};

static void compare(struct search *search, const char *known)
{
    size_t len = strlen(known);
    search->is_known |= len == search->len && !memcmp(known, search->name, len);
    near_name_consider(&search->near, known, len);
}

static struct search search_for(const char *name, size_t len)
{
    struct search search = {.name = name, .len = len, .near = near_name_begin(name, len)};
    const struct command *command;
    for (size_t i = 0; (command = commands_at(i)); i++) {
        for (size_t k = 0; k < command->options->n_specs; k++) {
            char known[OPTIONS_ENVIRONMENT_NAME_MAX];
            options_environment_name(command->options->specs[k].name, known);
            if (!command->options->specs[k].positional)
                compare(&search, known + strlen(prefix));
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        compare(&search, others[i]);
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        search.is_known |= len > strlen(beginnings[i]) && !memcmp(name, beginnings[i], strlen(beginnings[i]));
    return search;
}

/* Characters that a terminal would obey become '?'. */
static void format_line(const struct search *search, char *line, size_t size)
{
    const char *nearest = search->near.nearest;
    snprintf(line, size, "%s%.*s: no option of any command is set by this variable, so it is ignored%s%s%s%s",
             prefix, search->len < 80 ? (int)search->len : 80, search->name,
             *nearest ? "; did you mean " : "", *nearest ? prefix : "", nearest, *nearest ? "?" : "");
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

void environment_tell_unknown(void (*tell)(void *user, const char *line), void *user)
{
    for (char **variable = environ; *variable; variable++) {
        const char *equals = strchr(*variable, '=');
        if (strncmp(*variable, prefix, strlen(prefix)) != 0 || !equals || !equals[1])
            continue; /* an empty one counts as not set */
        const char *name = *variable + strlen(prefix);
        struct search search = search_for(name, (size_t)(equals - name));
        char line[320];
        if (search.is_known)
            continue;
        format_line(&search, line, sizeof line);
        tell(user, line);
    }
}
