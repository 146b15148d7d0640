"""runnel tokenize: text in, ids out, and what is no text."""
import json
import struct
import subprocess
from pathlib import Path

import pytest

IM_START, IM_END, THINK = 281, 282, 287  # of the tiny vocabulary; the bytes are tokens 0 to 255


def tokenize(runnel, model, text, *args, **options):
    return subprocess.run([runnel, "tokenize", "-m", model, *args], input=text, capture_output=True, timeout=60, **options)


def ids(runnel, model, text, *args):
    done = tokenize(runnel, model, text.encode(), *args)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
    return json.loads(done.stdout)


def test_text(runnel, tiny):
    model = tiny()
    assert ids(runnel, model, "~!") == [126, 33]
    assert ids(runnel, model, "東") == list("東".encode())
    assert ids(runnel, model, "") == []
    assert json.loads(tokenize(runnel, model, b"\0~").stdout) == [0, 126]


@pytest.mark.parametrize("text, byte, offset", [
    (b"caf\xe9", "E9", 3), (b"caf\xe9 au lait", "E9", 3), (b"\xff\0~", "FF", 0), ("é".encode() + b"\xed\xa0\x80", "ED", 2), (b"a\xe6\x97", "E6", 1),
])
def test_what_is_not_utf8_is_refused(runnel, tiny, text, byte, offset):
    """A vocabulary may have no tokens for such bytes: they must not vanish without a word."""
    done = tokenize(runnel, tiny(), text)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"runnel: stdin: expected UTF-8 text, found byte 0x{byte} at offset {offset}\n"
    done = tokenize(runnel, tiny(), b'"fine"\n"' + text.replace(b"\0", b"") + b'"\n', "--jsonl")
    assert (done.returncode, done.stdout.count(b"\n")) == (1, 1)
    assert done.stderr.decode() == f"runnel: stdin, line 2: expected UTF-8 text, found byte 0x{byte} at offset {offset + 1}\n"


def test_not_normalised(runnel, tiny):
    model = tiny()
    assert ids(runnel, model, "\u00e9") == list("\u00e9".encode())
    assert ids(runnel, model, "e\u0301") == list("e\u0301".encode())
    help = subprocess.run([runnel, "tokenize", "--help"], capture_output=True, text=True, timeout=60)
    assert "not normalised" in help.stdout


def test_special_tokens(runnel, tiny):
    model = tiny()
    assert ids(runnel, model, "<|im_start|>~<|im_end|>", "--special") == [IM_START, 126, IM_END]
    plain = ids(runnel, model, "<|im_start|>~<|im_end|>")
    assert IM_START not in plain and IM_END not in plain
    assert ids(runnel, model, "<think>") == [THINK]  # user-defined: always


def test_lines(runnel, tiny):
    model, texts = tiny(), ["~!", "", "a\nb", "東<|im_end|>", "\0~"]
    done = tokenize(runnel, model, "".join(json.dumps(text) + "\n" for text in texts).encode(), "--jsonl")
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [json.loads(tokenize(runnel, model, text.encode()).stdout) for text in texts]


def test_failures(runnel, tiny, tmp_path):
    model = tiny()
    done = tokenize(runnel, model, b'"fine"\n{"no": "string"}\n"unread"\n', "--jsonl")
    assert done.returncode == 1 and done.stdout.count(b"\n") == 1 and b"line 2" in done.stderr
    for name, status in ((str(tmp_path), 1), ("missing.gguf", 1)):
        done = tokenize(runnel, name, b"x")
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (status, b"", 1)
        assert name.encode() in done.stderr
    done = tokenize(runnel, model, b"x", "--nothing")
    assert (done.returncode, done.stdout) == (2, b"") and b"--nothing" in done.stderr
    with open("/dev/full", "wb") as full:
        done = subprocess.run([runnel, "tokenize", "-m", model], input=b"x", stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1 and b"stdout" in done.stderr


def test_sentencepiece(runnel, tiny):
    """A space is set before the text; characters without a token of their own are bytes."""
    model = tiny("sentencepiece")
    hello, world = ids(runnel, model, "hello"), ids(runnel, model, "world")
    assert len(hello) == len(world) == 1
    assert ids(runnel, model, "hello world") == hello + world
    assert ids(runnel, model, "~!") == [32, 126, 33]
    assert ids(runnel, model, "") == []
    assert ids(runnel, model, "<|im_start|>hello<|im_end|>", "--special") == [IM_START, *hello, IM_END]
    assert IM_START not in ids(runnel, model, "<|im_start|>")
    assert ids(runnel, model, "<think>") == [THINK]


def vocabulary_alone(model, path):
    """The keys of a model file without its tensors."""
    data = model.read_bytes()
    (n_tensors,) = struct.unpack_from("<Q", data, 8)
    first = data.index(struct.pack("<Q", len("token_embd.weight")) + b"token_embd.weight")
    assert n_tensors > 0
    path.write_bytes(data[:8] + struct.pack("<Q", 0) + data[16:first])
    return path


@pytest.mark.parametrize("kind", ["qwen2", "sentencepiece"])
def test_a_vocabulary_alone(runnel, tiny, tmp_path, kind):
    model = Path(tiny(kind))
    path = vocabulary_alone(model, tmp_path / "vocabulary.gguf")
    assert ids(runnel, path, "hello world<|im_end|>", "--special") == ids(runnel, model, "hello world<|im_end|>", "--special")
    request = b'{"messages": [{"role": "user", "content": "hello"}], "add_generation_prompt": true}'
    prompts = [subprocess.run([runnel, "template", file], input=request, capture_output=True, timeout=60, check=True).stdout
               for file in (path, model)]
    assert prompts[0] == prompts[1] and b"hello" in prompts[0]
    run = subprocess.run([runnel, "run", "-m", path, "-p", "x"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert run.returncode == 1 and b"a vocabulary without weights" in run.stderr
