/* main.c: the command `runnel`: finds the subcommand and runs it. */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/near_name.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "service/title.h"

static void usage(FILE *out)
{
    const struct command *command;
    fputs("Usage: runnel COMMAND [OPTION...]\n\nCommands:\n", out);
    for (size_t i = 0; (command = commands_at(i)); i++)
        fprintf(out, "  %-10s %s\n", command->name, command->text);
    fputs("\nrunnel help COMMAND describes its options; runnel --version prints the version.\n", out);
}

static int refuse_command(const char *name)
{
    const struct command *command;
    struct near_name near = near_name_begin(name, strlen(name));
    for (size_t i = 0; (command = commands_at(i)); i++)
        near_name_consider(&near, command->name, strlen(command->name));
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
    const struct command *command = commands_find(argv[2]);
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

/* The exit status of what the command line says. */
static int run_command(int argc, char **argv)
{
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
    const struct command *command = commands_find(argv[1]);
    return command ? command->run(argc - 1, argv + 1) : refuse_command(argv[1]);
}

/* What was written is the result: half of one is none. A command that failed has said why already. */
static int check_stdout(int status)
{
    bool is_whole = fflush(stdout) == 0 && !ferror(stdout);
    if (is_whole || (status != EXIT_DONE && status != EXIT_INTERRUPTED))
        return status;
    fprintf(stderr, "runnel: stdout could not be written\n");
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    argv = title_prepare(argc, argv);
    if (fill_closed_descriptors())
        return EXIT_FAILED;
    signal(SIGXFSZ,
           SIG_IGN); /* a file over the limit of sizes is an error of write(), not the end of the process */
    return check_stdout(run_command(argc, argv));
}
