/* int8_peak.h: what the measurements of a unit's speed share (the int8_peak of each level): many sums that do not wait for each
 * other. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_INT8_PEAK_H
#define RUNNEL_KERNELS_X86_INT8_PEAK_H

enum { INT8_CHAINS = 12 }; /* independent sums: enough to hide any latency */

/* Written out, because sums in an indexed array would live in memory. */
#define FOR_EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

#endif
