"""A program that is built here runs on any x86-64, also one without AVX: what the compiler may use in the kernels of an instruction set
is nowhere else, and an emulated CPU of 2003 (qemu-x86_64), which stops at an instruction that it lacks, answers with the same bits.

With OLD_CPU=long the kernels and a real model, which take a minute or two; otherwise attention and a tiny model."""
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from models_folder import real_model

OLD_CPU = "Opteron_G1"  # the first x86-64: no SSE3, no AVX
LONG = os.environ.get("OLD_CPU") == "long"
PATIENCE = 1700 if LONG else 280

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the CPU is no x86-64")


@pytest.fixture
def on_old_cpu():
    """Runs a program on the old CPU."""
    qemu = shutil.which("qemu-x86_64")
    if not qemu:
        pytest.skip("qemu-x86_64 is not installed")

    def run(*command):
        env = {name: value for name, value in os.environ.items() if name != "RUNNEL_CPU"}
        return subprocess.run([qemu, "-cpu", OLD_CPU, *map(str, command)], capture_output=True, text=True, timeout=PATIENCE, env=env)

    return run


@pytest.fixture
def objects(runnel):
    """Object files of the program by their sources' paths."""
    found = {}
    for path in Path(runnel).parent.glob("CMakeFiles/*.dir/src/**/*.o"):
        found[re.sub(r".*\.dir/", "", str(path)).removesuffix(".o")] = path
    assert len(found) > 100 and "src/kernels/x86/avx2.c" in found
    return found


def is_of_a_level(source):
    """amx_permission.c asks on every CPU."""
    return re.fullmatch(r"src/kernels/x86/(avx|amx(?!_permission))\w*\.c", source)


def test_the_old_cpu_has_no_avx(on_old_cpu, tmp_path):
    """Or these tests would show nothing."""
    program = tmp_path / "avx"
    source = 'int main(void) { __asm__ volatile("vpaddd %ymm0, %ymm0, %ymm0"); return 0; }'
    subprocess.run(["gcc", "-x", "c", "-", "-o", program], input=source, text=True, check=True)
    assert "Illegal instruction" in on_old_cpu(program).stderr


def test_kernels(runnel, on_old_cpu):
    done = on_old_cpu(Path(runnel).parent / "tests" / ("test_kernels" if LONG else "test_attention"))
    assert done.returncode == 0, done.stderr


def test_an_answer(runnel, tiny, on_old_cpu):
    model = real_model("smollm2-135m") if LONG else tiny()
    args = [runnel, "run", "-m", model, "-p", "2 + 2 =", "-n", "3", "--raw", "--temp", "0", "--seed", "1", "--json"]
    old = on_old_cpu(*args)
    assert old.returncode == 0, old.stderr
    new = json.loads(subprocess.run(args, capture_output=True, check=True).stdout)
    old = json.loads(old.stdout)
    assert (old["text"], old["logits_hash"], old["completion_tokens"]) == (new["text"], new["logits_hash"], 3)


def test_the_old_cpu_is_told(runnel, tiny, on_old_cpu):
    """It takes plain C, and says that it can do no more."""
    model = tiny()
    done = on_old_cpu("-E", "RUNNEL_CPU=avx2", runnel, "run", "-m", model, "-p", "1", "-n", "1")
    assert done.returncode == 1
    assert 'RUNNEL_CPU is "avx2", but this machine can do: ref\n' in done.stderr


def test_only_kernels_use_new_instructions(objects):
    """Anywhere else an old CPU would stop. Two functions of probe.c read memory with what the CPU has, and are called for that alone."""
    new = re.compile(r"\s+[0-9a-f]+:\s+(\{vex\} )?(v(?!err|erw)\w+|(andn|bextr|bls\w+|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt)[lq]?\s)|"
                     r".*%([yz]mm\d|k[1-7]\b|tmm)")
    sources = {str(path): source for source, path in objects.items()}
    done = subprocess.run(["objdump", "-d", "--no-show-raw-insn", *sources], capture_output=True, text=True, check=True)
    source = function = None
    levels, others = set(), set()
    for line in done.stdout.splitlines():
        if match := re.match(r"(\S+\.o):\s+file format", line):
            source = sources[match[1]]
        elif match := re.match(r"[0-9a-f]+ <(.*)>:", line):
            function = match[1]
        elif new.match(line):
            reads = source == "src/kernels/probe.c" and re.fullmatch("sum_avx(2|512)", function)
            (levels if is_of_a_level(source) or reads else others).add(f"{function} in {source}")
    assert not others
    assert levels  # it finds them where they are


def test_nobody_else_gets_a_function_of_a_level(objects):
    """A function of a header that its files gave away by name could become everybody's: the linker keeps one of several."""
    for source, path in objects.items():
        if is_of_a_level(source):
            done = subprocess.run(["nm", "-g", "--defined-only", "-j", path], capture_output=True, text=True, check=True)
            names = done.stdout.split()
            level = re.match(r"[a-z]+\d*", Path(source).stem)[0]
            assert names and all(name.startswith(f"{level}_") for name in names), (source, names)
