/* title.h: what `ps` shows of a process: "runnel: worker 0" in place of its command line. The main thread only. */
#ifndef RUNNEL_SERVICE_TITLE_H
#define RUNNEL_SERVICE_TITLE_H

/* Before anything keeps a pointer into argv or the environment: the room of both becomes the title's, and both are copied
 * out of it for the rest of the process's life. Returns the copy of argv; argv itself if there is no memory, and titles
 * then change nothing. */
char **title_prepare(int argc, char **argv);

/* Also after a fork. A title that is too long is cut. */
void title_set(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
