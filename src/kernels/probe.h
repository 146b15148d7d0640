/* probe.h: how fast this machine reads memory and multiplies bytes: the limits that `bench` shows beside each
 * figure. Measured on all members of a team, each the median of some rounds that take about a quarter of a second
 * together. One caller at a time. */
#ifndef RUNNEL_KERNELS_PROBE_H
#define RUNNEL_KERNELS_PROBE_H

#include "kernels/neighbour.h"
#include "kernels/ops.h"
#include "kernels/team.h"

enum { PROBE_ROUNDS = 7 };

/* 10^9 bytes a second that all members together read from a region far larger than the caches, each its own
 * stretch. */
int probe_read_gb_s(struct team *team, double *gb_s, runnel_error *error);

/* 10^9 multiply-adds a second of 8-bit integers in registers, by the unit that kernels multiply with (its int8_unit). rounds: what
 * neighbour_judge wants to know; a member alone takes its turn. */
double probe_int8_gmac_s(struct team *team, const struct kernels *kernels,
                         struct neighbour_round rounds[PROBE_ROUNDS]);

#endif
