/* line_editor.c: see line_editor.h. What the keys do.
 *
 * This is not libedit, because that shows no combining characters, knows no bracketed paste, cannot put a newline into a
 * line and loses signals; and GNU readline's licence is not ours. */
#include "cli/line_editor.h"

#include "base/error.h"
#include "cli/line_display.h"
#include "cli/line_history.h"
#include "cli/line_keys.h"
#include "cli/line_terminal.h"
#include "cli/line_text.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char block_mark[] = "\"\"\"";
enum { BLOCK_MARK = sizeof block_mark - 1 };

struct line_editor {
    struct line_text text;
    struct line_keys keys;
    struct line_display display;
    struct line_history history;
    size_t browsed;          /* which text of the history stands in the line; history.n: none */
    char *unfinished;        /* the line that was left for the history; NULL: none */
    struct line_text erased; /* what was erased last, for Ctrl-Y */
    const char *prompt;
    bool begins_as_is;           /* the text was not typed: """ at its begin opens nothing */
    bool ends_as_is;             /* likewise: a backslash at its end continues nothing */
    bool was_interrupted;        /* the last key was Ctrl-C in an empty line */
    locale_t utf8, found_locale; /* LC_CTYPE of this thread alone: the width of characters */
};

/* Opening ------------------------------------------------------------------------------------------------- */

int line_editor_open(const char *history_path, struct line_editor **editor, runnel_error *error)
{
    struct line_editor *opened = calloc(1, sizeof *opened);
    if (!opened || !line_history_open(&opened->history, history_path)) {
        free(opened);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the line editor");
    }
    opened->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    if (opened->utf8)
        opened->found_locale = uselocale(opened->utf8);
    struct line_display *display = &opened->display;
    display->fd = isatty(STDOUT_FILENO) ? STDOUT_FILENO : isatty(STDERR_FILENO) ? STDERR_FILENO : -1;
    display->moves = terminal_knows_commands();
    terminal_open(display->moves ? display->fd : -1);
    *editor = opened;
    return RUNNEL_OK;
}

void line_editor_restore(void)
{
    terminal_restore();
}

void line_editor_close(struct line_editor *editor)
{
    if (!editor)
        return;
    terminal_close();
    if (editor->utf8) {
        uselocale(editor->found_locale);
        freelocale(editor->utf8);
    }
    line_text_free(&editor->text);
    line_text_free(&editor->erased);
    line_keys_free(&editor->keys);
    line_display_free(&editor->display);
    line_history_close(&editor->history);
    free(editor->unfinished);
    free(editor);
}

void line_editor_remember(struct line_editor *editor, const char *text)
{
    line_history_add(&editor->history, text);
}

/* Editing ------------------------------------------------------------------------------------------------- */

/* Takes [begin, end) out of the text; keeps: for Ctrl-Y. */
static void erase(struct line_editor *editor, size_t begin, size_t end, bool keeps)
{
    struct line_text *text = &editor->text, *erased = &editor->erased;
    if (begin == end)
        return;
    if (keeps) {
        line_text_remove(erased, 0, erased->n);
        line_text_insert(erased, text->chars + begin, end - begin);
    }
    line_text_remove(text, begin, end);
    editor->ends_as_is = false;
    if (begin < BLOCK_MARK)
        editor->begins_as_is = false;
}

static void insert(struct line_editor *editor, const wchar_t *chars, size_t n, bool as_is)
{
    bool at_begin = editor->text.cursor < BLOCK_MARK, at_end = editor->text.cursor == editor->text.n;
    line_text_insert(&editor->text, chars, n);
    if (at_begin)
        editor->begins_as_is = as_is;
    if (at_end)
        editor->ends_as_is = as_is;
}

/* The character before the cursor and the one behind it change places; at the end: the two before it. */
static void swap(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    size_t second = text->cursor < text->n ? text->cursor : line_text_previous(text, text->n);
    size_t first = line_text_previous(text, second), end = line_text_next(text, second);
    if (first == second || text->chars[first] == '\n')
        return;
    struct line_text moved = {0};
    if (line_text_insert(&moved, text->chars + first, second - first)) {
        line_text_remove(text, first, second);
        text->cursor = first + end - second;
        insert(editor, moved.chars, moved.n, false);
    }
    line_text_free(&moved);
}

/* The history ----------------------------------------------------------------------------------------------- */

/* Shows a text of the history; history.n: the line that was left for it. */
static void browse(struct line_editor *editor, size_t which)
{
    struct line_history *history = &editor->history;
    if (which > history->n)
        return;
    if (editor->browsed == history->n) {
        free(editor->unfinished);
        editor->unfinished = line_text_bytes(&editor->text, 0, editor->text.n);
    }
    const char *bytes = which < history->n ? history->texts[which] : editor->unfinished;
    line_text_set(&editor->text, bytes ? bytes : "");
    editor->browsed = which;
    editor->begins_as_is = editor->ends_as_is = which < history->n;
}

/* Up and down: within a text of several lines, at its edges through the history. */
static void go_up(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    size_t begin = line_text_line_begin(text, text->cursor);
    if (!begin) {
        if (editor->browsed)
            browse(editor, editor->browsed - 1);
        return;
    }
    size_t column = text->cursor - begin, above = line_text_line_begin(text, begin - 1);
    size_t place = above + column < begin - 1 ? above + column : begin - 1;
    text->cursor = place > above ? line_text_next(text, line_text_previous(text, place)) : place;
}

static void go_down(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    size_t end = line_text_line_end(text, text->cursor);
    if (end == text->n) {
        if (editor->browsed < editor->history.n)
            browse(editor, editor->browsed + 1);
        return;
    }
    size_t column = text->cursor - line_text_line_begin(text, text->cursor);
    size_t below = end + 1, below_end = line_text_line_end(text, below);
    size_t place = below + column < below_end ? below + column : below_end;
    text->cursor = place > below ? line_text_next(text, line_text_previous(text, place)) : place;
}

/* The newest text before `before` that has needle in it; history.n: none. */
static size_t find_before(const struct line_history *history, size_t before, const char *needle)
{
    while (before--)
        if (strstr(history->texts[before], needle))
            return before;
    return history->n;
}

static void show_search(struct line_editor *editor, const char *needle, bool found)
{
    char *prompt;
    if (asprintf(&prompt, "(%ssearch: %s) ", found ? "" : "no such ", needle) < 0)
        return;
    line_display_change_prompt(&editor->display, prompt);
    line_display_show(&editor->display, &editor->text);
    line_display_change_prompt(&editor->display, editor->prompt);
    free(prompt);
}

/* Ctrl-R: what is typed is looked for in the history, Ctrl-R again goes further back. Any other key takes what was found
 * and is returned; Ctrl-G or Ctrl-C: the line is as it was before. */
static enum key search(struct line_editor *editor)
{
    struct line_history *history = &editor->history;
    struct line_text wanted = {0};
    char *before = line_text_bytes(&editor->text, 0, editor->text.n);
    size_t browsed_before = editor->browsed, found = history->n;
    bool begins_as_is = editor->begins_as_is, ends_as_is = editor->ends_as_is;
    enum key key;
    for (bool is_there = true;;) {
        char *needle = line_text_bytes(&wanted, 0, wanted.n);
        show_search(editor, needle ? needle : "", is_there);
        free(needle);
        key = line_keys_next(&editor->keys);
        if (key == KEY_CHARACTER)
            line_text_insert(&wanted, &editor->keys.character, 1);
        else if (key == KEY_BACKSPACE)
            line_text_remove(&wanted, line_text_previous(&wanted, wanted.n), wanted.n);
        else if (key != KEY_SEARCH)
            break;
        needle = line_text_bytes(&wanted, 0, wanted.n);
        size_t place = history->n;
        if (needle && *needle)
            place =
                find_before(history, key == KEY_SEARCH || found == history->n ? found : found + 1, needle);
        free(needle);
        is_there = place < history->n || !wanted.n;
        if (place < history->n) {
            found = place;
            browse(editor, found);
        }
    }
    if ((key == KEY_LEAVE || key == KEY_INTERRUPT) && before) {
        line_text_set(&editor->text, before);
        editor->browsed = browsed_before;
        editor->begins_as_is = begins_as_is;
        editor->ends_as_is = ends_as_is;
        key = KEY_UNKNOWN;
    }
    free(before);
    line_text_free(&wanted);
    return key;
}

/* The end of a text ------------------------------------------------------------------------------------------ */

static bool has_mark(const struct line_text *text, size_t at)
{
    for (size_t i = 0; i < BLOCK_MARK; i++)
        if (at + i >= text->n || text->chars[at + i] != block_mark[i])
            return false;
    return true;
}

static bool is_block(const struct line_editor *editor)
{
    return !editor->begins_as_is && has_mark(&editor->text, 0);
}

/* Whether the text is complete with Enter; if not, it has got a newline at its end. */
static bool finish(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    bool continues = text->n && text->chars[text->n - 1] == '\\' && !editor->ends_as_is;
    if (is_block(editor)) {
        if (text->n >= (size_t)2 * BLOCK_MARK && has_mark(text, text->n - BLOCK_MARK))
            return true;
    } else if (continues) {
        line_text_remove(text, text->n - 1, text->n);
    } else {
        return true;
    }
    text->cursor = text->n;
    insert(editor, L"\n", 1, false);
    return false;
}

/* What is between the marks of a block, without the newlines beside them; else all. */
static char *take_text(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    size_t begin = 0, end = text->n;
    if (is_block(editor)) {
        begin = BLOCK_MARK;
        end -= BLOCK_MARK;
        if (begin < end && text->chars[begin] == '\n')
            begin++;
        if (begin < end && text->chars[end - 1] == '\n')
            end--;
    }
    return line_text_bytes(text, begin, end);
}

/* Reading --------------------------------------------------------------------------------------------------- */

/* Keys that move or erase; false: key is none of them. */
static bool edit(struct line_editor *editor, enum key key)
{
    struct line_text *text = &editor->text;
    size_t at = text->cursor;
    switch (key) {
    case KEY_CHARACTER:
        insert(editor, &editor->keys.character, 1, false);
        return true;
    case KEY_PASTE:
        insert(editor, editor->keys.pasted.chars, editor->keys.pasted.n, true);
        return true;
    case KEY_NEWLINE:
        insert(editor, L"\n", 1, true);
        return true;
    case KEY_LEFT:
        text->cursor = line_text_previous(text, at);
        return true;
    case KEY_RIGHT:
        text->cursor = line_text_next(text, at);
        return true;
    case KEY_HOME:
        text->cursor = line_text_line_begin(text, at);
        return true;
    case KEY_END:
        text->cursor = line_text_line_end(text, at);
        return true;
    case KEY_WORD_LEFT:
        text->cursor = line_text_word_begin(text, at);
        return true;
    case KEY_WORD_RIGHT:
        text->cursor = line_text_word_end(text, at);
        return true;
    case KEY_BACKSPACE:
        erase(editor, line_text_previous(text, at), at, false);
        return true;
    case KEY_DELETE:
    case KEY_DELETE_OR_END: /* the end: read_keys has seen to it */
        erase(editor, at, line_text_next(text, at), false);
        return true;
    case KEY_ERASE_TO_BEGIN:
        erase(editor, line_text_line_begin(text, at), at, true);
        return true;
    case KEY_ERASE_TO_END:
        erase(editor, at, line_text_line_end(text, at), true);
        return true;
    case KEY_ERASE_WORD_LEFT:
        erase(editor, line_text_word_begin(text, at), at, true);
        return true;
    case KEY_ERASE_WORD_RIGHT:
        erase(editor, at, line_text_word_end(text, at), true);
        return true;
    case KEY_INSERT_ERASED:
        insert(editor, editor->erased.chars, editor->erased.n, false);
        return true;
    case KEY_SWAP:
        swap(editor);
        return true;
    default:
        return false;
    }
}

/* All other keys but those that end the text. */
static void control(struct line_editor *editor, enum key key)
{
    switch (key) {
    case KEY_UP:
        go_up(editor);
        break;
    case KEY_DOWN:
        go_down(editor);
        break;
    case KEY_CLEAR_SCREEN:
        line_display_lost(&editor->display, true);
        break;
    case KEY_STOP:
        raise(SIGTSTP); /* arrives with the next wait, which answers KEY_RESUMED */
        break;
    case KEY_QUIT:
        raise(SIGQUIT);
        break;
    case KEY_RESUMED:
        line_display_lost(&editor->display, false);
        break;
    default:
        break;
    }
}

static enum line_result read_keys(struct line_editor *editor)
{
    struct line_text *text = &editor->text;
    for (;;) {
        if (!line_keys_pending(&editor->keys))
            line_display_show(&editor->display, text);
        enum key key = line_keys_next(&editor->keys);
        if (key == KEY_SEARCH)
            key = search(editor);
        if (key == KEY_ENTER && finish(editor))
            return LINE_TEXT;
        if (key == KEY_INTERRUPT && text->n)
            return LINE_CLEARED;
        if (key == KEY_INTERRUPT)
            return editor->was_interrupted ? LINE_END : LINE_INTERRUPTED;
        if (key == KEY_NO_INPUT || (key == KEY_DELETE_OR_END && !text->n))
            return LINE_END;
        if (!edit(editor, key))
            control(editor, key);
    }
}

enum line_result line_editor_read(struct line_editor *editor, const char *prompt, char **text)
{
    *text = NULL;
    fflush(stdout);
    fflush(stderr);
    line_text_remove(&editor->text, 0, editor->text.n);
    editor->browsed = editor->history.n;
    editor->begins_as_is = editor->ends_as_is = false;
    terminal_begin_reading();
    line_display_begin(&editor->display, prompt);
    editor->prompt = editor->display.prompt;
    line_display_show(&editor->display, &editor->text); /* the prompt, even if keys are waiting */
    enum line_result result = read_keys(editor);
    line_display_end(&editor->display, &editor->text, result == LINE_TEXT);
    terminal_end_reading();
    if (result == LINE_INTERRUPTED || result == LINE_CLEARED)
        line_keys_drop(&editor->keys); /* as the system does with Ctrl-C */
    editor->was_interrupted = result == LINE_INTERRUPTED;
    if (result == LINE_TEXT)
        *text = take_text(editor);
    return result == LINE_TEXT && !*text ? LINE_END : result;
}
