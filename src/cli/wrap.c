/* wrap.c: text that comes in pieces to lines that break between words. */
#include "cli/wrap.h"

#include "cli/char_width.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

enum {
    NARROWEST = 10, /* a terminal that says less has no width */
    CODE_INDENT = 4,
    FENCE_LEN = 3,
    JOINER = 0x200d, /* makes one emoji of two */
};

/* Characters ---------------------------------------------------------------------------------------------- */

/* The character at text, whole by the caller's word, and its bytes. */
static size_t read_character(const char *text, size_t len, uint32_t *character)
{
    unsigned char first = (unsigned char)*text;
    size_t n = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (n > len)
        n = len;
    *character = n == 1 ? first : first & (0x7fU >> n);
    for (size_t i = 1; i < n; i++)
        *character = *character << 6 | ((unsigned char)text[i] & 0x3f);
    return n;
}

static bool is_control(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

/* The columns that a terminal gives it. */
static unsigned columns_of(uint32_t character)
{
    return is_control(character) ? 0 : (unsigned)char_width((wchar_t)character);
}

static bool is_one_of(uint32_t character, const uint32_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == character)
            return true;
    return false;
}

/* Punctuation that does not begin a line. */
static bool closes(uint32_t character)
{
    static const uint32_t list[] = {0x3001, 0x3002, 0x3009, 0x300b, 0x300d, 0x300f, 0x3011,
                                    0x3015, 0x30fc, 0xff01, 0xff09, 0xff0c, 0xff0e, 0xff1a,
                                    0xff1b, 0xff1f, 0xff3d, 0xff5d, 0x2019, 0x201d, 0x2026};
    return (character < 0x80 && character && strchr(".,;:!?)]}'\"", (int)character)) ||
           is_one_of(character, list, sizeof list / sizeof *list);
}

/* Punctuation that does not end a line. */
static bool opens(uint32_t character)
{
    static const uint32_t list[] = {0x3008, 0x300a, 0x300c, 0x300e, 0x3010, 0x3014,
                                    0xff08, 0xff3b, 0xff5b, 0x2018, 0x201c};
    return (character < 0x80 && character && strchr("([{'\"", (int)character)) ||
           is_one_of(character, list, sizeof list / sizeof *list);
}

/* A line may end between these two, though there is no space. */
static bool may_break_between(uint32_t before, uint32_t after, unsigned columns_after)
{
    return (columns_of(before) == 2 || columns_after == 2) && columns_after > 0 && before != JOINER &&
           !opens(before) && !closes(after);
}

/* Lines --------------------------------------------------------------------------------------------------- */

unsigned wrap_columns(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) || size.ws_col < NARROWEST)
        return UINT16_MAX;
    return size.ws_col;
}

static unsigned columns_now(const struct wrap *wrap)
{
    return wrap->fixed_columns ? wrap->fixed_columns : wrap_columns(wrap->out);
}

static void write_spaces(struct wrap *wrap, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fputc(' ', wrap->out);
    wrap->column += n;
}

static void begin_line(struct wrap *wrap)
{
    wrap->column = wrap->n_spaces = wrap->hang = 0;
    wrap->line_begins = true;
    wrap->as_is = false;
}

/* "-", "*", "+" or "12." and "12)": the mark of an item. */
static bool is_item_mark(const char *word, size_t len)
{
    if (len == 1)
        return strchr("-*+", *word) != NULL;
    size_t n_digits = strspn(word, "0123456789");
    return n_digits && n_digits < 4 && n_digits + 1 == len && strchr(".)", word[n_digits]);
}

/* The first word of a line says what the line is. */
static void judge_line(struct wrap *wrap)
{
    char *word = wrap->word;
    size_t n = 0;
    word[wrap->word_len] = 0;
    wrap->line_begins = false;
    while (n < wrap->word_len && word[n] == *word)
        n++;
    bool is_fence = (*word == '`' || *word == '~') && n >= FENCE_LEN;
    if (wrap->fence) {
        wrap->as_is = true;
        if (is_fence && *word == wrap->fence && n == wrap->word_len)
            wrap->fence = 0;
    } else if (is_fence) {
        wrap->as_is = true;
        wrap->fence = *word;
    } else if (is_item_mark(word, wrap->word_len)) {
        wrap->hang = wrap->n_spaces + wrap->word_columns + 1;
    } else {
        wrap->as_is |= wrap->n_spaces >= CODE_INDENT || *word == '|';
    }
}

/* Writes the word, on the next line if it does not fit into this one. */
static void end_word(struct wrap *wrap)
{
    if (!wrap->word_len)
        return;
    if (wrap->line_begins)
        judge_line(wrap);
    unsigned columns = columns_now(wrap);
    if (!wrap->as_is && !wrap->runs && wrap->column > wrap->hang &&
        wrap->column + wrap->n_spaces + wrap->word_columns > columns) {
        fputc('\n', wrap->out);
        wrap->column = wrap->n_spaces = 0;
        write_spaces(wrap, wrap->hang < columns / 2 ? wrap->hang : 0);
    }
    write_spaces(wrap, wrap->n_spaces);
    fwrite(wrap->word, 1, wrap->word_len, wrap->out);
    wrap->column += wrap->word_columns;
    if (wrap->column > columns)
        wrap->column = (wrap->column - 1) % columns + 1; /* the terminal broke it */
    wrap->n_spaces = wrap->word_columns = 0;
    wrap->word_len = 0;
}

static void add_to_word(struct wrap *wrap, const char *bytes, size_t n, uint32_t character)
{
    unsigned columns = columns_of(character);
    if (wrap->word_len && may_break_between(wrap->last, character, columns))
        end_word(wrap);
    if (wrap->word_len + n >= WRAP_WORD_MAX) {
        end_word(wrap);
        wrap->runs = true;
    }
    memcpy(wrap->word + wrap->word_len, bytes, n);
    wrap->word_len += n;
    wrap->word_columns += columns;
    wrap->last = character;
}

static void take(struct wrap *wrap, const char *bytes, size_t n, uint32_t character)
{
    if (character != '\n' && character != ' ' && character != '\t') {
        add_to_word(wrap, bytes, n, character);
        if (wrap->runs || (wrap->as_is && !wrap->line_begins))
            end_word(wrap);
        return;
    }
    end_word(wrap);
    wrap->runs = false;
    wrap->last = 0;
    if (character == '\n') {
        fputc('\n', wrap->out);
        begin_line(wrap);
    } else if (character == '\t' && (wrap->as_is || wrap->line_begins)) {
        write_spaces(wrap, wrap->n_spaces);
        fputc('\t', wrap->out);
        wrap->n_spaces = 0;
        if (wrap->line_begins && !wrap->fence)
            wrap->as_is = true;
    } else {
        wrap->n_spaces++;
    }
}

/* A terminal would obey it: move the cursor, change the colours or its title. Its picture is written instead. */
static void take_control(struct wrap *wrap, uint32_t character)
{
    uint32_t picture = character < 0x20    ? 0x2400 + character
                       : character == 0x7f ? 0x2421
                                           : 0xfffd; /* those from 0x80 on have none */
    char bytes[] = {(char)(0xe0 | picture >> 12), (char)(0x80 | (picture >> 6 & 0x3f)),
                    (char)(0x80 | (picture & 0x3f))};
    if (character != '\r') /* of a line's end, as some write it */
        take(wrap, bytes, sizeof bytes, picture);
}

/* In and out ---------------------------------------------------------------------------------------------- */

void wrap_start(struct wrap *wrap, FILE *out, unsigned fixed_columns)
{
    *wrap = (struct wrap){.out = out, .fixed_columns = fixed_columns};
    wrap->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    begin_line(wrap);
}

void wrap_write(struct wrap *wrap, const char *text, size_t len)
{
    locale_t before = wrap->locale ? uselocale(wrap->locale) : (locale_t)0;
    for (size_t at = 0, n; at < len; at += n) {
        uint32_t character;
        n = read_character(text + at, len - at, &character);
        if (is_control(character) && character != '\n' && character != '\t')
            take_control(wrap, character);
        else
            take(wrap, text + at, n, character);
    }
    if (wrap->locale)
        uselocale(before);
}

void wrap_end(struct wrap *wrap)
{
    end_word(wrap);
    if (wrap->locale)
        freelocale(wrap->locale);
    wrap->locale = (locale_t)0;
}

void wrap_print(FILE *out, unsigned hang, const char *text)
{
    struct wrap wrap;
    if (!isatty(fileno(out))) {
        fputs(text, out);
        return;
    }
    for (size_t len; *text; text += len) {
        len = strcspn(text, "\n");
        len += text[len] == '\n';
        wrap_start(&wrap, out, 0);
        wrap.line_begins = false; /* no line is code */
        wrap.hang = hang;
        wrap_write(&wrap, text, len);
        wrap_end(&wrap);
    }
}
