/* levels.h: what a program that is linked with levels.c (`emulated_levels` in tests/CMakeLists.txt) may say of the machine
 * that it seems to run on. */
#ifndef TESTS_EMULATED_LEVELS_H
#define TESTS_EMULATED_LEVELS_H

/* An environment variable: if it is set before kernels are first asked for, the system refuses AMX with these words. */
#define EMULATED_AMX_REFUSAL "EMULATED_AMX_REFUSAL"

#endif
