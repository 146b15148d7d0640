"""runnel inspect: what it says of tiny models, as text and as JSON, and of files that are none."""
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest


def inspect(runnel, *args):
    return subprocess.run([runnel, "inspect", *args], capture_output=True, text=True, timeout=30)


def test_json_of_a_separate_head(runnel, tiny):
    path = tiny("r1")
    done = inspect(runnel, path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["path"] == path and found["file_bytes"] == os.path.getsize(path)
    assert found["architecture"] == "qwen2" and found["runs"] is True and found["chat_template"] == "r1"
    shape = {"layers": 2, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "ffn": 512, "context": 1024,
             "tied": False, "vocab": found["tokenizer"]["tokens"], "kv_bytes_per_token": 2 * 2 * 2 * 2 * 64}
    assert {key: found[key] for key in shape} == shape
    vocab, q4_k, q6_k = found["vocab"], 144 / 256, 210 / 256
    attention = 256 * 256 * 2 * q4_k + 128 * 256 * (q4_k + q6_k)
    ffn = 2 * 512 * 256 * q4_k + 512 * 256 * q6_k
    # The matrices of the layers, the head, and one row of the embedding.
    assert found["bytes_per_token"] == 2 * (attention + ffn) + vocab * 256 * q6_k + 256 * q4_k
    assert sum(entry["bytes"] for entry in found["types"]) == found["weight_bytes"]
    vectors = 2 * (2 * 256 + 256 + 2 * 128) + 256
    assert found["parameters"] == 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) + 2 * vocab * 256 + vectors
    special = {entry["role"]: entry["text"] for entry in found["tokenizer"]["special"]}
    assert special == {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>"}


def test_json_of_a_tied_head(runnel, tiny):
    found = json.loads(inspect(runnel, "--json", "--model", tiny("llama")).stdout)
    assert found["architecture"] == "llama" and found["tied"] is True and found["chat_template"] == "chatml"
    assert [entry["type"] for entry in found["types"]] == ["Q8_0", "F32"]
    row = 256 * 34 // 32
    matrices = (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) * 34 // 32
    assert found["bytes_per_token"] == 2 * matrices + (found["vocab"] + 1) * row


def test_text(runnel, tiny):
    done = inspect(runnel, tiny("qwen2"))
    assert done.returncode == 0 and done.stderr == ""
    for words in ("architecture    qwen2", "4 of size 64 over 2", "gpt2, qwen2, 289 tokens", "<|im_end|>", "chatml", "Q4_K"):
        assert words in done.stdout


@pytest.mark.parametrize("kind, scaling, factor, window, words", [
    ("llama3", "none", 1, 0, "architecture    llama"),
    ("qwen3", "yarn", 4, 0, "rotation        128 values a head, base 10000, context stretched 4 times (yarn)"),
    ("gemma3", "none", 1, 24, "window          24 tokens, base 10000, in 5 layers of 6"),
])
def test_every_architecture_opens(runnel, tiny, kind, scaling, factor, window, words):
    """Inspected, and answered from."""
    path = tiny(kind)
    found = json.loads(inspect(runnel, path, "--json").stdout)
    assert found["runs"] is True
    assert (found["rope_scaling"], found["rope_factor"], found["window"]) == (scaling, factor, window)
    assert words in inspect(runnel, path).stdout
    done = subprocess.run([runnel, "run", path, "-p", "hello", "-n", "40", "--seed", "1", "--temp", "0"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("of_type", ["Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4"])
def test_every_type_opens(runnel, tiny, of_type):
    """Inspected, and answered from."""
    path = tiny("qwen2", of_type)
    found = json.loads(inspect(runnel, path, "--json").stdout)
    assert [entry["type"] for entry in found["types"]] == [of_type, "F32"] and found["runs"] is True
    done = subprocess.run([runnel, "run", path, "-p", "hello", "-n", "4", "--seed", "1", "--temp", "0"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_tokenizer_that_is_not_known(runnel, tiny, tmp_path):
    """The shapes are shown, and that it does not run: `run` refuses it by the same words."""
    path = tmp_path / "other.gguf"
    known, other = (struct.pack("<Q", 5) + name for name in (b"qwen2", b"qwenX"))
    data = Path(tiny("qwen2")).read_bytes()
    at = data.index(b"tokenizer.ggml.pre")
    path.write_bytes(data[:at] + data[at:].replace(known, other, 1))
    found = json.loads(inspect(runnel, path, "--json").stdout)
    assert found["runs"] is False and found["layers"] == 2 and 'tokenizer.ggml.pre is "qwenX"' in found["error"]
    text = inspect(runnel, path).stdout
    assert 'cannot run      tokenizer.ggml.pre is "qwenX"' in text and "layers          2" in text
    for command in (["run", "-p", "x"], ["tokenize"]):
        done = subprocess.run([runnel, command[0], path, *command[1:]], input="", capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr == f"runnel: {path}: {found['error']}\n"


def test_names_do_not_steer_the_terminal(runnel, tiny, tmp_path):
    """The file's, as somebody downloaded it, and that of the model."""
    model = Path(tiny()).read_bytes()
    named = b"Tiny random model"
    assert model.count(named) == 1
    path = tmp_path / "a\033[2J\x9bb.gguf"
    path.write_bytes(model.replace(named, "Tiny\033[2J\x9b2J mode".encode()))
    lines = inspect(runnel, path).stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["name", "Tiny?[2J?2J mode"]
    assert lines[2].split(maxsplit=1)[1].startswith(f"{tmp_path}/a?[2J?b.gguf, GGUF version ")


def test_errors(runnel, tiny, tmp_path):
    path = Path(tiny("qwen2"))
    path.write_bytes(path.read_bytes()[:-64])  # past the padding
    done = inspect(runnel, str(path))
    assert done.returncode == 1 and done.stdout == "" and "output.weight" in done.stderr and done.stderr.count("\n") == 1
    done = inspect(runnel, str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert inspect(runnel).returncode == 2
    assert inspect(runnel, str(path), "more").returncode == 2
    assert inspect(runnel, "--what", str(path)).returncode == 2
    done = inspect(runnel, "--help")
    assert done.returncode == 0 and "--json" in done.stdout


def test_a_sampling_value_that_is_left_out(runnel, tiny):
    """inspect says what serve and run would say at loading."""
    why = "general.sampling.temp: expected a number from 0 to 2, found inf"
    path = tiny("hot")
    assert why in json.loads(inspect(runnel, path, "--json").stdout)["warning"]
    done = inspect(runnel, path)
    assert done.returncode == 0 and any(line.startswith("left out ") and why in line for line in done.stdout.splitlines())
    path = tiny("r1")
    assert json.loads(inspect(runnel, path, "--json").stdout)["warning"] == ""
    assert "left out" not in inspect(runnel, path).stdout


def test_what_is_not_there(runnel, tiny, tmp_path):
    """An importance file has neither a name nor an architecture nor a vocabulary: none of them is a gap in a line."""
    text, importance = tmp_path / "text", tmp_path / "importance.gguf"
    text.write_text("some words " * 20)
    assert subprocess.run([runnel, "imatrix", "-m", tiny(), "-f", text, "-o", importance], capture_output=True, timeout=120).returncode == 0
    done = inspect(runnel, importance)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and all(line[16:].strip() for line in lines)
    for line in ("name            none", "architecture    none", "tokenizer       none"):
        assert line in lines
