#!/usr/bin/env python3
"""Makes checkpoints/: small random models as folders of Hugging Face have them, and the logits that transformers computes of them.

    python3 -m venv ENV
    ENV/bin/pip install -r make_checkpoints.txt     # torch and transformers: 5 GB, mostly libraries of GPUs that are not used
    ENV/bin/python make_checkpoints.py [NAME ...]

Two shapes of each architecture, one of them odd, in the two forms that config.json has (the hub's, and that of transformers 5).
Weights are whole in BF16, and stored so. What the tests compare is the converter and the architecture, with a bound of 1e-6 on the mean
KL divergence: attention must be soft. Keys and values are rounded to steps of 12 bits when they are computed with, which costs a
divergence of 1e-7 where weights of attention are spread over many tokens, and of 2e-6 and more where few tokens have them all: models with
larger weights would measure that. reference.json has "ids", the tokens; "positions", after which of them logits are kept;
and "logits", which transformers computes in F32: little-endian floats [positions, vocabulary] in base64.
"""
import base64
import copy
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent / "checkpoints"
N_IDS = 96
POSITIONS = [0, 1, 8, 20, 32, 47, 64, 80, 95]
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
DIGITS = {"qwen": r"\p{N}", "llama": r"\p{N}{1,3}"}
MERGES = ["t h", "th e", "i n", "Ġ the", "Ġ a", "a n", "an d", "Ġ and", "h e", "l l", "he ll", "hell o"]

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "factor": 4.0}

# hidden, feed-forward, layers, heads, KV heads, head size (None: hidden / heads), tied, form of config.json, and what else there is
MODELS = {
    "qwen2": ("qwen2", 32, 24, 2, 4, 2, None, False, 4, {}),
    "qwen2-odd": ("qwen2", 42, 26, 2, 3, 1, None, True, 5, {"rope_scaling": YARN}),
    "qwen3": ("qwen3", 32, 24, 2, 4, 2, 16, False, 5, {}),
    "qwen3-odd": ("qwen3", 36, 26, 2, 3, 1, 22, True, 4, {"rope_scaling": YARN}),
    "llama": ("llama", 32, 24, 2, 4, 4, None, False, 5, {}),
    "llama-odd": ("llama", 50, 26, 2, 5, 1, None, True, 4, {"rope_scaling": LLAMA3}),
    "gemma3": ("gemma3_text", 24, 22, 7, 2, 1, 16, True, 4, {"sliding_window": 8, "query_pre_attn_scalar": 16}),
    "gemma3-odd": ("gemma3_text", 26, 18, 6, 3, 3, 10, True, 5,
                   {"sliding_window": 20, "query_pre_attn_scalar": 24, "rope_scaling": LINEAR}),
}


def byte_letters():
    """The byte-level alphabet: what each byte is written as."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def byte_level_tokenizer(kind):
    letters = byte_letters()
    vocabulary = [letters[byte] for byte in range(256)] + [merge.replace(" ", "") for merge in MERGES]
    specials = {"qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                "llama": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]}[kind]
    added = [{"id": len(vocabulary) + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, text in enumerate(specials)]
    pattern = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + DIGITS[kind] + r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES)
    steps = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": kind == "llama",
             "vocab": {text: i for i, text in enumerate(vocabulary)}, "merges": [merge.split(" ") for merge in MERGES]}
    json_of = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
               "pre_tokenizer": steps, "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                                                                          "trim_offsets": True, "use_regex": True},
               "model": model}
    bos, eos = (None, 258 + len(MERGES)) if kind == "qwen" else (256 + len(MERGES), 257 + len(MERGES))
    return json_of, 256 + len(MERGES) + len(specials), bos, eos


def sentencepiece_tokenizer():
    """Of Gemma's kind: bytes are a last resort, and merges make all that is longer than a character."""
    merges = ["t h", "th e", "i n", "▁ the", "▁ a", "a n"]
    characters = ["▁"] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    vocabulary = specials + [f"<0x{byte:02X}>" for byte in range(256)] + [m.replace(" ", "") for m in merges] + characters
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, text in enumerate(specials)]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
             "vocab": {text: i for i, text in enumerate(vocabulary)}, "merges": [merge.split(" ") for merge in merges]}
    json_of = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
               "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
               "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                 "invert": False},
               "post_processor": None,
               "decoder": {"type": "Sequence", "decoders": [
                   {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                   {"type": "Fuse"}]},
               "model": model}
    return json_of, len(vocabulary), 2, 1


def make_config(row, n_vocab, bos, eos):
    kind, hidden, ffn, layers, heads, kv_heads, head_dim, tied, _, more = row
    options = dict(vocab_size=n_vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
                   num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=128, rms_norm_eps=1e-6,
                   tie_word_embeddings=tied, bos_token_id=bos, eos_token_id=eos, pad_token_id=None, rope_theta=10000.0)
    if head_dim:
        options["head_dim"] = head_dim
    if kind == "gemma3_text":
        options.update(rope_theta=1000000.0, rope_local_base_freq=10000.0)
    return AutoConfig.for_model(kind, **options, **copy.deepcopy(more))


def draw_weights(model, gemma, seed):
    """Whole in BF16; so that scores of attention are about 1 and it is soft, and each layer changes what it is given."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                drawn = drawn * 0.1 + (0 if gemma else 1)
            elif "embed_tokens" in name:
                drawn *= 0.2
            elif name.endswith("bias"):
                drawn *= 0.1
            else:
                drawn *= (2 if "lm_head" in name else 1) / math.sqrt(parameter.shape[-1])
            parameter.copy_(drawn.to(torch.bfloat16))


def to_form_5(config):
    """config.json as transformers 5 writes it."""
    scaling = config.pop("rope_scaling", None) or {"rope_type": "default"}
    full = {**scaling, "rope_theta": config.pop("rope_theta")}
    local = config.pop("rope_local_base_freq", None)
    config["rope_parameters"] = full if local is None else {
        "full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    config["dtype"] = config.pop("torch_dtype", config.get("dtype"))
    config["transformers_version"] = "5.0.0"
    return config


def make(name, seed):
    row = MODELS[name]
    gemma, folder = row[0] == "gemma3_text", HERE / name
    tokenizer, n_vocab, bos, eos = sentencepiece_tokenizer() if gemma else byte_level_tokenizer(
        "llama" if row[0] == "llama" else "qwen")
    Tokenizer.from_str(json.dumps(tokenizer))
    model = AutoModelForCausalLM.from_config(make_config(row, n_vocab, bos, eos), attn_implementation="eager").float().eval()
    draw_weights(model, gemma, seed)
    ids = torch.randint(0, n_vocab, (1, N_IDS), generator=torch.Generator().manual_seed(seed + 1000))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0, POSITIONS].float().numpy()

    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    if row[8] == 5:
        config = to_form_5(config)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "reference.json").write_text(json.dumps(
        {"ids": ids[0].tolist(), "positions": POSITIONS, "logits": base64.b64encode(logits.astype("<f4").tobytes()).decode()})
        + "\n")
    print(f"{name}: {sum(path.stat().st_size for path in folder.iterdir()) / 1000:.0f} KB, "
          f"logits from {logits.min():.2f} to {logits.max():.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, each in enumerate(MODELS):
        if each in (sys.argv[1:] or MODELS):
            make(each, index + 1)
