/* test_cpu_pages.c: blocks of keys and values do not touch each other, whatever the layer's shape, and copies take all layers
 * and heads of a page, in their order; and when the system gives the memory. */
#include "backend/cpu_pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { N_LAYERS = 2, N_HEADS = 3, N_PAGES = 5, SYSTEM_PAGE_BYTES = 4096, TOUCH_BYTES = 3 << 20 };

static const struct kv_shape shapes[N_LAYERS] = {{.head_dim = 4, .k_f32 = false},
                                                 {.head_dim = 6, .k_f32 = true}};

/* What the bytes of a block are filled with. */
static int pattern_of(uint32_t page, uint32_t layer, uint32_t head)
{
    return (int)((page * N_LAYERS + layer) * N_HEADS + head + 1);
}

static void fill(const struct cpu_pages *pages)
{
    for (uint32_t page = 0; page < N_PAGES; page++)
        for (uint32_t layer = 0; layer < N_LAYERS; layer++)
            for (uint32_t head = 0; head < N_HEADS; head++)
                memset(cpu_pages_block(pages, page, layer, head), pattern_of(page, layer, head),
                       kv_block_bytes(&shapes[layer]));
}

/* The page holds what was filled into page `like`. */
static void check_page(const struct cpu_pages *pages, uint32_t page, uint32_t like)
{
    for (uint32_t layer = 0; layer < N_LAYERS; layer++)
        for (uint32_t head = 0; head < N_HEADS; head++) {
            const uint8_t *block = cpu_pages_block(pages, page, layer, head);
            for (size_t i = 0; i < kv_block_bytes(&shapes[layer]); i++)
                assert_int_equal(block[i], pattern_of(like, layer, head));
        }
}

static void copies_are_made_in_order(void **state)
{
    (void)state;
    struct cpu_pages pages;
    runnel_error error;
    assert_int_equal(cpu_pages_create(&pages, shapes, N_LAYERS, N_HEADS, N_PAGES, &error), RUNNEL_OK);
    assert_int_equal(pages.region_bytes, N_PAGES * cpu_pages_page_bytes(shapes, N_LAYERS, N_HEADS));
    fill(&pages);
    for (uint32_t page = 0; page < N_PAGES; page++)
        check_page(&pages, page, page);
    assert_null(cpu_pages_block(&pages, NO_PAGE, 0, 0));
    const struct page_copy copies[] = {{.from = 0, .to = 3}, {.from = 3, .to = 1}, {.from = 4, .to = 3}};
    cpu_pages_copy(&pages, copies, 3);
    check_page(&pages, 0, 0);
    check_page(&pages, 1, 0);
    check_page(&pages, 2, 2);
    check_page(&pages, 3, 4);
    check_page(&pages, 4, 4);
    cpu_pages_free(&pages);
}

static void too_many_pages_are_refused(void **state)
{
    (void)state;
    static const struct kv_shape huge = {.head_dim = KV_HEAD_DIM_MAX};
    struct cpu_pages pages;
    runnel_error error;
    assert_int_equal(cpu_pages_create(&pages, &huge, 1, UINT32_MAX, INT32_MAX, &error), RUNNEL_ENOMEM);
    assert_non_null(strstr(error.message, "KV cache: no memory for 2147483647 pages of "));
    assert_null(pages.region);
    cpu_pages_free(&pages);
}

static size_t resident_bytes(const struct cpu_pages *pages)
{
    size_t n_pages = (pages->region_bytes + SYSTEM_PAGE_BYTES - 1) / SYSTEM_PAGE_BYTES, n = 0;
    unsigned char *resident = malloc(n_pages);
    assert_non_null(resident);
    assert_int_equal(mincore(pages->region, pages->region_bytes, resident), 0);
    for (size_t i = 0; i < n_pages; i++)
        n += resident[i] & 1;
    free(resident);
    return n * SYSTEM_PAGE_BYTES;
}

static void touching_brings_memory_in_and_changes_nothing(void **state)
{
    (void)state;
    static const struct kv_shape shape = {.head_dim = 128};
    struct cpu_pages pages;
    runnel_error error;
    assert_int_equal(cpu_pages_create(&pages, &shape, 1, 1, 1000, &error), RUNNEL_OK);
    assert_true(pages.region_bytes > 4 * TOUCH_BYTES);
    assert_int_equal(resident_bytes(&pages), 0);
    memset(cpu_pages_block(&pages, 1, 0, 0), 7, 100);
    memset(cpu_pages_block(&pages, 999, 0, 0), 8, 100);
    assert_true(cpu_pages_touch(&pages, TOUCH_BYTES));
    size_t n_resident = resident_bytes(&pages);
    assert_in_range(n_resident, TOUCH_BYTES, pages.region_bytes - TOUCH_BYTES);
    assert_true(cpu_pages_touch(&pages, TOUCH_BYTES));
    assert_true(resident_bytes(&pages) > n_resident);
    assert_true(cpu_pages_touch(&pages, SIZE_MAX));
    assert_true(resident_bytes(&pages) >= pages.region_bytes);
    assert_false(cpu_pages_touch(&pages, SIZE_MAX));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(((uint8_t *)cpu_pages_block(&pages, 1, 0, 0))[i], 7);
        assert_int_equal(((uint8_t *)cpu_pages_block(&pages, 999, 0, 0))[i], 8);
    }
    cpu_pages_free(&pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_made_in_order),
        cmocka_unit_test(touching_brings_memory_in_and_changes_nothing),
        cmocka_unit_test(too_many_pages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
