/* words.c: see words.h. */
#include "service/words.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

const char *words_of_end(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigdescr_np(WTERMSIG(status));
        snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status), name ? name : "unknown");
    } else {
        snprintf(out, size, "ended with status %d", WEXITSTATUS(status));
    }
    return out;
}
