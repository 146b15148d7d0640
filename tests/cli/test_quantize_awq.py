"""runnel quantize --awq: files that compute the same as before, better than without scales where a few inputs are large, and what is refused."""
import os
import pty
import random
import signal
import subprocess
from pathlib import Path

import pytest
from test_quantize import distance, imatrix_of, leftovers, logits, quantize, read_gguf, write_imatrix

KINDS = ["qwen2", "llama", "llama3", "qwen3", "gemma3"]
# The norms before matrices, and these.
READERS = {"attn_norm.weight": ("attn_q.weight", "attn_k.weight", "attn_v.weight"), "ffn_norm.weight": ("ffn_gate.weight", "ffn_up.weight")}


def make_outliers(source, path):
    """The same model, but that a few inputs of its matrices are much larger than the others, and their columns so much smaller."""
    data, (_, tensors) = bytearray(Path(source).read_bytes()), read_gguf(source)

    def scale(name, factors):
        kind, dims, old = tensors[name]
        assert kind == "F32"
        values = memoryview(bytes(old)).cast("f")[:dims[0] * (dims[1] if len(dims) > 1 else 1)]
        new = memoryview(bytearray(4 * len(values))).cast("f")
        for i, value in enumerate(values):
            new[i] = value * factors[i % dims[0]]
        at = bytes(data).index(bytes(values.cast("B")))
        data[at:at + 4 * len(values)] = new.cast("B")

    dice = random.Random(7)
    for name, (_, dims, _) in list(tensors.items()):
        layer, _, kind = name.rpartition(".attn_norm") if name.endswith("attn_norm.weight") else name.rpartition(".ffn_norm")
        readers = READERS.get(name[len(layer) + 1:]) if layer else None
        if readers:
            sizes = [32.0 if dice.random() < 0.03 else 1.0 for _ in range(dims[0])]
            scale(name, sizes)
            for reader in readers:
                scale(f"{layer}.{reader}", [1 / size for size in sizes])
    path.write_bytes(data)
    return path


def make_importance(runnel, model, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "importance.gguf"
    dice = random.Random(3)
    text.write_text(" ".join("".join(dice.choices("abcdefghij", k=dice.randrange(1, 6))) for _ in range(150)))
    done = subprocess.run([runnel, "imatrix", "-m", str(model), "-f", str(text), "-o", str(out), "--ctx", "64"], capture_output=True, text=True,
                          timeout=280)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_large_inputs_lose_less(runnel, tiny, tmp_path, kind):
    """Nothing but standard tensors, as many bits as without. In Q8_0 the scales alone would be seen if what the model computes were another."""
    source = make_outliers(tiny(kind, "F32"), tmp_path / "outliers.gguf")
    importance = make_importance(runnel, source, tmp_path)
    expected, distances = logits(runnel, source, tmp_path), {}
    for mix in ("Q8_0", "Q4_0"):
        plain, scaled = tmp_path / "plain.gguf", tmp_path / "scaled.gguf"
        assert quantize(runnel, source, plain, mix, "--imatrix", importance).returncode == 0
        done = quantize(runnel, source, scaled, mix, "--imatrix", importance, "--awq")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "scales: at " in done.stderr and " places" in done.stderr
        (plain_keys, plain_tensors), (keys, tensors) = read_gguf(plain), read_gguf(scaled)
        assert keys == plain_keys
        assert {name: tensor[:2] for name, tensor in tensors.items()} == {name: tensor[:2] for name, tensor in plain_tensors.items()}
        changed = {name for name in tensors if tensors[name] != plain_tensors[name]}
        assert any(name.endswith("attn_norm.weight") for name in changed) and any(name.endswith("ffn_norm.weight") for name in changed)
        assert not any(name.startswith(("token_embd", "output")) for name in changed)
        distances[mix] = distance(expected, logits(runnel, plain, tmp_path)), distance(expected, logits(runnel, scaled, tmp_path))
    assert distances["Q8_0"][1] < 0.05, distances
    assert distances["Q4_0"][1] < 0.8 * distances["Q4_0"][0], distances


def test_threads_change_no_bit(runnel, tiny, tmp_path):
    source, outputs = tiny("qwen2", "F32"), set()
    importance = imatrix_of(source, tmp_path / "i.gguf")
    for n_threads in (1, 3):
        assert quantize(runnel, source, tmp_path / "out.gguf", "Q4_K_M", "--imatrix", importance, "--awq", "--threads", n_threads).returncode == 0
        outputs.add((tmp_path / "out.gguf").read_bytes())
    assert len(outputs) == 1


def test_wrong_usage(runnel, tiny, tmp_path):
    """What large inputs are is not known without an importance file; and of what only rounds nothing would become better."""
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    importance = imatrix_of(source, tmp_path / "i.gguf")
    done = quantize(runnel, source, out, "Q4_K_M", "--awq")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--awq" in done.stderr and "--imatrix" in done.stderr
    for mix in ("F32", "F16", "BF16"):
        done = quantize(runnel, source, out, mix, "--imatrix", importance, "--awq")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--awq" in done.stderr and mix in done.stderr
    assert not out.exists()


def test_other_importance_and_sources_are_refused(runnel, tiny, tmp_path):
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    other = imatrix_of(tiny("qwen3", "F32"), tmp_path / "other.gguf")  # heads of another size
    done = quantize(runnel, source, out, "Q4_K_M", "--imatrix", other, "--awq")
    assert done.returncode == 1 and "another model" in done.stderr
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(Path(source).read_bytes().replace(b"qwen2", b"qwen9"))
    done = quantize(runnel, unknown, out, "Q4_K_M", "--imatrix", imatrix_of(source, tmp_path / "i.gguf"), "--awq")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(unknown) in done.stderr and "qwen9" in done.stderr
    assert not out.exists()


def test_a_quantised_source_is_refused_unless_allowed(runnel, tiny, tmp_path):
    """Also where each matrix would keep its type: scaled weights are rounded anew."""
    source, out = tiny("llama", "Q8_0"), tmp_path / "out.gguf"
    importance = imatrix_of(source, tmp_path / "i.gguf")
    done = quantize(runnel, source, out, "Q8_0", "--imatrix", importance, "--awq")
    assert done.returncode == 1 and "--allow-requantize" in done.stderr and not out.exists()
    done = quantize(runnel, source, out, "Q8_0", "--imatrix", importance, "--awq", "--allow-requantize")
    assert done.returncode == 0, done.stderr
    assert distance(logits(runnel, source, tmp_path), logits(runnel, out, tmp_path)) < 0.05


def test_what_nothing_is_known_of_stays_as_it_is(runnel, tiny, tmp_path):
    """A place needs the importance of all matrices that share its inputs."""
    source, plain, scaled = tiny("qwen2", "F32"), tmp_path / "plain.gguf", tmp_path / "scaled.gguf"
    one = imatrix_of(source, tmp_path / "i.gguf", change=lambda entries: {name: entries[name] for name in entries if "attn_k" in name})
    assert quantize(runnel, source, plain, "Q4_K_M", "--imatrix", one).returncode == 0
    done = quantize(runnel, source, scaled, "Q4_K_M", "--imatrix", one, "--awq")
    assert done.returncode == 0 and "scales: no place for them" in done.stderr, done.stderr
    assert scaled.read_bytes() == plain.read_bytes()


def test_ctrl_c_stops_the_search(runnel, smollm2, tmp_path):
    """A bar tells how far it is; stopped, nothing is left."""
    _, tensors = read_gguf(smollm2)
    importance, out = tmp_path / "i.gguf", tmp_path / "out.gguf"
    write_imatrix(importance, {name: ([1.0 + i % 7 for i in range(dims[0])], 1.0) for name, (_, dims, _) in tensors.items()
                               if name.startswith("blk.") and len(dims) > 1})
    before = leftovers(tmp_path)
    parent, child = pty.openpty()
    process = subprocess.Popen([runnel, "quantize", smollm2, str(out), "Q4_K_M", "--imatrix", str(importance), "--awq", "--allow-requantize",
                                "--threads", "1"], stderr=child, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    seen = b""
    while b"scales" not in seen:
        seen += os.read(parent, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while piece := os.read(parent, 4096):
            seen += piece
    except OSError:
        pass
    os.close(parent)
    assert process.wait(timeout=280) == 130 and b"Stopped: nothing was written." in seen and b"places" in seen
    assert leftovers(tmp_path) == before
