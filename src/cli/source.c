/* source.c: see source.h. */
#include "cli/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

/* A place that keeps models in repositories: PREFIX:OWNER/REPOSITORY/FILE is a file there. */
struct hub {
    const char *prefix;
    const char *variable; /* environment: another place that answers likewise, with or without https:// */
    const char *endpoint; /* where it is without */
    const char *before, *branch; /* ENDPOINT BEFORE/OWNER/REPOSITORY/resolve/BRANCH/FILE */
};

static const struct hub hubs[] = {
    {"hf:", "HF_ENDPOINT", "https://huggingface.co", "", "main"},
    {"ms:", "MODELSCOPE_DOMAIN", "https://modelscope.cn", "/models", "master"},
};
enum { HUGGING_FACE, MODEL_SCOPE, N_HUBS };

/* Where a hub is, without a slash at its end. */
static int hub_endpoint(const struct hub *hub, char *endpoint, size_t size)
{
    const char *asked = getenv(hub->variable);
    bool is_asked = asked && *asked;
    int len = snprintf(endpoint, size, "%s%s", is_asked && !strstr(asked, "://") ? "https://" : "",
                       is_asked ? asked : hub->endpoint);
    while (len > 0 && (size_t)len < size && endpoint[len - 1] == '/')
        endpoint[--len] = 0;
    return len;
}

/* The hub that a source names by its prefix; NULL: it is an address. */
static const struct hub *hub_of(const char *source)
{
    for (size_t i = 0; i < N_HUBS; i++)
        if (strncmp(source, hubs[i].prefix, strlen(hubs[i].prefix)) == 0)
            return &hubs[i];
    return NULL;
}

bool source_is_address(const char *text)
{
    return strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0 || hub_of(text);
}

int source_url(const char *source, char *url, size_t size, runnel_error *error)
{
    char endpoint[1024];
    const struct hub *hub = hub_of(source);
    int len;
    if (hub) {
        const char *owner = source + strlen(hub->prefix);
        const char *owner_end = strchr(owner, '/');
        const char *repository_end = owner_end ? strchr(owner_end + 1, '/') : NULL;
        if (!repository_end)
            return error_set(error, RUNNEL_EINVAL, "'%s': expected %sOWNER/REPOSITORY/FILE", source,
                             hub->prefix);
        if (hub_endpoint(hub, endpoint, sizeof endpoint) >= (int)sizeof endpoint)
            return error_set(error, RUNNEL_EINVAL, "%s is longer than %zu bytes", hub->variable,
                             sizeof endpoint - 1);
        len = snprintf(url, size, "%s%s/%.*s/resolve/%s%s", endpoint, hub->before,
                       (int)(repository_end - owner), owner, hub->branch, repository_end);
    } else {
        const char *blob = strstr(source, "//huggingface.co/") ? strstr(source, "/blob/") : NULL;
        if (blob)
            len =
                snprintf(url, size, "%.*s/resolve/%s", (int)(blob - source), source, blob + strlen("/blob/"));
        else
            len = snprintf(url, size, "%s", source);
    }
    if (len < 0 || (size_t)len >= size)
        return error_set(error, RUNNEL_EINVAL, "the address is longer than %zu bytes", size - 1);
    return RUNNEL_OK;
}

const char *source_token(const char *url)
{
    char endpoint[1024];
    size_t len = (size_t)hub_endpoint(&hubs[HUGGING_FACE], endpoint, sizeof endpoint);
    return len < sizeof endpoint && strncmp(url, endpoint, len) == 0 && url[len] == '/' ? getenv("HF_TOKEN")
                                                                                        : NULL;
}
