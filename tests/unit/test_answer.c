/* test_answer.c: an answer from made-up logits to text, under constraints of the test's own: what a mask forbids is not drawn,
 * what is forced comes, and draws that are taken back leave nothing behind. */
#include "engine/answer.h"
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_VOCAB = TINY_MODEL_TOKENS, N_PROMPT = 3, N_TOKENS_MAX = 200, POOL_BYTES = 4 << 20 };

static runnel_model *model;
static struct pool *pool;
static struct answer_scratch *scratch;

static int open_all(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    model = tiny_engine_open(&options);
    assert_int_equal(pool_create(POOL_BYTES, &pool, NULL), 0);
    assert_int_equal(answer_scratch_create(N_VOCAB, &scratch, NULL), 0);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    struct pool_stats last;
    answer_scratch_free(scratch);
    assert_int_equal(pool_free(pool, &last), 0);
    runnel_model_close(model);
    return 0;
}

/* A constraint of the test's own ---------------------------------------------------------------------------- */

/* Its mask forbids all tokens whose id leaves `forbidden` modulo `modulus`, where `modulus` grows with each token that it was
 * told: what it allows depends on all that came before. */
struct rule {
    struct constraint constraint;
    uint32_t modulus;               /* 0: the mask forbids nothing */
    int32_t forced[4];              /* -1: none: at the first tokens of the answer */
    int32_t raised;                 /* -1: none */
    bool forbids_all, keeps, fails; /* keeps: by constraint_mask_keep */
    struct constraint_token told[N_TOKENS_MAX];
    uint32_t n_told, n_undone, *n_freed;
};

static bool is_allowed(const struct rule *rule, int32_t token)
{
    if (rule->forbids_all)
        return false;
    int32_t last = rule->n_told ? rule->told[rule->n_told - 1].id : 0;
    return !rule->modulus || ((uint32_t)token + (uint32_t)last) % (rule->modulus + rule->n_told % 5) != 0;
}

static int rule_mask(struct constraint *constraint, struct constraint_mask *mask, runnel_error *error)
{
    const struct rule *rule = (const struct rule *)constraint;
    if (rule->fails)
        return error_set(error, RUNNEL_EUNSUPPORTED, "the rule is too large");
    uint32_t words[(N_VOCAB + 31) / 32] = {0};
    assert_int_equal(mask->n_vocab, N_VOCAB);
    for (int32_t token = 0; token < N_VOCAB; token++)
        if (is_allowed(rule, token))
            words[token / 32] |= 1u << (token % 32);
        else if (!rule->keeps)
            constraint_mask_forbid(mask, token);
    if (rule->keeps)
        constraint_mask_keep(mask, words);
    if (rule->raised >= 0)
        constraint_mask_raise(mask, rule->raised, 1000);
    return RUNNEL_OK;
}

static bool rule_limits(const struct constraint *constraint)
{
    const struct rule *rule = (const struct rule *)constraint;
    return rule->fails || rule->modulus || rule->forbids_all || rule->keeps || rule->raised >= 0;
}

static int32_t rule_forced(const struct constraint *constraint)
{
    const struct rule *rule = (const struct rule *)constraint;
    return rule->n_told < 4 ? rule->forced[rule->n_told] : -1;
}

static void rule_accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct rule *rule = (struct rule *)constraint;
    assert_true(rule->n_told < N_TOKENS_MAX);
    rule->told[rule->n_told++] = *token;
}

static void rule_undo(struct constraint *constraint, uint32_t n)
{
    struct rule *rule = (struct rule *)constraint;
    assert_in_range(n, 1, CONSTRAINT_UNDO_MAX);
    rule->n_told -= n;
    rule->n_undone += n;
}

static void rule_free(struct constraint *constraint)
{
    struct rule *rule = (struct rule *)constraint;
    if (rule->n_freed)
        ++*rule->n_freed;
    free(rule);
}

static struct rule *add_rule(struct answer *answer, uint32_t modulus)
{
    struct rule *rule = calloc(1, sizeof *rule);
    assert_non_null(rule);
    rule->constraint = (struct constraint){
        .mask = rule_mask,
        .limits = rule_limits,
        .forced = rule_forced,
        .accept = rule_accept,
        .undo = rule_undo,
        .free = rule_free,
    };
    rule->modulus = modulus;
    rule->raised = -1;
    memset(rule->forced, -1, sizeof rule->forced);
    answer_add_constraint(answer, &rule->constraint);
    return rule;
}

/* An answer ------------------------------------------------------------------------------------------------- */

struct heard {
    uint32_t n_events, n_tokens;
    int32_t tokens[N_TOKENS_MAX];
    int n_until_end; /* events to accept; negative: all */
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    heard->n_events++;
    if (event->kind == RUNNEL_EVENT_TOKEN)
        heard->tokens[heard->n_tokens++] = event->logprobs[0].token;
    return heard->n_until_end != 0 && heard->n_until_end-- != 0;
}

static runnel_request plain_request(void)
{
    runnel_request request;
    runnel_request_init(&request);
    *own_sampling(model, &request) = (runnel_sampling){
        .size = sizeof(runnel_sampling), .top_p = 1, .repetition_penalty = 1, .penalty_window = -1};
    request.wants_tokens = true;
    request.wants_logits_hash = true;
    return request;
}

static void begin(struct answer *answer, const runnel_request *request, bool thinks, uint32_t max_tokens,
                  struct heard *heard)
{
    int32_t ids[N_PROMPT] = {1, 2, 3};
    const struct token_list prompt = {.ids = ids, .n = N_PROMPT};
    const struct answer_options options = {
        .pool = pool,
        .prompt = &prompt,
        .max_tokens = max_tokens,
        .splits_thoughts = thinks,
        .starts_in_thought = thinks,
        .on_event = hear,
        .user = heard,
    };
    runnel_error error;
    *heard = (struct heard){.n_until_end = -1};
    if (answer_create(answer, model, request, &options, &error))
        fail_msg("%s", error.message);
}

/* What a model would say after `last` at a position: the same numbers whenever it is asked. */
static void fill_logits(float *logits, size_t position, int32_t last)
{
    for (uint32_t i = 0; i < N_VOCAB; i++)
        logits[i] = (float)(sampler_random(position * 512 + (uint32_t)last, i) >> 40) * 0x1p-22f;
}

static struct answer_draw draw_after(struct answer *answer, int32_t last)
{
    float logits[N_VOCAB];
    struct answer_draw draw;
    fill_logits(logits, answer->tokens.n, last);
    answer_draw(answer, scratch, logits, &draw);
    return draw;
}

static struct answer_draw draw_next(struct answer *answer)
{
    return draw_after(answer, answer->tokens.ids[answer->tokens.n - 1]);
}

/* One token likelier than all others, the next one after it, and so on. */
static struct answer_draw draw_falling(struct answer *answer)
{
    float logits[N_VOCAB];
    struct answer_draw draw;
    for (int i = 0; i < N_VOCAB; i++)
        logits[i] = (float)-i;
    answer_draw(answer, scratch, logits, &draw);
    return draw;
}

static int32_t token_of(const char *text)
{
    int32_t token = tokenizer_find(model->tokenizer, text, strlen(text));
    assert_true(token >= 0);
    return token;
}

/* Masks ----------------------------------------------------------------------------------------------------- */

static void forbidden_tokens_are_not_drawn(void **state)
{
    (void)state;
    for (int temperature = 0; temperature < 2; temperature++)
        for (int keeps = 0; keeps < 2; keeps++) {
            struct answer answer;
            struct heard heard;
            runnel_request request = plain_request();
            own_sampling(model, &request)->temperature = (float)temperature;
            begin(&answer, &request, false, 100, &heard);
            struct rule *rule = add_rule(&answer, 2);
            rule->keeps = keeps;
            uint32_t n_turned = 0; /* tokens that would have been drawn without the mask */
            for (int i = 0; i < 100; i++) {
                struct rule before = *rule;
                struct answer_draw draw = draw_next(&answer);
                assert_int_equal(draw.failure, 0);
                assert_true(is_allowed(&before, draw.token));
                assert_int_equal(rule->n_told, i + 1);
                assert_int_equal(rule->told[i].id, draw.token);
                answer_undo(&answer, 1);
                rule->modulus = 0;
                n_turned += !is_allowed(&before, draw_next(&answer).token);
                answer_undo(&answer, 1);
                rule->modulus = 2;
                draw_next(&answer);
            }
            assert_in_range(n_turned, 5, 95);
            answer_free(&answer);
        }
}

/* A token must be left by each of them; nothing of one draw's masks is left in the next. */
static void masks_are_joined(void **state)
{
    (void)state;
    struct answer answer, free_one;
    struct heard heard;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 10, &heard);
    struct rule *odd = add_rule(&answer, 2), *third = add_rule(&answer, 3);
    third->keeps = true;
    assert_int_equal(draw_falling(&answer).token, 1); /* 0 is forbidden by both */
    odd->n_told = third->n_told = 0;                  /* as if it had not been told: the last token stays 0 */
    odd->modulus = 1;                                 /* forbids all */
    struct answer_draw draw = draw_falling(&answer);
    assert_int_equal(draw.failure, RUNNEL_ENUMERIC);
    struct answer_outcome outcome = answer_tell(&answer, &draw);
    assert_true(outcome.ended && outcome.reason == RUNNEL_FINISH_ERROR);
    assert_non_null(strstr(outcome.error->message, "allowed"));
    assert_int_equal(odd->n_told + third->n_told, 0);
    assert_int_equal(answer.tokens.n, N_PROMPT + 1);
    odd->modulus = third->modulus = 0;
    assert_int_equal(draw_falling(&answer).token, 0);
    odd->raised = 77;
    assert_int_equal(draw_falling(&answer).token, 77);
    third->forbids_all = true;
    assert_int_equal(draw_falling(&answer).failure, RUNNEL_ENUMERIC);
    begin(&free_one, &request, false, 10, &heard); /* the same scratch, and no constraint */
    assert_int_equal(draw_falling(&free_one).token, 0);
    answer_free(&free_one);
    answer_free(&answer);
}

/* A constraint that cannot go on ends its answer, with what it says. */
static void masks_may_fail(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 10, &heard);
    struct rule *rule = add_rule(&answer, 0);
    struct answer_draw draw = draw_next(&answer);
    assert_false(answer_tell(&answer, &draw).ended);
    rule->fails = true;
    draw = draw_next(&answer);
    assert_int_equal(draw.failure, RUNNEL_EUNSUPPORTED);
    struct answer_outcome outcome = answer_tell(&answer, &draw);
    assert_true(outcome.ended && outcome.reason == RUNNEL_FINISH_ERROR);
    assert_string_equal(outcome.error->message, "the rule is too large");
    assert_int_equal(answer.tokens.n, N_PROMPT + 1);
    answer_free(&answer);
}

/* Forced tokens --------------------------------------------------------------------------------------------- */

static void forced_tokens_come(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    uint32_t n_freed = 0;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 10, &heard);
    struct rule *first = add_rule(&answer, 0), *second = add_rule(&answer, 2);
    first->n_freed = second->n_freed = &n_freed;
    first->forced[1] = token_of("b");
    second->forced[0] = token_of("a"); /* where the first has no wish, the second is heard */
    second->forced[1] = token_of("z");
    second->forbids_all = true; /* what is forced is asked no mask, but drawing must be possible */
    assert_int_equal(answer_forced_token(&answer), token_of("a"));
    assert_int_equal(draw_next(&answer).failure, RUNNEL_ENUMERIC);
    second->forbids_all = false;
    for (int i = 0; i < 3; i++) {
        struct answer_draw draw = draw_next(&answer);
        assert_int_equal(draw.is_forced, i < 2);
        assert_int_equal(first->n_told, i + 1);
        assert_int_equal(second->told[i].id, draw.token);
        assert_false(answer_tell(&answer, &draw).ended);
        assert_int_equal(heard.tokens[i], draw.token);
    }
    assert_int_equal(answer_forced_token(&answer), -1);
    assert_true(answer.text.len >= 2 && memcmp(answer.text.bytes, "ab", 2) == 0);
    assert_int_equal(answer.n_drawn, 3);
    answer_free(&answer);
    assert_int_equal(n_freed, 2);
}

/* A constraint hears the text of each token, and whether it stands in the thought. */
static void constraints_hear_where_a_token_stands(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    begin(&answer, &request, true, 10, &heard);
    struct rule *rule = add_rule(&answer, 0);
    const int32_t forced[] = {token_of("a"), TINY_TOKEN_THINK_END, TINY_TOKEN_R1_USER, TINY_TOKEN_THINK};
    memcpy(rule->forced, forced, sizeof forced);
    for (int i = 0; i < 4; i++)
        draw_next(&answer);
    static const bool is_thought[] = {true, true, false, false},
                      next_is_thought[] = {true, false, false, false};
    static const char *const texts[] = {"a", "</think>", "", "<think>"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rule->told[i].is_thought, is_thought[i]);
        assert_int_equal(rule->told[i].next_is_thought, next_is_thought[i]);
        assert_int_equal(rule->told[i].len, strlen(texts[i]));
        assert_memory_equal(rule->told[i].bytes, texts[i], strlen(texts[i]));
    }
    answer_undo(&answer, 3);
    draw_next(&answer);
    assert_true(rule->told[1].is_thought && !rule->told[1].next_is_thought);
    answer_free(&answer);
}

/* Undoing --------------------------------------------------------------------------------------------------- */

/* With everything that a draw may depend on. */
static runnel_request busy_request(unsigned seed, int budget)
{
    runnel_request request = plain_request();
    own_sampling(model, &request)->temperature = 1;
    own_sampling(model, &request)->seed = seed;
    own_sampling(model, &request)->repetition_penalty = 1.3f;
    own_sampling(model, &request)->frequency_penalty = 0.5f;
    request.min_tokens = seed % 4 ? 60 : 0;
    request.thinking_budget = budget;
    request.soft_thinking_budget = seed % 3 ? -1 : budget / 2;
    request.thinking_message = seed % 5 ? NULL : "So.";
    request.n_logprobs = 3;
    request.wants_sampled_probs = seed % 2;
    return request;
}

/* k draws, of which the last j are taken back: what follows is what would have followed the first k - j. */
static void undone_draws_leave_nothing(void **state)
{
    (void)state;
    for (uint32_t k = 1; k <= CONSTRAINT_UNDO_MAX + 8; k++)
        for (uint32_t j = 1; j <= k && j <= CONSTRAINT_UNDO_MAX; j += 1 + j / 4) {
            struct answer answer, straight;
            struct heard heard, heard_straight;
            const runnel_request request = busy_request(k, (int)(k - j) + 2);
            begin(&answer, &request, true, 100, &heard);
            begin(&straight, &request, true, 100, &heard_straight);
            struct rule *rule = add_rule(&answer, 2), *straight_rule = add_rule(&straight, 2);
            for (uint32_t i = 0; i < k; i++)
                draw_after(&answer, i < k - j ? answer.tokens.ids[answer.tokens.n - 1] : (int32_t)i);
            answer_undo(&answer, j);
            for (uint32_t i = 0; i < k - j; i++)
                draw_next(&straight);
            assert_int_equal(heard.n_events + answer.n_drawn, 0); /* nobody has heard of any */
            assert_int_equal(rule->n_undone, j);
            for (uint32_t i = 0; i < 20; i++) {
                assert_int_equal(answer.tokens.n, straight.tokens.n);
                assert_memory_equal(answer.tokens.ids, straight.tokens.ids,
                                    answer.tokens.n * sizeof *answer.tokens.ids);
                assert_true(answer.place.logits_hash == straight.place.logits_hash);
                assert_int_equal(answer_forced_token(&answer), answer_forced_token(&straight));
                assert_int_equal(rule->n_told, straight_rule->n_told);
                draw_next(&answer);
                draw_next(&straight);
            }
            answer_free(&answer);
            answer_free(&straight);
        }
}

/* Drafts ---------------------------------------------------------------------------------------------------- */

/* Draws and tells one after the other. */
static struct answer_outcome run_straight(struct answer *answer)
{
    struct answer_outcome outcome;
    do {
        struct answer_draw draw = draw_next(answer);
        outcome = answer_tell(answer, &draw);
    } while (!outcome.ended);
    return outcome;
}

/* Guesses what comes, rightly three times out of four, computes the rows of the guesses at once, takes back what was drawn
 * behind a wrong one, and tells the rest. */
static struct answer_outcome run_drafted(struct answer *answer, const struct answer *known, uint64_t seed,
                                         uint32_t *n_undone)
{
    struct answer_outcome outcome = {0};
    while (!outcome.ended) {
        struct answer_draw draws[9];
        size_t position = answer->tokens.n;
        uint32_t n_rows = 1 + (uint32_t)(sampler_random(seed, position) % 8), n_good = 0;
        n_rows = position + n_rows < known->tokens.n ? n_rows : (uint32_t)(known->tokens.n - position);
        int32_t guesses[9];
        for (uint32_t i = 0; i < n_rows; i++)
            guesses[i] = sampler_random(seed + 1, position + i) % 4 ? known->tokens.ids[position + i] : 65;
        int32_t last = answer->tokens.ids[position - 1];
        for (uint32_t i = 0; i < n_rows; i++)
            draws[i] = draw_after(answer, i ? guesses[i - 1] : last);
        while (n_good < n_rows - 1 && draws[n_good].token == guesses[n_good])
            n_good++;
        n_good++; /* the row behind the last right guess is as good as any */
        *n_undone += n_rows - n_good;
        answer_undo(answer, n_rows - n_good);
        for (uint32_t i = 0; i < n_good && !outcome.ended; i++)
            outcome = answer_tell(answer, &draws[i]);
    }
    return outcome;
}

static void drafts_change_nothing(void **state)
{
    (void)state;
    uint32_t n_undone = 0, n_stopped = 0, n_closed = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        static const char *const stops[] = {"a", "Ab"};
        struct answer straight, drafted;
        struct heard heard_straight, heard;
        runnel_request request = busy_request(seed, (int)(seed % 40));
        request.stop = stops;
        request.n_stop = seed % 3;
        begin(&straight, &request, true, 100, &heard_straight);
        begin(&drafted, &request, true, 100, &heard);
        add_rule(&straight, 3);
        add_rule(&drafted, 3);
        struct answer_outcome expected = run_straight(&straight);
        struct answer_outcome outcome = run_drafted(&drafted, &straight, seed, &n_undone);
        assert_int_equal(outcome.reason, expected.reason);
        assert_int_equal(drafted.tokens.n, straight.tokens.n);
        assert_int_equal(drafted.n_drawn, straight.n_drawn);
        assert_int_equal(drafted.n_thought, straight.n_thought);
        assert_int_equal(drafted.thought_end, straight.thought_end);
        assert_true(drafted.place.logits_hash == straight.place.logits_hash);
        assert_string_equal(drafted.text.bytes, straight.text.bytes);
        assert_string_equal(drafted.reasoning.bytes, straight.reasoning.bytes);
        assert_int_equal(heard.n_events, heard_straight.n_events);
        assert_memory_equal(heard.tokens, heard_straight.tokens, sizeof heard.tokens);
        n_stopped += outcome.reason == RUNNEL_FINISH_STOP;
        n_closed += drafted.n_thought == seed % 40 && drafted.text.len > 0;
        answer_free(&straight);
        answer_free(&drafted);
    }
    assert_true(n_undone > 200 && n_closed > 40 && n_stopped > 5 && n_stopped < 60);
}

/* Foreseeing ------------------------------------------------------------------------------------------------ */

/* A constraint whose mask leaves the tokens that begin what is left of a text, then anything. */
struct spelling {
    struct constraint constraint;
    const char *text;
    size_t at, before[N_TOKENS_MAX];
    uint32_t n_told;
};

static int spelling_mask(struct constraint *constraint, struct constraint_mask *mask, runnel_error *error)
{
    (void)error;
    const struct spelling *spelling = (const struct spelling *)constraint;
    const char *left = spelling->text + spelling->at;
    if (!*left)
        return RUNNEL_OK;
    for (int32_t token = 0; token < N_VOCAB; token++) {
        struct gguf_string text = tokenizer_text(model->tokenizer, -1, token);
        if (!tokenizer_has_text(model->tokenizer, token) || !text.len ||
            strncmp(left, text.bytes, text.len) != 0)
            constraint_mask_forbid(mask, token);
    }
    return RUNNEL_OK;
}

static void spelling_accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct spelling *spelling = (struct spelling *)constraint;
    spelling->before[spelling->n_told++] = spelling->at;
    size_t n_left = strlen(spelling->text + spelling->at);
    spelling->at += token->len < n_left ? token->len : n_left;
}

static void spelling_undo(struct constraint *constraint, uint32_t n)
{
    struct spelling *spelling = (struct spelling *)constraint;
    spelling->n_told -= n;
    spelling->at = spelling->before[spelling->n_told];
}

static void spelling_free(struct constraint *constraint)
{
    free(constraint);
}

static struct spelling *add_spelling(struct answer *answer, const char *text)
{
    struct spelling *spelling = calloc(1, sizeof *spelling);
    assert_non_null(spelling);
    spelling->constraint = (struct constraint){
        .mask = spelling_mask, .accept = spelling_accept, .undo = spelling_undo, .free = spelling_free};
    spelling->text = text;
    answer_add_constraint(answer, &spelling->constraint);
    return spelling;
}

/* What is forced is foreseen as far as it goes, and nothing has happened. */
static void forced_tokens_are_foreseen(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    int32_t tokens[10];
    uint32_t n_certain;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 100, &heard);
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 10, &n_certain), 0);
    struct rule *rule = add_rule(&answer, 0);
    memcpy(rule->forced, (const int32_t[]){70, 71, 72, -1}, sizeof rule->forced);
    const uint64_t hash = answer.place.logits_hash;
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 10, &n_certain), 3);
    assert_int_equal(n_certain, 3);
    assert_memory_equal(tokens, rule->forced, 3 * sizeof *tokens);
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 2, &n_certain), 2);
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 0, &n_certain), 0);
    assert_int_equal(answer.tokens.n, N_PROMPT);
    assert_int_equal(rule->n_told, 0);
    assert_true(answer.place.logits_hash == hash);
    struct answer_draw draw = draw_next(&answer);
    assert_int_equal(draw.token, 70);
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 10, &n_certain), 2);
    assert_int_equal(tokens[0], 71);
    rule->fails = true; /* its mask, behind what is forced: the answer would end there */
    assert_int_equal(answer_foresee(&answer, scratch, tokens, 10, &n_certain), 2);
    answer_free(&answer);
}

/* A text that must come is foreseen in the longest tokens; only where there is no other way to write it are they certain. */
static void a_forced_text_is_foreseen(void **state)
{
    (void)state;
    static const char text[] = "the q%the";
    struct answer answer;
    struct heard heard;
    int32_t tokens[20];
    uint32_t n_certain, n, n_drawn = 0;
    size_t at = 0;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 100, &heard);
    struct spelling *spelling = add_spelling(&answer, text);
    n = answer_foresee(&answer, scratch, tokens, 20, &n_certain);
    assert_true(n > 0 && n_certain < n);
    for (uint32_t i = 0; i < n; i++) {
        struct gguf_string piece = tokenizer_text(model->tokenizer, -1, tokens[i]);
        assert_memory_equal(text + at, piece.bytes, piece.len);
        for (int32_t other = 0; other < N_VOCAB; other++) { /* none that is longer would do */
            struct gguf_string longer = tokenizer_text(model->tokenizer, -1, other);
            if (longer.len > piece.len && tokenizer_has_text(model->tokenizer, other))
                assert_true(strncmp(text + at, longer.bytes, longer.len) != 0);
        }
        at += piece.len;
    }
    assert_int_equal(at, strlen(text));
    assert_true(n < strlen(text)); /* some have several characters */
    assert_int_equal(spelling->at, 0);
    while (spelling->at < strlen(text)) { /* near its end there is one token for what is left */
        n_drawn++;
        draw_next(&answer);
        n = answer_foresee(&answer, scratch, tokens, 20, &n_certain);
        assert_true(spelling->at == strlen(text) ? n == 0 : n > 0);
        if (strlen(text) - spelling->at == 1)
            assert_int_equal(n_certain, 1);
    }
    assert_true(n_drawn > 2);
    answer_free(&answer);
}

/* Outcomes -------------------------------------------------------------------------------------------------- */

/* Forces tokens, then draws, until it ends; the answer is to be freed. */
static struct answer_outcome run_forced(struct answer *answer, const int32_t *forced)
{
    struct rule *rule = add_rule(answer, 0);
    memcpy(rule->forced, forced, sizeof rule->forced);
    return run_straight(answer);
}

static void outcomes_say_why(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    const int32_t a = token_of("a"), b = token_of("b");
    const int32_t ends[] = {a, b, TINY_TOKEN_R1_END, -1}, goes_on[] = {a, b, a, b};

    begin(&answer, &request, false, 50, &heard);
    assert_int_equal(run_forced(&answer, ends).reason, RUNNEL_FINISH_STOP);
    assert_string_equal(answer.text.bytes, "ab");
    assert_int_equal(answer.n_drawn, 3);
    answer_free(&answer);

    begin(&answer, &request, false, 4, &heard);
    assert_int_equal(run_forced(&answer, goes_on).reason, RUNNEL_FINISH_LENGTH);
    assert_string_equal(answer.text.bytes, "abab");
    answer_free(&answer);

    const char *const stops[] = {"xx", "ba"};
    request.stop = stops;
    request.n_stop = 2;
    begin(&answer, &request, false, 50, &heard);
    assert_int_equal(run_forced(&answer, goes_on).reason, RUNNEL_FINISH_STOP);
    assert_string_equal(answer.text.bytes, "a");
    runnel_response response = {.size = sizeof response};
    answer_describe(&answer, &response);
    assert_int_equal(response.stop_index, 1);
    assert_int_equal(response.n_tokens, 3);
    answer_free(&answer);

    begin(&answer, &request, false, 50, &heard);
    heard.n_until_end = 3; /* the second token's text is held back: its event is the third */
    assert_int_equal(run_forced(&answer, goes_on).reason, RUNNEL_FINISH_CANCELLED);
    assert_int_equal(heard.n_events, 4);
    answer_free(&answer);

    /* What was held back is told at an end from outside. */
    begin(&answer, &request, false, 50, &heard);
    memcpy(add_rule(&answer, 0)->forced, goes_on, sizeof goes_on);
    for (int i = 0; i < 2; i++) {
        struct answer_draw draw = draw_next(&answer);
        assert_false(answer_tell(&answer, &draw).ended);
    }
    assert_string_equal(answer.text.bytes, "a");
    assert_int_equal(answer_finish(&answer, RUNNEL_FINISH_LENGTH).reason, RUNNEL_FINISH_LENGTH);
    assert_string_equal(answer.text.bytes, "ab");
    answer_free(&answer);
}

/* What is forced goes on with a character that was begun, or cuts it: its beginning is no text then. In the tiny vocabulary a
 * byte's id is the byte. */
static void forced_tokens_and_characters(void **state)
{
    (void)state;
    static const struct {
        int32_t forced[4];
        const char *text;
    } cases[] = {
        {{0xe2, 0x82, 0xac, 'a'}, "\xe2\x82\xac" /* then */ "a"},
        {{0xe2, 0x82, 'a', 'b'}, "ab"},
        {{'a', 0xff, 'b', 'c'}, "a\xef\xbf\xbd" /* no beginning of one */ "bc"},
    };
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&answer, &request, false, 4, &heard);
        assert_int_equal(run_forced(&answer, cases[i].forced).reason, RUNNEL_FINISH_LENGTH);
        assert_string_equal(answer.text.bytes, cases[i].text);
        answer_free(&answer);
    }
}

static void bad_logits_end_the_answer(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    begin(&answer, &request, false, 50, &heard);
    struct rule *rule = add_rule(&answer, 0);
    float logits[N_VOCAB] = {0};
    struct answer_draw draw;
    logits[7] = NAN;
    answer_draw(&answer, scratch, logits, &draw);
    struct answer_outcome outcome = answer_tell(&answer, &draw);
    assert_true(outcome.ended && outcome.reason == RUNNEL_FINISH_ERROR);
    assert_int_equal(outcome.error->code, RUNNEL_ENUMERIC);
    assert_int_equal(rule->n_told + heard.n_events + answer.n_drawn, 0);
    answer_free(&answer);
}

/* The likeliest token alone ---------------------------------------------------------------------------------- */

static int32_t likeliest_of(const float *logits)
{
    int32_t best = 0;
    for (int32_t i = 1; i < (int32_t)tokenizer_n_tokens(model->tokenizer); i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* Two answers, one of which draws from the logits and the other takes the likeliest token wherever that is said to be enough: while a
 * thought is open, while it is closed, and while a rule limits nothing; where the rule does, it is not. */
static void the_likeliest_token_is_enough(void **state)
{
    (void)state;
    uint32_t n_taken = 0, n_forced = 0, n_limited = 0;
    for (int budget = 0; budget < 40; budget += 7) {
        struct answer drawn, taken;
        struct heard heard, heard_too;
        runnel_request request = plain_request();
        request.wants_logits_hash = false;
        request.thinking_budget = budget % 2 ? budget : -1;
        begin(&drawn, &request, true, 90, &heard);
        begin(&taken, &request, true, 90, &heard_too);
        struct rule *rules[] = {add_rule(&drawn, 0), add_rule(&taken, 0)};
        for (int i = 0; i < 80; i++) {
            float logits[N_VOCAB], same[N_VOCAB];
            struct answer_draw expected, found;
            fill_logits(logits, drawn.tokens.n, drawn.tokens.ids[drawn.tokens.n - 1]);
            memcpy(same, logits, sizeof same);
            logits[TINY_MODEL_TOKENS - 1] = same[TINY_MODEL_TOKENS - 1] = i % 9 == 8 ? 9.0f : 0.5f;
            logits[3] = same[3] = logits[5] = same[5] = i % 4 == 1 ? 8.0f : 0.25f; /* a tie */
            rules[0]->modulus = rules[1]->modulus = i % 5 == 4 ? 2 : 0;
            rules[0]->raised = rules[1]->raised = i % 5 == 3 ? 50 : -1;
            bool is_enough = answer_takes_best(&taken);
            if (i % 5 >= 3)
                assert_false(is_enough);
            if (is_enough)
                answer_take(&taken, likeliest_of(same), &found);
            else
                answer_draw(&taken, scratch, same, &found);
            answer_draw(&drawn, scratch, logits, &expected);
            assert_int_equal(found.failure, expected.failure);
            assert_int_equal(found.token, expected.token);
            assert_int_equal(found.before, expected.before);
            assert_int_equal(found.is_forced, expected.is_forced);
            assert_int_equal(found.is_instead, expected.is_instead);
            assert_int_equal(found.is_thought, expected.is_thought);
            assert_int_equal(found.is_last, expected.is_last);
            assert_int_equal(found.thought_end, expected.thought_end);
            assert_int_equal(found.n_choices, 0);
            n_taken += is_enough;
            n_forced += is_enough && found.is_forced;
            n_limited += !is_enough;
        }
        assert_int_equal(taken.tokens.n, drawn.tokens.n);
        answer_free(&drawn);
        answer_free(&taken);
    }
    assert_true(n_taken > 200 && n_forced > 0 && n_limited > 100);
}

/* Whoever is told more of the logits, or draws by chance, needs them. */
static void who_needs_logits(void **state)
{
    (void)state;
    for (int wish = 0; wish < 5; wish++) {
        struct answer answer;
        struct heard heard;
        runnel_request request = plain_request();
        request.wants_logits_hash = wish == 1;
        request.n_logprobs = wish == 2 ? 0 : -1;
        own_sampling(model, &request)->temperature = wish >= 3 ? 1 : 0;
        own_sampling(model, &request)->top_k = wish == 4 ? 1 : 0;
        begin(&answer, &request, false, 10, &heard);
        assert_int_equal(answer_takes_best(&answer), wish == 0 || wish == 4);
        answer_free(&answer);
    }
}

/* Constraints are asked without a mask: one that would fail, and one that does not tell, need the draw. */
static void who_may_be_limited_needs_logits(void **state)
{
    (void)state;
    struct answer answer;
    struct heard heard;
    runnel_request request = plain_request();
    request.wants_logits_hash = false;
    begin(&answer, &request, false, 10, &heard);
    struct rule *rule = add_rule(&answer, 0);
    assert_true(answer_takes_best(&answer));
    rule->fails = true;
    assert_false(answer_takes_best(&answer));
    rule->fails = false;
    assert_true(answer_takes_best(&answer));
    add_spelling(&answer, "a text");
    assert_false(answer_takes_best(&answer));
    answer_free(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forbidden_tokens_are_not_drawn),
        cmocka_unit_test(masks_are_joined),
        cmocka_unit_test(masks_may_fail),
        cmocka_unit_test(forced_tokens_come),
        cmocka_unit_test(constraints_hear_where_a_token_stands),
        cmocka_unit_test(undone_draws_leave_nothing),
        cmocka_unit_test(drafts_change_nothing),
        cmocka_unit_test(forced_tokens_are_foreseen),
        cmocka_unit_test(a_forced_text_is_foreseen),
        cmocka_unit_test(outcomes_say_why),
        cmocka_unit_test(forced_tokens_and_characters),
        cmocka_unit_test(bad_logits_end_the_answer),
        cmocka_unit_test(the_likeliest_token_is_enough),
        cmocka_unit_test(who_needs_logits),
        cmocka_unit_test(who_may_be_limited_needs_logits),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
