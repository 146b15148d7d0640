#!/usr/bin/env python3
"""Makes reference/logits-MODEL.json: what an exact f32 pass says of a real model's next tokens, and how far llama.cpp is from it.

    python3 -m venv ENV
    ENV/bin/pip install -r make_reference.txt
    ENV/bin/python make_reference.py MODEL.gguf OUT.json [--joined] [--check REFERENCE.json]

The weights are decoded to f32 by the package gguf and multiplied in f32 by numpy; activations, keys and values stay f32. For the
architectures llama, qwen2 and gemma3, without stretched contexts. The texts are those of the references that are there; llama.cpp
(llama-cpp-python) encodes them, and computes the same file. --joined makes one passage of all three texts, so that it is longer than
the windows of Gemma 3. --check makes nothing: it compares with a reference that was made by other means, and fails if that says
something else.
"""
import argparse
import ctypes
import hashlib
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "bench" / "contest"))
from divergence import Divergence  # noqa: E402 (the path comes first)
from peer_llama_cpp import Llama  # noqa: E402

N_TOP = 32
N_ROWS = 128  # of logits at a time: 128 MB with Gemma's vocabulary
ABOUT = ("top_ids, top_logprobs: the 32 likeliest next tokens after each token of ids, natural log, from an exact float32 forward pass "
         "of the dequantised weights. llama_cpp: its distance from that on the same tokens (CPU, AVX-512). kl32: KL divergence over "
         "these 32 and one bucket for the rest. Position 0 is left out of the statistics.")


def norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon)) * weight


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x ** 3)))


def silu(x):
    return x / (1 + np.exp(-x))


class ExactModel:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.kind = self.key("general.architecture", own=False)
        assert self.kind in ("llama", "qwen2", "gemma3"), self.kind
        assert not any(".rope.scaling" in name for name in self.reader.fields) and "rope_freqs.weight" not in self.tensors
        self.is_gemma = self.kind == "gemma3"
        self.n_layers, self.hidden = self.key("block_count"), self.key("embedding_length")
        self.n_heads, self.n_kv = self.key("attention.head_count"), self.key("attention.head_count_kv")
        self.head = self.key("attention.key_length", self.hidden // self.n_heads)
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.base, self.window = self.key("rope.freq_base", 10000.0), self.key("attention.sliding_window", 0)
        self.activation = gelu if self.is_gemma else silu
        self.head_weights = self.tensor("output.weight" if "output.weight" in self.tensors else "token_embd.weight")

    def key(self, name, default=None, own=True):
        field = self.reader.get_field(f"{self.kind}.{name}" if own else name)
        return field.contents() if field else default

    def tensor(self, name):
        """f32 [rows, columns], or [columns] of a vector; None if the file has none."""
        if name not in self.tensors:
            return None
        found = self.tensors[name]
        return gguf.quants.dequantize(found.data, found.tensor_type).astype(np.float32)

    def multiply(self, x, name):
        bias = self.tensor(f"{name}.bias")
        product = x @ self.tensor(f"{name}.weight").T
        return product if bias is None else product + bias

    def sees_all(self, layer):
        return not self.is_gemma or layer % 6 == 5

    def rotate(self, x, layer):
        """x [tokens, heads, head size]; llama's pairs lie beside each other, others' half a head apart."""
        base = self.base if self.sees_all(layer) else self.key("rope.freq_base_swa", 10000.0)
        angles = np.arange(len(x))[:, None] / base ** (np.arange(0, self.head, 2) / self.head)
        cos, sin = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]
        half, out = self.head // 2, np.empty_like(x)
        first, second = (np.s_[..., 0::2], np.s_[..., 1::2]) if self.kind == "llama" else (np.s_[..., :half], np.s_[..., half:])
        out[first] = x[first] * cos - x[second] * sin
        out[second] = x[first] * sin + x[second] * cos
        return out

    def attend(self, x, layer):
        name, n = f"blk.{layer}.", len(x)
        q, k, v = (self.multiply(x, f"{name}attn_{part}").reshape(n, -1, self.head) for part in "qkv")
        if self.is_gemma:
            q = norm(q, self.tensor(name + "attn_q_norm.weight"), self.epsilon)
            k = norm(k, self.tensor(name + "attn_k_norm.weight"), self.epsilon)
        q, k = self.rotate(q, layer), self.rotate(k, layer)
        distance = np.arange(n)[:, None] - np.arange(n)
        seen = (distance >= 0) & (self.sees_all(layer) | (distance < self.window))
        out = np.empty_like(q)
        for i in range(self.n_heads):
            kv = i // (self.n_heads // self.n_kv)
            scores = np.where(seen, q[:, i] @ k[:, kv].T / np.float32(np.sqrt(self.head)), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, i] = weights / weights.sum(axis=1, keepdims=True) @ v[:, kv]
        return self.multiply(out.reshape(n, -1), name + "attn_output")

    def feed_forward(self, x, layer):
        name = f"blk.{layer}.ffn_"
        return self.multiply(self.activation(self.multiply(x, name + "gate")) * self.multiply(x, name + "up"), name + "down")

    def normed(self, x, name):
        """A norm that only some architectures have leaves x as it is."""
        weight = self.tensor(name + ".weight")
        return x if weight is None else norm(x, weight, self.epsilon)

    def run(self, ids):
        """The hidden rows from which logits are made."""
        embedding = self.tensors["token_embd.weight"]
        x = gguf.quants.dequantize(embedding.data[ids], embedding.tensor_type).astype(np.float32)
        if self.is_gemma:
            x *= np.sqrt(np.float32(self.hidden))
        for layer in range(self.n_layers):
            name = f"blk.{layer}."
            x = x + self.normed(self.attend(self.normed(x, name + "attn_norm"), layer), name + "post_attention_norm")
            x = x + self.normed(self.feed_forward(self.normed(x, name + "ffn_norm"), layer), name + "post_ffw_norm")
            assert np.isfinite(x).all()
        return self.normed(x, "output_norm")

    def logits(self, ids):
        """Rows of logits, some at a time."""
        rows = self.run(ids)
        for first in range(0, len(rows), N_ROWS):
            yield rows[first:first + N_ROWS] @ self.head_weights.T


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def read_texts(joined):
    passages = json.loads((HERE / "reference" / "logits-smollm2-135m.json").read_text())["passages"]
    texts = {name: passage["text"] for name, passage in passages.items()}
    return {"joined": "\n\n".join(texts.values())} if joined else texts


def encode(llama, text):
    vocabulary, data = llama_cpp.llama_model_get_vocab(llama.model), text.encode()
    ids = (llama_cpp.llama_token * (len(data) + 2))()
    n = llama_cpp.llama_tokenize(vocabulary, data, len(data), ids, len(ids), True, False)
    assert n > 0
    return list(ids[:n])


class Statistics:
    """llama.cpp's distance from the exact pass, over the whole vocabulary and over the likeliest tokens."""

    def __init__(self):
        self.kl, self.agrees, self.exact_losses, self.losses = [], [], [], []

    def add(self, exact, other, following):
        """Log probabilities [rows, vocabulary] of both, and the tokens that follow (one fewer at the end of a passage)."""
        self.kl.extend((np.exp(exact) * (exact - other)).sum(axis=1))
        self.agrees.extend(exact.argmax(axis=1) == other.argmax(axis=1))
        for row, token in enumerate(following):
            self.exact_losses.append(-exact[row, token])
            self.losses.append(-other[row, token])


def measure_passage(model, llama, ids):
    """The passage's likeliest tokens, and all figures but kl32."""
    llama.open_context(len(ids) + 64)
    llama.decode([(token, i, 0, True) for i, token in enumerate(ids)])
    others, statistics, top_ids, top_logprobs, first = llama.logits(len(ids)), Statistics(), [], [], 0
    for logits in model.logits(ids):
        exact, other = log_softmax(logits), log_softmax(others[first:first + len(logits)])
        likeliest = np.argsort(-exact, axis=1, kind="stable")[:, :N_TOP]
        top_ids += likeliest.tolist()
        top_logprobs += np.round(np.take_along_axis(exact, likeliest, axis=1), 5).tolist()
        statistics.add(exact, other, ids[first + 1:first + 1 + len(logits)])
        first += len(logits)
    kl, agrees = np.array(statistics.kl), np.array(statistics.agrees)
    return {"note": "statistics leave out position 0", "ppl": float(np.exp(np.mean(statistics.exact_losses[1:]))), "llama_cpp": {
        "kl_mean": round(kl[1:].mean(), 7), "kl_p99": round(np.quantile(kl[1:], 0.99), 7), "kl_max": round(kl[1:].max(), 7),
        "kl_position_0": round(kl[0], 7), "top1_agreement": round(agrees[1:].mean(), 7),
        "ppl": round(float(np.exp(np.mean(statistics.losses[1:]))), 7)}, "top_ids": top_ids, "top_logprobs": top_logprobs}


def add_kl32(reference, llama, path):
    """llama.cpp's distance by the measure of docs/accuracy.md, which sees only what the file holds."""
    path.write_text(json.dumps(reference))
    total = Divergence(path)
    for passage in reference["passages"].values():
        llama.open_context(len(passage["ids"]) + 64)
        llama.decode([(token, i, 0, True) for i, token in enumerate(passage["ids"])])
        before, logits = len(total.kl), llama.logits(len(passage["ids"]))
        total.add(passage, logits)
        passage["llama_cpp"]["kl32_mean"] = round(float(np.mean(total.kl[before:])), 7)
    found = total.result()
    reference["llama_cpp"] = {"kl32_mean": round(found["kl"], 7), "top1_agreement": round(found["top1"], 5)}


def check(model, path):
    """Compares with a reference that was made by other means; returns whether it is the same."""
    worst, n_other = 0.0, 0
    for passage in json.loads(Path(path).read_text())["passages"].values():
        found = np.concatenate([np.take_along_axis(log_softmax(rows), np.array(passage["top_ids"][first:first + len(rows)]), axis=1)
                                for rows, first in zip(model.logits(passage["ids"]), range(0, len(passage["ids"]), N_ROWS))])
        worst = max(worst, np.abs(found - np.array(passage["top_logprobs"])).max())
        n_other += int((found.argmax(axis=1) != 0).sum())
    print(f"largest difference of a log probability {worst:.6f}, {n_other} positions with another likeliest token")
    return worst < 1e-3 and n_other == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--joined", action="store_true")
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    model = ExactModel(arguments.model)
    if arguments.check:
        return not check(model, arguments.check)
    callback = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    llama = Llama(str(arguments.model), 2, repack=True, flash=False)
    with arguments.model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    reference = {"model": arguments.model.stem, "sha256": digest, "passages": {}}
    for name, text in read_texts(arguments.joined).items():
        ids = encode(llama, text)
        reference["passages"][name] = {"text": text, "ids": ids, **measure_passage(model, llama, ids)}
    add_kl32(reference, llama, arguments.out)
    arguments.out.write_text(json.dumps({**reference, "about": ABOUT}))
    print(json.dumps(reference["llama_cpp"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
