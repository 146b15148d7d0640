/* conversation_file.c: a conversation as a file of JSON. */
#include "base/error.h"
#include "cli/conversation.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writing ------------------------------------------------------------------------------------------------- */

static json_t *to_json(const struct conversation *conversation)
{
    json_t *list = json_array();
    for (size_t i = 0; i < conversation->n; i++) {
        const runnel_message *message = &conversation->messages[i];
        if (json_array_append_new(list, json_pack("{s:s, s:s%}", "role", message->role, "content",
                                                  message->content, message->content_len))) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:o}", "messages", list);
}

static bool write_to(int descriptor, const json_t *object)
{
    FILE *file = fdopen(descriptor, "w");
    if (!file) {
        close(descriptor);
        return false;
    }
    bool written = !json_dumpf(object, file, JSON_INDENT(2)) && fputc('\n', file) != EOF;
    return !fclose(file) && written;
}

/* Whether path may be written: it is free, or holds a conversation. */
static int check_place(const char *path, runnel_error *error)
{
    struct stat status;
    struct conversation there = {0};
    runnel_error reason;
    if (lstat(path, &status))
        return RUNNEL_OK;
    if (S_ISDIR(status.st_mode))
        return error_set(error, RUNNEL_EINVAL, "%s: expected the name of a file, found a directory", path);
    if (access(path, R_OK)) /* whether it holds a conversation cannot be told */
        return error_set(error, RUNNEL_EIO, "%s: is there and cannot be read, so it is left as it is: %s",
                         path, strerror(errno));
    if (conversation_load(&there, path, &reason))
        return error_set(
            error, RUNNEL_EINVAL,
            "%s: expected a free name or a conversation, found another file, which is left as it is", path);
    conversation_free(&there);
    return RUNNEL_OK;
}

static bool is_missing(const char *folder, size_t len)
{
    struct stat status;
    char *path = strndup(folder, len ? len : 1); /* the folder of "/x" is "/" */
    bool missing = path && stat(path, &status) && errno == ENOENT;
    free(path);
    return missing;
}

/* A folder that is missing is named, because "No such file" would be said of a file that was to be made. */
static int fail_writing(const char *path, int reason, runnel_error *error)
{
    const char *slash = strrchr(path, '/');
    if (reason == ENOENT && slash && is_missing(path, (size_t)(slash - path)))
        return error_set(error, RUNNEL_EIO, "%s: cannot be written: expected the folder %.*s, found none",
                         path, (int)(slash - path), path);
    return error_set(error, RUNNEL_EIO, "%s: cannot be written: %s", path, strerror(reason));
}

/* Written beside it and then renamed: a full disk does not cost the file that was there. */
int conversation_save(const struct conversation *conversation, const char *path, runnel_error *error)
{
    char beside[PATH_MAX];
    int failure = check_place(path, error);
    if (failure)
        return failure;
    if (snprintf(beside, sizeof beside, "%s.XXXXXX", path) >= (int)sizeof beside)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a shorter name", path);
    json_t *object = to_json(conversation);
    if (!object)
        return error_set(error, RUNNEL_EINVAL, "%s: expected messages in UTF-8, found one that is not", path);
    int descriptor = mkstemp(beside); /* with mode 0600 */
    bool written = descriptor >= 0 && write_to(descriptor, object) && !rename(beside, path);
    int reason = errno;
    json_decref(object);
    if (written)
        return RUNNEL_OK;
    if (descriptor >= 0)
        unlink(beside);
    return fail_writing(path, reason, error);
}

/* Reading ------------------------------------------------------------------------------------------------- */

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null"};
    return value ? names[json_typeof(value)] : "nothing";
}

/* The roles that may stand at place i: a system prompt at the beginning, then questions and answers in turn. */
static const char *read_role(const struct conversation *read, const json_t *role)
{
    const char *text = json_string_value(role);
    if (!text)
        return NULL;
    if (!read->n && (!strcmp(text, "system") || !strcmp(text, "developer")))
        return "system";
    const char *expected = (read->n - read->has_system) % 2 ? "assistant" : "user";
    return strcmp(text, expected) ? NULL : expected;
}

static int read_message(struct conversation *read, const json_t *message, bool is_last, const char *path,
                        runnel_error *error)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    const char *known = read_role(read, role), *text = json_string_value(content);
    if (!json_is_object(message))
        return error_set(error, RUNNEL_EFORMAT, "%s: message %zu: expected an object, found %s", path,
                         read->n + 1, type_name(message));
    if (!known)
        return error_set(error, RUNNEL_EFORMAT, "%s: message %zu: expected the role %s, found %s%.40s%s",
                         path, read->n + 1,
                         !read->n                                ? "system or user"
                         : (read->n - read->has_system) % 2 == 0 ? "user"
                                                                 : "assistant",
                         json_is_string(role) ? "'" : "",
                         json_is_string(role) ? json_string_value(role) : type_name(role),
                         json_is_string(role) ? "'" : "");
    if (!text)
        return error_set(error, RUNNEL_EFORMAT, "%s: message %zu: expected a text as its content, found %s",
                         path, read->n + 1, type_name(content));
    bool is_empty_answer = !strcmp(known, "assistant") && !json_string_length(content);
    if (is_empty_answer && !is_last)
        return error_set(
            error, RUNNEL_EFORMAT,
            "%s: message %zu: expected an answer, found an empty one; only the last may be empty", path,
            read->n + 1);
    if (is_empty_answer) /* its question is one without an answer: the model never sees an empty one */
        return RUNNEL_OK;
    if (!conversation_add(read, known, text, json_string_length(content)))
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory for its messages", path);
    read->has_system |= !strcmp(known, "system");
    return RUNNEL_OK;
}

static int load_json(const char *path, json_t **object, runnel_error *error)
{
    struct stat status;
    json_error_t where;
    if (stat(path, &status))
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_set(error, RUNNEL_EIO, "%s: expected a file, found %s", path,
                         S_ISDIR(status.st_mode) ? "a directory" : "something else");
    FILE *file = fopen(path, "r");
    if (!file)
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(errno));
    *object = json_loadf(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    fclose(file);
    if (!*object)
        return error_set(error, RUNNEL_EFORMAT, "%s: expected a conversation as JSON; line %d: %.200s", path,
                         where.line, where.text);
    return RUNNEL_OK;
}

int conversation_load(struct conversation *conversation, const char *path, runnel_error *error)
{
    json_t *object = NULL;
    struct conversation read = {0};
    int failure = load_json(path, &object, error);
    if (failure)
        return failure;
    const json_t *list = json_is_object(object) ? json_object_get(object, "messages") : object;
    if (!json_is_array(list))
        failure = error_set(error, RUNNEL_EFORMAT, "%s: expected a list of messages, found %s", path,
                            type_name(list));
    size_t n = json_array_size(list);
    for (size_t i = 0; !failure && i < n; i++)
        failure = read_message(&read, json_array_get(list, i), i + 1 == n, path, error);
    json_decref(object);
    if (failure) {
        conversation_free(&read);
        return failure;
    }
    conversation_free(conversation);
    *conversation = read;
    return RUNNEL_OK;
}
