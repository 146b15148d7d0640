"""Writes the first inputs of the fuzzers of Hugging Face's formats into tests/fuzz/corpus. Run with the environment of the tests:

    build/venv/bin/python tests/tools/make_formats_corpus.py
"""
import copy
import json
import struct
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "cli"))
from hf_folders import (LLAMA3, MERGES, QWEN35, SMOLLM_STEPS, SPM_WORDS, Shape, make_config, message, spm_json, spm_model,  # noqa: E402
                        split_steps, varint, write_raw_safetensors)

CORPUS = TESTS / "fuzz" / "corpus"


def put(fuzzer, name, content, first=None):
    """first: the byte in front that some fuzzers have."""
    if isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False).encode()
    (CORPUS / fuzzer).mkdir(parents=True, exist_ok=True)
    (CORPUS / fuzzer / name).write_bytes((b"" if first is None else bytes([first])) + content)


def entry(begin=0, end=8, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safetensors():
    whole = {"__metadata__": {"format": "pt"}, "a": entry(0, 4, "BF16"), "b": entry(4, 8, shape=[]), "c": entry(8, 8, "I64", [0, 3])}
    headers = {
        "whole": whole, "duplicate": b'{"a": {}, "a": {}}', "dtype": {"a": entry(dtype="F4")}, "no-dtype": {"a": {}},
        "no-shape": {"a": {"dtype": "F16"}}, "negative": {"a": entry(shape=[-1])}, "dims": {"a": entry(shape=[1] * 9)},
        "overflow": {"a": entry(shape=[2 ** 40, 2 ** 40])}, "length": {"a": entry(shape=[3])}, "descending": {"a": entry(8, 0)},
        "outside": {"a": entry(0, 16, shape=[4])}, "shared": {"a": entry(0, 4, shape=[1]), "b": entry(0, 8)},
        "gap": {"a": entry(4, 8, shape=[1])}, "rest": {"a": entry(0, 4, shape=[1])}, "name": {"": entry()},
        "array": b"[]", "deep": b'{"a":' + b"[" * 70}
    for name, header in headers.items():
        path = CORPUS / "fuzz_safetensors" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_raw_safetensors(path, header, bytes(8))
    put("fuzz_safetensors", "pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    put("fuzz_safetensors", "short", b"\x10\0")
    put("fuzz_safetensors", "long", struct.pack("<Q", 1 << 33))
    put("fuzz_safetensors", "cut", struct.pack("<Q", 100) + b"{}")


def configs():
    kinds = {name: make_config(Shape(name, layers=2, tied=name == "gemma3")) for name in ("qwen2", "qwen3", "llama", "gemma3")}
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq", "desc_act": False}
    awq = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True}
    llama3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
    yarn = {"rope_type": "yarn", "factor": 4, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": True}
    more = {
        "gptq": ("qwen2", {"quantization_config": gptq}), "awq": ("llama", {"quantization_config": awq}),
        "gptq-v2": ("qwen2", {"quantization_config": {**gptq, "checkpoint_format": "gptq_v2", "group_size": -1, "pack_dtype": "int32"}}),
        "marlin": ("qwen2", {"quantization_config": {**gptq, "is_marlin_format": True}}),
        "bits": ("qwen2", {"quantization_config": {**gptq, "bits": 8}}),
        "gemv": ("qwen2", {"quantization_config": {**awq, "version": "gemv"}}),
        "backend": ("qwen2", {"quantization_config": {**awq, "backend": "llm-awq"}}),
        "group": ("qwen2", {"quantization_config": {**awq, "group_size": 16}}),
        "method": ("qwen2", {"quantization_config": {"quant_method": "fp8"}}),
        "pack": ("qwen2", {"quantization_config": {**gptq, "pack_dtype": "int8"}}),
        "llama3": ("llama", {"rope_scaling": llama3}), "yarn": ("qwen3", {"rope_scaling": yarn}),
        "no-truncate": ("qwen3", {"rope_scaling": {**yarn, "truncate": False}}),
        "llama3-of-qwen": ("qwen2", {"rope_scaling": llama3}),
        "linear": ("qwen2", {"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}}),
        "llama3-turned": ("llama", {"rope_scaling": {**llama3, "high_freq_factor": 1}}),
        "llama3-short": ("llama", {"rope_scaling": {**llama3, "factor": None}}),
        "dynamic": ("qwen2", {"rope_scaling": {"type": "dynamic", "factor": 2}}), "partial": ("qwen2", {"partial_rotary_factor": 0.5}),
        "mrope": ("qwen2", {"rope_scaling": {"type": "default", "mrope_section": [1]}}), "mlp": ("llama", {"mlp_bias": True}),
        "gemma-new": ("gemma3", {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8},
        "sliding_attention": {"rope_theta": 1e4}},
                                 "layer_types": ["sliding_attention"] * 2}),
        "gemma-scaled": ("gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8}}}),
        "pattern": ("gemma3", {"sliding_window_pattern": 4}), "types": ("qwen2", {"layer_types": ["full_attention"]}),
        "soft": ("gemma3", {"final_logit_softcapping": 3.0}),
        "window": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}),
        "type-of": ("qwen2", {"layer_types": ["sliding_attention"] * 2}),
        "heads": ("qwen2", {"num_attention_heads": 3}), "width": ("qwen2", {"num_attention_heads": 6}),
        "odd": ("llama", {"head_dim": 15}), "act": ("llama", {"hidden_act": "gelu"}),
        "none": ("qwen2", {"architectures": None}), "nothing": ("qwen2", {"architectures": None, "model_type": None}),
        "other": ("qwen2", {"architectures": ["MambaModel"]}),
        "text": ("qwen2", {"hidden_size": "64"}), "real": ("qwen2", {"hidden_size": 1.5}),
        "missing": ("qwen2", {"hidden_size": None}), "zero": ("qwen2", {"rope_theta": 0}),
        "list": ("qwen2", {"rope_scaling": []}), "word": ("qwen2", {"tie_word_embeddings": "no"}),
        "name": ("qwen2", {"hidden_act": 5}), "nul": ("qwen2", {"hidden_act": "a\0"}),
        "object": ("qwen2", {"architectures": {}}), "number": ("qwen2", {"rope_theta": "1"})}
    for name, config in kinds.items():
        put("fuzz_hf_config", name, config, 0)
    for name, (kind, changes) in more.items():
        put("fuzz_hf_config", name, kinds[kind] | changes, 0)
    put("fuzz_hf_config", "beside-gptq", kinds["qwen2"] | {"bits": 4, "group_size": 32}, 3)
    put("fuzz_hf_config", "beside-awq", kinds["qwen2"] | {"w_bit": 4, "q_group_size": 32, "version": "GEMM"}, 1)
    put("fuzz_hf_config", "inner", {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": kinds["gemma3"]}, 0)
    for name, content in {"broken": b"{", "deep": b"[" * 70, "array": b"[]", "twice": b'{"a": 1, "a": "\\""}'}.items():
        put("fuzz_hf_config", name, content, 0)


def small_bpe():
    """Few enough tokens for the fuzzer's 64 rows."""
    vocab = {}
    for pair in MERGES:
        for text in (*pair, "".join(pair)):
            vocab.setdefault(text, len(vocab))
    return {"added_tokens": [{"id": 40, "content": "<|im_end|>", "special": True}, {"id": 41, "content": "<th▁ink>"}, {"id": 90,
        "content": "far"}],
            "normalizer": {"type": "NFC"}, "pre_tokenizer": split_steps(LLAMA3),
            "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab,
            "merges": [list(pair) for pair in MERGES[:5]] + [" ".join(pair) for pair in MERGES[5:]]}}


def small_spm():
    tokenizer = spm_json(prefix=True)
    words = {word: 4 + i for i, word in enumerate(SPM_WORDS)}
    tokenizer["model"]["vocab"] = {text: id for id, text in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])} | words | {"<0x0A>": 40}
    tokenizer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return tokenizer


def tokenizers():
    fuzzer = "fuzz_hf_tokenizer"

    def changed(of, **changes):
        tokenizer = copy.deepcopy(of)
        for key, value in changes.items():
            if key in ("pre_tokenizer", "normalizer", "added_tokens"):
                tokenizer[key] = value
            else:
                tokenizer["model"][key] = value
        return tokenizer

    bpe, spm = small_bpe(), small_spm()
    digits = {"type": "Digits", "individual_digits": False}
    for name, changes in {
            "bpe": {}, "smollm": {"pre_tokenizer": SMOLLM_STEPS, "ignore_merges": False}, "qwen35": {"pre_tokenizer": split_steps(QWEN35)},
            "gpt-2": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}},
            "prefix": {"pre_tokenizer": {"type": "ByteLevel"}},
            "unigram": {"type": "Unigram"}, "digits": {"pre_tokenizer": digits}, "whitespace": {"pre_tokenizer": {"type": "Whitespace"}},
            "merged": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "MergedWithNext"}},
            "steps": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits] * 9}}, "no-steps": {"pre_tokenizer": None},
            "lower": {"normalizer": {"type": "Lowercase"}}, "sequence": {"normalizer": {"type": "Sequence", "normalizers": []}},
            "word": {"end_of_word_suffix": "</w>"}, "no-merges": {"merges": []}, "merge": {"merges": ["q z"]},
            "parts": {"merges": ["he"]}, "long": {"merges": [["h" * 1025, "e"]]},
            "empty": {"vocab": {}}, "far": {"vocab": {"a": 64}}, "same": {"vocab": {"a": 1, "b": 1}},
            "huge": {"vocab": {"a" * 1025: 1}}, "added": {"added_tokens": [{"id": 1}]},
            "special": {"added_tokens": [{"id": 1, "content": "a", "special": 5}]}}.items():
        put(fuzzer, name, changed(bpe, **changes), 0)
    put(fuzzer, "spm-json", spm, 0)
    put(fuzzer, "spm-few", changed(spm, merges=[["h", "e"]]), 0)
    put(fuzzer, "spm-merge", changed(spm, merges=[["h", "x"]]), 0)
    put(fuzzer, "spm-step", changed(spm, normalizer={"type": "NFKC"}), 0)
    put(fuzzer, "spm-nested", changed(spm, normalizer={"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]}), 0)
    put(fuzzer, "no-model", b"{}", 0)
    put(fuzzer, "broken", b"{", 0)

    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("<0x0A>", 0.0, 6), ("▁▁", 0.0, 4), ("<mask>", 0.0, 4), ("he", -1.0, 1), ("old", 0.0, 5)]
    put(fuzzer, "spm", spm_model(pieces), 1)
    put(fuzzer, "spm-many", spm_model(pieces * 10), 1)
    put(fuzzer, "spm-unigram", spm_model(pieces, kind=1), 1)
    put(fuzzer, "spm-empty", b"", 1)
    put(fuzzer, "spm-piece", message(1, message(1, b"") + b"\x18" + varint(9)), 1)
    put(fuzzer, "spm-eight", b"\x11" + bytes(8) + b"\x15" + bytes(4) + b"\x08\x80\x01", 1)
    put(fuzzer, "spm-broken", b"\x0b\0", 1)
    put(fuzzer, "spm-cut", message(2, b"\x18"), 1)

    end = "<|im_end|>"
    config = {"added_tokens_decoder": {"5": {"content": end, "special": True}, "99": {"content": "far"}},
        "bos_token": {"content": end}, "eos_token": end,
              "pad_token_id": 3, "eos_token_id": [5, 6], "add_bos_token": True, "add_eos_token": False,
              "chat_template": "{{ messages }}", "temperature": 0.6, "top_k": 20,
              "text_config": {"unk_token_id": 1}}
    post = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": end}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": end}}]}]}
    for name, changes in {
            "config": {}, "post": {"post_processor": post}, "single": {"post_processor": {"type": "TemplateProcessing", "single": []}},
            "templates": {"chat_template": [{"name": "default", "template": "x"}]}, "template": {"chat_template": 5},
            "hot": {"temperature": -1}, "cold": {"top_k": 1.5},
            "id": {"mask_token_id": 64}, "other-end": {"eos_token_id": [5, 7], "added_tokens_decoder": {"7": {"content": "end"},
            "5": {"content": end}}},
            "key": {"added_tokens_decoder": {"x": {"content": "a"}}}, "switch": {"add_bos_token": 5},
            "no-template": {"chat_template": None}}.items():
        put(fuzzer, name, config | changes, 2)


if __name__ == "__main__":
    safetensors()
    configs()
    tokenizers()
