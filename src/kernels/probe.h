/* probe.h: how fast this machine reads memory and multiplies bytes: the limits that `bench` shows beside each
 * figure. Measured on all members of a team, each the median of some rounds that take about a fifth of a second
 * together. One caller at a time. */
#ifndef RUNNEL_KERNELS_PROBE_H
#define RUNNEL_KERNELS_PROBE_H

#include "kernels/ops.h"
#include "kernels/team.h"

/* 10^9 bytes a second that all members together read from a region far larger than the caches, each its own
 * stretch. */
int probe_read_gb_s(struct team *team, double *gb_s, runnel_error *error);

/* 10^9 multiply-adds a second of 8-bit integers in registers, with the instructions that kernels use. */
double probe_int8_gmac_s(struct team *team, const struct kernels *kernels);

#endif
