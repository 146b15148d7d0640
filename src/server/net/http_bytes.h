/* http_bytes.h: which byte may stand where in HTTP (RFC 9110, 5.5 and 5.6). Any thread. */
#ifndef RUNNEL_SERVER_NET_HTTP_BYTES_H
#define RUNNEL_SERVER_NET_HTTP_BYTES_H

#include <stdbool.h>
#include <string.h>

static inline bool http_is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static inline bool http_is_letter(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* What methods and header names are made of (RFC 9110, 5.6.2). */
static inline bool http_is_token_byte(char byte)
{
    return http_is_digit(byte) || http_is_letter(byte) || (byte && strchr("!#$%&'*+-.^_`|~", byte));
}

/* What header values are made of: all but control bytes, and the tab. */
static inline bool http_is_value_byte(char byte)
{
    return (unsigned char)byte >= 0x20 ? byte != 0x7f : byte == '\t';
}

static inline int http_hex_value(char byte)
{
    if (http_is_digit(byte))
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

#endif
