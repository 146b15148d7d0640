/* devices.c: the functions of runnel.h that tell on what layers can be computed here: the CPU and the devices of backend/devices.h; and
 * how fast one is. A list owns its texts. Any thread. */
#include "backend/devices.h"

#include "base/limits.h"
#include "base/versioned.h"
#include "engine/arguments.h"
#include "engine/engine.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAN_BYTES = 256, DEVICES_MAX = BACKEND_DEVICES_MAX + 2 };

struct texts {
    char id[BACKEND_DEVICE_ID_BYTES], driver[96], can[CAN_BYTES], problem[256];
};

/* The CPU, the GPUs, and a driver that shows none because it does not work. */
struct runnel_device_list {
    struct backend_devices gpus;
    size_t n; /* of the next two */
    runnel_device devices[DEVICES_MAX];
    struct texts texts[DEVICES_MAX];
};

/* Appends to a list of things with commas between. */
static void add(char list[CAN_BYTES], const char *text)
{
    size_t len = strlen(list);
    snprintf(list + len, CAN_BYTES - len, "%s%s", len ? ", " : "", text);
}

static void describe_cpu(runnel_device_list *list)
{
    const struct kernels *possible, *in_use;
    struct texts *texts = &list->texts[list->n];
    size_t n_possible = kernels_possible(&possible);
    in_use = kernels_get(texts->problem, sizeof texts->problem);
    snprintf(texts->can, sizeof texts->can, "%u CPU%s", limits_cpus(), limits_cpus() == 1 ? "" : "s");
    for (size_t i = 0; i < n_possible; i++)
        add(texts->can, possible[i].name);
    list->devices[list->n++] = (runnel_device){
        .id = "cpu",
        .name = "this machine's CPU",
        .driver = in_use ? in_use->name : "",
        .can = texts->can,
        .problem = in_use ? "" : texts->problem,
        .memory_bytes = limits_memory().limit_bytes,
    };
}

static void describe_gpu(runnel_device_list *list, uint32_t index)
{
    const struct gpu_info info = list->gpus.infos[index]; /* a copy: the list is written from it */
    struct texts *texts = &list->texts[list->n];
    char *can = texts->can;
    snprintf(texts->driver, sizeof texts->driver, "%s %s", info.interface, info.driver);
    snprintf(texts->can, sizeof texts->can, "%u units", info.n_units);
    if (gpu_is_exact(&info))
        add(can, "the CPU's bits");
    if (info.has_integer_dot)
        add(can, "dot products of bytes");
    if (info.has_matrix_units)
        add(can, "matrix units");
    if (info.has_recordings)
        add(can, "recorded steps");
    if (info.is_integrated)
        add(can, "shares the machine's memory");
    bool has_problem = backend_device_problem(&info, texts->problem, sizeof texts->problem);
    list->devices[list->n++] = (runnel_device){
        .id = backend_device_id(index, texts->id),
        .name = list->gpus.infos[index].name,
        .driver = texts->driver,
        .can = can,
        .problem = has_problem ? texts->problem : "",
        .memory_bytes = info.memory_bytes,
        .is_gpu = !info.is_cpu,
    };
}

static void describe_problem(runnel_device_list *list)
{
    if (list->gpus.problem.code)
        list->devices[list->n++] = (runnel_device){.id = "",
                                                   .name = "a driver that shows no GPU",
                                                   .driver = "",
                                                   .can = "",
                                                   .problem = list->gpus.problem.message};
}

int runnel_devices(runnel_device_list **out, size_t *n, runnel_error *error)
{
    int failure = arguments_check(__func__, ARGUMENTS(POINTER(list, out), POINTER(n, n)), error);
    if (failure)
        return failure;
    runnel_device_list *list = calloc(1, sizeof *list);
    if (!list)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a list of devices");
    describe_cpu(list);
    backend_devices_find(&list->gpus);
    for (uint32_t i = 0; i < list->gpus.n; i++)
        describe_gpu(list, i);
    describe_problem(list);
    *n = list->n;
    *out = list;
    return RUNNEL_OK;
}

void runnel_devices_get(const runnel_device_list *list, size_t index, runnel_device *device)
{
    if (list && device && index < list->n)
        versioned_write(&list->devices[index], sizeof *list->devices, device);
}

void runnel_devices_free(runnel_device_list *list)
{
    free(list);
}

struct measurement {
    double gb_s;
    int failure;
    runnel_error *error;
};

static void measure(struct runnel_engine *engine, void *arg)
{
    struct measurement *measurement = arg;
    if (engine->device)
        measurement->failure = backend_device_measure(engine->device, &measurement->gb_s, measurement->error);
}

int runnel_measure_device(runnel_engine *engine, double *gb_s, runnel_error *error)
{
    struct measurement measurement = {.error = error};
    int failure = arguments_check(__func__, ARGUMENTS(POINTER(engine, engine), POINTER(gb_s, gb_s)), error);
    if (failure)
        return failure;
    engine_enter(engine);
    failure = engine_check_thread(engine, __func__, error);
    if (!failure)
        failure = engine_call(engine, measure, &measurement, error);
    engine_leave(engine);
    if (!failure)
        failure = measurement.failure;
    if (!failure)
        *gb_s = measurement.gb_s;
    return failure;
}
