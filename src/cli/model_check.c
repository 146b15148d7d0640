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
    int code = gguf_open(path, &gguf, &found);
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
        return MODEL_WHOLE;
    int code = gguf_open(path, &gguf, NULL);
    if (code)
        return code == RUNNEL_EFORMAT ? MODEL_CUT : MODEL_WHOLE;
    enum model_content content = gguf_n_tensors(gguf) ? MODEL_WHOLE : MODEL_VOCABULARY;
    gguf_close(gguf);
    return content;
}

int model_check(const char *path, uint64_t n_bytes, const char *sha256, char found[65], runnel_error *error)
{
    struct stat status;
    if (stat(path, &status))
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(errno));
    if (n_bytes && (uint64_t)status.st_size != n_bytes)
        return error_set(error, RUNNEL_EFORMAT, "expected a file of %llu bytes, found %llu",
                         (unsigned long long)n_bytes, (unsigned long long)status.st_size);
    int code = check_magic(path, error);
    if (!code && !*sha256)
        code = check_extent(path, error);
    if (!code)
        code = file_sha256(path, found, error);
    if (!code && *sha256 && strcmp(found, sha256) != 0)
        code = error_set(error, RUNNEL_EFORMAT, "expected sha256 %s, found %s", sha256, found);
    return code;
}
