/* score_drafts.c: what draft.c would gain with texts that are there, on a machine whose rows cost so much: no model is needed.
 *
 *     score_drafts 100,112,117,122 [--streams N] [--until first|last] [--noise SHARE] FILE...
 *
 * The first argument says what a step of 1, 2, 3 ... rows takes, as shares of whatever; each row behind the last one takes as much
 * again as that one more than the one before it. A line of a file is an answer: JSON arrays of token ids, the prompt's and the answer's,
 * or the answer's alone (`runnel tokenize --jsonl`). N of them (1), cut to the shortest one's length, are written at once, by keys of
 * their own, until the first one has ended or the last: then the others have waited for one that was not guessed. This is done
 * twice: as nobody has asked before, and again. The costs are learned from step to step, from a warm-up on, and what is measured of
 * a step is off by about SHARE (0) from one step to the next, by as much for some fifty of them, and now and then by up to twice its
 * time, as on a machine that others use. That is by chance: name a file ten times for a mean.
 * Prints for each file, and for all, tokens and rows of a stream in a step, the share of guesses that came true, and how much faster the
 * tokens come than those of N streams without guesses. */
#include "engine/draft.h"

#include "helpers/chance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_POSITIONS = 1 << 16,
    STREAMS_MAX = 16,
    N_COSTS = STREAMS_MAX + DRAFT_MAX,
    ANSWER_MIN = 50 /* tokens of one that counts */
};

static const double DRIFT = 0.98, DISTURBED = 0.02; /* from one step to the next; share of steps */

struct machine {
    double ms[N_COSTS + 1]; /* by rows */
    double noise, drift;    /* drift: in multiples of noise */
    struct step_cost learned;
};

struct answer {
    int32_t ids[N_POSITIONS];
    uint32_t n_prompt, n;
};

struct score {
    double n_tokens, n_steps, n_rows, n_true; /* a step of two streams counts twice */
    double ms, plain_ms;                      /* with guesses and without */
};

struct options {
    uint32_t n_streams;
    bool until_last; /* not until the first has ended */
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

static double normal(void)
{
    return sqrt(-2 * log(chance_uniform())) * cos(2 * M_PI * chance_uniform());
}

/* What is measured of a step that takes ms. */
static double measure(struct machine *machine, double ms)
{
    machine->drift = DRIFT * machine->drift + sqrt(1 - DRIFT * DRIFT) * normal();
    double disturbed = machine->noise > 0 && chance_uniform() < DISTURBED ? 1 + chance_uniform() : 1;
    return ms * exp(machine->noise * (machine->drift + normal())) * disturbed;
}

static void guess(struct drafts *drafts, uint32_t slot, const struct answer *answer, uint32_t at,
                  uint32_t n_max)
{
    uint32_t n_left = answer->n - at - 1;
    drafts_guess(drafts,
                 &(struct draft_ask){
                     .slot = slot, .ids = answer->ids, .n = at, .n_max = n_left < n_max ? n_left : n_max});
}

/* A stream gets its tokens; how many rows it had. */
static uint32_t go_on(struct drafts *drafts, uint32_t slot, const struct answer *answer, uint32_t *at,
                      struct score *score)
{
    const struct draft draft = *drafts_get(drafts, slot);
    const int32_t *next = answer->ids + *at;
    uint32_t n_true = 0;
    while (n_true < draft.n && draft.tokens[n_true] == next[n_true])
        n_true++;
    drafts_learn(drafts, slot, next, n_true + 1);
    *at += n_true + 1;
    score->n_tokens += n_true + 1;
    score->n_true += n_true;
    score->n_rows += draft.n + 1;
    score->n_steps++;
    return draft.n + 1;
}

/* A step of those of n answers that have not ended: answer i has at [i] tokens. How many have ended behind it. */
static uint32_t step(struct drafts *drafts, struct machine *machine, const struct answer *answers,
                     uint32_t *at, uint32_t n, struct score *score)
{
    bool decodes[STREAMS_MAX];
    uint32_t n_rows = 0, n_left = 0, n_ended = 0;
    for (uint32_t i = 0; i < n; i++)
        n_left += decodes[i] = at[i] < answers[i].n;
    drafts_begin_step(drafts);
    for (uint32_t i = 0; i < n; i++)
        if (decodes[i])
            guess(drafts, i, &answers[i], at[i], 4 * DRAFT_MAX / n_left); /* as engine/guessing.c has it */
    drafts_choose(drafts, &machine->learned);
    for (uint32_t i = 0; i < n; i++) {
        if (decodes[i])
            n_rows += go_on(drafts, i, &answers[i], &at[i], score);
        n_ended += at[i] >= answers[i].n;
    }
    step_cost_learn(&machine->learned, n_rows, 0, measure(machine, machine->ms[n_rows]));
    score->ms += machine->ms[n_rows];
    return n_ended;
}

/* Answers at once, by a key each. */
static void ask(struct drafts *drafts, struct machine *machine, const struct options *options,
                const struct answer *answers, uint64_t first_key, struct score *score)
{
    uint32_t at[STREAMS_MAX], n = options->n_streams, n_wanted = options->until_last ? n : 1;
    double n_tokens = score->n_tokens;
    for (uint32_t i = 0; i < n; i++) {
        at[i] = answers[i].n_prompt;
        drafts_begin(drafts, i, first_key + i);
    }
    while (step(drafts, machine, answers, at, n, score) < n_wanted)
        ;
    score->plain_ms += (score->n_tokens - n_tokens) / n * machine->ms[n];
    for (uint32_t i = 0; i < n; i++)
        drafts_remember(drafts, i, answers[i].ids, answers[i].n_prompt, at[i]);
}

static void print(const char *name, const struct score scores[2])
{
    printf("%-16s", name);
    for (int i = 0; i < 2; i++)
        printf("  %5.3f %5.2f %4.0f%% %5.3f x", scores[i].n_tokens / scores[i].n_steps,
               scores[i].n_rows / scores[i].n_steps,
               100 * scores[i].n_true / (scores[i].n_rows - scores[i].n_steps),
               scores[i].plain_ms / scores[i].ms);
    printf("\n");
}

/* Each file counts alike, by its time for a token. */
static void add(struct score *all, const struct score *score)
{
    all->n_tokens += 1;
    all->n_steps += score->n_steps / score->n_tokens;
    all->n_rows += score->n_rows / score->n_tokens;
    all->n_true += score->n_true / score->n_tokens;
    all->ms += score->ms / score->n_tokens;
    all->plain_ms += score->plain_ms / score->n_tokens;
}

/* n answers of one length; false: there are not so many left. */
static bool read_answers(FILE *file, struct answer *answers, uint32_t n)
{
    char *line = NULL;
    size_t cap = 0;
    uint32_t n_read = 0, shortest = N_POSITIONS;
    while (n_read < n && getline(&line, &cap, file) > 0)
        n_read += read_answer(line, &answers[n_read]);
    free(line);
    for (uint32_t i = 0; i < n_read; i++) {
        uint32_t length = answers[i].n - answers[i].n_prompt;
        shortest = length < shortest ? length : shortest;
    }
    for (uint32_t i = 0; i < n_read; i++)
        answers[i].n = answers[i].n_prompt + shortest;
    return n_read == n;
}

/* The answers of a file; false: it cannot be read. */
static bool score_file(const char *path, struct machine machine, const struct options *options,
                       struct score all[2])
{
    static struct answer answers[STREAMS_MAX];
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct score scores[2] = {{0}};
    struct drafts *drafts;
    runnel_error error;
    FILE *file = fopen(path, "r");
    if (!file || drafts_create(&(struct drafts_options){options->n_streams, N_POSITIONS}, &drafts, &error))
        return false;
    for (uint64_t key = 1; read_answers(file, answers, options->n_streams); key += options->n_streams)
        for (int again = 0; again < 2; again++)
            ask(drafts, &machine, options, answers, key, &scores[again]);
    if (scores[0].n_steps > 0) {
        print(name, scores);
        for (int i = 0; i < 2; i++)
            add(&all[i], &scores[i]);
    }
    fclose(file);
    drafts_free(drafts);
    return true;
}

/* The options behind the costs: where the files begin, or 0 where something is wrong. */
static int read_options(int argc, char **argv, struct options *options, struct machine *machine)
{
    int at = 2;
    for (; at < argc && !strncmp(argv[at], "--", 2); at += 2) {
        const char *value = argv[at + 1]; /* NULL: none is there */
        if (!value)
            return 0;
        if (!strcmp(argv[at], "--streams"))
            options->n_streams = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(argv[at], "--until") && (!strcmp(value, "first") || !strcmp(value, "last")))
            options->until_last = !strcmp(value, "last");
        else if (!strcmp(argv[at], "--noise"))
            machine->noise = strtod(value, NULL);
        else
            return 0;
    }
    return at < argc && options->n_streams >= 1 && options->n_streams <= STREAMS_MAX ? at : 0;
}

int main(int argc, char **argv)
{
    struct machine machine = {.noise = 0};
    struct options options = {.n_streams = 1};
    struct score all[2] = {{0}};
    int at = read_options(argc, argv, &options, &machine);
    if (!at) {
        fprintf(stderr,
                "usage: score_drafts MS,MS,... [--streams N] [--until first|last] [--noise SHARE] FILE..., "
                "N from 1 to %d\n",
                STREAMS_MAX);
        return 2;
    }
    read_costs(argv[1], &machine);
    printf("%-16s  %-25s  %s\n", "", "first: tokens rows true", "again");
    for (; at < argc; at++)
        if (!score_file(argv[at], machine, &options, all)) {
            fprintf(stderr, "score_drafts: %s cannot be read\n", argv[at]);
            return 1;
        }
    print("all", all);
    return 0;
}
