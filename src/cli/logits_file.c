/* logits_file.c: see logits_file.h. */
#include "cli/logits_file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writing ------------------------------------------------------------------------------------------------- */

static int fail(runnel_error *error, int code, const char *path, const char *what)
{
    return error_set(error, code, "%s: %s", path, what);
}

static int open_new_file(struct logits_output *output, runnel_error *error)
{
    int code = new_file_open(&output->new_file, output->path, error);
    if (code)
        return code;
    int copy = dup(output->new_file.fd); /* fclose closes it */
    output->file = copy < 0 ? NULL : fdopen(copy, "wb");
    if (output->file)
        return RUNNEL_OK;
    code = fail(error, RUNNEL_EIO, output->path, strerror(errno));
    if (copy >= 0)
        close(copy);
    return new_file_close(&output->new_file, code, error);
}

int logits_output_open(struct logits_output *output, const char *path, runnel_error *error)
{
    struct stat status;
    *output = (struct logits_output){.path = path};
    output->is_file = stat(path, &status) || S_ISREG(status.st_mode);
    if (output->is_file)
        return open_new_file(output, error);
    output->file = fopen(path, "wb");
    return output->file ? RUNNEL_OK : fail(error, RUNNEL_EIO, path, strerror(errno));
}

bool logits_output_write(struct logits_output *output, const void *bytes, size_t n)
{
    if (fwrite(bytes, 1, n, output->file) == n)
        return true;
    output->write_error = errno;
    return false;
}

int logits_output_close(struct logits_output *output, int failure, runnel_error *error)
{
    if (fclose(output->file) && !output->write_error)
        output->write_error = errno;
    if (output->write_error)
        failure = fail(error, RUNNEL_EIO, output->path, strerror(output->write_error));
    return output->is_file ? new_file_close(&output->new_file, failure, error) : failure;
}

/* Sequences ----------------------------------------------------------------------------------------------- */

void scored_sequences_free(struct scored_sequences *sequences)
{
    for (size_t i = 0; i < sequences->n; i++)
        free(sequences->sequences[i].ids);
    free(sequences->sequences);
    *sequences = (struct scored_sequences){.n = 0};
}

int scored_sequences_add(struct scored_sequences *sequences, const int32_t *ids, size_t n_ids, size_t first,
                         runnel_error *error)
{
    struct scored_sequence *grown =
        reallocarray(sequences->sequences, sequences->n + 1, sizeof *sequences->sequences);
    if (grown)
        sequences->sequences = grown;
    int32_t *copy = grown ? malloc(n_ids * sizeof *copy + 1) : NULL;
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", n_ids);
    memcpy(copy, ids, n_ids * sizeof *copy);
    grown[sequences->n++] =
        (struct scored_sequence){.ids = copy, .n_ids = (uint32_t)n_ids, .first = (uint32_t)first};
    return RUNNEL_OK;
}

uint64_t scored_sequences_rows(const struct scored_sequences *sequences)
{
    uint64_t n = 0;
    for (size_t i = 0; i < sequences->n; i++)
        n += sequences->sequences[i].n_ids - 1 - sequences->sequences[i].first;
    return n;
}

static uint64_t count_ids(const struct scored_sequences *sequences)
{
    uint64_t n = 0;
    for (size_t i = 0; i < sequences->n; i++)
        n += sequences->sequences[i].n_ids;
    return n;
}

/* References ---------------------------------------------------------------------------------------------- */

static const char magic[8] = {'R', 'N', 'L', 'R', 'E', 'F', '\r', '\n'};
static const double RANGE = 64; /* below the likeliest token; what is less likely has no weight in anything */
enum { LARGEST_CODE = UINT16_MAX };

static uint64_t row_bytes(uint32_t n_vocab)
{
    return sizeof(struct reference_row) + n_vocab * sizeof(uint16_t);
}

static uint64_t bytes_of(uint64_t n_sequences, uint64_t n_ids, uint64_t n_rows, uint32_t n_vocab)
{
    return sizeof(struct reference_header) + n_sequences * sizeof(struct reference_span) +
           n_ids * sizeof(int32_t) + n_rows * row_bytes(n_vocab);
}

uint64_t reference_bytes(const struct scored_sequences *sequences, uint32_t n_vocab)
{
    return bytes_of(sequences->n, count_ids(sequences), scored_sequences_rows(sequences), n_vocab);
}

int reference_check_place(const char *path, runnel_error *error)
{
    char found[sizeof magic];
    struct stat status;
    if (stat(path, &status))
        return new_file_check(path, error);
    if (!S_ISREG(status.st_mode) || !status.st_size)
        return RUNNEL_OK;
    FILE *file = fopen(path, "rb");
    bool is_reference =
        file && fread(found, 1, sizeof found, file) == sizeof found && !memcmp(found, magic, sizeof magic);
    if (file)
        fclose(file);
    if (is_reference)
        return RUNNEL_OK;
    return fail(error, RUNNEL_EINVAL, path, "is there and is no reference: it is not written over");
}

bool reference_write_begin(struct logits_output *output, struct reference_header header,
                           const struct scored_sequences *sequences)
{
    memcpy(header.magic, magic, sizeof magic);
    header.version = REFERENCE_VERSION;
    header.n_sequences = (uint32_t)sequences->n;
    header.n_ids = count_ids(sequences);
    header.n_rows = scored_sequences_rows(sequences);
    bool fine = logits_output_write(output, &header, sizeof header);
    for (size_t i = 0; i < sequences->n && fine; i++) {
        const struct reference_span span = {sequences->sequences[i].n_ids, sequences->sequences[i].first};
        fine = logits_output_write(output, &span, sizeof span);
    }
    for (size_t i = 0; i < sequences->n && fine; i++)
        fine = logits_output_write(output, sequences->sequences[i].ids,
                                   sequences->sequences[i].n_ids * sizeof(int32_t));
    return fine;
}

bool reference_write_row(struct logits_output *output, const float *logits, uint32_t n_vocab, double log_sum,
                         uint16_t *codes)
{
    uint32_t top = 0;
    float least = logits[0];
    for (uint32_t i = 1; i < n_vocab; i++) {
        top = logits[i] > logits[top] ? i : top;
        least = fminf(least, logits[i]);
    }
    double range = fmin((double)logits[top] - (double)least, RANGE);
    const struct reference_row row = {
        .largest = (float)((double)logits[top] - log_sum), .step = (float)(range / LARGEST_CODE), .top = top};
    for (uint32_t i = 0; i < n_vocab; i++) {
        double below = fmin((double)logits[top] - (double)logits[i], range);
        codes[i] = row.step > 0 ? (uint16_t)fmin(rint(below / (double)row.step), LARGEST_CODE) : 0;
    }
    return logits_output_write(output, &row, sizeof row) &&
           logits_output_write(output, codes, n_vocab * sizeof *codes);
}

/* Exactly n bytes. */
static int read_bytes(struct reference *reference, void *bytes, size_t n, runnel_error *error)
{
    if (fread(bytes, 1, n, reference->file) == n)
        return RUNNEL_OK;
    return fail(error, RUNNEL_EIO, reference->path,
                ferror(reference->file) ? strerror(errno) : "the file is cut short");
}

/* The spans and ids of all sequences; the file's size has been compared with their numbers. */
static int read_sequences(struct reference *reference, runnel_error *error)
{
    const struct reference_header *header = &reference->header;
    struct reference_span *spans = malloc(header->n_sequences * sizeof *spans);
    int32_t *ids = malloc((size_t)header->n_ids * sizeof *ids);
    uint64_t n_ids = 0;
    int failure = RUNNEL_OK;
    if (!spans || !ids)
        failure = fail(error, RUNNEL_ENOMEM, reference->path, "no memory for its tokens");
    if (!failure)
        failure = read_bytes(reference, spans, header->n_sequences * sizeof *spans, error);
    if (!failure)
        failure = read_bytes(reference, ids, (size_t)header->n_ids * sizeof *ids, error);
    for (uint64_t i = 0; i < header->n_ids && !failure; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= header->n_vocab)
            failure = fail(error, RUNNEL_EFORMAT, reference->path,
                           "damaged: a token that its vocabulary does not have");
    for (uint32_t i = 0; i < header->n_sequences && !failure; n_ids += spans[i++].n_ids) {
        if (spans[i].n_ids < 2 || spans[i].first > spans[i].n_ids - 2 ||
            spans[i].n_ids > header->n_ids - n_ids)
            failure = fail(error, RUNNEL_EFORMAT, reference->path,
                           "damaged: a sequence that is longer than its tokens");
        else
            failure = scored_sequences_add(&reference->sequences, ids + n_ids, spans[i].n_ids, spans[i].first,
                                           error);
    }
    if (!failure &&
        (n_ids != header->n_ids || scored_sequences_rows(&reference->sequences) != header->n_rows))
        failure =
            fail(error, RUNNEL_EFORMAT, reference->path, "damaged: its sequences are not as long as it says");
    free(spans);
    free(ids);
    return failure;
}

static int read_header(struct reference *reference, runnel_error *error)
{
    struct reference_header *header = &reference->header;
    struct stat status;
    if (fread(header, 1, sizeof *header, reference->file) != sizeof *header ||
        memcmp(header->magic, magic, sizeof magic) != 0)
        return fail(error, RUNNEL_EFORMAT, reference->path,
                    "expected a reference that eval --write-reference wrote, found another file");
    if (header->version != REFERENCE_VERSION)
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s: a reference of version %u, expected %d",
                         reference->path, header->version, REFERENCE_VERSION);
    if (fstat(fileno(reference->file), &status))
        return fail(error, RUNNEL_EIO, reference->path, strerror(errno));
    uint64_t size = (uint64_t)status.st_size;
    if (!header->n_vocab || header->n_vocab > INT32_MAX || !header->n_sequences ||
        header->n_sequences > size || header->n_ids > size ||
        header->n_rows > size / row_bytes(header->n_vocab))
        return fail(error, RUNNEL_EFORMAT, reference->path,
                    "damaged, or cut short: it has not what its head says");
    uint64_t expected = bytes_of(header->n_sequences, header->n_ids, header->n_rows, header->n_vocab);
    if (size != expected)
        return error_set(error, RUNNEL_EFORMAT, "%s: damaged, or cut short: expected %llu bytes, found %llu",
                         reference->path, (unsigned long long)expected, (unsigned long long)size);
    return RUNNEL_OK;
}

/* A FIFO that nobody writes to would be waited for without an end. */
static FILE *open_to_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    if (!file && fd >= 0)
        close(fd);
    return file;
}

int reference_open(struct reference *reference, const char *path, runnel_error *error)
{
    *reference = (struct reference){.file = open_to_read(path), .path = path};
    if (!reference->file)
        return fail(error, RUNNEL_EIO, path, strerror(errno));
    int failure = read_header(reference, error);
    if (!failure)
        failure = read_sequences(reference, error);
    if (!failure) {
        reference->codes = malloc(reference->header.n_vocab * sizeof *reference->codes);
        if (!reference->codes)
            failure = fail(error, RUNNEL_ENOMEM, path, "no memory for a row");
    }
    if (failure)
        reference_close(reference);
    return failure;
}

void reference_close(struct reference *reference)
{
    if (reference->file)
        fclose(reference->file);
    scored_sequences_free(&reference->sequences);
    free(reference->codes);
    *reference = (struct reference){.file = NULL};
}

int reference_read_row(struct reference *reference, runnel_error *error)
{
    int failure = read_bytes(reference, &reference->row, sizeof reference->row, error);
    if (!failure)
        failure = read_bytes(reference, reference->codes,
                             reference->header.n_vocab * sizeof *reference->codes, error);
    if (!failure && !(isfinite(reference->row.largest) && reference->row.step >= 0 &&
                      (double)reference->row.step <= RANGE && reference->row.top < reference->header.n_vocab))
        failure = fail(error, RUNNEL_EFORMAT, reference->path, "damaged: a row whose probabilities are none");
    return failure;
}
