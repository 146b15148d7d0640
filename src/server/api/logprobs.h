/* logprobs.h: the tokens of one choice with their probabilities, on the way from the engine's events to JSON.
 *
 * Tokens come before the text that they make, and not every token makes text of the answer (thoughts, the closing of
 * thoughts, the end token, a stop text). So a token is pending until its text has come, then settled or dropped. A
 * struct logprobs starts zeroed and owns its memory; the loop's thread only. */
#ifndef RUNNEL_SERVER_API_LOGPROBS_H
#define RUNNEL_SERVER_API_LOGPROBS_H

#include "base/text.h"
#include "runnel.h"

struct logprobs {
    struct logprobs_entry *entries; /* a drawn token, followed by its alternatives */
    size_t n, cap;
    size_t n_settled;  /* of entries */
    size_t n_ahead;    /* bytes of settled tokens whose text has not come yet */
    struct text bytes; /* of the tokens */
    size_t offset;     /* characters written so far: text_offset of completions */
    bool failed;       /* memory ran out */
};

void logprobs_free(struct logprobs *list);
/* A RUNNEL_EVENT_TOKEN. */
void logprobs_add(struct logprobs *list, const runnel_event *event);
/* Text of n_bytes has come: settles the pending tokens that made it, from the first on. */
void logprobs_settle(struct logprobs *list, size_t n_bytes);
/* The answer begins: drops pending tokens up to "</think>" and the blanks after it, which are no text of the answer. */
void logprobs_drop_thoughts(struct logprobs *list);
/* A limit ended the answer, maybe within a character: the pending tokens were drawn, and are told without text. */
void logprobs_settle_all(struct logprobs *list);
/* Drops all that is pending. */
void logprobs_drop(struct logprobs *list);

/* Write the settled tokens, and forget them. The shapes of chat and of completions; "null" if there are none. */
void logprobs_write_chat(struct logprobs *list, struct text *out);
void logprobs_write_completion(struct logprobs *list, struct text *out);

/* What llama-server's shape tells: logprob and top_logprobs, or prob and top_probs. */
enum logprobs_native { LOGPROBS_NONE, LOGPROBS_OF_MODEL, LOGPROBS_AFTER_SAMPLING };

/* llama-server's: ,"tokens":[..],"completion_probabilities":[..], each if it is wanted; else tokens are empty. */
void logprobs_write_native(struct logprobs *list, bool with_ids, enum logprobs_native probabilities,
                           struct text *out);

#endif
