/* faults.h: makes memory, threads and reads fail on demand, below everything that a test program links.
 *
 * The program is linked with -Wl,--wrap for each function that is listed in tests/CMakeLists.txt: our own
 * code and the tests' go through here, calls from inside the C library do not. One fault is armed at a
 * time; any thread may run into it. */
#ifndef RUNNEL_TESTS_FAULTS_H
#define RUNNEL_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_MEMORY,      /* malloc and its like, mmap, mprotect, pthread_create: no memory */
    FAULT_READ_SHORT,  /* pread: half of what was asked for */
    FAULT_READ_SIGNAL, /* pread: EINTR */
    FAULT_READ_DISK,   /* pread: EIO */
    FAULT_READ_END,    /* pread: 0, the file has shrunk */
};

/* The calls from number first (1, 2 ...) on fail, at most n_failing of them; 0: all. */
void faults_arm(enum fault_kind kind, unsigned first, unsigned n_failing);
/* Only counts the calls that FAULT_MEMORY is about; none fails. */
void faults_count(void);
/* Calls since faults_arm or faults_count. */
unsigned faults_n_calls(void);
/* No more faults. Returns how many there were. */
unsigned faults_disarm(void);

/* What is allocated and not yet freed: pieces of memory, and bytes of maps. */
size_t faults_live_pieces(void);
size_t faults_mapped_bytes(void);

#endif
