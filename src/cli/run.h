/* run.h: what the command `runnel run` is asked, as one answer and a chat need it. */
#ifndef RUNNEL_CLI_RUN_H
#define RUNNEL_CLI_RUN_H

#include "cli/cli.h"

#define RUN_DEFAULT_TOKENS "4096" /* of --n-tokens */

struct run_settings {
    const char *model, *prompt, *prompt_file, *system, *system_file, *chat_template, *chat_template_file,
        *reasoning, *draft;
    const char *schema; /* a file */
    char *config_text;
    char *schema_text; /* NULL: none */
    int n_tokens, answer_reserve, n_context, n_threads, top_k;
    float temperature, top_p, min_p;
    uint64_t seed;
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_seed, has_context, has_answer_reserve;
    bool raw, no_think, json, verbose;
    struct cli_device device;
};

/* A request with these settings, its text yet to come; sampling is filled, and becomes the request's. */
runnel_request run_make_request(const runnel_model *model, const struct run_settings *settings,
                                runnel_sampling *sampling);

/* What --ctx asks for, or the model's own context if that is shorter. */
uint32_t run_context_limit(const runnel_model *model, const struct run_settings *settings);

/* Says on stderr if --ctx asks for more than the model has; fails if the memory for n_context tokens cannot be had. */
int run_check_context(const runnel_model *model, const struct run_settings *settings, uint32_t n_context,
                      runnel_error *error);

/* Says on stderr what computes, if it is not the CPU alone, or not as it was asked. */
void run_tell_device(const runnel_model *model, runnel_engine *engine, const struct run_settings *settings);

/* Sets one of the options of `runnel run` to what a person typed, within its bounds. */
int run_set(struct run_settings *settings, const char *name, const char *text, runnel_error *error);

uint64_t run_random_seed(void);

/* Whether it makes a difference to the model's template that it shall not think. */
bool run_can_think(const runnel_model *model);

#endif
