/* notify.c: see notify.h. */
#include "service/notify.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A path, or a name that begins with '@' and has no file. */
static int read_address(struct notify *notify, const char *name)
{
    size_t len = name ? strlen(name) : 0;
    if (len < 2 || len >= sizeof notify->address.sun_path || (*name != '/' && *name != '@'))
        return -1;
    notify->address.sun_family = AF_UNIX;
    memcpy(notify->address.sun_path, name, len);
    if (*name == '@')
        notify->address.sun_path[0] = 0;
    notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return 0;
}

/* Twice as often as systemd wants it, as it advises. */
static double read_interval_ms(void)
{
    const char *microseconds = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    double every_ms = microseconds ? strtod(microseconds, NULL) / 1e3 / 2 : 0;
    if (pid && strtol(pid, NULL, 10) != (long)getpid())
        every_ms = 0;
    return every_ms > 0 ? every_ms : HUGE_VAL;
}

void notify_open(struct notify *notify)
{
    *notify = (struct notify){.socket = -1, .every_ms = HUGE_VAL};
    if (!read_address(notify, getenv("NOTIFY_SOCKET")))
        notify->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notify->socket >= 0)
        notify->every_ms = read_interval_ms();
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_close(struct notify *notify)
{
    if (notify->socket >= 0)
        close(notify->socket);
    notify->socket = -1;
}

static void say(const struct notify *notify, const char *lines)
{
    if (notify->socket >= 0)
        sendto(notify->socket, lines, strlen(lines), MSG_NOSIGNAL, (const struct sockaddr *)&notify->address,
               notify->address_len);
}

void notify_ready(const struct notify *notify, const char *status)
{
    char lines[256];
    snprintf(lines, sizeof lines, "READY=1\nSTATUS=%s", status);
    say(notify, lines);
}

void notify_status(const struct notify *notify, const char *status)
{
    char lines[256];
    snprintf(lines, sizeof lines, "STATUS=%s", status);
    say(notify, lines);
}

void notify_reloading(const struct notify *notify)
{
    struct timespec now;
    char lines[128];
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    say(notify, lines);
}

void notify_stopping(const struct notify *notify)
{
    say(notify, "STOPPING=1");
}

void notify_alive(struct notify *notify, double now_ms)
{
    if (now_ms - notify->told_ms < notify->every_ms)
        return;
    notify->told_ms = now_ms;
    say(notify, "WATCHDOG=1");
}
