/* model_check.c: see model_check.h. */
#include "cli/model_check.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "model/gguf.h"

enum { HASH_BUFFER_BYTES = 1 << 16, DATA_ALIGN_MAX = 1 << 16 /* what a file may pad its data to */ };

static int file_sha256(const char *path, char sha256[65], runnel_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, RUNNEL_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    struct sha256_ctx context;
    unsigned char buffer[HASH_BUFFER_BYTES], digest[SHA256_DIGEST_SIZE];
    ssize_t n;
    sha256_init(&context);
    while ((n = read(fd, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0)
            sha256_update(&context, (size_t)n, buffer);
    }
    int read_errno = errno;
    close(fd);
    if (n < 0)
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(read_errno));
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(sha256 + 2 * i, 3, "%02x", digest[i]);
    return RUNNEL_OK;
}

/* Not the page that a server shows instead of the file. */
static int check_magic(const char *path, runnel_error *error)
{
    char magic[4] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, magic, sizeof magic);
    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)sizeof magic || memcmp(magic, "GGUF", sizeof magic) != 0)
        return error_set(error, RUNNEL_EFORMAT,
                         "expected a GGUF file, what is there does not begin like one");
    return RUNNEL_OK;
}

/* The file's own account of its length: its last tensor ends where the file does. A file whose types are not known here
 * may be whole all the same. */
static int check_extent(const char *path, runnel_error *error)
{
    struct gguf *gguf;
    uint64_t end = 0;
    runnel_error found;
    int code = gguf_open_part(path, &gguf, &found);
    if (code == RUNNEL_EUNSUPPORTED)
        return RUNNEL_OK;
    if (code)
        return error_set(error, code, "expected a whole GGUF file: %s", found.message);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        end = tensor->offset + tensor->n_bytes > end ? tensor->offset + tensor->n_bytes : end;
    }
    uint64_t n_bytes = gguf_file_bytes(gguf);
    gguf_close(gguf);
    if (end && n_bytes >= end + DATA_ALIGN_MAX)
        return error_set(error, RUNNEL_EFORMAT,
                         "expected a GGUF file of %llu bytes, as its tensors say, found %llu",
                         (unsigned long long)end, (unsigned long long)n_bytes);
    return RUNNEL_OK;
}

enum model_content model_look(const char *path)
{
    struct gguf *gguf;
    if (check_magic(path, NULL))
        return access(path, R_OK) ? MODEL_WHOLE : MODEL_FOREIGN;
    int code = gguf_open(path, &gguf, NULL);
    if (code)
        return code == RUNNEL_EFORMAT ? MODEL_CUT : MODEL_WHOLE;
    enum model_content content = gguf_n_tensors(gguf) ? MODEL_WHOLE : MODEL_VOCABULARY;
    if (gguf_check_type(gguf, NULL))
        content = gguf_has_type(gguf, "imatrix") ? MODEL_IMPORTANCE : MODEL_ADDITION;
    gguf_close(gguf);
    return content;
}

static void describe_split(unsigned number, unsigned count, char text[64])
{
    if (count == 1)
        strcpy(text, "a model in one file");
    else
        snprintf(text, 64, "part %u of %u of a model", number, count);
}

int model_check(const char *path, uint64_t n_bytes, const char *sha256, char *found, runnel_error *error)
{
    struct stat status;
    if (stat(path, &status))
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(errno));
    if (n_bytes && (uint64_t)status.st_size != n_bytes)
        return error_set(error, RUNNEL_EFORMAT, "expected a file of %llu bytes, found %llu",
                         (unsigned long long)n_bytes, (unsigned long long)status.st_size);
    char hash[65];
    int code = check_magic(path, error);
    if (!code && !*sha256)
        code = check_extent(path, error);
    if (code || (!*sha256 && !found))
        return code;
    code = file_sha256(path, hash, error);
    if (!code && *sha256 && strcmp(hash, sha256) != 0)
        code = error_set(error, RUNNEL_EFORMAT, "expected sha256 %s, found %s", sha256, hash);
    if (!code && found)
        memcpy(found, hash, sizeof hash);
    return code;
}

int model_check_split(const char *path, unsigned number, unsigned count, runnel_error *error)
{
    struct gguf *gguf;
    uint32_t found_number, found_count;
    if (gguf_open_part(path, &gguf, NULL)) /* what cannot be read here may still be the right file */
        return RUNNEL_OK;
    int code = gguf_get_split(gguf, &found_number, &found_count, error);
    gguf_close(gguf);
    if (code || (found_number == number && found_count == count))
        return code;
    char expected[64], found[64];
    describe_split(number, count, expected);
    describe_split(found_number, found_count, found);
    return error_set(error, RUNNEL_EFORMAT, "expected %s, found %s", expected, found);
}

int model_check_whole(const char *path, runnel_error *error)
{
    struct gguf *gguf;
    int code = gguf_open(path, &gguf, error);
    if (code)
        return code == RUNNEL_EUNSUPPORTED ? RUNNEL_OK : code;
    gguf_close(gguf);
    return RUNNEL_OK;
}
