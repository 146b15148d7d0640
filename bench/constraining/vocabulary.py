"""The tokenizer of a GGUF file in Hugging Face's form, for engines that know no such files. Of the Qwen2 kind alone. Only the standard library is needed."""
import json
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
NORMAL, USER_DEFINED = 1, 4  # kinds of tokens
KINDS = (b"qwen2", b"deepseek-r1-qwen")  # of pre-tokenizers that cut so:
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


class Keys:
    """Those of a file, by name."""

    def __init__(self, path):
        with open(path, "rb") as self.file:
            magic, _, _, n_keys = self._take("4sIQQ")
            if magic != b"GGUF":
                raise ValueError(f"{path}: no GGUF file")
            self.values = {self._text().decode(): self._value(*self._take("I")) for _ in range(n_keys)}

    def _take(self, form):
        form = "<" + form
        return struct.unpack(form, self.file.read(struct.calcsize(form)))

    def _text(self):
        return self.file.read(*self._take("Q"))

    def _value(self, kind):
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            of, n = self._take("IQ")
            return [self._text() for _ in range(n)] if of == STRING else list(self._take(f"{n}{SCALARS[of]}"))
        return self._take(SCALARS[kind])[0]


def tokenizer_json(path):
    """The text of a tokenizer.json, how many tokens the file has, and the id of the end of a text. Tokens that are only there to fill up are left out."""
    keys = Keys(path).values
    if keys["tokenizer.ggml.model"] != b"gpt2" or keys["tokenizer.ggml.pre"] not in KINDS:
        raise ValueError(f"{path}: expected a tokenizer as Qwen2's")
    texts, kinds = [text.decode() for text in keys["tokenizer.ggml.tokens"]], keys["tokenizer.ggml.token_type"]
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": kind != USER_DEFINED}
             for i, (text, kind) in enumerate(zip(texts, kinds)) if kind != NORMAL and not text.startswith("[PAD")]
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
             "vocab": {text: i for i, (text, kind) in enumerate(zip(texts, kinds)) if kind == NORMAL},
             "merges": [merge.decode() for merge in keys["tokenizer.ggml.merges"]]}
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                       "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}, "post_processor": None,
                       "decoder": byte_level, "model": model}), len(texts), keys["tokenizer.ggml.eos_token_id"]
