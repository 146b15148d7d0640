/* test_gguf.c: good files read right. What is refused is in test_gguf_refusals.c. */
#include "helpers/gguf_bytes.h"
#include "helpers/memory_file.h"
#include "helpers/tiny_model.h"
#include "model/gguf_raw.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct gguf_bytes file;

static struct gguf *open_bytes(const struct gguf_bytes *bytes, int *fd)
{
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf = NULL;
    runnel_error error;
    *fd = memory_file_create(bytes->bytes, bytes->n, path);
    assert_true(*fd >= 0);
    if (gguf_open(path, &gguf, &error))
        fail_msg("%s", error.message);
    assert_string_equal(gguf_path(gguf), path);
    assert_int_equal(gguf_file_bytes(gguf), bytes->n);
    return gguf;
}

static void every_type_of_value_is_read(void **state)
{
    (void)state;
    runnel_error error;
    int fd;
    put_sample(&file);
    struct gguf *gguf = open_bytes(&file, &fd);
    assert_int_equal(gguf_version(gguf), 3);
    assert_int_equal(gguf_n_keys(gguf), 16);
    assert_string_equal(gguf_key_name(gguf, 0), "general.alignment");
    assert_string_equal(gguf_key_name(gguf, 15), "b.empty");
    assert_int_equal(gguf_key_type(gguf, 15), GGUF_ARRAY);
    assert_true(gguf_has_key(gguf, "a.f64"));
    assert_false(gguf_has_key(gguf, "a.f6"));
    assert_int_equal(gguf_find_type(gguf, "a.i16"), GGUF_I16);

    static const char *const integers[] = {"a.u8", "a.i8", "a.u16", "a.i16", "a.u32", "a.i32"};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        uint32_t value = 77;
        assert_int_equal(gguf_get_u32(gguf, integers[i], &value, &error), RUNNEL_OK);
        assert_int_equal(value, 1);
    }
    uint32_t u32 = 77;
    assert_int_equal(gguf_get_u32(gguf, "a.u64", &u32, &error), RUNNEL_EFORMAT); /* 1 and some upper bits */
    assert_non_null(strstr(error.message, "a.u64"));
    assert_int_equal(gguf_get_u32(gguf, "a.i64", &u32, &error), RUNNEL_EFORMAT);
    assert_int_equal(gguf_get_u32(gguf, "a.f32", &u32, &error), RUNNEL_EFORMAT);
    assert_int_equal(gguf_get_u32(gguf, "a.none", &u32, &error), RUNNEL_EFORMAT);
    assert_string_equal(error.message, "key \"a.none\" is missing");
    assert_int_equal(u32, 77);

    float f32 = 0;
    assert_int_equal(gguf_get_f32(gguf, "a.f32", &f32, &error), RUNNEL_OK);
    assert_true(f32 == 0x1p-149f);
    assert_int_equal(gguf_get_f32(gguf, "a.f64", &f32, &error), RUNNEL_OK);
    assert_true(fabsf(f32 - 1) < 1e-6f);
    assert_int_equal(gguf_get_f32(gguf, "a.u32", &f32, &error), RUNNEL_EFORMAT);
    bool flag = false;
    assert_int_equal(gguf_get_bool(gguf, "a.bool", &flag, &error), RUNNEL_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(gguf, "a.u8", &flag, &error), RUNNEL_EFORMAT);

    struct gguf_string string;
    assert_int_equal(gguf_get_string(gguf, "general.architecture", &string, &error), RUNNEL_OK);
    assert_int_equal(string.len, 6);
    assert_memory_equal(string.bytes, "sample", 6);
    assert_int_equal(gguf_get_string(gguf, "a.u8", &string, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "expected a string, found type u8"));

    struct gguf_array array;
    assert_int_equal(gguf_get_array(gguf, "b.strings", GGUF_STRING, &array, &error), RUNNEL_OK);
    const struct gguf_string *strings = array.values;
    assert_int_equal(array.n, 3);
    assert_int_equal(strings[0].len + 10 * strings[1].len + 100 * strings[2].len, 503);
    assert_memory_equal(strings[2].bytes, "three", 5);
    assert_int_equal(gguf_get_array(gguf, "b.numbers", GGUF_I32, &array, &error), RUNNEL_OK);
    assert_int_equal(array.n, 4);
    assert_int_equal(((const int32_t *)array.values)[3], 3);
    assert_int_equal((uintptr_t)array.values % 8, 0);
    assert_int_equal(gguf_get_array(gguf, "b.empty", GGUF_U8, &array, &error), RUNNEL_OK);
    assert_int_equal(array.n, 0);
    assert_int_equal(gguf_get_array(gguf, "b.numbers", GGUF_U32, &array, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "expected an array of u32, found one of i32"));
    assert_int_equal(gguf_get_array(gguf, "a.u8", GGUF_U32, &array, &error), RUNNEL_EFORMAT);
    gguf_close(gguf);
    close(fd);
}

static void numbers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    runnel_error error;
    int fd;
    double large = 1e39, infinite = INFINITY;
    int8_t negative = -1;
    put_header(&file, 0, 4);
    put_key(&file, "large", GGUF_F64);
    put_bytes(&file, &large, 8);
    put_key(&file, "infinite", GGUF_F64);
    put_bytes(&file, &infinite, 8);
    put_key(&file, "negative", GGUF_I8);
    put_bytes(&file, &negative, 1);
    put_key(&file, "wide", GGUF_U64);
    put_u64(&file, UINT64_C(1) << 32);
    struct gguf *gguf = open_bytes(&file, &fd);
    float f32;
    uint32_t u32;
    assert_int_equal(gguf_get_f32(gguf, "large", &f32, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "\"large\""));
    assert_int_equal(gguf_get_f32(gguf, "infinite", &f32, &error), RUNNEL_OK); /* for others to judge */
    assert_true(isinf(f32));
    assert_int_equal(gguf_get_u32(gguf, "negative", &u32, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "found -1"));
    assert_int_equal(gguf_get_u32(gguf, "wide", &u32, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "found 4294967296"));
    gguf_close(gguf);
    close(fd);
}

static void tensors_lie_where_the_file_says(void **state)
{
    (void)state;
    runnel_error error;
    int fd;
    put_sample(&file);
    size_t data = file.n - 198;
    file.bytes[data + 192] = 42;
    struct gguf *gguf = open_bytes(&file, &fd);
    assert_int_equal(gguf_n_tensors(gguf), 3);
    const struct gguf_tensor *second = gguf_find_tensor(gguf, "second");
    assert_ptr_equal(second, gguf_tensor_at(gguf, 1));
    assert_int_equal(second->type, TENSOR_Q8_0);
    assert_int_equal(second->n_dims, 2);
    assert_int_equal(second->dims[0] * 1000 + second->dims[1] * 100 + second->dims[2] * 10 + second->dims[3],
                     32211);
    assert_int_equal(second->row_bytes, 34);
    assert_int_equal(second->n_bytes, 68);
    assert_int_equal(second->offset, data + 64);
    assert_int_equal(data % 64, 0);
    const struct gguf_tensor *third = gguf_find_tensor(gguf, "third");
    unsigned char byte = 0;
    assert_int_equal(gguf_read(gguf, third->offset, &byte, 1, &error), RUNNEL_OK);
    assert_int_equal(byte, 42);
    assert_null(gguf_find_tensor(gguf, "fourth"));
    gguf_close(gguf);
    close(fd);
}

static void version_2_is_read(void **state)
{
    (void)state;
    int fd;
    put_sample(&file);
    file.bytes[4] = 2;
    struct gguf *gguf = open_bytes(&file, &fd);
    assert_int_equal(gguf_version(gguf), 2);
    assert_int_equal(gguf_n_tensors(gguf), 3);
    gguf_close(gguf);
    close(fd);
}

static void keys_alone_can_be_read_of_a_cut_file(void **state)
{
    (void)state;
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf = NULL;
    runnel_error error;
    put_header(&file, 300, 1);
    put_key_string(&file, "general.name", "cut");
    int fd = memory_file_create(file.bytes, file.n, path);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_EFORMAT);
    assert_int_equal(gguf_open_keys_only(path, &gguf, &error), RUNNEL_OK);
    assert_true(gguf_has_key(gguf, "general.name"));
    assert_int_equal(gguf_n_tensors(gguf), 0);
    gguf_close(gguf);
    close(fd);
}

static void put_at(unsigned char *bytes, size_t *n, const void *value, size_t size)
{
    memcpy(bytes + *n, value, size);
    *n += size;
}

static void many_keys_and_tensors_take_no_quadratic_time(void **state)
{
    (void)state;
    enum { N = 200000 }; /* compared each with each other they would take minutes */
    runnel_error error;
    char name[32], path[MEMORY_FILE_PATH];
    unsigned char *bytes = malloc(24 + (size_t)N * 120);
    size_t n = 0;
    uint64_t count = N, one = 1;
    uint32_t u8 = GGUF_U8, n_dims = 1, f32 = TENSOR_F32;
    put_at(bytes, &n, "GGUF\3\0\0\0", 8);
    put_at(bytes, &n, &count, 8);
    put_at(bytes, &n, &count, 8);
    for (uint32_t i = 0; i < 2 * N; i++) { /* keys, then tensors */
        uint64_t len = (uint64_t)snprintf(name, sizeof name, "same.beginning.%u", (i * 7919u) % N);
        uint64_t offset = (i - N) * UINT64_C(32);
        uint8_t value = (uint8_t)i;
        put_at(bytes, &n, &len, 8);
        put_at(bytes, &n, name, len);
        if (i < N) {
            put_at(bytes, &n, &u8, 4);
            put_at(bytes, &n, &value, 1);
        } else {
            put_at(bytes, &n, &n_dims, 4);
            put_at(bytes, &n, &one, 8);
            put_at(bytes, &n, &f32, 4);
            put_at(bytes, &n, &offset, 8);
        }
    }
    struct gguf *gguf;
    int fd = memory_file_create(bytes, n, path);
    free(bytes);
    assert_int_equal(ftruncate(fd, (off_t)n + N * 32 + 32), 0);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_OK);
    assert_int_equal(gguf_n_keys(gguf), N);
    assert_int_equal(gguf_n_tensors(gguf), N);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t found;
        assert_int_equal(gguf_get_u32(gguf, gguf_key_name(gguf, i), &found, &error), RUNNEL_OK);
        assert_int_equal(found, i & 255);
        assert_ptr_equal(gguf_find_tensor(gguf, gguf_tensor_at(gguf, i)->name), gguf_tensor_at(gguf, i));
    }
    gguf_close(gguf);
    close(fd);
}

/* Writer -------------------------------------------------------------------------------------------------- */

static int fill_counting(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)arg;
    (void)error;
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)buffer)[i] = (unsigned char)((offset + i) % 251);
    return RUNNEL_OK;
}

static int fill_failing(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)arg;
    (void)offset;
    (void)buffer;
    (void)n;
    return error_set(error, RUNNEL_EIO, "no data today");
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    runnel_error error;
    char path[64], copy_path[64];
    snprintf(path, sizeof path, "/tmp/runnel-test-%d.gguf", getpid());
    snprintf(copy_path, sizeof copy_path, "/tmp/runnel-test-%d-copy.gguf", getpid());
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf_string strings[2] = {{"left", 4}, {"right", 5}};
    uint64_t large_dims[2] = {1000, 1000}, small_dims[1] = {5};
    gguf_writer_set_alignment(writer, 128);
    gguf_writer_add_string(writer, "general.name", "written");
    gguf_writer_add_f32(writer, "half", 0.5f);
    gguf_writer_add_i32(writer, "minus", -5);
    gguf_writer_add_bool(writer, "yes", true);
    gguf_writer_add_array(writer, "strings", GGUF_STRING, 2, strings);
    gguf_writer_add_tensor(writer, "small", TENSOR_F16, 1, small_dims, fill_counting, NULL);
    gguf_writer_add_tensor(writer, "large", TENSOR_F32, 2, large_dims, fill_counting, NULL);
    assert_int_equal(gguf_writer_save(writer, path, &error), RUNNEL_OK);
    gguf_writer_free(writer);

    struct gguf *gguf, *copy;
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_OK);
    const struct gguf_tensor *large = gguf_find_tensor(gguf, "large");
    assert_int_equal(large->n_bytes, 4000000);
    assert_int_equal(large->offset % 128, 0);
    unsigned char bytes[3];
    assert_int_equal(gguf_read(gguf, large->offset + 3999997, bytes, 3, &error), RUNNEL_OK);
    assert_int_equal(bytes[2], 3999999 % 251);

    writer = gguf_writer_create();
    for (size_t i = 0; i < gguf_n_keys(gguf); i++)
        gguf_writer_add_copy(writer, gguf, i);
    assert_int_equal(gguf_writer_save(writer, copy_path, &error), RUNNEL_OK);
    gguf_writer_free(writer);
    assert_int_equal(gguf_open(copy_path, &copy, &error), RUNNEL_OK);
    assert_int_equal(gguf_n_keys(copy), gguf_n_keys(gguf));
    struct gguf_array array;
    assert_int_equal(gguf_get_array(copy, "strings", GGUF_STRING, &array, &error), RUNNEL_OK);
    assert_memory_equal(((const struct gguf_string *)array.values)[1].bytes, "right", 5);
    float half;
    assert_int_equal(gguf_get_f32(copy, "half", &half, &error), RUNNEL_OK);
    assert_true(half == 0.5f);
    gguf_close(gguf);
    gguf_close(copy);
    unlink(path);
    unlink(copy_path);
}

static void failed_writing_leaves_no_file(void **state)
{
    (void)state;
    runnel_error error;
    char path[64], part[80];
    snprintf(path, sizeof path, "/tmp/runnel-test-%d-failed.gguf", getpid());
    snprintf(part, sizeof part, "%s.part", path);
    uint64_t dims[1] = {33};
    struct gguf_writer *writer = gguf_writer_create();
    gguf_writer_add_tensor(writer, "absent", TENSOR_F32, 1, dims, fill_failing, NULL);
    assert_int_equal(gguf_writer_save(writer, path, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "tensor \"absent\": no data today"));
    gguf_writer_free(writer);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(part, F_OK), -1);

    writer = gguf_writer_create();
    gguf_writer_add_tensor(writer, "odd", TENSOR_Q8_0, 1, dims, fill_counting, NULL);
    assert_int_equal(gguf_writer_save(writer, path, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "\"odd\""));
    gguf_writer_free(writer);

    writer = gguf_writer_create();
    assert_int_equal(gguf_writer_save(writer, "/nowhere/at/all.gguf", &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "/nowhere/at/all.gguf"));
    assert_int_equal(gguf_writer_save(writer, "/dev/full/x", &error), RUNNEL_EIO);
    gguf_writer_free(writer);
}

/* Tiny models --------------------------------------------------------------------------------------------- */

static void tiny_models_are_finite_and_the_same_each_time(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {
        TENSOR_F32,  TENSOR_F16,    TENSOR_BF16,   TENSOR_Q8_0,  TENSOR_Q4_0, TENSOR_Q4_1,
        TENSOR_Q5_0, TENSOR_Q5_1,   TENSOR_Q4_K,   TENSOR_Q5_K,  TENSOR_Q6_K, TENSOR_Q2_K,
        TENSOR_Q3_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
    };
    enum { N = 64 * 256 };
    static float values[N];
    static unsigned char blocks[N * 4], again[N * 4];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        double sum = 0, squares = 0;
        tiny_model_random_blocks(types[t], 7, 0.05f, N, blocks);
        tiny_model_random_blocks(types[t], 7, 0.05f, N, again);
        assert_memory_equal(blocks, again, N / 256 * 84); /* the smallest of all types */
        quant_decode(types[t], blocks, N, values);
        for (size_t i = 0; i < N; i++) {
            assert_true(isfinite(values[i]));
            sum += values[i];
            squares += (double)values[i] * values[i];
        }
        double deviation = sqrt(squares / N);
        if (deviation < 0.04 || deviation > 0.065 || fabs(sum / N) > 0.01)
            fail_msg("type %d: expected a deviation of about 0.05 and a mean of 0, found %g and %g", types[t],
                     deviation, sum / N);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_value_is_read),
        cmocka_unit_test(numbers_that_do_not_fit_are_refused),
        cmocka_unit_test(tensors_lie_where_the_file_says),
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(keys_alone_can_be_read_of_a_cut_file),
        cmocka_unit_test(many_keys_and_tensors_take_no_quadratic_time),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(failed_writing_leaves_no_file),
        cmocka_unit_test(tiny_models_are_finite_and_the_same_each_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
