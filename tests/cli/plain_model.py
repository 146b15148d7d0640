"""A second opinion on a tiny model: its file read, and its products computed, in plain Python with all sums in double. For files in F32 of the
architectures qwen2 and llama."""
import json
import math
import random
import struct
import subprocess
from array import array
from operator import mul

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, F32 = 8, 9, 0


class Gguf:
    """Its keys, and its F32 tensors as lists of rows."""

    def __init__(self, path):
        self.data, self.place = memoryview(path.read_bytes()), 0
        magic, version, n_tensors, n_keys = self.take("4sIQQ")
        assert (magic, version) == (b"GGUF", 3)
        self.keys = {self.text(): self.value(self.take("I")[0]) for _ in range(n_keys)}
        infos = [self.info() for _ in range(n_tensors)]
        alignment = self.keys.get("general.alignment", 32)
        begin = -(-self.place // alignment) * alignment
        self.tensors = {name: self.rows(dims, kind, begin + offset) for name, dims, kind, offset in infos}

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def text(self):
        return self.take(f"{self.take('Q')[0]}s")[0].decode()

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            kind, n = self.take("IQ")
            return [self.value(kind) for _ in range(n)]
        return self.take(SCALARS[kind])[0]

    def info(self):
        name, n_dims = self.text(), self.take("I")[0]
        return name, self.take(f"{n_dims}Q"), self.take("I")[0], self.take("Q")[0]

    def rows(self, dims, kind, begin):
        assert kind == F32, "only F32 is read"
        n, width = math.prod(dims), dims[0]
        values = array("f", self.data[begin:begin + 4 * n].tobytes())
        return [list(values[i:i + width]) for i in range(0, n, width)]


def tokens(runnel, model, text):
    """The ids of a text in a file."""
    with open(text, "rb") as file:
        done = subprocess.run([runnel, "tokenize", "-m", str(model)], stdin=file, capture_output=True, check=True)
    return json.loads(done.stdout)


def write_text(tmp_path, n_words):
    """A file with words that the vocabulary of tiny models has many tokens for."""
    path, dice = tmp_path / f"text-{n_words}.txt", random.Random(n_words)
    path.write_text(" ".join("".join(dice.choices("abcdefghij", k=dice.randrange(1, 6))) for _ in range(n_words)))
    return path


def dot(a, b):
    return sum(map(mul, a, b))


def norm(x, weight, epsilon):
    scale = 1 / math.sqrt(dot(x, x) / len(x) + epsilon)
    return [value * scale * w for value, w in zip(x, weight)]


class PlainModel:
    """runs(ids): the logits after each token; inputs[name][token] is then what the matrix was multiplied with."""

    def __init__(self, path):
        self.file = Gguf(path)
        keys = self.file.keys
        self.kind = keys["general.architecture"]
        get = lambda name: keys[f"{self.kind}.{name}"]
        self.n_layers, self.n_heads = get("block_count"), get("attention.head_count")
        self.n_kv, self.epsilon = get("attention.head_count_kv"), get("attention.layer_norm_rms_epsilon")
        self.head = keys.get(f"{self.kind}.attention.key_length", get("embedding_length") // self.n_heads)
        self.base = keys.get(f"{self.kind}.rope.freq_base", 10000.0)
        self.inputs = {}

    def multiply(self, name, xs):
        self.inputs[f"{name}.weight"] = xs
        bias = self.file.tensors.get(f"{name}.bias")
        weight = self.file.tensors[f"{name}.weight"]
        return [[dot(row, x) + (bias[0][i] if bias else 0) for i, row in enumerate(weight)] for x in xs]

    def rotate(self, x, position, n_heads):
        half = self.head // 2
        for first in range(0, n_heads * self.head, self.head):
            for i in range(half):
                a, b = (first + 2 * i, first + 2 * i + 1) if self.kind == "llama" else (first + i, first + i + half)
                angle = position / self.base ** (2 * i / self.head)
                x[a], x[b] = (x[a] * math.cos(angle) - x[b] * math.sin(angle),
                              x[a] * math.sin(angle) + x[b] * math.cos(angle))

    def attend(self, q, k, v, row):
        out = []
        for head in range(self.n_heads):
            own = slice(head * self.head, (head + 1) * self.head)
            kv = head // (self.n_heads // self.n_kv)
            shared = slice(kv * self.head, (kv + 1) * self.head)
            scores = [dot(q[row][own], k[t][shared]) / math.sqrt(self.head) for t in range(row + 1)]
            largest = max(scores)
            weights = [math.exp(score - largest) for score in scores]
            out += [dot(weights, column) / sum(weights) for column in zip(*(v[t][shared] for t in range(row + 1)))]
        return out

    def layer(self, xs, i):
        tensors, name = self.file.tensors, f"blk.{i}."
        normed = [norm(x, tensors[name + "attn_norm.weight"][0], self.epsilon) for x in xs]
        q, k, v = (self.multiply(name + part, normed) for part in ("attn_q", "attn_k", "attn_v"))
        for position in range(len(xs)):
            self.rotate(q[position], position, self.n_heads)
            self.rotate(k[position], position, self.n_kv)
        attended = self.multiply(name + "attn_output", [self.attend(q, k, v, row) for row in range(len(xs))])
        xs = [[a + b for a, b in zip(x, y)] for x, y in zip(xs, attended)]
        normed = [norm(x, tensors[name + "ffn_norm.weight"][0], self.epsilon) for x in xs]
        gate, up = self.multiply(name + "ffn_gate", normed), self.multiply(name + "ffn_up", normed)
        act = [[g / (1 + math.exp(-g)) * u for g, u in zip(*pair)] for pair in zip(gate, up)]
        return [[a + b for a, b in zip(x, y)] for x, y in zip(xs, self.multiply(name + "ffn_down", act))]

    def run(self, ids):
        tensors = self.file.tensors
        xs = [tensors["token_embd.weight"][token] for token in ids]
        for i in range(self.n_layers):
            xs = self.layer(xs, i)
        hidden = [norm(x, tensors["output_norm.weight"][0], self.epsilon) for x in xs]
        return self.multiply("output" if "output.weight" in tensors else "token_embd", hidden)
