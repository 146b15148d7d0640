/* thread.h: threads that leave signals to whoever started them, and that have names. Any thread. */
#ifndef RUNNEL_BASE_THREAD_H
#define RUNNEL_BASE_THREAD_H

#include <pthread.h>

/* As pthread_create with default attributes: 0, or an errno that says why not. The new thread has all signals blocked that
 * come from outside: a Ctrl-C is for the program, whose line editor or event loop waits in a thread of its own and is not
 * woken when another one takes the signal. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* The first thing that a thread does which lives as long as a server: it gets this name, of up to 15 bytes, which `top -H` and
 * the report of a crash show, and what thread_at_begin asked for happens on it. */
void thread_begin(const char *name);

/* From now on each thread_begin calls `run` on its thread; NULL: nothing. */
void thread_at_begin(void (*run)(void));

#endif
