/* test_devices.c: which device is meant by what somebody says, on made-up lists of devices. */
#include "backend/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gpu_info device(const char *name, bool is_cpu)
{
    struct gpu_info info = {.interface = "opencl",
                            .is_cpu = is_cpu,
                            .has_fma = true,
                            .has_denormals = true,
                            .has_exact_division = true};
    snprintf(info.name, sizeof info.name, "%s", name);
    return info;
}

/* Two cards of one kind, another one, one that cannot be used, and a CPU in disguise. */
static struct backend_devices full_house(void)
{
    struct backend_devices devices = {.n = 5};
    devices.infos[0] = device("NVIDIA GeForce RTX 4090", false);
    devices.infos[1] = device("NVIDIA GeForce RTX 4090", false);
    devices.infos[2] = device("Intel(R) Arc(TM) A770", false);
    devices.infos[3] = device("Old card", false);
    devices.infos[3].has_denormals = false;
    devices.infos[4] = device("pthread-cpu", true);
    return devices;
}

static void check_for(const struct backend_devices *devices, const char *wish, bool approximates,
                      uint32_t expected)
{
    runnel_error error = {.message = ""};
    uint32_t index = UINT32_MAX;
    if (backend_devices_choose(devices, wish, approximates, &index, &error))
        fail_msg("%s: %s", wish, error.message);
    assert_int_equal(index, expected);
}

static void check(const struct backend_devices *devices, const char *wish, uint32_t expected)
{
    check_for(devices, wish, false, expected);
}

static void refuse(const struct backend_devices *devices, const char *wish, int code, const char *words)
{
    runnel_error error = {.message = ""};
    uint32_t index = 77;
    assert_int_equal(backend_devices_choose(devices, wish, false, &index, &error), code);
    assert_int_equal(index, 77);
    if (!strstr(error.message, words))
        fail_msg("expected '%s' in '%s'", words, error.message);
}

static void names_and_parts_of_them(void **state)
{
    (void)state;
    const struct backend_devices devices = full_house();
    check(&devices, "gpu", 0);
    check(&devices, "auto", 0);
    check(&devices, "gpu1", 1);
    check(&devices, "GPU2", 2);
    check(&devices, "arc", 2);
    check(&devices, "intel(r) arc(tm) a770", 2);
    check(&devices, "pthread-cpu", 4);
    check(&devices, "gpu4", 4);
}

static void cards_come_first(void **state)
{
    (void)state;
    struct backend_devices devices = {.n = 4};
    devices.infos[0] = device("cpu", true);
    devices.infos[1] = device("integrated", false);
    devices.infos[1].is_integrated = true;
    devices.infos[2] = device("card", false);
    devices.infos[3] = device("another card", false);
    devices.infos[0].is_integrated = true; /* PoCL says so */
    backend_devices_sort(&devices);
    assert_int_equal(devices.n, 4);
    assert_string_equal(devices.infos[0].name, "card");
    assert_string_equal(devices.infos[1].name, "another card");
    assert_string_equal(devices.infos[2].name, "integrated");
    assert_string_equal(devices.infos[3].name, "cpu");
}

static void what_is_not_there_is_told(void **state)
{
    (void)state;
    const struct backend_devices devices = full_house();
    refuse(&devices, "4090", RUNNEL_EINVAL,
           "2 have that in their names: expected one of gpu0 (NVIDIA GeForce RTX 4090)");
    refuse(&devices, "gpu5", RUNNEL_EINVAL, "did you mean gpu");
    refuse(&devices, "atuo", RUNNEL_EINVAL, "did you mean auto?");
    refuse(&devices, "GTX 1080", RUNNEL_EINVAL, "expected cpu, gpu, auto or one of gpu0");
    refuse(&devices, "old", RUNNEL_EUNSUPPORTED, "no denormal numbers");
}

/* What does not round as the CPU does is taken where that is allowed, and its refusal says how to allow it. */
static void other_bits_than_the_cpus(void **state)
{
    (void)state;
    struct backend_devices devices = full_house();
    refuse(&devices, "gpu3", RUNNEL_EUNSUPPORTED, "it can be used with gpu_approximate");
    check_for(&devices, "gpu3", true, 3);
    check_for(&devices, "old", true, 3);
    check_for(&devices, "gpu", true, 0);
    devices.infos[0] = devices.infos[3];
    devices.n = 1;
    refuse(&devices, "gpu", RUNNEL_EUNSUPPORTED, "it can be used with gpu_approximate");
    check(&devices, "auto", 1);
    check_for(&devices, "gpu", true, 0);
    check_for(&devices, "auto", true, 0);
}

/* Only "auto" goes on without, and it takes no CPU in disguise. */
static void without_a_card(void **state)
{
    (void)state;
    struct backend_devices devices = {.n = 1};
    devices.infos[0] = device("pthread-cpu", true);
    check(&devices, "gpu", 0);
    check(&devices, "auto", 1);
    devices.infos[0].has_fma = false;
    refuse(&devices, "gpu", RUNNEL_EUNSUPPORTED, "no fused multiply-add");
    check(&devices, "auto", 1);
    devices.n = 0;
    check(&devices, "auto", 0);
    refuse(&devices, "gpu", RUNNEL_EUNSUPPORTED,
           "no driver of CUDA (libcuda.so.1) or OpenCL (libOpenCL.so.1) shows one");
    refuse(&devices, "4090", RUNNEL_EUNSUPPORTED, "device 4090: there is none");
    error_set(&devices.problem, RUNNEL_EIO, "libcuda.so.1: the driver is older than its kernel module");
    refuse(&devices, "gpu", RUNNEL_EUNSUPPORTED, "older than its kernel module");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_parts_of_them),
        cmocka_unit_test(cards_come_first),
        cmocka_unit_test(what_is_not_there_is_told),
        cmocka_unit_test(other_bits_than_the_cpus),
        cmocka_unit_test(without_a_card),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
