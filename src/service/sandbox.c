/* sandbox.c: see sandbox.h. The filter is libseccomp's; what it lets through is listed here, and all else is refused. */
#include "service/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Capabilities -------------------------------------------------------------------------------------------- */

/* Leaves of the permitted ones at most `kept`, a bit for each of the first 64, and makes them effective. */
static int keep_capabilities(uint64_t kept, runnel_error *error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[2];
    if (syscall(SYS_capget, &header, now))
        return error_set(error, RUNNEL_EUNSUPPORTED, "capabilities cannot be read: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        now[i].permitted &= (uint32_t)(kept >> 32 * i);
        now[i].effective = now[i].permitted;
        now[i].inheritable = 0;
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* a kernel without them has none */
    if (syscall(SYS_capset, &header, now))
        return error_set(error, RUNNEL_EUNSUPPORTED, "capabilities cannot be dropped: %s", strerror(errno));
    return RUNNEL_OK;
}

int sandbox_drop_capabilities(runnel_error *error)
{
    return keep_capabilities(0, error);
}

/* What programs could gain that are executed. Only who has CAP_SETPCAP may give it up; nobody else gains it either. */
static void empty_bounding_set(void)
{
    for (unsigned long capability = 0; !prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); capability++)
        ;
}

int sandbox_begin(runnel_error *error)
{
    /* With TZ unset the C library looks at this file again and again, and takes UTC where it may not. */
    setenv("TZ", ":/etc/localtime", 0);
    tzset();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return error_set(error, RUNNEL_EUNSUPPORTED, "no_new_privs cannot be set: %s", strerror(errno));
    empty_bounding_set();
    return keep_capabilities((uint64_t)1 << CAP_DAC_READ_SEARCH, error);
}

/* System calls -------------------------------------------------------------------------------------------- */

/* A call and what its arguments must be. */
struct rule {
    int call;
    unsigned n_conditions;
    struct scmp_arg_cmp conditions[2];
};

#define CALL(name)                                                                                           \
    {                                                                                                        \
        SCMP_SYS(name), 0,                                                                                   \
        {                                                                                                    \
            {                                                                                                \
                0                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }
#define CALL_IF(name, one)                                                                                   \
    {                                                                                                        \
        SCMP_SYS(name), 1,                                                                                   \
        {                                                                                                    \
            one                                                                                              \
        }                                                                                                    \
    }
#define IS(index, value)                                                                                     \
    {                                                                                                        \
        index, SCMP_CMP_EQ, value, 0                                                                         \
    }
#define HAS_NO(index, bits)                                                                                  \
    {                                                                                                        \
        index, SCMP_CMP_MASKED_EQ, bits, 0                                                                   \
    }

#define HAS(index, bits, value)                                                                              \
    {                                                                                                        \
        index, SCMP_CMP_MASKED_EQ, bits, value                                                               \
    }

static const struct rule allowed[] = {
    /* What is open. lseek and getdents64: the folder of the process's own descriptors is read again. */
    CALL(read),
    CALL(readv),
    CALL(pread64),
    CALL(write),
    CALL(writev),
    CALL(close),
    CALL(fstat),
    CALL(lseek),
    CALL(getdents64),
    CALL(poll),
    CALL(ppoll),
    CALL(epoll_wait),
    CALL(epoll_pwait),
    CALL(epoll_pwait2),
    CALL(epoll_ctl),
    CALL_IF(fcntl, IS(1, F_GETFD)),
    CALL_IF(fcntl, IS(1, F_SETFD)),
    CALL_IF(fcntl, IS(1, F_GETFL)),
    CALL_IF(fcntl, IS(1, F_SETFL)),
    CALL_IF(fcntl, IS(1, F_DUPFD_CLOEXEC)), /* the listener's reserve */
    CALL_IF(ioctl, IS(1, FIONREAD)),
    CALL_IF(ioctl, IS(1, SIOCOUTQ)),
    /* Connections that come, and messages to the supervisor. MSG_FASTOPEN, or an address in sendto, would be a way to connect. */
    CALL(accept),
    CALL(accept4),
    CALL(recvfrom),
    {SCMP_SYS(sendto), 2, {HAS_NO(3, MSG_FASTOPEN), IS(4, 0)}},
    CALL_IF(sendmsg, HAS_NO(2, MSG_FASTOPEN)),
    CALL(shutdown),
    CALL(getsockopt),
    CALL(setsockopt),
    CALL(getsockname),
    CALL(getpeername),
    /* Memory, none of which becomes executable. */
    CALL(brk),
    CALL_IF(mmap, HAS_NO(2, PROT_EXEC)),
    CALL_IF(mprotect, HAS_NO(2, PROT_EXEC)),
    CALL(munmap),
    CALL(mremap),
    CALL(madvise),
    /* Threads that are there already, and the end of all. */
    CALL(futex),
    CALL(sched_yield),
    CALL(sched_getaffinity),
    CALL(getpid),
    CALL(getppid),
    CALL(gettid),
    CALL(exit),
    CALL(exit_group),
    CALL(restart_syscall),
    /* What a thread does first, which was started a moment before the sandbox closed. */
    CALL(rseq),
    CALL(set_robust_list),
    CALL_IF(prctl, IS(0, PR_SET_NAME)),
    /* Signals to itself (see also below), and the report of a crash. */
    CALL(rt_sigaction),
    CALL(rt_sigprocmask),
    CALL(rt_sigreturn),
    CALL(sigaltstack),
    CALL_IF(prctl, IS(0, PR_GET_NAME)),
    /* Time, chance, and what the process uses. prlimit64: it may ask for limits, but set none. */
    CALL(clock_gettime),
    CALL(clock_getres),
    CALL(clock_nanosleep),
    CALL(nanosleep),
    CALL(gettimeofday),
    CALL(time),
    CALL(getrandom),
    CALL(getrusage),
    CALL(getrlimit),
    CALL_IF(prlimit64, IS(2, 0)),
    CALL(sysinfo),
};

/* With a GPU: requests to devices that are open, by the letter of whose they are: F NVIDIA's, d the kernel's graphics drivers, K
 * AMD's for computing, G those of Windows under Linux there (/dev/dxg). Only those that say that they hand data over, to the device or back, as all of these drivers' do: a console and
 * its screen, which stderr may be, have bare numbers with the letters K and F. None of these is a terminal's, a socket's or a file's
 * (T, 0x89, f). NVIDIA's for memory have bare numbers, and no letter. */
#define WRITING        ((scmp_datum_t)_IOC_WRITE << _IOC_DIRSHIFT)
#define READING        ((scmp_datum_t)_IOC_READ << _IOC_DIRSHIFT)
#define OF_LETTER      ((scmp_datum_t)_IOC_TYPEMASK << _IOC_TYPESHIFT)
#define WRITES(letter) HAS(1, OF_LETTER | WRITING, WRITING | (scmp_datum_t)(letter) << _IOC_TYPESHIFT)
#define READS(letter)  HAS(1, OF_LETTER | READING, READING | (scmp_datum_t)(letter) << _IOC_TYPESHIFT)
static const struct rule allowed_for_gpu[] = {
    CALL_IF(ioctl, WRITES('F')), CALL_IF(ioctl, READS('F')),  CALL_IF(ioctl, WRITES('d')),
    CALL_IF(ioctl, READS('d')),  CALL_IF(ioctl, WRITES('K')), CALL_IF(ioctl, READS('K')),
    CALL_IF(ioctl, WRITES('G')), CALL_IF(ioctl, READS('G')),  CALL_IF(ioctl, HAS(1, OF_LETTER, 0)),
};

/* Neither the server nor a library under it makes these, whatever goes wrong: whoever does runs code of his own, and is to be
 * stopped before the next try. All that a library may try of its own accord (opening, connecting) is refused only. */
/* clang-format off */
static const int deadly[] = {
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(open_by_handle_at),
    SCMP_SYS(bpf), SCMP_SYS(userfaultfd), SCMP_SYS(perf_event_open),
    SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register),
    SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(mount),
    SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(chroot),
    SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load), SCMP_SYS(keyctl),
    SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(reboot),
};
/* clang-format on */

/* 0, or a negative errno. */
static int allow(scmp_filter_ctx filter, const struct rule *rules, size_t n)
{
    int failure = 0;
    for (size_t i = 0; i < n && !failure; i++)
        failure = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call, rules[i].n_conditions,
                                         rules[i].conditions);
    return failure;
}

/* 0, or a negative errno. */
static int add_rules(scmp_filter_ctx filter, bool has_gpu)
{
    int failure = allow(filter, allowed, sizeof allowed / sizeof *allowed);
    if (!failure && has_gpu)
        failure = allow(filter, allowed_for_gpu, sizeof allowed_for_gpu / sizeof *allowed_for_gpu);
    const struct scmp_arg_cmp own = {0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0};
    if (!failure)
        failure = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &own);
    /* A kernel that cannot end a process for a call (before 4.14) refuses it, as it does the rest. */
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly && !failure; i++)
        (void)seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
    return failure;
}

static int set_attributes(scmp_filter_ctx filter)
{
    /* The kernel may slow down what a filter watches, in case it runs others' code (mitigations of Spectre): here none is. */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, no list; libseccomp 2.5 */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    (void)seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1); /* failures are the system's own */
    return seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);   /* all threads, or none */
}

static int load_filter(bool has_gpu, runnel_error *error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return error_set(error, RUNNEL_EUNSUPPORTED, "no filter of system calls for this machine");
    int failure = set_attributes(filter);
    if (!failure)
        failure = add_rules(filter, has_gpu);
    if (!failure)
        failure = seccomp_load(filter);
    seccomp_release(filter);
    if (failure)
        return error_set(error, RUNNEL_EUNSUPPORTED, "the system takes no filter of system calls: %s",
                         strerror(-failure));
    return RUNNEL_OK;
}

int sandbox_close(bool has_gpu, runnel_error *error)
{
    if (RUNNEL_SANITIZED)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "a build with sanitizers, which open files of their own");
    int failure = sandbox_drop_capabilities(error);
    int filtered = load_filter(has_gpu, failure ? NULL : error);
    return failure ? failure : filtered;
}
