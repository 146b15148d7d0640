/* cli.h: what the commands share. Results go to stdout; all that is written for a person goes to stderr. */
#ifndef RUNNEL_CLI_CLI_H
#define RUNNEL_CLI_CLI_H

#include "base/options.h"

/* EXIT_INTERRUPTED: Ctrl-C ended it before it was done; what a shell says of a program that the signal ended. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* An option that run and serve share; type is their struct of settings, with an int answer_reserve and a bool
 * has_answer_reserve. */
#define CLI_ANSWER_RESERVE(type)                                                                             \
    {                                                                                                        \
        "answer-reserve", 0, OPTION_INT, "N",                                                                \
            "tokens of an answer's limit that a thought leaves to the answer: it is closed before; 0: none " \
            "(default: an eighth of the limit, 16 to 512, half of it at most)",                              \
            OPTION_FIELD(type, answer_reserve), OPTION_HAS(type, has_answer_reserve), .minimum = 0,          \
                                                                                      .maximum = 1 << 24     \
    }

/* The options of the commands. */
extern const struct options_table run_table, serve_table, bench_table, tokenize_table, template_table,
    constrain_table, logits_table, eval_table, imatrix_table, inspect_table, convert_table, quantize_table,
    pull_table, ctl_table, list_table, rm_table, devices_table;

/* The commands: argv[0] is the command's name. Return the exit status. main() tells of a stdout that could not be
 * written, for all of them. */
int command_run(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_ctl(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_template(int argc, char **argv);
int command_constrain(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_imatrix(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_pull(int argc, char **argv);
int command_list(int argc, char **argv);
int command_rm(int argc, char **argv);
int command_devices(int argc, char **argv);

/* Prints "runnel: ..." on stderr and returns EXIT_FAILED. */
int cli_fail(const runnel_error *error);

/* Reads a command's options into settings. -1: they are read, go on; else the exit status, after --help or a
 * message. Says of variables RUNNEL_... that nobody reads that they are ignored. */
int cli_read_options(const struct options_table *table, int argc, char **argv, void *settings);
/* Likewise; once the options are read, the caller says it with environment_tell_unknown. */
int cli_read_options_only(const struct options_table *table, int argc, char **argv, void *settings);

/* Whether --threads asks for more than this process has CPUs: then line says so. Threads wait for one another after each step:
 * two that share a CPU can make an answer a hundred times slower. */
bool cli_remark_threads(int n_threads, char *line, size_t size);
/* The same, said on stderr. */
void cli_tell_threads(int n_threads);

/* Says on stderr what of the model's file was left out, if anything. */
void cli_tell_warning(const runnel_model *model);

/* Whether there is a file for a path or a pulled name; what is in it, opening tells. */
int cli_find_model(const char *name, runnel_error *error);
/* Whether a file can be written at output and leave alone what is read: the model, all of its parts, and another file. */
int cli_check_output(const char *output, const char *model, const char *other, runnel_error *error);

/* On what a model's layers are computed, as options say it: part of a command's settings, and the rows of its table. */
struct cli_device {
    const char *name;
    int n_layers; /* 0: all that have room */
    bool approximates;
};
#define CLI_DEVICE_OPTIONS(settings, device)                                                                 \
    {"device",                                                                                               \
     0,                                                                                                      \
     OPTION_STRING,                                                                                          \
     "NAME",                                                                                                 \
     "compute on the CPU (cpu), a GPU (gpu), a GPU if there is one (auto), or the one of this name; "        \
     "`runnel "                                                                                              \
     "devices` lists them",                                                                                  \
     OPTION_FIELD(settings, device.name),                                                                    \
     .default_text = "cpu"},                                                                                 \
        {"gpu-layers",                                                                                       \
         0,                                                                                                  \
         OPTION_INT,                                                                                         \
         "N",                                                                                                \
         "layers of the model that the GPU computes at most, the CPU the rest (default: all that its "       \
         "memory has room for)",                                                                             \
         OPTION_FIELD(settings, device.n_layers),                                                            \
         .minimum = 1,                                                                                       \
         .maximum = 1 << 16,                                                                                 \
         .needs = "device"},                                                                                 \
    {                                                                                                        \
        "gpu-approximate", 0, OPTION_FLAG, NULL,                                                             \
            "the GPU's answers need not be the CPU's, bit for bit: one that rounds otherwise can be used, "  \
            "and weights in F32, F16 and BF16 are summed in the order that is fastest there",                \
            OPTION_FIELD(settings, device.approximates), .needs = "device"                                   \
    }

/* Whether another device than the CPU is asked for, which may turn out not to be there. */
bool cli_wants_device(const struct cli_device *device);
/* What the engine's layers are computed on, for people: "gpu0 (NAME) computes 28 of 28 layers". Nothing where the CPU does all: false. */
bool cli_describe_device(const struct cli_device *device, const runnel_model *model, runnel_engine *engine,
                         char *line, size_t size);
/* Of the engine's device, if it is the CPU in disguise: what is wrong with another driver, which may have been meant. Nothing: false. */
bool cli_describe_device_problem(runnel_engine *engine, char *line, size_t size);
/* Starts an engine that may compute on a device. */
int cli_start_engine(const runnel_model *model, const runnel_engine_options *options, runnel_engine **engine,
                     runnel_error *error);
/* Stops it. If its device was lost, the process's exit status is EXIT_FAILED, whatever else is said. NULL is fine. */
void cli_stop_engine(runnel_engine *engine);
/* The option's name in what is said of a device that would need it. */
void cli_name_gpu_approximate(runnel_error *error);

/* Opens a model by path or pulled name, with a progress bar where stderr is a terminal. */
/* chat_template: a name, chat_template_file: a file of one; NULL: the model's own. */
int cli_open_model(const char *name, int n_threads, const char *chat_template, const char *chat_template_file,
                   runnel_model **model, runnel_error *error);
/* The same, for engines that compute on a device. */
int cli_open_model_on(const struct cli_device *device, const char *name, int n_threads,
                      const char *chat_template, const char *chat_template_file, runnel_model **model,
                      runnel_error *error);

/* --draft, of the commands that answer: a row of their options, and whether it says off. */
#define CLI_DRAFT_OPTION(settings)                                                                           \
    {                                                                                                        \
        "draft", 0, OPTION_STRING, "WHEN",                                                                   \
            "tokens that are likely to come next are computed with the one that comes, where that is "       \
            "faster; no "                                                                                    \
            "answer changes by it",                                                                          \
            OPTION_FIELD(settings, draft), .choices = "auto|off", .default_text = "auto"                     \
    }
bool cli_draft_is_off(const char *draft);

/* Names the options that choose a template in an error that opening a model or making a prompt gave. */
void cli_name_template_options(runnel_error *error);

/* Text that a model's file or its name has, to stdout: control characters, which a terminal would obey, become '?'. */
void cli_print_text(const char *text, size_t len);

/* Refuses a text, which somebody gave by this name, unless all of it is UTF-8: some vocabularies have no tokens for other
 * bytes, and the model would see a text without them. */
int cli_check_utf8(const char *name, const char *text, size_t len, runnel_error *error);

/* Reads a whole file ("-": stdin) into a zero-terminated buffer that the caller frees. */
int cli_read_file(const char *path, char **text, size_t *len, runnel_error *error);

#endif
