#!/usr/bin/env python3
"""Which types llama.cpp gives the matrices of a model: the lines of mixes.txt, which test_mixes.c compares with Runnel's rules.

    make_mixes.py MODEL.gguf... > mixes.txt        in an environment with llama-cpp-python 0.3.36 (that of bench/compare)

llama-quantize's function is asked for a dry run, which says what it would do. A line: the model, its layers, query heads per
head of keys and values, whether the embedding is the output, too, the mix, whether importance is known, the matrix
(`blk.*` where each layer has one), its width, and the type in each layer, `Q6_K*3` for three of them.
"""
import ctypes
import os
import re
import sys

import llama_cpp

FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17,
              "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}
TENSOR = re.compile(r"^\[ *\d+/ *\d+\] (\S+) +- \[ *(\d+), *(\d+), *\d+, *\d+\], type = +(\w+),(?:.*\((\w+)\))?", re.MULTILINE)
KEY = re.compile(r"\.(block_count|head_count|head_count_kv) u32 += (\d+)")
log = []


@llama_cpp.llama_log_callback
def keep_log(_, text, __):
    log.append(text.decode(errors="replace"))


def parameters_of(mix, widths):
    """Of a dry run; with widths, importance is known of these matrices: ones."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.dry_run, parameters.allow_requantize = FILE_TYPES[mix], 1, True, True
    if widths:
        entries = (llama_cpp.llama_model_imatrix_data * (len(widths) + 1))()
        for entry, (name, n) in zip(entries, widths.items()):
            entry.name, entry.size = name.encode(), n
            entry.data = ctypes.cast((ctypes.c_float * n)(*[1] * n), ctypes.POINTER(ctypes.c_float))
        parameters.imatrix = ctypes.cast(entries, type(parameters.imatrix))
    return parameters


def dry_run(path, mix, widths):
    """The log's rows of matrices, (name, width, type), and the keys that rules ask for."""
    log.clear()
    parameters = parameters_of(mix, widths)
    code = llama_cpp.llama_model_quantize(path.encode(), b"/dev/null", ctypes.byref(parameters))
    if code:
        sys.exit(f"{path}: llama_model_quantize: {code}")
    return read_log("".join(log))


def read_log(text):
    rows = [(name, int(width), (new or old).upper()) for name, width, n, old, new in TENSOR.findall(text) if n != "1"]
    return rows, {name: int(value) for name, value in KEY.findall(text)}


def print_lines(model, mix, has_importance, rows, keys):
    runs = {}  # (matrix, width): [[type, how often], ...], in the order of the layers
    for name, width, kind in sorted(rows, key=lambda row: int((re.match(r"blk\.(\d+)\.", row[0]) or [0, 0])[1])):
        of_matrix = runs.setdefault((re.sub(r"^blk\.\d+\.", "blk.*.", name), width), [])
        if of_matrix and of_matrix[-1][0] == kind:
            of_matrix[-1][1] += 1
        else:
            of_matrix.append([kind, 1])
    shared = keys["head_count"] // keys["head_count_kv"]
    tied = all(name != "output.weight" for name, _, _ in rows)
    for (matrix, width), of_matrix in sorted(runs.items()):
        print(model, keys["block_count"], shared, int(tied), mix, int(has_importance), matrix, width,
              ",".join(f"{kind}*{n}" for kind, n in of_matrix))


def main():
    llama_cpp.llama_log_set(keep_log, None)
    for path in sys.argv[1:]:
        for mix in FILE_TYPES:
            rows, keys = dry_run(path, mix, None)
            print_lines(os.path.basename(path).removesuffix(".gguf"), mix, False, rows, keys)
            rows, keys = dry_run(path, mix, {name: width for name, width, _ in rows})
            print_lines(os.path.basename(path).removesuffix(".gguf"), mix, True, rows, keys)


if __name__ == "__main__":
    main()
