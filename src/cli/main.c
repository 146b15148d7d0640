/* main.c: the command `runnel`: finds the subcommand in a table and runs it. */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/near_name.h"
#include "cli/cli.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    const char *text;
};

static const struct command commands[] = {
    {"run", command_run, "answer a prompt, or chat"},
    {"serve", command_serve, "answer over HTTP, many at once"},
    {"bench", command_bench, "measure this machine with a model"},
    {"tokenize", command_tokenize, "text to token ids"},
    {"template", command_template, "a conversation to the prompt that the chat template makes of it"},
    {"logits", command_logits, "the logits after every token of a list"},
    {"inspect", command_inspect, "what a model file holds"},
    {"pull", command_pull, "download a model"},
    {"list", command_list, "which models are known, and which are here"},
    {"rm", command_rm, "remove a model"},
};

static void usage(FILE *out)
{
    fputs("Usage: runnel COMMAND [OPTION...]\n\nCommands:\n", out);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].text);
    fputs("\nrunnel help COMMAND describes its options; runnel --version prints the version.\n", out);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static int refuse_command(const char *name)
{
    struct near_name near = near_name_begin(name, strlen(name));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        near_name_consider(&near, commands[i].name, strlen(commands[i].name));
    if (*name == '-')
        fprintf(
            stderr,
            "runnel: %s: expected a command first, such as `runnel run %s ...`; runnel --help lists them\n",
            name, name);
    else if (*near.nearest)
        fprintf(stderr, "runnel: unknown command '%s'; did you mean %s?\n", name, near.nearest);
    else
        fprintf(stderr, "runnel: unknown command '%s'; runnel --help lists them\n", name);
    return EXIT_USAGE;
}

static int refuse_argument(const char *argument)
{
    fprintf(stderr, "runnel: '%.80s': expected nothing more, found an argument too many\n", argument);
    return EXIT_USAGE;
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0 || strcmp(argument, "help") == 0;
}

/* `runnel help` and `runnel help COMMAND`. */
static int print_help(int argc, char **argv)
{
    if (argc > 3)
        return refuse_argument(argv[3]);
    if (argc < 3 || is_help(argv[2])) {
        usage(stdout);
        return EXIT_DONE;
    }
    const struct command *command = find_command(argv[2]);
    if (!command)
        return refuse_command(argv[2]);
    char help[] = "--help";
    char *arguments[] = {argv[2], help, NULL};
    return command->run(2, arguments);
}

/* A file that is opened while one of the first three descriptors is closed would take its place, and get what is
 * written to stdout or stderr. The stand-ins fail when they are used, as the closed ones would. */
static int fill_closed_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    if (fill_closed_descriptors())
        return EXIT_FAILED;
    signal(SIGXFSZ,
           SIG_IGN); /* a file over the limit of sizes is an error of write(), not the end of the process */
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (is_help(argv[1]))
        return print_help(argc, argv);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        if (argc > 2 && is_help(argv[2]))
            return print_help(1, argv);
        if (argc > 2)
            return refuse_argument(argv[2]);
        printf("runnel %s\n", RUNNEL_VERSION);
        return EXIT_DONE;
    }
    const struct command *command = find_command(argv[1]);
    return command ? command->run(argc - 1, argv + 1) : refuse_command(argv[1]);
}
