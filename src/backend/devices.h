/* devices.h: the devices besides the CPU that layers can be computed on: which there are, which of them is meant, and one that is
 * open. A struct backend_device is the engine's that opened it, and its thread's; back ends on it are closed before it.
 *
 * Looking for devices loads their drivers, which may start threads and do not work in a process that was forked afterwards: so it is
 * done where a device is about to be used. */
#ifndef RUNNEL_BACKEND_DEVICES_H
#define RUNNEL_BACKEND_DEVICES_H

#include "base/error.h"
#include "gpu/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend_device;

enum { BACKEND_DEVICES_MAX = 16, BACKEND_DEVICE_ID_BYTES = 8 };

/* The devices in the order of their ids: gpu0, gpu1 ... Those with memory of their own come first, the CPU in disguise last. */
struct backend_devices {
    uint32_t n;
    struct gpu_info infos[BACKEND_DEVICES_MAX];
    runnel_error problem; /* of a driver that does not work; code RUNNEL_OK: there is none */
};

void backend_devices_find(struct backend_devices *devices);
/* Puts them into that order. */
void backend_devices_sort(struct backend_devices *devices);
/* Returns id. */
const char *backend_device_id(uint32_t index, char id[BACKEND_DEVICE_ID_BYTES]);
/* Why what is computed there would not be the CPU's bits, and layers are computed only where that is allowed; false: it would. */
bool backend_device_problem(const struct gpu_info *info, char *why, size_t size);

/* Which of them is meant: "gpu" the first one that can be used, "auto" likewise but no CPU in disguise; else one by its id, its name, or a part of
 * that which no other name has, in small or capital letters. "auto" may mean none: *index is n then. Whatever else is not there
 * is RUNNEL_EINVAL, with what there is and what may have been meant. approximates: other bits than the CPU's will do. */
int backend_devices_choose(const struct backend_devices *devices, const char *wish, bool approximates,
                           uint32_t *index, runnel_error *error);

/* "auto": without a device all goes on, and with one that has no room or does not work. */
bool backend_device_is_optional(const char *wish);

/* Looks for the device that is meant and opens it. "auto" may mean none: *device is NULL then. */
int backend_device_open(const char *wish, bool approximates, struct backend_device **device,
                        runnel_error *error);
void backend_device_close(struct backend_device *device); /* NULL is fine */

struct gpu *backend_device_gpu(const struct backend_device *device);
const char *backend_device_name(const struct backend_device *device);

/* Back ends tell what they have taken (n_bytes), and given back (-n_bytes). */
void backend_device_count(struct backend_device *device, int64_t n_bytes);
/* How much a back end may take: what is free now, less what the driver needs for itself; of a device whose memory is the machine's no more
 * than this process may use. Where the driver does not say what is free, it is the whole memory, of which others may have a part. */
uint64_t backend_device_free_bytes(const struct backend_device *device);

/* How fast the device reads its memory: copies there, in memory that is taken for it. */
int backend_device_measure(struct backend_device *device, double *gb_s, runnel_error *error);

struct backend_device_state {
    const char *name; /* lives as long as the device, as problem does */
    /* Of a driver that is installed and does not work, where the device is only the CPU in disguise; else "". */
    const char *problem;
    uint64_t memory_bytes,
        used_bytes; /* its own; what is used of it, by anybody where the driver says, else by back ends */
    bool is_lost;   /* whatever is asked of it fails */
};
/* Asks the driver for how much is free once a second at most. */
void backend_device_look(struct backend_device *device, struct backend_device_state *state);

#endif
