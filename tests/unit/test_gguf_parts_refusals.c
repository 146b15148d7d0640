/* test_gguf_parts_refusals.c: what the reader refuses of a file (docs/model-files.md) it refuses of a later part, too, with the name of
 * that part: each rule with a part that breaks it alone, and every byte of the parts' metadata changed. */
#include "helpers/gguf_bytes.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/runnel-rules-XXXXXX";
static char first_path[64], second_path[64];
static struct gguf_bytes part;

/* The header and the keys of a split; n_keys and n_tensors are to follow. */
static void begin_part(uint32_t number, uint64_t n_keys, uint64_t n_tensors)
{
    put_header(&part, n_tensors, 3 + n_keys);
    put_key_u32(&part, "split.no", number - 1);
    put_key_u32(&part, "split.count", 2);
    put_key_u32(&part, "split.tensors.count", 2);
}

static void end_part(const char *path)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(part.bytes, 1, part.n, out), part.n);
    assert_int_equal(fclose(out), 0);
}

/* A tensor of 16 floats and the data of n_bytes. */
static void put_data(const char *name, uint64_t n_values, uint32_t type, uint64_t offset, size_t n_bytes)
{
    put_tensor(&part, name, n_values, type, offset);
    put_padding(&part, 32);
    put_zeros(&part, n_bytes);
}

static void write_good(uint32_t number)
{
    begin_part(number, number == 1, 1);
    if (number == 1)
        put_key_string(&part, "general.architecture", "m");
    put_data(number == 1 ? "one" : "two", 16, TENSOR_F32, 0, 64);
    end_part(number == 1 ? first_path : second_path);
}

static void refused(int code, const char *first, const char *second)
{
    struct gguf *gguf = (struct gguf *)&part; /* must not be touched */
    runnel_error error = {0};
    int found = gguf_open(first_path, &gguf, &error);
    if (found != code || !strstr(error.message, first) || !strstr(error.message, second) ||
        !strstr(error.message, "part 2 of 2: ") || !strstr(error.message, "m-00002-of-00002.gguf: ") ||
        strchr(error.message, '\n'))
        fail_msg("expected code %d and \"%s\", \"%s\" of part 2, found %d \"%s\"", code, first, second, found,
                 error.message);
    assert_ptr_equal(gguf, &part);
}

static void headers(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        unsigned char byte;
        int code;
        const char *message;
    } changes[] = {
        {0, 'g', RUNNEL_EFORMAT, "not a GGUF file"},
        {4, 1, RUNNEL_EUNSUPPORTED, "expected version 2 or 3, found 1"},
        {4, 4, RUNNEL_EUNSUPPORTED, "expected version 2 or 3, found 4"},
        {15, 0x80, RUNNEL_EFORMAT, "announces 9223372036854775809 tensors"},
        {23, 0x80, RUNNEL_EFORMAT, "announces 9223372036854775811 keys"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        begin_part(2, 0, 1);
        put_data("two", 16, TENSOR_F32, 0, 64);
        part.bytes[changes[i].at] = changes[i].byte;
        end_part(second_path);
        refused(changes[i].code, "the header: ", changes[i].message);
    }
}

static void keys(void **state)
{
    (void)state;
    begin_part(2, 1, 0);
    put_key_u32(&part, "", 1);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key 4 of 4", "expected 1 to 65535 bytes");
    begin_part(2, 1, 0);
    put_key_u32(&part, "split.no", 1);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key \"split.no\": expected once", "");
    begin_part(2, 1, 0);
    put_key(&part, "what", 13);
    put_zeros(&part, 64);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key \"what\": value type", "expected 0 to 12");
    begin_part(2, 1, 0);
    put_key(&part, "nest", GGUF_ARRAY);
    put_array(&part, GGUF_ARRAY, 1);
    put_zeros(&part, 64);
    end_part(second_path);
    refused(RUNNEL_EUNSUPPORTED, "key \"nest\"", "an array of arrays");
    begin_part(2, 1, 0);
    put_key(&part, "text", GGUF_STRING);
    put_u64(&part, UINT64_MAX - 7);
    put_zeros(&part, 64);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key \"text\"", "needs 18446744073709551608 bytes");
    begin_part(2, 1, 0);
    put_key(&part, "list", GGUF_ARRAY);
    put_array(&part, GGUF_F64, UINT64_C(1) << 61);
    put_zeros(&part, 64);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key \"list\"", "but only 64 bytes are left");
    begin_part(2, 1, 0);
    put_key(&part, "flag", GGUF_BOOL);
    put_u8(&part, 2);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "key \"flag\"", "expected 0 or 1");
    static const uint32_t alignments[] = {0, 3, 48, 131072};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        begin_part(2, 1, 0);
        put_key_u32(&part, "general.alignment", alignments[i]);
        end_part(second_path);
        refused(RUNNEL_EFORMAT, "key \"general.alignment\"", "expected a power of two");
    }
}

static void tensors(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_values, offset;
        uint32_t type;
        size_t n_bytes; /* of data that are there */
        int code;
        const char *message;
    } cases[] = {
        {16, 0, 16, 64, RUNNEL_EUNSUPPORTED, "expected one of the types F32, "},
        {16, 0, 41, 64, RUNNEL_EUNSUPPORTED, "found type number 41"},
        {16, 0, UINT32_MAX, 64, RUNNEL_EUNSUPPORTED, "found type number 4294967295"},
        {255, 0, TENSOR_Q4_K, 144, RUNNEL_EFORMAT, "expected rows of whole Q4_K blocks"},
        {0, 0, TENSOR_F32, 64, RUNNEL_EFORMAT, "dimension 0: expected 1 to 2147483648, found 0"},
        {(UINT64_C(1) << 31) + 1, 0, TENSOR_F32, 64, RUNNEL_EFORMAT, "dimension 0: expected 1 to"},
        {16, 4, TENSOR_F32, 128, RUNNEL_EFORMAT, "expected an offset that is a multiple of 32, found 4"},
        {16, 0, TENSOR_F32, 63, RUNNEL_EFORMAT, "truncated: expected 64 bytes of data"},
        {16, 1 << 20, TENSOR_F32, 64, RUNNEL_EFORMAT, "truncated: expected 64 bytes of data"},
        {16, UINT64_MAX - 31, TENSOR_F32, 64, RUNNEL_EFORMAT, "overflows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin_part(2, 0, 1);
        put_data("two", cases[i].n_values, cases[i].type, cases[i].offset, cases[i].n_bytes);
        end_part(second_path);
        refused(cases[i].code, "tensor \"two\": ", cases[i].message);
    }
    static const uint32_t dimensions[] = {0, 5};
    for (size_t i = 0; i < 2; i++) {
        begin_part(2, 0, 1);
        put_string(&part, "two");
        put_u32(&part, dimensions[i]);
        put_zeros(&part, 128);
        end_part(second_path);
        refused(RUNNEL_EFORMAT, "tensor \"two\": ", "expected 1 to 4 dimensions");
    }
    begin_part(2, 0, 2);
    put_tensor(&part, "two", 16, TENSOR_F32, 0);
    put_data("two", 16, TENSOR_F32, 64, 128);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "tensor \"two\": expected once, found twice", "");
    begin_part(2, 0, 2);
    put_tensor(&part, "two", 16, TENSOR_F32, 0);
    put_data("three", 16, TENSOR_F32, 32, 128);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "tensor \"three\": expected an offset past tensor \"two\"", "");
    char name[66];
    memset(name, 'n', 65);
    name[65] = 0;
    begin_part(2, 0, 1);
    put_data(name, 16, TENSOR_F32, 0, 64);
    end_part(second_path);
    refused(RUNNEL_EFORMAT, "tensor 1 of 1", "expected 1 to 64 bytes, found 65");
}

static void what_is_no_file(void **state)
{
    (void)state;
    assert_int_equal(unlink(second_path), 0);
    assert_int_equal(mkfifo(second_path, 0600), 0);
    refused(RUNNEL_EIO, "expected a file, found a FIFO", ""); /* and does not wait for a writer */
    assert_int_equal(unlink(second_path), 0);
    assert_int_equal(symlink("m-00002-of-00002.gguf", second_path), 0);
    refused(RUNNEL_EIO, "cannot open: Too many levels of symbolic links", "");
    assert_int_equal(unlink(second_path), 0);
    write_good(2);
    if (geteuid() != 0) { /* who is root may read all */
        assert_int_equal(chmod(second_path, 0), 0);
        refused(RUNNEL_EIO, "cannot open: Permission denied", "");
        assert_int_equal(chmod(second_path, 0600), 0);
    }
}

/* The same part twice, by a link: its number is wrong. */
static void one_file_as_both(void **state)
{
    (void)state;
    assert_int_equal(unlink(second_path), 0);
    assert_int_equal(link(first_path, second_path), 0);
    struct gguf *gguf;
    runnel_error error;
    assert_int_equal(gguf_open(first_path, &gguf, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "key \"split.no\": expected 1 in a file of this name, found 0"));
    assert_int_equal(unlink(second_path), 0);
    write_good(2);
}

/* Reads a byte of each end of what was accepted. */
static void walk(const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        unsigned char byte;
        assert_ptr_equal(gguf_find_tensor(gguf, tensor->name), tensor);
        assert_true(tensor->n_bytes > 0 && tensor->offset + tensor->n_bytes <= gguf_file_bytes(gguf));
        assert_int_equal(gguf_read(gguf, tensor->offset, &byte, 1, NULL), RUNNEL_OK);
        assert_int_equal(gguf_read(gguf, tensor->offset + tensor->n_bytes - 1, &byte, 1, NULL), RUNNEL_OK);
    }
}

static void change_every_byte(void **state)
{
    (void)state;
    unsigned n_opened = 0, n_refused = 0;
    for (uint32_t number = 1; number <= 2; number++) {
        write_good(3 - number);
        write_good(number); /* part.bytes holds this one */
        int fd = open(number == 1 ? first_path : second_path, O_RDWR);
        assert_true(fd >= 0);
        for (size_t at = 0; at < part.n - 64; at++)
            for (int change = 0; change < 12; change++) {
                static const unsigned char whole_bytes[] = {0, 0x7f, 0x80, 0xff};
                unsigned char byte =
                    change < 8 ? (unsigned char)(part.bytes[at] ^ 1 << change) : whole_bytes[change - 8];
                struct gguf *gguf;
                runnel_error error = {0};
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
                if (gguf_open(first_path, &gguf, &error) == RUNNEL_OK) {
                    walk(gguf);
                    gguf_close(gguf);
                    n_opened++;
                } else {
                    assert_true(error.code < 0 && strstr(error.message, ".gguf: "));
                    n_refused++;
                }
                assert_int_equal(pwrite(fd, &part.bytes[at], 1, (off_t)at), 1);
            }
        close(fd);
    }
    assert_true(n_refused > 1000 && n_opened > 500);
}

static int make_parts(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(first_path, sizeof first_path, "%s/m-00001-of-00002.gguf", folder);
    snprintf(second_path, sizeof second_path, "%s/m-00002-of-00002.gguf", folder);
    write_good(1);
    write_good(2);
    struct gguf *gguf;
    if (gguf_open(first_path, &gguf, NULL))
        return -1;
    gguf_close(gguf);
    return 0;
}

static int remove_parts(void **state)
{
    (void)state;
    unlink(first_path);
    unlink(second_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),          cmocka_unit_test(keys),
        cmocka_unit_test(tensors),          cmocka_unit_test(what_is_no_file),
        cmocka_unit_test(one_file_as_both), cmocka_unit_test(change_every_byte),
    };
    return cmocka_run_group_tests(tests, make_parts, remove_parts);
}
