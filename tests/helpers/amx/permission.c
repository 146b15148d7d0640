/* permission.c: stands in for src/kernels/x86/amx_permission.c in tests: a machine with AVX-512 has AMX, too, unless a test says
 * that the system refused it. */
#include "helpers/amx_machine.h"
#include "kernels/x86/amx_permission.h"

#include <stdlib.h>

bool amx_is_possible(void)
{
    return cpu_has_avx512() && !amx_why_refused();
}

const char *amx_why_refused(void)
{
    return cpu_has_avx512() ? getenv(AMX_MACHINE_REFUSAL) : NULL;
}
