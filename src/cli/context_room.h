/* context_room.h: what a context that somebody asked for takes of this machine's memory, said before it is tried. */
#ifndef RUNNEL_CLI_CONTEXT_ROOM_H
#define RUNNEL_CLI_CONTEXT_ROOM_H

#include "runnel.h"

/* A context of asked tokens is more than the model was trained for: says so in out, with the memory that it would take.
 * False: it is not, and out is empty. */
bool context_room_cut(const runnel_model_info *info, uint32_t asked, char *out, size_t size);

/* A KV cache of so many bytes cannot be had on this machine, or within this process's limit: an error that says what
 * option asked for, and what there is. */
int context_room_check(const char *option, uint64_t value, uint64_t bytes, runnel_error *error);

/* Bytes in the unit that people read: "3.5 GiB", "224 MiB". Returns out. */
const char *context_room_size(uint64_t bytes, char out[24]);

#endif
