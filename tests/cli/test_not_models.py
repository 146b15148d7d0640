"""Files in the place of a model that are none: a vocabulary without weights, an importance file. Each command says which of them it is."""
import subprocess

import pytest
from plain_model import write_text
from test_tokenize import vocabulary_alone
from told import told

VOCABULARY = "expected a model, found a vocabulary without weights"
OTHER_TYPE = 'expected a model (general.type "model"), found general.type "imatrix"'


def says(runnel, arguments, path, words):
    done = subprocess.run([runnel, *map(str, arguments)], input="[]", capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, told(done.stderr)) == (1, "", f"runnel: {path}: {words}\n"), done


@pytest.fixture
def commands(tmp_path):
    """By the model: what wants one with weights, and what a vocabulary will do for."""
    text, ids, out = write_text(tmp_path, 20), tmp_path / "ids.json", tmp_path / "out"
    ids.write_text("[1, 2, 3]")
    with_weights = lambda model: [
        ["run", "-m", model, "-p", "x"], ["serve", "-m", model, "--port", "0"], ["eval", "-m", model, "-f", text], ["bench", "-m", model],
        ["imatrix", "-m", model, "-f", text, "-o", out], ["logits", "-m", model, "--ids", ids, "-o", out], ["quantize", model, out, "Q8_0"]]
    return with_weights, lambda model: [["tokenize", "-m", model], ["template", "-m", model]]


def test_a_vocabulary(runnel, tiny, tmp_path, commands):
    path = vocabulary_alone(tmp_path / tiny(), tmp_path / "vocabulary.gguf")
    for arguments in commands[0](path):
        says(runnel, arguments, path, VOCABULARY)
    done = subprocess.run([runnel, "inspect", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"cannot run      {VOCABULARY}\n" in done.stdout, done
    assert subprocess.run([runnel, "tokenize", "-m", path], input="x", capture_output=True, text=True, timeout=60).returncode == 0


def test_an_importance_file(runnel, tiny, tmp_path, commands):
    path = tmp_path / "importance.gguf"
    assert subprocess.run([runnel, "imatrix", "-m", tiny(), "-f", write_text(tmp_path, 20), "-o", path], capture_output=True, timeout=120).returncode == 0
    for of in commands:
        for arguments in of(path):
            says(runnel, arguments, path, OTHER_TYPE)
    done = subprocess.run([runnel, "inspect", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"cannot run      {OTHER_TYPE}\n" in done.stdout, done
