/* tiny_engine.c: see tiny_engine.h. */
#include "helpers/tiny_engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct tiny_model_options tiny_engine_model(void)
{
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_context = 4096;
    return options;
}

runnel_model_options tiny_engine_options(void)
{
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.device = getenv("RUNNEL_DEVICE");
    return options;
}

bool tiny_engine_has_gpu(void)
{
    runnel_device_list *list;
    size_t n;
    bool found = false;
    if (runnel_devices(&list, &n, NULL))
        return false;
    for (size_t i = 0; i < n; i++) {
        runnel_device device = {.size = sizeof device};
        runnel_devices_get(list, i, &device);
        found = found || (strncmp(device.id, "gpu", 3) == 0 && !*device.problem);
    }
    runnel_devices_free(list);
    return found;
}

runnel_model *tiny_engine_open(const struct tiny_model_options *options)
{
    char path[] = "/tmp/runnel-tiny-XXXXXX";
    runnel_error error;
    runnel_model *model = NULL;
    int fd = mkstemp(path);
    const runnel_model_options opening = tiny_engine_options();
    assert_true(fd >= 0);
    close(fd);
    int failure = tiny_model_write(options, path, &error);
    if (!failure)
        failure = runnel_model_open(path, &opening, &model, &error);
    unlink(path);
    if (failure)
        fail_msg("%s", error.message);
    return model;
}

int tiny_engine_close(void **state)
{
    runnel_model_close(*state);
    return 0;
}

runnel_sampling *own_sampling(const runnel_model *model, runnel_request *request)
{
    struct own {
        struct own *next;
        runnel_sampling sampling;
    };
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct own *all; /* guarded by lock: threads of a test make requests at once */
    struct own *own = calloc(1, sizeof *own);
    assert_non_null(own);
    pthread_mutex_lock(&lock);
    own->next = all;
    all = own;
    pthread_mutex_unlock(&lock);
    if (request->sampling)
        own->sampling = *request->sampling;
    else
        runnel_sampling_init(model, &own->sampling);
    request->sampling = &own->sampling;
    return &own->sampling;
}

runnel_engine *tiny_engine_start(runnel_model *model, runnel_engine_options options)
{
    runnel_error error;
    runnel_engine *engine;
    options.size = sizeof options;
    if (runnel_engine_start(model, &options, &engine, &error))
        fail_msg("%s", error.message);
    return engine;
}

void tiny_engine_wait_until_idle(runnel_engine *engine)
{
    for (int i = 0; i < 3000; i++) {
        runnel_stats_values stats = {.size = sizeof stats};
        runnel_stats(engine, &stats);
        if (!stats.n_running && !stats.n_waiting && !stats.n_kv_used)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    fail_msg("requests still run or wait, or hold pages");
}
