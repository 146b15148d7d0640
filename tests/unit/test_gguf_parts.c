/* test_gguf_parts.c: models in several files: the same tensors, bytes and logits as in one, and each kind of damage as an
 * error that names the file and what was expected. */
#include "base/split_name.h"
#include "helpers/gguf_bytes.h"
#include "helpers/split_model.h"
#include "helpers/tiny_model.h"
#include "runnel.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_PARTS = 3 };

static char folder[] = "/tmp/runnel-parts-XXXXXX";
static char whole[64], stem[64];

static char *part_path(unsigned number, unsigned n_parts)
{
    static char path[128];
    split_model_path(stem, number, n_parts, path, sizeof path);
    return path;
}

static void write_parts(const struct split_model_options *options)
{
    runnel_error error;
    if (split_model_write(options, whole, stem, &error))
        fail_msg("%s", error.message);
}

static void split_in(unsigned n_parts)
{
    struct split_model_options options;
    split_model_defaults(&options, n_parts);
    write_parts(&options);
}

/* Everything but the whole model. */
static void remove_parts(void)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (*entry->d_name != '.' && strcmp(path, whole) != 0)
            assert_int_equal(unlink(path), 0);
    }
    closedir(dir);
}

static unsigned n_descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* The file at path must be refused with a message that holds all of the texts; nothing stays open. */
static void refused(const char *path, int code, const char *first, const char *second)
{
    struct gguf *gguf = (struct gguf *)whole; /* must not be touched */
    runnel_error error = {0};
    unsigned n_open = n_descriptors();
    int found = gguf_open(path, &gguf, &error);
    if (found != code || !strstr(error.message, first) || !strstr(error.message, second))
        fail_msg("expected code %d and \"%s\", \"%s\", found %d \"%s\"", code, first, second, found,
                 error.message);
    assert_ptr_equal(gguf, whole);
    assert_null(strchr(error.message, '\n'));
    assert_int_equal(n_descriptors(), n_open);
}

static struct gguf *opened(const char *path)
{
    struct gguf *gguf;
    runnel_error error;
    if (gguf_open(path, &gguf, &error))
        fail_msg("%s", error.message);
    return gguf;
}

/* Equal but for where the tensors lie: keys, tensors and their bytes. */
static void assert_same(const struct gguf *expected, const struct gguf *found)
{
    assert_int_equal(gguf_n_keys(found), gguf_n_keys(expected));
    for (size_t i = 0; i < gguf_n_keys(expected); i++)
        assert_string_equal(gguf_key_name(found, i), gguf_key_name(expected, i));
    assert_false(gguf_has_key(found, "split.count"));
    assert_int_equal(gguf_n_tensors(found), gguf_n_tensors(expected));
    for (size_t i = 0; i < gguf_n_tensors(expected); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(expected, i),
                                 *same = gguf_find_tensor(found, tensor->name);
        assert_non_null(same);
        assert_ptr_equal(same, gguf_tensor_at(found, i));
        assert_int_equal(same->n_bytes, tensor->n_bytes);
        assert_true(same->offset + same->n_bytes <= gguf_file_bytes(found));
        void *one = malloc(tensor->n_bytes), *other = malloc(tensor->n_bytes);
        assert_true(one && other);
        assert_int_equal(gguf_read(expected, tensor->offset, one, tensor->n_bytes, NULL), RUNNEL_OK);
        assert_int_equal(gguf_read(found, same->offset, other, tensor->n_bytes, NULL), RUNNEL_OK);
        assert_memory_equal(one, other, tensor->n_bytes);
        free(one);
        free(other);
    }
}

static void parts_hold_what_the_whole_does(void **state)
{
    (void)state;
    struct gguf *expected = opened(whole);
    const unsigned counts[] = {2, 3, 7};
    for (unsigned keys_first = 0; keys_first < 2; keys_first++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct split_model_options options;
            split_model_defaults(&options, counts[i]);
            options.keys_first = keys_first;
            write_parts(&options);
            unsigned n_open = n_descriptors();
            struct gguf *gguf = opened(part_path(1, counts[i]));
            assert_int_equal(n_descriptors(), n_open + counts[i]);
            assert_same(expected, gguf);
            assert_int_equal(gguf_n_parts(gguf), counts[i]);
            uint64_t n_bytes = 0;
            for (unsigned part = 0; part < counts[i]; part++) {
                struct stat status;
                assert_string_equal(gguf_part_path(gguf, part), part_path(part + 1, counts[i]));
                assert_int_equal(stat(gguf_part_path(gguf, part), &status), 0);
                assert_int_equal(gguf_part_bytes(gguf, part), status.st_size);
                n_bytes += (uint64_t)status.st_size;
            }
            assert_int_equal(gguf_file_bytes(gguf), n_bytes);
            gguf_close(gguf);
            assert_int_equal(n_descriptors(), n_open);
            remove_parts();
        }
    gguf_close(expected);
}

static void get_logits(const char *path, float logits[TINY_MODEL_TOKENS])
{
    runnel_error error;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.n_threads = 2;
    if (runnel_model_open(path, &options, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error) ||
        runnel_get_logits(engine, "all the weights, please", logits, TINY_MODEL_TOKENS, &error))
        fail_msg("%s", error.message);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

static void logits_are_the_same_bits(void **state)
{
    (void)state;
    static float expected[TINY_MODEL_TOKENS], found[TINY_MODEL_TOKENS];
    split_in(N_PARTS);
    get_logits(whole, expected);
    get_logits(part_path(1, N_PARTS), found);
    assert_memory_equal(found, expected, sizeof expected);
    remove_parts();
}

/* A file that is whole and says so: of one part, or joined by gguf-split, which leaves a count of 0. Its name is free. */
static void a_whole_file_may_have_the_keys(void **state)
{
    (void)state;
    for (int count = 0; count < 2; count++) {
        struct split_model_options options;
        split_model_defaults(&options, 1);
        options.damaged = 1;
        options.split_count = count;
        write_parts(&options);
        char path[128];
        snprintf(path, sizeof path, "%s/any name", folder);
        assert_int_equal(rename(part_path(1, 1), path), 0);
        struct gguf *gguf = opened(path);
        assert_int_equal(gguf_n_parts(gguf), 1);
        gguf_close(gguf);
    }
    remove_parts();
}

static void a_part_alone_is_opened_to_be_checked(void **state)
{
    (void)state;
    split_in(N_PARTS);
    assert_int_equal(unlink(part_path(1, N_PARTS)), 0);
    struct gguf *gguf;
    runnel_error error;
    uint32_t number, count;
    assert_int_equal(gguf_open_part(part_path(3, N_PARTS), &gguf, &error), RUNNEL_OK);
    assert_int_equal(gguf_get_split(gguf, &number, &count, &error), RUNNEL_OK);
    assert_int_equal(number, 3);
    assert_int_equal(count, 3);
    gguf_close(gguf);
    gguf = opened(whole);
    assert_int_equal(gguf_get_split(gguf, &number, &count, &error), RUNNEL_OK);
    assert_int_equal(number, 1);
    assert_int_equal(count, 1);
    gguf_close(gguf);
    remove_parts();
}

static void a_missing_part(void **state)
{
    (void)state;
    for (unsigned missing = 2; missing <= N_PARTS; missing++) {
        char name[160];
        split_in(N_PARTS);
        assert_int_equal(unlink(part_path(missing, N_PARTS)), 0);
        snprintf(name, sizeof name, "part %u of 3: %s-%05u-of-00003.gguf: cannot open", missing, stem,
                 missing);
        refused(part_path(1, N_PARTS), RUNNEL_EIO, name, "No such file");
    }
    assert_int_equal(mkdir(part_path(N_PARTS, N_PARTS), 0700), 0);
    refused(part_path(1, N_PARTS), RUNNEL_EIO, "-00003-of-00003.gguf: expected a file, found a directory",
            "");
    assert_int_equal(rmdir(part_path(N_PARTS, N_PARTS)), 0);
    FILE *empty = fopen(part_path(N_PARTS, N_PARTS), "w");
    assert_non_null(empty);
    fclose(empty);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT,
            "-00003-of-00003.gguf: expected a GGUF file, found an empty", "");
    remove_parts();
}

static void another_part_than_the_first(void **state)
{
    (void)state;
    split_in(N_PARTS);
    for (unsigned number = 2; number <= N_PARTS; number++) {
        char text[64];
        snprintf(text, sizeof text, "-%05u-of-00003.gguf: is part %u of 3", number, number);
        refused(part_path(number, N_PARTS), RUNNEL_EFORMAT, text,
                "opened by its first part, m-00001-of-00003.gguf");
    }
    char path[128];
    snprintf(path, sizeof path, "%s/other.gguf", folder);
    assert_int_equal(rename(part_path(2, N_PARTS), path), 0);
    refused(path, RUNNEL_EFORMAT, "other.gguf: is part 2 of 3",
            "first part, whose name ends in -00001-of-00003.gguf");
    assert_int_equal(rename(path, part_path(1, N_PARTS)), 0);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "-00001-of-00003.gguf: is part 2 of 3",
            "key \"split.no\" is 1");
    remove_parts();
}

static void a_first_part_of_another_name(void **state)
{
    (void)state;
    static const char *const names[] = {
        "m.gguf",           "m-00001-of-00004.gguf", "m-00002-of-00003.gguf", "m-1-of-3.gguf",
        "m-00001-of-00003", "-00001-of-00003.gguf",  "m-0000a-of-00003.gguf", "m-00001-of-00003.GGUF"};
    split_in(N_PARTS);
    char last[128];
    snprintf(last, sizeof last, "%s", part_path(1, N_PARTS));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(rename(last, path), 0);
        refused(path, RUNNEL_EFORMAT, "is the first of 3 parts",
                "expected a name that ends in -00001-of-00003.gguf");
        strcpy(last, path);
    }
    remove_parts();
}

/* Parts of which one has a wrong value of one key. */
static void wrong_keys(void **state)
{
    (void)state;
    static const struct {
        unsigned damaged;
        int64_t split_no, split_count, n_tensors;
        const char *file, *message;
    } cases[] = {
        {2, 2, -1, -1, "m-00002-of-00003.gguf",
         "key \"split.no\": expected 1 in a file of this name, found 2"},
        {3, 0, -1, -1, "m-00003-of-00003.gguf",
         "key \"split.no\": expected 2 in a file of this name, found 0"},
        {3, 3, -1, -1, "m-00003-of-00003.gguf", "key \"split.no\": expected 0 to 2 of 3 parts, found 3"},
        {2, -1, 4, -1, "m-00002-of-00003.gguf",
         "key \"split.count\": expected 3 as in the first part, found 4"},
        {2, -1, 1, -1, "m-00002-of-00003.gguf",
         "key \"split.count\": expected 3 as in the first part, found 1"},
        {2, -1, 0, -1, "m-00002-of-00003.gguf",
         "key \"split.count\": expected 3 as in the first part, found 0"},
        {2, -1, 65535, -1, "m-00002-of-00003.gguf",
         "key \"split.count\": expected at most 512 parts, found 65535"},
        {1, -1, 513, -1, "m-00001-of-00003.gguf",
         "key \"split.count\": expected at most 512 parts, found 513"},
        {1, 7, -1, -1, "m-00001-of-00003.gguf", "key \"split.no\": expected 0 to 2 of 3 parts, found 7"},
        {1, -1, 2, -1, "m-00001-of-00003.gguf", "expected a name that ends in -00001-of-00002.gguf"},
        {2, -1, -1, 5, "m-00002-of-00003.gguf", "key \"split.tensors.count\": expected "},
        {1, -1, -1, 1, "m-00001-of-00003.gguf", "key \"split.tensors.count\": expected at least "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct split_model_options options;
        split_model_defaults(&options, N_PARTS);
        options.damaged = cases[i].damaged;
        options.split_no = cases[i].split_no;
        options.split_count = cases[i].split_count;
        options.n_tensors = cases[i].n_tensors;
        write_parts(&options);
        refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, cases[i].file, cases[i].message);
    }
    for (unsigned damaged = 2; damaged <= N_PARTS; damaged++) {
        struct split_model_options options;
        split_model_defaults(&options, N_PARTS);
        options.damaged = damaged;
        options.without_split = true;
        write_parts(&options);
        char name[32];
        snprintf(name, sizeof name, "m-%05u-of-00003.gguf: ", damaged);
        refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, name,
                "key \"split.count\": expected 3 as in the first part, found 1");
    }
    remove_parts();
}

/* All parts agree on a number of tensors that is not theirs. */
static void tensors_are_counted(void **state)
{
    (void)state;
    struct gguf *gguf = opened(whole);
    size_t n = gguf_n_tensors(gguf);
    char first[65], text[128];
    snprintf(first, sizeof first, "%s", gguf_tensor_at(gguf, 0)->name);
    const char *last = gguf_tensor_at(gguf, n - 1)->name;
    struct split_model_options options;

    split_model_defaults(&options, N_PARTS);
    options.damaged = 3;
    options.without = last;
    write_parts(&options);
    snprintf(text, sizeof text, "expected %zu tensors in 3 parts (key \"split.tensors.count\"), found %zu", n,
             n - 1);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "m-00001-of-00003.gguf", text);

    options.without = NULL;
    options.twice = first; /* one more than announced */
    write_parts(&options);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "m-00003-of-00003.gguf: expected at most", "found");

    options.without = last; /* as many as announced */
    write_parts(&options);
    snprintf(text, sizeof text, "tensor \"%s\": expected once, found in part 1 and in part 3", first);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "m-00001-of-00003.gguf", text);
    gguf_close(gguf);
    remove_parts();
}

static void keys_of_another_model(void **state)
{
    (void)state;
    struct split_model_options options;
    split_model_defaults(&options, N_PARTS);
    options.damaged = 2;
    options.key = "general.architecture";
    options.value = "llama";
    write_parts(&options);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "m-00002-of-00003.gguf: key \"general.architecture\"",
            "a part of another model");
    options.value = "qwen2"; /* the first part's own value may stand there again */
    write_parts(&options);
    gguf_close(opened(part_path(1, N_PARTS)));
    options.key = "general.alignment"; /* of another type: that is for the part's own check */
    write_parts(&options);
    refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, "m-00002-of-00003.gguf: key \"general.alignment\"", "u32");
    remove_parts();
}

/* Cut anywhere, each part is an error that names it. */
static void a_part_that_is_cut(void **state)
{
    (void)state;
    for (unsigned damaged = 1; damaged <= N_PARTS; damaged++) {
        struct stat status;
        split_in(N_PARTS);
        assert_int_equal(stat(part_path(damaged, N_PARTS), &status), 0);
        for (off_t n = status.st_size - 40; n > 0; n = n * 2 / 3) { /* up to 31 bytes at the end pad */
            assert_int_equal(truncate(part_path(damaged, N_PARTS), n), 0);
            char name[32];
            snprintf(name, sizeof name, "m-%05u-of-00003.gguf: ", damaged);
            refused(part_path(1, N_PARTS), RUNNEL_EFORMAT, name, "");
        }
    }
    remove_parts();
}

/* A part that gets shorter after it was opened. */
static void a_part_that_shrinks(void **state)
{
    (void)state;
    split_in(N_PARTS);
    struct gguf *gguf = opened(part_path(1, N_PARTS));
    const struct gguf_tensor *tensor = gguf_tensor_at(gguf, gguf_n_tensors(gguf) - 1);
    runnel_error error;
    void *bytes = malloc(tensor->n_bytes);
    assert_non_null(bytes);
    assert_int_equal(truncate(part_path(3, N_PARTS), 1000), 0);
    assert_int_equal(gguf_read(gguf, tensor->offset, bytes, tensor->n_bytes, &error), RUNNEL_EIO);
    assert_non_null(strstr(error.message, "m-00003-of-00003.gguf: expected "));
    assert_non_null(strstr(error.message, "the file shrank"));
    tensor = gguf_tensor_at(gguf, 0); /* of the first part, which is as it was */
    assert_int_equal(gguf_read(gguf, tensor->offset, bytes, 1, &error), RUNNEL_OK);
    free(bytes);
    gguf_close(gguf);
    remove_parts();
}

/* More parts than descriptors are left: refused by name, and all that were open are closed. */
static void too_few_descriptors(void **state)
{
    (void)state;
    struct rlimit limit, small;
    split_in(7);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    small = limit;
    int lowest_free = dup(STDERR_FILENO); /* not a count of all: valgrind has some of its own, high up */
    assert_true(lowest_free >= 0);
    close(lowest_free);
    small.rlim_cur = (rlim_t)lowest_free + 4; /* room for four parts */
    runnel_error error;
    struct gguf *gguf;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    int code = gguf_open(part_path(1, 7), &gguf, &error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(code, RUNNEL_EIO);
    assert_non_null(strstr(error.message, "-of-00007.gguf: cannot open: Too many open files"));
    gguf_close(opened(part_path(1, 7)));
    remove_parts();
}

/* A file of nothing but keys: those of a part, and an array of n_bytes zeros that take no room on the disk. */
static void write_large_keys(unsigned number, size_t n_bytes)
{
    static struct gguf_bytes file;
    put_header(&file, 0, 4);
    put_key_u32(&file, "split.no", number - 1);
    put_key_u32(&file, "split.count", 2);
    put_key_u32(&file, "split.tensors.count", 0);
    put_key(&file, number == 1 ? "one" : "two", GGUF_ARRAY);
    put_array(&file, GGUF_U8, n_bytes);
    FILE *out = fopen(part_path(number, 2), "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file.bytes, 1, file.n, out), file.n);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(truncate(part_path(number, 2), (off_t)(file.n + n_bytes)), 0);
}

/* The bound of what keys may take is that of all parts together. */
static void keys_of_all_parts_are_bounded(void **state)
{
    (void)state;
    write_large_keys(1, 200 << 20);
    write_large_keys(2, 1000);
    gguf_close(opened(part_path(1, 2)));
    write_large_keys(2, 60 << 20);
    refused(part_path(1, 2), RUNNEL_EFORMAT, "m-00002-of-00002.gguf: key \"two\"",
            "bytes are left for metadata");
    remove_parts();
}

/* Counts of a later part that its file has no room for. */
static void counts_that_overflow(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1000, UINT64_C(1) << 32, UINT64_C(1) << 61, UINT64_MAX};
    for (size_t i = 0; i < 2 * sizeof counts / sizeof *counts; i++) {
        write_large_keys(1, 0);
        write_large_keys(2, 0);
        FILE *out = fopen(part_path(2, 2), "r+b");
        assert_non_null(out);
        assert_int_equal(fseek(out, i % 2 ? 8 : 16, SEEK_SET), 0); /* tensors, or keys */
        assert_int_equal(fwrite(&counts[i / 2], sizeof *counts, 1, out), 1);
        assert_int_equal(fclose(out), 0);
        refused(part_path(1, 2), RUNNEL_EFORMAT, "m-00002-of-00002.gguf: the header: announces",
                i % 2 ? "tensors" : "keys");
    }
    remove_parts();
}

static void names(void **state)
{
    (void)state;
    struct split_name name;
    char path[] = "a/m-00009-of-00110.gguf?x";
    assert_true(split_name_read(path, strlen(path) - 2, &name));
    assert_int_equal(name.stem_len, 3);
    assert_int_equal(name.number, 9);
    assert_int_equal(name.count, 110);
    split_name_renumber(path, &name, 110);
    assert_string_equal(path, "a/m-00110-of-00110.gguf?x");
    static const char *const others[] = {"m-00000-of-00003.gguf",
                                         "m-00004-of-00003.gguf",
                                         "m-00001-of-00003.ggu",
                                         "a/-00001-of-00003.gguf",
                                         "-00001-of-00003.gguf",
                                         "m_00001-of-00003.gguf",
                                         "m-00001-of_00003.gguf",
                                         "m-+0001-of-00003.gguf",
                                         "m-00001-of-0003.gguf",
                                         "",
                                         "m.gguf",
                                         "m-00001-of-00003.gguf.part"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(split_name_read(others[i], strlen(others[i]), &name));
}

static int make_models(void **state)
{
    (void)state;
    struct tiny_model_options options;
    runnel_error error;
    if (!mkdtemp(folder))
        return -1;
    snprintf(whole, sizeof whole, "%s/whole.gguf", folder);
    snprintf(stem, sizeof stem, "%s/m", folder);
    tiny_model_defaults(&options);
    return tiny_model_write(&options, whole, &error);
}

static int remove_models(void **state)
{
    (void)state;
    remove_parts();
    unlink(whole);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(parts_hold_what_the_whole_does),
        cmocka_unit_test(logits_are_the_same_bits),
        cmocka_unit_test(a_whole_file_may_have_the_keys),
        cmocka_unit_test(a_part_alone_is_opened_to_be_checked),
        cmocka_unit_test(a_missing_part),
        cmocka_unit_test(another_part_than_the_first),
        cmocka_unit_test(a_first_part_of_another_name),
        cmocka_unit_test(wrong_keys),
        cmocka_unit_test(tensors_are_counted),
        cmocka_unit_test(keys_of_another_model),
        cmocka_unit_test(a_part_that_is_cut),
        cmocka_unit_test(a_part_that_shrinks),
        cmocka_unit_test(too_few_descriptors),
        cmocka_unit_test(keys_of_all_parts_are_bounded),
        cmocka_unit_test(counts_that_overflow),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
