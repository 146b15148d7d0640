/* kernel_check.c: see kernel_check.h. */
#include "helpers/kernel_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct kernels *tables;
int n_tables;

void fill_tables(void)
{
    n_tables = (int)kernels_possible(&tables);
}

bool keep_tables_asked_for(int argc, char **argv)
{
    static struct kernels kept[2];
    if (argc < 3 || strcmp(argv[1], "--level") != 0)
        return true;
    const char *name = argv[2];
    for (int t = 0; t < n_tables; t++)
        if (strcmp(tables[t].name, name) == 0) {
            kept[0] = tables[0];
            kept[1] = tables[t];
            tables = kept;
            n_tables = 2;
            return true;
        }
    printf("skipped: this machine has no %s\n", name);
    return false;
}

static uint64_t random_state = 1;

uint32_t random_u32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

uint32_t random_below(uint32_t n)
{
    return random_u32() % n;
}

float random_float(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)random_below(1u << 16) / 65536.0f;
    return sum - 6.0f;
}

void random_floats(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_float();
}

void *allocate(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

bool same_floats(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}
