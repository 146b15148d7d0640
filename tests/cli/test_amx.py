"""The command on a machine with AMX, which is emulated (tests/emulated). test_logits.py compares its bits."""
import os
import subprocess
from pathlib import Path

import pytest

from told import told

REFUSAL = "the system refused it for a test"


@pytest.fixture
def amx(runnel, tiny):
    """The command, and a model; skipped where there is no such command, or no AVX-512, which the kernels for AMX want, too."""
    path = Path(runnel).parent / "tests" / "runnel_emulated"
    if not path.is_file():
        pytest.skip("no emulated instruction sets for this kind of machine")
    model = tiny()
    if run(path, "bench", "-m", model, "-p", "1", "-n", "1", "-b", "1", "--repeat", "1", RUNNEL_CPU="avx512").returncode:
        pytest.skip("this machine has no AVX-512")
    return path, model


def run(*args, **variables):
    """Emulated under a sanitizer on a busy machine it takes minutes; one that hangs is ended before ctest does."""
    return subprocess.run(args, capture_output=True, text=True, timeout=1500, env=os.environ | variables)


def bench(amx, **variables):
    path, model = amx
    return run(path, "bench", "-m", model, "-p", "20", "-n", "1", "-b", "1", "-t", "2", "--repeat", "1", **variables)


def test_bench_takes_it(amx):
    done = bench(amx)
    assert (done.returncode, told(done.stderr)) == (0, "")
    assert ", amx kernels, 2 threads\nthis machine reads" in done.stdout
    assert " GMAC/s (8 bits, AMX)\n" in done.stdout


def test_bench_says_what_the_system_refused(amx):
    done = bench(amx, EMULATED_AMX_REFUSAL=REFUSAL)
    assert (done.returncode, told(done.stderr)) == (0, "")
    assert f", avx512 kernels, 2 threads\namx: {REFUSAL}\nthis machine reads" in done.stdout
    assert " GMAC/s (8 bits, AVX-512 VNNI)\n" in done.stdout


def test_asked_for_by_name_it_is_refused_by_name(amx):
    done = bench(amx, EMULATED_AMX_REFUSAL=REFUSAL, RUNNEL_CPU="amx")
    assert done.returncode == 1 and done.stdout == ""
    assert 'RUNNEL_CPU is "amx"' in done.stderr and f"avx512; amx: {REFUSAL}" in done.stderr
