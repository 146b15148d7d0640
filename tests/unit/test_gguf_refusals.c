/* test_gguf_refusals.c: what the reader refuses (docs/model-files.md): each rule with a file that breaks it
 * alone, files cut at every byte, every bit of a file's metadata flipped, files that shrink while they are
 * read. */
#include "helpers/gguf_bytes.h"
#include "helpers/memory_file.h"
#include "helpers/tiny_model.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct gguf_bytes file;

/* Opens what was put in `file`, which must fail with code and a message that holds all of the texts. */
static void refused(int code, const char *first, const char *second)
{
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf = (struct gguf *)&file; /* must not be touched */
    runnel_error error = {0};
    int fd = memory_file_create(file.bytes, file.n, path);
    assert_true(fd >= 0);
    int found = gguf_open(path, &gguf, &error);
    close(fd);
    if (found != code)
        fail_msg("expected code %d and \"%s\", found %d \"%s\"", code, first, found, error.message);
    assert_int_equal(error.code, code);
    assert_ptr_equal(gguf, &file);
    if (!strstr(error.message, first) || !strstr(error.message, second))
        fail_msg("expected a message with \"%s\" and \"%s\", found \"%s\"", first, second, error.message);
}

static void headers(void **state)
{
    (void)state;
    file.n = 0;
    refused(RUNNEL_EFORMAT, "an empty one", "");
    put_bytes(&file, "GGU", 3);
    refused(RUNNEL_EFORMAT, "truncated: the magic at offset 0", "has 3 left");
    put_header(&file, 0, 0);
    file.bytes[0] = 'g';
    refused(RUNNEL_EFORMAT, "not a GGUF file", "67 47 55 46");
    for (unsigned version = 0; version < 6; version++)
        if (version != 2 && version != 3) {
            char text[32];
            snprintf(text, sizeof text, "found %u", version);
            put_header(&file, 0, 0);
            file.bytes[4] = (unsigned char)version;
            refused(RUNNEL_EUNSUPPORTED, "expected version 2 or 3", text);
        }
    put_header(&file, 0, 0);
    file.bytes[4] = 0;
    file.bytes[7] = 3;
    refused(RUNNEL_EUNSUPPORTED, "version", "big-endian");
    static const uint64_t too_many[] = {2, 1000, UINT64_C(1) << 32, UINT64_C(1) << 60, UINT64_MAX};
    for (size_t i = 0; i < sizeof too_many / sizeof *too_many; i++) {
        put_header(&file, 0, too_many[i]);
        put_zeros(&file, 27); /* room for one key */
        refused(RUNNEL_EFORMAT, "announces", "keys");
        put_header(&file, too_many[i], 0);
        put_zeros(&file, 65); /* room for one tensor */
        refused(RUNNEL_EFORMAT, "announces", "tensors");
    }
}

static void key_names(void **state)
{
    (void)state;
    static char name[65537];
    memset(name, 'k', 65536);
    put_header(&file, 0, 1);
    put_key_u32(&file, "", 1);
    refused(RUNNEL_EFORMAT, "key 1 of 1", "expected 1 to 65535 bytes, found 0");
    put_header(&file, 0, 1);
    put_key_u32(&file, name, 1);
    refused(RUNNEL_EFORMAT, "key 1 of 1", "found 65536");
    put_header(&file, 0, 1);
    put_key_u32(&file, "line\nfeed", 1);
    refused(RUNNEL_EFORMAT, "key 1 of 1", "found byte 0x0a at position 4");
    put_header(&file, 0, 1);
    put_u64(&file, 3);
    put_bytes(&file, "a\0b", 3);
    put_zeros(&file, 12);
    refused(RUNNEL_EFORMAT, "key 1 of 1", "found byte 0x00 at position 1");
    put_header(&file, 0, 3);
    put_key_u32(&file, "twice", 1);
    put_key_u32(&file, "once", 1);
    put_key_string(&file, "twice", "again");
    refused(RUNNEL_EFORMAT, "key \"twice\"", "expected once");
    put_header(&file, 0, 1);
    put_u64(&file, UINT64_MAX);
    put_zeros(&file, 40);
    refused(RUNNEL_EFORMAT, "key 1 of 1", "found 18446744073709551615");
}

static void values(void **state)
{
    (void)state;
    static const uint32_t unknown_types[] = {13, 255, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        put_header(&file, 0, 1);
        put_key(&file, "what", unknown_types[i]);
        put_zeros(&file, 64);
        refused(RUNNEL_EFORMAT, "key \"what\": value type", "expected 0 to 12");
        put_header(&file, 0, 1);
        put_key(&file, "what", GGUF_ARRAY);
        put_array(&file, unknown_types[i], 1);
        put_zeros(&file, 64);
        refused(RUNNEL_EFORMAT, "key \"what\": element type", "expected 0 to 12");
    }
    put_header(&file, 0, 1);
    put_key(&file, "nest", GGUF_ARRAY);
    put_array(&file, GGUF_ARRAY, 1);
    put_array(&file, GGUF_U8, 0);
    refused(RUNNEL_EUNSUPPORTED, "key \"nest\"", "an array of arrays");
    put_header(&file, 0, 1);
    put_key(&file, "flag", GGUF_BOOL);
    put_u8(&file, 2);
    refused(RUNNEL_EFORMAT, "key \"flag\"", "expected 0 or 1, found 2");
    put_header(&file, 0, 1);
    put_key(&file, "flags", GGUF_ARRAY);
    put_array(&file, GGUF_BOOL, 3);
    put_bytes(&file, "\0\1\xff", 3);
    refused(RUNNEL_EFORMAT, "key \"flags\"", "expected 0 or 1, found 255");
}

static void lengths(void **state)
{
    (void)state;
    static const uint64_t lens[] = {41,        1000000,        UINT64_C(1) << 31, UINT64_C(1) << 40,
                                    INT64_MAX, UINT64_MAX - 8, UINT64_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        put_header(&file, 0, 1);
        put_key(&file, "text", GGUF_STRING);
        put_u64(&file, lens[i]);
        put_zeros(&file, 40);
        refused(RUNNEL_EFORMAT, "key \"text\": truncated: a string", "the file has 40 left");
    }
    static const struct {
        uint32_t type;
        uint64_t
            n; /* too many for 40 bytes, by one or by far, also where n times size wraps round to a few */
    } arrays[] = {
        {GGUF_U8, 41},
        {GGUF_U16, 21},
        {GGUF_U32, 11},
        {GGUF_F64, 6},
        {GGUF_STRING, 6},
        {GGUF_U16, UINT64_C(1) << 63},
        {GGUF_U32, (UINT64_C(1) << 62) + 1},
        {GGUF_F64, (UINT64_C(1) << 61) + 1},
        {GGUF_STRING, (UINT64_C(1) << 60) + 1},
        {GGUF_STRING, UINT64_C(1) << 61},
        {GGUF_U8, UINT64_MAX},
        {GGUF_STRING, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        put_header(&file, 0, 1);
        put_key(&file, "list", GGUF_ARRAY);
        put_array(&file, arrays[i].type, arrays[i].n);
        put_zeros(&file, 40);
        refused(RUNNEL_EFORMAT, "key \"list\": array", "only 40 bytes are left");
    }
    put_header(&file, 0, 1);
    put_key(&file, "list", GGUF_ARRAY);
    put_array(&file, GGUF_STRING, 2);
    put_string(&file, "fits");
    put_u64(&file, 100);
    put_zeros(&file, 40);
    refused(RUNNEL_EFORMAT, "key \"list\": truncated: a string", "100 bytes");
}

static void alignments(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 3, 48, 65537, 131072, UINT32_MAX, UINT32_C(1) << 31};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_header(&file, 0, 1);
        put_key_u32(&file, "general.alignment", bad[i]);
        refused(RUNNEL_EFORMAT, "key \"general.alignment\"", "expected a power of two from 1 to 65536");
    }
    static const uint32_t types[] = {GGUF_U8, GGUF_I32, GGUF_U64, GGUF_F32, GGUF_BOOL};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        put_header(&file, 0, 1);
        put_key(&file, "general.alignment", types[i]);
        put_u8(&file, 1);
        put_zeros(&file, types[i] == GGUF_U64 ? 7 : types[i] == GGUF_U8 || types[i] == GGUF_BOOL ? 0 : 3);
        refused(RUNNEL_EFORMAT, "key \"general.alignment\"", "expected type u32");
    }
    put_header(&file, 0, 1);
    put_key_string(&file, "general.alignment", "32");
    refused(RUNNEL_EFORMAT, "key \"general.alignment\"", "found string");

    put_header(&file, 1, 1); /* the largest that is allowed */
    put_key_u32(&file, "general.alignment", 65536);
    put_tensor(&file, "t", 1, TENSOR_F32, 0);
    put_padding(&file, 65536);
    put_u32(&file, 0);
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf;
    int fd = memory_file_create(file.bytes, file.n, path);
    assert_int_equal(gguf_open(path, &gguf, NULL), RUNNEL_OK);
    assert_int_equal(gguf_tensor_at(gguf, 0)->offset, 65536);
    gguf_close(gguf);
    close(fd);
}

/* A file with the one tensor "t" of the given dimensions and 4 KiB of data. */
static void put_one_tensor(uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    put_header(&file, 1, 0);
    put_string(&file, "t");
    put_u32(&file, n_dims);
    for (uint32_t d = 0; d < n_dims && d < 8; d++)
        put_u64(&file, dims[d]);
    put_u32(&file, type);
    put_u64(&file, offset);
    put_padding(&file, 32);
    put_zeros(&file, 4096);
}

static void tensor_names_and_shapes(void **state)
{
    (void)state;
    char name[66];
    memset(name, 'n', 65);
    name[65] = 0;
    put_header(&file, 1, 0);
    put_tensor(&file, name, 1, TENSOR_F32, 0);
    put_zeros(&file, 64);
    refused(RUNNEL_EFORMAT, "tensor 1 of 1", "expected 1 to 64 bytes, found 65");
    put_header(&file, 1, 0);
    put_tensor(&file, "", 1, TENSOR_F32, 0);
    put_zeros(&file, 64);
    refused(RUNNEL_EFORMAT, "tensor 1 of 1", "found 0");
    put_header(&file, 1, 0);
    put_tensor(&file, "esc\x1b", 1, TENSOR_F32, 0);
    put_zeros(&file, 64);
    refused(RUNNEL_EFORMAT, "tensor 1 of 1", "found byte 0x1b");
    put_header(&file, 2, 0);
    put_tensor(&file, "twin", 1, TENSOR_F32, 0);
    put_tensor(&file, "twin", 1, TENSOR_F32, 32);
    put_zeros(&file, 128);
    refused(RUNNEL_EFORMAT, "tensor \"twin\"", "expected once");

    uint64_t dims[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const uint32_t counts[] = {0, 5, 8, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        put_one_tensor(counts[i], dims, TENSOR_F32, 0);
        refused(RUNNEL_EFORMAT, "tensor \"t\"", "expected 1 to 4 dimensions");
    }
    static const uint64_t bad[] = {0, (UINT64_C(1) << 31) + 1, UINT64_C(1) << 32, UINT64_MAX};
    for (uint32_t d = 0; d < 4; d++)
        for (size_t i = 0; i < 4; i++) {
            uint64_t shape[4] = {32, 1, 1, 1};
            char text[32];
            shape[d] = bad[i];
            snprintf(text, sizeof text, "dimension %u", d);
            put_one_tensor(4, shape, TENSOR_F32, 0);
            refused(RUNNEL_EFORMAT, "tensor \"t\"", text);
        }
    uint64_t large = UINT64_C(1) << 31, overflowing[4] = {large, large, large, large};
    put_one_tensor(4, overflowing, TENSOR_F32, 0);
    refused(RUNNEL_EFORMAT, "tensor \"t\"", "overflows");
    uint64_t just_overflowing[4] = {large, large, 4, 1}; /* 2^64 values, whose count wraps round to 0 */
    put_one_tensor(4, just_overflowing, TENSOR_F32, 0);
    refused(RUNNEL_EFORMAT, "tensor \"t\"", "overflows");
    uint64_t not_in_the_file[4] = {large, large, 1, 1}; /* 2^62 values: counted, but not there */
    put_one_tensor(2, not_in_the_file, TENSOR_Q4_0, 0);
    refused(RUNNEL_EFORMAT, "tensor \"t\"", "the file ends at");
}

static void tensor_types_and_rows(void **state)
{
    (void)state;
    uint64_t dims[2] = {256, 1};
    static const uint32_t unknown[] = {4,  5,  9,  15, 16, 19, 21,  22,        29,
                                       31, 34, 38, 40, 41, 42, 255, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        put_one_tensor(2, dims, unknown[i], 0);
        refused(RUNNEL_EUNSUPPORTED, "tensor \"t\": expected one of the types F32",
                "MXFP4, found type number");
    }
    static const uint32_t small[] = {TENSOR_Q4_0, TENSOR_Q4_1,   TENSOR_Q5_0, TENSOR_Q5_1,
                                     TENSOR_Q8_0, TENSOR_IQ4_NL, TENSOR_MXFP4};
    static const uint32_t large[] = {TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q4_K,
                                     TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_IQ4_XS};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        uint64_t half_blocks[2] = {48, 2}; /* a whole number in all, but not in a row */
        put_one_tensor(2, half_blocks, small[i], 0);
        refused(RUNNEL_EFORMAT, "tensor \"t\"", "blocks of 32 values, found rows of 48");
    }
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        uint64_t half_blocks[2] = {128, 2};
        put_one_tensor(2, half_blocks, large[i], 0);
        refused(RUNNEL_EFORMAT, "tensor \"t\"", "blocks of 256 values, found rows of 128");
    }
}

static void tensor_places(void **state)
{
    (void)state;
    uint64_t whole[1] = {1024}; /* the 4 KiB that are there */
    static const uint64_t unaligned[] = {1, 16, 33, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        put_one_tensor(1, whole, TENSOR_F32, unaligned[i]);
        refused(RUNNEL_EFORMAT, "tensor \"t\"", "expected an offset that is a multiple of 32");
    }
    static const uint64_t outside[] = {32, 4096, UINT64_C(1) << 40, UINT64_C(1) << 62};
    for (size_t i = 0; i < 4; i++) {
        put_one_tensor(1, whole, TENSOR_F32, outside[i]);
        refused(RUNNEL_EFORMAT, "tensor \"t\": truncated: expected 4096 bytes of data", "the file ends at");
    }
    static const uint64_t overflowing[] = {UINT64_C(1) << 63, UINT64_MAX - 31, INT64_MAX - 31};
    for (size_t i = 0; i < 3; i++) {
        put_one_tensor(1, whole, TENSOR_F32, overflowing[i]);
        refused(RUNNEL_EFORMAT, "tensor \"t\"", "overflows");
    }
    put_header(&file, 3, 0);
    put_tensor(&file, "behind", 8, TENSOR_F32, 128); /* in any order */
    put_tensor(&file, "long", 9, TENSOR_F32, 0);     /* 36 bytes */
    put_tensor(&file, "inside", 8, TENSOR_F32, 32);
    put_padding(&file, 32);
    put_zeros(&file, 160);
    refused(RUNNEL_EFORMAT, "tensor \"inside\"", "past tensor \"long\"");
    put_header(&file, 2, 0);
    put_tensor(&file, "here", 8, TENSOR_F32, 0);
    put_tensor(&file, "same", 8, TENSOR_F32, 0);
    put_padding(&file, 32);
    put_zeros(&file, 160);
    refused(RUNNEL_EFORMAT, "past tensor", "found");
    put_header(&file, 1, 0); /* a file that ends within the padding before the data */
    put_tensor(&file, "t", 1, TENSOR_F32, 0);
    put_u8(&file, 0);
    assert_true(file.n % 32);
    refused(RUNNEL_EFORMAT, "tensor \"t\": truncated", "the file ends at");
}

/* Metadata that claims more than 256 MiB of a file that is large enough, without taking room on any disk. */
static void metadata_without_bound(void **state)
{
    (void)state;
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf;
    runnel_error error;
    put_header(&file, 0, 1);
    put_key(&file, "text", GGUF_STRING);
    put_u64(&file, UINT64_C(3) << 30);
    int fd = memory_file_create(file.bytes, file.n, path);
    assert_int_equal(ftruncate(fd, (off_t)4 << 30), 0);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_EFORMAT);
    assert_non_null(strstr(error.message, "key \"text\""));
    assert_non_null(strstr(error.message, "at most 256 MiB"));
    close(fd);

    put_header(&file, UINT64_C(1) << 24,
               0); /* a hole reads as tensors without a name: the first must end it */
    fd = memory_file_create(file.bytes, file.n, path);
    assert_int_equal(ftruncate(fd, (off_t)4 << 30), 0);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_EFORMAT);
    close(fd);
}

/* Things that are no files ---------------------------------------------------------------------------------
 */

static void cannot_open(const char *path, const char *text)
{
    struct gguf *gguf;
    runnel_error error = {0};
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_EIO);
    if (!strstr(error.message, path) || !strstr(error.message, text))
        fail_msg("expected a message with \"%s\" and \"%s\", found \"%s\"", path, text, error.message);
}

static void things_that_are_no_files(void **state)
{
    (void)state;
    char directory[] = "/tmp/runnel-test-XXXXXX", path[64], target[64];
    assert_non_null(mkdtemp(directory));
    cannot_open(directory, "a directory");
    snprintf(path, sizeof path, "%s/fifo", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    cannot_open(path, "a FIFO"); /* and does not wait for a writer */
    unlink(path);
    cannot_open(path, "No such file");
    cannot_open("/dev/zero", "a device");
    cannot_open("", "No such file");
    snprintf(target, sizeof target, "%s/loop", directory);
    assert_int_equal(symlink(target, target), 0);
    cannot_open(target, "symbolic links");
    unlink(target);
    snprintf(path, sizeof path, "%s/forbidden", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0000);
    assert_true(fd >= 0);
    close(fd);
    if (geteuid() == 0) { /* root may read all: ask as somebody else */
        assert_int_equal(chmod(directory, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
        cannot_open(path, "Permission denied");
        assert_int_equal(seteuid(0), 0);
    } else
        cannot_open(path, "Permission denied");
    unlink(path);
    rmdir(directory);
}

static void long_paths_are_shown_by_their_end(void **state)
{
    (void)state;
    static char path[4000];
    runnel_error error;
    struct gguf *gguf;
    memset(path, 'x', sizeof path - 1);
    memcpy(path + sizeof path - 12, "/model.gguf", 12);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "/model.gguf: cannot open: "));
}

/* Cut, flipped, shrunk ------------------------------------------------------------------------------------ */

/* Reads all that an opened file offers, so that a sanitizer sees a wrong pointer. */
static uint64_t walk(const struct gguf *gguf)
{
    uint64_t sum = 0;
    runnel_error error;
    for (size_t i = 0; i < gguf_n_keys(gguf); i++) {
        const char *key = gguf_key_name(gguf, i);
        uint32_t u32;
        float f32;
        struct gguf_string string;
        struct gguf_array array;
        sum += strlen(key) + (uint64_t)gguf_get_u32(gguf, key, &u32, &error) +
               (uint64_t)gguf_get_f32(gguf, key, &f32, &error);
        if (!gguf_get_string(gguf, key, &string, &error))
            for (size_t b = 0; b < string.len; b++)
                sum += (unsigned char)string.bytes[b];
        if (!gguf_get_array(gguf, key, GGUF_STRING, &array, &error))
            for (size_t s = 0; s < array.n; s++)
                sum += ((const struct gguf_string *)array.values)[s].len;
        if (!gguf_get_array(gguf, key, GGUF_I32, &array, &error))
            for (size_t s = 0; s < array.n; s++)
                sum += (uint32_t)((const int32_t *)array.values)[s];
    }
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        unsigned char first, last;
        assert_ptr_equal(gguf_find_tensor(gguf, tensor->name), tensor);
        /* What was accepted lies in the file. */
        assert_true(tensor->n_bytes > 0 && tensor->offset + tensor->n_bytes <= gguf_file_bytes(gguf));
        assert_int_equal(gguf_read(gguf, tensor->offset, &first, 1, &error), RUNNEL_OK);
        assert_int_equal(gguf_read(gguf, tensor->offset + tensor->n_bytes - 1, &last, 1, &error), RUNNEL_OK);
        sum += first + last;
    }
    return sum;
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    put_sample(&file);
    size_t whole = file.n, data = whole - 198;
    for (file.n = 0; file.n < whole; file.n++)
        refused(RUNNEL_EFORMAT,
                file.n == 0     ? "an empty one"
                : file.n < 24   ? "the header: "
                : file.n < data ? ""
                                : "truncated: expected",
                file.n < 24     ? ""
                : file.n < data ? ""
                                : "tensor \"");
}

static void flip_every_bit(void **state)
{
    (void)state;
    char path[MEMORY_FILE_PATH];
    put_sample(&file);
    int fd = memory_file_create(file.bytes, file.n, path);
    unsigned n_opened = 0, n_refused = 0;
    for (size_t at = 0; at < file.n - 198; at++)
        for (int change = 0; change < 12; change++) {
            static const unsigned char whole_bytes[] = {0, 0x7f, 0x80, 0xff};
            unsigned char byte =
                change < 8 ? (unsigned char)(file.bytes[at] ^ 1 << change) : whole_bytes[change - 8];
            struct gguf *gguf;
            runnel_error error = {0};
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
            if (gguf_open(path, &gguf, &error) == RUNNEL_OK) {
                walk(gguf);
                gguf_close(gguf);
                n_opened++;
            } else {
                assert_true(error.code < 0 && error.message[0]);
                n_refused++;
            }
            assert_int_equal(pwrite(fd, &file.bytes[at], 1, (off_t)at), 1);
        }
    close(fd);
    assert_true(n_refused > 1000 && n_opened > 1000);
}

static void change_bytes_of_a_tiny_model(void **state)
{
    (void)state;
    char path[64];
    struct tiny_model_options options;
    runnel_error error = {0};
    struct gguf *gguf = NULL;
    snprintf(path, sizeof path, "/tmp/runnel-test-%d.gguf", getpid());
    tiny_model_defaults(&options);
    options.n_layers = 1;
    options.n_hidden = options.n_ffn = 256;
    if (tiny_model_write(&options, path, &error) || gguf_open(path, &gguf, &error))
        fail_msg("%s", error.message);
    uint64_t data = gguf_tensor_at(gguf, 0)->offset;
    walk(gguf);
    gguf_close(gguf);
    int fd = open(path, O_RDWR);
    unsigned n_refused = 0;
    for (uint64_t at = 0; at < data; at++) {
        unsigned char byte, changed;
        assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
        changed = (unsigned char)(byte ^ (1 + at * 37 % 255));
        assert_int_equal(pwrite(fd, &changed, 1, (off_t)at), 1);
        if (gguf_open(path, &gguf, &error) == RUNNEL_OK) {
            walk(gguf);
            gguf_close(gguf);
        } else
            n_refused++;
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    }
    close(fd);
    unlink(path);
    assert_true(n_refused > 1000);
}

static void shrunk_after_it_was_opened(void **state)
{
    (void)state;
    char path[MEMORY_FILE_PATH], buffer[68];
    struct gguf *gguf;
    runnel_error error = {0};
    put_sample(&file);
    int fd = memory_file_create(file.bytes, file.n, path);
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_OK);
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, "second");
    assert_int_equal(gguf_read(gguf, tensor->offset, buffer, 68, &error), RUNNEL_OK);
    assert_int_equal(ftruncate(fd, (off_t)tensor->offset + 60), 0);
    char text[64];
    snprintf(text, sizeof text, "expected 8 more bytes at offset %llu",
             (unsigned long long)tensor->offset + 60);
    assert_int_equal(gguf_read(gguf, tensor->offset, buffer, 68, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, text));
    assert_int_equal(gguf_read(gguf, tensor->offset, buffer, 60, &error), RUNNEL_OK);
    assert_int_equal(gguf_read(gguf, UINT64_MAX, buffer, 1, &error), RUNNEL_EIO);
    gguf_close(gguf);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(key_names),
        cmocka_unit_test(values),
        cmocka_unit_test(lengths),
        cmocka_unit_test(alignments),
        cmocka_unit_test(tensor_names_and_shapes),
        cmocka_unit_test(tensor_types_and_rows),
        cmocka_unit_test(tensor_places),
        cmocka_unit_test(metadata_without_bound),
        cmocka_unit_test(things_that_are_no_files),
        cmocka_unit_test(long_paths_are_shown_by_their_end),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(flip_every_bit),
        cmocka_unit_test(change_bytes_of_a_tiny_model),
        cmocka_unit_test(shrunk_after_it_was_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
