/* amx_permission.h: may this process use AMX? The CPU must have it, the system must save the tile registers, and must be asked for
 * them, which it may refuse. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AMX_PERMISSION_H
#define RUNNEL_KERNELS_X86_AMX_PERMISSION_H

#include "kernels/x86/cpu.h"

/* Asks the system, on behalf of all threads of this process and of its children. */
bool amx_is_possible(void);

/* Why not, if the CPU has AMX; NULL: it has not, or all is well. */
const char *amx_why_refused(void);

/* How that is decided. */
enum amx_verdict { AMX_ABSENT, AMX_REFUSED, AMX_POSSIBLE };

/* Does the CPU have all of it: tiles, bytes and bf16, beside AVX-512 (has_avx512)? */
bool amx_is_in_cpu(const struct cpu_features *features, bool has_avx512);

/* failure: what the system answered, an errno or 0; it counts only where the CPU has AMX. why: NULL unless the verdict is
 * AMX_REFUSED. */
enum amx_verdict amx_decide(const struct cpu_features *features, bool has_avx512, int failure,
                            const char **why);

#endif
