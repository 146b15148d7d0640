/* sentence.h: where the sentences of a text end, told its bytes as they come.
 *
 * It is for cutting a text where it may be cut: in doubt a sentence goes on. After a number a full stop is none (it may be a
 * decimal point, or "1." of a list), nor is it after a single letter ("e.g."), and a line that ends with a colon announces more. A
 * struct sentence is a value: a copy of it is a place to go back to. All zero is the beginning of a text. */
#ifndef RUNNEL_ENGINE_SENTENCE_H
#define RUNNEL_ENGINE_SENTENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sentence {
    uint32_t code;     /* of the character that is begun */
    uint8_t n_missing; /* bytes until it is whole */
    uint8_t n_word;    /* characters of the word that the text ends with; 2: two or more */
    bool has_digit;    /* that word has one */
    bool is_spaced;    /* the text ends with white space */
    bool goes_on;      /* what stands before that announces more */
    bool ended;
};

void sentence_push(struct sentence *sentence, const char *bytes, size_t len);
/* The text ends with a sentence's end, and what closes it: quotes, brackets, white space. */
bool sentence_has_ended(const struct sentence *sentence);

#endif
