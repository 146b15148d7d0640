/* line_display.c: see line_display.h. Every row is ended with "\r\n" and never left to the terminal's own wrapping, and
 * behind a character whose width terminals see differently the column is set: what is painted stands where it is thought
 * to. Bytes go out in one write a time. */
#include "cli/line_display.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char continuation[] = "... ";
enum { TAB_COLUMNS = 8, CONTINUATION_COLUMNS = sizeof continuation - 1, USUAL_COLUMNS = 80, USUAL_ROWS = 24 };

static void add(struct line_display *display, const char *string)
{
    text_add_string(&display->output, string);
}

static void add_command(struct line_display *display, int n, char letter)
{
    char command[24];
    if (n <= 0)
        return;
    snprintf(command, sizeof command, "\033[%d%c", n, letter);
    add(display, command);
}

static void add_chars(struct line_display *display, const struct line_text *text, size_t begin, size_t end)
{
    char bytes[4];
    for (size_t i = begin; i < end; i++)
        text_add(&display->output, bytes, line_char_encode(text->chars[i], bytes));
}

static void write_out(struct line_display *display)
{
    struct text *output = &display->output;
    for (size_t done = 0; display->fd >= 0 && done < output->len;) {
        ssize_t n = write(display->fd, output->bytes + done, output->len - done);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
        if (n > 0)
            done += (size_t)n;
    }
    output->len = 0;
}

/* Columns of the prompt, which is plain text without control characters. */
static int prompt_columns(const struct line_display *display)
{
    int n = 0;
    struct line_text prompt = {0};
    if (line_text_set(&prompt, display->prompt))
        for (size_t at = 0, next; at < prompt.n; at = next) {
            bool uncertain;
            next = line_text_next(&prompt, at);
            n += line_text_width(&prompt, at, next, &uncertain);
        }
    line_text_free(&prompt);
    return n < display->n_columns ? n : display->n_columns - 1;
}

static bool take_size(struct line_display *display)
{
    struct winsize size = {0};
    if (ioctl(display->fd, TIOCGWINSZ, &size))
        size.ws_col = 0;
    int n_columns = size.ws_col > CONTINUATION_COLUMNS + 1 ? size.ws_col : USUAL_COLUMNS;
    int n_rows = size.ws_row ? size.ws_row : USUAL_ROWS;
    bool same = n_columns == display->n_columns && n_rows == display->n_rows;
    display->n_columns = n_columns;
    display->n_rows = n_rows;
    return !same;
}

/* Where the character at `at` stands if the pen is at *pen before it (a full row: at its end); *pen is then behind it.
 * *next is where the next character begins. */
static struct line_place lay_out(const struct line_display *display, const struct line_text *text, size_t at,
                                 struct line_place *pen, size_t *next, bool *uncertain)
{
    *next = line_text_next(text, at);
    *uncertain = false;
    struct line_place place = *pen;
    if (text->chars[at] == '\n') {
        *pen = (struct line_place){pen->row + 1, CONTINUATION_COLUMNS};
        return place;
    }
    bool is_tab = text->chars[at] == '\t';
    int width = is_tab ? 1 : line_text_width(text, at, *next, uncertain);
    if (place.column + width > display->n_columns)
        place = (struct line_place){place.row + 1, 0};
    if (is_tab) {
        int to_stop = TAB_COLUMNS - place.column % TAB_COLUMNS, left = display->n_columns - place.column;
        width = to_stop < left ? to_stop : left;
    }
    *pen = (struct line_place){place.row, place.column + width};
    return place;
}

/* A full row's end is the next row's begin, where something stands or the cursor waits. */
static struct line_place settle(const struct line_display *display, struct line_place pen)
{
    return pen.column < display->n_columns ? pen : (struct line_place){pen.row + 1, 0};
}

static void move_to(struct line_display *display, struct line_place to)
{
    add_command(display, display->pen.row - to.row, 'A');
    add_command(display, to.row - display->pen.row, 'B');
    if (to.column != display->pen.column) {
        add(display, "\r");
        add_command(display, to.column, 'C');
    }
    display->pen = to;
}

/* Paints from `at` on, which stands at display->pen, as far as the screen reaches. */
static void paint(struct line_display *display, const struct line_text *text, size_t at)
{
    struct line_place pen = display->pen;
    int end_row = display->top + display->n_rows;
    while (at < text->n) {
        bool uncertain;
        size_t next;
        struct line_place place = lay_out(display, text, at, &pen, &next, &uncertain);
        if (place.row >= end_row || (text->chars[at] == '\n' && pen.row >= end_row))
            return;
        if (place.row > display->pen.row)
            add(display, "\r\n");
        if (text->chars[at] == '\n') {
            add(display, "\r\n");
            add(display, continuation);
        } else if (text->chars[at] == '\t') {
            for (int i = place.column; i < pen.column; i++)
                add(display, " ");
        } else {
            add_chars(display, text, at, next);
        }
        if (uncertain && pen.column < display->n_columns) {
            add_command(display, pen.column + 1, 'G');
            add(display, "\033[K");
        }
        display->pen = pen;
        at = next;
    }
    struct line_place end = settle(display, pen);
    if (end.row > pen.row && end.row < end_row) {
        add(display, "\r\n");
        display->pen = end;
    }
}

/* What has to be known of a text to paint it. */
struct layout {
    struct line_place cursor;
    struct line_place change;  /* where the first character that has changed stands */
    size_t change_at;          /* ... in the text */
    struct line_place top_pen; /* where the painting of row `top` begins */
    size_t top_at;
    int n_rows;
};

/* How many of the first characters already stand there. */
static size_t count_same(const struct line_text *a, const struct line_text *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->chars[n] == b->chars[n])
        n++;
    return n;
}

/* Lays the text out. Rows are known only at the end, so the caller may have to ask again with another `top`. */
static struct layout make_layout(const struct line_display *display, const struct line_text *text, int top)
{
    struct line_place pen = {0, prompt_columns(display)};
    struct layout layout = {.change = pen, .top_pen = pen, .cursor = pen};
    size_t n_same = count_same(text, &display->shown);
    size_t next = 0;
    bool found_top = top == 0, is_same = true;
    for (size_t at = 0; at < text->n; at = next) {
        bool uncertain;
        struct line_place place = lay_out(display, text, at, &pen, &next, &uncertain);
        if (at == text->cursor)
            layout.cursor = place.column < display->n_columns
                                ? place
                                : (struct line_place){place.row, display->n_columns - 1};
        if (!found_top && place.row == top) { /* a soft wrap leads there */
            found_top = true;
            layout.top_pen = place;
            layout.top_at = at;
        } else if (!found_top && pen.row == top) { /* a newline does */
            found_top = true;
            layout.top_pen = pen;
            layout.top_at = next;
        }
        /* What stands there already: the same characters, the last of which does not go on differently. */
        is_same = is_same && next <= n_same && line_text_next(&display->shown, at) == next;
        if (is_same && pen.column < display->n_columns) {
            layout.change = pen;
            layout.change_at = next;
        }
    }
    struct line_place end = settle(display, pen);
    if (text->cursor >= text->n)
        layout.cursor = end;
    if (!found_top) {
        layout.top_pen = end;
        layout.top_at = text->n;
    }
    layout.n_rows = end.row + 1;
    return layout;
}

static void keep_shown(struct line_display *display, const struct line_text *text)
{
    struct line_text *shown = &display->shown;
    line_text_remove(shown, 0, shown->n);
    if (!line_text_insert(shown, text->chars, text->n))
        display->is_new = true; /* no memory: all is painted the next time, too */
    shown->cursor = text->cursor;
}

/* Paints all rows that the screen has room for, from row `top` on, at the place where the terminal's cursor is. */
static void paint_all(struct line_display *display, const struct line_text *text, const struct layout *layout)
{
    if (display->top == 0)
        add(display, display->prompt);
    else if (layout->top_pen.column)
        add(display, continuation);
    display->pen = layout->top_pen;
    paint(display, text, layout->top_at);
}

static void show_rows(struct line_display *display, const struct line_text *text)
{
    int old_columns = display->n_columns, old_top = display->top;
    bool resized = take_size(display) && !display->is_new;
    struct layout layout = make_layout(display, text, display->top);
    int top = display->top;
    if (layout.n_rows <= display->n_rows)
        top = 0;
    else if (layout.cursor.row < top)
        top = layout.cursor.row;
    else if (layout.cursor.row >= top + display->n_rows)
        top = layout.cursor.row - display->n_rows + 1;
    if (top != display->top) {
        display->top = top;
        layout = make_layout(display, text, top);
    }
    int rows_above = display->pen.row - old_top;
    if (resized &&
        display->n_columns < old_columns) /* a terminal that became narrower has broken the rows anew */
        rows_above = rows_above * ((old_columns + display->n_columns - 1) / display->n_columns) +
                     display->pen.column / display->n_columns;
    if (display->is_new || resized || top != old_top || layout.change.row < top) {
        if (!display->is_new) {
            add_command(display, rows_above, 'A');
            add(display, "\r\033[J");
        }
        paint_all(display, text, &layout);
    } else if (layout.change.row < top + display->n_rows &&
               (layout.change_at < text->n || text->n < display->shown.n)) {
        move_to(display, layout.change);
        if (layout.change_at < display->shown.n)
            add(display, "\033[J");
        paint(display, text, layout.change_at);
    }
    move_to(display, layout.cursor);
}

/* One row for terminals without movement. A newline is shown as "^J", a tab as a space. */
static void show_row(struct line_display *display, const struct line_text *text)
{
    take_size(display);
    int n_prompt = prompt_columns(display), room = display->n_columns - n_prompt - 1, n_before = 0, n = 0;
    size_t begin = text->cursor, end;
    bool uncertain;
    while (begin) {
        size_t previous = line_text_previous(text, begin);
        int width = text->chars[previous] == '\n'   ? 2
                    : text->chars[previous] == '\t' ? 1
                                                    : line_text_width(text, previous, begin, &uncertain);
        if (n_before + width > room)
            break;
        n_before += width;
        begin = previous;
    }
    if (!display->is_new)
        add(display, "\r");
    add(display, display->prompt);
    for (end = begin; end < text->n;) {
        size_t next = line_text_next(text, end);
        bool is_newline = text->chars[end] == '\n', is_tab = text->chars[end] == '\t';
        int width = is_newline ? 2 : is_tab ? 1 : line_text_width(text, end, next, &uncertain);
        if (n + width > room)
            break;
        if (is_newline || is_tab)
            add(display, is_newline ? "^J" : " ");
        else
            add_chars(display, text, end, next);
        n += width;
        end = next;
    }
    int n_wiped = display->n_painted > n ? display->n_painted - n : 0;
    for (int i = 0; i < n_wiped; i++)
        add(display, " ");
    for (int i = n_before; i < n + n_wiped; i++)
        add(display, "\b");
    display->n_painted = n;
}

void line_display_begin(struct line_display *display, const char *prompt)
{
    for (; *prompt == '\n'; prompt++)
        add(display, "\r\n");
    display->prompt = prompt;
    display->top = display->n_painted = 0;
    display->pen = (struct line_place){0};
    display->is_new = true;
    line_text_remove(&display->shown, 0, display->shown.n);
}

void line_display_show(struct line_display *display, const struct line_text *text)
{
    const struct line_text *shown = &display->shown;
    bool is_same = !display->is_new && shown->n == text->n && shown->cursor == text->cursor &&
                   count_same(shown, text) == text->n;
    if (!is_same) {
        if (display->moves)
            show_rows(display, text);
        else
            show_row(display, text);
        display->is_new = false;
        keep_shown(display, text);
    }
    write_out(display);
}

void line_display_lost(struct line_display *display, bool clears)
{
    if (display->moves)
        add(display, clears ? "\033[H\033[2J" : "\r\033[J");
    line_display_begin(display, display->prompt);
}

void line_display_change_prompt(struct line_display *display, const char *prompt)
{
    if (display->moves) {
        move_to(display, (struct line_place){display->top, 0});
        add(display, "\r\033[J");
    }
    line_display_begin(display, prompt);
}

void line_display_end(struct line_display *display, struct line_text *text, bool ends_line)
{
    text->cursor = text->n;
    line_display_show(display, text);
    if (ends_line)
        add(display, "\r\n");
    write_out(display);
}

void line_display_free(struct line_display *display)
{
    line_text_free(&display->shown);
    text_free(&display->output);
}
