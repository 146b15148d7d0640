/* tiny_engine.h: a tiny model, opened, and engines on it, for tests of requests. Whatever fails ends the test. */
#ifndef RUNNEL_TESTS_TINY_ENGINE_H
#define RUNNEL_TESTS_TINY_ENGINE_H

#include "helpers/tiny_model.h"
#include "runnel.h"

/* tiny_model_defaults with a context of 4,096. */
struct tiny_model_options tiny_engine_model(void);

/* Tests are run once more on a GPU (tests/CMakeLists.txt), as RUNNEL_DEVICE says: what models are opened with. */
runnel_model_options tiny_engine_options(void);

/* Whether a driver shows a device on which models can be computed: a card, or PoCL's. */
bool tiny_engine_has_gpu(void);

/* The model's file exists until this returns. */
runnel_model *tiny_engine_open(const struct tiny_model_options *options);
/* Ends a group of tests whose beginning had the model as the state. */
int tiny_engine_close(void **state);

/* Gives the request sampling values of its own, those that it had or the model's, and returns them to be changed. They
 * live until the program ends, so that requests may be copied and returned. Any thread. */
runnel_sampling *own_sampling(const runnel_model *model, runnel_request *request);

runnel_engine *tiny_engine_start(runnel_model *model, runnel_engine_options options);

/* Until nothing runs or waits and no page is used, as the engine publishes between two steps: within seconds, or the test fails. */
void tiny_engine_wait_until_idle(runnel_engine *engine);

#endif
