/* sentence.c: see sentence.h. */
#include "engine/sentence.h"

enum { WORD_MAX = 2 };

enum character { SPACE, LINE, STOP, EXCLAMATION, QUESTION, WIDE_STOP, CLOSER, COMMA, DIGIT, LETTER, OTHER };

/* 。！？… */
static bool is_wide_stop(uint32_t code)
{
    return code == 0x3002 || code == 0xff01 || code == 0xff1f || code == 0x2026;
}

/* 」』】》）”’» */
static bool is_wide_closer(uint32_t code)
{
    return code == 0x300d || code == 0x300f || code == 0x3011 || code == 0x300b || code == 0xff09 ||
           code == 0x201d || code == 0x2019 || code == 0xbb;
}

/* ，：、； */
static bool is_wide_comma(uint32_t code)
{
    return code == 0xff0c || code == 0xff1a || code == 0x3001 || code == 0xff1b;
}

static enum character wide_character(uint32_t code)
{
    if (is_wide_stop(code))
        return WIDE_STOP;
    if (is_wide_closer(code))
        return CLOSER;
    if (is_wide_comma(code))
        return COMMA;
    return code == 0x3000 ? SPACE : LETTER;
}

static enum character character_of(uint32_t code)
{
    switch (code) {
    case ' ':
    case '\t':
    case '\r':
        return SPACE;
    case '\n':
        return LINE;
    case '.':
        return STOP;
    case '!':
        return EXCLAMATION;
    case '?':
        return QUESTION;
    case '"':
    case '\'':
    case '`':
    case ')':
    case ']':
    case '}':
    case '*':
    case '$':
    case '\\': /* "x\\)." */
        return CLOSER;
    case ',':
    case ':':
    case ';':
        return COMMA;
    default:
        break;
    }
    if (code >= '0' && code <= '9')
        return DIGIT;
    if ((code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || code == '_')
        return LETTER;
    return code < 0x80 ? OTHER : wide_character(code);
}

static void push_word(struct sentence *s, bool is_digit)
{
    s->has_digit = is_digit || (s->n_word && s->has_digit);
    s->n_word = s->n_word < WORD_MAX ? (uint8_t)(s->n_word + 1) : WORD_MAX;
    s->ended = s->is_spaced = s->goes_on = false;
}

/* What it was is behind the text's last word now. */
static void end_word(struct sentence *s, bool ended, bool goes_on)
{
    s->n_word = 0;
    s->is_spaced = false;
    s->ended = ended;
    s->goes_on = goes_on;
}

static void push_space(struct sentence *s, bool is_line)
{
    s->n_word = 0;
    s->is_spaced = true;
    s->ended = s->ended || (is_line && !s->goes_on);
}

/* Directly behind a sentence it belongs to it; behind white space it opens the next one. */
static void push_closer(struct sentence *s)
{
    if (s->is_spaced)
        end_word(s, false, false);
}

static void push_character(struct sentence *s, uint32_t code)
{
    enum character character = character_of(code);
    switch (character) {
    case SPACE:
    case LINE:
        push_space(s, character == LINE);
        break;
    case STOP:
        end_word(s, s->n_word ? s->n_word == WORD_MAX && !s->has_digit : s->ended && !s->is_spaced, false);
        break;
    case EXCLAMATION: /* else a faculty, or a negation */
        end_word(s, s->n_word ? !s->has_digit : s->ended && !s->is_spaced, false);
        break;
    case QUESTION:
        end_word(s, !s->is_spaced, false);
        break;
    case WIDE_STOP:
        end_word(s, true, false);
        break;
    case CLOSER:
        push_closer(s);
        break;
    case COMMA:
        end_word(s, false, true);
        break;
    case DIGIT:
    case LETTER:
        push_word(s, character == DIGIT);
        break;
    case OTHER:
        end_word(s, false, false);
        break;
    }
}

/* Bytes that are no character are letters of some kind. */
static void push_byte(struct sentence *s, uint8_t byte)
{
    bool continues = (byte & 0xc0) == 0x80;
    if (continues && s->n_missing) {
        s->code = s->code << 6 | (byte & 0x3f);
        if (--s->n_missing == 0)
            push_character(s, s->code);
        return;
    }
    s->n_missing = byte < 0xc0 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    s->code = s->n_missing == 0 ? byte : byte & (0x3fu >> s->n_missing);
    if (!s->n_missing)
        push_character(s, continues ? 0xfffd : byte);
}

void sentence_push(struct sentence *sentence, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        push_byte(sentence, (uint8_t)bytes[i]);
}

bool sentence_has_ended(const struct sentence *sentence)
{
    return sentence->ended && !sentence->n_missing;
}
