/* answer.c: from logits to text: see answer.h. */
#include "engine/answer.h"

#include "base/clock.h"
#include "engine/answer_start.h"
#include "engine/call_constraint.h"
#include "engine/grammar_constraint.h"
#include "engine/grammar_source.h"
#include "engine/min_tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Texts have room from the start, so that a step need not ask the system: ordinary tokens are 4 bytes long. What
     * is reserved and not written takes no memory. */
    BYTES_OF_TOKEN = 16,
    RESERVED_TEXT_MAX = 1 << 20,
    ALIKE_MAX = 12, /* tokens that may begin one forced text */
};

static const uint64_t HASH_BEGIN = 0xcbf29ce484222325u; /* FNV-1a's offset basis */

/* Making -------------------------------------------------------------------------------------------------- */

/* Sees to it that no later step has to allocate for tokens. */
static int copy_prompt(struct answer *answer, const struct token_list *prompt, uint32_t max_tokens,
                       runnel_error *error)
{
    size_t cap = prompt->n + max_tokens;
    int32_t *ids = pool_take(answer->pool, cap * sizeof *ids);
    if (!ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", cap);
    memcpy(ids, prompt->ids, prompt->n * sizeof *ids);
    answer->tokens = (struct token_list){.ids = ids, .n = prompt->n, .cap = cap};
    return RUNNEL_OK;
}

static int copy_bias(struct answer *answer, runnel_error *error)
{
    size_t n = answer->sampling.n_logit_bias;
    const runnel_logit_bias *given = answer->sampling.logit_bias;
    answer->sampling.logit_bias = NULL;
    if (!n)
        return RUNNEL_OK;
    runnel_logit_bias *copy = pool_take(answer->pool, n * sizeof *copy);
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu logit biases", n);
    memcpy(copy, given, n * sizeof *copy);
    answer->sampling.logit_bias = copy;
    return RUNNEL_OK;
}

/* What the text, or its calls, are to keep to. */
static int add_grammar(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                       bool in_thought, runnel_error *error)
{
    const struct grammar_constraint_options options = {.waits_for_thought = in_thought,
                                                       .ignores_end = request->ignore_eos};
    struct constraint *constraint;
    runnel_grammar *grammar;
    int failure = grammar_store_get(model->grammars, request, &grammar, error);
    if (failure || !grammar)
        return failure;
    bool is_of_parts = grammar_source_kind(request) == GRAMMAR_OF_PARTS;
    if (is_of_parts)
        failure = call_constraint_create(grammar, answer->tool_form, &answer->tool_names, &constraint, error);
    else
        failure = grammar_constraint_create(grammar, &options, &constraint, error);
    if (failure)
        return failure;
    answer_add_constraint(answer, constraint);
    answer->calls_bound = is_of_parts ? constraint : NULL;
    return RUNNEL_OK;
}

static int add_min_tokens(struct answer *answer, const struct runnel_model *model,
                          const runnel_request *request, runnel_error *error)
{
    struct constraint *constraint;
    if (!request->min_tokens)
        return RUNNEL_OK;
    int failure = min_tokens_create(model->tokenizer, (uint32_t)request->min_tokens, &constraint, error);
    if (!failure)
        answer_add_constraint(answer, constraint);
    return failure;
}

/* Of a request, where -1 is none. */
static uint32_t budget_of(int n_tokens)
{
    return n_tokens < 0 ? UINT32_MAX : (uint32_t)n_tokens;
}

/* What ends thoughts. */
static int add_budget(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                      const struct answer_options *options, runnel_error *error)
{
    const struct thinking_budget_options budget = {
        .n_max = budget_of(request->thinking_budget),
        .n_soft = budget_of(request->soft_thinking_budget),
        .n_answer = options->max_tokens,
        .n_reserved = options->n_reserved,
        .is_default = request->answer_reserve < 0 && !request->keeps_reserve,
        .message = request->thinking_message,
        .starts_in_thought = options->starts_in_thought,
    };
    int failure = thinking_budget_create(model, &budget, &answer->budget, error);
    if (!failure)
        answer_add_constraint(answer, thinking_budget_constraint(answer->budget));
    return failure;
}

/* An answer follows them. */
static int add_start(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                     uint32_t n_answer, runnel_error *error)
{
    struct constraint *constraint;
    if (request->ignore_eos)
        return RUNNEL_OK;
    int failure = answer_start_create(model->tokenizer, n_answer, request->tools != NULL, &constraint, error);
    if (!failure)
        answer_add_constraint(answer, constraint);
    return failure;
}

/* In the order in which they are asked: the later ones bind more. */
static int add_constraints(struct answer *answer, const struct runnel_model *model,
                           const runnel_request *request, const struct answer_options *options,
                           runnel_error *error)
{
    int failure = add_min_tokens(answer, model, request, error);
    if (!failure && options->splits_thoughts)
        failure = add_budget(answer, model, request, options, error);
    if (!failure && options->splits_thoughts)
        failure = add_start(answer, model, request, options->max_tokens, error);
    if (!failure)
        failure = add_grammar(answer, model, request, options->starts_in_thought, error);
    return failure;
}

static int make_output(struct answer *answer, const runnel_request *request,
                       const struct answer_options *options, runnel_error *error)
{
    const struct output_options output = {
        .stop = request->stop,
        .n_stop = request->n_stop,
        .split_thoughts = options->splits_thoughts,
        .starts_in_thought = options->starts_in_thought,
        .tool_form = answer->tool_form,
        .tool_names = &answer->tool_names,
        .max_calls = request->max_calls,
        .must_call = request->must_call,
    };
    int failure = output_create(&output, &answer->output, error);
    if (failure)
        return failure;
    size_t likely = (size_t)options->max_tokens * BYTES_OF_TOKEN;
    likely = likely < RESERVED_TEXT_MAX ? likely : RESERVED_TEXT_MAX;
    text_reserve(&answer->text, likely);
    text_reserve(&answer->reasoning, options->splits_thoughts ? likely : 0);
    if (answer->tool_form)
        calls_reserve(&answer->calls, likely, request->max_calls);
    if (answer->text.failed || answer->reasoning.failed || answer->calls.failed)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the answer's text");
    return RUNNEL_OK;
}

/* The tools that it may call. */
static int copy_tools(struct answer *answer, const runnel_request *request,
                      const struct answer_options *options, runnel_error *error)
{
    if (!request->tools)
        return RUNNEL_OK;
    answer->tool_form = options->tool_form;
    size_t len = request->tools_len ? request->tools_len : strlen(request->tools);
    return answer->tool_form ? chat_tools_read_names(request->tools, len, &answer->tool_names, error)
                             : chat_refuse_tools(error);
}

int answer_create(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                  const struct answer_options *options, runnel_error *error)
{
    *answer = (struct answer){
        .tokenizer = model->tokenizer,
        .pool = options->pool,
        .n_vocab = model->weights->config.n_vocab,
        .n_prompt = (uint32_t)options->prompt->n,
        .sampling = *request->sampling,
        .n_logprobs = request->n_logprobs,
        .ignore_eos = request->ignore_eos,
        .hashes_logits = request->wants_logits_hash,
        .tells_tokens = request->wants_tokens || request->n_logprobs >= 0,
        .tells_sampled = request->wants_sampled_probs && request->n_logprobs >= 0,
        .wants_best =
            sampler_takes_best(request->sampling) && request->n_logprobs < 0 && !request->wants_logits_hash,
        .on_event = options->on_event,
        .user = options->user,
        .place.tags = thought_tags_begin(options->splits_thoughts, options->starts_in_thought),
        .place.logits_hash = request->wants_logits_hash ? HASH_BEGIN : 0,
    };
    int failure = copy_bias(answer, error);
    if (!failure)
        failure = copy_prompt(answer, options->prompt, options->max_tokens, error);
    if (!failure)
        failure = copy_tools(answer, request, options, error);
    if (!failure)
        failure = make_output(answer, request, options, error);
    if (!failure)
        failure = add_constraints(answer, model, request, options, error);
    return failure;
}

void answer_free(struct answer *answer)
{
    while (answer->constraints) {
        struct constraint *constraint = answer->constraints;
        answer->constraints = constraint->next;
        constraint->free(constraint);
    }
    output_free(answer->output);
    pool_give(answer->pool, answer->tokens.ids);
    pool_give(answer->pool, (void *)(uintptr_t)answer->sampling.logit_bias);
    text_free(&answer->text);
    text_free(&answer->reasoning);
    calls_free(&answer->calls);
    tool_names_free(&answer->tool_names);
}

void answer_add_constraint(struct answer *answer, struct constraint *constraint)
{
    struct constraint **end = &answer->constraints;
    while (*end)
        end = &(*end)->next;
    constraint->next = NULL;
    *end = constraint;
}

/* Scratch ------------------------------------------------------------------------------------------------- */

struct answer_scratch {
    struct sampler *sampler;
    struct constraint_mask mask;
};

int answer_scratch_create(uint32_t n_vocab, struct answer_scratch **out, runnel_error *error)
{
    struct answer_scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scratch of draws");
    size_t n_words = ((size_t)n_vocab + 31) / 32;
    int failure = sampler_create(n_vocab, &scratch->sampler, error);
    scratch->mask.n_vocab = n_vocab;
    scratch->mask.allowed = malloc(n_words * sizeof *scratch->mask.allowed);
    if (!failure && !scratch->mask.allowed)
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for a mask of %u tokens", n_vocab);
    if (failure) {
        answer_scratch_free(scratch);
        return failure;
    }
    *out = scratch;
    return RUNNEL_OK;
}

void answer_scratch_free(struct answer_scratch *scratch)
{
    if (!scratch)
        return;
    sampler_free(scratch->sampler);
    free(scratch->mask.allowed);
    free(scratch);
}

/* Drawing ------------------------------------------------------------------------------------------------- */

static uint64_t hash_logits(uint64_t hash, const float *logits, uint32_t n)
{
    const uint8_t *bytes = (const uint8_t *)logits;
    for (size_t i = 0; i < n * sizeof *logits; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* The n likeliest tokens, the likeliest first; ties in the order of ids. */
static size_t find_likeliest(const float *logits, uint32_t n_vocab, size_t n, int32_t *tokens)
{
    size_t n_found = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (n_found == n && (n == 0 || logits[i] <= logits[tokens[n - 1]]))
            continue;
        size_t place = n_found < n ? n_found++ : n - 1;
        for (; place > 0 && logits[i] > logits[tokens[place - 1]]; place--)
            tokens[place] = tokens[place - 1];
        tokens[place] = (int32_t)i;
    }
    return n_found;
}

/* Probabilities under the model itself; a logit less the normalizer is one's logarithm. */
static void note_likeliest(const struct answer *answer, const float *logits, float normalizer,
                           struct answer_draw *draw)
{
    int32_t tokens[RUNNEL_LOGPROBS_MAX + 1] = {draw->token};
    draw->n_choices = 1 + find_likeliest(logits, answer->n_vocab, (size_t)answer->n_logprobs, tokens + 1);
    for (size_t i = 0; i < draw->n_choices; i++)
        draw->choices[i] = (struct sampler_choice){tokens[i], logits[tokens[i]] - normalizer};
}

/* -1: none. */
static int32_t latest_token(const struct answer *answer)
{
    return answer->tokens.n ? answer->tokens.ids[answer->tokens.n - 1] : -1;
}

/* What all constraints leave. */
static int make_mask(struct answer *answer, struct constraint_mask *mask, runnel_error *error)
{
    int failure = RUNNEL_OK;
    constraint_mask_begin(mask, latest_token(answer));
    for (struct constraint *constraint = answer->constraints; constraint && !failure;
         constraint = constraint->next)
        if (constraint->mask)
            failure = constraint->mask(constraint, mask, error);
    return failure;
}

/* Draws from the logits under the constraints; *logprob (may be NULL) is the drawn token's under the model itself. */
static int draw_token(struct answer *answer, struct answer_scratch *scratch, const float *logits,
                      int32_t *token, float *logprob, runnel_error *error)
{
    struct constraint_mask *mask = &scratch->mask;
    int failure = make_mask(answer, mask, error);
    if (failure)
        return failure;
    const struct sampler_context context = {
        .tokens = answer->tokens.ids,
        .n_tokens = answer->tokens.n,
        .position = answer->tokens.n,
        .allowed = mask->is_limited ? mask->allowed : NULL,
        .bias = mask->raised,
        .n_bias = mask->n_raised,
    };
    return sampler_draw(scratch->sampler, &answer->sampling, &context, logits, token, logprob, error);
}

/* Some models write calls with control tokens. */
static bool is_of_call(const struct answer *answer, int32_t token)
{
    struct gguf_string piece = tokenizer_piece(answer->tokenizer, token);
    return answer->tool_form && tool_form_has_token(answer->tool_form, piece.bytes, piece.len);
}

/* The text of a token in an answer, after the token before it: a control token has none. */
static struct gguf_string text_of(const struct answer *answer, int32_t before, int32_t token)
{
    if (!tokenizer_has_text(answer->tokenizer, token) && !is_of_call(answer, token))
        return (struct gguf_string){.bytes = "", .len = 0};
    return tokenizer_text(answer->tokenizer, before, token);
}

/* What is taken instead of a token that was drawn; -1: that one. */
static int32_t token_instead(const struct answer *answer, int32_t drawn)
{
    bool ends_all = answer->budget && !answer->ignore_eos && tokenizer_is_end(answer->tokenizer, drawn);
    return ends_all ? thinking_budget_instead(answer->budget) : -1;
}

/* Goes on from a token that was drawn or forced, or taken instead of a drawn one. */
static void accept_token(struct answer *answer, int32_t id, bool is_instead, struct answer_place before)
{
    struct gguf_string text = text_of(answer, latest_token(answer), id);
    struct thought_tags *tags = &answer->place.tags;
    struct constraint_token token = {.id = id,
                                     .bytes = text.bytes,
                                     .len = text.len,
                                     .is_thought = tags->phase == IN_THOUGHT,
                                     .is_instead = is_instead};
    token.answer_at = answer->calls_bound
                          ? call_constraint_push_tags(answer->calls_bound, tags, text.bytes, text.len)
                          : thought_tags_push_all(tags, text.bytes, text.len);
    token.next_is_thought = tags->phase == IN_THOUGHT;
    answer->before[answer->tokens.n % CONSTRAINT_UNDO_MAX] = before;
    answer->tokens.ids[answer->tokens.n++] = id;
    for (struct constraint *constraint = answer->constraints; constraint; constraint = constraint->next)
        constraint->accept(constraint, &token);
}

/* A constraint says so. */
static bool is_over(const struct answer *answer)
{
    bool over = false;
    for (const struct constraint *constraint = answer->constraints; constraint && !over;
         constraint = constraint->next)
        over = constraint->is_over && constraint->is_over(constraint);
    return over;
}

/* What comes of a drawn token: that one, or what is forced, or taken instead of it. */
static void choose_token(const struct answer *answer, int32_t drawn, struct answer_draw *draw)
{
    int32_t forced = answer_forced_token(answer), instead = forced < 0 ? token_instead(answer, drawn) : -1;
    draw->failure = RUNNEL_OK;
    draw->token = forced >= 0 ? forced : instead >= 0 ? instead : drawn;
    draw->before = latest_token(answer);
    draw->is_forced = forced >= 0 || instead >= 0;
    draw->is_instead = instead >= 0;
    draw->is_thought = answer->place.tags.phase == IN_THOUGHT;
    draw->n_choices = 0;
}

/* Goes on from the token of the draw. */
static void go_on(struct answer *answer, struct answer_place before, struct answer_draw *draw)
{
    accept_token(answer, draw->token, draw->is_instead, before);
    draw->is_last = is_over(answer);
    bool ends_thought = draw->is_thought && answer->place.tags.phase != IN_THOUGHT;
    draw->thought_end =
        ends_thought && answer->budget ? thinking_budget_end(answer->budget) : RUNNEL_THOUGHT_NONE;
}

void answer_draw(struct answer *answer, struct answer_scratch *scratch, float *logits,
                 struct answer_draw *draw)
{
    const struct answer_place before = answer->place;
    if (answer->hashes_logits)
        answer->place.logits_hash = hash_logits(before.logits_hash, logits, answer->n_vocab);
    for (size_t i = tokenizer_n_tokens(answer->tokenizer); i < answer->n_vocab;
         i++) /* rows without a token */
        logits[i] = -INFINITY;
    bool tells_model = answer->n_logprobs >= 0 && !answer->tells_sampled;
    int32_t drawn;
    float logprob;
    draw->failure = draw_token(answer, scratch, logits, &drawn, tells_model ? &logprob : NULL, &draw->error);
    if (draw->failure)
        return;
    choose_token(answer, drawn, draw);
    if (tells_model)
        note_likeliest(answer, logits, logits[drawn] - logprob, draw);
    else if (answer->tells_sampled) /* the next draw of the same sampler forgets this one */
        draw->n_choices =
            sampler_tell(scratch->sampler, draw->token, (size_t)answer->n_logprobs, draw->choices);
    go_on(answer, before, draw);
}

bool answer_takes_best(const struct answer *answer)
{
    bool is_free = answer->wants_best;
    for (const struct constraint *constraint = answer->constraints; constraint && is_free;
         constraint = constraint->next)
        is_free = !constraint->mask || (constraint->limits && !constraint->limits(constraint));
    return is_free;
}

void answer_take(struct answer *answer, int32_t best, struct answer_draw *draw)
{
    choose_token(answer, best, draw);
    go_on(answer, answer->place, draw);
}

void answer_undo(struct answer *answer, uint32_t n)
{
    if (!n)
        return;
    answer->tokens.n -= n;
    answer->place = answer->before[answer->tokens.n % CONSTRAINT_UNDO_MAX];
    for (struct constraint *constraint = answer->constraints; constraint; constraint = constraint->next)
        constraint->undo(constraint, n);
}

void answer_end_thought(struct answer *answer)
{
    if (answer->budget)
        thinking_budget_ask(answer->budget);
}

int32_t answer_forced_token(const struct answer *answer)
{
    for (const struct constraint *constraint = answer->constraints; constraint;
         constraint = constraint->next) {
        int32_t token = constraint->forced ? constraint->forced(constraint) : -1;
        if (token >= 0)
            return token;
    }
    return -1;
}

bool answer_goes_on(const struct answer *answer, const struct answer_draw *draw)
{
    return !draw->failure && !draw->is_last && answer->tokens.n < answer->tokens.cap &&
           (answer->ignore_eos || !tokenizer_is_end(answer->tokenizer, draw->token));
}

/* Foreseeing ---------------------------------------------------------------------------------------------- */

/* The tokens that a mask leaves, n_max at most; more of them, or what is no text: 0. */
static uint32_t list_allowed(const struct answer *answer, const struct constraint_mask *mask, int32_t *tokens,
                             uint32_t n_max)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < (mask->n_vocab + 31) / 32; i++)
        for (uint32_t bits = mask->allowed[i]; bits; bits &= bits - 1) {
            int32_t token = (int32_t)(i * 32 + (uint32_t)__builtin_ctz(bits));
            if ((size_t)token >= tokenizer_n_tokens(answer->tokenizer)) /* a row without a token */
                return n;
            if (n == n_max || !text_of(answer, mask->before, token).len)
                return 0;
            tokens[n++] = token;
        }
    return n;
}

/* The only token that the constraints leave; or of several that all begin the same text the longest, as models write what they must. -1:
 * there is a choice. */
static int32_t only_token(struct answer *answer, struct constraint_mask *mask, bool *is_certain)
{
    int32_t tokens[ALIKE_MAX];
    runnel_error error;
    if (make_mask(answer, mask, &error) || !mask->is_limited)
        return -1;
    uint32_t n = list_allowed(answer, mask, tokens, ALIKE_MAX), longest = 0;
    for (uint32_t i = 1; i < n; i++)
        if (text_of(answer, mask->before, tokens[i]).len > text_of(answer, mask->before, tokens[longest]).len)
            longest = i;
    for (uint32_t i = 0; i < n; i++) {
        struct gguf_string text = text_of(answer, mask->before, tokens[i]);
        if (memcmp(text.bytes, text_of(answer, mask->before, tokens[longest]).bytes, text.len) != 0)
            return -1;
    }
    *is_certain = n == 1;
    return n ? tokens[longest] : -1;
}

uint32_t answer_foresee(struct answer *answer, struct answer_scratch *scratch, int32_t *tokens,
                        uint32_t n_max, uint32_t *n_certain)
{
    uint32_t n = 0;
    bool over = !answer->constraints;
    *n_certain = 0;
    while (n < n_max && !over) {
        bool is_certain = true;
        int32_t token = answer_forced_token(answer);
        if (token < 0)
            token = only_token(answer, &scratch->mask, &is_certain);
        if (token < 0)
            break;
        *n_certain += is_certain && *n_certain == n;
        tokens[n++] = token;
        accept_token(answer, token, false, answer->place);
        over = is_over(answer);
    }
    answer_undo(answer, n);
    return n;
}

/* Telling ------------------------------------------------------------------------------------------------- */

/* A drawn control token is no text; as an alternative it has its name. */
static runnel_logprob describe_choice(const struct answer *answer, const struct answer_draw *draw,
                                      struct sampler_choice choice, bool is_drawn)
{
    struct gguf_string piece = tokenizer_text(answer->tokenizer, draw->before, choice.token);
    bool is_silent = is_drawn && !tokenizer_has_text(answer->tokenizer, choice.token);
    return (runnel_logprob){
        .token = choice.token,
        .logprob = choice.logprob,
        .bytes = is_silent ? "" : piece.bytes,
        .n_bytes = is_silent ? 0 : piece.len,
    };
}

/* The token with its alternatives, or alone. */
static bool tell_token(struct answer *answer, const struct answer_draw *draw)
{
    runnel_logprob logprobs[RUNNEL_LOGPROBS_MAX + 1] = {
        describe_choice(answer, draw, (struct sampler_choice){.token = draw->token}, true)};
    for (size_t i = 0; i < draw->n_choices; i++)
        logprobs[i] = describe_choice(answer, draw, draw->choices[i], i == 0);
    const runnel_event event = {
        .kind = RUNNEL_EVENT_TOKEN,
        .text = "",
        .logprobs = logprobs,
        .n_logprobs = draw->n_choices ? draw->n_choices : 1,
    };
    return answer->on_event(answer->user, &event);
}

/* Keeps the text of an event, or the call, and passes it on. */
static bool on_text(void *user, const runnel_event *event)
{
    struct answer *answer = user;
    if (event->kind != RUNNEL_EVENT_THOUGHT && event->kind != RUNNEL_EVENT_ANSWER) {
        calls_add(&answer->calls, event);
        return !answer->calls.failed && answer->on_event(answer->user, event);
    }
    struct text *text = event->kind == RUNNEL_EVENT_THOUGHT ? &answer->reasoning : &answer->text;
    text_add(text, event->text, event->text_len);
    return !text->failed && answer->on_event(answer->user, event);
}

struct answer_outcome answer_finish(struct answer *answer, enum runnel_finish_reason reason)
{
    enum output_state state =
        reason == RUNNEL_FINISH_CANCELLED
            ? OUTPUT_CANCELLED
            : output_finish(answer->output, reason == RUNNEL_FINISH_LENGTH, on_text, answer);
    if (state == OUTPUT_CANCELLED)
        reason = RUNNEL_FINISH_CANCELLED;
    else if (state == OUTPUT_STOPPED)
        reason = RUNNEL_FINISH_STOP;
    calls_finish(&answer->calls);
    if (answer->text.failed || answer->reasoning.failed || answer->calls.failed) {
        error_set(&answer->error, RUNNEL_ENOMEM, "no memory for the answer's text");
        return (struct answer_outcome){true, RUNNEL_FINISH_ERROR, &answer->error};
    }
    return (struct answer_outcome){true, reason, NULL};
}

/* Counts a token before its text is known: it belongs to what is open. What a constraint writes belongs to neither. */
static void count_token(struct answer *answer, const struct answer_draw *draw)
{
    answer->last_ms = clock_ms();
    if (answer->n_drawn++ == 0)
        answer->first_ms = answer->last_ms;
    if (draw->is_thought && !draw->is_forced) {
        answer->n_thought++;
        answer->thought_ms = answer->last_ms;
    }
    if (draw->thought_end)
        answer->thought_end = draw->thought_end;
}

/* What is forced may begin where a drawn character has not ended: nobody but the limit broke that off. */
static bool continues_character(char byte)
{
    return ((uint8_t)byte & 0xc0) == 0x80;
}

struct answer_outcome answer_tell(struct answer *answer, const struct answer_draw *draw)
{
    static const struct answer_outcome goes_on;
    if (draw->failure)
        return (struct answer_outcome){true, RUNNEL_FINISH_ERROR, &draw->error};
    if (answer->tells_tokens && !tell_token(answer, draw))
        return answer_finish(answer, RUNNEL_FINISH_CANCELLED);
    count_token(answer, draw);
    if (!answer->ignore_eos && tokenizer_is_end(answer->tokenizer, draw->token))
        return answer_finish(answer, RUNNEL_FINISH_STOP);
    struct gguf_string text = text_of(answer, draw->before, draw->token);
    if (draw->is_forced && text.len && !continues_character(text.bytes[0]))
        output_cut_character(answer->output);
    switch (output_push(answer->output, text.bytes, text.len, on_text, answer)) {
    case OUTPUT_STOPPED:
        return answer_finish(answer, RUNNEL_FINISH_STOP);
    case OUTPUT_CANCELLED:
        return answer_finish(answer, RUNNEL_FINISH_CANCELLED);
    case OUTPUT_GOING_ON:
        break;
    }
    if (draw->is_last)
        return answer_finish(answer, RUNNEL_FINISH_STOP);
    if (answer->n_prompt + answer->n_drawn == answer->tokens.cap)
        return answer_finish(answer, RUNNEL_FINISH_LENGTH);
    return goes_on;
}

void answer_describe(const struct answer *answer, runnel_response *response)
{
    response->text = answer->text.bytes;
    response->reasoning = answer->reasoning.bytes;
    response->text_len = answer->text.len;
    response->reasoning_len = answer->reasoning.len;
    response->calls = calls_told(&answer->calls);
    response->n_calls = answer->calls.n;
    response->stop_index = output_stop_index(answer->output);
    response->n_tokens = answer->n_drawn;
    response->n_reasoning_tokens = answer->n_thought;
    response->decode_ms = answer->n_drawn ? answer->last_ms - answer->first_ms : 0;
    response->thinking_ms = answer->n_thought ? answer->thought_ms - answer->first_ms : 0;
    response->logits_hash = answer->place.logits_hash;
    response->thought_closed = answer->reasoning.len && !output_in_thought(answer->output);
    response->thought_end = answer->thought_end;
}
