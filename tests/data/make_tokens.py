#!/usr/bin/env python3
"""Makes tokens-MODEL-hard.json: texts from every corner of Unicode and the ids that an independent tokenizer gives them.

    make_tokens.py MODEL.gguf OUT.json [N]

The ids come from Hugging Face's `tokenizers` (pip install tokenizers), set up from the vocabulary and the merges in the
GGUF file and the regular expressions of the models' own tokenizer.json, without normalisation. N texts are tried
(default 600); each is written as {"text", "ids"}.
"""
import json
import random
import struct
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def read_keys(path):
    """The keys of a GGUF file's header."""
    data = open(path, "rb").read(16 << 20)
    at = 24
    formats = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def string():
        nonlocal at
        (size,) = struct.unpack_from("<Q", data, at)
        at += 8 + size
        return data[at - size:at]

    def value(kind):
        nonlocal at
        if kind == 8:
            return string()
        if kind == 9:
            element, n = struct.unpack_from("<IQ", data, at)
            at += 12
            return [value(element) for _ in range(n)]
        (number,) = struct.unpack_from("<" + formats[kind], data, at)
        at += struct.calcsize(formats[kind])
        return number

    keys = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        name = string().decode()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        keys[name] = value(kind)
    return keys


def make_tokenizer(keys):
    tokens = [t.decode() for t in keys["tokenizer.ggml.tokens"]]
    merges = [tuple(m.decode().split(" ")) for m in keys["tokenizer.ggml.merges"]]
    types = keys["tokenizer.ggml.token_type"]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    if keys["tokenizer.ggml.pre"] == b"smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False)
                          for t, kind in zip(tokens, types) if kind == 4])
    return tokenizer


SPACES = [" ", "  ", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680",
          "\u180e", "\u2000", "\u2003", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000",
          "\ufeff"]
CONTRACTIONS = ["'s", "'S", "'\u017f", "'t", "'T", "'re", "'Re", "'RE", "'ve", "'vE", "'m", "'M", "'ll", "'LL", "'lL",
                "'d", "'D", "\u2019s", "''s", "'", "'\u212a", "\u212a", "\u017f"]
WORDS = ["hello", "World", "naïve", "e\u0301", "ﬁ", "ß", "ẞ", "ǅ", "你好", "世界", "カタカナ", "ひらがな", "한국어", "한",
         "שלום", "مرحبا", "हिन्दी", "ไทย", "Ελληνικά", "Ёлка", "𝔘𝔫𝔦", "𠜎", "Ǆ", "ʰ", "ª", "º", "ⅷ", "Ⅷ", "①", "½", "٣",
         "१", "３", "𝟘", "〇", "⁵", "₉", "㊙", "12345", "3.14", "0x1F", "don't", "WE'RE", "l'été", "int", "return 0;", "{}",
         "\\frac", "://", "...", "--", "==", "!?", "😀", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "🇨🇳", "👍🏽", "\u0301\u0301", "\u093f",
         "\u20dd", "\u200d", "\u200f", "\u202e", "\ue000", "\uf8ff", "\ufffd", "\uffff", "\ud7ff", "\U0010fffd",
         "\U000f0000", "\x00", "\x01", "\x04", "\x7f", "\x80", "\x9f", "\xad", "<think>", "</think>", "<tool_call>",
         "<|im_start|>", "<|endoftext|>", "<\uff5cUser\uff5c>", "<think", "think>"]
RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0, 0x1f), (0x80, 0xff), (0x100, 0x24f), (0x250, 0x36f), (0x370, 0x52f),
          (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0xfff), (0x1000, 0x13ff), (0x1e00, 0x1fff), (0x2000, 0x206f),
          (0x2070, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xa000, 0xabff), (0xac00, 0xd7a3), (0xd7a4, 0xd7ff),
          (0xe000, 0xe0ff), (0xf900, 0xfaff), (0xfb00, 0xfdff), (0xfe00, 0xfe6f), (0xff00, 0xffff), (0x10000, 0x10fff),
          (0x1d400, 0x1d7ff), (0x1f1e6, 0x1f6ff), (0x20000, 0x2a6df), (0xe0000, 0xe01ff), (0x10fff0, 0x10ffff)]


def random_text(rng):
    parts = []
    style = rng.random()
    for _ in range(rng.randint(1, 24)):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3]))
        elif kind < 0.42:
            parts.append(rng.choice(CONTRACTIONS))
        elif kind < 0.75 or style < 0.4:
            parts.append(rng.choice(WORDS))
        else:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))))
    return "".join(parts)


def main():
    keys = read_keys(sys.argv[1])
    tokenizer = make_tokenizer(keys)
    rng = random.Random(20240611)
    cases = []
    while len(cases) < (int(sys.argv[3]) if len(sys.argv) > 3 else 600):
        text = random_text(rng)
        # What was assigned later than this Python's Unicode is a letter for one regex library and none for the other.
        if any(unicodedata.category(c) == "Cn" and c not in "\uffff\U0010ffff" for c in text):
            continue
        cases.append({"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids})
    with open(sys.argv[2], "w") as out:
        out.write("[" + ",\n".join(json.dumps(case) for case in cases) + "]\n")


if __name__ == "__main__":
    main()
