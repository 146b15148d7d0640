#!/usr/bin/env python3
"""llama.cpp's logits after each token, through llama-cpp-python's ctypes functions. Runs in the peers' environment.

    peer_logits.py MODEL IDS.json OUT [MODEL IDS.json OUT ...]     little-endian F32 [tokens, vocabulary], as `runnel logits` writes

With keys and values in F32: by default they are rounded to F16.
"""
import json
import sys

import llama_cpp
import numpy as np

F32 = 0  # a type of ggml


def logits(path, ids):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = F32
    params.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, params)
    assert context, "llama.cpp cannot make a context"
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0, "llama_decode failed"
    found = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), shape=(len(ids), n_vocab)).astype("<f4")
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def say_nothing(_level, _text, _user):
    pass


def main():
    callback = llama_cpp.llama_log_callback(say_nothing)
    llama_cpp.llama_log_set(callback, None)
    arguments = sys.argv[1:]
    for model, ids, out in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        with open(ids, encoding="utf-8") as file:
            found = logits(model, json.load(file))
        found.tofile(out)


if __name__ == "__main__":
    main()
