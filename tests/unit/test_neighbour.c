/* test_neighbour.c: what made-up rounds say about a neighbour. */
#include "kernels/neighbour.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { N_ROUNDS = 7 };

/* Two threads: each alone has 225 GMAC/s; 5.8 instructions a cycle; what they have together is given, in per cent of 450. */
static void make_rounds(struct neighbour_round rounds[N_ROUNDS], const int percent[N_ROUNDS])
{
    for (int i = 0; i < N_ROUNDS; i++)
        rounds[i] = (struct neighbour_round){.alone = 225, .together = 4.5 * percent[i], .width = 5.8};
}

static struct neighbour judge_two(struct neighbour_round rounds[N_ROUNDS])
{
    return neighbour_judge(rounds, N_ROUNDS, 2, 2);
}

static void expect(struct neighbour neighbour, enum neighbour_sign sign, const char *words)
{
    char line[200];
    neighbour_describe(&neighbour, line, sizeof line);
    assert_int_equal(neighbour.sign, sign);
    if (words)
        assert_non_null(strstr(line, words));
    else
        assert_string_equal(line, "");
}

static void an_idle_machine(void **state)
{
    (void)state;
    struct neighbour_round rounds[N_ROUNDS];
    make_rounds(rounds, (const int[]){100, 99, 97, 100, 98, 92, 100});
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
    make_rounds(rounds, (const int[]){100, 99, 30, 100, 50, 92, 100}); /* two moments are no neighbour */
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
    make_rounds(rounds, (const int[]){90, 91, 90, 90, 90, 92, 90}); /* all cores at once clock lower */
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
    struct neighbour_round one = {.alone = 225, .together = 225, .width = 5.8};
    expect(neighbour_judge(&one, 1, 1, 1), NEIGHBOUR_NONE, NULL);
    make_rounds(rounds, (const int[]){100, 99, 97, 100, 98, 92, 100});
    for (int i = 0; i < N_ROUNDS; i++)
        rounds[i].width = 3.9; /* a narrow core that is idle */
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
    for (int i = 0; i < N_ROUNDS; i++)
        rounds[i].width = 0; /* a machine where it cannot be measured */
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
}

static void one_that_comes_and_goes(void **state)
{
    (void)state;
    struct neighbour_round rounds[N_ROUNDS];
    make_rounds(rounds, (const int[]){60, 100, 61, 62, 100, 60, 63});
    struct neighbour found = judge_two(rounds);
    expect(found, NEIGHBOUR_AT_TIMES, "slows this machine: 279 of 450 GMAC/s");
    make_rounds(rounds, (const int[]){82, 100, 82, 82, 100, 82, 82}); /* the noise of a shared machine */
    expect(judge_two(rounds), NEIGHBOUR_NONE, NULL);
}

/* One of two cores is always kept busy: a thread alone runs on the other one. */
static void one_that_stays(void **state)
{
    (void)state;
    struct neighbour_round rounds[N_ROUNDS];
    make_rounds(rounds, (const int[]){74, 75, 76, 75, 73, 75, 75});
    expect(judge_two(rounds), NEIGHBOUR_SHARES, "338 of 450 GMAC/s");
}

/* A core that gives half of itself to somebody else does so for a thread alone, too. */
static void one_on_the_other_half_of_a_core(void **state)
{
    (void)state;
    struct neighbour_round rounds[N_ROUNDS];
    for (int i = 0; i < N_ROUNDS; i++)
        rounds[i] = (struct neighbour_round){.alone = 651, .together = 1239, .width = 3.0};
    expect(judge_two(rounds), NEIGHBOUR_SIBLING, "3.0 of at least 4 instructions a cycle");
    rounds[3].width = rounds[5].width = 5.6;
    expect(judge_two(rounds), NEIGHBOUR_SIBLING, "3.0 of 5.6 instructions a cycle");
}

/* Threads that hold up each other are not a neighbour's fault: a quota of 1.5 CPUs, hyperthreads of our own, -t 8 on two CPUs. */
static void no_neighbour_but_too_many_threads(void **state)
{
    (void)state;
    struct neighbour_round rounds[N_ROUNDS];
    make_rounds(rounds, (const int[]){50, 100, 50, 75, 50, 100, 50});
    expect(neighbour_judge(rounds, N_ROUNDS, 2, 1.5), NEIGHBOUR_NONE, NULL);
    expect(neighbour_judge(rounds, N_ROUNDS, 2, 1), NEIGHBOUR_NONE, NULL);
    for (int i = 0; i < N_ROUNDS; i++)
        rounds[i].width = 2.9;
    expect(neighbour_judge(rounds, N_ROUNDS, 2, 1), NEIGHBOUR_SIBLING, "2.9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_machine),
        cmocka_unit_test(one_that_comes_and_goes),
        cmocka_unit_test(one_that_stays),
        cmocka_unit_test(one_on_the_other_half_of_a_core),
        cmocka_unit_test(no_neighbour_but_too_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
