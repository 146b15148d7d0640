#!/usr/bin/env python3
"""Opens a file by llama.cpp and computes the beginning of a text with it. Runs in the peer's environment.

    peer_llama_divergence.py MODEL.gguf TEXT N REFERENCE.npy      N tokens; writes REFERENCE.npy (logits) if it is not there,
                                                                  else compares: prints {"kl", "types"}, types by tensor
"""
import json
import os
import sys

import llama_cpp
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf_file  # noqa: E402


def compute_logits(path, text, n):
    model = llama_cpp.Llama(path, n_ctx=n, logits_all=True, verbose=False, n_threads=len(os.sched_getaffinity(0)))
    tokens = model.tokenize(text, add_bos=False)[:n]
    model.eval(tokens)
    return np.array(model.scores[:len(tokens)])


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def divergence(reference, logits):
    """Mean over the tokens; a few of them at a time."""
    sums = []
    for first in range(0, len(logits), 64):
        p, q = (log_probabilities(part[first:first + 64]) for part in (reference, logits))
        sums.append((np.exp(p) * (p - q)).sum(axis=1))
    return float(np.concatenate(sums).mean())


def main():
    path, text, n, reference = sys.argv[1:]
    with open(text, "rb") as file:
        logits = compute_logits(path, file.read(), int(n))
    if not np.isfinite(logits).all():
        sys.exit(f"{path}: logits that are not finite")
    types = {name: kind for name, (kind, _, _) in gguf_file.File(path).tensors.items()}
    if not os.path.exists(reference):
        np.save(reference, logits)
    print(json.dumps({"kl": divergence(np.load(reference, mmap_mode="r"), logits), "types": types}))


if __name__ == "__main__":
    main()
