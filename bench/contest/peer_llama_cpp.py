#!/usr/bin/env python3
"""llama.cpp, through llama-cpp-python's ctypes functions. Runs in the peers' environment; prints one JSON object.

    peer_llama_cpp.py MODEL --threads 2 --tokens 48 --works prefill:512,decode:0,batch:8 [--reference FILE] [--no-repack]
                      [--flash] [--gpu]

What counts is what `runnel bench` counts: prefill from an empty cache with the head for the last token only, decode from
the depth in tokens, a batch of N sequences with different prompts of 32 tokens, all including the choice of the likeliest
token. Works of a few tokens are repeated; the median is reported. --gpu: all layers on the first card.
"""
import argparse
import ctypes
import json
import statistics
import time

import llama_cpp
import numpy as np

from divergence import Divergence

BATCH_PROMPT = 32
ALL_LAYERS = 9999


class Llama:
    """A model with a context for each kind of work."""

    def __init__(self, path, threads, repack, flash, is_on_gpu):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = ALL_LAYERS if is_on_gpu else 0
        if is_on_gpu:
            params.split_mode, params.main_gpu = llama_cpp.LLAMA_SPLIT_MODE_NONE, 0
        params.use_extra_bufts = repack
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.threads, self.flash = threads, flash
        self.context, self.n_prompts = None, 0

    def open_context(self, n_context, n_sequences=1):
        if self.context:
            llama_cpp.llama_free(self.context)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = n_context, n_sequences, True
        params.n_batch, params.n_ubatch = max(512, n_context), 512
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = 1 if self.flash else 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp cannot make a context"

    def prompt(self, n):
        """Ordinary tokens, others each time."""
        self.n_prompts += 1
        return [(self.n_prompts * 7919 + i * 131) % (self.n_vocab // 2) for i in range(n)]

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def decode(self, rows):
        """Computes rows (token, position, sequence, wants logits)."""
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wants) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wants
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        assert llama_cpp.llama_decode(self.context, batch) == 0, "llama_decode failed"
        llama_cpp.llama_batch_free(batch)

    def logits(self, n_rows):
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=(n_rows, self.n_vocab))

    def start(self, prompts):
        """Computes the prompts of all sequences, a step each; returns the likeliest next token of each."""
        tokens = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            self.decode([(token, i, sequence, i == last) for i, token in enumerate(prompt)])
            tokens.append(int(self.logits(1)[0].argmax()))
        return tokens

    def generate(self, tokens, depth, n):
        """Decodes n tokens of each sequence together."""
        for position in range(depth, depth + n):
            self.decode([(token, position, sequence, True) for sequence, token in enumerate(tokens)])
            tokens = [int(row.argmax()) for row in self.logits(len(tokens))]


def measure_prefill(llama, n):
    samples = []
    for _ in range(3 if n < 100 else 1):
        llama.clear()
        prompt = llama.prompt(n)
        start = time.perf_counter()
        llama.start([prompt])
        samples.append(n / (time.perf_counter() - start))
    return statistics.median(samples)


def measure_generate(llama, n_sequences, depth, n_tokens):
    """The rate of the prompts, and that of decoding behind them."""
    llama.clear()
    start = time.perf_counter()
    tokens = llama.start([llama.prompt(depth) for _ in range(n_sequences)])
    first = time.perf_counter()
    llama.generate(tokens, depth, n_tokens)
    return n_sequences * depth / (first - start), n_sequences * n_tokens / (time.perf_counter() - first)


def measure(llama, works, n_tokens):
    """Tokens a second of each work. A prompt that is decoded behind, too, is computed once for both."""
    report = {}
    for work in works:
        kind, number = work.split(":")
        number = int(number)
        if kind == "prefill" and f"decode:{number}" in works:
            continue
        n_sequences = number if kind == "batch" else 1
        depth = {"prefill": number, "decode": max(number, 1), "batch": BATCH_PROMPT}[kind]
        llama.open_context(n_sequences * (depth + n_tokens) + 64, n_sequences)
        llama.start([llama.prompt(4)])  # threads and pages are there now
        if kind == "prefill":
            report[work] = measure_prefill(llama, number)
            continue
        prefill, report[work] = measure_generate(llama, n_sequences, depth, n_tokens)
        if kind == "decode" and f"prefill:{number}" in works:
            report[f"prefill:{number}"] = prefill
    return report


def diverge(llama, reference):
    divergence = Divergence(reference)
    llama.open_context(1024)
    for passage in divergence.passages:
        llama.clear()
        llama.decode([(token, i, 0, True) for i, token in enumerate(passage["ids"])])
        divergence.add(passage, llama.logits(len(passage["ids"])))
    return divergence.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--works", default="")
    parser.add_argument("--reference")
    parser.add_argument("--no-repack", action="store_true")
    parser.add_argument("--flash", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    args = parser.parse_args()

    callback = llama_cpp.llama_log_callback(lambda _level, _text, _user: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    assert not args.gpu or llama_cpp.llama_supports_gpu_offload(), "llama.cpp finds no card"
    llama = Llama(args.model, args.threads, not args.no_repack, args.flash, args.gpu)
    report = measure(llama, args.works.split(","), args.tokens) if args.works else {}
    report["build"] = llama_cpp.llama_print_system_info().decode().strip(" |\n")
    if args.reference:
        report["divergence"] = diverge(llama, args.reference)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
