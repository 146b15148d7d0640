/* child.c: see child.h. */
#include "helpers/child.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

void child_run(void (*run)(int descriptor, void *user), void *user, struct child *child)
{
    static const struct rlimit no_core = {0, 0};
    int ends[2];
    size_t len = 0;
    ssize_t n;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        setrlimit(RLIMIT_CORE, &no_core);
        close(ends[0]);
        run(ends[1], user);
        _exit(0);
    }
    close(ends[1]);
    while (len + 1 < sizeof child->text &&
           (n = read(ends[0], child->text + len, sizeof child->text - 1 - len)) > 0)
        len += (size_t)n;
    child->text[len] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &child->status, 0), pid);
}
