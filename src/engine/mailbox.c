/* mailbox.c: the events of a request that wait to be taken (see mailbox.h). */
#include "engine/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* What the event points to follows in the same block. */
struct mail {
    struct mail *next;
    runnel_event event;
    runnel_response counts;
};

void mailbox_open(struct mailbox *mailbox, struct pool *pool, void (*on_ready)(void *user), void *user)
{
    pthread_condattr_t monotonic;
    *mailbox = (struct mailbox){.pool = pool, .on_ready = on_ready, .user = user, .descriptor = -1};
    mailbox->end = &mailbox->first;
    pthread_mutex_init(&mailbox->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&mailbox->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void mailbox_close(struct mailbox *mailbox)
{
    pool_give(mailbox->pool, mailbox->taken);
    while (mailbox->first) {
        struct mail *mail = mailbox->first;
        mailbox->first = mail->next;
        pool_give(mailbox->pool, mail);
    }
    if (mailbox->descriptor >= 0)
        close(mailbox->descriptor);
    pthread_cond_destroy(&mailbox->changed);
    pthread_mutex_destroy(&mailbox->lock);
}

/* Copying ------------------------------------------------------------------------------------------------- */

/* Copies bytes to *place and moves it on; the copy ends in a zero. */
static const char *copy_bytes(char **place, const char *bytes, size_t len)
{
    char *copy = *place;
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = 0;
    *place += len + 1;
    return copy;
}

static size_t mail_bytes(const runnel_event *event)
{
    size_t n_bytes = sizeof(struct mail) + event->text_len + 1;
    for (size_t i = 0; i < event->n_logprobs; i++)
        n_bytes += sizeof *event->logprobs + event->logprobs[i].n_bytes + 1;
    return n_bytes;
}

static struct mail *copy_event(struct pool *pool, const runnel_event *event)
{
    struct mail *mail = pool_take(pool, mail_bytes(event));
    if (!mail)
        return NULL;
    *mail = (struct mail){.event = *event};
    runnel_logprob *logprobs = (runnel_logprob *)(mail + 1);
    char *place = (char *)(logprobs + event->n_logprobs);
    mail->event.text = copy_bytes(&place, event->text, event->text_len);
    if (event->n_logprobs)
        mail->event.logprobs = logprobs;
    for (size_t i = 0; i < event->n_logprobs; i++) {
        logprobs[i] = event->logprobs[i];
        logprobs[i].bytes = copy_bytes(&place, event->logprobs[i].bytes, event->logprobs[i].n_bytes);
    }
    if (event->counts) {
        mail->counts = *event->counts;
        mail->event.counts = &mail->counts;
    }
    return mail;
}

/* Putting in ---------------------------------------------------------------------------------------------- */

static bool is_empty(const struct mailbox *mailbox)
{
    return !mailbox->first && (!mailbox->has_end || mailbox->end_is_taken);
}

/* With the lock held, once something was put into an empty mailbox. */
static void mark_readable(const struct mailbox *mailbox)
{
    const uint64_t one = 1;
    if (mailbox->descriptor >= 0 && write(mailbox->descriptor, &one, sizeof one) < 0)
        (void)errno; /* EAGAIN alone is possible: it is readable already */
}

/* With the lock held, once the mailbox is empty. */
static void mark_unreadable(const struct mailbox *mailbox)
{
    uint64_t count;
    if (mailbox->descriptor >= 0 && read(mailbox->descriptor, &count, sizeof count) < 0)
        (void)errno; /* EAGAIN alone is possible: it was not readable */
}

/* With the lock held, once something was put in: lets go of the lock and says so to whoever waits. */
static void unlock_and_tell(struct mailbox *mailbox, bool was_empty)
{
    if (was_empty)
        mark_readable(mailbox);
    pthread_cond_signal(&mailbox->changed);
    pthread_mutex_unlock(&mailbox->lock);
    if (was_empty && mailbox->on_ready)
        mailbox->on_ready(mailbox->user);
}

bool mailbox_put(struct mailbox *mailbox, const runnel_event *event)
{
    struct mail *mail = copy_event(mailbox->pool, event);
    if (!mail)
        return false;
    pthread_mutex_lock(&mailbox->lock);
    bool was_empty = is_empty(mailbox);
    *mailbox->end = mail;
    mailbox->end = &mail->next;
    unlock_and_tell(mailbox, was_empty);
    return true;
}

void mailbox_put_end(struct mailbox *mailbox, const runnel_event *event)
{
    pthread_mutex_lock(&mailbox->lock);
    bool was_empty = is_empty(mailbox);
    mailbox->end_event = *event;
    mailbox->has_end = true;
    unlock_and_tell(mailbox, was_empty);
}

/* Taking out ---------------------------------------------------------------------------------------------- */

static struct timespec moment_after(int ms)
{
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    moment.tv_sec += ms / 1000;
    moment.tv_nsec += ms % 1000 * 1000000L;
    if (moment.tv_nsec >= 1000000000L) {
        moment.tv_sec++;
        moment.tv_nsec -= 1000000000L;
    }
    return moment;
}

/* With the lock held: waits until there is something, or the time is up, or nothing can come any more. */
static void wait_for_mail(struct mailbox *mailbox, int timeout_ms)
{
    const struct timespec moment = moment_after(timeout_ms > 0 ? timeout_ms : 0);
    int status = 0;
    while (is_empty(mailbox) && !mailbox->end_is_taken && timeout_ms != 0 && status != ETIMEDOUT)
        status = timeout_ms < 0 ? pthread_cond_wait(&mailbox->changed, &mailbox->lock)
                                : pthread_cond_timedwait(&mailbox->changed, &mailbox->lock, &moment);
}

/* With the lock held. */
static const runnel_event *take_first(struct mailbox *mailbox)
{
    struct mail *mail = mailbox->first;
    if (mail) {
        mailbox->first = mail->next;
        if (!mailbox->first)
            mailbox->end = &mailbox->first;
        mailbox->taken = mail;
        return &mail->event;
    }
    if (!mailbox->has_end || mailbox->end_is_taken)
        return NULL;
    mailbox->end_is_taken = true;
    pthread_cond_broadcast(
        &mailbox->changed); /* whoever else waits, though only one should: nothing comes any more */
    return &mailbox->end_event;
}

const runnel_event *mailbox_take(struct mailbox *mailbox, int timeout_ms)
{
    pthread_mutex_lock(&mailbox->lock);
    wait_for_mail(mailbox, timeout_ms);
    struct mail *latest = mailbox->taken;
    mailbox->taken = NULL;
    const runnel_event *event = take_first(mailbox);
    if (event && is_empty(mailbox))
        mark_unreadable(mailbox);
    pthread_mutex_unlock(&mailbox->lock);
    pool_give(mailbox->pool, latest);
    return event;
}

int mailbox_descriptor(struct mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->descriptor < 0)
        mailbox->descriptor = eventfd(is_empty(mailbox) ? 0 : 1, EFD_NONBLOCK | EFD_CLOEXEC);
    int descriptor = mailbox->descriptor;
    pthread_mutex_unlock(&mailbox->lock);
    return descriptor;
}
