#!/usr/bin/env python3
"""Takes a decoded model off the grid of its codes: each value gets uniform noise of half a step of its block.

    add_noise.py MODEL.gguf DECODED.gguf OUT.gguf SEED      DECODED is MODEL in F32
"""
import os
import shutil
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf_file  # noqa: E402

CHUNK = 1 << 16  # blocks


def main():
    model, decoded_path, output, seed = sys.argv[1:]
    shutil.copyfile(decoded_path, output)
    of_codes, decoded = gguf_file.File(model), gguf_file.File(decoded_path)
    dice = np.random.default_rng(int(seed))
    with open(output, "r+b") as file:
        for name in decoded.tensors:
            found = of_codes.steps(name)
            if found is None:
                continue
            steps, n_values = found
            values, (at, _) = decoded.values(name), decoded.where(name)
            file.seek(at)
            for first in range(0, len(steps), CHUNK):
                part = steps[first:first + CHUNK]
                old = values[first * n_values:(first + len(part)) * n_values].reshape(-1, n_values)
                noise = dice.uniform(-0.5, 0.5, old.shape).astype(np.float32)
                file.write((old + noise * part[:, None]).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
