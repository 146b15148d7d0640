/* progress.c: the bar on stderr. One bar at a time, on the main thread.
 *
 * A signal that ends the program while a bar is drawn erases it first; what was done about those signals before is kept in
 * static variables, the only ones that a signal handler can read. */
#include "cli/progress.h"

#include "cli/line_terminal.h"
#include "cli/size_text.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const double redraw_s = 0.1, line_s = 5;

static const char erase_line[] = "\r\033[K";
static const int ending_signals[] = {SIGINT, SIGTERM};
enum { N_ENDING = sizeof ending_signals / sizeof *ending_signals };
static struct sigaction actions_before[N_ENDING];

/* Erases the bar and leaves the signal to whoever had it before. */
static void on_ending(int signal_number)
{
    ssize_t ignored = write(STDERR_FILENO, erase_line, strlen(erase_line));
    (void)ignored;
    for (int i = 0; i < N_ENDING; i++)
        if (ending_signals[i] == signal_number)
            sigaction(signal_number, &actions_before[i], NULL);
    raise(signal_number);
}

static void take_signals(void)
{
    for (int i = 0; i < N_ENDING; i++) {
        sigaction(ending_signals[i], NULL, &actions_before[i]);
        if (actions_before[i].sa_handler != SIG_IGN)
            sigaction(ending_signals[i], &(struct sigaction){.sa_handler = on_ending}, NULL);
    }
}

static void give_signals_back(void)
{
    for (int i = 0; i < N_ENDING; i++)
        sigaction(ending_signals[i], &actions_before[i], NULL);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void progress_start(struct progress *progress, const char *label, uint64_t begin)
{
    *progress = (struct progress){
        .label = label, .terminal = isatty(STDERR_FILENO) && terminal_knows_commands(), .begin = begin};
    progress->start_s = now_s();
    progress->last_s = progress->terminal ? progress->start_s - redraw_s : progress->start_s;
}

void progress_start_counting(struct progress *progress, const char *label, const char *unit, uint64_t begin)
{
    progress_start(progress, label, begin);
    progress->unit = unit;
}

double progress_seconds(const struct progress *progress)
{
    return now_s() - progress->start_s;
}

enum { AMOUNT_BYTES = 48 };

/* "470 MB"; of what is counted "3120", with a unit "3120 tokens". Returns text. */
static const char *format_amount(const struct progress *progress, uint64_t n, const char *unit,
                                 char text[AMOUNT_BYTES])
{
    if (!progress->unit)
        return size_text_growing(n, text);
    snprintf(text, AMOUNT_BYTES, "%" PRIu64 "%s%s", n, unit ? " " : "", unit ? unit : "");
    return text;
}

/* "470 MB of 1.12 GB  12.3 MB/s  0:52 left", as far as it is known. */
static void format_numbers(const struct progress *progress, uint64_t done, uint64_t total, char *text,
                           size_t size)
{
    char done_text[AMOUNT_BYTES], total_text[AMOUNT_BYTES], speed_text[AMOUNT_BYTES];
    double elapsed_s = progress_seconds(progress);
    double speed =
        elapsed_s > 0.5 && done > progress->begin ? (double)(done - progress->begin) / elapsed_s : 0;
    size_t len = (size_t)snprintf(text, size, "%s",
                                  format_amount(progress, done, total ? NULL : progress->unit, done_text));
    if (total)
        len += (size_t)snprintf(text + len, size - len, " of %s",
                                format_amount(progress, total, progress->unit, total_text));
    if (speed > 0)
        len += (size_t)snprintf(text + len, size - len, "  %s/s",
                                format_amount(progress, (uint64_t)speed, NULL, speed_text));
    if (speed > 0 && total > done) {
        double left_s = (double)(total - done) / speed;
        if (left_s < 360000)
            snprintf(text + len, size - len, "  %d:%02d left", (int)left_s / 60, (int)left_s % 60);
    }
}

/* How many bytes of the numbers fit: all, or those before a gap between two of them. */
static int fitting(const char *numbers, int room)
{
    int len = (int)strlen(numbers);
    if (len <= room)
        return len;
    for (int at = room; at > 0; at--)
        if (numbers[at] == ' ' && numbers[at + 1] == ' ')
            return at;
    return room > 0 ? room : 0;
}

static void draw_bar(const struct progress *progress, const char *numbers, double share, bool known)
{
    struct winsize window;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col ? window.ws_col : 80;
    int label_len = (int)strlen(progress->label), room = columns - 1 - label_len - 1; /* for the numbers */
    int width = room - (int)strlen(numbers) - 6;
    if (width > 40)
        width = 40;
    if (label_len > columns - 2)
        label_len = columns - 2;
    fprintf(stderr, "\r%.*s ", label_len, progress->label);
    if (known && width >= 8) {
        int full = (int)(share * width);
        fputc('[', stderr);
        for (int i = 0; i < width; i++)
            fputc(i < full ? '=' : i == full ? '>' : ' ', stderr);
        fputs("] ", stderr);
    }
    /* A line that broke could not be drawn over. */
    fprintf(stderr, "%.*s\033[K", fitting(numbers, room), numbers);
    fflush(stderr);
}

void progress_update(struct progress *progress, uint64_t done, uint64_t total)
{
    double now = now_s();
    if (now - progress->last_s < (progress->terminal ? redraw_s : line_s))
        return;
    progress->last_s = now;
    char numbers[96];
    format_numbers(progress, done, total, numbers, sizeof numbers);
    if (progress->terminal) {
        if (!progress->drawn)
            take_signals();
        draw_bar(progress, numbers, total ? (double)done / (double)total : 0, total > 0);
        progress->drawn = true;
    } else {
        fprintf(stderr, "%s %s\n", progress->label, numbers);
    }
}

void progress_end(struct progress *progress)
{
    if (!progress->drawn)
        return;
    fputs(erase_line, stderr);
    give_signals_back();
    progress->drawn = false;
}
