/* crash.c: see crash.h. What the handler reads was gathered before, by crash_watch; what it calls is safe in a handler:
 * system calls, arithmetic, and backtrace(), which has been called once before and so has loaded what it loads. */
#include "service/crash.h"

#include "base/thread.h"

#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum {
    STACK_BYTES = 64 << 10, /* of a handler, beside what the kernel saves there */
    MODULES_MAX = 64,
    NAME_BYTES = 48,
    FRAMES_MAX = 64,
    LINE_BYTES = 400,
    BUILD_ID_BYTES = 32,
};

#if defined(__clang__)
#define COMPILER         "clang"
#define COMPILER_VERSION __clang_version__
#else
#define COMPILER         "gcc"
#define COMPILER_VERSION __VERSION__
#endif

/* A program or library in memory. */
struct module {
    uintptr_t begin, end; /* of what may be executed or read */
    uintptr_t base;       /* where its address 0 would be */
    char name[NAME_BYTES];
};

/* Written by crash_watch, read by the handler. */
static struct {
    int descriptor;
    bool is_json;
    struct module modules[MODULES_MAX];
    size_t n_modules;
    char build_id[2 * BUILD_ID_BYTES + 1]; /* hexadecimal; "": the linker has made none */
    atomic_bool began; /* a thread reports; others that crash meanwhile wait for their end */
} crash;

/* A line ---------------------------------------------------------------------------------------------------- */

struct line {
    size_t len;
    char bytes[LINE_BYTES];
};

static void add_char(struct line *line, char c)
{
    if (line->len < sizeof line->bytes)
        line->bytes[line->len++] = c;
}

static void add_text(struct line *line, const char *text)
{
    while (*text)
        add_char(line, *text++);
}

/* A name that may hold anything: of a thread, of a file. */
static void add_name(struct line *line, const char *name)
{
    for (; *name; name++)
        add_char(line, *name > ' ' && *name < 0x7f && *name != '"' && *name != '\\' ? *name
                       : *name == ' '                                               ? ' '
                                                                                    : '?');
}

/* At least so many digits. */
static void add_number(struct line *line, uint64_t number, unsigned base, int n_digits)
{
    char digits[64];
    int n = 0;
    for (; number || n < n_digits; number /= base)
        digits[n++] = "0123456789abcdef"[number % base];
    while (n)
        add_char(line, digits[--n]);
}

static void add_address(struct line *line, uintptr_t address)
{
    add_text(line, "0x");
    add_number(line, address, 16, 1);
}

/* Of the Gregorian calendar, by days since 1 March of the year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms"):
 * gmtime_r takes a lock. */
static void add_date(struct line *line, uint64_t n_days_since_1970)
{
    uint64_t n_days = n_days_since_1970 + 719468, era = n_days / 146097, of_era = n_days % 146097;
    uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year + year / 4 - year / 100), from_march = (5 * of_year + 2) / 153;
    uint64_t month = from_march < 10 ? from_march + 3 : from_march - 9;
    add_number(line, era * 400 + year + (month <= 2), 10, 4);
    add_char(line, '-');
    add_number(line, month, 10, 2);
    add_char(line, '-');
    add_number(line, of_year - (153 * from_march + 2) / 5 + 1, 10, 2);
}

static void add_time(struct line *line)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seconds = (uint64_t)now.tv_sec;
    add_date(line, seconds / 86400);
    add_char(line, 'T');
    add_number(line, seconds / 3600 % 24, 10, 2);
    add_char(line, ':');
    add_number(line, seconds / 60 % 60, 10, 2);
    add_char(line, ':');
    add_number(line, seconds % 60, 10, 2);
    add_char(line, '.');
    add_number(line, (uint64_t)now.tv_nsec / 1000000, 10, 3);
    add_char(line, 'Z');
}

static void line_begin(struct line *line)
{
    line->len = 0;
    add_text(line, crash.is_json ? "{\"time\":\"" : "");
    add_time(line);
    add_text(line, crash.is_json ? "\",\"event\":\"crash\",\"message\":\"" : " crash: ");
}

static void line_end(struct line *line)
{
    struct pollfd where = {.fd = crash.descriptor, .events = POLLOUT};
    add_text(line, crash.is_json ? "\"}\n" : "\n");
    if (poll(&where, 1, 0) != 1 || !(where.revents & POLLOUT))
        return;
    while (write(crash.descriptor, line->bytes, line->len) < 0 && errno == EINTR)
        ;
}

/* The report ------------------------------------------------------------------------------------------------ */

static const struct {
    int number;
    const char *name;
} signals[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"}, {SIGABRT, "SIGABRT"},
};
enum { N_SIGNALS = sizeof signals / sizeof *signals };

static void tell_signal(const siginfo_t *info)
{
    struct line line;
    char name[16] = "";
    line_begin(&line);
    for (size_t i = 0; i < N_SIGNALS; i++)
        if (signals[i].number == info->si_signo)
            add_text(&line, signals[i].name);
    if (info->si_code > 0) {
        add_text(&line, " at address ");
        add_address(&line, (uintptr_t)info->si_addr);
    } else if (info->si_pid != getpid()) {
        add_text(&line, " sent by process ");
        add_number(&line, (uint64_t)info->si_pid, 10, 1);
    }
    prctl(PR_GET_NAME, name);
    add_text(&line, ", thread ");
    add_name(&line, name);
    add_text(&line, " (");
    add_number(&line, (uint64_t)syscall(SYS_gettid), 10, 1);
    add_text(&line, ") of process ");
    add_number(&line, (uint64_t)getpid(), 10, 1);
    line_end(&line);
}

static void tell_build(void)
{
    struct line line;
    line_begin(&line);
    add_text(&line, "runnel ");
    add_text(&line, RUNNEL_VERSION);
    add_text(&line, ", build ");
    add_text(&line, *crash.build_id ? crash.build_id : "unknown");
    add_text(&line, ", ");
    add_text(&line, COMPILER);
    add_char(&line, ' ');
    add_name(&line, COMPILER_VERSION);
    line_end(&line);
}

static void tell_frame(unsigned index, uintptr_t address)
{
    struct line line;
    const struct module *found = NULL;
    for (size_t i = 0; i < crash.n_modules && !found; i++)
        if (address >= crash.modules[i].begin && address < crash.modules[i].end)
            found = &crash.modules[i];
    line_begin(&line);
    add_char(&line, '#');
    add_number(&line, index, 10, 1);
    if (found) {
        add_char(&line, ' ');
        add_name(&line, found->name);
        add_char(&line, '+');
        add_address(&line, address - found->base);
    } else {
        add_text(&line, " outside of all programs and libraries"); /* where, may be what memory held */
    }
    line_end(&line);
}

/* Where it happened; 0: nobody has written down for this machine which register knows. */
static uintptr_t counter_of(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

/* The first line comes from the signal itself: finding the others reads the stack, which may be what is broken. */
static void tell_frames(const ucontext_t *context)
{
    void *frames[FRAMES_MAX];
    unsigned index = 0;
    uintptr_t counter = counter_of(context);
    tell_frame(index++, counter);
    int n = backtrace(frames, FRAMES_MAX), first = 0;
    while (first < n && (uintptr_t)frames[first] != counter) /* the handler's own */
        first++;
    for (int i = first + 1; i < n; i++) /* each is where its function goes on: the call is before */
        tell_frame(index++, (uintptr_t)frames[i] - (frames[i] != NULL));
}

static void tell_end(void)
{
    struct line line;
    line_begin(&line);
    add_text(&line, "end of the report");
    line_end(&line);
}

/* Does not return: the signal, no longer blocked and no longer handled, ends the process. */
static void end_by(int number)
{
    sigset_t one;
    signal(number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, number);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    _exit(128 + number);
}

/* All signals are blocked meanwhile: a fault in here ends the process at once, with what has been written. */
static void on_crash(int number, siginfo_t *info, void *context)
{
    while (atomic_exchange(&crash.began, true))
        poll(NULL, 0, 1000);
    tell_signal(info);
    tell_build();
    tell_frames(context);
    tell_end();
    end_by(number);
}

/* Before ---------------------------------------------------------------------------------------------------- */

/* The note by which the linker tells one build of a program from another. */
static void read_build_id(const uint8_t *notes, size_t len)
{
    ElfW(Nhdr) note;
    for (size_t at = 0; at + sizeof note <= len;) {
        memcpy(&note, notes + at, sizeof note);
        size_t name = at + sizeof note, id = name + ((size_t)note.n_namesz + 3) / 4 * 4;
        at = id + ((size_t)note.n_descsz + 3) / 4 * 4;
        if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || note.n_descsz > BUILD_ID_BYTES ||
            at > len || memcmp(notes + name, "GNU", 4) != 0)
            continue;
        for (size_t i = 0; i < note.n_descsz; i++) {
            crash.build_id[2 * i] = "0123456789abcdef"[notes[id + i] >> 4];
            crash.build_id[2 * i + 1] = "0123456789abcdef"[notes[id + i] & 15];
        }
        crash.build_id[2 * note.n_descsz] = 0;
        return;
    }
}

static void add_segment(struct module *module, const ElfW(Phdr) * segment)
{
    uintptr_t begin = module->base + segment->p_vaddr;
    if (!module->end || begin < module->begin)
        module->begin = begin;
    if (begin + segment->p_memsz > module->end)
        module->end = begin + segment->p_memsz;
}

/* The program is the first one and has no name there: user. */
static int add_module(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    if (crash.n_modules == MODULES_MAX)
        return 1;
    struct module *module = &crash.modules[crash.n_modules];
    const char *path = *info->dlpi_name ? info->dlpi_name : user;
    const char *slash = strrchr(path, '/');
    *module = (struct module){.base = info->dlpi_addr};
    const char *name = slash ? slash + 1 : path;
    memcpy(module->name, name, strnlen(name, sizeof module->name - 1));
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD)
            add_segment(module, segment);
        if (segment->p_type == PT_NOTE && !crash.n_modules && !*crash.build_id)
            read_build_id((const uint8_t *)info->dlpi_addr + segment->p_vaddr, segment->p_memsz);
    }
    crash.n_modules++;
    return 0;
}

/* AMX, whose tiles a signal saves, wants so much: the system refuses it to a process that has a smaller alternate stack. */
static size_t stack_bytes(void)
{
    size_t least = getauxval(AT_MINSIGSTKSZ), page = (size_t)sysconf(_SC_PAGESIZE);
    if (least < (size_t)MINSIGSTKSZ)
        least = (size_t)MINSIGSTKSZ;
    return (least + STACK_BYTES + page - 1) / page * page;
}

static pthread_key_t stack_of_thread;

static void free_stack(void *stack)
{
    static const stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(stack, stack_bytes());
}

/* Gives the calling thread an alternate stack, if it has none. */
static bool give_stack(void)
{
    if (pthread_getspecific(stack_of_thread))
        return true;
    void *stack = mmap(NULL, stack_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return false;
    const stack_t alternate = {.ss_sp = stack, .ss_size = stack_bytes()};
    if (sigaltstack(&alternate, NULL) || pthread_setspecific(stack_of_thread, stack)) {
        free_stack(stack);
        return false;
    }
    return true;
}

static void give_stack_to_thread(void)
{
    (void)give_stack();
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_key;

static void gather(void)
{
    void *frame;
    char program[PATH_MAX] = "";
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) /* argv[0] may be a title by now */
        strcpy(program, "runnel");
    backtrace(&frame, 1); /* loads what it needs: before the modules are listed */
    dl_iterate_phdr(add_module, program);
    has_key = !pthread_key_create(&stack_of_thread, free_stack);
}

static void handle_signals(void)
{
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i].number, &action, NULL);
}

int crash_watch(int descriptor, bool is_json, runnel_error *error)
{
    if (RUNNEL_SANITIZED)
        return RUNNEL_OK;
    crash.descriptor = descriptor;
    crash.is_json = is_json;
    pthread_once(&once, gather);
    if (!has_key || !give_stack())
        return error_set(error, RUNNEL_ENOMEM, "no memory for the reports of crashes");
    thread_at_begin(give_stack_to_thread);
    handle_signals();
    return RUNNEL_OK;
}
