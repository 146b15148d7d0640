/* loop_detector.h: does a text go in circles? The same cycle of tokens at least three times in a row is a loop, where it is
 * nothing that people write: what has to have come again and again before it is one depends on what the cycle is made of.
 *
 *     a sentence, in words          18 tokens in all: three times, if it has six or more
 *     four words or more, mostly,   30: a poem may have the same line three times, a sum come again
 *     or an end with a word or two
 *     four words among others,      45: "red, blue, green, white, red" may be meant, and a line of code
 *     or an equation
 *     with some letters             96: other lines of code, "red, blue, red, blue"
 *     likewise, of markup           160: rows of a table, JSON, HTML, or of one word
 *     without any                   512: rules such as "-----", boards, matrices of zeros
 *
 * Three times always, so that cycles from 6 (10, 15, 32, 54, 171) tokens up to LOOP_CYCLE_MAX are found when the third one is
 * complete. What it says is a function of the latest tokens alone, so tokens are taken back by forgetting them. No allocation. */
#ifndef RUNNEL_ENGINE_LOOP_DETECTOR_H
#define RUNNEL_ENGINE_LOOP_DETECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LOOP_CYCLE_MAX = 512,
    LOOP_TOKENS = 2048, /* a power of two */
};

/* All zero is the beginning of a text. */
struct loop_detector {
    uint32_t n;                 /* tokens of the text */
    int32_t ids[LOOP_TOKENS];   /* of the latest ones: of token i at i % LOOP_TOKENS */
    uint8_t kinds[LOOP_TOKENS]; /* likewise: what the token is, in bits */
};

/* The next token, and its text. */
void loop_detector_push(struct loop_detector *detector, int32_t id, const char *bytes, size_t len);
/* Takes the latest n back, CONSTRAINT_UNDO_MAX at most. */
void loop_detector_undo(struct loop_detector *detector, uint32_t n);
/* The text ends with a loop. Takes a microsecond, or a few, whatever the text. */
bool loop_detector_found(const struct loop_detector *detector);

#endif
