"""runnel quantize: the files it writes, which tensors get which type, and what it refuses and leaves behind."""
import array
import json
import math
import os
import pty
import random
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from terminal import Terminal

MIXES = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
         "Q3_K_M", "Q2_K"]
FILE_TYPES = dict(zip(MIXES, [0, 1, 32, 7, 18, 17, 9, 8, 15, 14, 25, 30, 3, 2, 12, 10]))
NUMBERS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
           14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS", 30: "BF16"}
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def quantize(runnel, *args, **options):
    return subprocess.run([runnel, "quantize", *map(str, args)], capture_output=True, text=True, timeout=280, **options)


def read_gguf(path):
    """The keys of a file, in its order, and its tensors: name -> (type, dimensions, bytes)."""
    data, at = Path(path).read_bytes(), 24

    def take(form):
        nonlocal at
        value, = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return value

    def text():
        nonlocal at
        n = take("<Q")
        at += n
        return data[at - n:at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            of, n = take("<I"), take("<Q")
            return [value(of) for _ in range(n)]
        return take(SCALARS[kind])

    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    keys = {}
    for _ in range(n_keys):
        name = text()
        keys[name] = value(take("<I"))
    infos = []
    for _ in range(n_tensors):
        name = text()
        dims = [take("<Q") for _ in range(take("<I"))]
        infos.append((name, NUMBERS[take("<I")], dims, take("<Q")))
    align = keys.get("general.alignment", 32)
    start = -(-at // align) * align
    assert all(offset % align == 0 for *_, offset in infos)
    ends = [offset for *_, offset in infos[1:]] + [len(data) - start]
    return keys, {name: (kind, dims, data[start + offset:start + end]) for (name, kind, dims, offset), end in zip(infos, ends)}


def write_imatrix(path, entries, datasets=("text.txt",)):
    """entries: name -> (list of sums, count)"""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    tensors = [item for name, (sums, count) in entries.items()
               for item in ((f"{name}.in_sum2", sums), (f"{name}.counts", [count]))]
    keys = text("general.type") + struct.pack("<I", 8) + text("imatrix")
    keys += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, len(datasets)) + b"".join(map(text, datasets))
    keys += text("imatrix.chunk_count") + struct.pack("<II", 4, 5) + text("imatrix.chunk_size") + struct.pack("<II", 4, 512)
    infos, body = b"", b""
    for name, values in tensors:
        infos += text(name) + struct.pack("<IQQIQ", 2, len(values), 1, 0, len(body))
        body += struct.pack(f"<{len(values)}f", *values)
        body += b"\0" * (-len(body) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 4) + keys + infos
    Path(path).write_bytes(head + b"\0" * (-len(head) % 32) + body)


def logits(runnel, model, tmp_path):
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps([random.Random(i).randrange(280) for i in range(24)]))
    out = tmp_path / "logits"
    done = subprocess.run([runnel, "logits", "-m", str(model), "--ids", str(ids), "-o", str(out)], capture_output=True, text=True,
                          timeout=280)
    assert done.returncode == 0, done.stderr
    return array.array("f", out.read_bytes())


def distance(a, b):
    """Root mean square difference, of the deviation of a."""
    mean = sum(a) / len(a)
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum((x - mean) ** 2 for x in a))


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_every_type_is_written_and_runs(runnel, tiny, tmp_path, kind):
    """What it holds comes near to the source, the nearer the more bits it has; what is no matrix stays as it is."""
    source = tiny(kind, "F32")
    keys, tensors = read_gguf(source)
    expected, distances = logits(runnel, source, tmp_path), {}
    for mix in MIXES:
        path = tmp_path / f"{mix}.gguf"
        done = quantize(runnel, source, path, mix)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        found, unit = re.search(rf"{re.escape(str(path))}: ([\d.]+) (kB|MB), [\d.]+ bits a weight", done.stderr).groups()
        scale, digits = {"kB": 1e3, "MB": 1e6}[unit], len(found.partition(".")[2])
        assert abs(float(found) * scale - path.stat().st_size) <= 0.51 * scale / 10 ** digits, done.stderr  # with its keys
        found_keys, found = read_gguf(path)
        assert found_keys.pop("general.file_type") == FILE_TYPES[mix] and found_keys.pop("general.quantization_version") == 2
        assert list(found_keys.items()) == [item for item in keys.items() if item[0] in found_keys]  # in order, and equal
        assert set(keys) - set(found_keys) <= {"general.file_type", "general.quantization_version"}
        assert list(found) == list(tensors)
        for name, (of_type, dims, data) in tensors.items():
            assert found[name][1] == dims
            if len(dims) == 1:
                assert found[name] == (of_type, dims, data)
        distances[mix] = distance(expected, logits(runnel, path, tmp_path))
    assert distances["F32"] == 0 and distances["F16"] < 0.002
    for better, worse in zip(("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M"), ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")):
        assert distances[better] < distances[worse], distances
    assert distances["Q2_K"] < 1.2 and distances["Q4_K_M"] < 0.25, distances


def types_of(path):
    _, tensors = read_gguf(path)
    return {name: of_type for name, (of_type, dims, _) in tensors.items() if len(dims) > 1}


def test_mixes(runnel, tiny, tmp_path):
    """Of a model of two layers (widths 256 and 512) with a head of its own, and of a tied one."""
    def types(source, mix, *args):
        path = tmp_path / "mix.gguf"
        assert quantize(runnel, source, path, mix, *args).returncode == 0
        return types_of(path)

    own, tied = tiny("qwen2", "F32"), tiny("llama", "F32")
    found = types(own, "q4_k_m")  # small letters will do
    assert found["output.weight"] == "Q6_K" and found["token_embd.weight"] == "Q4_K"
    # layers of 2: the first and the last eighth are none and the last one
    assert [found[f"blk.{i}.ffn_down.weight"] for i in (0, 1)] == ["Q4_K", "Q6_K"]
    assert [found[f"blk.{i}.attn_v.weight"] for i in (0, 1)] == ["Q4_K", "Q6_K"]
    assert found["blk.0.attn_q.weight"] == "Q4_K" and found["blk.1.ffn_gate.weight"] == "Q4_K"
    assert types(tied, "Q4_K_M")["token_embd.weight"] == "Q6_K"
    found = types(own, "Q3_K_M")
    assert [found[f"blk.0.{name}.weight"] for name in ("attn_v", "attn_output", "ffn_down", "ffn_up")] == ["Q5_K", "Q4_K", "Q4_K", "Q3_K"]
    found = types(own, "Q2_K")
    assert [found[f"blk.0.{name}.weight"] for name in ("attn_v", "attn_output", "ffn_down", "ffn_up")] == ["Q3_K", "Q3_K", "Q3_K", "Q2_K"]
    found = types(own, "Q4_K_S")
    assert [found[f"blk.1.{name}.weight"] for name in ("attn_v", "ffn_down", "ffn_up")] == ["Q5_K", "Q4_K", "Q4_K"]
    assert set(types(own, "Q8_0").values()) == {"Q8_0"} and set(types(own, "F16").values()) == {"F16"}
    found = types(own, "Q4_0")
    assert found.pop("output.weight") == "Q6_K" and set(found.values()) == {"Q4_0"}


def imatrix_of(source, path, seed=1, change=lambda entries: entries):
    dice = random.Random(seed)
    _, tensors = read_gguf(source)
    entries = {name: ([math.exp(dice.gauss(0, 1.5)) * 100 for _ in range(dims[0])], 100.0)
               for name, (_, dims, _) in tensors.items() if len(dims) > 1 and name != "token_embd.weight"}
    write_imatrix(path, change(entries))
    return path


def test_an_importance_file_is_used_and_named(runnel, tiny, tmp_path):
    source = tiny("qwen2", "F32")
    imatrix = imatrix_of(source, tmp_path / "i.gguf")
    assert quantize(runnel, source, tmp_path / "plain.gguf", "Q4_K_M").returncode == 0
    done = quantize(runnel, source, tmp_path / "weighted.gguf", "Q4_K_M", "--imatrix", imatrix)
    assert done.returncode == 0, done.stderr
    keys, weighted = read_gguf(tmp_path / "weighted.gguf")
    _, plain = read_gguf(tmp_path / "plain.gguf")
    assert keys["quantize.imatrix.file"] == str(imatrix) and keys["quantize.imatrix.dataset"] == "text.txt"
    assert keys["quantize.imatrix.entries_count"] == len(weighted_names := [n for n, t in weighted.items() if t[0] != "F32"]) - 1
    assert keys["quantize.imatrix.chunks_count"] == 5
    for name in weighted_names:
        assert (weighted[name] == plain[name]) == (name == "token_embd.weight"), name


def test_what_is_wrong_with_importance_is_told(runnel, tiny, tmp_path):
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    for change, words in (
        (lambda entries: {**entries, "blk.0.attn_q.weight": ([1.0] * 128, 1.0)}, ("blk.0.attn_q.weight", "256", "another model")),
        (lambda entries: {**entries, "blk.1.ffn_up.weight": ([-1.0] * 256, 1.0)}, ("blk.1.ffn_up.weight.in_sum2", "-1")),
        (lambda entries: {"layers.0.q": ([1.0] * 256, 1.0)}, ("found none",)),
    ):
        done = quantize(runnel, source, out, "Q4_K_M", "--imatrix", imatrix_of(source, tmp_path / "i.gguf", change=change))
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and all(word in done.stderr for word in words), done.stderr
    done = quantize(runnel, source, out, "Q4_K_M", "--imatrix", source)
    assert done.returncode == 1 and "importance file" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("mix", ["Q4_K_M", "Q2_K", "IQ4_NL", "BF16"])
def test_threads_change_no_bit(runnel, tiny, tmp_path, mix):
    source = tiny("qwen2", "F32")
    outputs = set()
    for n_threads in (1, 2, 5):
        assert quantize(runnel, source, tmp_path / "out.gguf", mix, "--threads", n_threads).returncode == 0
        outputs.add((tmp_path / "out.gguf").read_bytes())
    assert len(outputs) == 1


def test_a_quantised_source_is_refused_unless_allowed(runnel, tiny, tmp_path):
    source, out = tiny("qwen2", "Q8_0"), tmp_path / "out.gguf"
    done = quantize(runnel, source, out, "Q4_K_M")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not out.exists()
    for words in (source, "Q8_0", "expected F32, F16 or BF16", "--allow-requantize"):
        assert words in done.stderr
    assert quantize(runnel, source, out, "Q4_K_M", "--allow-requantize").returncode == 0
    assert types_of(out)["blk.0.attn_q.weight"] == "Q4_K"
    done = quantize(runnel, source, out, "Q8_0")  # nothing is quantised again
    assert done.returncode == 0 and read_gguf(out)[1] == read_gguf(source)[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e6])
def test_values_that_do_not_fit_are_refused_by_name(runnel, tiny, tmp_path, bad):
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    _, tensors = read_gguf(source)
    data = bytearray(Path(source).read_bytes())
    at = bytes(data).index(tensors["blk.1.ffn_up.weight"][2]) + 4 * (256 * 7 + 9)
    data[at:at + 4] = struct.pack("<f", bad)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data)
    before = leftovers(tmp_path)
    done = quantize(runnel, broken, out, "Q4_K_M")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and leftovers(tmp_path) == before
    for words in (str(out), '"blk.1.ffn_up.weight"', "row 7, column 9", "Q4_K"):
        assert words in done.stderr, done.stderr
    if bad == 1e6:
        assert quantize(runnel, broken, out, "BF16").returncode == 0


def test_wrong_usage_and_files(runnel, tiny, tmp_path):
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    done = quantize(runnel, source, out, "Q4_KM")
    assert done.returncode == 2 and "Q4_K_M" in done.stderr and "did you mean" in done.stderr and not out.exists()
    assert quantize(runnel, source, out).returncode == 2
    before = Path(source).read_bytes()
    os.link(source, tmp_path / "same.gguf")
    for target in (source, tmp_path / "same.gguf"):
        done = quantize(runnel, source, target, "Q4_K_M")
        assert done.returncode == 1 and "another file" in done.stderr and Path(source).read_bytes() == before
    done = quantize(runnel, source, tmp_path, "Q4_K_M")
    assert done.returncode == 1 and "folder" in done.stderr
    done = quantize(runnel, source, tmp_path / "no" / "out.gguf", "Q4_K_M")
    assert done.returncode == 1 and str(tmp_path / "no" / "out.gguf") in done.stderr
    (tmp_path / "text.gguf").write_text("no model")
    done = quantize(runnel, tmp_path / "text.gguf", out, "Q4_K_M")
    assert done.returncode == 1 and "text.gguf" in done.stderr
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(before.replace(b"qwen2", b"qwen9", 1))  # the value of general.architecture, the first key
    done = quantize(runnel, unknown, out, "Q4_K_M")
    assert done.returncode == 1 and "unknown.gguf" in done.stderr and '"qwen9" is not known' in done.stderr and "gemma3" in done.stderr
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(before[:-5000])
    done = quantize(runnel, cut, out, "Q4_K_M")
    assert done.returncode == 1 and "cut.gguf" in done.stderr and not out.exists()


def test_a_full_disk_leaves_nothing(runnel, tiny, tmp_path):
    """A limit on the size of files stands for the disk."""
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    before = leftovers(tmp_path)
    done = subprocess.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 200; exec "$@"', "sh", runnel, "quantize", source, str(out), "Q8_0"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and str(out) in done.stderr and leftovers(tmp_path) == before


def test_an_older_file_is_replaced_only_by_a_whole_one(runnel, tiny, tmp_path):
    source, out = tiny("qwen2", "F32"), tmp_path / "out.gguf"
    out.write_text("old")
    subprocess.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 200; exec "$@"', "sh", runnel, "quantize", source, str(out), "Q8_0"],
                   capture_output=True, timeout=120)
    assert out.read_text() == "old"
    assert quantize(runnel, source, out, "Q8_0").returncode == 0 and out.read_bytes().startswith(b"GGUF")


def wide_source(tiny, tmp_path):
    """A model whose matrix takes a while: sparse, so that it takes no disk."""
    source = Path(tiny("qwen2", "F32"))
    data = bytearray(source.read_bytes())
    keys, tensors = read_gguf(source)
    path = tmp_path / "wide.gguf"
    name = b"output.weight"
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4 + 8
    rows = 400_000  # x 256 values: 410 MB, of zeros
    data[at:at + 8] = struct.pack("<Q", rows)
    assert list(tensors)[-1] == "output.weight"
    path.write_bytes(data)
    os.truncate(path, len(data) + (rows + 1) * 1024)
    return path


def start_wide(runnel, source, out, before=None):
    """quantize in the middle of its work; `before` is called in its process before it begins."""
    process = subprocess.Popen([runnel, "quantize", str(source), str(out), "IQ4_XS", "--threads", "1"], stderr=subprocess.PIPE, text=True,
                               preexec_fn=before)
    part = Path(f"{out}.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_leaves_nothing(runnel, tiny, tmp_path, number):
    source, out = wide_source(tiny, tmp_path), tmp_path / "out.gguf"
    before = leftovers(tmp_path)
    process = start_wide(runnel, source, out)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and "Stopped" in stderr
    assert leftovers(tmp_path) == before


def test_under_nohup_it_goes_on(runnel, tiny, tmp_path):
    """A signal that was ignored before is not listened to."""
    source, out = wide_source(tiny, tmp_path), tmp_path / "out.gguf"
    process = start_wide(runnel, source, out, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0 and out.exists(), stderr


def test_a_terminal_sees_a_bar(runnel, tiny, tmp_path):
    source, out = wide_source(tiny, tmp_path), tmp_path / "out.gguf"
    parent, child = pty.openpty()
    process = subprocess.Popen([runnel, "quantize", str(source), str(out), "Q8_0"], stderr=child, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(parent)
    assert process.wait(timeout=120) == 0
    assert b"[" in seen and b" of 4" in seen and b"MB" in seen and seen.rstrip().endswith(b"s")


@pytest.mark.parametrize("columns", [40, 80])
def test_the_bar_fits(runnel, tiny, tmp_path, columns):
    """However long the name of the file is; a number that has no room is left out, not cut."""
    out = tmp_path / f"{'long-' * 20}.gguf"
    os.mkfifo(f"{out}.part")
    source = wide_source(tiny, tmp_path)
    terminal = Terminal([runnel, "quantize", str(source), str(out), "Q8_0"], columns=columns)
    try:
        with open(f"{out}.part", "rb") as pipe:
            while "B/s" not in terminal.all:
                assert pipe.read(1 << 20)
                terminal.wait_until_quiet(0.05)
            terminal.type("\x03")
            while pipe.read(1 << 20):
                pass
        terminal.wait_for("Stopped: nothing was written.")
        assert terminal.wait() == 130
    finally:
        terminal.close()
    bars = [line.split("\033[K")[0] for line in terminal.all.split("\r") if line.startswith("quantizing ")]
    for bar in bars:
        assert len(bar) < columns
        assert re.fullmatch(r"quantizing (\[=*>? *\] )?[0-9.]+ [kMG]?B of [0-9.]+ MB(  [0-9.]+ [kMG]?B/s(  [0-9]+:[0-9]{2} left)?)?", bar), bar
    assert bars
