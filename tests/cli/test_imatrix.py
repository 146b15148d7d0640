"""runnel imatrix: what it finds, compared with a model in plain Python; stopped and started again it writes the same bytes; what can go wrong."""
import math
import signal
import subprocess
import time
from pathlib import Path

import pytest
from plain_model import Gguf, PlainModel, tokens, write_text
from told import told

CONTEXT = 24
SITES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def command(runnel, model, text, output, *args):
    return [runnel, "imatrix", "-m", str(model), "-f", str(text), "-o", str(output), *map(str, args)]


def imatrix(*args):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=280)


def assert_fails(done, status, *words):
    assert (done.returncode, done.stdout, told(done.stderr).count("\n")) == (status, "", 1), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_sums_are_those_of_the_model(runnel, tiny, tmp_path, kind):
    """Each column of each matrix: the squares of its inputs, over all tokens of all chunks."""
    model, text = tiny(kind, "F32"), write_text(tmp_path, 14)
    done = imatrix(runnel, model, text, tmp_path / "out", "--ctx", CONTEXT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found, plain, ids = Gguf(tmp_path / "out"), PlainModel(Path(model)), tokens(runnel, model, text)
    chunks = [ids[i:i + CONTEXT] for i in range(0, len(ids), CONTEXT)]
    assert len(chunks) > 1 and len(chunks[-1]) < CONTEXT
    assert found.keys["general.type"] == "imatrix" and found.keys["imatrix.datasets"] == [str(text)]
    assert (found.keys["imatrix.chunk_count"], found.keys["imatrix.chunk_size"]) == (len(chunks), CONTEXT)
    sums = {}
    for chunk in chunks:
        plain.run(chunk)
        for name, inputs in plain.inputs.items():
            columns = [sum(value * value for value in column) for column in zip(*inputs)]
            sums[name] = [a + b for a, b in zip(sums.get(name, [0] * len(columns)), columns)]
    assert {name.removesuffix(".in_sum2") for name in found.tensors if name.endswith(".in_sum2")} == set(sums)
    assert len(sums) == 2 * len(SITES) + 1
    for name, expected in sums.items():
        assert found.tensors[f"{name}.counts"] == [[len(ids)]]
        got = found.tensors[f"{name}.in_sum2"][0]
        assert len(got) == len(expected)
        worst = max(abs(a - b) / (b + 1e-3 * max(expected)) for a, b in zip(got, expected))
        assert worst < 5e-3, f"{name}: {worst}"  # what is left is the rounding of the cache


@pytest.fixture
def whole(runnel, tiny, tmp_path):
    """A model, a text of some chunks, and what comes of it uninterrupted."""
    model, text, output = tiny(), write_text(tmp_path, 120), tmp_path / "whole"
    done = imatrix(runnel, model, text, output, "--ctx", CONTEXT)
    assert done.returncode == 0, done.stderr
    assert Gguf(output).keys["imatrix.chunk_count"] > 10
    return model, text, output.read_bytes()


def test_threads_and_times_of_writing_change_nothing(runnel, whole, tmp_path):
    model, text, expected = whole
    for n, args in enumerate((("--threads", 1), ("--threads", 4), ("--save-every", 1), ("--save-every", 100))):
        assert imatrix(runnel, model, text, tmp_path / f"out{n}", "--ctx", CONTEXT, *args).returncode == 0
        assert (tmp_path / f"out{n}").read_bytes() == expected, args


def test_it_goes_on_from_what_is_there(runnel, whole, tmp_path):
    model, text, expected = whole
    output = tmp_path / "out"
    for chunks in (1, 2, 7):
        done = imatrix(runnel, model, text, output, "--ctx", CONTEXT, "--chunks", chunks)
        assert done.returncode == 0 and f", {chunks} chunk{'s' * (chunks > 1)} of {CONTEXT} tokens\n" in done.stderr
        assert Gguf(output).keys["imatrix.chunk_count"] == chunks
        assert output.read_bytes() != expected
    done = imatrix(runnel, model, text, output, "--ctx", CONTEXT)
    assert done.returncode == 0 and "behind chunk 7" in done.stderr
    assert output.read_bytes() == expected
    before = output.stat().st_mtime_ns
    assert imatrix(runnel, model, text, output, "--ctx", CONTEXT).returncode == 0  # there is nothing left to do
    assert output.read_bytes() == expected and output.stat().st_mtime_ns == before
    done = imatrix(runnel, model, text, output, "--ctx", CONTEXT, "--chunks", 2)  # fewer than there are
    n = Gguf(output).keys["imatrix.chunk_count"]
    assert done.returncode == 0 and f"{n} chunks of {CONTEXT} tokens, as it was: --chunks 2 takes none away\n" in done.stderr
    assert output.read_bytes() == expected


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle(runnel, tiny, tmp_path, how):
    """Whenever it is stopped, what it wrote is whole, and the end is the same."""
    model, text, output = tiny(), write_text(tmp_path, 3000), tmp_path / "out"
    assert imatrix(runnel, model, text, tmp_path / "whole", "--ctx", 64).returncode == 0
    n_stopped = 0
    for _ in range(100):
        running = subprocess.Popen(command(runnel, model, text, output, "--ctx", 64, "--save-every", 1),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = output.stat().st_mtime_ns if output.exists() else None
        while running.poll() is None and (not output.exists() or output.stat().st_mtime_ns == before):
            time.sleep(0.002)
        running.send_signal(how)
        _, errors = running.communicate(timeout=280)
        if running.returncode == 0:
            break
        n_stopped += 1
        assert Gguf(output).keys["imatrix.chunk_count"] >= 1
        if how == signal.SIGINT:
            assert running.returncode == 130 and "are kept" in errors
            assert not list(tmp_path.glob("*.part"))
        if n_stopped == 3:
            assert imatrix(runnel, model, text, output, "--ctx", 64).returncode == 0
            break
    assert n_stopped > 0
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


def test_another_model_or_text_is_refused(runnel, tiny, whole, tmp_path):
    model, text, expected = whole
    output = tmp_path / "whole"
    assert_fails(imatrix(runnel, tiny("qwen2", "Q8_0"), text, output, "--ctx", CONTEXT), 1, output, "another model")
    assert_fails(imatrix(runnel, model, write_text(tmp_path, 121), output, "--ctx", CONTEXT), 1, output, "another text")
    assert_fails(imatrix(runnel, model, text, output, "--ctx", 32), 1, output, "--ctx 24", "--ctx 32")
    assert_fails(imatrix(runnel, model, text, tiny("llama"), "--ctx", CONTEXT), 1, tiny("llama"), "importance file")
    assert_fails(imatrix(runnel, model, text, tmp_path, "--ctx", CONTEXT), 1, tmp_path, "folder")
    assert output.read_bytes() == expected
    renamed = tmp_path / "renamed.gguf"  # it is the content that counts
    renamed.write_bytes(Path(model).read_bytes())
    assert imatrix(runnel, renamed, text, output, "--ctx", CONTEXT).returncode == 0


def test_wrong_texts_and_places(runnel, tiny, tmp_path):
    model, text = tiny(), write_text(tmp_path, 5)
    (tmp_path / "empty").write_text("")
    (tmp_path / "bytes").write_bytes(b"a\xffb")
    assert_fails(imatrix(runnel, model, tmp_path / "empty", tmp_path / "out"), 1, tmp_path / "empty", "too short")
    assert_fails(imatrix(runnel, model, tmp_path / "bytes", tmp_path / "out"), 1, tmp_path / "bytes", "UTF-8")
    assert_fails(imatrix(runnel, model, tmp_path / "none", tmp_path / "out"), 1, tmp_path / "none")
    assert_fails(imatrix(runnel, tmp_path / "none.gguf", text, tmp_path / "out"), 1, "none.gguf")
    assert not (tmp_path / "out").exists()
    done = imatrix(runnel, model, text, tmp_path / "no" / "out")
    assert done.returncode == 1 and str(tmp_path / "no" / "out") in done.stderr
    assert_fails(subprocess.run([runnel, "imatrix", "-m", model, "-f", str(text)], capture_output=True, text=True), 2, "--output")


def test_real_model(runnel, smollm2, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The sky is blue because air scatters short waves more than long ones. " * 4)
    done = imatrix(runnel, smollm2, text, tmp_path / "out", "--ctx", 32)
    assert done.returncode == 0, done.stderr
    found = Gguf(tmp_path / "out")
    assert len(found.tensors) == 2 * (30 * len(SITES) + 1)
    for name, rows in found.tensors.items():
        assert all(value >= 0 and math.isfinite(value) for value in rows[0]) and max(rows[0]) > 0, name
