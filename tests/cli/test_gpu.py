"""The command on a GPU, or on PoCL's device: real models' logits are the CPU's, bit for bit, and `bench` compares with what it knows. ctest
runs it where there is one (tests/with_gpu). GPU_MODELS=long: on the larger models, which takes PoCL minutes."""
import json
import os
import random
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from models_folder import real_model

os.environ.pop("RUNNEL_DEVICE", None)  # each call here says what it computes on
MODELS = {"": ("smollm2-135m",), "long": ("coder-0.5b", "coder-1.5b")}[os.environ.get("GPU_MODELS", "")]
N_IDS = 90  # more than a step of `--chunk 64` has, and three pages


def run(runnel, *arguments):
    done = subprocess.run([runnel, *map(str, arguments)], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done


def logits(runnel, model, ids, output, *flags):
    run(runnel, "logits", "-m", model, "--ids", ids, "-o", output, *flags)
    return output.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_real_models(runnel, tmp_path, name):
    """All layers there, prompts in two steps; and some, with steps of a few rows, which a device may have recorded."""
    model, ids, dice = real_model(name), tmp_path / "ids.json", random.Random(name)
    ids.write_text(json.dumps([dice.randrange(40000) for _ in range(N_IDS)]))
    expected = logits(runnel, model, ids, tmp_path / "cpu", "--device", "cpu")
    assert len(expected) % (4 * N_IDS) == 0 and len(expected) > 4 * 40000 * N_IDS
    assert logits(runnel, model, ids, tmp_path / "gpu", "--device", "gpu", "--chunk", 64) == expected
    few = tmp_path / "few.json"
    few.write_text(json.dumps(json.loads(ids.read_text())[:24]))
    for flags in (("--chunk", 8), ("--chunk", 24, "--gpu-layers", 5)):
        found = logits(runnel, model, few, tmp_path / "few", "--device", "gpu", *flags)
        assert found and expected.startswith(found), f"other bits with {flags}"


def test_a_lost_device_ends_the_command(runnel, tiny, tmp_path):
    """It fails, and does not wait for the driver's exit handlers: after one wait, in the start, and after many, in a step."""
    lost, switch, ids = Path(runnel).parent / "tests" / "runnel_lost", tmp_path / "waits", tmp_path / "ids.json"
    ids.write_text(json.dumps([5] * 200))
    for n_waits in ("1", "100"):
        switch.write_text(n_waits)
        done = subprocess.run([lost, "logits", "-m", tiny(), "--ids", ids, "-o", tmp_path / "out", "--chunk", "1", "--device", "gpu"],
                              capture_output=True, text=True, timeout=60, env={**os.environ, "RUNNEL_TEST_LOST": str(switch)})
        assert done.returncode == 1 and "fallen out of its slot" in done.stderr, done.stderr
        assert not switch.exists()


@pytest.mark.skipif(MODELS != ("smollm2-135m",), reason="it needs no large model")
@pytest.mark.parametrize("flags, is_divided", [((), False), (("--gpu-layers", 1), True)])
def test_bench_compares_with_limits_that_it_knows(runnel, tiny, flags, is_divided):
    """How fast the device reads is a limit where it has all layers, but no prompt's."""
    found = run(runnel, "bench", "-m", tiny(), "--device", "gpu", *flags, "-p", "8", "-n", "6", "-b", "2", "-r", "1").stdout
    assert re.search(rf"computes {2 - is_divided} of 2 layers.*; it reads [0-9.]+ GB/s of its memory", found), found
    assert ("the limits below are that" in found) == (not is_divided)
    limits = dict(re.findall(r"^(prefill|decode|batch) +\d+ +[0-9.]+ +([0-9.]+|-) ", found, re.M))
    assert set(limits) == {"prefill", "decode", "batch"} and limits["prefill"] == "-", found
    assert [limits[work] == "-" for work in ("decode", "batch")] == [is_divided] * 2, found


BENCH_GPU = Path(__file__).resolve().parents[2] / "bench" / "gpu"


@pytest.mark.skipif(MODELS != ("smollm2-135m",), reason="it needs no large model")
def test_bench_gpu(runnel, tiny, tmp_path):
    """The one command for a machine with a card, all of its rows: the bits first."""
    done = subprocess.run([BENCH_GPU, "--device", "gpu", "--model", tiny(), "--runnel", runnel, "--tokens", "20", "--repeat", "1",
                           "--json", tmp_path / "record.json"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row[0]: row[1:] for row in json.loads((tmp_path / "record.json").read_text())["rows"]}
    measured, goal, verdict = rows["logits with other bits than the CPU's"]
    assert re.fullmatch("0 of [1-9][0-9]+", measured) and (goal, verdict) == ("0", "met")
    for what in ("decode of one stream", "8 streams together", "first token, 512-token prompt", "first token, 8-token prompt"):
        assert rows[what][2] in ("met", "missed") and f"| {what} | {rows[what][0]} |" in done.stdout
    assert rows["beside transformers on the same card"][0] == "not measured here: bench/compare --device"
    for what in ("one stream", "8 streams"):
        assert "tok/s" in rows[f"{what} drawn at temperature 0.6 by the host"][0]
    assert "Which operations" not in done.stdout


def test_bench_gpu_names_what_has_other_bits():
    """Out of what a test of device code prints."""
    loader = SourceFileLoader("bench_gpu", str(BENCH_GPU))
    sys.dont_write_bytecode = True
    module = module_from_spec(spec_from_loader("bench_gpu", loader))
    loader.exec_module(module)
    output = """[==========] Running 2 test(s).
[ RUN      ] test_shapes
heads of 64, row 3, window 0: value 5 is 1.5, expected 1.25[  ERROR   ] --- differs
[  FAILED  ] test_shapes
[ RUN      ] test_dropped_pages
[       OK ] test_dropped_pages
[  FAILED  ] tests: 1 test(s), listed below:
[  FAILED  ] test_shapes
"""
    assert module.failures_of(output).startswith("test_shapes: heads of 64, row 3, window 0: value 5 is 1.5, expected 1.25")
    assert module.failures_of("[       OK ] test_shapes\n") == ""
