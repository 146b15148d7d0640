#!/usr/bin/env python3
"""Makes tokens-MODEL-hard.json: texts from every corner of Unicode and the ids that an independent tokenizer gives them.

    make_tokens.py MODEL.gguf OUT.json [N]

The ids come from Hugging Face's `tokenizers`, set up from the vocabulary and the merges in the GGUF file and the regular
expressions of the models' own tokenizer.json, or from Google's `sentencepiece`, set up from the vocabulary and the scores
(pip install tokenizers sentencepiece), without normalisation. N texts are tried (default 600); each is written as
{"text", "ids"}.
"""
import json
import random
import struct
import sys
import unicodedata

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"


def read_header(data):
    """The keys that a GGUF file begins with, of which data are the first bytes, and where the keys end."""
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
    return keys, at


def read_keys(path):
    """The keys of a GGUF file's header."""
    with open(path, "rb") as file:
        return read_header(file.read(32 << 20))[0]


def make_bpe(keys):
    """Byte-level BPE: a function from a text to its ids."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    tokens = [t.decode() for t in keys["tokenizer.ggml.tokens"]]
    merges = [tuple(m.decode().split(" ")) for m in keys["tokenizer.ggml.merges"]]
    types = keys["tokenizer.ggml.token_type"]
    pre = keys["tokenizer.ggml.pre"].decode()

    def split(pattern):
        return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)

    def bytes_after(*steps, use_regex=False):
        return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)])

    digits = pre_tokenizers.Digits(individual_digits=True)
    steps = {
        "smollm": bytes_after(digits, use_regex=True),
        "gpt-2": bytes_after(use_regex=True),
        "llama-bpe": bytes_after(split(QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))),
        "qwen35": bytes_after(split(QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]+",
                                                                                       r"[^\s\p{L}\p{M}\p{N}]+"))),
        "deepseek-coder": bytes_after(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CHINESE), digits),
        "falcon": pre_tokenizers.Sequence([
            pre_tokenizers.Punctuation(behavior="contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")]),
    }
    alike = {"starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "mpt": "gpt-2"}
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                                     ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = steps.get(alike.get(pre, pre)) or bytes_after(split(QWEN2))
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False)
                          for t, kind in zip(tokens, types) if kind == 4])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def make_sentencepiece(keys):
    """SentencePiece's BPE, from a model file that is put together here: a function from a text to its ids."""
    import sentencepiece

    def varint(number):
        out = b""
        while number > 127:
            out, number = out + bytes([number & 127 | 128]), number >> 7
        return out + bytes([number])

    def part(field, data):  # a number, a float or bytes
        if isinstance(data, bytes):
            return varint(field << 3 | 2) + varint(len(data)) + data
        if isinstance(data, float):
            return varint(field << 3 | 5) + struct.pack("<f", data)
        return varint(field << 3) + varint(data)

    types = list(keys["tokenizer.ggml.token_type"])
    types[keys["tokenizer.ggml.unknown_token_id"]] = 2  # it must have one
    model = b"".join(
        part(1, part(1, token.decode().replace(" ", "\u2581").encode()) + part(2, score) + part(3, kind))
        for token, score, kind in zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"], types))
    # trainer_spec: BPE, byte_fallback; normalizer_spec: identity, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    ids = {name: keys[f"tokenizer.ggml.{key}_token_id"]
           for name, key in ((40, "unknown"), (41, "bos"), (42, "eos"), (43, "padding")) if f"tokenizer.ggml.{key}_token_id" in keys}
    model += part(2, part(3, 2) + part(35, 1) + b"".join(part(field, number) for field, number in ids.items()))
    prefix = keys.get("tokenizer.ggml.add_space_prefix", True)
    model += part(3, part(1, b"identity") + part(3, int(prefix)) + part(4, 0) + part(5, 1))
    return sentencepiece.SentencePieceProcessor(model_proto=model).encode


def make_tokenizer(keys):
    return make_sentencepiece(keys) if keys["tokenizer.ggml.model"] == b"llama" else make_bpe(keys)


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
    encode = make_tokenizer(keys)
    rng = random.Random(20240611)
    cases = []
    while len(cases) < (int(sys.argv[3]) if len(sys.argv) > 3 else 600):
        text = random_text(rng)
        # What was assigned later than this Python's Unicode is a letter for one regex library and none for the other.
        if any(unicodedata.category(c) == "Cn" and c not in "\uffff\U0010ffff" for c in text):
            continue
        # SentencePiece makes spaces of U+2581 before it looks for user-defined tokens; llama.cpp and Runnel after that.
        if keys["tokenizer.ggml.model"] == b"llama" and "\u2581" in text:
            continue
        cases.append({"text": text, "ids": encode(text)})
    with open(sys.argv[2], "w") as out:
        out.write("[" + ",\n".join(json.dumps(case) for case in cases) + "]\n")


if __name__ == "__main__":
    main()
