/* source.h: where a model comes from: the address of a file, at a hub or anywhere. Hubs are Hugging Face (hf:) and ModelScope
 * (ms:), or what the environment names in their place. Owns nothing; any thread that leaves the environment alone. */
#ifndef RUNNEL_CLI_SOURCE_H
#define RUNNEL_CLI_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

#include "runnel.h"

/* Is it an address (http, https) or a file at a hub, and not the name of a model? */
bool source_is_address(const char *text);

/* The address of a source: that of a file at a hub, or the address that it is. The page of Hugging Face that shows a file
 * becomes the file. */
int source_url(const char *source, char *url, size_t size, runnel_error *error);

/* HF_TOKEN if url is one of Hugging Face's (or its mirror's), else NULL: nobody else is to see it. */
const char *source_token(const char *url);

#endif
