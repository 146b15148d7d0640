/* thinking_budget.c: see thinking_budget.h. */
#include "engine/thinking_budget.h"

#include "base/utf8.h"
#include "engine/loop_detector.h"
#include "engine/sentence.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_MAX = 16 /* tokens of what closes a thought */ };

static const float SOFT_STEP = 0.25f; /* of the closing token's logit, for each token past the soft budget */

/* The tokens that end a thought: a message, if there is one, and the tag. */
struct closing {
    int32_t ids[RUNNEL_THINKING_MESSAGE_MAX + TAG_MAX];
    uint32_t n, n_message;
    uint32_t tag_begin, tag_end; /* those of the tag itself, without the white space around it */
};

struct state {
    uint32_t n_thought; /* tokens of the thought, without those of closing */
    uint32_t n_written; /* of closing, or left out */
    uint32_t n_closing; /* of it, up to what is left out behind the tag */
    uint8_t end;        /* enum runnel_thought_end: why closing is what comes next, or came; 0: it is not */
    bool in_thought;    /* the next token's text begins within a thought */
    struct sentence sentence;
};

struct thinking_budget {
    struct constraint constraint;
    uint32_t n_max, n_soft, n_answer;
    uint32_t n_room; /* tokens of the answer before what closes a thought; UINT32_MAX: no limit */
    struct closing closing;
    bool is_asked; /* to close the thought to come; not undone */
    struct state now,
        before[CONSTRAINT_UNDO_MAX]; /* before token i of the answer: at i % CONSTRAINT_UNDO_MAX */
    uint32_t n_accepted;
    struct loop_detector loop; /* of now.n_thought tokens */
};

/* Closing --------------------------------------------------------------------------------------------------- */

static uint32_t n_unsaid(const struct closing *closing)
{
    return closing->n - closing->n_message;
}

static uint32_t n_tag(const struct closing *closing)
{
    return closing->tag_end - closing->tag_begin;
}

static uint32_t n_left(const struct thinking_budget *budget)
{
    return budget->n_answer - budget->n_accepted;
}

/* Where closing begins now: behind the message, or with the tag itself, if that would leave no token to the answer. */
static uint32_t closing_begin(const struct thinking_budget *budget)
{
    const struct closing *closing = &budget->closing;
    if (n_left(budget) > closing->n)
        return 0;
    return n_left(budget) > n_unsaid(closing) ? closing->n_message : closing->tag_begin;
}

static void close_thought(struct thinking_budget *budget, enum runnel_thought_end end)
{
    const struct closing *closing = &budget->closing;
    budget->now.n_written = closing_begin(budget);
    budget->now.n_closing = n_left(budget) > n_unsaid(closing) ? closing->n : closing->tag_end;
    budget->now.end = (uint8_t)end;
}

static bool is_past_soft_budget(const struct thinking_budget *budget, uint32_t n_more)
{
    const struct state *now = &budget->now;
    return now->in_thought && now->n_thought >= budget->n_soft && now->n_thought - budget->n_soft >= n_more &&
           sentence_has_ended(&now->sentence);
}

/* What an open thought is to be closed for. */
static enum runnel_thought_end reason_to_close(const struct thinking_budget *budget)
{
    if (budget->is_asked)
        return RUNNEL_THOUGHT_ASKED;
    if (budget->now.n_thought >= budget->n_max)
        return RUNNEL_THOUGHT_BUDGET;
    if (budget->n_accepted >= budget->n_room)
        return RUNNEL_THOUGHT_RESERVE;
    if (loop_detector_found(&budget->loop))
        return RUNNEL_THOUGHT_LOOP;
    return is_past_soft_budget(budget, THINKING_SOFT_TOKENS) ? RUNNEL_THOUGHT_SOFT_BUDGET
                                                             : RUNNEL_THOUGHT_NONE;
}

static void close_for_a_reason(struct thinking_budget *budget)
{
    enum runnel_thought_end end =
        budget->now.in_thought && !budget->now.end ? reason_to_close(budget) : RUNNEL_THOUGHT_NONE;
    if (end)
        close_thought(budget, end);
}

void thinking_budget_ask(struct thinking_budget *budget)
{
    budget->is_asked = true;
    close_for_a_reason(budget);
}

int32_t thinking_budget_instead(const struct thinking_budget *budget)
{
    bool is_open = budget->now.in_thought && !budget->now.end;
    return is_open ? budget->closing.ids[closing_begin(budget)] : -1;
}

enum runnel_thought_end thinking_budget_end(const struct thinking_budget *budget)
{
    return budget->now.end;
}

/* The constraint -------------------------------------------------------------------------------------------- */

static bool raises(const struct thinking_budget *budget)
{
    return !budget->now.end && is_past_soft_budget(budget, 0);
}

static bool limits_next(const struct constraint *constraint)
{
    return raises((const struct thinking_budget *)constraint);
}

static int mask(struct constraint *constraint, struct constraint_mask *limits, runnel_error *error)
{
    const struct thinking_budget *budget = (const struct thinking_budget *)constraint;
    (void)error;
    if (raises(budget))
        constraint_mask_raise(limits, budget->closing.ids[budget->closing.tag_begin],
                              SOFT_STEP * (float)(budget->now.n_thought - budget->n_soft + 1));
    return RUNNEL_OK;
}

static int32_t forced(const struct constraint *constraint)
{
    const struct thinking_budget *budget = (const struct thinking_budget *)constraint;
    const struct state *now = &budget->now;
    return now->end && now->n_written < now->n_closing ? budget->closing.ids[now->n_written] : -1;
}

/* A token of the thought that no closing wrote. */
static void take_thought(struct thinking_budget *budget, const struct constraint_token *token)
{
    struct state *now = &budget->now;
    bool was_raised = raises(budget);
    now->n_thought++;
    sentence_push(&now->sentence, token->bytes, token->len);
    loop_detector_push(&budget->loop, token->id, token->bytes, token->len);
    if (token->next_is_thought || now->end)
        return;
    now->end = was_raised && token->id == budget->closing.ids[budget->closing.tag_begin]
                   ? RUNNEL_THOUGHT_SOFT_BUDGET
                   : RUNNEL_THOUGHT_MODEL;
    now->n_written = now->n_closing; /* it needs no more */
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct thinking_budget *budget = (struct thinking_budget *)constraint;
    struct state *now = &budget->now;
    budget->before[budget->n_accepted % CONSTRAINT_UNDO_MAX] = *now;
    if (token->is_instead)
        close_thought(budget, RUNNEL_THOUGHT_END_TOKEN);
    if (token->id == forced(constraint))
        now->n_written++;
    else if (token->is_thought)
        take_thought(budget, token);
    budget->n_accepted++;
    now->in_thought = token->next_is_thought;
    close_for_a_reason(budget);
}

static void undo(struct constraint *constraint, uint32_t n)
{
    struct thinking_budget *budget = (struct thinking_budget *)constraint;
    uint32_t n_thought = budget->now.n_thought;
    if (!n)
        return;
    budget->n_accepted -= n;
    budget->now = budget->before[budget->n_accepted % CONSTRAINT_UNDO_MAX];
    loop_detector_undo(&budget->loop, n_thought - budget->now.n_thought);
}

static void free_budget(struct constraint *constraint)
{
    free(constraint);
}

/* Making ---------------------------------------------------------------------------------------------------- */

static int add_message(struct closing *closing, const struct runnel_model *model, const char *message,
                       runnel_error *error)
{
    struct token_list tokens = {0};
    size_t len = strlen(message);
    if (!utf8_valid(message, len))
        return error_set(error, RUNNEL_EINVAL, "thinking_message: expected UTF-8, found something else");
    if (strstr(message, "</think>"))
        return error_set(error, RUNNEL_EINVAL,
                         "thinking_message: expected text of a thought, found </think>, which is written "
                         "behind it");
    int failure = tokenizer_encode_on(model->tokenizer, message, len, NULL, 0, &tokens, error);
    if (!failure && tokens.n > RUNNEL_THINKING_MESSAGE_MAX)
        failure = error_set(error, RUNNEL_EINVAL, "thinking_message: %zu tokens, expected %d at most",
                            tokens.n, RUNNEL_THINKING_MESSAGE_MAX);
    if (!failure && tokens.n) {
        memcpy(closing->ids, tokens.ids, tokens.n * sizeof *tokens.ids);
        closing->n = closing->n_message = (uint32_t)tokens.n;
    }
    free(tokens.ids);
    return failure;
}

static bool has_byte(const struct runnel_model *model, int32_t token, char byte)
{
    struct gguf_string piece = tokenizer_piece(model->tokenizer, token);
    return memchr(piece.bytes, byte, piece.len) != NULL;
}

/* The tokens of the tag itself, between white space. */
static void find_tag(struct closing *closing, const struct runnel_model *model)
{
    closing->tag_begin = closing->n_message;
    closing->tag_end = closing->n;
    while (closing->tag_begin < closing->n && !has_byte(model, closing->ids[closing->tag_begin], '<'))
        closing->tag_begin++;
    while (closing->tag_end > closing->tag_begin && !has_byte(model, closing->ids[closing->tag_end - 1], '>'))
        closing->tag_end--;
}

static int add_tag(struct closing *closing, const struct runnel_model *model, runnel_error *error)
{
    struct token_list tokens = {0};
    int failure = model_encode_thought_end(model, &tokens, error);
    if (!failure && (!tokens.n || tokens.n > TAG_MAX))
        failure =
            error_set(error, RUNNEL_EUNSUPPORTED,
                      "thinking_budget: %zu tokens close a thought, expected 1 to %d", tokens.n, TAG_MAX);
    if (!failure) {
        memcpy(closing->ids + closing->n, tokens.ids, tokens.n * sizeof *tokens.ids);
        closing->n += (uint32_t)tokens.n;
        find_tag(closing, model);
    }
    free(tokens.ids);
    return failure;
}

static void drop_message(struct closing *closing)
{
    closing->n -= closing->n_message;
    closing->tag_begin -= closing->n_message;
    closing->tag_end -= closing->n_message;
    memmove(closing->ids, closing->ids + closing->n_message, closing->n * sizeof *closing->ids);
    closing->n_message = 0;
}

/* It ends the thought, and tokens are left to the answer behind that. */
static bool budget_binds(const struct closing *closing, const struct thinking_budget_options *options)
{
    return options->n_max < options->n_answer && options->n_max + n_unsaid(closing) < options->n_answer;
}

/* How much room the reserve leaves. Where it does not leave what closes a thought, or the tag alone, it is smaller, and where that leaves
 * no token, all belongs to the thought. */
static uint32_t find_room(struct closing *closing, const struct thinking_budget_options *options)
{
    uint32_t n = options->n_answer, n_reserved = options->n_reserved;
    if (options->is_default && budget_binds(closing, options))
        n_reserved = 0;
    if (!n_reserved || n <= n_tag(closing))
        return UINT32_MAX;
    if (n_reserved >= n || n - n_reserved <= closing->n)
        drop_message(closing);
    uint32_t n_closing = n > closing->n ? closing->n : n_tag(closing);
    if (n_reserved > n - n_closing)
        n_reserved = n - n_closing;
    return n - n_reserved - n_closing;
}

int thinking_budget_create(const struct runnel_model *model, const struct thinking_budget_options *options,
                           struct thinking_budget **out, runnel_error *error)
{
    struct thinking_budget *budget = calloc(1, sizeof *budget);
    if (!budget)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a budget of thoughts");
    budget->constraint = (struct constraint){
        .mask = mask,
        .limits = limits_next,
        .forced = forced,
        .accept = accept,
        .undo = undo,
        .free = free_budget,
    };
    budget->n_max = options->n_max;
    budget->n_soft = options->n_soft;
    budget->n_answer = options->n_answer;
    budget->now.in_thought = options->starts_in_thought;
    int failure =
        options->message ? add_message(&budget->closing, model, options->message, error) : RUNNEL_OK;
    if (!failure)
        failure = add_tag(&budget->closing, model, error);
    if (failure) {
        free(budget);
        return failure;
    }
    if (options->n_max == 0)
        drop_message(&budget->closing);
    budget->n_room = find_room(&budget->closing, options);
    close_for_a_reason(budget);
    *out = budget;
    return RUNNEL_OK;
}

struct constraint *thinking_budget_constraint(struct thinking_budget *budget)
{
    return &budget->constraint;
}
