/* ctl.c: `runnel ctl`: orders to a server that runs, through its admin routes (server/admin.h), until they are carried out. One
 * thread; owns its connection. */
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "base/text.h"
#include "cli/cli.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY_BYTES = 257, WAIT_MS = 100, PATIENCE_S = 60 /* without an answer */ };

struct settings {
    const char *order, *number, *url, *key, *key_file;
    float timeout_s;
};

static const struct option_spec specs[] = {
    {"ORDER", 0, OPTION_STRING, NULL, "status, workers or reload", OPTION_FIELD(struct settings, order),
     .positional = true, .required = true},
    {"N", 0, OPTION_STRING, NULL, "of workers: how many there shall be",
     OPTION_FIELD(struct settings, number), .positional = true},
    {"url", 0, OPTION_STRING, "URL", "where the server listens", OPTION_FIELD(struct settings, url),
     .default_text = "http://127.0.0.1:8080"},
    {"admin-key", 0, OPTION_STRING, "KEY", "one of the server's --admin-key or --admin-key-file",
     OPTION_FIELD(struct settings, key)},
    {"admin-key-file", 0, OPTION_STRING, "FILE", "likewise, its first line",
     OPTION_FIELD(struct settings, key_file), .excludes = "admin-key"},
    {"timeout-s", 0, OPTION_FLOAT, "S", "how long to wait until it is done",
     OPTION_FIELD(struct settings, timeout_s), .minimum = 0.1, .maximum = 86400, .default_text = "600"},
};

const struct options_table ctl_table = {"runnel ctl",
                                        "Tells a running server how many workers it shall have (workers N), "
                                        "or to read its options and model once more (reload), "
                                        "and waits until that is done; or shows how it is (status).",
                                        specs, OPTION_COUNT(specs)};

struct connection {
    const struct settings *settings;
    CURL *curl;
    struct curl_slist *headers;
    bool shows_no_admin; /* the latest answer: the key is none of the admin's */
    struct text answer;
    char problem[CURL_ERROR_SIZE];
};

/* How the server is, as it says. */
struct state {
    int n_wanted, n_ready, n_starting, n_draining;
    json_int_t order,
        answered; /* the number of the order that is asked for; the same once it is carried out or refused, */
    bool has_failed; /* and what came of it */
    char message[512];
};

static int read_key_file(const char *path, char key[KEY_BYTES], runnel_error *error)
{
    char *text;
    size_t len;
    int failure = cli_read_file(path, &text, &len, error);
    if (failure)
        return failure;
    const char *at = text;
    while (*at == '#' || *at == '\n' || *at == '\r') /* remarks and blank lines, as the server has them */
        at += *at == '#' ? strcspn(at, "\n") : 1;
    size_t n = strcspn(at, "\r\n");
    bool fits = n && n < KEY_BYTES;
    if (fits) {
        memcpy(key, at, n);
        key[n] = 0;
    }
    free(text);
    return fits ? RUNNEL_OK
                : error_set(error, RUNNEL_EINVAL, "%s: expected a key of 1 to %d bytes in its first line",
                            path, KEY_BYTES - 1);
}

static int read_key(const struct settings *settings, char key[KEY_BYTES], runnel_error *error)
{
    if (settings->key_file)
        return read_key_file(settings->key_file, key, error);
    if (!*settings->key || strlen(settings->key) >= KEY_BYTES || strpbrk(settings->key, "\r\n"))
        return error_set(error, RUNNEL_EINVAL, "--admin-key: expected a key of 1 to %d bytes", KEY_BYTES - 1);
    snprintf(key, KEY_BYTES, "%s", settings->key);
    return RUNNEL_OK;
}

static size_t take_answer(char *bytes, size_t size, size_t n, void *user)
{
    struct text *answer = user;
    text_add(answer, bytes, size * n);
    return answer->failed || answer->len > 65536 ? 0 : size * n;
}

static int connect_to(struct connection *connection, runnel_error *error)
{
    char key[KEY_BYTES], header[KEY_BYTES + 32];
    int failure = read_key(connection->settings, key, error);
    if (failure)
        return failure;
    snprintf(header, sizeof header, "Authorization: Bearer %s", key);
    connection->curl = curl_easy_init();
    connection->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (!connection->curl || !connection->headers || !curl_slist_append(connection->headers, header))
        return error_set(error, RUNNEL_ENOMEM, "no memory for a connection");
    curl_easy_setopt(connection->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(connection->curl, CURLOPT_PROXY,
                     ""); /* whatever the environment says: it would be shown the key */
    curl_easy_setopt(connection->curl, CURLOPT_TIMEOUT, (long)PATIENCE_S);
    curl_easy_setopt(connection->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(connection->curl, CURLOPT_FORBID_REUSE,
                     1L); /* the worker that answers may be the one that goes */
    curl_easy_setopt(connection->curl, CURLOPT_HTTPHEADER, connection->headers);
    curl_easy_setopt(connection->curl, CURLOPT_ERRORBUFFER, connection->problem);
    curl_easy_setopt(connection->curl, CURLOPT_WRITEFUNCTION, take_answer);
    curl_easy_setopt(connection->curl, CURLOPT_WRITEDATA, &connection->answer);
    return RUNNEL_OK;
}

/* Does the answer ask for the admin's key? Otherwise somebody answers who takes no orders: nobody else is ready. */
static bool asks_for_admin(const struct connection *connection)
{
    struct curl_header *header;
    return !curl_easy_header(connection->curl, "WWW-Authenticate", 0, CURLH_HEADER, -1, &header) &&
           !strcmp(header->value, "Bearer realm=\"admin\"");
}

static int fail_status(struct connection *connection, long status, runnel_error *error)
{
    const char *url = connection->settings->url;
    json_t *root = json_loadb(connection->answer.bytes, connection->answer.len, 0, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(root, "error"), "message"));
    connection->shows_no_admin = status == 401 && asks_for_admin(connection);
    if (status == 404)
        error_set(error, RUNNEL_EUNSUPPORTED,
                  "%s: the server takes no orders: it was started without --admin-key or --admin-key-file",
                  url);
    else
        error_set(error, RUNNEL_EIO, "%s: %ld: %s", url, status, message ? message : "no reason is given");
    json_decref(root);
    return error->code;
}

static int read_state(const struct connection *connection, struct state *state, runnel_error *error)
{
    json_t *root = json_loadb(connection->answer.bytes, connection->answer.len, 0, NULL), *workers = NULL;
    const char *message = NULL;
    int failed;
    int problem = json_unpack(root, "{s:o, s:I, s:I, s:b, s:s}", "workers", &workers, "order", &state->order,
                              "answered", &state->answered, "failed", &failed, "message", &message);
    if (!problem)
        problem =
            json_unpack(workers, "{s:i, s:i, s:i, s:i}", "wanted", &state->n_wanted, "ready", &state->n_ready,
                        "starting", &state->n_starting, "draining", &state->n_draining);
    if (!problem) {
        state->has_failed = failed;
        snprintf(state->message, sizeof state->message, "%s", message);
    }
    json_decref(root);
    return problem ? error_set(error, RUNNEL_EFORMAT,
                               "%s: expected the state of a Runnel server, found another answer",
                               connection->settings->url)
                   : RUNNEL_OK;
}

/* body: of a POST; NULL: GET. */
static int ask(struct connection *connection, const char *path, const char *body, struct state *state,
               runnel_error *error)
{
    char url[1024];
    long status = 0;
    const char *base = connection->settings->url;
    size_t len = strlen(base);
    while (len && base[len - 1] == '/')
        len--;
    if (snprintf(url, sizeof url, "%.*s%s", (int)len, base, path) >= (int)sizeof url)
        return error_set(error, RUNNEL_EINVAL, "--url: expected at most %zu bytes", sizeof url - 64);
    connection->answer.len = 0;
    connection->shows_no_admin = false;
    curl_easy_setopt(connection->curl, CURLOPT_URL, url);
    if (body)
        curl_easy_setopt(connection->curl, CURLOPT_POSTFIELDS, body);
    else
        curl_easy_setopt(connection->curl, CURLOPT_HTTPGET, 1L);
    CURLcode code = curl_easy_perform(connection->curl);
    if (code != CURLE_OK)
        return error_set(error, RUNNEL_EIO, "%s: %s", base,
                         *connection->problem ? connection->problem : curl_easy_strerror(code));
    curl_easy_getinfo(connection->curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 200 ? read_state(connection, state, error) : fail_status(connection, status, error);
}

/* Until the order with this number is carried out, or refused. */
static int wait_for_end(struct connection *connection, json_int_t number, struct state *state,
                        runnel_error *error)
{
    static const struct timespec pause = {.tv_nsec = WAIT_MS * 1000000};
    double until_ms = clock_ms() + (double)connection->settings->timeout_s * 1e3;
    char path[64];
    snprintf(path, sizeof path, "/admin/status?order=%lld", (long long)number);
    while (state->answered != number) {
        if (clock_ms() > until_ms)
            return error_set(error, RUNNEL_ETIMEOUT, "%s: it is still under way after %g s (--timeout-s)",
                             connection->settings->url, (double)connection->settings->timeout_s);
        nanosleep(&pause, NULL);
        int failure = ask(connection, path, NULL, state, error);
        if (failure)
            return failure;
    }
    return RUNNEL_OK;
}

static int tell_end(const struct state *state, runnel_error *error)
{
    if (state->has_failed)
        return error_set(error, RUNNEL_EBUSY, "%s", state->message);
    printf("%s\n", state->message);
    return RUNNEL_OK;
}

static int order_workers(struct connection *connection, runnel_error *error)
{
    struct state state = {0};
    char body[64];
    snprintf(body, sizeof body, "{\"workers\":%s}", connection->settings->number);
    int failure = ask(connection, "/admin/workers", body, &state, error);
    if (!failure)
        failure = wait_for_end(connection, state.order, &state, error);
    return failure ? failure : tell_end(&state, error);
}

/* Keys are read at once: one that was the admin's and is it no more says that this is done. */
static int order_reload(struct connection *connection, runnel_error *error)
{
    struct state state = {0};
    int failure = ask(connection, "/admin/reload", "{}", &state, error);
    if (failure)
        return failure;
    failure = wait_for_end(connection, state.order, &state, error);
    if (failure && connection->shows_no_admin) {
        printf("Keys and limits are read: the key that was shown is none of the admin's any more; "
               "runnel ctl status with another one tells what came of the model\n");
        return RUNNEL_OK;
    }
    return failure ? failure : tell_end(&state, error);
}

static int show_status(struct connection *connection, runnel_error *error)
{
    struct state state = {0};
    int failure = ask(connection, "/admin/status", NULL, &state, error);
    if (failure)
        return failure;
    printf("%d worker%s wanted, %d ready, %d starting, %d draining\n", state.n_wanted,
           state.n_wanted == 1 ? "" : "s", state.n_ready, state.n_starting, state.n_draining);
    if (*state.message)
        printf("%s\n", state.message);
    return RUNNEL_OK;
}

static int obey(struct connection *connection, runnel_error *error)
{
    const struct settings *settings = connection->settings;
    int failure = connect_to(connection, error);
    if (failure)
        return failure;
    if (!strcmp(settings->order, "status"))
        return show_status(connection, error);
    if (!strcmp(settings->order, "reload"))
        return order_reload(connection, error);
    return order_workers(connection, error);
}

/* What the table of options cannot say. */
static const char *check_order(const struct settings *settings)
{
    bool is_workers = !strcmp(settings->order, "workers");
    if (!is_workers && strcmp(settings->order, "status") && strcmp(settings->order, "reload"))
        return "expected status, workers N or reload";
    if (!is_workers && settings->number)
        return "only workers has a number";
    if (is_workers && (!settings->number || !*settings->number || strlen(settings->number) > 9 ||
                       settings->number[strspn(settings->number, "0123456789")] || *settings->number == '0'))
        return "workers: expected how many, a whole number from 1 on";
    if (!settings->key && !settings->key_file)
        return "expected --admin-key or --admin-key-file";
    return NULL;
}

int command_ctl(int argc, char **argv)
{
    struct settings settings;
    runnel_error error;
    int status = cli_read_options(&ctl_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    const char *wrong = check_order(&settings);
    if (wrong) {
        fprintf(stderr, "runnel ctl: %s\n", wrong);
        return EXIT_USAGE;
    }
    struct connection connection = {.settings = &settings};
    int failure = obey(&connection, &error);
    curl_slist_free_all(connection.headers);
    curl_easy_cleanup(connection.curl);
    text_free(&connection.answer);
    return failure ? cli_fail(&error) : EXIT_DONE;
}
