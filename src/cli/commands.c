/* commands.c: see commands.h. */
#include "cli/commands.h"

#include "cli/cli.h"

#include <string.h>

static const struct command commands[] = {
    {"run", command_run, &run_table, "answer a prompt, or chat"},
    {"serve", command_serve, &serve_table, "answer over HTTP, many at once"},
    {"ctl", command_ctl, &ctl_table, "how many workers a server has, and its options and model once more"},
    {"bench", command_bench, &bench_table, "measure this machine with a model"},
    {"tokenize", command_tokenize, &tokenize_table, "text to token ids"},
    {"template", command_template, &template_table,
     "a conversation to the prompt that the chat template makes of it"},
    {"constrain", command_constrain, &constrain_table, "which texts keep to a schema or a grammar"},
    {"logits", command_logits, &logits_table, "the logits after every token of a list"},
    {"eval", command_eval, &eval_table,
     "how well a model foretells a text, and how far it is from another form of it"},
    {"imatrix", command_imatrix, &imatrix_table, "which inputs of a model matter, for quantize"},
    {"inspect", command_inspect, &inspect_table, "what a model file holds"},
    {"convert", command_convert, &convert_table, "make a model file of a Hugging Face folder"},
    {"quantize", command_quantize, &quantize_table, "a model's file with fewer bits a weight"},
    {"devices", command_devices, &devices_table, "what a model can be computed on here"},
    {"pull", command_pull, &pull_table, "download a model"},
    {"list", command_list, &list_table, "which models are known, and which are here"},
    {"rm", command_rm, &rm_table, "remove a model"},
};

const struct command *commands_at(size_t index)
{
    return index < sizeof commands / sizeof *commands ? &commands[index] : NULL;
}

const struct command *commands_find(const char *name)
{
    const struct command *command;
    for (size_t i = 0; (command = commands_at(i)); i++)
        if (strcmp(name, command->name) == 0)
            return command;
    return NULL;
}
