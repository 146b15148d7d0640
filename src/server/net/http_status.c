/* http_status.c: the words and the error types of status codes. Owns nothing; any thread. */
#include "server/net/http.h"

#include <stdio.h>

/* Every status that the server answers with. */
static const struct {
    int status;
    const char *words, *type;
} STATUSES[] = {
    {100, "Continue", ""},
    {200, "OK", ""},
    {204, "No Content", ""},
    {304, "Not Modified", ""},
    {400, "Bad Request", "invalid_request_error"},
    {401, "Unauthorized", "authentication_error"},
    {403, "Forbidden", "permission_error"},
    {404, "Not Found", "not_found_error"},
    {405, "Method Not Allowed", "invalid_request_error"},
    {408, "Request Timeout", "invalid_request_error"},
    {411, "Length Required", "invalid_request_error"},
    {413, "Content Too Large", "invalid_request_error"},
    {414, "URI Too Long", "invalid_request_error"},
    {415, "Unsupported Media Type", "invalid_request_error"},
    {417, "Expectation Failed", "invalid_request_error"},
    {429, "Too Many Requests", "rate_limit_error"},
    {431, "Request Header Fields Too Large", "invalid_request_error"},
    {500, "Internal Server Error", "server_error"},
    {501, "Not Implemented", "invalid_request_error"},
    {503, "Service Unavailable", "unavailable_error"},
    {504, "Gateway Timeout", "server_error"},
    {505, "HTTP Version Not Supported", "invalid_request_error"},
};

const char *http_status_words(int status)
{
    for (size_t i = 0; i < sizeof STATUSES / sizeof STATUSES[0]; i++)
        if (STATUSES[i].status == status)
            return STATUSES[i].words;
    return "Unknown";
}

const char *http_error_type(int status)
{
    for (size_t i = 0; i < sizeof STATUSES / sizeof STATUSES[0]; i++)
        if (STATUSES[i].status == status)
            return STATUSES[i].type;
    return "server_error";
}

size_t http_error_body(char out[HTTP_ERROR_BODY_BYTES], int status, const char *message)
{
    return (size_t)snprintf(out, HTTP_ERROR_BODY_BYTES,
                            "{\"error\":{\"message\":\"%.300s\",\"type\":\"%s\",\"param\":null,\"code\":%d}}",
                            message, http_error_type(status), status);
}
