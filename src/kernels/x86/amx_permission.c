/* amx_permission.c: see amx_permission.h. */
#include "kernels/x86/amx_permission.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ASK_FOR_STATE = 0x1023, /* ARCH_REQ_XCOMP_PERM of arch_prctl(2), since Linux 5.16 */
    TILE_DATA = 18,         /* the state asked for: a bit of XCR0 */
    TILE_CONFIG = 17,
};

bool amx_is_in_cpu(const struct cpu_features *features, bool has_avx512)
{
    const uint32_t wanted = 1u << 22 | 1u << 24 | 1u << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    return has_avx512 && (features->leaf7_edx & wanted) == wanted;
}

/* The words for what the system answers. An alternate signal stack is too small for the tiles, which a signal saves there, unless
 * it has AT_MINSIGSTKSZ (getauxval) bytes and what the handler wants; nobody here sets one. */
static const char *words_of(int failure)
{
    switch (failure) {
    case ENOSPC:
        return "the system refused its tile registers: the alternate signal stack of a thread is too small "
               "for them";
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
        return "the system refused its tile registers: this kernel does not know them (Linux 5.16 does)";
    case EPERM:
    case EACCES:
        return "the system refused its tile registers: not permitted here (a sandbox or a virtual machine)";
    default:
        return "the system refused its tile registers";
    }
}

enum amx_verdict amx_decide(const struct cpu_features *features, bool has_avx512, int failure,
                            const char **why)
{
    const uint32_t wanted = 1u << TILE_CONFIG | 1u << TILE_DATA;
    *why = NULL;
    if (!amx_is_in_cpu(features, has_avx512))
        return AMX_ABSENT;
    if ((features->saved & wanted) != wanted)
        *why = "the system refused its tile registers: it does not save them";
    else if (failure)
        *why = words_of(failure);
    return *why ? AMX_REFUSED : AMX_POSSIBLE;
}

static enum amx_verdict ask(const char **why)
{
    struct cpu_features features = cpu_features();
    bool has_avx512 = cpu_has_avx512();
    int failure = 0;
    if (amx_is_in_cpu(&features, has_avx512) && syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) != 0)
        failure = errno;
    return amx_decide(&features, has_avx512, failure, why);
}

bool amx_is_possible(void)
{
    const char *why;
    return ask(&why) == AMX_POSSIBLE;
}

const char *amx_why_refused(void)
{
    const char *why;
    ask(&why);
    return why;
}
