/* guard.c: from where a server may be asked. See guard.h. */
#include "server/limits/guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Lists --------------------------------------------------------------------------------------------------- */

/* Steps through the entries of all lists: *list and *at are 0 at first. */
static bool next_entry(const char *const *lists, size_t n, size_t *list, size_t *at,
                       struct exchange_text *entry)
{
    for (; *list < n; ++*list, *at = 0) {
        const char *bytes = lists[*list] + *at;
        bytes += strspn(bytes, ", ");
        size_t len = strcspn(bytes, ", ");
        if (len) {
            *entry = (struct exchange_text){bytes, len};
            *at = (size_t)(bytes - lists[*list]) + len;
            return true;
        }
    }
    return false;
}

static bool is_same(struct exchange_text a, struct exchange_text b)
{
    return a.len == b.len && !strncasecmp(a.bytes, b.bytes, a.len);
}

static bool is_word(struct exchange_text text, const char *word)
{
    return is_same(text, (struct exchange_text){word, strlen(word)});
}

static bool begins_with(struct exchange_text text, const char *word)
{
    return text.len >= strlen(word) && !strncasecmp(text.bytes, word, strlen(word));
}

static bool ends_in(struct exchange_text text, struct exchange_text end)
{
    return text.len > end.len && !strncasecmp(text.bytes + text.len - end.len, end.bytes, end.len);
}

static int check_entries(const char *option, const char *const *lists, size_t n, bool is_origin,
                         runnel_error *error)
{
    struct exchange_text entry;
    size_t list = 0, at = 0;
    while (next_entry(lists, n, &list, &at, &entry)) {
        bool good = is_word(entry, "*");
        if (is_origin) {
            const char *host = memmem(entry.bytes, entry.len, "://", 3);
            good |= is_word(entry, "null") ||
                    (host && host + 3 < entry.bytes + entry.len &&
                     !memchr(host + 3, '/', (size_t)(entry.bytes + entry.len - host - 3)));
        } else {
            good |= !memchr(entry.bytes, '/', entry.len) &&
                    (*entry.bytes == '[' || !memchr(entry.bytes, ':', entry.len));
        }
        for (size_t i = 0; i < entry.len; i++)
            good &= entry.bytes[i] > ' ' && entry.bytes[i] <= '~';
        if (!good || entry.len > GUARD_ORIGIN_BYTES_MAX)
            return error_set(error, RUNNEL_EINVAL, "%s: expected %s, found '%.*s'", option,
                             is_origin ? "an origin like https://app.example, without a path, or *"
                                       : "a host name without a port, *.name, or *",
                             entry.len > 80 ? 80 : (int)entry.len, entry.bytes);
    }
    return RUNNEL_OK;
}

int guard_check_options(const struct guard_options *options, runnel_error *error)
{
    int failure =
        check_entries("--allowed-host", options->allowed_hosts, options->n_allowed_hosts, false, error);
    if (!failure)
        failure = check_entries("--cors-origin", options->cors_origins, options->n_cors_origins, true, error);
    return failure;
}

/* Host ---------------------------------------------------------------------------------------------------- */

/* The name without its port: "a.example", "[::1]". */
static struct exchange_text cut_port(struct exchange_text host)
{
    const char *end = NULL;
    if (host.len && *host.bytes == '[') {
        end = memchr(host.bytes, ']', host.len);
        end = end ? end + 1 : NULL;
    } else if (host.len) {
        end = memchr(host.bytes, ':', host.len);
    }
    return end ? (struct exchange_text){host.bytes, (size_t)(end - host.bytes)} : host;
}

static bool is_loopback_name(struct exchange_text name)
{
    static const struct exchange_text below_localhost = {".localhost", 10};
    char text[64];
    struct in_addr v4;
    struct in6_addr v6;
    if (is_word(name, "localhost") || ends_in(name, below_localhost))
        return true;
    bool in_brackets = name.len > 2 && *name.bytes == '[' && name.bytes[name.len - 1] == ']';
    struct exchange_text address = in_brackets ? (struct exchange_text){name.bytes + 1, name.len - 2} : name;
    if (address.len >= sizeof text)
        return false;
    if (address.len)
        memcpy(text, address.bytes, address.len);
    text[address.len] = 0;
    if (in_brackets)
        return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static bool matches_host(struct exchange_text name, struct exchange_text entry)
{
    if (is_word(entry, "*"))
        return true;
    if (begins_with(entry, "*."))
        return ends_in(name, (struct exchange_text){entry.bytes + 1, entry.len - 1});
    return is_same(name, entry);
}

bool guard_host_is_ours(const struct guard_options *options, struct exchange_text host)
{
    struct exchange_text name = cut_port(host), entry;
    size_t list = 0, at = 0;
    if (!options->is_loopback && !options->n_allowed_hosts)
        return true;
    if (is_loopback_name(name))
        return true;
    if (options->host && is_word(name, options->host))
        return true;
    while (next_entry(options->allowed_hosts, options->n_allowed_hosts, &list, &at, &entry))
        if (matches_host(name, entry))
            return true;
    return false;
}

/* Origin -------------------------------------------------------------------------------------------------- */

enum guard_origin guard_judge_origin(const struct guard_options *options, struct exchange_text origin,
                                     struct exchange_text host, struct exchange_text *entry)
{
    size_t list = 0, at = 0;
    size_t scheme = begins_with(origin, "http://") ? 7 : begins_with(origin, "https://") ? 8 : 0;
    if (scheme && is_same((struct exchange_text){origin.bytes + scheme, origin.len - scheme}, host))
        return GUARD_SAME_ORIGIN;
    while (next_entry(options->cors_origins, options->n_cors_origins, &list, &at, entry))
        if (is_word(*entry, "*") || is_same(*entry, origin))
            return GUARD_CORS_ORIGIN;
    return GUARD_FOREIGN_ORIGIN;
}

static int refuse(struct exchange *exchange, const char *message)
{
    exchange_respond_error(exchange, 403, NULL, message);
    return 403;
}

/* Answers what a browser asks before it sends what a page wants. The names of headers are ours, not the client's. */
static int answer_preflight(struct exchange *exchange)
{
    exchange_respond(exchange, 200, NULL,
                     "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"
                     "Access-Control-Allow-Headers: Authorization, Content-Type, X-Api-Key, *\r\n"
                     "Access-Control-Max-Age: 600\r\n",
                     "", 0);
    return 200;
}

int guard_admit(const struct guard_options *options, struct exchange *exchange)
{
    unsigned n_origins;
    struct exchange_text host = exchange_host(exchange), entry;
    struct exchange_text origin = exchange_header(exchange, "Origin", &n_origins);
    bool has_host =
        host.len || exchange_header(exchange, "Host", NULL).bytes; /* HTTP/1.0 has none: no browser */
    if (has_host && !guard_host_is_ours(options, host))
        return refuse(exchange, "the Host header names another machine; --allowed-host allows a name");
    if (options->n_cors_origins) /* an answer to one page is none for another */
        exchange_add_header(exchange, "Vary: Origin\r\n");
    if (!n_origins)
        return 0;
    enum guard_origin judgement =
        n_origins > 1 ? GUARD_FOREIGN_ORIGIN : guard_judge_origin(options, origin, host, &entry);
    if (judgement == GUARD_FOREIGN_ORIGIN)
        return refuse(exchange, "a page of another origin asks; --cors-origin allows one");
    if (judgement == GUARD_SAME_ORIGIN)
        return 0;
    char lines[GUARD_ORIGIN_BYTES_MAX + 96];
    snprintf(lines, sizeof lines, "Access-Control-Allow-Origin: %.*s\r\nAccess-Control-Expose-Headers: *\r\n",
             (int)entry.len, entry.bytes);
    exchange_add_header(exchange, lines);
    if (exchange_text_is(exchange_method(exchange), "OPTIONS") &&
        exchange_header(exchange, "Access-Control-Request-Method", NULL).bytes)
        return answer_preflight(exchange);
    return 0;
}

/* Keys ---------------------------------------------------------------------------------------------------- */

/* "Authorization: Bearer KEY", or "X-Api-Key: KEY". */
static struct exchange_text find_key(const struct exchange *exchange)
{
    unsigned n;
    struct exchange_text value = exchange_header(exchange, "Authorization", &n);
    if (n == 1 && begins_with(value, "Bearer ")) {
        value.bytes += 7;
        value.len -= 7;
        while (value.len && *value.bytes == ' ') {
            value.bytes++;
            value.len--;
        }
        return value;
    }
    value = exchange_header(exchange, "X-Api-Key", &n);
    return n == 1 ? value : (struct exchange_text){0};
}

bool guard_shows_key(const struct exchange *exchange)
{
    unsigned n_values, n_keys;
    struct exchange_text value = exchange_header(exchange, "Authorization", &n_values);
    struct exchange_text key = exchange_header(exchange, "X-Api-Key", &n_keys);
    return n_values > 1 || n_keys > 1 || key.len || (value.len && !is_word(value, "Bearer"));
}

bool guard_shows_one_of(const struct keys *keys, const struct exchange *exchange)
{
    struct exchange_text key = find_key(exchange);
    return key.len && keys_find(keys, key.bytes, key.len);
}

bool guard_has_key(const struct keys *keys, struct exchange *exchange)
{
    if (!keys_count(keys))
        return true;
    struct exchange_text key = find_key(exchange);
    uint32_t id = key.len ? keys_find(keys, key.bytes, key.len) : 0;
    exchange_set_key(exchange, id);
    return id > 0;
}
