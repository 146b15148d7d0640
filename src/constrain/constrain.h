/* constrain.h: the floor "constrain": which tokens may come next in a text that must keep to a grammar. The design.
 *
 *   exprs.{c,h}      regular expressions over bytes, with and, or, not; each is held once, and has derivatives: what may
 *                    follow once a byte was read. So intersections and complements are exact
 *   charset.{c,h}    sets of characters as expressions over their UTF-8, or over how JSON writes them in a string
 *   scanner.{c,h}    expressions as states of one automaton, made when they are first reached
 *   grammar.{c,h}    rules over terminals, which are expressions: what the front ends (gbnf, regex, choice) build
 *   network.{c,h}    the rules as one network of positions. What is regular becomes one terminal, left recursion a loop
 *   stacks.{c,h}     where a text may stand: a set of (state of a terminal, position behind it, frames to return to). Sets are
 *                    held once, so where the same state returns its steps are remembered
 *   trie_part.{c,h}  tokens as a trie in the order of a walk
 *   string_tokens.{c,h}  which tokens may stand in a JSON string, and which end it
 *   trie.{c,h}       the vocabulary: tries and string tokens, made once for a model
 *   masks.{c,h}      the tokens that may follow a state: one walk over the trie, on which a dead subtree is skipped
 *   matcher.{c,h}    what is compiled, and a text's way through it: mask, accept, undo, complete, copy
 *   regex.{c,h}      ECMA-262's patterns, as JSON Schema and vLLM use them, to expressions
 *   gbnf.{c,h}       llama.cpp's grammars to a grammar
 *   schema.{c,h}     JSON Schema to a grammar; schema_*.c read its kinds of values, json_tree.{c,h} its text
 *
 * How a text is read. A terminal may end wherever its expression accepts, and go on as well: there is no longest match, so a
 * grammar means what it says whatever its terminals are. At such a border the network is followed: calls of rules push a
 * frame, ends pop one. Frames are sets, too, at most one for each position: two ways that need the same position next are one.
 *
 * How a mask is made. A state's mask is the union over its members. A member within a wide terminal (the inside of a JSON
 * string, say) needs no stack for most tokens: those that stay in the terminal ("inside") depend on the scanner's state
 * alone and are kept by it, together with the nodes of the trie at which the terminal may end ("exits"). Only below these is
 * the stack asked. All other members are walked together, from the root; they are narrow, and most subtrees die at once.
 * Tokens of whole characters that need no escape in JSON have a trie of their own: where any such characters may come, as many as the
 * longest of a subtree has, the subtree is taken without a look. Within a string of any characters, counted or not, nothing is
 * walked but what tokens have behind the closing quote: which tokens fit is known by their number of characters (string_tokens.h).
 *
 * Bounds. All that is made while texts are read lies in pools whose sizes struct constrain_limits names. They are reserved
 * when a grammar is compiled and touched as they fill, so a step allocates nothing. Where one is full, or a step works for too
 * long, the call fails with RUNNEL_EUNSUPPORTED and names what was too large; first all is forgotten that can be made again:
 * states of texts and their masks, frames, states of terminals and their derivatives. So what many texts share is full for none of
 * them, and what one call needs is all that must have room. A schema's own bounds, in schema_bounds.c, count looks at its parts.
 *
 * Threads. A trie is read by all. What was compiled has one lock, taken by each call of a matcher for as long as it lasts. */
#ifndef RUNNEL_CONSTRAIN_CONSTRAIN_H
#define RUNNEL_CONSTRAIN_CONSTRAIN_H

#include <stddef.h>
#include <stdint.h>

struct constrain_limits {
    uint32_t n_exprs;   /* expressions */
    uint32_t n_scans;   /* states of terminals */
    uint32_t n_frames;  /* sets of frames */
    uint32_t n_states;  /* states of texts, before they are forgotten */
    uint32_t n_masks;   /* masks kept, before the oldest is forgotten */
    uint32_t n_insides; /* of these of wide terminals */
    uint32_t n_rules;   /* of a grammar */
    uint32_t n_nodes;   /* ... and symbols in all its rules */
    uint64_t work;      /* derivatives, frames and the like, in compiling */
    uint64_t work_step; /* ... and in one call of a matcher */
};

/* If all of it is ever touched, with 151,936 tokens: 44 MB, and 0.4 MB for each class of bytes that the expressions tell apart. Schemas have
 * 20 to 60 of them, and there can be no more than 256: 145 MB. automaton_bytes says what was touched. */
#define CONSTRAIN_LIMITS                                                                                     \
    {                                                                                                        \
        .n_exprs = 1u << 18, .n_scans = 1u << 16, .n_frames = 1u << 16, .n_states = 1u << 15,                \
        .n_masks = 256, .n_insides = 128, .n_rules = 1u << 14, .n_nodes = 1u << 17, .work = 20000000,        \
        .work_step = 5000000,                                                                                \
    }

#endif
