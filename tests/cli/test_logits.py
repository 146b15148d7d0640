"""runnel logits: the file it writes, that threads and chunks change no bit of it, and what can go wrong."""
import array
import json
import math
import os
import platform
import random
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from told import told

TOKENS = 280  # ordinary tokens of a tiny model


def logits(runnel, model, ids, output, *args, **options):
    return subprocess.run([runnel, "logits", "-m", model, "--ids", str(ids), "-o", str(output), *map(str, args)],
                          capture_output=True, text=True, timeout=280, **options)


def vocabulary(runnel, model):
    done = subprocess.run([runnel, "inspect", model, "--json"], capture_output=True, check=True)
    return json.loads(done.stdout)["vocab"]


def write_ids(tmp_path, n, n_tokens=TOKENS):
    path, dice = tmp_path / f"ids-{n}.json", random.Random(n)
    path.write_text(json.dumps([dice.randrange(n_tokens) for _ in range(n)]))
    return path


def assert_fails(done, status, *words):
    assert (done.returncode, done.stdout, told(done.stderr).count("\n")) == (status, "", 1), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr


def test_shape(runnel, tiny, tmp_path):
    model, n = tiny(), 19
    done = logits(runnel, model, write_ids(tmp_path, n), tmp_path / "out")
    assert (done.returncode, done.stdout, told(done.stderr)) == (0, "", "")
    values = array.array("f", (tmp_path / "out").read_bytes())
    n_vocab = vocabulary(runnel, model)
    assert len(values) == n * n_vocab and all(map(math.isfinite, values))
    rows = [values[i * n_vocab:(i + 1) * n_vocab] for i in range(n)]
    assert len({row.tobytes() for row in rows}) == n and max(values) > min(values)
    # The beginning does not depend on what follows.
    (tmp_path / "some.json").write_text(json.dumps(json.loads((tmp_path / f"ids-{n}.json").read_text())[:7]))
    assert logits(runnel, model, tmp_path / "some.json", tmp_path / "some").returncode == 0
    assert (tmp_path / "out").read_bytes().startswith((tmp_path / "some").read_bytes())
    assert (tmp_path / "some").stat().st_size == 7 * n_vocab * 4


def assert_one_arithmetic(runnel, model, ids, tmp_path, ways):
    expected = None
    for args in ways:
        done = logits(runnel, model, ids, tmp_path / "out", *args)
        assert done.returncode == 0, done.stderr
        found = (tmp_path / "out").read_bytes()
        assert found
        expected = expected or found
        assert found == expected, f"other bits with {args}"


@pytest.mark.parametrize("kind", ["qwen2", "llama", "llama3", "qwen3", "gemma3"])
def test_threads_and_chunks_change_nothing(runnel, tiny, tmp_path, kind):
    ways = [("--threads", threads, "--chunk", chunk) for threads in (1, 2, 4) for chunk in (1, 37, 64, 512)]
    assert_one_arithmetic(runnel, tiny(kind), write_ids(tmp_path, 300), tmp_path, ways)


def test_threads_and_chunks_of_a_real_model(runnel, smollm2, tmp_path):
    ways = [("--threads", 1, "--chunk", 512), ("--threads", 2, "--chunk", 37), ("--threads", 4, "--chunk", 64),
            ("--threads", 2, "--chunk", 1)]
    assert_one_arithmetic(runnel, smollm2, write_ids(tmp_path, 90, 40000), tmp_path, ways)


LEVELS = ("ref", "avx2", "avxvnni", "avx512", "amx")


def logits_of_levels(runnel, model, ids, tmp_path):
    """The bytes by instruction set, of all that this program can use here."""
    found = {}
    for cpu in LEVELS:
        done = logits(runnel, model, ids, tmp_path / "out", env={**os.environ, "RUNNEL_CPU": cpu})
        if done.returncode:
            assert_fails(done, 1, cpu)  # names what is missing
        else:
            found[cpu] = (tmp_path / "out").read_bytes()
    return found


def assert_same_bits(found):
    assert "ref" in found
    for cpu, values in found.items():
        assert values == found["ref"], f"{cpu} differs from plain C"


def test_instruction_sets(runnel, tiny, tmp_path):
    """All that this machine has give the same bits."""
    model, ids = tiny(), write_ids(tmp_path, 24)
    assert_same_bits(logits_of_levels(runnel, model, ids, tmp_path))
    done = logits(runnel, model, ids, tmp_path / "none", env={**os.environ, "RUNNEL_CPU": "z80"})
    assert_fails(done, 1, "RUNNEL_CPU", "z80", "avx2")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the CPU is no x86-64")
def test_no_instruction_set_is_overlooked(runnel, tiny, tmp_path):
    """What the system says of the CPU is found; it may know less than the program does."""
    flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    avx2 = {"avx2", "fma", "f16c", "bmi1", "bmi2"}
    wanted = {"avx2": avx2, "avxvnni": avx2 | {"avx_vnni"},
              "avx512": avx2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"}}
    done = logits(runnel, tiny(), write_ids(tmp_path, 3), tmp_path / "out", env={**os.environ, "RUNNEL_CPU": "z80"})
    possible = done.stderr.rpartition("this machine can do: ")[2].strip().split(", ")
    assert [level for level in LEVELS if level in possible] == possible  # in their order, the plainest first
    assert {level for level, needs in wanted.items() if needs <= flags} <= set(possible)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3", "gemma3", "smollm2"])
def test_emulated_instruction_sets(runnel, tiny, tmp_path, request, kind):
    """Those that this machine lacks, without their instructions (tests/emulated): the same bits."""
    emulated = Path(runnel).parent / "tests" / "runnel_emulated"
    if not emulated.is_file():
        pytest.skip("no emulated instruction sets for this kind of machine")
    model = request.getfixturevalue("smollm2") if kind == "smollm2" else tiny(kind)
    ids = write_ids(tmp_path, 40, 40000 if kind == "smollm2" else TOKENS)  # tiles of AMX want 12 rows, or 32
    found = logits_of_levels(emulated, model, ids, tmp_path)
    assert_same_bits(found)
    assert ("avxvnni" in found) == ("avx2" in found) and ("amx" in found) == ("avx512" in found)


@pytest.mark.parametrize("text, word", [
    ("", "ids.json"), ("[1, 2", "ids.json"), ("{}", "array"), ("[1.5]", "whole numbers"), ("[-1]", "whole numbers"),
    ('["1"]', "whole numbers"), ("[1, 4294967296]", "whole numbers"), ("[1] [2]", "ids.json"), ("[]", "token"),
    ("[1, 2, 289]", "token 2"), ("\x1b[31m\n\n", "ids.json"), ("[" * 100000, "ids.json"),
    ("[1,2,1e400]", "ids.json"), ("[" + "1," * 2000 + "1]", "1024"),
])
def test_wrong_ids(runnel, tiny, tmp_path, text, word):
    ids, output = tmp_path / "ids.json", tmp_path / "out"
    ids.write_text(text)
    done = logits(runnel, tiny(), ids, output)
    assert_fails(done, 1, word)
    assert "\x1b" not in done.stderr and not output.exists()


def test_missing_files(runnel, tiny, tmp_path):
    ids = write_ids(tmp_path, 3)
    assert_fails(logits(runnel, tiny(), tmp_path / "no.json", tmp_path / "out"), 1, "no.json")
    assert_fails(logits(runnel, tiny(), tmp_path, tmp_path / "out"), 1, tmp_path)
    assert_fails(logits(runnel, str(tmp_path / "no.gguf"), ids, tmp_path / "out"), 1, "no.gguf")
    assert not (tmp_path / "out").exists()


def test_wrong_usage(runnel, tiny, tmp_path):
    ids = write_ids(tmp_path, 3)
    for args, word in ((["--chunk", "0"], "--chunk"), (["--chunk", "8193"], "--chunk"), (["--threads", "-2"], "--threads"),
                       (["more"], "more"), (["--nothing"], "--nothing")):
        assert_fails(logits(runnel, tiny(), ids, tmp_path / "out", *args), 2, word)
    done = subprocess.run([runnel, "logits", "-m", tiny(), "--ids", ids], capture_output=True, text=True)
    assert_fails(done, 2, "--output")


def test_output_that_cannot_be_written(runnel, tiny, tmp_path):
    ids = write_ids(tmp_path, 100)
    assert_fails(logits(runnel, tiny(), ids, tmp_path / "no" / "out"), 1, tmp_path / "no" / "out")
    assert_fails(logits(runnel, tiny(), ids, tmp_path), 1, tmp_path, "directory")
    assert_fails(logits(runnel, tiny(), ids, "/dev/full"), 1, "/dev/full", "No space left")
    assert Path("/dev/full").exists()


def test_a_disk_that_fills_up(runnel, tiny, tmp_path):
    """What could not be written whole is not left behind."""
    if "RUNNEL_DEVICE" in os.environ:
        pytest.skip("a driver's compiler writes files, too")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))

    done = logits(runnel, tiny(), write_ids(tmp_path, 100), tmp_path / "out", preexec_fn=limit, restore_signals=False)
    assert_fails(done, 1, tmp_path / "out", "File too large")
    assert not (tmp_path / "out").exists()
