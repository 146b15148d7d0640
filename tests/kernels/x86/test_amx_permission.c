/* test_amx_permission.c: whether AMX may be used, from what the CPU and the system answer. */
#include "kernels/x86/amx_permission.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25, ALL = BF16 | TILE | INT8 };
enum { SAVED = 0x600e7 }; /* XCR0 with AVX-512, and bits 17 and 18 */

static void every_answer_has_its_verdict(void **state)
{
    (void)state;
    static const struct {
        uint32_t leaf7_edx, saved;
        bool has_avx512;
        int failure;
        enum amx_verdict verdict;
        const char *why; /* part of it */
    } cases[] = {
        {ALL, SAVED, true, 0, AMX_POSSIBLE, NULL},
        {0, 0xe7, true, 0, AMX_ABSENT, NULL},
        {ALL & ~BF16, SAVED, true, 0, AMX_ABSENT, NULL},
        {ALL & ~TILE, SAVED, true, 0, AMX_ABSENT, NULL},
        {ALL & ~INT8, SAVED, true, 0, AMX_ABSENT, NULL},
        {ALL, SAVED, false, 0, AMX_ABSENT, NULL},
        {0, 0xe7, true, EINVAL, AMX_ABSENT, NULL}, /* nobody was asked */
        {ALL, 0xe7, true, 0, AMX_REFUSED, "does not save them"},
        {ALL, SAVED & ~(1 << 17), true, 0, AMX_REFUSED, "does not save them"},
        {ALL, SAVED & ~(1 << 18), true, EPERM, AMX_REFUSED, "does not save them"},
        {ALL, SAVED, true, EPERM, AMX_REFUSED, "not permitted"},
        {ALL, SAVED, true, ENOSPC, AMX_REFUSED, "alternate signal stack"},
        {ALL, SAVED, true, EINVAL, AMX_REFUSED, "Linux 5.16"},
        {ALL, SAVED, true, EOPNOTSUPP, AMX_REFUSED, "Linux 5.16"},
        {ALL, SAVED, true, ENOMEM, AMX_REFUSED, "the system refused"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct cpu_features features = {.leaf7_edx = cases[i].leaf7_edx, .saved = cases[i].saved};
        const char *why = "not written";
        enum amx_verdict verdict = amx_decide(&features, cases[i].has_avx512, cases[i].failure, &why);
        if (verdict != cases[i].verdict || !why != !cases[i].why || (why && !strstr(why, cases[i].why)))
            fail_msg("case %zu: verdict %d, %s", i, (int)verdict, why ? why : "no words");
    }
}

static void this_machine_answers(void **state)
{
    (void)state;
    struct cpu_features features = cpu_features();
    bool possible = amx_is_possible();
    if (possible || !amx_is_in_cpu(&features, cpu_has_avx512()))
        assert_null(amx_why_refused());
    else
        assert_non_null(amx_why_refused());
    assert_int_equal(amx_is_possible(), possible);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_has_its_verdict),
        cmocka_unit_test(this_machine_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
