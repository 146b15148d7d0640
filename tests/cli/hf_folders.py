"""What the tests of `runnel convert` share: Hugging Face folders of small random models, written by hand, and a reader of GGUF files."""
import json
import struct
from dataclasses import dataclass, field

import numpy as np

# The pre-tokenizer expressions of the models' own tokenizer.json files.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")

# Values ----------------------------------------------------------------------------------------------------------


def bf16_bits(values):
    """float32 to the upper halves of their bits, to nearest even."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def stored(values, dtype):
    """What of these values a file with this dtype holds, as float32."""
    if dtype == "BF16":
        return from_bf16(bf16_bits(values))
    return np.asarray(values, np.float16 if dtype == "F16" else np.float32).astype(np.float32)


def to_bytes(values, dtype):
    if dtype == "BF16":
        return bf16_bits(values).tobytes()
    return np.asarray(values).astype({"F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64}[dtype]).tobytes()


# safetensors -----------------------------------------------------------------------------------------------------


def write_safetensors(path, tensors, metadata=None):
    """tensors: {name: (values, dtype)}."""
    header, contents, end = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (values, dtype) in tensors.items():
        contents.append(to_bytes(values, dtype))
        header[name] = {"dtype": dtype, "shape": list(np.shape(values)), "data_offsets": [end, end + len(contents[-1])]}
        end += len(contents[-1])
    write_raw_safetensors(path, header, b"".join(contents))


def write_raw_safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Tokenizers ------------------------------------------------------------------------------------------------------


def byte_alphabet():
    """The character of each byte in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in plain}
    for n, byte in enumerate(byte for byte in range(256) if byte not in characters):
        characters[byte] = chr(256 + n)
    return characters


MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r"), ("Ġw", "or"), ("l", "d"), ("Ġwor", "ld"), ("Ċ", "Ċ")]


def split_steps(pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]}


DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def expression(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": [*steps]}


# As the tokenizer.json of deepseek-llm-7b, deepseek-coder and falcon-7b list them. Some letters would become others if an editor
# normalised this file: they are escaped.
CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3"
    "ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-\uabbfﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
DEEPSEEK_LLM_STEPS = sequence(
    expression(r"[\r\n]"), expression(rf"\s?[{DEEPSEEK_LETTERS}]+"), expression("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
    expression(r"\s+$"), expression(CHINESE), DIGITS, BYTES)
DEEPSEEK_CODER_STEPS = sequence(
    expression(r"[\r\n]"), expression(r"\s?\p{L}+"), expression(r"\s?\p{P}+"), expression(CHINESE), DIGITS, BYTES)
FALCON_STEPS = sequence({"type": "Punctuation", "behavior": "Contiguous"}, {**BYTES, "use_regex": True},
                        {**DIGITS, "individual_digits": False}, expression("[0-9][0-9][0-9]"))
SMOLLM_STEPS = sequence(DIGITS, {**BYTES, "use_regex": True})


def bpe_tokenizer(added=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"), steps=None, pairs=False, **more):
    """A byte-level tokenizer.json: 256 bytes, some merges, then the added tokens; those like <|this|> are special."""
    vocab = {character: id for id, (_, character) in enumerate(sorted(byte_alphabet().items()))}
    for first, second in MERGES:
        vocab[first + second] = len(vocab)
    n = len(vocab)
    return {
        "version": "1.0",
        "added_tokens": [{"id": n + i, "content": text, "special": text.startswith("<|") and text != "<|im_end|>"}
                         for i, text in enumerate(added)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": steps or split_steps(QWEN2),
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [list(pair) if pairs else " ".join(pair) for pair in MERGES]},
        **more}


SPM_PIECES = ["<pad>", "<eos>", "<bos>", "<unk>"]  # then bytes, then these, from the highest score to the lowest
SPM_WORDS = ["he", "ll", "hell", "hello", "▁w", "or", "▁wor", "ld", "▁world", "▁", "h", "e", "l", "o", "w", "r", "d", "é", "\n"]


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def spm_pieces(extra=()):
    """[(text, score, kind)]."""
    pieces = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [(text, -float(i), 1) for i, text in enumerate(SPM_WORDS)]
    return pieces + list(extra)


def spm_model(pieces=None, kind=2, dummy_prefix=False):
    """tokenizer.model as SentencePiece writes it."""
    out = b""
    for text, score, of_kind in spm_pieces() if pieces is None else pieces:
        out += message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(of_kind))
    out += message(2, b"\x18" + varint(kind) if kind else b"")
    return out + message(3, message(1, b"identity") + b"\x18" + varint(int(dummy_prefix)) + b"\x20\x00")


def spm_json(prefix=False):
    """The same as a tokenizer.json without scores: every pair of pieces that makes a piece, by its score."""
    vocab = {text: id for id, (text, _, _) in enumerate(spm_pieces())}
    merges = [[word[:at], word[at:]] for word in SPM_WORDS for at in range(1, len(word))
              if word[:at] in SPM_WORDS and word[at:] in SPM_WORDS]
    normalizers = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    if prefix:
        normalizers.insert(0, {"type": "Prepend", "prepend": "▁"})
    return {"added_tokens": [{"id": id, "content": text, "special": True} for id, text in enumerate(SPM_PIECES)],
            "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None,
            "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True, "vocab": vocab, "merges": merges}}


# Models ----------------------------------------------------------------------------------------------------------


@dataclass
class Shape:
    architecture: str = "qwen2"
    layers: int = 2
    hidden: int = 64
    ffn: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocab: int = 288
    tied: bool = False
    dtype: str = "F32"
    config: dict = field(default_factory=dict)  # more of config.json, or other values


CLASSES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM", "gemma3": "Gemma3ForCausalLM"}


def make_config(shape):
    config = {
        "architectures": [CLASSES[shape.architecture]], "model_type": shape.architecture, "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocab, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": shape.tied, "hidden_act": "silu", "torch_dtype": "bfloat16"}
    if shape.head_dim * shape.heads != shape.hidden or shape.architecture in ("qwen3", "gemma3"):
        config["head_dim"] = shape.head_dim
    if shape.architecture == "gemma3":
        del config["hidden_act"]
        config |= {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 32, "sliding_window_pattern": 6,
                   "query_pre_attn_scalar": shape.head_dim, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0}
    return {key: value for key, value in {**config, **shape.config}.items() if value is not KeyError}


def make_tensors(shape, seed=1):
    """{name: float32 values}, as the dtype holds them."""
    random = np.random.default_rng(seed)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    gemma = shape.architecture == "gemma3"

    def matrix(rows, columns):
        return stored(random.normal(0, 1 / columns ** 0.5, (rows, columns)), shape.dtype)

    def norm(n):
        return stored(random.normal(0 if gemma else 1, 0.1, n), shape.dtype)

    tensors = {"model.embed_tokens.weight": matrix(shape.vocab, shape.hidden), "model.norm.weight": norm(shape.hidden)}
    if not shape.tied:
        tensors["lm_head.weight"] = matrix(shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        for name, rows in ("q", queries), ("k", keys), ("v", keys):
            tensors[f"{at}self_attn.{name}_proj.weight"] = matrix(rows, shape.hidden)
            if shape.architecture == "qwen2" or shape.config.get("attention_bias"):
                tensors[f"{at}self_attn.{name}_proj.bias"] = stored(random.normal(0, 0.1, rows), shape.dtype)
        tensors[f"{at}self_attn.o_proj.weight"] = matrix(shape.hidden, queries)
        if shape.architecture in ("qwen3", "gemma3"):
            tensors[f"{at}self_attn.q_norm.weight"] = norm(shape.head_dim)
            tensors[f"{at}self_attn.k_norm.weight"] = norm(shape.head_dim)
        for name in ["input_layernorm", "post_attention_layernorm",
                     *(["pre_feedforward_layernorm", "post_feedforward_layernorm"] if gemma else [])]:
            tensors[f"{at}{name}.weight"] = norm(shape.hidden)
        tensors[f"{at}mlp.gate_proj.weight"] = matrix(shape.ffn, shape.hidden)
        tensors[f"{at}mlp.up_proj.weight"] = matrix(shape.ffn, shape.hidden)
        tensors[f"{at}mlp.down_proj.weight"] = matrix(shape.hidden, shape.ffn)
    return tensors


TOKENIZER_CONFIG = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>", "special": True},
                    "add_prefix_space": False, "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
                    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"}


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False))


def make_folder(folder, shape, tokenizer=None, tensors=None, n_files=1):
    """Writes a folder and returns its tensors. n_files: more than one have an index."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", make_config(shape))
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(folder / "tokenizer.json", tokenizer or bpe_tokenizer())
    write_json(folder / "generation_config.json", {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [268, 266]})
    values = make_tensors(shape) if tensors is None else tensors
    typed = {name: value if isinstance(value, tuple) else (value, shape.dtype) for name, value in values.items()}
    if n_files == 1:
        write_safetensors(folder / "model.safetensors", typed, {"format": "pt"})
        return values
    names, parts, weight_map = list(typed), {}, {}
    for i, name in enumerate(names):
        part = f"model-{i * n_files // len(names) + 1:05}-of-{n_files:05}.safetensors"
        parts.setdefault(part, {})[name] = typed[name]
        weight_map[name] = part
    for part, of_part in parts.items():
        write_safetensors(folder / part, of_part)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    return values


# GGUF ------------------------------------------------------------------------------------------------------------

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BLOCKS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2)}


def decode(kind, data, n):
    """Values of a tensor, by the definitions of the types."""
    if kind == "F32":
        return np.frombuffer(data, np.float32)
    if kind == "F16":
        return np.frombuffer(data, np.float16).astype(np.float32)
    if kind == "BF16":
        return from_bf16(np.frombuffer(data, np.uint16))
    n_bytes = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[kind]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, n_bytes)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == "Q8_0":
        return (blocks[:, 2:].view(np.int8) * d).reshape(n)
    nibbles = blocks[:, -16:]
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32)
    if kind == "Q4_0":
        return ((q - 8) * d).reshape(n)
    return (q * d + blocks[:, 2:4].copy().view(np.float16).astype(np.float32)).reshape(n)


class Gguf:
    """keys: {name: value}; tensors: {name: (type, values in their shape, rows first)}."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 0
        magic, version, n_tensors, n_keys = self.take("<4sIQQ")
        assert (magic, version) == (b"GGUF", 3)
        self.keys = {}
        for _ in range(n_keys):
            name = self.string()
            assert name not in self.keys, f"{name} twice"
            self.keys[name] = self.value(self.take("<I")[0])
        entries = []
        for _ in range(n_tensors):
            name = self.string()
            dims = self.take(f"<{self.take('<I')[0]}Q")
            entries.append((name, dims, *self.take("<IQ")))
        begin = self.at + -self.at % 32
        self.tensors, end = {}, 0
        for name, dims, kind, offset in entries:
            kind, values, size = BLOCKS[kind]
            n = int(np.prod(dims))
            n_bytes = n // values * size
            assert offset == end and name not in self.tensors and dims[0] % values == 0
            end = offset + n_bytes + -n_bytes % 32
            content = self.data[begin + offset:begin + offset + n_bytes]
            self.tensors[name] = (kind, decode(kind, content, n).reshape(dims[::-1]))
        assert begin + end == len(self.data)

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self):
        n, = self.take("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind != 9:
            return self.take("<" + SCALARS[kind])[0]
        of_kind, n = self.take("<IQ")
        if of_kind == 8:
            return [self.string() for _ in range(n)]
        return list(self.take(f"<{n}{SCALARS[of_kind]}"))
