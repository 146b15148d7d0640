/* amx_machine.h: a program that links `amx_machine` (tests/CMakeLists.txt) runs as if on a machine with AMX: its kernels are
 * compiled on the emulation of tiles (amx_emulation.h), and AMX counts as possible wherever AVX-512 is, which the rest of these
 * kernels wants. All else is the same code. */
#ifndef RUNNEL_TESTS_AMX_MACHINE_H
#define RUNNEL_TESTS_AMX_MACHINE_H

/* An environment variable: if it is set before kernels are first asked for, the system refuses AMX with these words. */
#define AMX_MACHINE_REFUSAL "AMX_MACHINE_REFUSAL"

#endif
