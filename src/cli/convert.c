/* convert.c: the command `runnel convert`: a Hugging Face folder to a GGUF file. One thread. */
#include "model/formats/convert.h"
#include "base/error.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/size_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct convert_settings {
    const char *folder, *output, *type;
    char *config_text;
};

static const struct option_spec convert_specs[] = {
    {"DIR", 0, OPTION_STRING, NULL,
     "a folder as Hugging Face has them: config.json, safetensors files, tokenizer.json or tokenizer.model",
     OPTION_FIELD(struct convert_settings, folder), .required = true, .positional = true},
    {"OUT", 0, OPTION_STRING, NULL, "the GGUF file to write", OPTION_FIELD(struct convert_settings, output),
     .required = true, .positional = true},
    {"type", 0, OPTION_STRING, "TYPE",
     "of the matrices; without, the type that most of them have. Weights of AWQ and GPTQ become Q4_0 or Q4_1 "
     "whatever this is",
     OPTION_FIELD(struct convert_settings, type), .choices = "F16|BF16|F32|Q8_0", .any_case = true},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct convert_settings, config_text)},
};

const struct options_table convert_table = {"runnel convert",
                                            "Makes a GGUF file of a Hugging Face folder: of qwen2, qwen3, "
                                            "llama and gemma3 models, of floats or of 4 bits "
                                            "(AWQ, GPTQ).",
                                            convert_specs, OPTION_COUNT(convert_specs)};

static bool show_progress(void *user, uint64_t done, uint64_t total)
{
    progress_update(user, done, total);
    return !interrupt_came();
}

static void show_remark(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "%s\n", line);
}

static void tell_result(const char *output)
{
    struct stat status;
    char size[SIZE_TEXT_BYTES];
    if (!stat(output, &status))
        fprintf(stderr, "%s: %s\n", output, size_text_growing((uint64_t)status.st_size, size));
}

static int convert(const struct convert_settings *settings)
{
    struct progress progress;
    runnel_error error;
    struct convert_options options = {.folder = settings->folder,
                                      .output = settings->output,
                                      .on_remark = show_remark,
                                      .on_progress = show_progress,
                                      .user = &progress};
    if (!*settings->folder) {
        error_set(&error, RUNNEL_EINVAL, "DIR: expected the name of a folder, found an empty one");
        return cli_fail(&error);
    }
    if (settings->type)
        options.has_type = convert_find_type(settings->type, &options.type);
    interrupt_watch_each();
    progress_start(&progress, "writing", 0);
    int code = convert_folder(&options, &error);
    progress_end(&progress);
    if (code == RUNNEL_ECANCELLED) {
        fprintf(stderr, "Stopped: nothing was written.\n");
        return EXIT_INTERRUPTED;
    }
    if (code)
        return cli_fail(&error);
    tell_result(settings->output);
    return EXIT_DONE;
}

int command_convert(int argc, char **argv)
{
    struct convert_settings settings;
    int status = cli_read_options(&convert_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = convert(&settings);
    free(settings.config_text);
    return status;
}
