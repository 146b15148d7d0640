"""The command on a machine with AMX, which is emulated (tests/helpers/amx_machine.h)."""
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

REFUSAL = "the system refused it for a test"


@pytest.fixture
def amx(tiny):
    """The command, and a model; skipped where there is no such command, or no AVX-512, which the kernels for AMX want, too."""
    path = Path(os.environ.get("RUNNEL_AMX_MACHINE", Path(__file__).resolve().parents[2] / "build/tests/runnel_amx_machine"))
    if not path.is_file():
        pytest.skip(f"{path} is not built")
    model = tiny()
    if run(path, "bench", "-m", model, "-p", "1", "-n", "1", "-b", "1", "--repeat", "1", RUNNEL_CPU="avx512").returncode:
        pytest.skip("this machine has no AVX-512")
    return path, model


def run(*args, **variables):
    env = {name: value for name, value in os.environ.items() if name != "RUNNEL_AMX_MACHINE"} | variables
    return subprocess.run(args, capture_output=True, text=True, timeout=280, env=env)


def bench(amx, **variables):
    path, model = amx
    return run(path, "bench", "-m", model, "-p", "20", "-n", "1", "-b", "1", "-t", "2", "--repeat", "1", **variables)


def test_bench_takes_it(amx):
    done = bench(amx)
    assert (done.returncode, done.stderr) == (0, "")
    assert ", amx kernels, 2 threads\nthis machine reads" in done.stdout


def test_bench_says_what_the_system_refused(amx):
    done = bench(amx, AMX_MACHINE_REFUSAL=REFUSAL)
    assert (done.returncode, done.stderr) == (0, "")
    assert f", avx512 kernels, 2 threads\namx: {REFUSAL}\nthis machine reads" in done.stdout


def test_asked_for_by_name_it_is_refused_by_name(amx):
    done = bench(amx, AMX_MACHINE_REFUSAL=REFUSAL, RUNNEL_CPU="amx")
    assert done.returncode == 1 and done.stdout == ""
    assert 'RUNNEL_CPU is "amx"' in done.stderr and f"avx512; amx: {REFUSAL}" in done.stderr


def test_a_real_model_has_the_same_bits(amx, smollm2, tmp_path):
    path, _ = amx
    dice = random.Random(1)
    (tmp_path / "ids.json").write_text(json.dumps([dice.randrange(40000) for _ in range(40)]))
    found = []
    for cpu in ("avx512", "amx"):
        done = run(path, "logits", "-m", smollm2, "--ids", tmp_path / "ids.json", "-o", tmp_path / cpu, "--threads", "2",
                   RUNNEL_CPU=cpu)
        assert (done.returncode, done.stderr) == (0, "")
        found.append((tmp_path / cpu).read_bytes())
    assert found[0] and found[0] == found[1]
