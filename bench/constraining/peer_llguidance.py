#!/usr/bin/env python3
"""llguidance as a peer of `runnel constrain`: runs in its own environment, and answers in the same form.

    peer_llguidance.py MODEL.gguf       lines {"schema": TEXT, "ids": [[...], ...]} in, those of `runnel constrain` out

The tokenizer is that of the file: llguidance asks it how forced text is cut. A mask is made before every token, into one buffer, then the token is taken; its time is that of
the mask alone, as Runnel's is. What llguidance advises for JSON is used: its slices of the vocabulary for strings.
"""
import json
import os
import sys
import tempfile
import time

import llguidance
import numpy
from llguidance import LLMatcher, LLTokenizer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from constraining import vocabulary  # noqa: E402 (the path comes first)


def follow(matcher, ids, bitmask):
    address, size, mask_us = bitmask.ctypes.data, bitmask.nbytes, []
    for token in ids:
        began = time.perf_counter_ns()
        matcher.unsafe_compute_mask_ptr(address, size)
        mask_us.append((time.perf_counter_ns() - began) / 1e3)
        if not int(bitmask[token // 32]) >> token % 32 & 1 or not matcher.consume_token(token):
            return {"accepted": False, "tokens": len(ids), "mask_us": mask_us}
    found = {"accepted": matcher.is_accepting(), "tokens": len(ids), "mask_us": mask_us}
    return found | ({"error": matcher.get_error()} if matcher.is_error() else {})


def answer(tokenizer, question, bitmask):
    began = time.perf_counter_ns()
    try:
        grammar = LLMatcher.grammar_from_json_schema(question["schema"])
    except ValueError as error:  # a schema that is no object
        return {"error": str(error), "compile_ms": (time.perf_counter_ns() - began) / 1e6, "results": []}
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    compile_ms = (time.perf_counter_ns() - began) / 1e6
    if matcher.is_error():
        return {"error": matcher.get_error(), "compile_ms": compile_ms, "results": []}
    results = []
    for ids in question["ids"]:
        if matcher.is_error() or not matcher.reset():
            matcher = LLMatcher(tokenizer, grammar, log_level=0)
        results.append(follow(matcher, ids, bitmask))
    return {"error": None, "compile_ms": compile_ms, "results": results}


def main():
    text, n_tokens, end = vocabulary.tokenizer_json(sys.argv[1])
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        tokenizer = LLTokenizer(file.name, n_vocab=n_tokens, eos_token=end, slices=LLTokenizer.json_slices())
    bitmask = numpy.zeros((tokenizer.vocab_size + 31) // 32, dtype=numpy.int32)
    print(json.dumps({"vocabulary": tokenizer.vocab_size, "version": llguidance.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(tokenizer, json.loads(line), bitmask)), flush=True)


if __name__ == "__main__":
    main()
