/* test_gguf_cut.c: the real 1.5B model's file cut at the edge of every region gives an error that names the
 * place. The cut files are sparse: metadata is copied, the data is a hole, so that they cost a few megabytes.
 */
#include "helpers/memory_file.h"
#include "model/gguf_raw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct gguf *model; /* the whole file */
static uint64_t keys_end, data_start;
static unsigned char *metadata; /* its first data_start bytes */

static int cut_fd; /* a file with the same metadata, that is cut and mended again and again */
static char cut_path[MEMORY_FILE_PATH];

/* Cuts the file to n bytes; opening must fail and name `place`. */
static void cut_names(uint64_t n, const char *place)
{
    struct gguf *gguf;
    runnel_error error = {0};
    assert_int_equal(ftruncate(cut_fd, (off_t)n), 0);
    int code = gguf_open(cut_path, &gguf, &error);
    if (n < data_start) {
        ssize_t lost = (ssize_t)(data_start - n);
        assert_int_equal(pwrite(cut_fd, metadata + n, (size_t)lost, (off_t)n), lost);
    }
    if (code != RUNNEL_EFORMAT)
        fail_msg("cut to %llu bytes: expected an error with %s, found code %d", (unsigned long long)n, place,
                 code);
    if (!strstr(error.message, place))
        fail_msg("cut to %llu bytes: expected %s, found %s", (unsigned long long)n, place, error.message);
}

static void cut_in_the_header(void **state)
{
    (void)state;
    cut_names(0, "empty");
    cut_names(3, "the magic");
    cut_names(4, "the version");
    cut_names(15, "the number of tensors");
    cut_names(23, "the number of keys");
    cut_names(24, "the header: announces");
}

/* A file so short that the counts of its header cannot be true is refused for those. */
static void cut_names_key(uint64_t n, const char *place)
{
    bool too_short = n < 24 + 14 * gguf_n_keys(model) + 33 * gguf_n_tensors(model);
    cut_names(n, too_short ? "the header: announces" : place);
}

static void cut_at_each_key(void **state)
{
    (void)state;
    char place[256];
    for (size_t i = 0; i < gguf_n_keys(model); i++) {
        uint64_t offset, n;
        gguf_key_raw(model, i, &offset, &n);
        snprintf(place, sizeof place, "key \"%s\"", gguf_key_name(model, i));
        cut_names_key(offset, place);
        cut_names_key(offset + n / 2, place);
        cut_names_key(offset + n - 1, place);
    }
}

static void cut_in_the_list_of_tensors(void **state)
{
    (void)state;
    char place[256];
    snprintf(place, sizeof place, "tensor 1 of %zu", gguf_n_tensors(model));
    cut_names(keys_end, place);
    cut_names(keys_end + 9, place);
    uint64_t at = keys_end;
    for (size_t i = 0; i < gguf_n_tensors(model); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model, i);
        uint64_t info_end = at + 8 + strlen(tensor->name) + 4 + 8 * tensor->n_dims + 4 + 8;
        snprintf(place, sizeof place, "tensor \"%s\"", tensor->name);
        if (i % 8 == 0)
            cut_names(info_end - 1, place);
        at = info_end;
    }
    assert_true(data_start >= at &&
                data_start - at < 32); /* as we understand the file: nothing but padding is left */
    snprintf(place, sizeof place, "tensor \"%s\"", gguf_tensor_at(model, 0)->name);
    cut_names(at, place);
}

static void cut_in_the_data(void **state)
{
    (void)state;
    char place[256];
    uint64_t reached = 0;
    for (size_t i = 0; i < gguf_n_tensors(model); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model, i);
        assert_true(tensor->offset >= reached); /* in this file the list is in the order of the data */
        reached = tensor->offset + tensor->n_bytes;
        snprintf(place, sizeof place, "tensor \"%s\": truncated", tensor->name);
        cut_names(reached - 1, place);
        if (i % 16)
            continue; /* the other places of some tensors only: a cut takes milliseconds */
        cut_names(tensor->offset, place);
        cut_names(tensor->offset + tensor->n_bytes / 2, place);
    }
    assert_true(reached <= gguf_file_bytes(model));
}

int main(void)
{
    const char *folder = getenv("RUNNEL_MODELS_DIR");
    char path[4096];
    runnel_error error;
    snprintf(path, sizeof path, "%s/coder-1.5b.gguf", folder ? folder : TEST_DATA "/../../models");
    if (access(path, R_OK)) {
        printf("skipped: no %s\n", path);
        return 77;
    }
    if (gguf_open(path, &model, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    uint64_t value_offset, value_bytes;
    gguf_key_raw(model, gguf_n_keys(model) - 1, &value_offset, &value_bytes);
    keys_end = value_offset + value_bytes;
    data_start = gguf_tensor_at(model, 0)->offset;
    metadata = malloc(data_start);
    if (!metadata || gguf_read(model, 0, metadata, data_start, &error))
        return 1;
    cut_fd = memory_file_create(metadata, data_start, cut_path);
    if (cut_fd < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_in_the_header),
        cmocka_unit_test(cut_at_each_key),
        cmocka_unit_test(cut_in_the_list_of_tensors),
        cmocka_unit_test(cut_in_the_data),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    gguf_close(model);
    return failed;
}
