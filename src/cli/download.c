/* download.c: resumable downloads with libcurl. One thread; a transfer owns its handle, its file and its
 * lock.
 *
 * A try that finds part of the file asks for the rest (Range) if that is still the same file (If-Range). 206
 * goes on, 200 means that the server starts at the beginning, 416 that there is nothing behind what is there:
 * start again. */
#include "cli/download.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

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
    uint64_t begin;       /* bytes that were there, and are gone on from */
    uint64_t done;        /* bytes that are there */
    struct origin noted;  /* of what was there; begin 0: none */
    struct origin origin; /* of what is coming */
    uint64_t range_start; /* of Content-Range */
    bool has_range;
    char head
        [BEGINNING_SHOWN_BYTES]; /* the first bytes of the body; not yet in the file while `began` is false */
    size_t n_head;
    bool began;           /* is it known that this is the file that was asked for? */
    bool changed;         /* what was there is of another file: to be got from its beginning */
    bool stopped;         /* on_progress said so */
    runnel_error failure; /* why a callback ended the transfer; code 0: it did not */
};

/* Companion file ------------------------------------------------------------------------------------------ */

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
    part_note_path(path, name, sizeof name);
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

static int origin_write(struct part *part, const struct origin *origin, runnel_error *error)
{
    char text[sizeof *origin + 64];
    snprintf(text, sizeof text, "%s\n%s\n%s\n%llu\n", origin->url, origin->etag, origin->sha256,
             (unsigned long long)origin->n_bytes);
    return part_note(part, text, error);
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

/* May two accounts be of the same file? */
static bool is_same_file(const struct origin *one, const struct origin *other)
{
    return (!one->n_bytes || !other->n_bytes || one->n_bytes == other->n_bytes) &&
           (!*one->etag || !*other->etag || strcmp(one->etag, other->etag) == 0) &&
           (!*one->sha256 || !*other->sha256 || strcmp(one->sha256, other->sha256) == 0);
}

/* The rest of a file: of the one that is there, from where it ends? */
static int check_rest(struct transfer *transfer)
{
    const char *url = transfer->download->url;
    if (!transfer->has_range || transfer->range_start != transfer->begin)
        return error_set(&transfer->failure, RUNNEL_EIO,
                         "%s: asked for the bytes from %llu on, the server sent others", url,
                         (unsigned long long)transfer->begin);
    if (!is_same_file(&transfer->noted, &transfer->origin)) {
        transfer->changed = true;
        return error_set(&transfer->failure, RUNNEL_EIO, "%s: the file there is another than before", url);
    }
    if (!*transfer->origin.sha256)
        memcpy(transfer->origin.sha256, transfer->noted.sha256, sizeof transfer->noted.sha256);
    return RUNNEL_OK;
}

/* A whole file: is it one, and not the page that a network shows instead? */
static int check_whole(struct transfer *transfer)
{
    curl_off_t length = -1;
    curl_easy_getinfo(transfer->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    transfer->origin.n_bytes = length > 0 ? (uint64_t)length : 0;
    if (beginning_check(transfer->download->beginning, transfer->head, transfer->n_head,
                        &transfer->failure) == RUNNEL_OK)
        return RUNNEL_OK;
    transfer->failure.code = RUNNEL_EINVAL; /* the next try would get the same */
    return error_prefix(&transfer->failure, "%s", transfer->download->url);
}

static bool is_rest(const struct transfer *transfer)
{
    long status = 0;
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 206;
}

/* Before the first byte is taken: is it the file that was asked for, and where does it belong? Only when nothing
 * speaks against it is what was there given up. */
static int begin_body(struct transfer *transfer)
{
    const struct download *download = transfer->download;
    runnel_error *error = &transfer->failure;
    bool rest = is_rest(transfer);
    int code = rest ? check_rest(transfer) : check_whole(transfer);
    if (code)
        return code;
    if (download->n_bytes && transfer->origin.n_bytes && transfer->origin.n_bytes != download->n_bytes)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: expected a file of %llu bytes, the server has one of %llu", download->url,
                         (unsigned long long)download->n_bytes, (unsigned long long)transfer->origin.n_bytes);
    if (*download->sha256 && *transfer->origin.sha256 &&
        strcmp(download->sha256, transfer->origin.sha256) != 0)
        return error_set(error, RUNNEL_EINVAL, "%s: expected sha256 %s, the server announces %s",
                         download->url, download->sha256, transfer->origin.sha256);
    if (!rest) {
        transfer->begin = transfer->done = 0;
        code = part_cut(download->part, 0, error);
    }
    snprintf(transfer->origin.url, sizeof transfer->origin.url, "%s", download->url);
    return code ? code : origin_write(download->part, &transfer->origin, error);
}

static int take_bytes(struct transfer *transfer, const char *data, size_t len)
{
    int code = part_write(transfer->download->part, data, len, transfer->done, &transfer->failure);
    if (code == RUNNEL_OK)
        transfer->done += len;
    return code;
}

static size_t on_body(char *data, size_t one, size_t len, void *user)
{
    struct transfer *transfer = user;
    (void)one;
    if (!transfer->began) {
        size_t held = transfer->n_head, room = sizeof transfer->head - held, n = len < room ? len : room;
        memcpy(transfer->head + held, data, n);
        transfer->n_head += n;
        if (!is_rest(transfer) && transfer->n_head < BEGINNING_BYTES)
            return len; /* too few to judge by: all are in head */
        if (begin_body(transfer) || take_bytes(transfer, transfer->head, held))
            return 0; /* ends the transfer */
        transfer->began = true;
    }
    return take_bytes(transfer, data, len) ? 0 : len;
}

static int on_transfer(void *user, curl_off_t total, curl_off_t done, curl_off_t up_total, curl_off_t up_done)
{
    struct transfer *transfer = user;
    (void)total, (void)done, (void)up_total, (void)up_done;
    const struct download *download = transfer->download;
    uint64_t n_bytes = transfer->origin.n_bytes ? transfer->origin.n_bytes : transfer->noted.n_bytes;
    if (download->on_progress && !download->on_progress(download->user, transfer->done, n_bytes))
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
        const char *hint =
            status == 401 || status == 403 ? " (a closed repository of Hugging Face needs HF_TOKEN)" : "";
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

/* What is there of this file, by what stands beside it. */
static void find_begin(const struct download *download, struct transfer *transfer)
{
    struct stat status;
    struct origin origin;
    if (fstat(download->part->fd, &status) == 0 && status.st_size > 0 &&
        origin_read(download->part->path, &origin) && strcmp(origin.url, download->url) == 0) {
        transfer->begin = transfer->done = (uint64_t)status.st_size;
        transfer->noted = origin;
    }
}

/* What has become of the transfer. */
static int judge(struct transfer *transfer, CURLcode curl_code, const char *curl_error, runnel_error *error)
{
    const struct download *download = transfer->download;
    long status = 0;
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (transfer->stopped)
        return error_set(error, RUNNEL_ECANCELLED, "%s: stopped", download->url);
    if (transfer->failure.code)
        return error_set(error, transfer->failure.code, "%s", transfer->failure.message);
    if (curl_code == CURLE_HTTP_RETURNED_ERROR && status == 416 && transfer->begin > 0) {
        transfer->changed = true;
        return error_set(error, RUNNEL_EIO, "%s: nothing follows what is here", download->url);
    }
    if (curl_code != CURLE_OK)
        return request_error(transfer->curl, curl_code, download->url, curl_error, error);
    if (!transfer->began && begin_body(transfer)) /* an answer of less than the first few bytes */
        return error_set(error, transfer->failure.code, "%s", transfer->failure.message);
    if (transfer->origin.n_bytes && transfer->done != transfer->origin.n_bytes)
        return error_set(error, RUNNEL_EIO, "%s: expected %llu bytes, got %llu", download->url,
                         (unsigned long long)transfer->origin.n_bytes, (unsigned long long)transfer->done);
    return part_sync(download->part, error);
}

/* Asks for what is missing, once; afresh: for all of it. */
static int run_once(const struct download *download, bool afresh, struct download_result *result,
                    bool *changed, runnel_error *error)
{
    struct transfer transfer = {.download = download};
    char curl_error[CURL_ERROR_SIZE], range[32], if_range[300];
    struct curl_slist *headers = NULL;
    if (!afresh)
        find_begin(download, &transfer);
    if (transfer.begin > 0 && transfer.begin == transfer.noted.n_bytes) {
        /* an earlier run ended between the last byte and what follows */
        *result = (struct download_result){.n_bytes = transfer.begin, .resumed = true};
        memcpy(result->sha256, transfer.noted.sha256, sizeof result->sha256);
        return RUNNEL_OK;
    }
    transfer.curl = new_request(download->url, download->token, curl_error);
    if (!transfer.curl)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a request");
    if (transfer.begin > 0) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)transfer.begin);
        curl_easy_setopt(transfer.curl, CURLOPT_RANGE, range);
        if (*transfer.noted.etag) {
            snprintf(if_range, sizeof if_range, "If-Range: %s", transfer.noted.etag);
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
    int code = judge(&transfer, curl_code, curl_error, error);
    *changed = transfer.changed;
    *result = (struct download_result){.n_bytes = transfer.done, .resumed = transfer.begin > 0};
    memcpy(result->sha256, transfer.origin.sha256, sizeof result->sha256);
    curl_slist_free_all(headers);
    curl_easy_cleanup(transfer.curl);
    return code;
}

int download_run(const struct download *download, struct download_result *result, runnel_error *error)
{
    if (strlen(download->url) >= sizeof((struct origin *)0)->url)
        return error_set(error, RUNNEL_EINVAL, "the address is longer than %zu bytes",
                         sizeof((struct origin *)0)->url - 1);
    bool changed = false;
    int code = run_once(download, false, result, &changed, error);
    return changed ? run_once(download, true, result, &changed, error) : code;
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

int download_check(const char *url, const char *token, uint64_t *n_bytes, runnel_error *error)
{
    char curl_error[CURL_ERROR_SIZE];
    CURL *curl = new_request(url, token, curl_error);
    if (!curl)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a request");
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 3L * CONNECT_TIMEOUT_S);
    CURLcode curl_code = curl_easy_perform(curl);
    int code = curl_code == CURLE_OK ? RUNNEL_OK : request_error(curl, curl_code, url, curl_error, error);
    const char *type = NULL;
    if (code == RUNNEL_OK && curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type &&
        strncasecmp(type, "text/html", strlen("text/html")) == 0)
        code = error_set(error, RUNNEL_EINVAL,
                         "%s: expected a file, found an HTML page (of a network that wants a login, perhaps)",
                         url);
    curl_off_t length = 0;
    if (code == RUNNEL_OK) {
        curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        *n_bytes = length > 0 ? (uint64_t)length : 0;
    }
    curl_easy_cleanup(curl);
    return code;
}
