#!/usr/bin/env python3
"""How far logits are from the exact reference: the measure of docs/accuracy.md. Runs in the peers' environment (numpy).

    divergence.py REFERENCE.json FILE.f32 ...      logits of the reference's passages in their order, as `runnel logits`
                                                   writes them; prints {"kl", "top1"}
"""
import json
import sys

import numpy as np


class Divergence:
    """Adds up the KL divergence over the reference's 32 likeliest tokens and one bucket for the rest."""

    def __init__(self, reference_path):
        with open(reference_path, encoding="utf-8") as file:
            self.passages = list(json.load(file)["passages"].values())
        self.kl, self.n_agreeing = [], 0

    def add(self, passage, logits):
        """Takes the logits [tokens][vocabulary] after each token of a passage; the first position is left out."""
        ids, log_p = np.array(passage["top_ids"])[1:], np.array(passage["top_logprobs"], np.float64)[1:]
        logits = np.asarray(logits, np.float32)[1:].astype(np.float64)
        largest = logits.max(axis=1, keepdims=True)
        normalizer = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
        log_q = np.take_along_axis(logits, ids, axis=1) - normalizer
        p_rest = np.maximum(1 - np.exp(log_p).sum(axis=1), 1e-9)
        q_rest = np.maximum(1 - np.exp(log_q).sum(axis=1), 1e-9)
        self.kl.extend((np.exp(log_p) * (log_p - log_q)).sum(axis=1) + p_rest * np.log(p_rest / q_rest))
        self.n_agreeing += int((logits.argmax(axis=1) == ids[:, 0]).sum())

    def result(self):
        return {"kl": float(np.mean(self.kl)), "top1": self.n_agreeing / len(self.kl)}


def main():
    divergence = Divergence(sys.argv[1])
    for passage, path in zip(divergence.passages, sys.argv[2:], strict=True):
        divergence.add(passage, np.fromfile(path, "<f4").reshape(len(passage["ids"]), -1))
    print(json.dumps(divergence.result()))


if __name__ == "__main__":
    main()
