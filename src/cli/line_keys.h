/* line_keys.h: the bytes of the terminal become keys: UTF-8, the sequences of special keys, pasted texts. One thread. */
#ifndef RUNNEL_CLI_LINE_KEYS_H
#define RUNNEL_CLI_LINE_KEYS_H

#include "base/utf8.h"
#include "cli/line_text.h"

enum key {
    KEY_CHARACTER, /* keys.character */
    KEY_PASTE,     /* keys.pasted */
    KEY_UNKNOWN,
    KEY_ENTER,
    KEY_NEWLINE,
    KEY_LEFT,
    KEY_RIGHT,
    KEY_UP,
    KEY_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_BACKSPACE,
    KEY_DELETE,
    KEY_DELETE_OR_END,
    KEY_ERASE_TO_BEGIN,
    KEY_ERASE_TO_END,
    KEY_ERASE_WORD_LEFT,
    KEY_ERASE_WORD_RIGHT,
    KEY_INSERT_ERASED,
    KEY_SWAP,
    KEY_SEARCH,
    KEY_CLEAR_SCREEN,
    KEY_LEAVE,
    KEY_INTERRUPT,
    KEY_STOP,
    KEY_QUIT,
    KEY_RESUMED,  /* the program was stopped and goes on */
    KEY_NO_INPUT, /* the terminal is gone */
};

struct line_keys {
    char bytes[4096]; /* read and not yet taken */
    size_t begin, end;
    struct utf8_assembler assembler;
    wchar_t queued[2]; /* characters that came with one byte */
    size_t n_queued;
    wchar_t character;
    struct line_text pasted;
};

/* Waits for the next key. */
enum key line_keys_next(struct line_keys *keys);
/* Whether there is more at once: nothing needs to be painted before it. */
bool line_keys_pending(const struct line_keys *keys);
/* Forgets what was typed and not yet taken. */
void line_keys_drop(struct line_keys *keys);
void line_keys_free(struct line_keys *keys);

#endif
