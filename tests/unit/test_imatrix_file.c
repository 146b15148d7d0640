/* test_imatrix_file.c: importance files: what is written is read again, and what is wrong is refused by name. */
#include "cli/imatrix_file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/gguf_write.h"

static char directory[] = "/tmp/imatrix-XXXXXX";
static char path[64];

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/i.gguf", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static struct imatrix *make_example(void)
{
    struct imatrix *imatrix = imatrix_create();
    assert_non_null(imatrix);
    struct imatrix_entry *one = imatrix_add(imatrix, "blk.0.attn_q.weight", 3, 1);
    memcpy(one->sums, (float[]){2, 4, 0}, 3 * sizeof(float));
    one->counts[0] = 2;
    struct imatrix_entry *experts = imatrix_add(imatrix, "blk.0.ffn_up_exps.weight", 2, 2);
    memcpy(experts->sums, (float[]){9, 6, 0, 0}, 4 * sizeof(float));
    memcpy(experts->counts, (float[]){3, 0}, 2 * sizeof(float));
    assert_int_equal(imatrix_add_dataset(imatrix, "first.txt", NULL), RUNNEL_OK);
    assert_int_equal(imatrix_add_dataset(imatrix, "second.txt", NULL), RUNNEL_OK);
    imatrix->n_chunks = 7;
    imatrix->chunk_tokens = 512;
    strcpy(imatrix->model_mark, "0123456789abcdef");
    strcpy(imatrix->text_mark, "fedcba9876543210");
    return imatrix;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct imatrix *written = make_example(), *read = NULL;
    runnel_error error;
    assert_int_equal(imatrix_file_write(written, path, &error), RUNNEL_OK);
    assert_int_equal(imatrix_file_read(path, &read, &error), RUNNEL_OK);
    assert_int_equal(read->n_entries, 2);
    assert_int_equal(read->n_chunks, 7);
    assert_int_equal(read->chunk_tokens, 512);
    assert_string_equal(read->model_mark, "0123456789abcdef");
    assert_string_equal(read->text_mark, "fedcba9876543210");
    assert_int_equal(read->n_datasets, 2);
    assert_string_equal(read->datasets[0], "first.txt");
    assert_string_equal(read->datasets[1], "second.txt");
    for (size_t i = 0; i < 2; i++) {
        const struct imatrix_entry *a = &written->entries[i], *b = imatrix_find(read, a->name);
        assert_non_null(b);
        assert_int_equal(b->n_columns, a->n_columns);
        assert_int_equal(b->n_parts, a->n_parts);
        assert_memory_equal(b->sums, a->sums, (size_t)a->n_columns * a->n_parts * sizeof(float));
        assert_memory_equal(b->counts, a->counts, a->n_parts * sizeof(float));
    }
    assert_null(imatrix_find(read, "blk.0.attn_k.weight"));
    imatrix_free(written);
    imatrix_free(read);
}

static void importance_is_the_mean_square_and_1_where_nothing_passed(void **state)
{
    (void)state;
    struct imatrix *imatrix = make_example();
    float out[4];
    imatrix_importance(imatrix_find(imatrix, "blk.0.attn_q.weight"), out);
    assert_memory_equal(out, ((float[]){1, 2, 0}), 3 * sizeof(float));
    imatrix_importance(imatrix_find(imatrix, "blk.0.ffn_up_exps.weight"), out);
    assert_memory_equal(out, ((float[]){3, 2, 1, 1}), 4 * sizeof(float));
    imatrix_free(imatrix);
}

static int fill(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)error;
    memcpy(buffer, (const char *)arg + offset, n);
    return RUNNEL_OK;
}

/* A file of one entry "m", told how it is to be wrong; reading it must be refused with a message that has `expected` in it. */
static void refused_with(const char *type, float sum, float count, bool with_counts, uint64_t n_counts,
                         const char *expected)
{
    struct gguf_writer *writer = gguf_writer_create();
    float sums[4] = {1, sum, 1, 1}, counts[4] = {count, 1, 1, 1};
    gguf_writer_add_string(writer, "general.type", type);
    gguf_writer_add_array(writer, "imatrix.datasets", GGUF_STRING, 0, NULL);
    gguf_writer_add_u32(writer, "imatrix.chunk_count", 1);
    gguf_writer_add_u32(writer, "imatrix.chunk_size", 1);
    gguf_writer_add_tensor(writer, "m.in_sum2", TENSOR_F32, 2, (uint64_t[]){4, 1}, fill, sums);
    if (with_counts)
        gguf_writer_add_tensor(writer, "m.counts", TENSOR_F32, 2, (uint64_t[]){1, n_counts}, fill, counts);
    runnel_error error;
    assert_int_equal(gguf_writer_save(writer, path, &error), RUNNEL_OK);
    gguf_writer_free(writer);
    struct imatrix *read = NULL;
    int code = imatrix_file_read(path, &read, &error);
    if (!expected) {
        assert_int_equal(code, RUNNEL_OK);
        assert_string_equal(read->model_mark, ""); /* another program's file has none */
        imatrix_free(read);
        return;
    }
    assert_int_equal(code, RUNNEL_EFORMAT);
    assert_null(read);
    if (!strstr(error.message, expected) || !strstr(error.message, path))
        fail_msg("expected \"%s\" and the path in: %s", expected, error.message);
}

static void refused(const char *type, float sum, bool with_counts, uint64_t n_counts, const char *expected)
{
    refused_with(type, sum, 1, with_counts, n_counts, expected);
}

static void what_is_wrong_is_refused_by_name(void **state)
{
    (void)state;
    refused("imatrix", 1, true, 1, NULL);
    refused("model", 1, true, 1, "importance file");
    refused("imatrix", -1, true, 1, "\"m.in_sum2\": expected values of 0 and above, found -1");
    refused("imatrix", NAN, true, 1, "\"m.in_sum2\"");
    refused("imatrix", INFINITY, true, 1, "\"m.in_sum2\"");
    refused("imatrix", 1, false, 1, "\"m.counts\" beside it");
    refused("imatrix", 1, true, 2, "\"m.counts\": expected a count for each of 1 rows");
    refused_with("imatrix", 1e30f, 1, true, 1, NULL);
    refused_with("imatrix", 1e30f, 1e-30f, true, 1, "\"m.in_sum2\": expected sums over as many tokens");
    refused_with("imatrix", 1, -1, true, 1, "\"m.counts\": expected values of 0 and above");
    refused_with("imatrix", 1, 0, true, 1, "all counts are 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(importance_is_the_mean_square_and_1_where_nothing_passed),
        cmocka_unit_test(what_is_wrong_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
