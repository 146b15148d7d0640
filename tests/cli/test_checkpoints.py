"""Small models of Hugging Face's form (tests/data/checkpoints, made by make_checkpoints.py): converted, and their logits beside those
that transformers computes in F32."""
import array
import base64
import json
import math
import subprocess
from pathlib import Path

import pytest

CHECKPOINTS = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
FOLDERS = sorted(path.name for path in CHECKPOINTS.iterdir()) if CHECKPOINTS.is_dir() else [
    pytest.param("", marks=pytest.mark.skip(reason="tests/data/make_checkpoints.py has not been run"))]
GAP = 1e-3  # of the reference's two largest logits: what is nearer may change places


@pytest.fixture(params=FOLDERS)
def checkpoint(request, runnel, tmp_path):
    """A folder's reference.json, and the model converted, with the ids in a file."""
    folder = CHECKPOINTS / request.param
    reference = json.loads((folder / "reference.json").read_text())
    done = subprocess.run([runnel, "convert", str(folder), str(tmp_path / "model.gguf"), "--type", "F32"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (tmp_path / "ids.json").write_text(json.dumps(reference["ids"]))
    return reference, tmp_path


def logits_in_steps(runnel, folder, chunk):
    done = subprocess.run([runnel, "logits", "-m", str(folder / "model.gguf"), "--ids", str(folder / "ids.json"), "-o",
                           str(folder / "out"), "--chunk", str(chunk)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return (folder / "out").read_bytes()


def rows_of(values, n):
    return [values[i * n:(i + 1) * n] for i in range(len(values) // n)]


def log_probabilities(row):
    largest = max(row)
    total = math.log(math.fsum(math.exp(value - largest) for value in row))
    return [value - largest - total for value in row]


def divergence(expected, found):
    expected, found = log_probabilities(expected), log_probabilities(found)
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(expected, found))


def test_logits_are_those_of_transformers(runnel, checkpoint):
    reference, folder = checkpoint
    expected = array.array("f", base64.b64decode(reference["logits"]))
    n_vocab = len(expected) // len(reference["positions"])
    found = rows_of(array.array("f", logits_in_steps(runnel, folder, 512)), n_vocab)
    assert len(found) == len(reference["ids"])
    divergences = []
    for position, row in zip(reference["positions"], rows_of(expected, n_vocab)):
        divergences.append(divergence(row, found[position]))
        first, second = sorted(row, reverse=True)[:2]
        if first - second > GAP:
            assert max(found[position]) == found[position][row.index(first)], f"after token {position}"
    assert sum(divergences) / len(divergences) < 1e-6, divergences


def test_steps_change_no_bit(runnel, checkpoint):
    _, folder = checkpoint
    expected = logits_in_steps(runnel, folder, 64)
    assert logits_in_steps(runnel, folder, 1) == expected and logits_in_steps(runnel, folder, 37) == expected
