/* device_check.h: what the tests of device code share: one device for a program, and what goes to it and comes back.
 *
 * The device is PoCL's where there is one, else the first that there is; RUNNEL_TEST_GPU is a part of the name of another. Without any a
 * program says "skipped" and ends with 77. */
#ifndef TESTS_GPU_DEVICE_CHECK_H
#define TESTS_GPU_DEVICE_CHECK_H

#include "gpu/kernels.h"
#include "helpers/kernel_check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEST_TIMEOUT_MS = 1200000
}; /* PoCL compiles at the first launch, on a machine that may have much to do */

static struct gpu *test_gpu;
static runnel_error test_error; /* of the last call that MUST made */

#define MUST(call)                                                                                           \
    do {                                                                                                     \
        if ((call) != RUNNEL_OK)                                                                             \
            fail_msg("%s: %s", #call, test_error.message);                                                   \
    } while (0)

static inline bool is_wanted(const struct gpu_info *info)
{
    const char *name = getenv("RUNNEL_TEST_GPU");
    return name && *name ? strstr(info->name, name) != NULL : info->is_cpu;
}

/* approximates: as gpu/device.h has it. */
static inline void open_test_gpu_for(bool approximates)
{
    struct gpu_info infos[8];
    runnel_error problem, error;
    uint32_t n = 0, chosen = 0;
    if (access("/sys", R_OK) != 0) /* PoCL's hwloc ends the process where it cannot read it */
        setenv("HWLOC_SYNTHETIC", "pack:1 core:2 pu:1", 0);
    gpu_list(infos, 8, &n, &problem);
    for (uint32_t i = 0; i < n; i++)
        chosen = is_wanted(&infos[i]) ? i : chosen;
    if (!n) {
        printf("skipped: there is no GPU, nor PoCL (packages.txt): %s\n",
               problem.code ? problem.message : "no driver");
        exit(77);
    }
    infos[chosen].approximates = approximates;
    if (gpu_open(&infos[chosen], &test_gpu, &error) != RUNNEL_OK) {
        printf("%s\n", error.message);
        exit(1);
    }
    printf("%s, %s, %s%s\n", infos[chosen].name, infos[chosen].interface, infos[chosen].driver,
           gpu_is_exact(&infos[chosen]) ? "" : ": not exact");
}

static inline void open_test_gpu(void)
{
    open_test_gpu_for(false);
}

/* As much memory with this content; of zero bytes none. */
static inline struct gpu_place upload(const void *data, size_t n_bytes)
{
    struct gpu_buffer buffer = {0, 0};
    if (!n_bytes)
        return gpu_at(buffer, 0);
    MUST(gpu_alloc(test_gpu, n_bytes + 64, &buffer, &test_error)); /* and an offset */
    MUST(gpu_write(test_gpu, gpu_at(buffer, 64), data, n_bytes, &test_error));
    MUST(gpu_finish(test_gpu, TEST_TIMEOUT_MS, &test_error));
    return gpu_at(buffer, 64);
}

/* Memory in which every bit is set. */
static inline struct gpu_place make_place(size_t n_bytes)
{
    uint8_t *bytes = malloc(n_bytes);
    assert_non_null(bytes);
    memset(bytes, 0xff, n_bytes);
    struct gpu_place place = upload(bytes, n_bytes);
    free(bytes);
    return place;
}

static inline void download(struct gpu_place place, void *data, size_t n_bytes)
{
    MUST(gpu_read(test_gpu, place, data, n_bytes, &test_error));
    MUST(gpu_finish(test_gpu, TEST_TIMEOUT_MS, &test_error));
}

static inline void release(struct gpu_place *place)
{
    gpu_free(test_gpu, &place->buffer);
}

static const struct gpu_place nowhere = {{0, 0}, 0};

#endif
