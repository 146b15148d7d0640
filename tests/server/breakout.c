/* breakout.c: what somebody would try who had found a defect in the server. The program runnel_breakout is `runnel` in which this
 * stands before the function that answers /health (the linker's --wrap): GET /health?try=open tries to open a file, on the loop's
 * thread, and the status is 200 if it could, 403 with the errno as the body if it could not.
 *
 * With BREAKOUT_WITHOUT=seccomp in its environment, the program runs where filters of system calls are not permitted. */
#include "server/health.h"
#include "server/net/exchange.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void __real_health_get(struct server *server, struct exchange *exchange);
void __wrap_health_get(struct server *server, struct exchange *exchange);

/* Each returns 0, or -1 with errno. */

static int close_if_open(int descriptor)
{
    return descriptor < 0 ? -1 : close(descriptor);
}

static int try_open(void)
{
    return close_if_open(open("/etc/passwd", O_RDONLY));
}

static int try_openat2(void)
{
    struct open_how how = {.flags = O_RDONLY};
    return close_if_open((int)syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how));
}

static int try_create(void)
{
    return close_if_open(open("/tmp", O_TMPFILE | O_WRONLY, 0600));
}

static int try_memfd(void)
{
    return close_if_open(memfd_create("program", 0));
}

static int try_unlink(void)
{
    return unlink("/nowhere/at/all") && errno == EPERM ? -1 : 0;
}

static int try_stat(void)
{
    struct stat status;
    return stat("/etc/passwd", &status);
}

static int try_socket(void)
{
    return close_if_open(socket(AF_INET, SOCK_STREAM, 0));
}

/* From a socket that is there already: of the first connection. Where connect is permitted, the system says that it is connected. */
static int try_connect(void)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int descriptor = 3; descriptor < 64; descriptor++)
        if (!connect(descriptor, (const struct sockaddr *)&address, sizeof address) || errno == EISCONN ||
            errno == ECONNREFUSED)
            return 0;
    return -1;
}

/* A way to connect without connect. */
static int try_fastopen(void)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int descriptor = 3; descriptor < 64; descriptor++)
        if (sendto(descriptor, "", 0, MSG_FASTOPEN | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                   sizeof address) >= 0 ||
            errno == EISCONN || errno == ECONNREFUSED || errno == EOPNOTSUPP)
            return 0;
    return -1;
}

static int try_listen(void)
{
    return listen(0, 1) && errno == EPERM ? -1 : 0;
}

static int try_execute(void)
{
    char program[] = "/bin/true";
    char *const arguments[] = {program, NULL}, *const environment[] = {NULL};
    execve(program, arguments, environment); /* the server is /bin/true from now on, and ends with 0 */
    return -1;
}

static int try_fork(void)
{
    int status;
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    return pid < 0 ? -1 : waitpid(pid, &status, 0) == pid ? 0 : -1;
}

static void *do_nothing(void *user)
{
    return user;
}

static int try_thread(void)
{
    pthread_t thread;
    int failure = pthread_create(&thread, NULL, do_nothing, NULL);
    errno = failure;
    return failure ? -1 : pthread_join(thread, NULL);
}

static int unmap(void *page)
{
    return page == MAP_FAILED ? -1 : munmap(page, 4096);
}

static int try_executable_memory(void)
{
    return unmap(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static int try_making_memory_executable(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC))
        return -1;
    return unmap(page);
}

static int try_signal(void)
{
    return kill(getppid(), 0);
}

static int try_ptrace(void)
{
    return ptrace(PTRACE_PEEKDATA, getppid(), NULL, NULL) && errno == EPERM ? -1 : 0;
}

static int try_limits(void)
{
    const struct rlimit none = {0, 0};
    return setrlimit(RLIMIT_CORE, &none);
}

static const struct {
    const char *name;
    int (*run)(void);
} tries[] = {
    {"open", try_open},
    {"openat2", try_openat2},
    {"create", try_create},
    {"memfd", try_memfd},
    {"unlink", try_unlink},
    {"stat", try_stat},
    {"socket", try_socket},
    {"connect", try_connect},
    {"fastopen", try_fastopen},
    {"listen", try_listen},
    {"execute", try_execute},
    {"fork", try_fork},
    {"thread", try_thread},
    {"executable_memory", try_executable_memory},
    {"make_executable", try_making_memory_executable},
    {"signal", try_signal},
    {"ptrace", try_ptrace},
    {"limits", try_limits},
};

void __wrap_health_get(struct server *server, struct exchange *exchange)
{
    static const char asks[] = "try=";
    struct exchange_text query = exchange_query(exchange);
    char body[32] = "";
    if (query.len < strlen(asks) || memcmp(query.bytes, asks, strlen(asks)) != 0) {
        __real_health_get(server, exchange);
        return;
    }
    int status = 404;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
        if (query.len - strlen(asks) == strlen(tries[i].name) &&
            !memcmp(query.bytes + strlen(asks), tries[i].name, strlen(tries[i].name))) {
            status = tries[i].run() ? 403 : 200;
            snprintf(body, sizeof body, "%d\n", status == 403 ? errno : 0);
        }
    exchange_respond(exchange, status, "text/plain", NULL, body, strlen(body));
}

__attribute__((constructor)) static void forbid_filters(void)
{
    const char *without = getenv("BREAKOUT_WITHOUT");
    if (!without || strcmp(without, "seccomp") != 0)
        return;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(seccomp), 0) ||
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1,
                         SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP, 0)) ||
        seccomp_load(filter))
        abort();
    seccomp_release(filter);
}
