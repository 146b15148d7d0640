#!/usr/bin/env python3
"""test_ptx.py FOLDER: the PTX that the build made of device code. Looks at it (every operation on floats is rounded by itself, nothing is
called, no group is larger than it may be) and assembles it for each kind of card, with next to no spills. 77: there is no PTX, as the build
had no clang; or no ptxas, and PTX was looked at all the same."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("embed", "layer", "attention", "product_k", "product_32", "product_float", "product_matrix")
CARDS = {"61": ("sm_75",), "80": ("sm_80", "sm_86", "sm_89", "sm_90")}  # of each module
SPILLED_MAX = 16  # bytes an item: ptxas saves a register here and there to fit one more group
# What would not give the CPU's bits: products and sums that an assembler may fuse, approximations, denormals flushed to zero.
WRONG = re.compile(r"\b(?:mul|add|sub|fma|div|sqrt|rcp|ex2|lg2|sin|cos|mad)(?!\.rn\.f32)(?:\.\w+)*\.f32\b|\.ftz|\.approx")


def find_ptxas():
    """That of a toolkit, or of the package nvidia-cuda-nvcc of the Python that runs this."""
    found = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if found:
        return found
    for folder in sys.path:
        for path in Path(folder).glob("nvidia/*/bin/ptxas") if folder else ():
            return str(path)
    return None


def look_at(name, text):
    """Complaints."""
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if WRONG.search(line):
            yield f"{name}:{number}: {line}"
        if re.match(r"(@%p\d+ )?call\b", line):
            yield f"{name}:{number}: calls a function: {line}"
    if text.count(".entry") != text.count(".maxntid 256, 1, 1"):
        yield f"{name}: {text.count('.entry')} functions, {text.count('.maxntid')} with .maxntid"


def assemble(ptxas, path, card):
    """Complaints."""
    command = [ptxas, "-v", f"-arch={card}", "-o", "/dev/null", str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        yield f"{path.name} for {card}: {run.stderr.strip() or run.stdout.strip()}"
    for spill in re.findall(r"(\d+) bytes spill", run.stderr + run.stdout):
        if int(spill) > SPILLED_MAX:
            yield f"{path.name} for {card}: {spill} bytes are spilled"


def main():
    folder, ptxas, wrong, n = Path(sys.argv[1]), find_ptxas(), [], 0
    if not list(folder.glob("gpu_ptx_*.ptx")):
        print("skipped: this build has no PTX (clang, packages.txt)")
        return 77
    for arch, cards in CARDS.items():
        for program in PROGRAMS:
            if program == "product_matrix" and arch == "61":
                continue
            path = folder / f"gpu_ptx_{program}_{arch}.ptx"
            wrong += look_at(path.name, path.read_text())
            for card in cards if ptxas else ():
                wrong += assemble(ptxas, path, card)
                n += 1
    print("\n".join(wrong) or f"{n} modules assembled, {len(CARDS) * len(PROGRAMS) - 1} looked at")
    if wrong:
        return 1
    if not ptxas:
        print("skipped: there is no ptxas (a CUDA toolkit, or the Python package nvidia-cuda-nvcc)")
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
