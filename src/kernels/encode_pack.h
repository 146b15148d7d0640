/* encode_pack.h: a block's bytes from its scales and codes, as quants.c describes them. Codes are unsigned: 0 is the lowest
 * value that the type has; in the order of the values. Scales and minimums of sub-blocks are whole numbers in floats. Private
 * to src/kernels; any thread. */
#ifndef RUNNEL_KERNELS_ENCODE_PACK_H
#define RUNNEL_KERNELS_ENCODE_PACK_H

#include <stdint.h>

void encode_pack_q8_0(uint8_t *block, float d, const uint8_t *codes); /* 0 is -127 */
void encode_pack_q4_0(uint8_t *block, float d, const uint8_t *codes);
void encode_pack_q5_0(uint8_t *block, float d, const uint8_t *codes);
void encode_pack_iq4_nl(uint8_t *block, float d, const uint8_t *codes);
void encode_pack_q4_1(uint8_t *block, float d, float m, const uint8_t *codes);
void encode_pack_q5_1(uint8_t *block, float d, float m, const uint8_t *codes);

void encode_pack_q2_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes);
void encode_pack_q4_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes);
void encode_pack_q5_k(uint8_t *block, float d, float dmin, const float *scales, const float *minimums,
                      const uint8_t *codes);
void encode_pack_q3_k(uint8_t *block, float d, const float *scales, const uint8_t *codes);
void encode_pack_q6_k(uint8_t *block, float d, const float *scales, const uint8_t *codes);
void encode_pack_iq4_xs(uint8_t *block, float d, const float *scales, const uint8_t *codes);

#endif
