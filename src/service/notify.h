/* notify.h: tells systemd how the service is, by the protocol of sd_notify(3): lines to the socket that $NOTIFY_SOCKET names. Where
 * nobody listens, nothing happens. The supervisor's only thread. */
#ifndef RUNNEL_SERVICE_NOTIFY_H
#define RUNNEL_SERVICE_NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int socket; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_len;
    double every_ms; /* a sign of life is wanted so often; HUGE_VAL: never */
    double told_ms;  /* the last one */
};

/* Takes the variables out of the environment: what is started from here is not the service's main process. */
void notify_open(struct notify *notify);
void notify_close(struct notify *notify);

void notify_ready(const struct notify *notify, const char *status);
void notify_status(const struct notify *notify, const char *status);
void notify_reloading(const struct notify *notify); /* until notify_ready */
void notify_stopping(const struct notify *notify);
/* A sign of life, if it is time for one. */
void notify_alive(struct notify *notify, double now_ms);

#endif
