/* line_keys.c: see line_keys.h. */
#include "cli/line_keys.h"

#include "cli/line_terminal.h"

#include <string.h>

enum {
    ESCAPE = 27,
    ESCAPE_WAIT_MS = 100, /* how long the rest of a key's sequence may take to come */
    SEQUENCE_MAX = 32,
};

/* What next_byte returns beside bytes: the negative key that it means instead. */
static int next_byte(struct line_keys *keys)
{
    if (keys->begin == keys->end) {
        size_t len = 0;
        enum terminal_event event = terminal_read(keys->bytes, sizeof keys->bytes, &len);
        if (event != TERMINAL_BYTES)
            return event == TERMINAL_INTERRUPTED ? -KEY_INTERRUPT
                   : event == TERMINAL_RESUMED   ? -KEY_RESUMED
                                                 : -KEY_NO_INPUT;
        keys->begin = 0;
        keys->end = len;
    }
    return (unsigned char)keys->bytes[keys->begin++];
}

bool line_keys_pending(const struct line_keys *keys)
{
    return keys->n_queued || keys->begin < keys->end || terminal_has_bytes(0);
}

void line_keys_drop(struct line_keys *keys)
{
    keys->begin = keys->end = keys->n_queued = 0;
    keys->assembler = (struct utf8_assembler){0};
}

void line_keys_free(struct line_keys *keys)
{
    line_text_free(&keys->pasted);
}

/* A byte within text: up to two characters become certain. What is no UTF-8 is U+FFFD. */
static size_t take_byte(struct line_keys *keys, int byte, wchar_t chars[2])
{
    char bytes[UTF8_PUSH_MAX + 1];
    size_t n = 0, len = utf8_push(&keys->assembler, (uint8_t)byte, bytes), used;
    for (size_t at = 0; at < len; at += used)
        chars[n++] = line_char_decode(bytes + at, &used);
    return n;
}

static enum key control_key(wchar_t c)
{
    static const struct {
        char letter;
        enum key key;
    } controls[] = {
        {'A', KEY_HOME},
        {'B', KEY_LEFT},
        {'C', KEY_INTERRUPT},
        {'D', KEY_DELETE_OR_END},
        {'E', KEY_END},
        {'F', KEY_RIGHT},
        {'G', KEY_LEAVE},
        {'H', KEY_BACKSPACE},
        {'J', KEY_ENTER},
        {'K', KEY_ERASE_TO_END},
        {'L', KEY_CLEAR_SCREEN},
        {'M', KEY_ENTER},
        {'N', KEY_DOWN},
        {'P', KEY_UP},
        {'R', KEY_SEARCH},
        {'T', KEY_SWAP},
        {'U', KEY_ERASE_TO_BEGIN},
        {'W', KEY_ERASE_WORD_LEFT},
        {'Y', KEY_INSERT_ERASED},
        {'Z', KEY_STOP},
        {'\\', KEY_QUIT},
    };
    if (c == 0x7F)
        return KEY_BACKSPACE;
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
        if (c == (controls[i].letter & 0x1F))
            return controls[i].key;
    return KEY_UNKNOWN;
}

/* A pasted text: newlines and tabs stay, other control characters are left out, so that none is a key. "\r" and "\r\n",
 * which terminals send, are newlines. */
static enum key take_paste(struct line_keys *keys)
{
    static const char end_mark[] = "\033[201~";
    size_t n_matched = 0;
    bool after_return = false;
    line_text_remove(&keys->pasted, 0, keys->pasted.n);
    for (;;) {
        int byte = next_byte(keys);
        if (byte == -KEY_RESUMED)
            continue;
        if (byte < 0)
            return (enum key) - byte;
        /* The mark's first byte does not come again in it: a mismatch is a new begin or none. */
        n_matched = byte == end_mark[n_matched] ? n_matched + 1 : byte == ESCAPE;
        if (n_matched == sizeof end_mark - 1) {
            size_t n_shown = sizeof end_mark - 3; /* "[201" has been taken for text */
            line_text_remove(&keys->pasted, keys->pasted.n - n_shown, keys->pasted.n);
            return KEY_PASTE;
        }
        wchar_t chars[2];
        size_t n = take_byte(keys, byte, chars);
        for (size_t i = 0; i < n; i++) {
            wchar_t c = chars[i] == '\r' ? '\n' : chars[i];
            bool is_rest = chars[i] == '\n' && after_return;
            after_return = chars[i] == '\r';
            if (!is_rest && (c == '\n' || c == '\t' || !line_char_is_control(c)))
                line_text_insert(&keys->pasted, &c, 1);
        }
    }
}

/* "ESC [ parameters letter": what terminals send for special keys. A 5 (Ctrl) or 3 (Alt) as the second parameter moves by
 * words. */
static enum key sequence_key(const char *parameters, int letter)
{
    const char *second = strchr(parameters, ';');
    bool by_word = second && (second[1] == '5' || second[1] == '3');
    switch (letter) {
    case 'A':
        return KEY_UP;
    case 'B':
        return KEY_DOWN;
    case 'C':
        return by_word ? KEY_WORD_RIGHT : KEY_RIGHT;
    case 'D':
        return by_word ? KEY_WORD_LEFT : KEY_LEFT;
    case 'H':
        return KEY_HOME;
    case 'F':
        return KEY_END;
    }
    if (letter != '~')
        return KEY_UNKNOWN;
    switch (*parameters) {
    case '1':
    case '7':
        return parameters[1] && parameters[1] != ';' ? KEY_UNKNOWN : KEY_HOME; /* 11 and on: F1 ... */
    case '4':
    case '8':
        return KEY_END;
    case '3':
        return by_word ? KEY_ERASE_WORD_RIGHT : KEY_DELETE;
    }
    return KEY_UNKNOWN;
}

static enum key take_sequence(struct line_keys *keys)
{
    char parameters[SEQUENCE_MAX + 1];
    size_t n = 0;
    for (;;) {
        int byte = next_byte(keys);
        if (byte < 0)
            return (enum key) - byte;
        if (byte < 0x20 || byte > 0x7E) { /* no sequence: the byte is a key of its own */
            keys->begin--;
            return KEY_UNKNOWN;
        }
        if (byte >= 0x40) {
            parameters[n] = 0;
            return byte == '~' && !strcmp(parameters, "200") ? take_paste(keys)
                                                             : sequence_key(parameters, byte);
        }
        if (n < SEQUENCE_MAX)
            parameters[n++] = (char)byte;
    }
}

/* What follows an ESC: the rest of a sequence, or a key typed with Alt. Alone it does nothing. */
static enum key take_escape(struct line_keys *keys)
{
    if (keys->begin == keys->end && !terminal_has_bytes(ESCAPE_WAIT_MS))
        return KEY_LEAVE;
    int byte = next_byte(keys);
    if (byte < 0)
        return (enum key) - byte;
    switch (byte) {
    case '[':
    case 'O':
        return take_sequence(keys);
    case 'b':
        return KEY_WORD_LEFT;
    case 'f':
        return KEY_WORD_RIGHT;
    case 'd':
        return KEY_ERASE_WORD_RIGHT;
    case 0x7F:
    case '\b':
        return KEY_ERASE_WORD_LEFT;
    case '\r':
    case '\n':
        return KEY_NEWLINE;
    }
    if (byte == ESCAPE || byte >= 0x80)
        keys->begin--; /* a key of its own */
    return KEY_UNKNOWN;
}

enum key line_keys_next(struct line_keys *keys)
{
    while (!keys->n_queued) {
        int byte = next_byte(keys);
        if (byte < 0)
            return (enum key) - byte;
        keys->n_queued = take_byte(keys, byte, keys->queued);
    }
    wchar_t c = keys->queued[0];
    keys->queued[0] = keys->queued[1];
    keys->n_queued--;
    keys->character = c;
    if (c == ESCAPE)
        return take_escape(keys);
    return c == '\t' || !line_char_is_control(c) ? KEY_CHARACTER : control_key(c);
}
