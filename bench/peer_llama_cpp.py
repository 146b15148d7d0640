#!/usr/bin/env python3
"""llama.cpp, through llama-cpp-python's ctypes functions: prefill and decode in tokens a second, as one JSON object.

    peer_llama_cpp.py MODEL --threads 2 --prefill 512 --decode 64 [--no-repack] [--flash]

As in `runnel bench`: prefill from an empty cache with the head for the last token only, decode from a depth of one token,
greedy; figures include taking the likeliest token. Prompts are ordinary tokens, another one each repetition.
"""
import argparse
import ctypes
import json
import statistics
import time

import llama_cpp
import numpy as np


def quiet(_level, _text, _user):
    pass


def open_model(path, repack):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = repack
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    return model


def open_context(model, threads, n_context, flash):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = n_context
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    if flash is not None:
        params.flash_attn_type = 1 if flash else 0
    context = llama_cpp.llama_init_from_model(model, params)
    assert context, "llama.cpp cannot make a context"
    return context


def decode(context, tokens):
    array = (llama_cpp.llama_token * len(tokens))(*tokens)
    batch = llama_cpp.llama_batch_get_one(array, len(tokens))
    assert llama_cpp.llama_decode(context, batch) == 0


def likeliest(context, n_vocab):
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    return int(np.argmax(np.ctypeslib.as_array(logits, shape=(n_vocab,))))


def measure(context, n_vocab, tokens, n_decode):
    """Seconds from an empty cache to the first token, and from it to the n_decode-th after it."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    start = time.perf_counter()
    decode(context, tokens)
    token = likeliest(context, n_vocab)
    first = time.perf_counter()
    for _ in range(n_decode):
        decode(context, [token])
        token = likeliest(context, n_vocab)
    return first - start, time.perf_counter() - first


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-repack", action="store_true")
    parser.add_argument("--flash", action="store_true", default=None)
    args = parser.parse_args()

    callback = llama_cpp.llama_log_callback(quiet)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = open_model(args.model, not args.no_repack)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    context = open_context(model, args.threads, args.prefill + args.decode + 8, args.flash)
    prefill, generated = [], []
    for repetition in range(args.repetitions):
        tokens = [(repetition * 7919 + i * 131) % (n_vocab // 2) for i in range(args.prefill)]
        prefill.append(args.prefill / measure(context, n_vocab, tokens, 0)[0])
        generated.append(args.decode / measure(context, n_vocab, tokens[:1], args.decode)[1])
    print(json.dumps({"prefill": statistics.median(prefill), "decode": statistics.median(generated)}))


if __name__ == "__main__":
    main()
