/* line_terminal.c: see line_terminal.h. The static variables below are read by signal handlers. */
#include "cli/line_terminal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const char paste_on[] = "\033[?2004h", paste_off[] = "\033[?2004l";
/* SIGINT only until somebody else takes it: the editor while it reads, whoever waits for an answer. */
static const int taken_signals[] = {SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGINT};
enum { N_TAKEN = sizeof taken_signals / sizeof *taken_signals };

enum mode { MODE_FOUND, MODE_READING, MODE_ANSWERING };

static struct termios found, reading, answering;
static volatile sig_atomic_t is_terminal, mode, marks_paste, interrupted, resumed;
static int mark_fd = -1;
static struct sigaction found_actions[N_TAKEN];
static sigset_t mask_while_waiting;

bool terminal_knows_commands(void)
{
    const char *name = getenv("TERM");
    return name && *name && strcmp(name, "dumb") != 0 && strcmp(name, "unknown") != 0;
}

static void mark_paste(bool on)
{
    if (mark_fd < 0 || marks_paste == on)
        return;
    marks_paste = on;
    ssize_t ignored = write(mark_fd, on ? paste_on : paste_off, strlen(on ? paste_on : paste_off));
    (void)ignored; /* a terminal that is gone: the next read says so */
}

static void set_mode(enum mode wanted)
{
    mode = wanted;
    mark_paste(wanted == MODE_READING);
    if (is_terminal)
        tcsetattr(STDIN_FILENO, TCSANOW,
                  wanted == MODE_FOUND     ? &found
                  : wanted == MODE_READING ? &reading
                                           : &answering);
}

void terminal_restore(void)
{
    if (mode != MODE_FOUND)
        set_mode(MODE_FOUND);
}

/* Gives the terminal back, does what the signal does by default, and takes the terminal again if the program goes on:
 * after SIGTSTP. */
static void on_signal(int signal_number)
{
    int saved_errno = errno;
    enum mode saved_mode = (enum mode)mode;
    struct sigaction ours, system = {.sa_handler = SIG_DFL};
    sigset_t one;
    terminal_restore();
    sigaction(signal_number, &system, &ours);
    raise(signal_number);
    sigemptyset(&one);
    sigaddset(&one, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    sigaction(signal_number, &ours, NULL);
    set_mode(saved_mode);
    resumed = 1;
    errno = saved_errno;
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void block_signals(void)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    for (int i = 0; i < N_TAKEN; i++)
        sigaddset(&blocked, taken_signals[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &mask_while_waiting);
}

void terminal_open(int paste_fd)
{
    is_terminal = tcgetattr(STDIN_FILENO, &found) == 0;
    mark_fd = paste_fd;
    answering = found;
    answering.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    answering.c_lflag |= NOFLSH; /* the Ctrl-C that stops an answer leaves what was typed meanwhile */
    answering.c_cc[VMIN] = 1;
    answering.c_cc[VTIME] = 0;
    reading = answering;
    reading.c_iflag &= (tcflag_t) ~(ICRNL | INLCR | IGNCR | ISTRIP | IXON | BRKINT);
    reading.c_lflag &= (tcflag_t) ~(ISIG | IEXTEN);
    for (int i = 0; i < N_TAKEN; i++) {
        sigaction(taken_signals[i], NULL, &found_actions[i]);
        if (found_actions[i].sa_handler == SIG_DFL)
            sigaction(taken_signals[i], &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART},
                      NULL);
    }
    set_mode(MODE_ANSWERING);
}

void terminal_close(void)
{
    terminal_restore();
    for (int i = 0; i < N_TAKEN; i++)
        sigaction(taken_signals[i], &found_actions[i], NULL);
    is_terminal = 0;
    mark_fd = -1;
}

/* Signals arrive only within a wait: none is lost between two of them. */
void terminal_begin_reading(void)
{
    interrupted = resumed = 0;
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_interrupt}, NULL);
    block_signals();
    set_mode(MODE_READING);
}

void terminal_end_reading(void)
{
    set_mode(MODE_ANSWERING);
    pthread_sigmask(SIG_SETMASK, &mask_while_waiting, NULL);
}

enum terminal_event terminal_read(char *bytes, size_t size, size_t *len)
{
    for (;;) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = ppoll(&in, 1, NULL, &mask_while_waiting);
        if (interrupted) {
            interrupted = 0;
            return TERMINAL_INTERRUPTED;
        }
        if (resumed) {
            resumed = 0;
            return TERMINAL_RESUMED;
        }
        ssize_t n = ready > 0 ? read(STDIN_FILENO, bytes, size) : -1;
        if (n > 0) {
            *len = (size_t)n;
            return TERMINAL_BYTES;
        }
        if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return TERMINAL_END;
    }
}

bool terminal_has_bytes(int timeout_ms)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, timeout_ms) > 0;
}
