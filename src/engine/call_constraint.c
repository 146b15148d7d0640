/* call_constraint.c: see call_constraint.h. */
#include "engine/call_constraint.h"

#include "constrain/matcher.h"
#include "engine/tool_grammar.h"

#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_MAX = 1024, /* bytes of a call in a token */
    PART_MAX = TOOL_NAME_MAX + 2 + TOKEN_MAX,
};

struct place {
    struct tool_reader reader;
    bool is_bound;     /* what comes belongs to a call that is kept, up to the end of its arguments */
    bool failed;       /* the text cannot be followed further: error says why */
    uint8_t n_matched; /* 1: the matcher was told of the latest token */
};

struct call_constraint {
    struct constraint constraint;
    runnel_grammar *grammar;
    const struct vocabulary *vocabulary;
    struct matcher *matcher;
    const struct tool_form *form;
    const struct tool_names *names;
    uint8_t name_step; /* of the form: the name */
    struct place now,
        before[CONSTRAINT_UNDO_MAX]; /* before token i of the answer: at i % CONSTRAINT_UNDO_MAX */
    uint32_t n_accepted;
    runnel_error error; /* of the first failure */
    uint32_t words[];   /* a mask */
};

/* Parts of calls ------------------------------------------------------------------------------------------ */

/* What a token has of a call that is kept, as the grammar is told of it. */
struct part {
    char bytes[PART_MAX];
    size_t n;
    bool is_cut; /* it was longer than that */
};

static void add_bytes(struct part *part, const char *bytes, size_t n)
{
    part->is_cut = part->is_cut || n > PART_MAX - part->n;
    if (part->is_cut)
        return;
    memcpy(part->bytes + part->n, bytes, n);
    part->n += n;
}

static void begin_name(struct part *part)
{
    static const char mark = TOOL_GRAMMAR_NAME;
    add_bytes(part, &mark, 1);
}

static void begin_arguments(struct part *part, const char *name)
{
    static const char mark = TOOL_GRAMMAR_ARGUMENTS;
    add_bytes(part, &mark, 1);
    add_bytes(part, name, strlen(name));
    add_bytes(part, &mark, 1);
}

/* A name comes next, and what is before it stands before calls alone. */
static bool is_at_name(const struct call_constraint *bound, const struct tool_scan *scan)
{
    return scan->step == bound->name_step && !scan->at && scan->opened[bound->form->tag] == 1;
}

/* Masks --------------------------------------------------------------------------------------------------- */

/* What the token would begin a call's arguments with; n is 0 if it would not. */
static struct part arguments_begun(const struct call_constraint *bound, int32_t token)
{
    struct gguf_string text = tokenizer_piece(bound->vocabulary->tokenizer, token);
    struct tool_scan scan = bound->now.reader.scan;
    struct part part = {.n = 0};
    for (size_t i = 0; i < text.len; i++)
        switch (tool_scan_push(&scan, bound->form, bound->names, text.bytes[i]).fate) {
        case TOOL_SCAN_BEGIN:
            begin_arguments(&part, bound->names->names[scan.name]);
            add_bytes(&part, &text.bytes[i], 1);
            break;
        case TOOL_SCAN_ARGUMENT:
            add_bytes(&part, &text.bytes[i], 1);
            break;
        case TOOL_SCAN_HOLD:
        case TOOL_SCAN_SKIP:
            break;
        case TOOL_SCAN_TEXT:
        case TOOL_SCAN_AGAIN: /* it makes a text of what looked like a call */
            return part;
        }
    return part;
}

/* Before arguments, which may begin within a token: those that would begin them wrongly. */
static void forbid_wrong_beginnings(const struct call_constraint *bound, struct constraint_mask *limits)
{
    const struct vocabulary *vocabulary = bound->vocabulary;
    for (uint32_t i = 0; i < vocabulary->n_openers; i++) {
        const struct part part = arguments_begun(bound, vocabulary->openers[i]);
        if (part.is_cut || (part.n && !matcher_would_accept_bytes(bound->matcher, part.bytes, part.n)))
            constraint_mask_forbid(limits, vocabulary->openers[i]);
    }
}

/* The next token may begin a call's arguments. */
static bool is_before_arguments(const struct call_constraint *bound)
{
    const struct tool_scan *scan = &bound->now.reader.scan;
    return !bound->now.is_bound && !scan->begun && scan->step >= bound->name_step;
}

static bool limits_next(const struct constraint *constraint)
{
    const struct call_constraint *bound = (const struct call_constraint *)constraint;
    return bound->now.failed || bound->now.is_bound || is_before_arguments(bound);
}

static int mask(struct constraint *constraint, struct constraint_mask *limits, runnel_error *error)
{
    struct call_constraint *bound = (struct call_constraint *)constraint;
    if (bound->now.failed) {
        *error = bound->error;
        return error->code;
    }
    if (!bound->now.is_bound) {
        if (is_before_arguments(bound))
            forbid_wrong_beginnings(bound, limits);
        return RUNNEL_OK;
    }
    int failure = matcher_mask(bound->matcher, bound->words, error);
    if (!failure)
        constraint_mask_insist(limits, bound->words);
    return failure;
}

/* Tokens -------------------------------------------------------------------------------------------------- */

struct part_listener {
    struct call_constraint *bound;
    struct part *part;
};

static void on_part(void *user, enum tool_part kind, char byte)
{
    const struct part_listener *to = user;
    struct place *now = &to->bound->now;
    (void)byte;
    if (kind == TOOL_PART_END)
        now->is_bound = false;
    if (kind == TOOL_PART_BEGIN && !now->is_bound) {
        now->is_bound = true;
        begin_arguments(to->part, to->bound->names->names[now->reader.scan.name]);
    }
}

static void take_byte(struct call_constraint *bound, char byte, struct part *part)
{
    struct part_listener to = {bound, part};
    struct tool_reader *reader = &bound->now.reader;
    tool_reader_push(reader, bound->form, bound->names, byte, (struct tool_listener){on_part, &to});
    if (bound->now.is_bound)
        add_bytes(part, &byte, 1);
    if (reader->scan.complete)
        bound->now.is_bound = false;
    if (!bound->now.is_bound && is_at_name(bound, &reader->scan)) {
        bound->now.is_bound = true;
        begin_name(part);
    }
}

/* A token that nothing limited may begin a name which is none: it is text. */
static bool is_text(const struct call_constraint *bound, bool was_bound, const struct part *part)
{
    return !was_bound && !bound->now.reader.scan.begun && !part->is_cut &&
           !matcher_would_accept_bytes(bound->matcher, part->bytes, part->n);
}

static void take(struct call_constraint *bound, const char *bytes, size_t len)
{
    struct part part = {.n = 0};
    bool was_bound = bound->now.is_bound;
    for (size_t i = 0; i < len; i++)
        take_byte(bound, bytes[i], &part);
    if (!part.n)
        return;
    if (is_text(bound, was_bound, &part)) {
        bound->now.is_bound = false;
        return;
    }
    int failure = part.is_cut ? error_set(&bound->error, RUNNEL_EUNSUPPORTED,
                                          "a token has more than %d bytes of a call", TOKEN_MAX)
                              : matcher_accept_bytes(bound->matcher, part.bytes, part.n, &bound->error);
    bound->now.n_matched = !failure;
    bound->now.failed = failure != RUNNEL_OK;
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct call_constraint *bound = (struct call_constraint *)constraint;
    bound->before[bound->n_accepted++ % CONSTRAINT_UNDO_MAX] = bound->now;
    bound->now.n_matched = 0;
    if (bound->now.failed || (token->is_thought && token->next_is_thought))
        return;
    size_t n_thought = token->is_thought ? token->answer_at : 0;
    take(bound, token->bytes + n_thought, token->len - n_thought);
}

static void undo(struct constraint *constraint, uint32_t n)
{
    struct call_constraint *bound = (struct call_constraint *)constraint;
    uint32_t n_matched = 0;
    for (; n; n--) {
        n_matched += bound->now.n_matched;
        bound->now = bound->before[--bound->n_accepted % CONSTRAINT_UNDO_MAX];
    }
    matcher_undo(bound->matcher, n_matched);
}

static void on_nothing(void *user, enum tool_part kind, char byte)
{
    (void)user;
    (void)kind;
    (void)byte;
}

size_t call_constraint_push_tags(const struct constraint *constraint, struct thought_tags *tags,
                                 const char *bytes, size_t len)
{
    const struct call_constraint *bound = (const struct call_constraint *)constraint;
    if (tags->phase != BEFORE_THOUGHT) /* a thought has no calls, and behind it tags are text */
        return thought_tags_push_all(tags, bytes, len);
    struct tool_reader reader = bound->now.reader;
    size_t end = len;
    for (size_t i = 0; i < len; i++) {
        bool in_call = tags->phase == BEFORE_THOUGHT && tool_scan_in_call(&reader.scan);
        if (!in_call && thought_tags_push(tags, bytes[i]) && tags->phase == AFTER_THOUGHT)
            end = i + 1;
        tool_reader_push(&reader, bound->form, bound->names, bytes[i],
                         (struct tool_listener){.on_part = on_nothing});
    }
    return end;
}

/* Life ---------------------------------------------------------------------------------------------------- */

static void free_bound(struct constraint *constraint)
{
    struct call_constraint *bound = (struct call_constraint *)constraint;
    matcher_free(bound->matcher);
    grammar_release(bound->grammar);
    free(bound);
}

int call_constraint_create(runnel_grammar *grammar, const struct tool_form *form,
                           const struct tool_names *names, struct constraint **out, runnel_error *error)
{
    const struct vocabulary *vocabulary = grammar_vocabulary(grammar);
    size_t n = ((size_t)vocabulary->n_vocab + 31) / 32;
    struct call_constraint *bound = calloc(1, sizeof *bound + n * sizeof bound->words[0]);
    if (!bound) {
        grammar_release(grammar);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the constraint of an answer's calls");
    }
    bound->constraint = (struct constraint){
        .mask = mask, .limits = limits_next, .accept = accept, .undo = undo, .free = free_bound};
    bound->grammar = grammar;
    bound->vocabulary = vocabulary;
    bound->form = form;
    bound->names = names;
    while (form->steps[bound->name_step].kind != TOOL_NAME)
        bound->name_step++;
    int failure = matcher_create(grammar_automaton(grammar), &bound->matcher, error);
    if (failure) {
        free_bound(&bound->constraint);
        return failure;
    }
    *out = &bound->constraint;
    return RUNNEL_OK;
}
