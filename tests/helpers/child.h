/* child.h: a function in a process of its own: what it wrote, and how it ended. */
#ifndef RUNNEL_TEST_CHILD_H
#define RUNNEL_TEST_CHILD_H

struct child {
    int status;         /* of waitpid */
    char text[1 << 15]; /* what was written to the descriptor, with a 0 behind it */
};

/* Runs run(descriptor, user) in a child of this process, which exits with 0 if it returns, and waits for its end. */
void child_run(void (*run)(int descriptor, void *user), void *user, struct child *child);

#endif
