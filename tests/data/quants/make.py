#!/usr/bin/env python3
"""Writes the fixtures of test_quants.c with the independent decoder of the Python package gguf.

    python3 make.py        (needs the packages gguf and numpy; writes *.bin beside itself)

Each TYPE.bin: u32 type, u32 block_values, u32 block_bytes, u32 n_blocks, the blocks, then n_blocks * block_values f32,
all little-endian. The blocks are random bytes with random f16 scales; the first ones have extreme bytes and scales.
f16.bin: all 65536 half floats as f32. half.bin: u32 n, n f32 values, n u16 their halves."""
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

HERE = pathlib.Path(__file__).parent
# type: offsets of f16 scales in a block
SCALES = {T.F32: [], T.F16: [], T.BF16: [], T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.Q2_K: [80, 82], T.Q3_K: [108]}
# ... of types that came later, and are made last, so that the others' random bytes stay
LATER = {T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: []}
EXTREME = [0.0, -0.0, 65504.0, -65504.0, 2.0 ** -24, -(2.0 ** -24), 1.0, -1.0]
rng = np.random.default_rng(20250801)


def finite_f32(n):
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-30, 30, n)).astype(np.float32)


def blocks_of(kind, block_bytes):
    if kind == T.F32:
        return finite_f32(64).view(np.uint8).reshape(-1, 4)
    if kind == T.F16:
        return (finite_f32(64) * 0 + rng.standard_normal(64).astype(np.float32)).astype(np.float16).view(
            np.uint8).reshape(-1, 2)
    if kind == T.BF16:
        return (finite_f32(64).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(-1, 2)
    n = 24
    blocks = rng.integers(0, 256, (n, block_bytes), dtype=np.uint8)
    for i, value in enumerate([0x00, 0xff, 0x80, 0x7f, 0x55, 0xaa, 0x0f, 0xf0]):
        blocks[i, :] = value
    if kind == T.MXFP4:  # the exponent: its ends, and about where the largest values overflow
        blocks[:12, 0] = [0, 1, 2, 3, 126, 127, 128, 129, 251, 252, 253, 255]
        blocks[12:, 0] = rng.integers(0, 256, n - 12)
    for at in (SCALES | LATER)[kind]:
        for i in range(n):
            scale = EXTREME[(i + at // 2) % 8] if i < 16 else rng.standard_normal() * 0.01
            blocks[i, at:at + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks


def write(kind):
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = blocks_of(kind, block_bytes)
    values = dequantize(blocks.reshape(-1), kind) if kind != T.F32 else blocks.reshape(-1).view(np.float32)
    values = np.asarray(values, np.float32).reshape(-1)
    assert values.size == len(blocks) * block_values
    head = struct.pack("<4I", kind.value, block_values, block_bytes, len(blocks))
    (HERE / f"{kind.name}.bin").write_bytes(head + blocks.tobytes() + values.tobytes())

for kind in SCALES:
    write(kind)

halves = np.arange(65536, dtype=np.uint16).view(np.float16)
(HERE / "f16.bin").write_bytes(halves.astype(np.float32).tobytes())

# Every half, the points half way between neighbours, and their neighbours in f32; then random bit patterns.
grid = np.sort(np.unique(halves[np.isfinite(halves)].astype(np.float32)))
middle = ((grid[1:].astype(np.float64) + grid[:-1]) / 2).astype(np.float32)
middle = middle[::17]
special = np.array([0.0, -0.0, np.inf, -np.inf, 65504, 65519.99, 65520, -65520, 65536, 1e30, 2.0 ** -25, 2.0 ** -25 * 1.0001,
                    2.0 ** -26, 1e-40, 2.0 ** -14, 2.0 ** -14 * (1 - 2.0 ** -12)], np.float32)
bits = rng.integers(0, 2 ** 32, 4000, dtype=np.uint64).astype(np.uint32).view(np.float32)
bits = bits[~np.isnan(bits)]
values = np.concatenate([special, middle, np.nextafter(middle, np.float32(np.inf)),
                         np.nextafter(middle, np.float32(-np.inf)), bits]).astype(np.float32)
with np.errstate(over="ignore"):
    rounded = values.astype(np.float16)
(HERE / "half.bin").write_bytes(struct.pack("<I", values.size) + values.tobytes() + rounded.tobytes())

for kind in LATER:
    write(kind)
