/* download.c: resumable downloads with libcurl. One thread; a transfer owns its handle, its file and its
 * lock.
 *
 * A try that finds part of the file asks for the rest (Range) if that is still the same file (If-Range). 206
 * goes on, 200 means that the server starts at the beginning, 416 that there is nothing behind what is there:
 * start again. */
#include "cli/download.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

enum { CONNECT_TIMEOUT_S = 5, STALL_TIMEOUT_S = 30, MAX_REDIRECTS = 10 };

/* What PATH.from holds: the bytes of PATH are the first of this. */
struct origin {
    char url[2048];
    char etag[256];   /* strong, with its quotes; "": none */
    char sha256[65];  /* of the whole, as the server announces it; "": it does not */
    uint64_t n_bytes; /* in all; 0: not known */
};

struct transfer {
    const struct download *download;
    CURL *curl;
    int fd;
    uint64_t begin;       /* bytes that were there */
    uint64_t done;        /* bytes that are there */
    struct origin origin; /* of what is coming */
    uint64_t range_start; /* of Content-Range */
    bool has_range;
    bool began;           /* has a byte of the body come? */
    bool stopped;         /* on_progress said so */
    runnel_error failure; /* why a callback ended the transfer; code 0: it did not */
};

/* Companion file ------------------------------------------------------------------------------------------ */

static void origin_path(const char *path, char *text, size_t size)
{
    snprintf(text, size, "%s.from", path);
}

/* 64 hexadecimal digits, perhaps in quotes. */
static bool parse_sha256(const char *text, char sha256[65])
{
    if (*text == '"')
        text++;
    size_t len = strspn(text, "0123456789abcdef");
    if (len != 64 || (text[64] && text[64] != '"'))
        return false;
    memcpy(sha256, text, 64);
    sha256[64] = 0;
    return true;
}

static bool origin_read(const char *path, struct origin *origin)
{
    char name[4200], n_bytes[32], sha256[80];
    origin_path(path, name, sizeof name);
    FILE *file = fopen(name, "re");
    if (!file)
        return false;
    bool ok = fgets(origin->url, sizeof origin->url, file) &&
              fgets(origin->etag, sizeof origin->etag, file) && fgets(sha256, sizeof sha256, file) &&
              fgets(n_bytes, sizeof n_bytes, file);
    fclose(file);
    if (!ok)
        return false;
    origin->url[strcspn(origin->url, "\n")] = 0;
    origin->etag[strcspn(origin->etag, "\n")] = 0;
    sha256[strcspn(sha256, "\n")] = 0;
    if (!parse_sha256(sha256, origin->sha256))
        origin->sha256[0] = 0;
    origin->n_bytes = strtoull(n_bytes, NULL, 10);
    return true;
}

static int origin_write(const char *path, const struct origin *origin, runnel_error *error)
{
    char name[4200];
    origin_path(path, name, sizeof name);
    FILE *file = fopen(name, "we");
    bool ok = file && fprintf(file, "%s\n%s\n%s\n%llu\n", origin->url, origin->etag, origin->sha256,
                              (unsigned long long)origin->n_bytes) > 0;
    if (file && fclose(file))
        ok = false;
    return ok ? RUNNEL_OK : error_set(error, RUNNEL_EIO, "%s: cannot be written: %s", name, strerror(errno));
}

void download_close(const char *path, int fd, bool failed)
{
    struct stat status;
    if (failed && fstat(fd, &status) == 0 && status.st_size == 0)
        download_discard(path); /* while it is still locked: nobody else writes it */
    close(fd);
}

void download_discard(const char *path)
{
    char name[4200];
    origin_path(path, name, sizeof name);
    unlink(name);
    unlink(path);
}

/* Headers ------------------------------------------------------------------------------------------------- */

/* The value of a header line if its name is this one (in lower case), without white space around it; else
 * NULL. */
static const char *header_value(const char *line, size_t len, const char *name, char *value, size_t size)
{
    size_t name_len = strlen(name);
    if (len <= name_len || line[name_len] != ':' || strncasecmp(line, name, name_len) != 0)
        return NULL;
    const char *begin = line + name_len + 1, *end = line + len;
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (end > begin && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    if ((size_t)(end - begin) >= size)
        return NULL;
    memcpy(value, begin, (size_t)(end - begin));
    value[end - begin] = 0;
    return value;
}

static size_t on_header(char *line, size_t one, size_t len, void *user)
{
    struct transfer *transfer = user;
    (void)one;
    char value[1024];
    if (len > 5 && memcmp(line, "HTTP/", 5) == 0) {
        /* A new response (after a redirect): only what it says itself counts. The checksum is announced on
         * the way. */
        transfer->has_range = false;
        transfer->origin.etag[0] = 0;
    } else if (header_value(line, len, "etag", value, sizeof transfer->origin.etag)) {
        if (*value == '"') /* a weak one does not promise equal bytes */
            memcpy(transfer->origin.etag, value, strlen(value) + 1);
    } else if (header_value(line, len, "x-linked-etag", value, sizeof value)) {
        parse_sha256(value, transfer->origin.sha256);
    } else if (header_value(line, len, "content-range", value, sizeof value)) {
        unsigned long long first, last, total = 0;
        if (sscanf(value, "bytes %llu-%llu/%llu", &first, &last, &total) >= 2) {
            transfer->has_range = true;
            transfer->range_start = first;
            transfer->origin.n_bytes = total;
        }
    }
    return len;
}

/* Body
 * ---------------------------------------------------------------------------------------------------------
 */

/* Before the first byte is taken: is it the file that was asked for, and where does it belong? */
static int begin_body(struct transfer *transfer)
{
    const struct download *download = transfer->download;
    runnel_error *error = &transfer->failure;
    long status = 0;
    curl_off_t length = -1;
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(transfer->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);

    if (status == 206) {
        if (!transfer->has_range || transfer->range_start != transfer->begin)
            return error_set(error, RUNNEL_EIO,
                             "%s: asked for the bytes from %llu on, the server sent others", download->url,
                             (unsigned long long)transfer->begin);
    } else { /* from the beginning: what was there is of no use */
        transfer->begin = transfer->done = 0;
        transfer->origin.n_bytes = length > 0 ? (uint64_t)length : 0;
        if (ftruncate(transfer->fd, 0))
            return error_set(error, RUNNEL_EINVAL, "%s: cannot be emptied: %s", download->path,
                             strerror(errno));
    }
    if (download->n_bytes && transfer->origin.n_bytes && transfer->origin.n_bytes != download->n_bytes)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: expected a file of %llu bytes, the server has one of %llu", download->url,
                         (unsigned long long)download->n_bytes, (unsigned long long)transfer->origin.n_bytes);
    if (*download->sha256 && *transfer->origin.sha256 &&
        strcmp(download->sha256, transfer->origin.sha256) != 0)
        return error_set(error, RUNNEL_EINVAL, "%s: expected sha256 %s, the server announces %s",
                         download->url, download->sha256, transfer->origin.sha256);
    snprintf(transfer->origin.url, sizeof transfer->origin.url, "%s", download->url);
    return origin_write(download->path, &transfer->origin, error);
}

static size_t on_body(char *data, size_t one, size_t len, void *user)
{
    struct transfer *transfer = user;
    (void)one;
    if (!transfer->began) {
        if (begin_body(transfer))
            return 0; /* ends the transfer */
        transfer->began = true;
    }
    for (size_t written = 0; written < len;) {
        ssize_t n = pwrite(transfer->fd, data + written, len - written, (off_t)(transfer->done + written));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error_set(&transfer->failure, RUNNEL_EINVAL, "%s: cannot be written: %s",
                      transfer->download->path, strerror(n < 0 ? errno : ENOSPC));
            return 0;
        }
        written += (size_t)n;
    }
    transfer->done += len;
    return len;
}

static int on_transfer(void *user, curl_off_t total, curl_off_t done, curl_off_t up_total, curl_off_t up_done)
{
    struct transfer *transfer = user;
    (void)total, (void)done, (void)up_total, (void)up_done;
    const struct download *download = transfer->download;
    if (download->on_progress &&
        !download->on_progress(download->user, transfer->done, transfer->origin.n_bytes))
        transfer->stopped = true;
    return transfer->stopped;
}

/* Requests ------------------------------------------------------------------------------------------------ */

/* A handle with what all requests share. https never turns into http on the way, and a token never leaves its
 * host: libcurl sends it to the first host and port only. */
static CURL *new_request(const char *url, const char *token, char *curl_error)
{
    CURL *curl = curl_easy_init();
    if (!curl)
        return NULL;
    bool secure = strncasecmp(url, "https:", 6) == 0;
    *curl_error = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "runnel/" RUNNEL_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, curl_error);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    if (token && *token) {
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, token);
    }
    return curl;
}

/* Turns what libcurl says into an error of ours. */
static int request_error(CURL *curl, CURLcode code, const char *url, const char *curl_error,
                         runnel_error *error)
{
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_HTTP_RETURNED_ERROR) {
        const char *hint = status == 401 || status == 403 ? " (for a closed repository set HF_TOKEN)" : "";
        bool again = status == 408 || status == 429 || status >= 500;
        return error_set(error, again ? RUNNEL_EIO : RUNNEL_EINVAL, "%s: the server answered %ld%s", url,
                         status, hint);
    }
    /* No connection: not worth waiting for. A connection that broke: go on from where it did. */
    bool never = code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
                 code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_UNSUPPORTED_PROTOCOL ||
                 code == CURLE_URL_MALFORMAT || code == CURLE_PEER_FAILED_VERIFICATION ||
                 code == CURLE_TOO_MANY_REDIRECTS || code == CURLE_SSL_CACERT_BADFILE;
    double connect_s = 0;
    curl_easy_getinfo(curl, CURLINFO_CONNECT_TIME, &connect_s);
    if (code == CURLE_OPERATION_TIMEDOUT && connect_s == 0)
        never = true;
    return error_set(error, never ? RUNNEL_EINVAL : RUNNEL_EIO, "%s: %s", url,
                     *curl_error ? curl_error : curl_easy_strerror(code));
}

static int open_part(const struct download *download, struct transfer *transfer, runnel_error *error)
{
    transfer->fd = open(download->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (transfer->fd < 0)
        return error_set(error, RUNNEL_EINVAL, "%s: cannot be opened: %s", download->path, strerror(errno));
    if (flock(transfer->fd, LOCK_EX | LOCK_NB)) {
        close(transfer->fd); /* another's: it is left alone */
        transfer->fd = -1;
        return error_set(error, RUNNEL_EINVAL, "%s: another download is writing it", download->path);
    }

    struct stat status;
    struct origin origin;
    if (fstat(transfer->fd, &status) == 0 && status.st_size > 0 && origin_read(download->path, &origin) &&
        strcmp(origin.url, download->url) == 0) {
        transfer->begin = transfer->done = (uint64_t)status.st_size;
        transfer->origin = origin;
    }
    return RUNNEL_OK;
}

/* Asks for what is missing, once. */
static int run_once(const struct download *download, struct download_result *result, bool *start_again,
                    runnel_error *error)
{
    struct transfer transfer = {.download = download, .fd = -1};
    char curl_error[CURL_ERROR_SIZE], range[32], if_range[300];
    struct curl_slist *headers = NULL;
    int code = open_part(download, &transfer, error);
    if (code)
        goto end;
    if (transfer.begin > 0 && transfer.begin == transfer.origin.n_bytes)
        goto complete; /* an earlier run ended between the last byte and what follows */
    transfer.curl = new_request(download->url, download->token, curl_error);
    if (!transfer.curl) {
        code = error_set(error, RUNNEL_ENOMEM, "no memory for a request");
        goto end;
    }
    if (transfer.begin > 0) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)transfer.begin);
        curl_easy_setopt(transfer.curl, CURLOPT_RANGE, range);
        if (*transfer.origin.etag) {
            snprintf(if_range, sizeof if_range, "If-Range: %s", transfer.origin.etag);
            headers = curl_slist_append(NULL, if_range);
            curl_easy_setopt(transfer.curl, CURLOPT_HTTPHEADER, headers);
        }
    }
    curl_easy_setopt(transfer.curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(transfer.curl, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(transfer.curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(transfer.curl, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(transfer.curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(transfer.curl, CURLOPT_XFERINFOFUNCTION, on_transfer);
    curl_easy_setopt(transfer.curl, CURLOPT_XFERINFODATA, &transfer);

    CURLcode curl_code = curl_easy_perform(transfer.curl);
    long status = 0;
    curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &status);
    if (transfer.stopped)
        code = error_set(error, RUNNEL_ECANCELLED, "%s: stopped", download->url);
    else if (transfer.failure.code)
        code = error_set(error, transfer.failure.code, "%s", transfer.failure.message);
    else if (curl_code == CURLE_HTTP_RETURNED_ERROR && status == 416 && transfer.begin > 0) {
        *start_again = true;
        code = error_set(error, RUNNEL_EIO, "%s: nothing follows what is here", download->url);
    } else if (curl_code != CURLE_OK)
        code = request_error(transfer.curl, curl_code, download->url, curl_error, error);
    else if (transfer.origin.n_bytes && transfer.done != transfer.origin.n_bytes)
        code = error_set(error, RUNNEL_EIO, "%s: expected %llu bytes, got %llu", download->url,
                         (unsigned long long)transfer.origin.n_bytes, (unsigned long long)transfer.done);
    else if (fsync(transfer.fd))
        code = error_set(error, RUNNEL_EINVAL, "%s: cannot be written: %s", download->path, strerror(errno));
    if (code)
        goto end;
complete:
    memcpy(result->sha256, transfer.origin.sha256, sizeof result->sha256);
    result->n_bytes = transfer.done;
    result->resumed = transfer.begin > 0;
end:
    curl_slist_free_all(headers);
    curl_easy_cleanup(transfer.curl);
    if (transfer.fd >= 0)
        download_close(download->path, transfer.fd, code != RUNNEL_OK);
    return code;
}

int download_run(const struct download *download, struct download_result *result, runnel_error *error)
{
    if (strlen(download->url) >= sizeof((struct origin *)0)->url)
        return error_set(error, RUNNEL_EINVAL, "the address is longer than %zu bytes",
                         sizeof((struct origin *)0)->url - 1);
    bool start_again = false;
    int code = run_once(download, result, &start_again, error);
    if (start_again) {
        download_discard(download->path);
        code = run_once(download, result, &start_again, error);
    }
    return code;
}

/* Small things -------------------------------------------------------------------------------------------- */

struct text_buffer {
    char *text;
    size_t len, max;
};

static size_t on_text(char *data, size_t one, size_t len, void *user)
{
    struct text_buffer *buffer = user;
    (void)one;
    if (len > buffer->max - buffer->len)
        return 0;
    char *grown = realloc(buffer->text, buffer->len + len + 1);
    if (!grown)
        return 0;
    memcpy(grown + buffer->len, data, len);
    buffer->text = grown;
    buffer->len += len;
    grown[buffer->len] = 0;
    return len;
}

int download_text(const char *url, const char *accept, size_t max_bytes, char **text, runnel_error *error)
{
    struct text_buffer buffer = {.max = max_bytes};
    char curl_error[CURL_ERROR_SIZE], header[256];
    struct curl_slist *headers = NULL;
    CURL *curl = new_request(url, NULL, curl_error);
    if (!curl)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a request");
    if (accept) {
        snprintf(header, sizeof header, "Accept: %s", accept);
        headers = curl_slist_append(NULL, header);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_text);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &buffer);
    CURLcode curl_code = curl_easy_perform(curl);
    int code = RUNNEL_OK;
    if (curl_code != CURLE_OK)
        code = request_error(curl, curl_code, url, curl_error, error);
    else if (!buffer.text)
        code = error_set(error, RUNNEL_EIO, "%s: the answer is empty", url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (code)
        free(buffer.text);
    else
        *text = buffer.text;
    return code;
}

int download_check(const char *url, const char *token, runnel_error *error)
{
    char curl_error[CURL_ERROR_SIZE];
    CURL *curl = new_request(url, token, curl_error);
    if (!curl)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a request");
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 3L * CONNECT_TIMEOUT_S);
    CURLcode curl_code = curl_easy_perform(curl);
    int code = curl_code == CURLE_OK ? RUNNEL_OK : request_error(curl, curl_code, url, curl_error, error);
    curl_easy_cleanup(curl);
    return code;
}
