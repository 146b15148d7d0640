/* test_thoughts.c: what ends a thought, on made-up logits: soft budgets at the end of a sentence, the part of the tokens that is kept for
 * the answer, end tokens, loops, and whoever asks; with a message or without, and whatever was drawn in vain between. Then the same
 * through an engine: the rule of the reserve, and runnel_end_thought. */
#include "engine/answer.h"
#include "helpers/tiny_engine.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    N_VOCAB = TINY_MODEL_TOKENS,
    N_TAG = 4, /* tokens of "\n</think>\n\n" */
    POOL_BYTES = 16 << 20,
    END = TINY_TOKEN_R1_END,
    END_BYTE = 1, /* stands for it in a script, and for the beginning of a thought: */
    OPEN_BYTE = 2,
};

static runnel_model *model;
static struct pool *pool;
static struct answer_scratch *scratch;

static int open_all(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    options.n_context = 8192;
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

/* A model that says what a script says ------------------------------------------------------------------------ */

struct script {
    const char *thought, *answer; /* a byte is a token; said again and again */
    float gap;                    /* how much less likely than that the closing token is in the thought */
    bool opens;                   /* the thought is not open at the start */
    uint32_t n_vain;              /* tokens drawn in vain before each one, at most */
    uint32_t ask_at;              /* so many tokens in, somebody asks for the end; 0: nobody does */
};

static bool hear_nothing(void *user, const runnel_event *event)
{
    (void)user;
    (void)event;
    return true;
}

static runnel_request plain_request(void)
{
    runnel_request request;
    runnel_request_init(&request);
    *own_sampling(model, &request) =
        (runnel_sampling){.size = sizeof(runnel_sampling), .top_p = 1, .repetition_penalty = 1};
    return request;
}

static int begin(struct answer *answer, const runnel_request *request, const struct script *script,
                 uint32_t max_tokens, uint32_t n_reserved, runnel_error *error)
{
    int32_t ids[] = {1, 2, 3};
    const struct token_list prompt = {.ids = ids, .n = 3};
    const struct answer_options options = {
        .pool = pool,
        .prompt = &prompt,
        .max_tokens = max_tokens,
        .n_reserved = n_reserved,
        .splits_thoughts = true,
        .starts_in_thought = !script->opens,
        .on_event = hear_nothing,
    };
    return answer_create(answer, model, request, &options, error);
}

static int32_t wish(const char *text, size_t at)
{
    char byte = text[at % strlen(text)];
    return byte == END_BYTE ? END : byte == OPEN_BYTE ? TINY_TOKEN_THINK : (uint8_t)byte;
}

static struct answer_draw draw_wished(struct answer *answer, int32_t token, float gap)
{
    float logits[N_VOCAB];
    struct answer_draw draw;
    for (int i = 0; i < N_VOCAB; i++)
        logits[i] = -50 - (float)i * 0.01f;
    logits['#'] = 9; /* where the wish may not come */
    logits[token] = 10;
    if (answer->place.tags.phase == IN_THOUGHT && token != TINY_TOKEN_THINK_END)
        logits[TINY_TOKEN_THINK_END] = 10 - gap;
    answer_draw(answer, scratch, logits, &draw);
    assert_int_equal(draw.failure, 0);
    return draw;
}

/* Tokens that nobody will hear of, up to the end of the room for any. */
static void draw_in_vain(struct answer *answer, const struct script *script)
{
    size_t n = script->n_vain ? sampler_random(7, answer->tokens.n) % (script->n_vain + 1) : 0, i = 0;
    for (; i < n && answer->tokens.n < answer->tokens.cap; i++) {
        static const char others[] = "x.\1 \n\xe2";
        int32_t token = wish(others, sampler_random(i, answer->tokens.n) % 6);
        struct answer_draw draw = draw_wished(answer, token, i % 3 ? 100 : -100);
        if (draw.is_last || draw.token == END) {
            i++;
            break;
        }
    }
    answer_undo(answer, (uint32_t)i);
}

/* Until it ends. */
static struct answer_outcome run(struct answer *answer, const struct script *script)
{
    struct answer_outcome outcome = {0};
    size_t n_thought = 0, n_answer = 0;
    while (!outcome.ended) {
        bool in_thought = answer->place.tags.phase != AFTER_THOUGHT;
        draw_in_vain(answer, script);
        int32_t token = in_thought ? wish(script->thought, n_thought) : wish(script->answer, n_answer);
        struct answer_draw draw = draw_wished(answer, token, script->gap);
        outcome = answer_tell(answer, &draw);
        if (!draw.is_forced) /* the script goes on where it was heard */
            ++*(in_thought ? &n_thought : &n_answer);
        if (answer->n_drawn == script->ask_at)
            answer_end_thought(answer);
    }
    return outcome;
}

struct result {
    char reasoning[2048], text[2048];
    uint32_t n_tokens, n_thought;
    enum runnel_thought_end end;
    enum runnel_finish_reason reason;
};

static struct result run_all(const runnel_request *request, const struct script *script, uint32_t max_tokens,
                             uint32_t n_reserved)
{
    struct answer answer;
    struct result result = {.n_tokens = 0};
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (begin(&answer, request, script, max_tokens, n_reserved, &error))
        fail_msg("%s", error.message);
    result.reason = run(&answer, script).reason;
    answer_describe(&answer, &response);
    assert_true(response.text_len < sizeof result.text && response.reasoning_len < sizeof result.reasoning);
    memcpy(result.text, response.text ? response.text : "", response.text_len);
    memcpy(result.reasoning, response.reasoning ? response.reasoning : "", response.reasoning_len);
    result.n_tokens = response.n_tokens;
    result.n_thought = response.n_reasoning_tokens;
    result.end = response.thought_end;
    answer_free(&answer);
    return result;
}

/* The same, and with draws in vain, which change nothing. */
static struct result run_script(const runnel_request *request, struct script script, uint32_t max_tokens,
                                uint32_t n_reserved)
{
    struct result straight = run_all(request, &script, max_tokens, n_reserved);
    for (uint32_t n_vain = 1; n_vain <= CONSTRAINT_UNDO_MAX; n_vain += 10) {
        script.n_vain = n_vain;
        struct result result = run_all(request, &script, max_tokens, n_reserved);
        assert_string_equal(result.reasoning, straight.reasoning);
        assert_string_equal(result.text, straight.text);
        assert_int_equal(result.n_tokens, straight.n_tokens);
        assert_int_equal(result.n_thought, straight.n_thought);
        assert_int_equal(result.end, straight.end);
        assert_int_equal(result.reason, straight.reason);
    }
    return straight;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Soft budgets -------------------------------------------------------------------------------------------------- */

static const char prose[] =
    "First we look at it. Then we ask how it came to be; why 3.14 is there, e.g. and what Mr X "
    "said of it. It may be so! Or may it not be? \"Yes.\" And on it goes, without a rest. ";

static void a_soft_budget_ends_at_a_sentence(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = prose, .answer = "so", .gap = 100};
    for (int soft = 0; soft < 150; soft += 7) {
        request.soft_thinking_budget = soft;
        struct result result = run_script(&request, script, 400, 0);
        assert_int_equal(result.end, RUNNEL_THOUGHT_SOFT_BUDGET);
        assert_true(result.n_thought >= (uint32_t)soft + THINKING_SOFT_TOKENS);
        assert_true(result.n_thought <=
                    (uint32_t)soft + THINKING_SOFT_TOKENS + 90); /* the longest sentence */
        size_t n = strlen(result.reasoning);
        assert_true(n == result.n_thought + 1u &&
                    memcmp(result.reasoning, prose, n - 1 < 150 ? n - 1 : 150) == 0);
        assert_non_null(strchr(".!?\" ", result.reasoning[n - 2])); /* a newline of the tag is behind it */
        assert_true(result.text[0] == 's');
    }
    request.soft_thinking_budget = -1;
    assert_int_equal(run_script(&request, script, 400, 0).end, RUNNEL_THOUGHT_NONE);
    request.soft_thinking_budget = 20;
    script.thought = "on and on and on without an end of anything "; /* and where none ends, it goes on */
    assert_int_equal(run_script(&request, script, 130, 0).end, RUNNEL_THOUGHT_NONE);
    request.thinking_budget = 60;
    struct result result = run_script(&request, script, 130, 0);
    assert_true(result.end == RUNNEL_THOUGHT_BUDGET && result.n_thought == 60);
}

/* The closing token gets likelier, but where no sentence has ended. */
static void a_closing_token_gets_likelier(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = "It is so. Is it so? It is. ", .answer = "so", .gap = 100};
    request.soft_thinking_budget = 10;
    uint32_t n_at_most = run_script(&request, script, 200, 0).n_thought, n_before = 0, n_kinds = 0;
    for (int gap = 1; gap < 12; gap++) {
        script.gap = (float)gap;
        struct result result = run_script(&request, script, 200, 0);
        assert_int_equal(result.end, RUNNEL_THOUGHT_SOFT_BUDGET);
        assert_true(result.n_thought >= n_before && result.n_thought > 10 && result.n_thought <= n_at_most);
        assert_non_null(strchr(".? \n", result.reasoning[strlen(result.reasoning) - 1]));
        n_kinds += result.n_thought > n_before;
        n_before = result.n_thought;
    }
    assert_true(n_kinds >= 3);
    script.gap = -1; /* what the model closes by itself is its own doing */
    struct result result = run_script(&request, script, 200, 0);
    assert_true(result.end == RUNNEL_THOUGHT_MODEL && result.n_thought == 1);
}

/* Messages ------------------------------------------------------------------------------------------------------ */

static void a_message_comes_before_the_end(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    const struct script script = {.thought = "hm", .answer = "so", .gap = 100};
    request.thinking_budget = 5;
    request.thinking_message = " Time is up.";
    struct result result = run_script(&request, script, 60, 0);
    assert_string_equal(result.reasoning, "hmhmh Time is up.\n");
    assert_int_equal(result.n_thought, 5);
    assert_int_equal(result.end, RUNNEL_THOUGHT_BUDGET);
    assert_int_equal(strlen(result.text), 60 - 5 - 12 - N_TAG);
    request.thinking_message = "";
    assert_string_equal(run_script(&request, script, 60, 0).reasoning, "hmhmh\n");
    request.thinking_message = " Time is up."; /* where no token would be left behind it, it gives way */
    assert_string_equal(run_script(&request, script, 5 + 12 + N_TAG + 1, 0).text, "s");
    result = run_script(&request, script, 5 + 12 + N_TAG, 0);
    assert_string_equal(result.reasoning, "hmhmh\n");
    assert_int_equal(strlen(result.text), 12);
    request.thinking_budget = 0; /* no thought was wanted */
    struct script opens = {.thought = "\2", .answer = "so", .gap = 100, .opens = true};
    result = run_script(&request, opens, 60, 0);
    assert_string_equal(result.reasoning, "");
    assert_int_equal(result.end, RUNNEL_THOUGHT_BUDGET);
    request.thinking_budget = -1; /* the model closes it itself */
    opens = (struct script){.thought = "hm", .answer = "so", .gap = -1};
    result = run_script(&request, opens, 60, 0);
    assert_string_equal(result.reasoning, "");
    assert_int_equal(result.end, RUNNEL_THOUGHT_MODEL);
}

static void bad_messages_are_refused(void **state)
{
    (void)state;
    char longest[RUNNEL_THINKING_MESSAGE_MAX + 2];
    runnel_request request = plain_request();
    const struct script script = {.thought = "hm", .answer = "so", .gap = 100};
    memset(longest, '#', sizeof longest);
    longest[sizeof longest - 1] = 0;
    const char *const wrong[] = {longest, "so</think>so", "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct answer answer;
        runnel_error error;
        request.thinking_message = wrong[i];
        assert_int_equal(begin(&answer, &request, &script, 10, 0, &error), RUNNEL_EINVAL);
        assert_non_null(strstr(error.message, "thinking_message"));
        answer_free(&answer);
    }
    longest[sizeof longest - 2] = 0;
    request.thinking_message = longest;
    request.thinking_budget = 1;
    assert_int_equal(strlen(run_script(&request, script, 400, 0).reasoning),
                     1 + RUNNEL_THINKING_MESSAGE_MAX + 1);
}

/* Reserves ------------------------------------------------------------------------------------------------------ */

static void a_reserve_leaves_an_answer(void **state)
{
    (void)state;
    const struct script script = {.thought = "hm", .answer = "so", .gap = 100};
    runnel_request request = plain_request();
    for (uint32_t n_message = 0; n_message < 2; n_message++)
        for (uint32_t n = 1; n < 60; n++)
            for (uint32_t n_reserved = 1; n_reserved < n + 3; n_reserved += 3) {
                request.thinking_message = n_message ? "0123456789" : NULL;
                struct result result = run_all(&request, &script, n, n_reserved);
                assert_int_equal(result.n_tokens, n);
                if (n == 1) { /* there is no way to an answer */
                    assert_int_equal(result.n_thought, 1);
                    continue;
                }
                bool has_message = n_message && n > 10 + N_TAG + n_reserved;
                uint32_t n_close = n > N_TAG ? N_TAG : 1; /* the tag without white space */
                uint32_t n_answer = n_reserved < n - n_close ? n_reserved : n - n_close;
                assert_int_equal(strlen(result.text), n_answer);
                assert_int_equal(result.end, RUNNEL_THOUGHT_RESERVE);
                assert_int_equal(result.n_thought, n - n_close - n_answer - (has_message ? 10 : 0));
                assert_int_equal(strstr(result.reasoning, "0123456789") != NULL, has_message);
            }
    request.thinking_message = NULL;
    run_script(&request, script, 50, 20);
    struct script opens = {.thought = "a\2mm", .answer = "so", .gap = 100, .opens = true}; /* later */
    struct result result = run_script(&request, opens, 50, 20);
    assert_int_equal(result.n_thought, 50 - 20 - N_TAG - 2);
    request.thinking_budget = 5; /* whichever comes first */
    assert_int_equal(run_script(&request, script, 50, 20).n_thought, 5);
}

/* Whatever closes the thought shortly before the end, and whatever blanks the model likes there. */
static void few_tokens_are_an_answer_too(void **state)
{
    (void)state;
    struct script script = {.thought = "hm", .answer = " \n \t", .gap = 100};
    runnel_request request = plain_request();
    for (uint32_t n = 2; n < 12; n++) {
        struct result result = run_script(&request, script, n, n / 2);
        assert_int_equal(result.end, RUNNEL_THOUGHT_RESERVE);
        assert_non_null(strchr(result.text, '#')); /* the next likely one */
        assert_int_equal(result.n_tokens, n);
    }
    for (uint32_t n_left = 2; n_left < 8; n_left++) {
        request.answer_reserve = 0;
        request.thinking_budget = 20 - (int)n_left;
        struct result result = run_script(&request, script, 20, 0);
        assert_int_equal(result.end, RUNNEL_THOUGHT_BUDGET);
        assert_int_equal(result.n_thought, 20 - n_left);
        assert_non_null(strchr(result.text, '#'));
        request.thinking_budget = -1;
        script.ask_at = 20 - n_left;
        assert_non_null(strchr(run_script(&request, script, 20, 0).text, '#'));
        script.ask_at = 0;
    }
    request.thinking_budget = 19; /* one token holds the tag, and no answer */
    assert_string_equal(run_script(&request, script, 20, 0).text, "");
}

/* A reserve that nobody asked for is there where the budget would leave no answer, and only there. */
static void a_budget_goes_before_the_default_reserve(void **state)
{
    (void)state;
    const struct script script = {.thought = "hm", .answer = "so", .gap = 100};
    runnel_request request = plain_request();
    for (int budget = 1; budget < 120; budget++) {
        bool binds = budget + N_TAG < 50;
        request.thinking_budget = budget;
        struct result result = run_all(&request, &script, 50, 16);
        assert_int_equal(result.end, binds ? RUNNEL_THOUGHT_BUDGET : RUNNEL_THOUGHT_RESERVE);
        assert_int_equal(result.n_thought, binds ? budget : 50 - 16 - N_TAG);
        assert_int_equal(strlen(result.text), 50 - result.n_thought - N_TAG);
    }
    request.thinking_budget = 1000;
    request.thinking_message = "0123456789";
    assert_int_equal(run_script(&request, script, 50, 16).n_thought, 50 - 16 - N_TAG - 10);
    request.answer_reserve = 16; /* somebody did: whichever comes first */
    request.thinking_budget = 40;
    assert_int_equal(run_script(&request, script, 50, 16).end, RUNNEL_THOUGHT_RESERVE);
    request.answer_reserve = 0; /* and somebody wants none */
    request.thinking_budget = 1000;
    assert_int_equal(run_script(&request, script, 50, 0).n_thought, 50);
}

/* End tokens ---------------------------------------------------------------------------------------------------- */

static void an_end_token_ends_the_thought_alone(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = "hm\1", .answer = "so\1", .gap = 100};
    struct result result = run_script(&request, script, 60, 0);
    assert_string_equal(result.reasoning, "hm\n");
    assert_string_equal(result.text, "so");
    assert_int_equal(result.end, RUNNEL_THOUGHT_END_TOKEN);
    assert_int_equal(result.reason, RUNNEL_FINISH_STOP);
    assert_int_equal(result.n_thought, 2);
    assert_int_equal(result.n_tokens, 2 + N_TAG + 3);
    request.thinking_message = "!!";
    assert_string_equal(run_script(&request, script, 60, 0).reasoning, "hm!!\n");
    script.thought = "\xe2\1"; /* and what was a character's beginning is none */
    assert_string_equal(run_script(&request, script, 60, 0).reasoning, "!!\n");
    script.thought = "\1";
    assert_string_equal(run_script(&request, script, 60, 0).text, "so");
    request.ignore_eos = true; /* end tokens are nothing there */
    script.thought = "hm\1";
    result = run_script(&request, script, 60, 0);
    assert_int_equal(result.end, RUNNEL_THOUGHT_NONE);
    assert_int_equal(result.n_tokens, 60);
}

/* However the thought was closed. */
static void an_answer_begins_before_it_ends(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = "hm", .answer = "\1", .gap = 100};
    request.thinking_budget = 4;
    struct result result = run_script(&request, script, 60, 0);
    assert_string_equal(result.text, "#"); /* the next likely one */
    assert_int_equal(result.reason, RUNNEL_FINISH_STOP);
    script.answer = " \1.\1"; /* white space is no answer, and the tag has two newlines of it already */
    assert_string_equal(run_script(&request, script, 60, 0).text, "#");
    script.answer = "\1";
    request.thinking_budget = -1;
    script.gap = -1; /* by the model */
    result = run_script(&request, script, 60, 0);
    assert_string_equal(result.text, "#");
    script.answer = " \t \1.\1";
    assert_string_equal(run_script(&request, script, 60, 0).text, " \t#");
    script.answer = "\1";
    request.ignore_eos = true;
    assert_string_equal(run_script(&request, script, 20, 0).text, "");
}

/* A text that may be empty, and one that must. */
static void grammars_bind_more(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = "hm", .answer = "\1", .gap = 100};
    request.thinking_budget = 4;
    request.constraint = RUNNEL_CONSTRAINT_REGEX;
    request.constraint_text = "a?";
    struct result result = run_script(&request, script, 60, 0);
    assert_string_equal(result.text, "a");
    assert_int_equal(result.reason, RUNNEL_FINISH_STOP);
    request.thinking_budget = -1; /* and end tokens end thoughts all the same */
    script.thought = "hm\1";
    script.answer = "\1a";
    result = run_script(&request, script, 60, 0);
    assert_string_equal(result.reasoning, "hm\n");
    assert_string_equal(result.text, "a");
    assert_int_equal(result.end, RUNNEL_THOUGHT_END_TOKEN);
    request.constraint_text = "()";
    result = run_script(&request, script, 60, 0);
    assert_string_equal(result.text, "");
    assert_int_equal(result.reason, RUNNEL_FINISH_STOP);
}

/* Loops --------------------------------------------------------------------------------------------------------- */

static void loops_end_in_thoughts_alone(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {
        .thought = "But wait, there may be something in the text that has not been looked at yet. ",
        .answer = "Again and again, and again.",
        .gap = 100};
    uint32_t n_cycle = (uint32_t)strlen(script.thought);
    struct result result = run_script(&request, script, 900, 0);
    assert_int_equal(result.end, RUNNEL_THOUGHT_LOOP);
    assert_int_equal(result.n_thought, 3 * n_cycle); /* single letters are no words */
    assert_int_equal(result.n_tokens, 900);          /* the answer may go in circles */
    request.thinking_message = "Stop.";
    result = run_script(&request, script, 900, 0);
    assert_true(ends_with(result.reasoning, "yet. Stop.\n"));
    request.thinking_budget = 3 * (int)n_cycle - 1;
    assert_int_equal(run_script(&request, script, 900, 0).end, RUNNEL_THOUGHT_BUDGET);
}

/* Asking -------------------------------------------------------------------------------------------------------- */

static void whoever_asks_ends_it(void **state)
{
    (void)state;
    runnel_request request = plain_request();
    struct script script = {.thought = "hm", .answer = "so", .gap = 100, .ask_at = 7};
    request.thinking_message = "Stop.";
    struct result result = run_script(&request, script, 60, 0);
    assert_string_equal(result.reasoning, "hmhmhmhStop.\n");
    assert_int_equal(result.end, RUNNEL_THOUGHT_ASKED);
    assert_int_equal(result.n_thought, 7);
    assert_true(strlen(result.text) > 20);
    request.thinking_budget = 5; /* it ends already, or has ended */
    for (script.ask_at = 5; script.ask_at < 30; script.ask_at++) {
        result = run_script(&request, script, 60, 0);
        assert_string_equal(result.reasoning, "hmhmhStop.\n");
        assert_int_equal(result.end, RUNNEL_THOUGHT_BUDGET);
    }
    request.thinking_budget = -1;
    struct script later = {.thought = "aaaa\2mm", .answer = "so", .gap = 100, .opens = true, .ask_at = 2};
    result = run_script(&request, later, 60, 0);
    assert_string_equal(result.reasoning, "Stop.\n");
    assert_true(strncmp(result.text, "aaaa", 4) == 0);
    assert_int_equal(result.end, RUNNEL_THOUGHT_ASKED);
    script = (struct script){.thought = "h\xe2\x82\xac", .answer = "so", .gap = 100, .ask_at = 3};
    assert_string_equal(run_script(&request, script, 60, 0).reasoning, "hStop.\n"); /* no half character */
}

/* Through an engine --------------------------------------------------------------------------------------------- */

static const runnel_logit_bias never_ends[] = {{TINY_TOKEN_THINK_END, -100},
                                               {TINY_TOKEN_R1_END, -100},
                                               {TINY_TOKEN_IM_END, -100},
                                               {TINY_TOKEN_ENDOFTEXT, -100}};

static runnel_request ask_for(int max_tokens)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = "Why?";
    request.max_tokens = max_tokens;
    own_sampling(model, &request)->temperature = 1;
    own_sampling(model, &request)->logit_bias = never_ends;
    own_sampling(model, &request)->n_logit_bias = sizeof never_ends / sizeof *never_ends;
    return request;
}

static runnel_response respond(runnel_engine *engine, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    runnel_response_free(&response); /* its numbers stay */
    return response;
}

/* Tokens that come after the thought and its end. */
static int left_to_answer(runnel_engine *engine, const runnel_request *request)
{
    const runnel_response response = respond(engine, request);
    assert_int_equal(response.thought_end, RUNNEL_THOUGHT_RESERVE);
    return (int)(response.n_tokens - response.n_reasoning_tokens) - N_TAG;
}

static void the_rule_of_the_reserve(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 4700, .answer_reserve = -1});
    static const int rule[][2] = {{5, 1},   {6, 2},    {10, 5},   {20, 10},  {30, 15},
                                  {40, 16}, {100, 16}, {160, 20}, {400, 50}, {4500, 512}};
    runnel_request request;
    for (size_t i = 0; i < sizeof rule / sizeof *rule - RUNNEL_SANITIZED; i++) { /* the last one takes long */
        request = ask_for(rule[i][0]);
        assert_int_equal(left_to_answer(engine, &request), rule[i][1]);
    }
    runnel_engine_stop(engine);
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 600, .answer_reserve = -1});
    request = ask_for(0); /* what the context leaves */
    const runnel_response whole = respond(engine, &request);
    assert_int_equal(whole.thought_end, RUNNEL_THOUGHT_RESERVE);
    assert_int_equal(left_to_answer(engine, &request), whole.n_tokens / 8);
    request = ask_for(100);
    request.answer_reserve = 33;
    assert_int_equal(left_to_answer(engine, &request), 33);
    request.thinking_budget = 90; /* both were said */
    assert_int_equal(left_to_answer(engine, &request), 33);
    request.answer_reserve = -1; /* one was said */
    assert_int_equal(respond(engine, &request).n_reasoning_tokens, 90);
    request.keeps_reserve = true; /* as an effort has it */
    assert_int_equal(left_to_answer(engine, &request), 16);
    request.keeps_reserve = false;
    request.thinking_budget = 1000; /* one that would not leave an answer */
    assert_int_equal(left_to_answer(engine, &request), 16);
    request.thinking_budget = -1;
    request.answer_reserve = 0;
    assert_int_equal(respond(engine, &request).n_reasoning_tokens, 100);
    request.answer_reserve = -1;
    request.no_thinking = true;
    const runnel_response response = respond(engine, &request);
    assert_true(response.n_reasoning_tokens == 0 && response.thought_end == RUNNEL_THOUGHT_NONE);
    runnel_engine_stop(engine);

    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 600, .answer_reserve = 30});
    request = ask_for(100);
    assert_int_equal(left_to_answer(engine, &request), 30);
    request = ask_for(40);
    assert_int_equal(left_to_answer(engine, &request), 30);
    request = ask_for(30); /* a thought has something, too */
    assert_int_equal(left_to_answer(engine, &request), 15);
    runnel_engine_stop(engine);
}

/* One that the last message has begun is a thought like any other. */
static void a_thought_that_was_begun(void **state)
{
    (void)state;
    const runnel_message messages[] = {{"user", "Why?", 0}, {"assistant", "<think>\nhm", 0}};
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 600, .answer_reserve = -1});
    runnel_request request = ask_for(100);
    request.prompt = NULL;
    request.messages = messages;
    request.n_messages = 2;
    request.continues = true;
    assert_int_equal(left_to_answer(engine, &request), 16);
    request.thinking_budget = 0;
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.thought_end, RUNNEL_THOUGHT_BUDGET);
    assert_int_equal(response.n_reasoning_tokens, 0);
    runnel_engine_stop(engine);
}

/* Who does not think notices nothing. */
static void without_thoughts_nothing_changes(void **state)
{
    (void)state;
    const struct tiny_model_options options = tiny_engine_model(); /* ChatML */
    runnel_model *other = tiny_engine_open(&options);
    runnel_engine *engine =
        tiny_engine_start(other, (runnel_engine_options){.n_context = 600, .answer_reserve = -1});
    runnel_request request = ask_for(50);
    request.wants_logits_hash = true;
    const runnel_response plain = respond(engine, &request);
    request.soft_thinking_budget = 3;
    request.thinking_budget = 3;
    request.answer_reserve = 40;
    request.thinking_message = "Stop.";
    const runnel_response same = respond(engine, &request);
    assert_true(plain.logits_hash == same.logits_hash && plain.logits_hash != 0);
    assert_int_equal(same.n_tokens, 50);
    assert_int_equal(same.thought_end, RUNNEL_THOUGHT_NONE);
    runnel_engine_stop(engine);
    runnel_model_close(other);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    runnel_engine_options options;
    runnel_engine *engine;
    runnel_future *future;
    runnel_error error;
    runnel_engine_options_init(&options);
    assert_int_equal(options.answer_reserve, -1);
    options.answer_reserve = -2;
    assert_int_equal(runnel_engine_start(model, &options, &engine, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "answer_reserve: -2"));
    engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 100});
    runnel_request request = ask_for(10);
    request.answer_reserve = -2;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "answer_reserve: -2"));
    request = ask_for(10);
    request.soft_thinking_budget = -2;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "soft_thinking_budget: -2"));
    runnel_engine_stop(engine);
}

struct asking {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_tokens;
};

static bool count_tokens(void *user, const runnel_event *event)
{
    struct asking *asking = user;
    pthread_mutex_lock(&asking->lock);
    asking->n_tokens += event->kind == RUNNEL_EVENT_TOKEN;
    pthread_cond_broadcast(&asking->changed);
    pthread_mutex_unlock(&asking->lock);
    return true;
}

static void wait_for_tokens(struct asking *asking, uint32_t n)
{
    pthread_mutex_lock(&asking->lock);
    while (asking->n_tokens < n)
        pthread_cond_wait(&asking->changed, &asking->lock);
    pthread_mutex_unlock(&asking->lock);
}

/* One of several, by another thread; the others think on. */
static void another_thread_ends_a_thought(void **state)
{
    (void)state;
    enum { N = 3, N_TOKENS = 1000 };
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 1200, .n_parallel = N, .n_kv_tokens = 1200 * N});
    struct asking asking = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    runnel_request requests[N];
    runnel_future *futures[N];
    runnel_response responses[N];
    runnel_error error;
    for (int i = 0; i < N; i++) {
        requests[i] = ask_for(i == 1 ? N_TOKENS : 200);
        requests[i].thinking_message = "Stop.";
        requests[i].answer_reserve = 20;
    }
    requests[1].on_event = count_tokens;
    requests[1].wants_tokens = true;
    requests[1].user = &asking;
    if (runnel_submit(engine, requests, N, futures, &error))
        fail_msg("%s", error.message);
    wait_for_tokens(&asking, 10);
    assert_true(runnel_end_thought(futures[1]));
    wait_for_tokens(&asking, N_TOKENS);
    for (int i = 0; i < N; i++) {
        responses[i] = (runnel_response){.size = sizeof *responses};
        assert_int_equal(runnel_wait(futures[i], &responses[i], &error), 0);
        assert_int_equal(responses[i].thought_end, i == 1 ? RUNNEL_THOUGHT_ASKED : RUNNEL_THOUGHT_RESERVE);
        assert_memory_equal(responses[i].reasoning + responses[i].reasoning_len - 6, "Stop.\n", 6);
        assert_false(runnel_end_thought(futures[i])); /* it has ended */
        runnel_response_free(&responses[i]);
        runnel_free(futures[i]);
    }
    assert_in_range(responses[1].n_reasoning_tokens, 10, N_TOKENS - 21);
    assert_false(runnel_end_thought(NULL));
    runnel_engine_stop(engine);
}

static void each_end_has_a_name(void **state)
{
    (void)state;
    assert_null(runnel_thought_end_name(RUNNEL_THOUGHT_NONE));
    for (int end = RUNNEL_THOUGHT_MODEL; end <= RUNNEL_THOUGHT_ASKED; end++) {
        assert_non_null(runnel_thought_end_name(end));
        for (int other = RUNNEL_THOUGHT_MODEL; other < end; other++)
            assert_string_not_equal(runnel_thought_end_name(end), runnel_thought_end_name(other));
    }
    assert_null(runnel_thought_end_name(RUNNEL_THOUGHT_ASKED + 1));
}

struct within {
    _Atomic(runnel_future *) future; /* NULL: runnel_submit has not returned */
    uint32_t n_tokens;
};

static bool end_at_ten(void *user, const runnel_event *event)
{
    struct within *within = user;
    within->n_tokens += event->kind == RUNNEL_EVENT_TOKEN;
    if (within->n_tokens != 10 || event->kind != RUNNEL_EVENT_TOKEN)
        return true;
    while (!within->future)
        sched_yield();
    assert_true(runnel_end_thought(within->future));
    return true;
}

/* From on_event: it ends before the next token. */
static void its_own_event_ends_a_thought(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 200});
    runnel_request request = ask_for(100);
    struct within within = {.n_tokens = 0};
    runnel_future *future;
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    request.on_event = end_at_ten;
    request.wants_tokens = true;
    request.user = &within;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), 0);
    within.future = future;
    assert_int_equal(runnel_wait(future, &response, &error), 0);
    assert_int_equal(response.thought_end, RUNNEL_THOUGHT_ASKED);
    assert_int_equal(response.n_reasoning_tokens, 10);
    assert_int_equal(response.n_tokens, 100);
    runnel_response_free(&response);
    runnel_free(future);
    runnel_engine_stop(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_soft_budget_ends_at_a_sentence),
        cmocka_unit_test(a_closing_token_gets_likelier),
        cmocka_unit_test(a_message_comes_before_the_end),
        cmocka_unit_test(bad_messages_are_refused),
        cmocka_unit_test(a_reserve_leaves_an_answer),
        cmocka_unit_test(few_tokens_are_an_answer_too),
        cmocka_unit_test(a_budget_goes_before_the_default_reserve),
        cmocka_unit_test(an_end_token_ends_the_thought_alone),
        cmocka_unit_test(an_answer_begins_before_it_ends),
        cmocka_unit_test(grammars_bind_more),
        cmocka_unit_test(loops_end_in_thoughts_alone),
        cmocka_unit_test(whoever_asks_ends_it),
        cmocka_unit_test(the_rule_of_the_reserve),
        cmocka_unit_test(a_thought_that_was_begun),
        cmocka_unit_test(without_thoughts_nothing_changes),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(another_thread_ends_a_thought),
        cmocka_unit_test(its_own_event_ends_a_thought),
        cmocka_unit_test(each_end_has_a_name),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
