#!/usr/bin/env python3
"""Quantises by llama.cpp: the library function that llama-quantize calls. Runs in the peer's environment.

    peer_llama_quantize.py IN.gguf OUT.gguf TYPE [--imatrix FILE] [--threads N]      prints {"seconds", "cpu_seconds"}
"""
import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf_file  # noqa: E402

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15,
              "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32}


def read_importance(path):
    """Name -> mean squares, as llama-quantize reads them."""
    file = gguf_file.File(path)
    found = {}
    for name in file.tensors:
        if name.endswith(".in_sum2"):
            stem = name[:-len(".in_sum2")]
            sums, counts = file.values(name), file.values(stem + ".counts")
            sums = sums.reshape(len(counts), -1)
            found[stem] = np.ascontiguousarray(np.where(counts[:, None] > 0, sums / np.maximum(counts[:, None], 1), 1), np.float32)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("type", choices=FILE_TYPES)
    parser.add_argument("--imatrix")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    callback = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(callback, None)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = FILE_TYPES[options.type], options.threads
    if options.imatrix:
        importance = read_importance(options.imatrix)
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items()):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        parameters.imatrix = ctypes.cast(entries, type(parameters.imatrix))
    before, used = time.perf_counter(), time.process_time()
    code = llama_cpp.llama_model_quantize(options.source.encode(), options.output.encode(), ctypes.byref(parameters))
    if code:
        sys.exit(f"llama_model_quantize: {code}")
    print(json.dumps({"seconds": time.perf_counter() - before, "cpu_seconds": time.process_time() - used}))


if __name__ == "__main__":
    main()
