/* score_drafts.c: what draft.c would gain with texts that are there, on a machine whose rows cost so much: no model is needed.
 *
 *     score_drafts 100,112,117,122 FILE...
 *
 * The first argument says what a step of 1, 2, 3 ... rows takes, as shares of whatever; each row behind the last one takes as much
 * again as that one more than the one before it. A line of a file is an answer: JSON arrays of token ids, the prompt's and the answer's,
 * or the answer's alone (`runnel tokenize --jsonl`). Each is asked twice by a key of its own: as nobody has asked before, and again. The
 * costs are learned from step to step, from a warm-up on. Prints for each file, and for all, tokens and rows a step, the share of
 * guesses that came true, and how much faster the tokens come. */
#include "engine/draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_POSITIONS = 1 << 16, N_COSTS = DRAFT_MAX + 1, ANSWER_MIN = 50 /* tokens of one that counts */ };

struct machine {
    double ms[N_COSTS + 1]; /* by rows */
    struct step_cost learned;
};

struct answer {
    int32_t ids[N_POSITIONS];
    uint32_t n_prompt, n;
};

struct score {
    double n_tokens, n_steps, n_rows, n_true, ms;
};

static void read_costs(const char *list, struct machine *machine)
{
    uint32_t n = 0;
    for (char *rest; n < N_COSTS && *list; list = *rest == ',' ? rest + 1 : rest) {
        machine->ms[++n] = strtod(list, &rest);
        if (rest == list)
            break;
    }
    for (uint32_t i = n + 1; i <= N_COSTS; i++)
        machine->ms[i] = machine->ms[i - 1] + (n > 1 ? machine->ms[n] - machine->ms[n - 1] : 0);
    step_cost_init(&machine->learned);
    step_cost_learn(&machine->learned, 64, 0, 6 * machine->ms[1]); /* as a warm-up does */
    step_cost_learn(&machine->learned, 1, 0, machine->ms[1]);
}

/* Appends the numbers of an array; what is behind it, or NULL. */
static const char *read_array(const char *text, struct answer *answer)
{
    text = strchr(text, '[');
    if (!text)
        return NULL;
    for (char *rest; *text != ']' && answer->n < N_POSITIONS; text = rest) {
        long id = strtol(text + 1, &rest, 10);
        if (rest == text + 1)
            return NULL;
        answer->ids[answer->n++] = (int32_t)id;
        rest += strspn(rest, " ");
    }
    return text;
}

static bool read_answer(const char *line, struct answer *answer)
{
    answer->n = answer->n_prompt = 0;
    const char *rest = read_array(line, answer);
    uint32_t n_first = answer->n;
    if (rest && read_array(rest, answer))
        answer->n_prompt = n_first;
    else
        answer->n_prompt = 1; /* something has to be there */
    return answer->n >= answer->n_prompt + ANSWER_MIN;
}

/* One answer, step by step. */
static void ask(struct drafts *drafts, struct machine *machine, const struct answer *answer, uint64_t key,
                struct score *score)
{
    uint32_t n = answer->n_prompt;
    drafts_begin(drafts, 0, key);
    while (n < answer->n) {
        drafts_begin_step(drafts);
        drafts_guess(drafts, &(struct draft_ask){.ids = answer->ids, .n = n, .n_max = answer->n - n - 1});
        drafts_choose(drafts, &machine->learned);
        const struct draft draft = *drafts_get(drafts, 0);
        uint32_t n_true = 0;
        while (n_true < draft.n && draft.tokens[n_true] == answer->ids[n + n_true])
            n_true++;
        step_cost_learn(&machine->learned, draft.n + 1, 0, machine->ms[draft.n + 1]);
        drafts_learn(drafts, 0, answer->ids + n, n_true + 1);
        n += n_true + 1;
        score->n_tokens += n_true + 1;
        score->n_true += n_true;
        score->n_steps++;
        score->n_rows += draft.n + 1;
        score->ms += machine->ms[draft.n + 1];
    }
    drafts_remember(drafts, 0, answer->ids, answer->n_prompt, answer->n);
}

static void print(const char *name, const struct machine *machine, const struct score scores[2])
{
    printf("%-16s", name);
    for (int i = 0; i < 2; i++)
        printf("  %5.3f %5.2f %4.0f%% %5.3f x", scores[i].n_tokens / scores[i].n_steps,
               scores[i].n_rows / scores[i].n_steps,
               100 * scores[i].n_true / (scores[i].n_rows - scores[i].n_steps),
               scores[i].n_tokens * machine->ms[1] / scores[i].ms);
    printf("\n");
}

/* The answers of a file; false: it cannot be read. */
static bool score_file(const char *path, const char *costs, struct score all[2])
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct machine machine = {.ms = {0}};
    struct score scores[2] = {{0}};
    struct drafts *drafts;
    runnel_error error;
    FILE *file = fopen(path, "r");
    if (!file || drafts_create(&(struct drafts_options){1, N_POSITIONS}, &drafts, &error))
        return false;
    static struct answer answer;
    char *line = NULL;
    size_t cap = 0;
    read_costs(costs, &machine);
    for (uint64_t key = 1; getline(&line, &cap, file) > 0; key++) {
        for (int again = 0; again < 2 && read_answer(line, &answer); again++)
            ask(drafts, &machine, &answer, key, &scores[again]);
    }
    if (scores[0].n_steps > 0)
        print(name, &machine, scores);
    for (int i = 0; i < 2 && scores[0].n_steps > 0;
         i++) { /* each file counts alike, by its time for a token */
        all[i].n_tokens += 1;
        all[i].n_steps += scores[i].n_steps / scores[i].n_tokens;
        all[i].n_rows += scores[i].n_rows / scores[i].n_tokens;
        all[i].n_true += scores[i].n_true / scores[i].n_tokens;
        all[i].ms += scores[i].ms / scores[i].n_tokens;
    }
    free(line);
    fclose(file);
    drafts_free(drafts);
    return true;
}

int main(int argc, char **argv)
{
    struct machine machine;
    struct score all[2] = {{0}};
    if (argc < 3) {
        fprintf(stderr, "usage: score_drafts MS,MS,... FILE...\n");
        return 2;
    }
    read_costs(argv[1], &machine);
    printf("%-16s  %-25s  %s\n", "", "first: tokens rows true", "again");
    for (int i = 2; i < argc; i++)
        if (!score_file(argv[i], argv[1], all)) {
            fprintf(stderr, "score_drafts: %s cannot be read\n", argv[i]);
            return 1;
        }
    print("all", &machine, all);
    return 0;
}
