/* page.c: the page's files, and the rules that a browser shall keep with them. See page.h. */
#include "server/page.h"

#include "server/core/server.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Scripts, styles and data come from this server only, none of them stands in the HTML, and no other site shows the page
 * in a frame. A text becomes HTML only through the policy of DOMPurify (web/markdown.js). */
static const char rules[] =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Permissions-Policy: camera=(), geolocation=(), microphone=()\r\n";

const struct page_file *page_find(struct exchange_text path)
{
    for (size_t i = 0; i < n_page_files; i++)
        if (exchange_text_is(path, page_files[i].path))
            return &page_files[i];
    return NULL;
}

/* Calls matches for each member of a list between commas, without the blanks around it, until it says yes. */
static bool any_member(struct exchange_text list, const char *wanted,
                       bool (*matches)(const char *member, size_t len, const char *wanted))
{
    size_t at = 0;
    while (at < list.len) {
        size_t begin = at, end;
        while (at < list.len && list.bytes[at] != ',')
            at++;
        end = at++;
        while (begin < end && (list.bytes[begin] == ' ' || list.bytes[begin] == '\t'))
            begin++;
        while (begin < end && (list.bytes[end - 1] == ' ' || list.bytes[end - 1] == '\t'))
            end--;
        if (matches(list.bytes + begin, end - begin, wanted))
            return true;
    }
    return false;
}

/* "gzip" or "gzip;q=0.5", not "gzip;q=0". */
static bool is_coding(const char *member, size_t len, const char *wanted)
{
    size_t at = strlen(wanted);
    if (len < at || strncasecmp(member, wanted, at) || (len > at && member[at] != ';' && member[at] != ' '))
        return false;
    while (at < len && member[at] != '=')
        at++;
    if (at == len)
        return true;
    while (at < len && (member[at] < '1' || member[at] > '9'))
        at++;
    return at < len;
}

/* Compared weakly, as If-None-Match wants it; "*" is any. */
static bool is_etag(const char *member, size_t len, const char *wanted)
{
    if (len == 1 && *member == '*')
        return true;
    if (len > 2 && !memcmp(member, "W/", 2))
        member += 2, len -= 2;
    return len == strlen(wanted) && !memcmp(member, wanted, len);
}

void page_get(struct server *server, struct exchange *exchange)
{
    const struct page_file *file = page_find(exchange_path(exchange));
    bool packed = any_member(exchange_header(exchange, "Accept-Encoding", NULL), "gzip", is_coding);
    bool is_known = any_member(exchange_header(exchange, "If-None-Match", NULL), file->etag, is_etag);
    char headers[sizeof rules + 256];
    /* no-cache: kept, and asked about each time, so that a page never mixes the files of two versions. */
    snprintf(headers, sizeof headers,
             "%sETag: %s%s\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n%s", rules, "W/",
             file->etag, packed && !is_known ? "Content-Encoding: gzip\r\n" : "");
    metrics_add_status(server->metrics, is_known ? 304 : 200);
    if (is_known)
        exchange_respond(exchange, 304, NULL, headers, "", 0);
    else if (packed)
        exchange_respond(exchange, 200, file->content_type, headers, file->packed,
                         (size_t)(file->packed_end - file->packed));
    else
        exchange_respond(exchange, 200, file->content_type, headers, file->bytes,
                         (size_t)(file->end - file->bytes));
}
