/* test_amx_refused.c: on a machine with AMX (emulated/levels.h) whose system refuses it, the level below computes, and whoever
 * asks learns why. */
#include "emulated/levels.h"
#include "helpers/kernel_check.h"
#include "kernels/x86/cpu.h"

#include <stdlib.h>

static void the_level_below_computes(void **state)
{
    (void)state;
    char message[256] = "";
    assert_int_equal(unsetenv("RUNNEL_CPU"), 0);
    assert_string_equal(kernels_get(message, sizeof message)->name, "avx512");
    assert_string_equal(kernels_refused(), "amx: the system refused it for a test");
}

static void asked_for_by_name_it_says_why(void **state)
{
    (void)state;
    char message[256] = "";
    assert_int_equal(setenv("RUNNEL_CPU", "amx", 1), 0);
    assert_null(kernels_get(message, sizeof message));
    assert_non_null(strstr(message, "RUNNEL_CPU is \"amx\""));
    assert_non_null(strstr(message, "avx512; amx: the system refused it for a test"));
    assert_int_equal(unsetenv("RUNNEL_CPU"), 0);
}

int main(void)
{
    if (!cpu_has_avx512()) {
        printf("skipped: the kernels for AMX want AVX-512, too\n");
        return 77;
    }
    if (setenv(EMULATED_AMX_REFUSAL, "the system refused it for a test", 1))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_level_below_computes),
        cmocka_unit_test(asked_for_by_name_it_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
